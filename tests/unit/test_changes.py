"""Changes of metadata: made, put together, kept in the journal, and merged with what another changed."""

import dataclasses
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from octuefs.errors import BadValue, Conflict, NoAttribute, NotPermitted, Unsupported
from octuefs.model.changes import (
    MetadataChange,
    datafile_change,
    dataset_change,
    difference,
    first_record,
    merge,
    merged_document,
    over,
    removal_change,
)
from octuefs.model.metadata import (
    BareText,
    DatafileMetadata,
    DatasetMetadata,
    OctueDocument,
    custom_metadata_patch,
    datafile_record,
    dataset_record,
    decode_custom_metadata,
    decode_octue,
    encode_custom_metadata,
    encode_octue,
    updated,
)
from octuefs.model.tagpaths import arranged
from octuefs.model.values import MAX_DEPTH, same, stored_form
from octuefs.model.viewnames import tag_entries

ID = "fe79768a-957e-4408-ae71-8391b2dba676"
OTHER_ID = "0fae0b30-9f4f-4b6c-8d2a-1d2c8b8d6f10"
NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)


def change(**parts: Any) -> MetadataChange:
    for name in ("labels_added", "labels_removed", "tags_removed"):
        if name in parts:
            parts[name] = frozenset(parts[name])
    return MetadataChange(**parts)


def tagged(**tags: Any) -> DatafileMetadata:
    return DatafileMetadata(tags=tags)


def stored(record: DatafileMetadata) -> str:
    """What is written of a record: tells apart what `==` does not, and the order of tags."""
    return json.dumps(datafile_record(record))


# --- strategies: few names, so that changes meet

texts = st.text(max_size=3).filter(lambda text: text == json.loads(json.dumps(text)))
label_sets = st.frozensets(st.sampled_from(["a", "b", "c", "2024"]), max_size=3)
offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
# No stored form tells of a fold.
datetimes = st.datetimes(timezones=st.none() | st.just(UTC) | offsets).map(lambda moment: moment.replace(fold=0))
leaves = (
    st.none()
    | st.booleans()
    | st.integers(0, 2)
    | st.floats(allow_nan=False)
    | texts
    | texts.map(BareText)
    | datetimes
    | st.sets(st.integers(0, 3) | datetimes, max_size=2)
)
inner_keys = st.sampled_from(["x", "y", "b.c", "", "_type", "z"])
values = st.recursive(
    leaves,
    lambda inner: st.dictionaries(inner_keys, inner, max_size=2) | st.lists(inner, max_size=2),
    max_leaves=5,
)
top_keys = st.sampled_from(["a", "b", "c_1"])
tag_mappings = st.dictionaries(top_keys, values, max_size=3)
dotted_parts = st.sampled_from(["x", "y", "b%2Ec", "%", "z"])
dotted_keys = st.tuples(top_keys, st.lists(dotted_parts, max_size=2)).map(lambda parts: ".".join([parts[0], *parts[1]]))


def changes(keys: st.SearchStrategy[str]) -> st.SearchStrategy[MetadataChange]:
    return st.builds(
        MetadataChange,
        fields=st.fixed_dictionaries(
            {},
            optional={
                "id": st.sampled_from([ID, OTHER_ID]),
                "timestamp": st.none() | datetimes,
                "labels": label_sets,
                "tags": tag_mappings,
                "sdk_version": st.sampled_from(["0.69.1", "1"]),
            },
        ),
        labels_added=label_sets,
        labels_removed=label_sets,
        tags_set=st.dictionaries(keys, values, max_size=3),
        tags_removed=st.frozensets(keys, max_size=2),
    )


records = st.builds(
    DatafileMetadata,
    id=st.none() | st.just(ID),
    timestamp=st.none() | datetimes,
    tags=tag_mappings,
    labels=label_sets,
    sdk_version=st.none() | st.just("0.69.1"),
    unread=st.dictionaries(st.sampled_from(["other", "more"]), st.integers(), max_size=2),
)


# --- apply


def test_a_change_is_true_where_it_changes_anything() -> None:
    assert not MetadataChange()
    assert change(fields={"timestamp": None})
    assert change(labels_added={"a"})
    assert change(labels_removed={"a"})
    assert change(tags_set={"a": None})
    assert change(tags_removed={"a"})


def test_what_is_not_named_stays() -> None:
    record = DatafileMetadata(ID, NOON, {"a": 1}, frozenset("l"), "1", {"other": 5, "labels_": [1]})
    assert change(fields={"timestamp": None}).apply(record) == dataclasses.replace(record, timestamp=None)
    assert MetadataChange().apply(record) is record


