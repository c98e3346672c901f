"""Filters: `filter/<attribute>[__<key>...]__<action>=<value>` as predicates on datafiles (DESIGN 2.5).

Text enters, a `Filter` leaves: a hashable value that says yes or no to a member and never raises. What an
action does is a table of small functions by the kind of the attribute's value; where Python raises in one of
them the SDK raises too, and such a member does not match, negated actions included.
"""

import json
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import Any
from urllib.parse import unquote

from octuefs.errors import BadValue
from octuefs.model.attributes import MISSING, AttributePath, Member, kind_of, parse_path
from octuefs.model.values import json_value, read_datetime, revive

__all__ = ["BadFilter", "Filter", "Member", "parse_filter", "parse_filters"]

Action = Callable[[Any, Any], bool]
Actions = dict[str, Action]


class BadFilter(BadValue):
    """A text that no filter of Octue's could ever be."""


# --- what the actions do: (value of the attribute, value of the filter) -> bool


def _negated(action: Action) -> Action:
    return lambda item, value: not action(item, value)


def _with_negations(actions: Actions) -> Actions:
    """Return actions and their opposites: `is_not` for `is`, `not_<name>` for the others."""
    opposites = {"is_not" if name == "is" else f"not_{name}": _negated(act) for name, act in actions.items()}
    return {**actions, **opposites}


def _is(item: Any, value: Any) -> bool:
    # Python's identity, for values that come out of JSON: the constants are one object each, numbers are cached
    # or not as Python pleases, so those of one type and value count as the same.
    if item is None or isinstance(item, bool):
        return item is value
    return type(item) is type(value) and isinstance(item, int | float) and bool(item == value)


def _equals(item: Any, value: Any) -> bool:
    return bool(value == item)


def _any_label(test: Callable[[str, Any], bool]) -> Action:
    return lambda labels, value: any(test(label, value) for label in labels)


def _same_clock(item: Any, value: Any) -> tuple[Any, Any]:
    """Give the one that has no offset that of UTC, where just one of two datetimes or times has none."""
    both = datetime | time
    if isinstance(item, both) and isinstance(value, both):
        if item.utcoffset() is None and value.utcoffset() is not None:
            return item.replace(tzinfo=UTC), value
        if item.utcoffset() is not None and value.utcoffset() is None:
            return item, value.replace(tzinfo=UTC)
    return item, value


def _compare(comparison: Callable[[Any, Any], bool]) -> Action:
    return lambda item, value: comparison(*_same_clock(item, value))


_at_most = _compare(operator.le)


def _in_range(item: Any, value: Any) -> bool:
    return _at_most(value[0], item) and _at_most(item, value[1])


def _part_actions(name: str, part: Callable[[datetime], Any]) -> Actions:
    return {
        f"{name}_equals": lambda item, value: part(item) == value,
        f"{name}_in": lambda item, value: part(item) in value,
    }


_EQUALITY: Actions = {"is": _is, "equals": _equals}
_COMPARISONS: Actions = {
    "lt": _compare(operator.lt),
    "lte": _compare(operator.le),
    "gt": _compare(operator.gt),
    "gte": _compare(operator.ge),
}
_CONTAINS: Actions = {
    "contains": lambda item, value: value in item,
    # Of containers only text has a casefold: this raises for the others, as it does in the SDK.
    "icontains": lambda item, value: value.casefold() in item.casefold(),
}

_SCALAR = _with_negations(_EQUALITY)
_NUMBER = {**_with_negations({**_EQUALITY, "in_range": _in_range}), **_COMPARISONS}

ACTIONS: Mapping[str, Actions] = {
    "bool": _SCALAR,
    "none": _SCALAR,
    "number": _NUMBER,
    "text": {
        **_NUMBER,
        **_with_negations(
            {
                **_CONTAINS,
                "iequals": lambda item, value: value.casefold() == item.casefold(),
                "starts_with": lambda item, value: item.startswith(value),
                "ends_with": lambda item, value: item.endswith(value),
            }
        ),
    },
    "labels": _with_negations(
        {
            **_EQUALITY,
            "contains": _CONTAINS["contains"],
            "any_label_contains": _any_label(lambda label, value: value in label),
            "any_label_starts_with": _any_label(lambda label, value: label.startswith(value)),
            "any_label_ends_with": _any_label(lambda label, value: label.endswith(value)),
        }
    ),
    "datetime": {
        **_NUMBER,
        **_part_actions("year", lambda item: item.year),
        **_part_actions("month", lambda item: item.month),
        **_part_actions("day", lambda item: item.day),
        **_part_actions("weekday", lambda item: item.weekday()),
        **_part_actions("iso_weekday", lambda item: item.isoweekday()),
        **_part_actions("time", lambda item: item.time()),
        **_part_actions("hour", lambda item: item.hour),
        **_part_actions("minute", lambda item: item.minute),
        **_part_actions("second", lambda item: item.second),
        "in_date_range": lambda item, value: _in_range(item.date(), value),
        "in_time_range": lambda item, value: _in_range(item.time(), value),
    },
    "iterable": _with_negations({**_EQUALITY, **_CONTAINS}),
}
"""The actions by the kind of the attribute's value (`attributes.kind_of`)."""

