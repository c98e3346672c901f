"""Records of metadata, their fields, and the two ways in which they are stored."""

import dataclasses
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octuefs.errors import BadValue
from octuefs.model.hashes import hash_of_text
from octuefs.model.metadata import (
    BareText,
    DatafileMetadata,
    DatasetMetadata,
    OctueDocument,
    datafile_metadata_hash,
    datafile_record,
    dataset_metadata_hash,
    dataset_record,
    decode_custom_metadata,
    decode_dataset_record,
    decode_octue,
    encode_custom_metadata,
    encode_octue,
    extension_of,
    labels_text,
    parse_id,
    parse_labels,
    parse_tags,
    parse_timestamp,
    tag_text,
    tags_text,
    timestamp_text,
)
from octuefs.model.values import MAX_DEPTH, revive, sdk_repr, stored_form

ID = "fe79768a-957e-4408-ae71-8391b2dba676"
ZONES = ["UTC", "America/New_York", "Asia/Kolkata"]


@pytest.fixture(params=ZONES)
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    """The process's zone, each in turn."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    yield request.param
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


# --- strategies

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)
tag_keys = st.from_regex(r"[a-z0-9]([a-z0-9_]{0,6}[a-z0-9])?", fullmatch=True)
offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
datetimes = st.datetimes(timezones=st.none() | st.just(UTC) | offsets)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
sets = st.sets(st.integers() | texts | datetimes, max_size=3)
keys = texts.filter(lambda key: key != "_type")
plain_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
)
values = st.recursive(
    scalars | datetimes | sets,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)
tags = st.dictionaries(tag_keys, values, max_size=3)
ids = st.none() | st.uuids().map(str)
DATAFILE_FIELDS = ("id", "timestamp", "tags", "labels", "sdk_version")
unknown = st.dictionaries(texts.filter(lambda key: key not in DATAFILE_FIELDS), plain_values, max_size=2)
bad_fields = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["no-uuid", 5, [ID], {"a": 1}]),
        "timestamp": st.sampled_from(["yesterday", [1], {"_type": "datetime", "value": "soon"}, 1e300]),
        "tags": st.sampled_from([5, "x y", ["a"], {"Bad Key": 1}, {"a": {"_type": "set"}}]),
        "labels": st.sampled_from([5, "Bad", ["a", 1], {"_type": "set", "items": [[]]}, ["-a"]]),
        "sdk_version": st.sampled_from([5, [], {"a": None}]),
    },
)


@st.composite
def datafile_metadata(draw: st.DrawFn, *, numbers_are_bad: bool = True) -> DatafileMetadata:
    """`numbers_are_bad`: text fields may hold numbers, which in custom metadata count as text."""
    bad = draw(bad_fields)
    if not numbers_are_bad:
        bad = {key: value for key, value in bad.items() if key == "timestamp" or not isinstance(value, int)}
    fields: dict[str, Any] = {
        "id": draw(ids),
        "timestamp": draw(st.none() | datetimes),
        "tags": draw(tags),
        "labels": draw(st.frozensets(labels, max_size=3)),
        "sdk_version": draw(st.none() | texts),
    }
    present = {key: value for key, value in fields.items() if key not in bad}
    return DatafileMetadata(**present, unread={**bad, **draw(unknown)})


@st.composite
def dataset_metadata(draw: st.DrawFn) -> DatasetMetadata:
    return DatasetMetadata(
        id=draw(ids),
        name=draw(st.none() | texts.filter(bool)),
        tags=draw(tags),
        labels=draw(st.frozensets(labels, max_size=3)),
        files=draw(st.none() | st.lists(texts, max_size=2).map(tuple)),
        unread=draw(st.fixed_dictionaries({}, optional={"path": texts, "other": plain_values})),
    )


documents = st.builds(
    OctueDocument,
    datafiles=st.dictionaries(texts, datafile_metadata(), max_size=3),
    dataset=st.none() | dataset_metadata(),
    unread=st.fixed_dictionaries({}, optional={"other": plain_values, "_type": st.just("x")}),
)


# --- fields


@pytest.mark.parametrize(
    ("name", "extension"),
    [
        ("a.tar.gz", "gz"),
        (".bashrc", ""),
        ("b.", ""),
        ("c", ""),
        ("D.CSV", "CSV"),
        ("a..", ""),
        ("..a", ""),
        ("a.b c", "b c"),
    ],
)
def test_an_extension_is_what_follows_the_last_dot(name: str, extension: str) -> None:
    assert extension_of(name) == extension


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (["a", " b "], {"a", "b"}),
        ('["a", "b"]', {"a", "b"}),
        (" a\tb\na ", {"a", "b"}),
        ("2024", {"2024"}),
        ("true 5 null", {"true", "5", "null"}),
        ({"a", "b-c"}, {"a", "b-c"}),
        (iter(["a"]), {"a"}),
        ("", set()),
        (None, set()),
        ([], set()),
        ("  ", set()),
    ],
)
def test_labels_are_read_from_iterables_json_lists_and_words(stored: Any, expected: set[str]) -> None:
    assert parse_labels(stored) == expected


@pytest.mark.parametrize(
    "stored", ["Upper", "a -b", "a-", "a_b", "ü", '["a", 5]', '["a"', [""], [None], 2024, True, object(), ["a b"]]
)
def test_what_is_no_label_is_refused(stored: Any) -> None:
    with pytest.raises(BadValue):
        parse_labels(stored)


def test_ids_are_read_in_any_form_of_a_uuid() -> None:
    assert parse_id(ID.upper()) == parse_id(ID.replace("-", "")) == parse_id(f"{{{ID}}}") == ID
    assert parse_id(None) is None


@pytest.mark.parametrize("stored", ["", "x", 5, [ID], ID + "0"])
def test_what_is_no_uuid_is_refused(stored: Any) -> None:
    with pytest.raises(BadValue):
        parse_id(stored)


def test_tags_keep_their_order_and_types() -> None:
    moment = {"_type": "datetime", "value": "2021-03-04T05:06:07Z"}
    stored = {"z": 1, "a": {"_type": "set", "items": [2, 1]}, "b": [moment]}
    parsed = parse_tags(stored)
    assert list(parsed) == ["z", "a", "b"]
    assert parsed == {"z": 1, "a": {1, 2}, "b": [datetime(2021, 3, 4, 5, 6, 7, tzinfo=UTC)]}
    assert parse_tags(None) == {}


def test_objects_of_an_unknown_type_stay_objects() -> None:
    assert parse_tags({"a": {"_type": "matrix", "x": 1}}) == {"a": {"_type": "matrix", "x": 1}}
    assert parse_tags({"a": {"_type": ["set"]}}) == {"a": {"_type": ["set"]}}


@pytest.mark.parametrize(
    "stored",
    [
        5,
        "a",
        ["a"],
        {"A": 1},
        {"_a": 1},
        {"a_": 1},
        {"a-b": 1},
        {"": 1},
        {5: 1},
        {"a.b": 1},
        {"a": {"_type": "set"}},
        {"a": {"_type": "set", "items": [[]]}},
        {"a": {"_type": "set", "items": 5}},
        {"a": {"_type": "datetime"}},
        {"a": [{"_type": "datetime", "value": "soon"}]},
        {"_type": "datetime", "value": "2021-03-04"},
    ],
)
def test_what_are_no_tags_is_refused(stored: Any) -> None:
    with pytest.raises(BadValue):
        parse_tags(stored)


def test_a_stored_number_is_a_naive_local_time(zone: str) -> None:
    local = {"UTC": 0, "America/New_York": -5, "Asia/Kolkata": 5.5}[zone]
    assert parse_timestamp(0) == datetime(1970, 1, 1) + timedelta(hours=local)
    assert parse_timestamp(True) == datetime(1970, 1, 1, 0, 0, 1) + timedelta(hours=local)


@pytest.mark.parametrize("stored", ["2021-03-04", "5", "", [], {}, 1e300, float("nan"), float("inf"), 10**400])
def test_what_is_no_stored_timestamp_is_refused(stored: Any) -> None:
    with pytest.raises(BadValue):
        parse_timestamp(stored)


@given(datetimes)
def test_a_timestamp_survives_its_text(value: datetime) -> None:
    assert datetime.fromisoformat(timestamp_text(value)) == value


@given(tags)
def test_tags_survive_their_text_which_is_sorted_ascii(value: dict[str, Any]) -> None:
    text = tags_text(value)
    assert text.isascii()
    assert parse_tags(json.loads(text)) == value
    assert list(json.loads(text)) == sorted(value)


@given(values.filter(lambda value: not isinstance(value, str)))
def test_a_tag_that_is_no_text_survives_its_text(value: Any) -> None:
    assert revive(json.loads(tag_text(value))) == value


def test_a_tag_that_is_text_is_written_bare() -> None:
    assert tag_text("x y") == "x y"
    assert [tag_text(value) for value in (None, True, 5, 2.0, ["a"])] == ["null", "true", "5", "2.0", '["a"]']


def test_labels_are_written_sorted() -> None:
    assert labels_text({"b", "a"}) == "a b"


# --- .octue


@given(documents)
def test_a_document_survives_its_file(document: OctueDocument) -> None:
    data = encode_octue(document)
    assert data.isascii()
    assert data.endswith(b"}\n")
    again, _ = decode_octue(data)
    assert again == document
    assert encode_octue(again) == data


def file_of(**fields: Any) -> bytes:
    return json.dumps({"datafiles": {"a.csv": fields}}).encode()


def only_record(data: bytes) -> tuple[DatafileMetadata, list[str]]:
    document, problems = decode_octue(data)
    return document.datafiles["a.csv"], problems


@given(bad_fields.filter(bool))
def test_a_bad_field_is_absent_named_and_kept_as_stored(bad: dict[str, Any]) -> None:
    metadata, problems = only_record(file_of(**{"extra": [1], "sdk_version": "0.69.1", **bad}))
    assert len(problems) == len(bad)
    for key, value in bad.items():
        assert getattr(metadata, key) == getattr(DatafileMetadata(), key)
        assert datafile_record(metadata)[key] == value
        assert any("'a.csv'" in problem and key in problem for problem in problems)
    assert datafile_record(metadata)["extra"] == [1]


def test_a_bad_field_leaves_its_neighbours_standing() -> None:
    metadata, _ = only_record(file_of(id=ID, labels=["Bad"], tags={"a": 1}))
    assert (metadata.id, metadata.tags) == (ID, {"a": 1})
    changed = dataclasses.replace(metadata, tags={"b": 2})
    assert datafile_record(changed)["labels"] == ["Bad"]
    changed = dataclasses.replace(metadata, labels=frozenset("x"))
    assert datafile_record(changed)["labels"] == {"_type": "set", "items": ["x"]}


def test_a_timestamp_stored_as_a_number_stays_one_until_it_is_set(zone: str) -> None:
    metadata, problems = only_record(file_of(timestamp=5))
    assert problems == []
    assert metadata.timestamp == datetime.fromtimestamp(5)
    assert datafile_record(metadata)["timestamp"] == 5
    moment = datetime(2021, 3, 4)
    assert datafile_record(dataclasses.replace(metadata, timestamp=moment))["timestamp"] == stored_form(moment)


@pytest.mark.parametrize("form", [["b", "a"], {"_type": "set", "items": ["a", "b"]}, "a b", '["a", "b"]'])
def test_labels_are_read_in_every_form_in_both_records(form: Any) -> None:
    data = json.dumps({"datafiles": {"a.csv": {"labels": form}}, "dataset": {"labels": form}}).encode()
    document, problems = decode_octue(data)
    assert problems == []
    assert document.dataset is not None
    assert document.datafiles["a.csv"].labels == document.dataset.labels == {"a", "b"}
    for revive_types in (True, False):
        assert decode_dataset_record({"labels": form}, revive_types=revive_types)[0] == DatasetMetadata(
            labels=frozenset("ab")
        )


def test_the_dataset_record_writes_labels_plainly_and_keeps_its_path_and_files() -> None:
    stored = {"id": ID, "name": "n", "tags": {"z": 1, "a": 2}, "labels": ["a", "b"], "path": "/x", "files": ["/x/f"]}
    record, problems = decode_dataset_record(stored, revive_types=False)
    assert (problems, record and record.files, record and record.unread) == ([], ("/x/f",), {"path": "/x"})
    assert record is not None
    assert list(dataset_record(record).items()) == list(stored.items())


def test_an_empty_name_counts_as_none_and_stays() -> None:
    record, problems = decode_dataset_record({"name": ""}, revive_types=True)
    assert record is not None
    assert (record.name, problems, dataset_record(record)["name"]) == (None, [], "")


def test_types_in_tags_of_a_cloud_dataset_stay_objects() -> None:
    moment = {"_type": "datetime", "value": "2021-03-04T05:06:07"}
    plain, _ = decode_dataset_record({"tags": {"a": moment}}, revive_types=False)
    revived, _ = decode_dataset_record({"tags": {"a": moment}}, revive_types=True)
    assert plain is not None
    assert revived is not None
    assert plain.tags == {"a": moment}
    assert revived.tags == {"a": datetime(2021, 3, 4, 5, 6, 7)}
    assert dataset_record(plain)["tags"] == dataset_record(revived)["tags"] == {"a": moment}


@pytest.mark.parametrize("stored", [5, "x", [1], None, [[[[]]]]])
def test_a_dataset_record_that_is_no_object_is_a_problem(stored: Any) -> None:
    record, problems = decode_dataset_record(stored, revive_types=True)
    assert record is None
    assert problems


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b"null",
        b'"x"',
        b"\xff{}",
        b"\xef\xbb\xbf{}",
        b"\0",
        b"{} {}",
        b"[" * 100_000,
        b'{"a": ' + b"[" * 100_000,
        b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"datafiles": {"a": {"tags": {"a": ' + b"[" * 200 + b"]" * 200 + b"}}}}",
        b'{"datafiles": ' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"datafiles": {"a": ' + b"[" * 200 + b"]" * 200 + b"}}",
        b'{"dataset": ' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"datafiles": {"a": {"timestamp": ' + b"9" * 5000 + b"}}}",
    ],
    ids=lambda data: str(data[:24]),
)
def test_a_malformed_file_is_no_metadata_and_one_problem(data: bytes) -> None:
    document, problems = decode_octue(data)
    assert document == OctueDocument()
    assert len(problems) == 1
    assert "malformed" in problems[0]


@pytest.mark.parametrize("stored", [5, "x", ["a"], True])
def test_what_stands_where_records_should_is_told_and_kept(stored: Any) -> None:
    for content in ({"datafiles": stored}, {"dataset": stored}, {"datafiles": {"b": stored, "a": {"id": ID}}}):
        data = json.dumps(content).encode()
        document, problems = decode_octue(data)
        assert len(problems) == 1
        written = json.loads(encode_octue(document))
        for key in content:
            assert written[key] == stored or written[key]["b"] == stored
    assert document.datafiles["a"].id == ID


def test_a_record_that_was_malformed_is_replaced_when_it_is_set() -> None:
    document, _ = decode_octue(b'{"datafiles": {"a": 5, "b": null}}')
    document.datafiles["a"] = DatafileMetadata(id=ID)
    written = json.loads(encode_octue(document))["datafiles"]
    assert (written["a"]["id"], written["b"]) == (ID, None)


def test_a_key_with_nothing_in_it_is_not_written() -> None:
    assert encode_octue(OctueDocument()) == b"{}\n"
    for data in (b'{"datafiles": {}, "dataset": {}}', b'{"datafiles": null, "dataset": null}'):
        document, problems = decode_octue(data)
        assert problems == []
        assert encode_octue(document) == b"{}\n"


def test_top_level_keys_keep_their_stored_order_and_datafiles_come_first_otherwise() -> None:
    document, _ = decode_octue(b'{"x": 1, "dataset": {"name": "n"}, "datafiles": {"a": {}}}')
    assert list(json.loads(encode_octue(document))) == ["x", "dataset", "datafiles"]
    fresh = OctueDocument({"a": DatafileMetadata()}, DatasetMetadata(name="n"), {"x": 1})
    assert list(json.loads(encode_octue(fresh))) == ["datafiles", "dataset", "x"]


def test_numbers_and_text_beyond_json_survive() -> None:
    data = b'{"datafiles": {"\\udcff": {"tags": {"x": Infinity, "y": "\\ud800"}, "z": -Infinity, "n": NaN}}}'
    document, problems = decode_octue(data)
    assert problems == []
    assert document.datafiles[os.fsdecode(b"\xff")].tags == {"x": float("inf"), "y": "\ud800"}
    written = encode_octue(document)
    assert b'"\\ud800"' in written
    assert b"NaN" in written


def test_nesting_up_to_the_limit_survives() -> None:
    deep = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    document, problems = decode_octue(f'{{"datafiles": {{"a": {{"tags": {{"a": {deep}}}}}}}}}'.encode())
    assert problems == []
    assert decode_octue(encode_octue(document))[0] == document


def test_a_message_about_a_large_value_is_short() -> None:
    _, problems = only_record(file_of(labels=["-" * 100_000], id="x" * 100_000, tags="y" * 100_000))
    assert len(problems) == 3
    assert max(map(len, problems)) < 300


@given(st.binary(max_size=60) | plain_values.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_make_reading_raise(data: bytes) -> None:
    document, _ = decode_octue(data)
    encode_octue(document)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "datafiles": plain_values | st.dictionaries(texts, plain_values),
            "dataset": plain_values,
            "x": scalars,
        },
    )
)
def test_whatever_the_records_hold_it_is_written_back(content: dict[str, Any]) -> None:
    document, _ = decode_octue(json.dumps(content).encode())
    again, _ = decode_octue(encode_octue(document))
    assert again == document


def test_records_share_what_is_equal() -> None:
    first, _ = only_record(file_of(labels=["one"], sdk_version="0.69.1"))
    second, _ = only_record(file_of(labels=["one"], sdk_version="0.69.1"))
    assert first.sdk_version is second.sdk_version
    assert next(iter(first.labels)) is next(iter(second.labels))
    assert first.tags is second.tags is DatafileMetadata().tags
    assert first.unread is second.unread


# --- custom metadata


@given(datafile_metadata(numbers_are_bad=False))
def test_metadata_survives_custom_metadata(metadata: DatafileMetadata) -> None:
    encoded = encode_custom_metadata(metadata)
    again, _ = decode_custom_metadata(encoded)
    assert again == metadata
    assert encode_custom_metadata(again) == encoded
    assert all(text.isascii() and "\n" not in text for text in encoded.values())


def test_custom_metadata_is_written_as_the_sdk_writes_it() -> None:
    metadata = DatafileMetadata(ID, datetime(2021, 3, 4, tzinfo=UTC), {"z": [1, "ü"]}, frozenset("ba"), "0.69.1")
    assert encode_custom_metadata(metadata) == {
        "octue__id": f'"{ID}"',
        "octue__timestamp": '{"_type": "datetime", "value": "2021-03-04T00:00:00+00:00"}',
        "octue__tags": '{"z": [1, "\\u00fc"]}',
        "octue__labels": '{"_type": "set", "items": ["a", "b"]}',
        "octue__sdk_version": '"0.69.1"',
    }


def test_foreign_custom_metadata_is_none_of_ours() -> None:
    assert decode_custom_metadata({}) == (None, [])
    assert decode_custom_metadata({"goog-reserved-posix-mode": "644", "sdk_version": '"1"'}) == (None, [])


def test_unprefixed_keys_count_where_the_prefixed_one_is_missing() -> None:
    custom = {"id": ID, "labels": "x", "octue__labels": '["a"]', "timestamp": "null", "tags": '{"a": 1}', "other": "y"}
    metadata, problems = decode_custom_metadata(custom)
    assert problems == []
    assert metadata == DatafileMetadata(id=ID, labels=frozenset("a"), tags={"a": 1})


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2024", {"2024"}), ("5 x", {"5", "x"}), ('"a b"', {"a", "b"}), ('["a"]', {"a"}), ("null", set()), ("0", {"0"})],
)
def test_bare_labels_count_as_text(text: str, expected: set[str]) -> None:
    metadata, problems = decode_custom_metadata({"octue__labels": text})
    assert problems == []
    assert metadata is not None
    assert metadata.labels == expected


def test_a_bare_id_of_digits_is_an_id() -> None:
    metadata, _ = decode_custom_metadata({"octue__id": "1" * 32})
    assert metadata is not None
    assert metadata.id == "11111111-1111-1111-1111-111111111111"


def test_unknown_keys_and_bad_values_are_kept_as_stored() -> None:
    custom = {"octue__x": "no json", "octue__y": '{"a": 1}', "octue__timestamp": "yesterday", "octue__tags": "[" * 5000}
    metadata, problems = decode_custom_metadata(custom)
    assert metadata is not None
    assert metadata.unread["x"] == BareText("no json")
    assert len(problems) == 2
    assert custom.items() <= encode_custom_metadata(metadata).items()
    assert json.loads(encode_octue(OctueDocument({"f": metadata})))["datafiles"]["f"]["x"] == "no json"


def test_a_bad_unprefixed_value_is_told_and_left_where_it_is() -> None:
    metadata, problems = decode_custom_metadata({"labels": "Not Ours", "octue__id": ID})
    assert metadata == DatafileMetadata(id=ID)
    assert len(problems) == 1


@given(
    st.dictionaries(
        st.sampled_from([f"{prefix}{key}" for prefix in ("", "octue__") for key in (*DATAFILE_FIELDS, "x")]), st.text()
    )
)
def test_no_custom_metadata_makes_reading_raise(custom: dict[str, str]) -> None:
    metadata, _ = decode_custom_metadata(custom)
    if metadata is not None:
        again, _ = decode_custom_metadata(encode_custom_metadata(metadata))
        assert again == metadata


# --- hashes


def test_a_dataset_metadata_hash_is_that_of_the_printed_fields() -> None:
    metadata = DatasetMetadata(id=ID, tags={"z": 1, "a": None}, labels=frozenset("ba"), unread={"path": "/x"})
    text = "[('labels', LabelSet({'a', 'b'})), ('name', 'n'), ('tags', {'z': 1, 'a': None})]"
    assert dataset_metadata_hash(metadata, "n") == hash_of_text(text)


@pytest.mark.parametrize(
    ("timestamp", "printed"),
    [
        (None, "None"),
        (datetime(2021, 3, 4, 5, 6), "datetime.datetime(2021, 3, 4, 5, 6)"),
        (datetime(2021, 3, 4, 5, 6, 7, 8), "datetime.datetime(2021, 3, 4, 5, 6, 7, 8)"),
        (datetime(2021, 3, 4, tzinfo=UTC), "datetime.datetime(2021, 3, 4, 0, 0, tzinfo=tzlocal())"),
        (
            datetime.fromisoformat("2021-03-04T00:00+01:00"),
            "datetime.datetime(2021, 3, 4, 0, 0, tzinfo=tzoffset(None, 3600))",
        ),
        (
            datetime.fromisoformat("2021-03-04T00:00-05:30"),
            "datetime.datetime(2021, 3, 4, 0, 0, tzinfo=tzoffset(None, -19800))",
        ),
    ],
)
@pytest.mark.usefixtures("zone")
def test_a_datafile_metadata_hash_is_the_same_in_every_zone(timestamp: datetime | None, printed: str) -> None:
    metadata = DatafileMetadata(ID, timestamp, {"t": timestamp, "l": [timestamp]}, frozenset(), "0.69.1")
    text = f"[('labels', LabelSet()), ('tags', {{'t': {printed}, 'l': [{printed}]}}), ('timestamp', {printed})]"
    assert datafile_metadata_hash(metadata) == hash_of_text(text)


def test_sets_print_as_python_prints_them_text_sorted() -> None:
    assert sdk_repr({"b", "a"}) == "{'a', 'b'}"
    assert sdk_repr(set()) == "set()"
    assert sdk_repr(revive({"_type": "set", "items": [1, 8, 33]})) == repr({1, 8, 33})


@given(plain_values)
def test_plain_values_print_as_python_prints_them(value: Any) -> None:
    assert sdk_repr(value) == repr(value)


@given(values)
def test_a_value_survives_its_stored_form(value: Any) -> None:
    assert revive(json.loads(json.dumps(stored_form(value)))) == value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=20,
)


@given(JSON)
def test_octue_files_are_laid_out_as_the_sdk_does_it(value: object) -> None:
    document = OctueDocument({}, None, unread={"other": value})
    assert encode_octue(document).decode() == json.dumps({"other": value}, indent=4) + "\n"