def test_labels_are_set_whole_or_one_by_one() -> None:
    record = DatafileMetadata(labels=frozenset("ab"))
    assert change(fields={"labels": frozenset("c")}).apply(record).labels == {"c"}
    assert change(labels_added={"c"}, labels_removed={"a", "z"}).apply(record).labels == {"b", "c"}
    assert change(fields={"labels": frozenset()}).apply(record).labels == frozenset()


def test_a_tag_keeps_its_place_and_a_new_one_goes_to_the_end() -> None:
    record = tagged(b=1, a=2)
    assert list(change(tags_set={"c": 0, "b": 3}).apply(record).tags.items()) == [("b", 3), ("a", 2), ("c", 0)]
    assert list(change(tags_set={"b": 3}, tags_removed={"b"}).apply(record).tags.items()) == [("a", 2), ("b", 3)]


def test_a_nested_tag_is_set_in_objects_that_are_made_on_the_way() -> None:
    assert change(tags_set={"a.b.c": 1}).apply(tagged(a={"z": 0})).tags == {"a": {"z": 0, "b": {"c": 1}}}
    assert change(tags_set={"a.b": 1}).apply(DatafileMetadata()).tags == {"a": {"b": 1}}


@pytest.mark.parametrize("there", [5, "x", None, [1], {1, 2}, NOON])
def test_a_nested_tag_is_refused_in_what_is_no_object(there: Any) -> None:
    with pytest.raises(NotPermitted, match=r"a\.b"):
        change(tags_set={"a.b.c": 1}).apply(tagged(a={"b": there}))


def test_a_nested_tag_that_is_removed_leaves_no_empty_objects() -> None:
    assert change(tags_removed={"a.b.c"}).apply(tagged(a={"b": {"c": 1}}, d=1)).tags == {"d": 1}
    assert change(tags_removed={"a.b.c"}).apply(tagged(a={"b": {"c": 1}, "e": {}})).tags == {"a": {"e": {}}}
    assert change(tags_removed={"a.b"}).apply(tagged(a=5)).tags == {"a": 5}
    moved = change(tags_removed={"a.b"}, tags_set={"a.c": 1}).apply(tagged(a={"b": 1}, d=1))
    assert list(moved.tags) == ["a", "d"]


def test_an_object_set_to_nothing_on_purpose_stays() -> None:
    assert change(tags_removed={"a.b"}, tags_set={"a": {}}).apply(tagged(a={"b": 1})).tags == {"a": {}}


@given(tag_mappings)
def test_every_key_that_by_tag_shows_is_found_again(tags: dict[str, Any]) -> None:
    for key, text in tag_entries(tags):
        marked = change(tags_set={key: "marked"}).apply(DatafileMetadata(tags=tags))
        assert (key, "marked") in list(tag_entries(marked.tags))
        assert len(list(tag_entries(marked.tags))) == len(list(tag_entries(tags)))
        left = change(tags_removed={key}).apply(DatafileMetadata(tags=tags))
        assert list(tag_entries(left.tags)) == [entry for entry in tag_entries(tags) if entry != (key, text)]


@pytest.mark.parametrize("key", ["", "A", ".a", "a.", "a..b", "_a", "a%2Eb"])
def test_what_is_no_dotted_key_is_refused(key: str) -> None:
    with pytest.raises(BadValue):
        change(tags_set={key: 1}).apply(DatafileMetadata())


def test_tags_are_not_nested_too_deeply_to_be_read_again() -> None:
    deepest = change(tags_set={".".join(["a"] * MAX_DEPTH): 1}).apply(DatafileMetadata())
    document, problems = decode_octue(encode_octue(OctueDocument({"f": deepest})))
    assert document.datafiles["f"] == deepest
    assert not problems
    with pytest.raises(BadValue, match="deep"):
        change(tags_set={".".join(["a"] * (MAX_DEPTH + 1)): 1}).apply(DatafileMetadata())
    with pytest.raises(BadValue, match="deep"):
        change(tags_set={".".join(["a"] * MAX_DEPTH): NOON}).apply(DatafileMetadata())


def test_a_bad_value_is_replaced_as_a_whole_and_others_stay() -> None:
    bad = DatafileMetadata(unread={"tags": {"Bad Key": 1}, "labels": "Bad", "other": 1})
    assert change(tags_set={"a": 1}).apply(bad).unread == {"labels": "Bad", "other": 1}
    assert change(labels_added={"a"}).apply(bad).unread == {"tags": {"Bad Key": 1}, "other": 1}
    assert change(fields={"tags": {}}).apply(bad).unread == {"labels": "Bad", "other": 1}
    assert change(fields={"timestamp": NOON}).apply(bad).unread == bad.unread


