"""Points between names, at which a range of names may be split. Pure: strings in, strings out."""

from collections.abc import Sequence

_SAMPLES = 32
"""How many names of a page are looked at."""
_ENOUGH = 10
"""So many different characters at a place are taken for all that occur there; fewer for some of their kind."""
_KINDS = ("0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_NEAR = 4096
"""So many characters of a script lie close together."""
_LAST = 0x10FFFF


class Sample:
    """What a page tells of names: where they differ, and which characters stand there."""

    __slots__ = ("_last", "_names", "place", "varied")

    def __init__(self, names: Sequence[str]) -> None:
        """Look at some of `names`, which are in order and at least one."""
        self._last = names[-1]
        self._names = names[:: max(1, len(names) // _SAMPLES)]
        self.place = common(names[0], names[-1])
        """The first place at which names of the page differ."""
        self.varied: tuple[int, ...] = (self.place,) if len(names) > 1 else ()

    def alphabet(self, place: int, high: str = "") -> list[str]:
        """Return characters that may stand at a place of the names, in order; `high` is beyond them where it is given.

        These are the ones seen in the same word (of ASCII letters and digits) of other names, and where these are few,
        all of the kind of the last name's; of what is not ASCII some that come after the last name's.
        """
        begin = end = place
        last = self._last
        while begin > 0 and begin <= len(last) and _is_plain(last[begin - 1 : begin]):
            begin -= 1
        while end < len(last) and _is_plain(last[end]):
            end += 1
        seen = {character for name in self._names for character in name[begin : max(end, place + 1)]}
        here = last[place : place + 1]
        if here > "\x7f":
            seen = set(_ahead(ord(here), ord(high) if high else None))
        elif len(seen) < _ENOUGH:
            seen.update(next((kind for kind in _KINDS if here and here in kind), ""))
        return sorted(seen)


def common(one: str, other: str) -> int:
    """Return how many characters two names have in common at their beginnings."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def successor(text: str) -> str | None:
    """Return a text after all that begin with `text`, with nothing usual in between; None where there is none."""
    following = _usual(ord(text[-1]) + 1, _LAST + 1) if text else None
    return None if following is None else text[:-1] + chr(following)


def between(low: str, high: str | None) -> str | None:
    """Return a text after `low` and before `high` (None: the end), about in the middle; None where none is found."""
    place = 0 if high is None else common(low, high)
    for at in range(place, len(low) + 1):
        least = ord(low[at]) if at < len(low) else -1
        most = _LAST + 1
        if at == place and high is not None:
            most = ord(high[at])
        found = _usual((least + (0x80 if least < 0x7E and most > 0x80 else most)) // 2 + (least < 0), most)
        if found is not None and found > least:
            return low[:at] + chr(found)
        if at == place and high is not None and len(high) > at + 1:
            return high[: at + 1]
    return None


def _ahead(low: int, high: int | None) -> list[str]:
    """Return characters after one: evenly before `high` where that is near, or further and further away."""
    near = high - low if high is not None else _NEAR + 1
    steps = range(1, near, max(1, near // 16)) if near <= _NEAR else [1 << power for power in range(4, 15)]
    found = [_usual(low + step, _LAST + 1) for step in steps]
    return [chr(number) for number in found if number is not None]


def _usual(number: int, most: int) -> int | None:
    """Return a character at `number` or after it, before `most`, that a text may have: no control and no surrogate."""
    if number < 0x20:
        number = 0x20
    if 0x7F <= number < 0xA0:
        number = 0xA0
    if 0xD800 <= number <= 0xDFFF:
        number = 0xE000
    if number & 0xFFFE == 0xFFFE or 0xFDD0 <= number <= 0xFDEF:
        number = 0xFDF0 if number < 0xFDF0 else number + 2 - (number & 1)
    return number if number < most and number <= _LAST else None


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isalnum()
