"""The attributes of a datafile that filters and orderings name, and how a dotted name is followed (DESIGN 2.5).

A name such as `tags.nested.0.height` is parsed once into an `AttributePath`; `of(member)` then follows it as
the SDK does: keys of objects, items of lists and characters of text by number, and a few parts of numbers
and datetimes by name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from octuefs.errors import BadValue


class Member(Protocol):
    """What filters and orderings read of a datafile, named as the SDK names it."""

    @property
    def name(self) -> str: ...
    @property
    def extension(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def timestamp(self) -> datetime | None: ...
    @property
    def size_bytes(self) -> int | None: ...
    @property
    def labels(self) -> frozenset[str]: ...
    @property
    def tags(self) -> Mapping[str, Any]: ...
    @property
    def hash_value(self) -> str: ...
    @property
    def metadata_hash_value(self) -> str: ...
    @property
    def local_path(self) -> str | None: ...
    @property
    def cloud_path(self) -> str | None: ...
    @property
    def exists_in_cloud(self) -> bool | None: ...
    @property
    def exists_locally(self) -> bool: ...


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()
"""What a path leads to where there is nothing; it is no value of any attribute."""

KINDS: Mapping[str, frozenset[str]] = {
    "name": frozenset({"text"}),
    "extension": frozenset({"text"}),
    "id": frozenset({"text"}),
    "timestamp": frozenset({"datetime", "none"}),
    "posix_timestamp": frozenset({"number", "none"}),
    "size_bytes": frozenset({"number", "none"}),
    "labels": frozenset({"labels"}),
    "tags": frozenset({"iterable"}),
    "hash_value": frozenset({"text"}),
    "metadata_hash_value": frozenset({"text"}),
    "local_path": frozenset({"text", "none"}),
    "cloud_path": frozenset({"text", "none"}),
    "exists_in_cloud": frozenset({"bool", "none"}),
    "exists_locally": frozenset({"bool"}),
}
"""Every attribute, with the kinds (see `kind_of`) that its value may have."""

_NUMBERS = ("year", "month", "day", "hour", "minute", "second", "microsecond", "fold")
_PARTS: Mapping[type, frozenset[str]] = {
    datetime: frozenset({*_NUMBERS, "tzinfo"}),
    bool: frozenset({"real", "imag", "numerator", "denominator"}),
    int: frozenset({"real", "imag", "numerator", "denominator"}),
    float: frozenset({"real", "imag"}),
}
"""What a value of some type has by name; the SDK reaches these too, being Python's own attributes."""

_TIMESTAMP_KINDS: Mapping[str, frozenset[str]] = {
    **{part: frozenset({"number"}) for part in _NUMBERS},
    "tzinfo": frozenset({"none"}),
}
_ANY_KIND = frozenset({"text", "datetime", "none", "number", "bool", "iterable"})

# The grammar of pydash, which the SDK follows names with: dots, `\.` for a dot in a key, `[0]` for an item.
_TOKEN = re.compile(r"(?P<index>\[-?\d+\])|(?P<dot>\.)|(?P<key>(?:\\.|(?!\[-?\d+\])[^.])+)", re.DOTALL)
_ESCAPE = re.compile(r"\\([\\.])")


@dataclass(frozen=True, slots=True)
class AttributePath:
    """A dotted name that some datafile could have; `keys` begins with the attribute itself."""

    keys: tuple[str | int, ...]
    kinds: frozenset[str]
    """The kinds that the value may have where there is one."""

    @property
    def attribute(self) -> str:
        """The attribute's own name."""
        return str(self.keys[0])

    def of(self, member: Member) -> Any:
        """Return the value that the path leads to, or MISSING."""
        value = _read(member, self.attribute)
        for key in self.keys[1:]:
            value = _step(value, key)
            if value is MISSING:
                return MISSING
        return value


def parse_path(name: str) -> AttributePath:
    """Parse a dotted name.

    :raise BadValue: where no datafile can ever have such an attribute
    """
    keys = _keys(name)
    root = keys[0]
    if root not in KINDS:
        raise BadValue(f"datafiles have no attribute {root!r}; there are {', '.join(KINDS)}")
    if len(keys) == 1:
        return AttributePath(keys, KINDS[str(root)])
    if root == "tags":
        return AttributePath(keys, _ANY_KIND)
    if root == "timestamp" and len(keys) == 2 and keys[1] in _TIMESTAMP_KINDS:
        return AttributePath(keys, _TIMESTAMP_KINDS[str(keys[1])])
    raise BadValue(f"there is nothing called {name!r}: only tags have values of any name inside")


def _keys(name: str) -> tuple[str | int, ...]:
    if "." not in name and "[" not in name:
        return (name,)
    keys: list[str | int] = []
    awaiting_key = True
    for token in _TOKEN.finditer(name):
        if token["index"]:
            keys.append(_number(token["index"][1:-1]))
            awaiting_key = False
        elif token["dot"]:
            if awaiting_key:
                keys.append("")
            awaiting_key = True
        else:
            keys.append(_ESCAPE.sub(r"\1", token["key"]))
            awaiting_key = False
    if awaiting_key:
        keys.append("")
    return tuple(keys)


def _number(text: str) -> str | int:
    try:
        return int(text)
    except ValueError:  # thousands of digits: no list has such an item
        return text


def kind_of(path: AttributePath, value: Any) -> str | None:
    """Return the kind of a value that `path` led to: what actions there are for it; None for no actions."""
    if path.keys == ("labels",):
        return "labels"
    for type_, kind in _KIND_BY_TYPE:
        if isinstance(value, type_):
            return kind
    return None


_KIND_BY_TYPE: tuple[tuple[type, str], ...] = (
    (str, "text"),
    (bool, "bool"),
    (int, "number"),
    (float, "number"),
    (type(None), "none"),
    (datetime, "datetime"),
    (list, "iterable"),
    (Mapping, "iterable"),
    (set, "iterable"),
    (frozenset, "iterable"),
)


def _read(member: Member, attribute: str) -> Any:
    if attribute != "posix_timestamp":
        return getattr(member, attribute)
    timestamp = member.timestamp
    if timestamp is None:
        return None
    try:
        return timestamp.timestamp()
    except (ValueError, OverflowError, OSError):  # a naive time near the ends of the calendar
        return MISSING


def _step(value: Any, key: str | int) -> Any:
    if isinstance(value, Mapping):
        return value.get(key, MISSING)
    if isinstance(value, list | str):
        try:
            return value[int(key)]
        except (ValueError, IndexError):
            return MISSING
    if key in _PARTS.get(type(value), ()):
        return getattr(value, str(key))
    return MISSING