def test_to_take_away_what_a_bad_field_does_not_have_leaves_it() -> None:
    bad = DatafileMetadata(tags={}, unread={"tags": 5, "labels": "Bad"})
    assert change(labels_removed={"a"}, tags_removed={"a", "b.c"}).apply(bad) == bad


def test_a_timestamp_that_replaces_a_number_is_what_is_written() -> None:
    number = DatafileMetadata(timestamp=datetime.fromtimestamp(5), unread={"timestamp": 5})
    assert datafile_record(change(fields={"timestamp": NOON}).apply(number))["timestamp"]["value"] == NOON.isoformat()
    assert datafile_record(change(fields={"timestamp": None}).apply(number))["timestamp"] is None


def test_updated_forgets_what_was_unread_of_a_field() -> None:
    assert updated(DatafileMetadata(unread={"id": "bad", "other": 1}), id=ID) == DatafileMetadata(
        ID, unread={"other": 1}
    )


# --- then


@given(changes(top_keys), changes(top_keys), records)
def test_two_changes_in_one_do_what_both_do(first: MetadataChange, later: MetadataChange, record: Any) -> None:
    assert stored(first.then(later).apply(record)) == stored(later.apply(first.apply(record)))


def in_order(value: Any) -> Any:
    """The same with all keys sorted, those of objects within lists too."""
    if isinstance(value, list):
        return [in_order(item) for item in value]
    return {key: in_order(value[key]) for key in sorted(value)} if isinstance(value, dict) else value


@given(changes(dotted_keys), changes(dotted_keys), records)
def test_two_changes_of_nested_tags_do_so_but_for_their_order(
    first: MetadataChange, later: MetadataChange, record: DatafileMetadata
) -> None:
    try:
        one_by_one = later.apply(first.apply(record))
    except NotPermitted:
        assume(False)
    together = datafile_record(first.then(later).apply(record))
    assert json.dumps(in_order(together)) == json.dumps(in_order(datafile_record(one_by_one)))


@given(changes(dotted_keys))
def test_a_change_and_none_is_that_change(one: MetadataChange) -> None:
    try:
        before, after = MetadataChange().then(one), one.then(MetadataChange())
        plain = one.apply(tagged(a={"x": 1}, b={"y": {}}))
    except NotPermitted:
        assume(False)
    assert stored(before.apply(tagged(a={"x": 1}, b={"y": {}}))) == stored(plain)
    assert stored(after.apply(tagged(a={"x": 1}, b={"y": {}}))) == stored(plain)


def test_a_label_that_is_added_and_taken_away_is_taken_away() -> None:
    assert change(labels_added={"a"}).then(change(labels_removed={"a"})) == change(labels_removed={"a"})
    assert change(labels_removed={"a"}).then(change(labels_added={"a"})) == change(labels_added={"a"})


def test_a_burst_on_one_tag_stays_small() -> None:
    burst = MetadataChange()
    for number in range(100):
        burst = burst.then(change(tags_set={"a.b": number})).then(change(tags_set={"a.c": {"d": number}}))
        burst = burst.then(change(tags_removed={"a.c.d"}))
    assert burst == change(tags_set={"a.b": 99}, tags_removed={"a.c"})


# --- the journal


@given(changes(dotted_keys))
def test_the_journal_gives_back_the_change(one: MetadataChange) -> None:
    kept = MetadataChange.from_json(json.loads(json.dumps(one.to_json())))
    assert kept == one
    assert json.dumps(kept.to_json()) == json.dumps(one.to_json())


def test_the_journal_keeps_what_the_stored_form_does_not_tell_apart() -> None:
    tags = {
        "set": {1, 2},
        "no_set": {"_type": "set", "items": [1, 2]},
        "no_type": {"_type": ["text"], "value": 5},
        "no_object": {"_type": "object", "value": {"_type": "text", "value": "x"}},
        "naive": datetime(2020, 1, 1),
        "aware": datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=-5, minutes=-30))),
        "surrogate": "\udcff\ud800",
        "bare": BareText("bare"),
        "numbers": [1, 1.0, True, None, float("inf")],
    }
    one = change(fields={"tags": tags, "timestamp": None, "labels": frozenset({"a"})}, tags_set={"\udcff": 1})
    kept = MetadataChange.from_json(json.loads(json.dumps(one.to_json())))
    assert kept == one
    assert isinstance(kept.fields["tags"]["bare"], BareText)
    assert isinstance(kept.fields["labels"], frozenset)
    assert repr(kept) == repr(one)
    assert MetadataChange().to_json() == {}


# --- the order of tags, which is part of the hash of metadata


