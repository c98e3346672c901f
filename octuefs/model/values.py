"""Values of metadata: JSON, and the two types that JSON lacks (DESIGN 2.2), and how Python prints them.

In memory they are what `json` gives, `set` and `datetime`; stored they are JSON with objects that name a
`_type`. Sets are plain `set`s, as the SDK's are, so that filters behave the same on them. Nothing is deeper
than `MAX_DEPTH`, which every reader here enforces, so recursion over values is safe.
"""

import json
import reprlib
from collections.abc import Callable, Mapping
from datetime import datetime
from math import isfinite
from typing import Any

from octuefs.errors import BadValue

MAX_DEPTH = 100
"""Deepest nesting of lists and objects that counts as JSON; Python's own encoder gives up at a few hundred."""


CONTAINERS = (dict, list)
"""What JSON nests."""
_SCALARS = (str, int, float)

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 80


def shown(value: Any) -> str:
    """Return a value as a message shows it: its repr, of bounded length."""
    return _SHORT.repr(value)


class BareText(str):
    """A text of custom metadata that is no JSON; it is written back without quotes."""

    __slots__ = ()


class TooDeep(BadValue):
    """A value is nested deeper than `MAX_DEPTH`."""


def load_json(text: str) -> Any:
    """Parse JSON as Python does (NaN and Infinity too), without a look at its depth.

    :raise BadValue: where it is none, is too deep for the parser or holds a number of thousands of digits
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise TooDeep("it is nested too deeply") from None
    except ValueError as error:
        raise BadValue(f"it is no JSON ({error})") from None


def json_value(text: str) -> Any:
    """Parse JSON of bounded depth.

    :raise BadValue: where it is none
    """
    value = load_json(text)
    check_depth(value)
    return value


def check_depth(value: Any, limit: int = MAX_DEPTH) -> None:
    """Refuse JSON that is nested deeper than `limit`.

    :raise TooDeep: where it is
    """
    level = [value]
    for _ in range(limit + 1):
        level = [
            child
            for parent in level
            if isinstance(parent, CONTAINERS)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return
    raise TooDeep(f"it is nested deeper than {MAX_DEPTH} levels")


def read_datetime(text: Any) -> datetime:
    """Return the datetime of an ISO-8601 text.

    :raise BadValue: for anything else; dates in words, of which the SDK's parser reads many, are not guessed at
    """
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise BadValue(f"{shown(text)} is no ISO-8601 date and time") from None


def _revive_set(stored: Mapping[str, Any]) -> set[Any]:
    try:
        return set(stored["items"])
    except KeyError:
        raise BadValue("a set without 'items'") from None
    except TypeError:
        raise BadValue(f"a set cannot have the items {shown(stored['items'])}") from None


_READERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "set": _revive_set,
    "datetime": lambda stored: read_datetime(stored.get("value")),
}


def revive(value: Any) -> Any:
    """Return a copy of stored JSON in which the objects with a known `_type` are what they stand for.

    An unknown `_type` stays an object, as in the SDK. A malformed one of a known type makes the whole value
    bad: the SDK fails to load such a file, so there is no value of the SDK's to agree with.

    :raise BadValue: for a malformed set or datetime
    """
    if isinstance(value, dict):
        revived = {key: revive(item) if isinstance(item, CONTAINERS) else item for key, item in value.items()}
        if "_type" not in revived:
            return revived
        kind = revived["_type"]
        reader = _READERS.get(kind) if isinstance(kind, str) else None
        return reader(revived) if reader else revived
    if isinstance(value, list):
        return [revive(item) if isinstance(item, CONTAINERS) else item for item in value]
    return value


def stored_form(value: Any) -> Any:
    """Return the JSON that a value is stored as: the inverse of `revive`."""
    if value is None or isinstance(value, _SCALARS):
        return value
    if isinstance(value, datetime):
        return {"_type": "datetime", "value": value.isoformat()}
    if isinstance(value, set | frozenset):
        return {"_type": "set", "items": [stored_form(item) for item in _in_order(value)]}
    if isinstance(value, Mapping):
        return {key: stored_form(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [stored_form(item) for item in value]
    return value


def same(one: Any, other: Any) -> bool:
    """Say whether two values are stored as the same JSON: `1`, `1.0` and `true` differ, and so does the order."""
    return one is other or json.dumps(stored_form(one)) == json.dumps(stored_form(other))


def check_portable(value: Any) -> None:
    """Refuse a value of which a file of metadata could not be read by others: no JSON, or no datetime to the SDK.

    :raise BadValue: for NaN and infinite numbers, and for offsets with seconds, on which the SDK's parser fails
    """
    if isinstance(value, float) and not isfinite(value):
        raise BadValue(f"{value} is no number of JSON; quote it to store it as text")
    if isinstance(value, datetime):
        offset = value.utcoffset()
        if offset is not None and offset.total_seconds() % 60:
            raise BadValue(f"{value.isoformat()} has an offset with seconds, which the SDK cannot read")
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple | set | frozenset):
        return
    for item in value:
        check_portable(item)


def journal_form(value: Any) -> Any:
    """Return JSON from which `from_journal_form` makes the value again, whatever it holds.

    It is the stored form but for what that does not tell apart: bare texts, and objects with a `_type` that were
    never revived.
    """
    if isinstance(value, BareText):
        return {"_type": "text", "value": str(value)}
    if isinstance(value, Mapping):
        items = {key: journal_form(item) for key, item in value.items()}
        return {"_type": "object", "value": items} if "_type" in items else items
    if isinstance(value, list | tuple):
        return [journal_form(item) for item in value]
    if isinstance(value, set | frozenset):
        return {"_type": "set", "items": [journal_form(item) for item in _in_order(value)]}
    return stored_form(value)


def from_journal_form(value: Any) -> Any:
    """Return the value that `journal_form` was given; sets come back as `set`s.

    :raise BadValue: for a malformed set or datetime
    """
    if isinstance(value, list):
        return [from_journal_form(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("_type")
    if kind == "object":
        return {key: from_journal_form(item) for key, item in value["value"].items()}
    if kind == "text":
        return BareText(value["value"])
    items = {key: from_journal_form(item) for key, item in value.items()}
    return _READERS[kind](items) if kind is not None else items


def _in_order(items: set[Any] | frozenset[Any]) -> list[Any]:
    try:
        return sorted(items)
    except TypeError:
        # The SDK cannot write a set of mixed types; ours gets a stable order of its own.
        return sorted(items, key=lambda item: (type(item).__name__, repr(item)))


def sdk_repr(value: Any) -> str:
    """Return Python's repr of a value as the SDK has it in memory after loading it under TZ=UTC."""
    if isinstance(value, datetime):
        return _datetime_repr(value)
    if isinstance(value, set | frozenset):
        return _set_repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {sdk_repr(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(sdk_repr, value)) + "]"
    return repr(value)


def _set_repr(items: set[Any] | frozenset[Any]) -> str:
    if not items:
        return "set()"
    if all(isinstance(item, int | float) for item in items):
        # Numbers hash the same in every process, so the SDK always prints them in the set's own order.
        printed = [repr(item) for item in items]
    else:
        printed = sorted(map(sdk_repr, items))
    return "{" + ", ".join(printed) + "}"


def _datetime_repr(value: datetime) -> str:
    naive = repr(value.replace(tzinfo=None, fold=0))
    offset = value.utcoffset()
    if offset is None:
        return naive
    seconds = int(offset.total_seconds())
    # dateutil's zones, as its parser chooses them where the local zone is UTC.
    zone = f"tzoffset(None, {seconds})" if seconds else "tzlocal()"
    return f"{naive[:-1]}, tzinfo={zone})"
