"""Orderings: `order-by/<attribute>` and `order-by/-<attribute>` (DESIGN 2.5).

Where the SDK refuses to sort (an attribute that some members lack, values that do not compare), there is an
order here too: numbers, text, datetimes, lists, and last, in both directions, what has no place.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from octuefs.errors import BadValue
from octuefs.model.attributes import AttributePath, Member, parse_path

MemberType = TypeVar("MemberType", bound=Member)
SortKey = tuple[int, Any]

_NUMBER, _TEXT, _DATETIME, _LIST, _NO_PLACE = range(5)


class BadOrdering(BadValue):
    """A text that no ordering of Octue's could ever be."""


@dataclass(frozen=True, slots=True)
class Ordering:
    """An attribute to sort by, and the direction; equal by what they do."""

    path: AttributePath
    descending: bool
    text: str = field(compare=False)
    """The ordering as it was written."""

    @property
    def attribute(self) -> str:
        """The attribute that is read, without what is below it."""
        return self.path.attribute

    def sort(self, members: Iterable[MemberType], path: Callable[[MemberType], bytes]) -> list[MemberType]:
        """Return members in order, ties by `path` ascending in both directions, those without a place last."""
        placed: list[tuple[SortKey, MemberType]] = []
        rest: list[MemberType] = []
        for member in sorted(members, key=path):
            key = _sort_key(self.path.of(member))
            if key[0] == _NO_PLACE:
                rest.append(member)
            else:
                placed.append((key, member))
        # A reversed sort keeps equal ones as they stand, so ties stay in the order of their paths.
        placed.sort(key=lambda pair: pair[0], reverse=self.descending)
        return [member for _, member in placed] + rest


def parse_ordering(text: str) -> Ordering:
    """Parse `[-]<attribute>`, nested names joined with "." or "__".

    :raise BadOrdering: for unknown attributes, and for `labels` and `tags` as wholes, which have no order
    """
    name = text.removeprefix("-")
    try:
        path = parse_path(".".join(name.split("__")))
    except BadValue as error:
        raise BadOrdering(f"{text!r} is no ordering: {error}") from None
    if path.keys in (("labels",), ("tags",)):
        raise BadOrdering(f"{text!r} is no ordering: {name} as a whole have no order")
    return Ordering(path, name != text, text)


def _sort_key(value: Any) -> SortKey:
    """Return (rank of the type, value to compare within it)."""
    if isinstance(value, int | float):
        return (_NO_PLACE, 0) if isinstance(value, float) and math.isnan(value) else (_NUMBER, value)
    if isinstance(value, str):
        return _TEXT, value
    if isinstance(value, datetime):
        return _DATETIME, value if value.utcoffset() is not None else value.replace(tzinfo=UTC)
    if isinstance(value, list):
        return _LIST, [_sort_key(item) for item in value]
    return _NO_PLACE, 0