@given(tag_mappings, tag_mappings)
def test_tags_that_are_set_as_they_are_keep_their_order(tags: dict[str, Any], others: dict[str, Any]) -> None:
    assert stored(DatafileMetadata(tags=arranged(in_order(tags), tags))) == stored(DatafileMetadata(tags=tags))
    new = arranged(tags, others)
    assert json.dumps(in_order(stored_form(new))) == json.dumps(in_order(stored_form(tags)))
    assert list(new) == [key for key in others if key in tags] + [key for key in tags if key not in others]


def test_tags_set_by_an_attribute_keep_the_order_of_those_that_are_there() -> None:
    present = tagged(z=1, nested={"y": [{"b": 1, "a": 2}], "x": 2}, b=3)
    text = b'{"a": 0, "b": 4, "nested": {"x": 2, "y": [{"a": 2, "b": 1}]}, "z": 1}'
    wanted = {"z": 1, "nested": {"y": [{"b": 1, "a": 2}], "x": 2}, "b": 4, "a": 0}
    for tags in (
        datafile_change("tags", text, present).fields["tags"],
        dataset_change("tags", text, DatasetMetadata(tags=present.tags)).fields["tags"],
        over(DatafileMetadata(tags=json.loads(text)), present).tags,
    ):
        assert json.dumps(tags) == json.dumps(wanted)
    assert list(datafile_change("tags", text).fields["tags"]) == ["a", "b", "nested", "z"]


# --- difference


@given(records, records)
def test_the_difference_makes_one_record_of_the_other(old: DatafileMetadata, new: DatafileMetadata) -> None:
    new = dataclasses.replace(new, unread=old.unread)
    assert stored(difference(old, new).apply(old)) == stored(new)
    assert not difference(old, old)


def test_the_difference_names_only_what_changed() -> None:
    old = DatafileMetadata(ID, NOON, {"a": 1, "b": 2}, frozenset("xy"))
    new = dataclasses.replace(old, tags={"a": True, "c": 1}, labels=frozenset("yz"))
    assert difference(old, new) == change(
        tags_set={"a": True, "c": 1}, tags_removed={"b"}, labels_added={"z"}, labels_removed={"x"}
    )


def test_the_same_instant_at_another_offset_is_another_timestamp() -> None:
    other = NOON.astimezone(timezone(timedelta(hours=1)))
    assert other == NOON
    assert difference(DatafileMetadata(timestamp=NOON), DatafileMetadata(timestamp=other)).fields == {
        "timestamp": other
    }


def test_another_order_of_tags_is_a_difference() -> None:
    assert difference(tagged(a=1, b=2), tagged(b=2, a=1)).fields == {"tags": {"b": 2, "a": 1}}


def test_a_bad_value_that_goes_is_a_difference() -> None:
    old = DatafileMetadata(unread={"labels": "Bad", "tags": 5})
    assert difference(old, DatafileMetadata(unread={"tags": 5})) == change(fields={"labels": frozenset()})


def test_datasets_differ_by_their_name_too() -> None:
    old, new = DatasetMetadata(ID, "one"), DatasetMetadata(ID, None, {"a": 1})
    assert difference(old, new) == change(fields={"name": None}, tags_set={"a": 1})
    assert difference(old, new).apply(old) == new


# --- merge


@given(records, changes(top_keys))
def test_where_nobody_else_changed_anything_a_merge_is_the_change(base: DatafileMetadata, one: MetadataChange) -> None:
    assert stored(merge(base, one, base)) == stored(one.apply(base))


@given(records, records, changes(top_keys))
def test_a_merge_loses_nothing_of_either(base: DatafileMetadata, theirs: DatafileMetadata, one: MetadataChange) -> None:
    theirs = dataclasses.replace(theirs, unread=base.unread)
    try:
        merged = merge(base, one, theirs)
    except Conflict:
        assume(False)
    mine = one.apply(base)
    for name in ("id", "timestamp", "sdk_version"):
        before, ours, other, now = (getattr(record, name) for record in (base, mine, theirs, merged))
        assert same(now, other if same(before, ours) else ours)
    for key in {*base.tags, *mine.tags, *theirs.tags}:
        before, ours, other, now = ([r.tags[key]] if key in r.tags else [] for r in (base, mine, theirs, merged))
        assert same(now, other if same(before, ours) else ours)
    for label in {*base.labels, *mine.labels, *theirs.labels}:
        if (label in mine.labels) != (label in base.labels):
            assert (label in merged.labels) == (label in mine.labels)