_RAISED = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What the functions above raise on values that they cannot take."""


# --- the value of a filter, as the kind of the attribute needs it


def _read_date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return read_datetime(text).date()


_READERS: Mapping[str, Callable[[str], Any]] = {
    "in_date_range": _read_date,
    "in_time_range": time.fromisoformat,
    "time_equals": time.fromisoformat,
    "time_in": time.fromisoformat,
}
"""How actions on datetimes read ISO-8601 text; the others read a date with a time."""


def _read_moments(value: Any, read: Callable[[str], Any]) -> Any:
    """Return a text, or the texts in a list, read as ISO-8601; what is none stays as it is."""
    if isinstance(value, list):
        return [_read_moments(item, read) for item in value]
    if not isinstance(value, str):
        return value
    try:
        return read(value)
    except ValueError:
        return value


@dataclass(frozen=True, slots=True)
class _Value:
    """A filter's value as written, and what it is in JSON (plain text where it is none)."""

    text: str
    plain: Any = field(compare=False)

    def for_kind(self, kind: str, action: str) -> Any:
        """Return the value to compare with an attribute of this kind."""
        if kind in ("text", "labels"):
            return self.text if isinstance(self.plain, int | float | dict | None) else self.plain
        if kind == "datetime":
            return _read_moments(self.plain, _READERS.get(action, read_datetime))
        return self.plain


def _parse_value(text: str) -> _Value:
    try:
        plain = json_value(text)
    except BadValue:
        return _Value(text, text)
    try:
        return _Value(text, revive(plain))
    except BadValue:
        return _Value(text, plain)


# --- filters


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on datafiles. Equal where the expression is, hashable; made by `parse_filter`."""

    text: str
    """The expression, without percent-encoding."""
    attribute: str
    """The attribute that is read, without what is below it."""
    _value: _Value = field(repr=False)
    _path: AttributePath | None = field(repr=False)
    """What the action applies to; None where the name has no action or no kind has it."""
    _action: str = field(repr=False)
    _whole: AttributePath | None = field(repr=False)
    """The whole dotted name, for the short form of equality; None where there cannot be such an attribute."""

    def matches(self, member: Member) -> bool:
        """Say whether a datafile satisfies the filter; where the SDK would raise for it, it does not."""
        if self._path is not None:
            item = self._path.of(member)
            if item is MISSING:
                return False
            result = self._apply(self._path, item, self._action)
            if result is not None:
                return result
        if self._whole is not None:
            item = self._whole.of(member)
            return item is not MISSING and bool(self._apply(self._whole, item, "equals"))
        return False

    def _apply(self, path: AttributePath, item: Any, name: str) -> bool | None:
        """Return the result of an action, None where values of this kind do not have it."""
        kind = kind_of(path, item)
        action = ACTIONS[kind].get(name) if kind else None
        if kind is None or action is None:
            return None
        try:
            return bool(action(item, self._value.for_kind(kind, name)))
        except _RAISED:
            return False


def parse_filter(text: str) -> Filter:
    """Parse `<attribute>[__<key>...][__<action>]=<value>`, without percent-encoding.

    :raise BadFilter: for what no attribute or action could ever mean
    """
    name, separator, value = text.partition("=")
    if not separator:
        raise BadFilter(f"{text!r} is no filter: write <attribute>__<action>=<value>")
    return _filter(name, value)


def _filter(name: str, value: str) -> Filter:
    *names, action = name.split("__")
    path, reason = _path_or_reason(".".join(names)) if names else (None, "")
    if path is not None and not any(action in ACTIONS[kind] for kind in path.kinds):
        reason = f"there is no action {action!r} for {'.'.join(names)}"
        path = None
    whole, whole_reason = _path_or_reason(".".join((*names, action)))
    known = path or whole
    if known is None:
        raise BadFilter(f"{name}={value} is no filter: {reason or whole_reason}")
    # A name whose value can never have the action still asks for the attribute first: where that is missing
    # the SDK does not look for the whole name either, but then the whole name is missing too.
    return Filter(f"{name}={value}", known.attribute, _parse_value(value), path, action, whole)


def _path_or_reason(name: str) -> tuple[AttributePath | None, str]:
    try:
        return parse_path(name), ""
    except BadValue as error:
        return None, str(error)


def parse_filters(component: str) -> tuple[Filter, ...]:
    """Parse `<expression>[,<expression>...]`, a path's component, with "/", "," and "%" in values percent-encoded.

    A value that begins with [, { or " reaches to the end of its JSON, commas included.

    :raise BadFilter: for what no attribute or action could ever mean, and for an empty expression
    """
    filters = []
    start = 0
    while True:
        equals = component.find("=", start)
        if equals < 0:
            raise BadFilter(f"{component[start:]!r} is no filter: write <attribute>__<action>=<value>")
        end = _end_of_value(component, equals + 1)
        filters.append(_filter(_decoded(component[start:equals]), _decoded(component[equals + 1 : end])))
        if end == len(component):
            return tuple(filters)
        start = end + 1


_DECODER = json.JSONDecoder()


def _end_of_value(component: str, start: int) -> int:
    """Return where the comma after a value stands, or the component's end."""
    if component[start : start + 1] in ("[", "{", '"'):
        try:
            _, end = _DECODER.raw_decode(component, start)
        except (ValueError, RecursionError):
            pass
        else:
            if component[end : end + 1] in ("", ","):
                return end
    comma = component.find(",", start)
    return len(component) if comma < 0 else comma


def _decoded(text: str) -> str:
    return unquote(text, errors="surrogateescape")
