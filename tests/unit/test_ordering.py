"""Orderings of datafiles."""

import contextlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octuefs.errors import BadValue
from octuefs.model.ordering import BadOrdering, parse_ordering


@dataclass(frozen=True)
class AMember:
    """A datafile as orderings see it; `path` breaks ties."""

    path: str
    tags: dict[str, Any] = field(default_factory=dict)
    timestamp: datetime | None = None
    size_bytes: int | None = 0
    labels: frozenset[str] = frozenset()
    extension: str = ""
    id: str = ""
    hash_value: str = ""
    metadata_hash_value: str = ""
    local_path: str | None = None
    cloud_path: str | None = None
    exists_in_cloud: bool | None = None
    exists_locally: bool = True

    @property
    def name(self) -> str:
        return self.path


def path_of(member: AMember) -> bytes:
    return member.path.encode()


def order_of(text: str, values: list[Any]) -> list[Any]:
    """Return the values of the tag `x` in the order given by `text`; `...` stands for a file without it."""
    members = [AMember(f"{row:04}", {} if value is ... else {"x": value}) for row, value in enumerate(values)]
    return [member.tags.get("x", ...) for member in parse_ordering(text).sort(members, path_of)]


NAIVE = datetime(2021, 3, 4)
AWARE = datetime(2021, 3, 4, 1, tzinfo=UTC)
MIXED = [2.5, -1, True, 10**400, "b", "", AWARE, NAIVE, ["b"], [1, "x"], [1, 2]]
IN_ORDER = [-1, True, 2.5, 10**400, "", "b", NAIVE, AWARE, [1, 2], [1, "x"], ["b"]]
WITHOUT_A_PLACE = [None, ..., {"a": 1}, {1}]


def test_numbers_come_before_text_before_times_before_lists() -> None:
    assert order_of("tags.x", MIXED) == IN_ORDER


def test_descending_is_the_reverse() -> None:
    assert order_of("-tags.x", MIXED) == IN_ORDER[::-1]


@pytest.mark.parametrize("text", ["tags.x", "-tags.x"])
def test_what_has_no_place_comes_last_in_both_directions(text: str) -> None:
    assert order_of(text, [*WITHOUT_A_PLACE, 1])[1:] == WITHOUT_A_PLACE
    assert order_of(text, [float("nan"), 1])[0] == 1


@pytest.mark.parametrize("text", ["size_bytes", "-size_bytes"])
def test_ties_are_broken_by_path_ascending_in_both_directions(text: str) -> None:
    members = [AMember(path) for path in ("b", "a.b", "a", "ü", "a/b", "Z")]
    found = [member.path for member in parse_ordering(text).sort(reversed(members), path_of)]
    assert found == ["Z", "a", "a.b", "a/b", "b", "ü"]


def test_times_without_a_zone_are_utc() -> None:
    aware = datetime.fromisoformat("2021-01-01T03:30+02:00")
    times = [datetime(2021, 1, 1, 3), aware, datetime(2021, 1, 1, 2, tzinfo=UTC)]
    members = [AMember(str(row), timestamp=moment) for row, moment in enumerate([*times, None])]
    assert [member.path for member in parse_ordering("timestamp").sort(members, path_of)] == ["1", "2", "0", "3"]
    assert [member.path for member in parse_ordering("-timestamp").sort(members, path_of)] == ["0", "2", "1", "3"]


def test_lists_may_hold_what_has_no_place() -> None:
    assert order_of("tags.x", [[None], [1], [{}, 1], []]) == [[], [1], [None], [{}, 1]]


@pytest.mark.parametrize("text", ["tags.x.0", "tags__x__0", "tags.x[0]"])
def test_names_may_be_nested(text: str) -> None:
    assert order_of(text, [[2], [1], "0", ...]) == [[1], [2], "0", ...]


@pytest.mark.parametrize("text", ["", "-", "--name", "nmae", "labels", "-labels", "tags", "labels.a", "name.x", "x"])
def test_what_no_ordering_could_mean_is_refused(text: str) -> None:
    with pytest.raises(BadOrdering):
        parse_ordering(text)


@pytest.mark.parametrize(
    "attribute",
    [
        "name",
        "extension",
        "id",
        "timestamp",
        "timestamp.year",
        "posix_timestamp",
        "size_bytes",
        "hash_value",
        "metadata_hash_value",
        "local_path",
        "cloud_path",
        "exists_in_cloud",
        "exists_locally",
        "tags.a",
        "tags.labels",
    ],
)
def test_every_other_attribute_can_be_ordered_by(attribute: str) -> None:
    for text, descending in ((attribute, False), (f"-{attribute}", True)):
        ordering = parse_ordering(text)
        assert (ordering.text, ordering.descending) == (text, descending)
        assert ordering.attribute == attribute.split(".", maxsplit=1)[0]
        assert ordering.sort([AMember("a"), AMember("b", timestamp=NAIVE)], path_of)


def test_an_ordering_is_a_value() -> None:
    assert parse_ordering("tags.a") == parse_ordering("tags__a") != parse_ordering("-tags.a")
    assert hash(parse_ordering("tags.a")) == hash(parse_ordering("tags__a"))
    assert issubclass(BadOrdering, BadValue)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
values = st.recursive(
    scalars | st.datetimes(timezones=st.none() | st.just(UTC)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=5,
)


@given(st.lists(values | st.just(...), max_size=8), st.permutations(range(8)))
def test_the_order_does_not_depend_on_where_one_begins(found: list[Any], shuffle: list[int]) -> None:
    members = [AMember(str(row), {} if value is ... else {"x": value}) for row, value in enumerate(found)]
    shuffled = [members[row] for row in shuffle if row < len(members)]
    for text in ("tags.x", "-tags.x"):
        ordering = parse_ordering(text)
        ordered = ordering.sort(members, path_of)
        # By identity: NaN, inside a tag, does not equal itself.
        assert list(map(id, ordered)) == list(map(id, ordering.sort(shuffled, path_of)))
        assert sorted(map(path_of, ordered)) == sorted(map(path_of, members))


@given(st.text(max_size=20))
def test_parsing_raises_nothing_but_bad_ordering(text: str) -> None:
    with contextlib.suppress(BadOrdering):
        parse_ordering(text)