def test_different_fields_and_tags_are_merged() -> None:
    base = DatafileMetadata(ID, None, {"a": 1, "b": 1}, frozenset("x"))
    theirs = dataclasses.replace(base, timestamp=NOON, tags={"a": 1, "b": 2}, labels=frozenset("xt"))
    merged = merge(base, change(tags_set={"a": 5, "c": 1}, labels_added={"m"}, labels_removed={"x"}), theirs)
    assert merged == dataclasses.replace(theirs, tags={"a": 5, "b": 2, "c": 1}, labels=frozenset("mt"))


@pytest.mark.parametrize(
    ("mine", "theirs", "named"),
    [
        (change(fields={"timestamp": NOON}), DatafileMetadata(timestamp=datetime(2021, 1, 1)), "timestamp"),
        (change(fields={"labels": frozenset("m")}), DatafileMetadata(labels=frozenset("t")), "labels"),
        (change(fields={"tags": {"m": 1}}), tagged(t=1), "tags"),
        (change(tags_set={"a": 1}), tagged(a=True), r"tags\.a"),
        (change(tags_set={"a.b": 1}), tagged(a={"c": 1}), r"tags\.a"),
        (change(fields={"id": ID}), DatafileMetadata(OTHER_ID), "id"),
        (change(tags_set={"a": 1}), DatafileMetadata(unread={"tags": 5}), "tags"),
        (change(labels_added={"a"}), DatafileMetadata(unread={"labels": 5}), "labels"),
        (change(fields={"labels": frozenset("a")}), DatafileMetadata(unread={"labels": 5}), "labels"),
    ],
)
def test_the_same_field_with_two_values_is_a_conflict(
    mine: MetadataChange, theirs: DatafileMetadata, named: str
) -> None:
    with pytest.raises(Conflict, match=f"^{named} was changed"):
        merge(DatafileMetadata(), mine, theirs)


def test_the_same_value_from_both_is_no_conflict() -> None:
    theirs = DatafileMetadata(ID, NOON, {"a": 1, "b": 1}, frozenset("x"))
    one = change(fields={"id": ID, "timestamp": NOON, "labels": frozenset("x")}, tags_set={"a": 1})
    assert merge(DatafileMetadata(), one, theirs) == theirs
    assert merge(DatafileMetadata(), change(fields={"tags": theirs.tags}), theirs) == theirs


def test_a_dataset_is_merged_likewise() -> None:
    base = DatasetMetadata(ID, "n")
    assert merge(base, change(fields={"name": "m"}), dataclasses.replace(base, labels=frozenset("x"))) == (
        DatasetMetadata(ID, "m", labels=frozenset("x"))
    )
    with pytest.raises(Conflict, match="name"):
        merge(base, change(fields={"name": "m"}), DatasetMetadata(ID, "t"))


# --- a rename over another file


def test_what_the_source_lacks_is_kept_from_the_target_and_its_id_always() -> None:
    source = DatafileMetadata(ID, None, {"s": 1}, sdk_version="2", unread={"other": 1})
    target = DatafileMetadata(OTHER_ID, NOON, {"t": 1}, frozenset("t"), "1", {"other": 2, "more": 3})
    assert over(source, target) == DatafileMetadata(
        OTHER_ID, NOON, {"s": 1}, frozenset("t"), "2", {"other": 1, "more": 3}
    )
    assert over(source, DatafileMetadata()) == source
    assert over(DatafileMetadata(), target) == target


def test_a_bad_value_gives_way_to_a_sound_one_and_counts_more_than_none() -> None:
    bad = DatafileMetadata(unread={"labels": "Bad", "tags": 5})
    good = DatafileMetadata(labels=frozenset("a"), unread={"timestamp": "soon"})
    both = DatafileMetadata(labels=frozenset("a"), unread={"tags": 5, "timestamp": "soon"})
    assert over(bad, good) == both
    assert over(good, bad) == both


# --- first records, documents


def test_a_first_record_has_an_id_and_our_version() -> None:
    assert first_record(DatafileMetadata(), ID) == DatafileMetadata(ID, sdk_version="0.69.1")
    assert first_record(DatafileMetadata(OTHER_ID, sdk_version="1"), ID) == DatafileMetadata(OTHER_ID, sdk_version="1")
    assert first_record(DatasetMetadata(), ID) == DatasetMetadata(ID)
    assert first_record(DatafileMetadata(unread={"id": "bad"}), ID).unread == {"id": "bad"}


def merged(text: str, **options: Any) -> Any:
    """The JSON that is stored in a folder's `.octue` after changes."""
    document, _ = decode_octue(text.encode())
    arguments: dict[str, Any] = {"changes": {}, "dataset_change": None, "ids": {"f": ID}, "dataset_id": ID, **options}
    changed = merged_document(document, arguments.pop("changes"), arguments.pop("dataset_change"), **arguments)
    return json.loads(encode_octue(changed))


