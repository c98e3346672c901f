"""Numbers of bytes, and of bytes a second, as people write them: 500M, 1.5GiB, 10M:2M."""

import re

from octuefs.errors import BadValue

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])I?B?|B)?", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_OFF = "off"
_LEAST_RATE = 1024
_LARGEST = 1 << 62


def parse_size(text: str, option: str) -> int:
    """Return how many bytes a text means; K, M, G and T are powers of 1024, with or without "iB".

    :param option: what was given so, for the message
    :raise BadValue: where it means none
    """
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * 1024 ** _POWERS[(match[2] or "").upper()]) if match else -1
    if not 0 <= size <= _LARGEST:
        raise BadValue(f"{option} {text}: give a number of bytes, e.g. 500M, 20G or 1.5GiB")
    return size


def parse_rates(text: str, option: str) -> tuple[float | None, float | None]:
    """Return the bytes a second to send and to receive that "10M" (both) or "10M:2M" (up:down) means; None for "off".

    :raise BadValue: where it means none
    """
    parts = text.split(":")
    try:
        if len(parts) > 2:
            raise BadValue(text)
        rates = [None if part.strip().lower() == _OFF else float(parse_size(part, option)) for part in parts]
    except BadValue:
        raise BadValue(
            f"{option} {text}: give bytes per second, e.g. 10M for both ways, or 10M:2M and off:2M for up:down"
        ) from None
    if any(rate is not None and rate < _LEAST_RATE for rate in rates):
        raise BadValue(f"{option} {text}: less than 1K per second is none; 10M means 10 MiB per second")
    return rates[0], rates[-1]


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 file", "2,000 files"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size_text(size: int) -> str:
    """Return a number of bytes for people, in powers of 1024."""
    if size < 1024:
        return counted(size, "byte")
    value = float(size)
    units = iter(("KiB", "MiB", "GiB", "TiB", "PiB"))
    while value >= 1024:
        value /= 1024
        unit = next(units)
    return f"{value:.1f} {unit}"
