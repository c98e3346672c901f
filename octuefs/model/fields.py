"""The fields of metadata, one by one: what may be stored in each, and how each is written as text (DESIGN 2.1, 3.1).

`parse_<field>` takes what is stored (JSON, or what a program hands over) and returns the field's value, or
raises BadValue with a reason that a user understands. The `<field>_text` functions write values for people, the
`parse_<field>_text` ones read what people write; they are strict where a stored value could do harm to other readers.
"""

import json
import re
import sys
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from octuefs.errors import BadValue
from octuefs.model.values import (
    TooDeep,
    check_depth,
    check_portable,
    json_value,
    read_datetime,
    revive,
    shown,
    stored_form,
)

NO_TAGS: Final[Mapping[str, Any]] = {}
"""The one empty mapping that all records without tags share; never written to."""
NO_LABELS: Final[frozenset[str]] = frozenset()

_CANONICAL_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
# As in the SDK: with `match`, the final `$` lets a line feed pass at the end of a key.
_TAG_KEY = re.compile(r"^[a-z0-9][a-z0-9_]*(?<!_)$")
_POSIX_SECONDS = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")
_EPOCH = datetime.fromtimestamp(0, UTC)


def parse_id(value: Any) -> str | None:
    """Return an ID in its canonical form; None stays None.

    :raise BadValue: for what is no UUID
    """
    if value is None:
        return None
    if isinstance(value, str):
        if _CANONICAL_ID.fullmatch(value):
            return value
        try:
            return str(uuid.UUID(value))
        except ValueError:
            pass
    raise BadValue(f"{shown(value)} is no UUID")


def parse_name(value: Any) -> str | None:
    """Return a dataset's name; none, and an empty one, is None.

    :raise BadValue: for what is no text
    """
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    raise BadValue(f"{shown(value)} is no text")


def parse_sdk_version(value: Any) -> str | None:
    """Return the version of the SDK that wrote a record; None stays None.

    :raise BadValue: for what is no text
    """
    if value is None:
        return None
    if isinstance(value, str):
        return sys.intern(str(value))
    raise BadValue(f"{shown(value)} is no text")


def parse_labels(value: Any) -> frozenset[str]:
    """Return the labels that an iterable, or a text (a JSON list, else split at whitespace) names.

    Nothing and whatever is false in Python is no labels, as in the SDK.

    :raise BadValue: where one of them is no label, or the value no iterable
    """
    if not value:
        return NO_LABELS
    if isinstance(value, str):
        value = _labels_in_text(value)
    if not isinstance(value, Iterable):
        raise BadValue(f"{shown(value)} is no list of labels")
    return frozenset(map(_parse_label, value)) or NO_LABELS


def _labels_in_text(text: str) -> list[Any]:
    if text.lstrip().startswith("["):
        try:
            parsed = json_value(text)
        except BadValue:
            return text.split()
        if isinstance(parsed, list):
            return parsed
    return text.split()


def _parse_label(value: Any) -> str:
    if not isinstance(value, str):
        raise BadValue(f"{shown(value)} is no label: labels are text")
    label = value.strip()
    if not _LABEL.fullmatch(label):
        raise BadValue(f"{shown(label)} is no label: write a-z, 0-9 and '-', with no '-' at the ends")
    return sys.intern(label)


def parse_tags(value: Any) -> Mapping[str, Any]:
    """Return tags with their `_type` objects revived, in the order given; None and an empty list are none.

    :raise BadValue: for what is no object, a bad key, or a malformed `_type` object
    """
    # No key of a tag is `_type`, so what comes back is a mapping still.
    tags: Mapping[str, Any] = revive(dict(check_tags(value)))
    return tags or NO_TAGS


def check_tags(value: Any) -> Mapping[str, Any]:
    """Return tags as they are, `_type` objects included, as the SDK has those of a cloud dataset.

    :raise BadValue: for what is no object, or a bad key
    """
    if value is None or value == [] or value == "":
        return NO_TAGS
    if not isinstance(value, Mapping):
        raise BadValue(f"{shown(value)} is no object")
    for key in value:
        check_tag_key(key)
    return value or NO_TAGS


def check_tag_key(key: Any) -> None:
    """Refuse what cannot be a tag's key.

    :raise BadValue: with the reason
    """
    if not isinstance(key, str) or not _TAG_KEY.match(key):
        raise BadValue(f"{shown(key)} is no tag's key: write a-z, 0-9 and '_', with no '_' at the ends")


def parse_timestamp(value: Any) -> datetime | None:
    """Return a stored timestamp: a datetime, or a number of POSIX seconds as naive local time; None stays None.

    :raise BadValue: for text and everything else, and for a number beyond the calendar
    """
    if value is None or isinstance(value, datetime):
        return value
    if isinstance(value, int | float):
        try:
            return datetime.fromtimestamp(value)
        except (ValueError, OverflowError, OSError):
            raise BadValue(f"{shown(value)} seconds are beyond the calendar") from None
    raise BadValue(f"{shown(value)} is no timestamp")


# --- as text, for extended attributes


def parse_tags_text(text: str, *, revive_types: bool = True) -> Mapping[str, Any]:
    """Return the tags of a JSON object written as text, with its `_type` objects revived or as they are.

    :raise BadValue: where it is none
    """
    value = json_value(text)
    if not isinstance(value, dict):
        raise BadValue(f'{shown(value)} is no object: write {{"key": value}}')
    tags = parse_tags(value) if revive_types else check_tags(value)
    check_portable(tags)
    return tags


def parse_tag_text(text: str, *, revive_types: bool = True) -> Any:
    """Return the value of one tag written as text: JSON where it parses, else the text itself.

    :raise BadValue: for a malformed `_type` object, and for JSON that others could not read
    """
    try:
        value = json_value(text)
    except TooDeep:
        raise
    except BadValue:
        return text
    check_depth([value])  # it lies in the object of all tags
    if revive_types:
        value = revive(value)
    check_portable(value)
    return value


def parse_timestamp_text(text: str) -> datetime:
    """Return the timestamp of an ISO-8601 text, or of POSIX seconds (as a UTC datetime).

    :raise BadValue: for any other text
    """
    text = text.strip()
    if _POSIX_SECONDS.fullmatch(text):
        try:
            # Not by way of a float: it would lose microseconds.
            return _EPOCH + timedelta(microseconds=round(Decimal(text) * 1_000_000))
        except (ArithmeticError, ValueError):
            raise BadValue(f"{shown(text)} seconds are beyond the calendar") from None
    timestamp = read_datetime(text)
    check_portable(timestamp)
    return timestamp


def labels_text(labels: Iterable[str]) -> str:
    """Return labels sorted and separated by spaces."""
    return " ".join(sorted(labels))


def tags_text(tags: Mapping[str, Any]) -> str:
    """Return tags as a JSON object in ASCII, keys sorted."""
    return json.dumps(stored_form(tags), sort_keys=True)


def tag_text(value: Any) -> str:
    """Return one tag's value as text: strings bare, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(stored_form(value))


def timestamp_text(value: datetime) -> str:
    """Return a timestamp in ISO-8601."""
    return value.isoformat()