STORED = """{"more": 1, "datafiles": {
    "g": {"id": "bad", "timestamp": 5, "tags": {"z": 1, "a": 2}, "labels": "Bad", "odd": [1], "sdk_version": "1"},
    "h": 7},
    "dataset": {"id": "fe79768a-957e-4408-ae71-8391b2dba676", "name": "n", "tags": {}, "labels": [], "path": "p"}}"""


def test_a_document_gets_a_record_and_everything_else_stays() -> None:
    before = json.loads(STORED)
    after = merged(STORED, changes={"f": change(labels_added={"a"})})
    new = after["datafiles"].pop("f")
    assert new == {
        "id": ID,
        "timestamp": None,
        "tags": {},
        "labels": {"_type": "set", "items": ["a"]},
        "sdk_version": "0.69.1",
    }
    assert after == before
    assert list(after) == list(before)


def test_a_change_in_a_document_touches_its_field_alone() -> None:
    expected = json.loads(STORED)
    expected["datafiles"]["g"]["tags"] = {"z": 1, "a": 3}
    assert merged(STORED, changes={"g": change(tags_set={"a": 3})}, ids={"g": ID}) == expected


def test_removed_names_leave_a_document_and_a_name_made_again_begins_anew() -> None:
    assert "datafiles" not in merged(STORED, removed=["g", "h", "x"])
    again = merged(STORED, removed=["g"], changes={"g": change(labels_added={"a"})}, ids={"g": OTHER_ID})
    assert again["datafiles"]["g"]["id"] == OTHER_ID
    assert again["datafiles"]["g"]["tags"] == {}
    assert again["datafiles"]["h"] == 7


def test_what_is_no_record_gives_way_to_one() -> None:
    after = merged(STORED, changes={"h": change(labels_added={"a"})}, ids={"h": ID})
    assert after["datafiles"]["h"]["labels"]["items"] == ["a"]


def test_a_change_to_nothing_makes_no_record() -> None:
    nothing = {"f": change(fields={"timestamp": None}, labels_removed={"a"}), "e": MetadataChange()}
    assert merged("{}", changes=nothing, dataset_change=change(fields={"name": None})) == {}


def test_the_dataset_of_a_document_is_changed_or_made() -> None:
    after = merged(STORED, dataset_change=change(labels_added={"a"}))
    assert after["dataset"] == {**json.loads(STORED)["dataset"], "labels": ["a"]}
    made = merged('{"dataset": [5]}', dataset_change=change(fields={"name": "n"}))
    assert made == {"dataset": {"id": ID, "name": "n", "tags": {}, "labels": []}}


# --- custom metadata of objects

FIRST = {
    "octue__id": json.dumps(ID),
    "octue__timestamp": "null",
    "octue__tags": "{}",
    "octue__labels": '{"_type": "set", "items": ["a"]}',
    "octue__sdk_version": '"0.69.1"',
}


def patch(custom: dict[str, str], one: MetadataChange) -> dict[str, str | None]:
    old = decode_custom_metadata(custom)[0] or DatafileMetadata()
    new = one.apply(old)
    return custom_metadata_patch(custom, old, first_record(new, ID) if new != DatafileMetadata() else new)


def after_patch(custom: dict[str, str], sent: dict[str, str | None]) -> dict[str, str]:
    both: dict[str, str | None] = {**custom, **sent}
    return {key: text for key, text in both.items() if text is not None}


def test_a_first_record_is_sent_whole() -> None:
    assert patch({"foreign": "x"}, change(labels_added={"a"})) == FIRST
    assert patch({}, change(fields={"timestamp": None})) == {}


def test_only_what_changed_is_sent() -> None:
    assert patch(FIRST, change(tags_set={"a": 1})) == {"octue__tags": '{"a": 1}'}
    assert patch(FIRST, change(labels_added={"a"})) == {}
    assert patch({**FIRST, "octue__tags": '{"a":1}'}, change(tags_set={"a": True})) == {"octue__tags": '{"a": true}'}
    assert patch({"octue__labels": "a b"}, change(labels_added={"b"})) == {
        "octue__id": json.dumps(ID),
        "octue__sdk_version": '"0.69.1"',
    }


def test_a_cleared_field_is_stored_in_the_form_of_the_sdk() -> None:
    full = {**FIRST, "octue__tags": '{"a": 1}', "octue__timestamp": "5"}
    cleared = change(fields={"labels": frozenset(), "tags": {}, "timestamp": None})
    assert patch(full, cleared) == {
        "octue__labels": '{"_type": "set", "items": []}',
        "octue__tags": "{}",
        "octue__timestamp": "null",
    }


