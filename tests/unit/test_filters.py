"""Filters: what they mean for one datafile at a time, and how they are written in paths."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from octuefs.errors import BadValue
from octuefs.model.filters import ACTIONS, BadFilter, parse_filter, parse_filters
from octuefs.model.values import stored_form

NAIVE = datetime(2021, 3, 4, 5, 6, 7)
"""A Thursday."""
AWARE = datetime(2021, 3, 4, 5, 6, 7, tzinfo=UTC)


@dataclass(frozen=True)
class AMember:
    """A datafile as filters see it."""

    name: str = "f1_data.csv"
    extension: str = "csv"
    id: str = "fe79768a-957e-4408-ae71-8391b2dba676"
    timestamp: datetime | None = None
    size_bytes: int | None = 5
    labels: frozenset[str] = frozenset()
    tags: Mapping[str, Any] = field(default_factory=dict)
    hash_value: str = "AAAAAA=="
    metadata_hash_value: str = "mShxrQ=="
    local_path: str | None = "/data/f1_data.csv"
    cloud_path: str | None = None
    exists_in_cloud: bool | None = None
    exists_locally: bool = True


TAGS = {
    "cluster": 3,
    "ratio": 2.5,
    "ok": True,
    "nothing": None,
    "maker": "Vestas",
    "serial": "2024",
    "list": [1, "two", {"k c": "x"}, [7]],
    "nested": {"a": {"b": 2}, "x.y": 1, "[0]": 5},
    "set": {"a", "b"},
    "when": NAIVE,
    "contains": "tag",
    "a__b": 1,
}
TAGGED = AMember(tags=TAGS)
LABELLED = AMember(labels=frozenset({"a", "one", "2024"}))


@pytest.mark.parametrize(
    "text",
    [
        "name=f1_data.csv",
        'name="f1_data.csv"',
        "name__equals=f1_data.csv",
        "name__iequals=F1_DATA.csv",
        "name__not_equals=x",
        "name__contains=data",
        "name__icontains=DATA",
        "name__starts_with=f1",
        "name__ends_with=.csv",
        "name__not_ends_with=.txt",
        'name__in_range=["f1","f4"]',
        "name__lt=f3",
        "name__in_range=az",
        "name__is_not=f1_data.csv",
        "name__not_contains=2024",
        "extension=csv",
        "extension__not_equals=",
        "id__starts_with=fe79",
        "hash_value=AAAAAA==",
        "metadata_hash_value__equals=mShxrQ==",
        "size_bytes=5",
        "size_bytes__is=5",
        "size_bytes__is_not=5.0",
        "size_bytes=5.0",
        "size_bytes__gt=4",
        "size_bytes__gte=5",
        "size_bytes__lt=5.5",
        "size_bytes__lte=5",
        "size_bytes__in_range=[1,5]",
        "size_bytes__not_in_range=[6,7]",
        "size_bytes__not_equals=five",
        "exists_locally=true",
        "exists_locally__is=true",
        "exists_in_cloud=null",
        "exists_in_cloud__is=null",
        "exists_in_cloud__is_not=false",
        "cloud_path__is=null",
        "local_path__starts_with=/data/",
        "timestamp__is=null",
        "posix_timestamp__is=null",
        "timestamp=null",
        "timestamp__is_not=2021-03-04",
        "labels__not_contains=a",
        "labels__is_not=null",
        "labels__not_any_label_contains=a",
        "labels__not_any_label_starts_with=[1]",
        'labels={"_type":"set","items":[]}',
        "tags={}",
        "tags__not_contains=a",
    ],
)
def test_a_plain_datafile_satisfies(text: str) -> None:
    assert parse_filter(text).matches(AMember())


@pytest.mark.parametrize(
    "text",
    [
        "name=f1_data",
        "name=5",
        "name__is=f1_data.csv",
        "name__is=null",
        "name__gt=f3",
        "name__in_range=[1,2]",
        "name__not_in_range=[1,2]",
        'name__not_contains=["a"]',
        "name__in_range=",
        "extension=",
        "size_bytes=null",
        "size_bytes__is=5.0",
        "size_bytes__gt=4x",
        'size_bytes="5"',
        "size_bytes__in_range=[1]",
        "size_bytes__in_range={}",
        "exists_locally__is=1",
        "exists_in_cloud=false",
        "cloud_path=gs://b/a",
        "cloud_path__not_starts_with=gs",
        "timestamp__is_not=null",
        "timestamp__year_in=[2021]",
        "timestamp__gt=2020-01-01",
        "timestamp__year=2021",
        "timestamp__year__not_equals=2021",
        "posix_timestamp__gt=0",
        "labels=[]",
        "labels__is=null",
        "labels__contains=",
        "labels__any_label_contains=",
        'labels__not_contains=["a"]',
        "labels__equals=",
        "tags__cluster=3",
        "tags__cluster__not_equals=3",
        "tags__cluster__is_not=null",
        "tags__a__b__not_contains=1",
        "tags__frobnicate=1",
        "tags__not_icontains=a",
        "name__not_icontains=[]",
    ],
)
def test_a_plain_datafile_does_not_satisfy(text: str) -> None:
    assert not parse_filter(text).matches(AMember())


@pytest.mark.parametrize(
    "text",
    [
        "tags__cluster=3",
        "tags.cluster=3",
        "tags__cluster__gt=2",
        "tags.cluster__in_range=[2,6]",
        "tags__ratio=2.5",
        "tags__cluster__is=3",
        "tags__cluster__not_equals=4",
        "tags__ok=true",
        "tags__ok__is=true",
        "tags__ok=1",
        "tags__nothing__is=null",
        "tags__nothing=null",
        "tags__nothing__not_equals=0",
        "tags__maker__starts_with=V",
        "tags__maker__icontains=EST",
        "tags__maker=Vestas",
        "tags__list__contains=two",
        "tags__list__contains=1",
        "tags__list__0=1",
        "tags.list.1=two",
        "tags.list[1]=two",
        "tags__list__-1__0=7",
        "tags__list__2__k c=x",
        "tags.list.3=[7]",
        "tags__nested__a__b__gte=2",
        'tags__nested__a={"b":2}',
        "tags.nested.a.b=2",
        "tags.nested.x\\.y=1",
        "tags__nested__contains=a",
        "tags__nested__not_contains=b",
        "tags__maker__0=V",
        'tags__set={"_type":"set","items":["b","a"]}',
        "tags__set__contains=a",
        "tags__when__gt=2021-01-01",
        "tags__when=2021-03-04T05:06:07",
        "tags__when__year=2021",
        "tags__when__weekday_equals=3",
        'tags__when={"_type":"datetime","value":"2021-03-04T05:06:07"}',
        "tags__contains=maker",
        "tags.contains=tag",
        "tags__serial=2024",
        "tags__serial__starts_with=20",
        "tags__cluster__real=3",
        "tags__list__not_equals=[]",
    ],
)
def test_tags_are_followed_to_any_depth(text: str) -> None:
    assert parse_filter(text).matches(TAGGED)


@pytest.mark.parametrize(
    "text",
    [
        "tags__cluster__contains=3",
        "tags__cluster__not_contains=5",
        "tags__cluster__starts_with=3",
        "tags__list__9=1",
        "tags__list__x=1",
        f"tags__list__{'9' * 5000}=1",
        f"tags__list__{'9' * 30}=1",
        "tags__list__icontains=two",
        "tags__list__not_icontains=x",
        "tags__nested__a__x__not_equals=1",
        "tags__nested__x.y=1",
        "tags__when__is=null",
        "tags__set__contains=[]",
        "tags__set__not_contains=[]",
        "tags__contains=[]",
        "tags__cluster__lt=x",
        "tags__nothing__gt=0",
        "tags__nothing__x__is=null",
        "tags__a__b=1",
        "tags__cluster__real__contains=3",
        "tags__ok__is=1",
        "tags__maker__is=Vestas",
        "tags__list__is=[]",
        "tags__cluster__bit_length__is_not=null",
        "tags[0]=1",
        "tags.=1",
        "tags__=1",
        "tags__maker__year=1",
        'tags__set=["a","b"]',
    ],
)
def test_what_tags_do_not_hold_is_not_found(text: str) -> None:
    assert not parse_filter(text).matches(TAGGED)


@pytest.mark.parametrize(
    "text",
    [
        "labels__contains=a",
        "labels__contains=2024",
        'labels__contains="2024"',
        "labels__not_contains=b",
        "labels__any_label_starts_with=20",
        "labels__any_label_ends_with=e",
        "labels__any_label_contains=n",
        "labels__not_any_label_ends_with=x",
        'labels={"_type":"set","items":["one","a","2024"]}',
        "labels__not_equals=[]",
        'labels__not_equals=["a","one","2024"]',
        "labels__is_not=a",
        'labels__not_contains={"_type":"set","items":["a"]}',
    ],
)
def test_labels_satisfy(text: str) -> None:
    assert parse_filter(text).matches(LABELLED)


@pytest.mark.parametrize(
    "text",
    [
        "labels__contains=b",
        'labels=["a","one","2024"]',
        "labels=a one 2024",
        'labels__contains=["a"]',
        'labels__not_contains=["x"]',
        "labels__any_label_contains=[]",
        "labels__not_any_label_contains=[]",
        'labels__is={"_type":"set","items":["one","a","2024"]}',
    ],
)
def test_labels_do_not_satisfy(text: str) -> None:
    assert not parse_filter(text).matches(LABELLED)


@pytest.mark.parametrize("when", [NAIVE, AWARE])
@pytest.mark.parametrize(
    "text",
    [
        "timestamp__gt=2021-03-04",
        "timestamp__gt=2021-03-04T05:06:06Z",
        "timestamp__lte=2021-03-04T05:06:07",
        "timestamp__lte=2021-03-04T05:06:07+00:00",
        "timestamp__gte=2021-03-04T07:06:07+02:00",
        "timestamp__lt=2021-03-04T05:06:07-01:00",
        'timestamp__in_range=["2021-01-01","2022-01-01T00:00:00Z"]',
        'timestamp__not_in_range=["2022-01-01","2023-01-01"]',
        "timestamp__year=2021",
        "timestamp.month=3",
        "timestamp__day__in_range=[1,4]",
        "timestamp__year_equals=2021",
        "timestamp__year_in=[2020,2021]",
        "timestamp__month_equals=3",
        "timestamp__day_in=[4]",
        "timestamp__weekday_equals=3",
        "timestamp__weekday_in=[3]",
        "timestamp__iso_weekday_equals=4",
        "timestamp__hour_in=[5]",
        "timestamp__minute_equals=6",
        "timestamp__second_equals=7",
        "timestamp__microsecond=0",
        "timestamp__time_equals=05:06:07",
        'timestamp__time_in=["05:06:07"]',
        'timestamp__in_date_range=["2021-03-04","2021-03-04"]',
        'timestamp__in_date_range=["2021-03-04T23:00","2021-03-05"]',
        'timestamp__in_time_range=["05:00","06:00"]',
        'timestamp__in_time_range=["06:00+01:00","06:30+01:00"]',
        "timestamp__is_not=null",
        "timestamp__not_equals=x",
        "timestamp__not_equals=null",
        'timestamp__gt={"_type":"datetime","value":"2021-03-04T00:00:00"}',
    ],
)
def test_timestamps_satisfy_and_naive_times_are_utc(text: str, when: datetime) -> None:
    assert parse_filter(text).matches(AMember(timestamp=when))


@pytest.mark.parametrize(
    "text",
    [
        "timestamp__gt=2022-01-01",
        "timestamp__gt=2021",
        "timestamp__gt=soon",
        "timestamp__is=null",
        "timestamp__year=2020",
        "timestamp__year_in=2021",
        "timestamp__year_in=x",
        "timestamp__in_range=[]",
        "timestamp__time_equals=05:06",
        'timestamp__in_date_range=["x","y"]',
        "timestamp__is=2021-03-04T05:06:07",
        "timestamp__time_in=05:06:07",
        'timestamp__in_date_range={"_type":"datetime","value":"2021-03-04"}',
    ],
)
def test_timestamps_do_not_satisfy(text: str) -> None:
    assert not parse_filter(text).matches(AMember(timestamp=NAIVE))


def test_equality_tells_naive_and_aware_times_apart_as_python_does() -> None:
    text = "timestamp=2021-03-04T05:06:07"
    assert parse_filter(text).matches(AMember(timestamp=NAIVE))
    assert not parse_filter(text).matches(AMember(timestamp=AWARE))
    assert parse_filter(text + "Z").matches(AMember(timestamp=AWARE))
    assert parse_filter("timestamp__not_equals=2021-03-04T05:06:07Z").matches(AMember(timestamp=NAIVE))


def test_naive_timestamps_are_those_without_a_zone() -> None:
    naive = parse_filter("timestamp__tzinfo__is=null")
    assert naive.matches(AMember(timestamp=NAIVE))
    assert not naive.matches(AMember(timestamp=AWARE))


def test_posix_timestamps_are_computed() -> None:
    assert parse_filter(f"posix_timestamp={AWARE.timestamp()}").matches(AMember(timestamp=AWARE))
    assert not parse_filter("posix_timestamp__not_equals=0").matches(AMember(timestamp=datetime.min))


def test_size_of_a_broken_link_is_none() -> None:
    assert parse_filter("size_bytes__is=null").matches(AMember(size_bytes=None))
    assert not parse_filter("size_bytes__not_in_range=[1,2]").matches(AMember(size_bytes=None))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "=x",
        "nmae=x",
        "name__frobnicate=x",
        "size_bytes__contains=5",
        "exists_locally__gt=1",
        "labels__starts_with=a",
        "labels__0=a",
        "name__first=x",
        "name__0=f",
        "extension.x=1",
        "timestamp__frobnicate=1",
        "timestamp__year__contains=1",
        "timestamp__contains=1",
        "id__year=1",
        "posix_timestamp__year=2021",
        "name__=x",
        "__name=x",
        "name.=x",
        "Name=x",
        "timestamp__year_gt=2020",
        "[0]=1",
        "[0].name=1",
        "cluster=1",
        "name__is_in=x",
        "__class__=x",
        "name____class__=x",
    ],
)
def test_what_no_attribute_or_action_could_mean_is_refused(text: str) -> None:
    with pytest.raises(BadFilter):
        parse_filter(text)
    with pytest.raises(BadFilter):
        parse_filters(quote(text, safe="=[]."))


def test_a_filter_is_a_value_that_names_its_attribute() -> None:
    first, second = parse_filter("tags__a__gt=1"), parse_filter("tags__a__gt=1")
    assert first == second
    assert len({first, second, parse_filter("tags__a__gt=2")}) == 2
    assert (first.text, first.attribute) == ("tags__a__gt=1", "tags")
    assert parse_filter("hash_value__starts_with=A").attribute == "hash_value"
    assert parse_filters("tags.a%3Db=c") != parse_filters("tags.a=b=c")
    assert issubclass(BadFilter, BadValue)


@pytest.mark.parametrize(
    ("component", "texts"),
    [
        ("name=a,size_bytes__gt=0", ["name=a", "size_bytes__gt=0"]),
        ("size_bytes__in_range=[1,2],name=a", ["size_bytes__in_range=[1,2]", "name=a"]),
        ('labels={"_type":"set","items":["a","b"]}', ['labels={"_type":"set","items":["a","b"]}']),
        ('name="a,b",name=c', ['name="a,b"', "name=c"]),
        ("name=a%2Cb%2Fc%25", ["name=a,b/c%"]),
        ("name=a=b,name=c", ["name=a=b", "name=c"]),
        ("tags__list=[1%2C2]", ["tags__list=[1,2]"]),
        ('name="a"b,name=[', ['name="a"b', "name=["]),
        ("name=100%", ["name=100%"]),
        ("name=%FF", ["name=\udcff"]),
        ("extension=,name=", ["extension=", "name="]),
        ("tags__a%2Cb=1", ["tags__a,b=1"]),
    ],
)
def test_a_component_is_split_at_commas_outside_of_json(component: str, texts: list[str]) -> None:
    assert [filter_.text for filter_ in parse_filters(component)] == texts


@pytest.mark.parametrize("component", ["", ",", "name=a,", ",name=a", "name=a,,name=b", "name=a,b", "name=[1,2"])
def test_a_component_with_a_part_that_is_no_filter_is_refused(component: str) -> None:
    with pytest.raises(BadFilter):
        parse_filters(component)


# --- whatever is asked

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
datetimes = st.datetimes(timezones=st.none() | st.just(UTC) | st.just(timezone(timedelta(hours=-5))))
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts | datetimes
values = st.recursive(
    scalars | st.sets(texts, max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
roots = st.sampled_from(
    [
        "name",
        "timestamp",
        "posix_timestamp",
        "size_bytes",
        "labels",
        "tags",
        "tags__a",
        "tags.a",
        "tags__a__0",
        "timestamp__year",
    ]
)
names = st.sampled_from(sorted({name for actions in ACTIONS.values() for name in actions})) | texts
members = st.builds(
    AMember,
    name=texts,
    timestamp=st.none() | datetimes,
    size_bytes=st.none() | st.integers(0),
    labels=st.frozensets(texts, max_size=3),
    tags=st.dictionaries(st.sampled_from(["a", "b"]), values, max_size=2),
)


@given(roots, names, values | st.lists(values, max_size=3), members)
@example("timestamp", "gt", datetime.max, AMember(timestamp=datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))))
def test_matching_never_raises(root: str, name: str, value: Any, member: AMember) -> None:
    try:
        filter_ = parse_filter(f"{root}__{name}={json.dumps(stored_form(value))}")
    except BadFilter:
        return
    assert isinstance(filter_.matches(member), bool)


pieces = st.lists(st.sampled_from(["name", "tags__a", "=", ",", "[", '"', "%2C", "1", "]", "{"])).map("".join)


@given(st.text(max_size=40) | pieces)
def test_parsing_raises_nothing_but_bad_filter(text: str) -> None:
    for parse in (parse_filter, parse_filters):
        with contextlib.suppress(BadFilter):
            parse(text)


@pytest.mark.parametrize("value", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "[" + "9" * 5000 + "]"])
def test_values_beyond_what_json_can_be_are_text(value: str) -> None:
    assert parse_filter(f"name={value}").matches(AMember(name=value))
    assert parse_filters(f"name={value}")[0].matches(AMember(name=value))


@given(st.lists(texts, min_size=1, max_size=3))
def test_encoded_values_come_out_of_a_path_as_they_went_in(written: list[str]) -> None:
    encoded = [value.replace("%", "%25").replace("/", "%2F").replace(",", "%2C") for value in written]
    component = ",".join(f"name={value}" for value in encoded)
    assert [filter_.text for filter_ in parse_filters(component)] == [f"name={value}" for value in written]


@given(st.lists(values | st.lists(values), min_size=1, max_size=3))
def test_json_values_come_out_of_a_path_as_they_went_in(written: list[Any]) -> None:
    jsons = [json.dumps(stored_form(value)) for value in written]
    component = ",".join("tags__a=" + text.replace("%", "%25").replace("/", "%2F") for text in jsons)
    assert [filter_.text for filter_ in parse_filters(component)] == [f"tags__a={text}" for text in jsons]


@given(values.filter(lambda value: "NaN" not in json.dumps(stored_form(value))))
def test_a_tag_equals_its_own_value(value: Any) -> None:
    member = AMember(tags={"a": value})
    text = json.dumps(stored_form(value))
    assert parse_filter(f"tags__a={text}").matches(member)
    assert not parse_filter(f"tags__a__not_equals={text}").matches(member)


@given(members, roots, st.sampled_from(["equals", "contains", "in_range", "any_label_contains"]), values)
def test_at_most_one_of_an_action_and_its_opposite_holds(member: AMember, root: str, name: str, value: Any) -> None:
    text = json.dumps(stored_form(value))
    try:
        pair = [parse_filter(f"{root}__{form}={text}").matches(member) for form in (name, f"not_{name}")]
    except BadFilter:
        return
    assert pair != [True, True]