def test_a_field_without_the_prefix_is_sent_with_it_once_it_changes() -> None:
    custom = {"labels": "a b", "id": OTHER_ID}
    assert patch(custom, change(tags_set={"a": 1})) == {
        "octue__tags": '{"a": 1}',
        "octue__timestamp": "null",
        "octue__sdk_version": '"0.69.1"',
    }
    sent = patch({**FIRST, **custom}, change(labels_removed={"a"}))
    assert sent == {"octue__labels": '{"_type": "set", "items": []}'}
    del (without := dict(FIRST))["octue__labels"]
    assert patch({**without, "labels": "a b"}, change(labels_removed={"a"})) == {
        "octue__labels": '{"_type": "set", "items": ["b"]}'
    }


def test_a_bad_value_and_unknown_keys_stay_until_they_are_set() -> None:
    custom = {**FIRST, "octue__labels": "Bad", "octue__odd": "x"}
    assert patch(custom, change(tags_set={"a": 1})) == {"octue__tags": '{"a": 1}'}
    assert patch(custom, change(fields={"labels": frozenset()})) == {"octue__labels": '{"_type": "set", "items": []}'}


def test_no_metadata_at_all_leaves_none_of_octues_keys() -> None:
    old, _ = decode_custom_metadata({**FIRST, "labels": "b", "foreign": "x"})
    assert old is not None
    sent = custom_metadata_patch({**FIRST, "labels": "b", "foreign": "x"}, old, DatafileMetadata())
    left = after_patch({**FIRST, "labels": "b", "foreign": "x"}, sent)
    assert left == {"labels": "b", "foreign": "x", "octue__labels": '{"_type": "set", "items": []}'}
    assert custom_metadata_patch(FIRST, decode_custom_metadata(FIRST)[0] or DatafileMetadata(), DatafileMetadata()) == (
        dict.fromkeys(FIRST)
    )


def plain(record: DatafileMetadata) -> DatafileMetadata:
    """The record as custom metadata tells it: with the `_type`s of tags that were plain objects revived."""
    try:
        return decode_custom_metadata(encode_custom_metadata(record))[0] or DatafileMetadata()
    except KeyError:
        return record


@given(records.map(plain), changes(top_keys))
def test_a_patch_makes_the_new_record(old: DatafileMetadata, one: MetadataChange) -> None:
    custom = encode_custom_metadata(old)
    new = plain(first_record(one.apply(old), ID))
    assume(not new.unread.keys() & {"tags"})
    found, _ = decode_custom_metadata(after_patch(custom, custom_metadata_patch(custom, old, new)))
    assert found is not None
    assert stored(found) == stored(new)


# --- attributes


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("labels", "b a\n2024", change(fields={"labels": frozenset({"a", "b", "2024"})})),
        ("labels", '["a", " b "]', change(fields={"labels": frozenset("ab")})),
        ("labels", "2024", change(fields={"labels": frozenset({"2024"})})),
        ("labels", "", change(fields={"labels": frozenset()})),
        ("tags", '{"b": 1, "a": {"_type": "set", "items": [1]}}', change(fields={"tags": {"b": 1, "a": {1}}})),
        ("tags", "{}", change(fields={"tags": {}})),
        ("tags.a", "5", change(tags_set={"a": 5})),
        ("tags.a", '"5"', change(tags_set={"a": "5"})),
        ("tags.a", "five", change(tags_set={"a": "five"})),
        ("tags.a", '{"b": ', change(tags_set={"a": '{"b": '})),
        ("tags.a", "", change(tags_set={"a": ""})),
        ("tags.a", "null", change(tags_set={"a": None})),
        ("tags.a", '"NaN"', change(tags_set={"a": "NaN"})),
        ("timestamp", "2020-01-01T12:00:00+00:00", change(fields={"timestamp": NOON})),
        ("timestamp", "2020-01-01T12:00Z", change(fields={"timestamp": NOON})),
        ("timestamp", "2020-01-01", change(fields={"timestamp": datetime(2020, 1, 1)})),
        ("timestamp", "1577880000", change(fields={"timestamp": NOON})),
        ("timestamp", " 1577880000.5\n", change(fields={"timestamp": NOON.replace(microsecond=500_000)})),
        ("timestamp", "-1", change(fields={"timestamp": datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)})),
        (
            "timestamp",
            "253402300799.999999",
            change(fields={"timestamp": datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC)}),
        ),
    ],
)
def test_attributes_of_a_datafile_are_set(name: str, text: str, expected: MetadataChange) -> None:
    found = datafile_change(name, text.encode())
    assert found == expected
    assert repr(found) == repr(expected) or name == "labels"


def test_seconds_are_stored_in_utc() -> None:
    assert datafile_change("timestamp", b"0").fields["timestamp"].tzinfo is UTC


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("labels", b"Bad"),
        ("labels", b"\xff"),
        ("labels", b'["a", 5]'),
        ("tags", b""),
        ("tags", b"null"),
        ("tags", b"[]"),
        ("tags", b'""'),
        ("tags", b"no json"),
        ("tags", b'{"Bad Key": 1}'),
        ("tags", b'{"a": {"_type": "set"}}'),
        ("tags", b'{"a": [NaN]}'),
        ("tags", b'{"a": {"_type": "set", "items": [Infinity]}}'),
        ("tags", b'{"a": 1e999}'),
        ("tags.a", b"NaN"),
        ("tags.a", b"-Infinity"),
        ("tags.a", b"1e999"),
        ("tags.a", b"\xff"),
        ("tags.a", b"[" * 1000 + b"]" * 1000),
        ("tags.a", b"[" * MAX_DEPTH + b"1" + b"]" * MAX_DEPTH),
        ("tags.a", b'{"_type": "datetime", "value": "soon"}'),
        ("tags.a", b'{"_type": "datetime", "value": "2020-01-01T00:00:00+01:00:30"}'),
        ("tags.a.b", b"1"),
        ("tags.", b"1"),
        ("tags.A", b"1"),
        ("timestamp", b""),
        ("timestamp", b"soon"),
        ("timestamp", b"NaN"),
        ("timestamp", b"9" * 400),
        ("timestamp", b"9" * 60_000),
        ("timestamp", b"253402300800"),
        ("timestamp", "٣".encode()),
        ("timestamp", b"2020-01-01T00:00:00+01:00:30"),
    ],
)
def test_a_bad_value_is_refused_with_the_attribute_named(name: str, value: bytes) -> None:
    with pytest.raises(BadValue, match=rf"^user\.octue\.{name}: "):
        datafile_change(name, value)


def test_the_deepest_tag_can_be_stored() -> None:
    deep = b"[" * (MAX_DEPTH - 1) + b"1" + b"]" * (MAX_DEPTH - 1)
    record = datafile_change("tags.a", deep).apply(DatafileMetadata())
    assert decode_octue(encode_octue(OctueDocument({"f": record})))[1] == []


def test_attributes_of_a_dataset_are_set() -> None:
    assert dataset_change("name", "Ünï \U0001f600".encode()).fields == {"name": "Ünï \U0001f600"}
    assert dataset_change("name", b"").fields == {"name": None}
    with pytest.raises(BadValue, match="UTF-8"):
        dataset_change("name", b"\xff")
    text = b'{"a": {"_type": "set", "items": [1]}}'
    assert dataset_change("tags", text).fields == {"tags": {"a": {1}}}
    in_cloud = dataset_change("tags", text, revive_types=False).apply(DatasetMetadata())
    assert dataset_record(in_cloud)["tags"] == json.loads(text)


@pytest.mark.parametrize("name", ["id", "hash", "metadata_hash", "cloud_path", "exists_locally", "count", "sync"])
def test_what_only_tells_cannot_be_set_or_removed(name: str) -> None:
    with pytest.raises(NotPermitted):
        datafile_change(name, b"x")
    with pytest.raises(NotPermitted):
        dataset_change(name, b"x")
    with pytest.raises(NotPermitted):
        removal_change(name, DatafileMetadata(ID))


def test_names_that_mean_nothing_cannot_be_set() -> None:
    for set_attribute, name in ((datafile_change, "name"), (dataset_change, "timestamp"), (datafile_change, "frob")):
        with pytest.raises(Unsupported):
            set_attribute(name, b"x")


def test_removal_clears() -> None:
    record = DatafileMetadata(ID, NOON, {"a": 1, "b": 2}, frozenset("x"))
    assert removal_change("labels", record).apply(record).labels == frozenset()
    assert removal_change("tags", record).apply(record).tags == {}
    assert removal_change("tags.a", record).apply(record).tags == {"b": 2}
    assert removal_change("timestamp", record).apply(record).timestamp is None
    assert removal_change("name", DatasetMetadata(name="n")).apply(DatasetMetadata(name="n")).name is None
    bad = DatafileMetadata(unread={"labels": "Bad"})
    assert removal_change("labels", bad).apply(bad) == DatafileMetadata()


@pytest.mark.parametrize("name", ["labels", "tags", "timestamp", "tags.a", "tags.a.b", "name", "frob"])
def test_what_is_not_set_cannot_be_removed(name: str) -> None:
    with pytest.raises(NoAttribute):
        removal_change(name, DatafileMetadata(unread={"name": 1}))
