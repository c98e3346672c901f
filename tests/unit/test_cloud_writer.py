"""The writer of a cloud dataset, over a strict store in memory: names, metadata, `.octue`, renames."""

import json
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.cloud_world import DOWN, ME, World, begin, labelled, tagged
from unit.memory_store import MemoryStore

from octuefs.entries import Folder
from octuefs.errors import (
    AlreadyExists,
    BadValue,
    Conflict,
    IsADirectory,
    NameTooLong,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
    OctuefsError,
    StoreUnavailable,
    TooBig,
    Unsupported,
)
from octuefs.model.changes import MetadataChange
from octuefs.model.metadata import DatafileMetadata, encode_custom_metadata
from octuefs.model.paths import derived_id
from octuefs.stores.writing import Precondition
from octuefs.writing.journal import Journal
from octuefs.writing.recovered import Recovered
from octuefs.writing.sessions import DISPLACED


@pytest.fixture(name="store")
def _store() -> MemoryStore:
    store = MemoryStore()
    store.put("a.csv", b"alpha", contentType="text/csv")
    store.put("b.csv", b"beta", {"octue__labels": '{"_type": "set", "items": ["old"]}', "foreign": "kept"})
    store.put("dir/one", b"1", {"octue__tags": '{"n": 1}'})
    store.put("dir/sub/two", b"2")
    return store


@pytest.fixture(name="world")
def _world(store: MemoryStore, tmp_path: Path) -> Iterator[World]:
    journal = Journal(tmp_path / "journal.sqlite")
    world = begin(store, journal)
    yield world
    world.end()
    journal.close()


# --- metadata of files


def test_a_first_label_is_stored_with_the_files_id_and_our_version(world: World) -> None:
    before = world.datafile("a.csv").id
    world.writer.describe("a.csv", labelled("one"))
    stored = world.store.metadata("a.csv")
    assert json.loads(stored["octue__labels"]) == {"_type": "set", "items": ["one"]}
    assert json.loads(stored["octue__id"]) == before == derived_id("gs://bucket/data/a.csv")
    assert json.loads(stored["octue__sdk_version"]) == "0.69.1"
    assert world.labels("a.csv") == {"one"}
    assert ("replaced", "a.csv") in world.files.told
    world.truth()


def test_only_what_changed_is_sent(world: World) -> None:
    world.writer.describe("a.csv", labelled("one"))
    theirs = world.store.touch_metadata("a.csv", octue__tags='{"far": 1}')
    world.store.requests.clear()
    world.keeper.changed(["a.csv"]).result()
    world.writer.describe("a.csv", labelled("two"))
    assert world.store.asked("patch") == ["a.csv"]
    assert json.loads(world.store.metadata("a.csv")["octue__tags"]) == {"far": 1}
    assert world.datafile("a.csv").info.version != theirs.version


def test_a_change_that_changes_nothing_asks_nothing(world: World) -> None:
    world.writer.describe("b.csv", labelled("old"))
    world.writer.describe("a.csv", MetadataChange(labels_removed=frozenset({"not-there"})))
    assert world.store.requests == []


def test_another_field_changed_by_another_is_kept(world: World) -> None:
    world.store.touch_metadata("b.csv", octue__tags='{"theirs": true}')
    world.writer.describe("b.csv", labelled("mine"))
    datafile = world.datafile("b.csv")
    assert (set(datafile.labels), datafile.tags) == ({"old", "mine"}, {"theirs": True})
    assert world.store.metadata("b.csv")["foreign"] == "kept"
    world.truth()


def test_the_same_field_changed_by_another_is_a_conflict_and_theirs_is_seen(world: World) -> None:
    world.store.touch_metadata("b.csv", octue__tags='{"k": "theirs"}')
    with pytest.raises(Conflict, match="k"):
        world.writer.describe("b.csv", tagged(k="mine"))
    assert world.datafile("b.csv").tags == {"k": "theirs"}
    world.truth()


def test_a_new_content_by_another_is_a_conflict_and_is_seen(world: World) -> None:
    world.store.put("b.csv", b"newer")
    with pytest.raises(Conflict, match=r"b\.csv"):
        world.writer.describe("b.csv", labelled("mine"))
    assert world.datafile("b.csv").size == 5
    assert world.store.metadata("b.csv") == {}
    world.truth()


def test_a_file_removed_by_another_is_not_found_and_gone(world: World) -> None:
    world.store.drop("b.csv")
    with pytest.raises(NotFound):
        world.writer.describe("b.csv", labelled("mine"))
    world.truth()


def test_a_lost_answer_to_a_patch_is_no_conflict(world: World) -> None:
    world.store.lose_answer("patch")
    world.writer.describe("b.csv", tagged(k="mine"))
    assert world.datafile("b.csv").tags == {"k": "mine"}
    world.truth()


def test_too_much_metadata_changes_nothing(world: World) -> None:
    with pytest.raises(TooBig):
        world.writer.describe("b.csv", tagged(k="x" * 9000))
    assert world.store.requests == []


def test_two_changes_of_one_file_at_once_both_succeed(world: World) -> None:
    failures: list[BaseException] = []

    def change(number: int) -> None:
        try:
            world.writer.describe(
                "b.csv", MetadataChange(labels_added=frozenset({f"l{number}"}), tags_set={"k": number})
            )
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert world.labels("b.csv") == {"old", *(f"l{number}" for number in range(20))}
    assert len(world.store.asked("patch")) == 20, "none had to be tried again"
    world.truth()


def test_nobody_who_looks_waits_for_a_change_under_way(world: World) -> None:
    looked = []
    world.store.before("patch", lambda: looked.append(world.writer.current(world.datafile("b.csv").info)))
    world.writer.describe("b.csv", labelled("mine"))
    assert looked


# --- attributes


def test_mode_and_time_are_stored_beside_the_metadata(world: World) -> None:
    world.writer.set_mode("b.csv", 0o100600)
    world.writer.set_times("b.csv", (None, 1_500_000_000_250_000_000))
    stored = world.store.metadata("b.csv")
    assert (stored["goog-reserved-posix-mode"], stored["goog-reserved-file-mtime"]) == ("600", "1500000000.25")
    info = world.datafile("b.csv").info
    assert (stat.S_IMODE(info.mode), info.mtime_ns) == (0o600, 1_500_000_000_250_000_000)
    assert world.labels("b.csv") == {"old"}
    world.truth()


def test_attributes_do_not_collide_with_metadata_that_another_changed(world: World) -> None:
    world.store.touch_metadata("b.csv", octue__tags='{"theirs": true}')
    world.writer.set_mode("b.csv", 0o600)
    assert world.datafile("b.csv").tags == {"theirs": True}
    world.store.put("b.csv", b"newer")
    with pytest.raises(Conflict):
        world.writer.set_mode("b.csv", 0o640)
    world.truth()


def test_attributes_of_a_folder_are_patched_in_the_version_that_was_seen(world: World) -> None:
    world.writer.make_folder("new", 0o755, ME)
    world.writer.set_mode("new", 0o700)
    conditions = []
    patch = world.store.patch

    def watched(path: str, custom: Any, condition: Precondition) -> Any:
        conditions.append(condition)
        return patch(path, custom, condition)

    world.store.patch = watched  # type: ignore[method-assign]
    world.store.touch_metadata("new/", foreign="kept")
    world.writer.set_times("new", (None, 5_000_000_000))
    assert [it.metageneration for it in conditions] == [2, 3], "made anew from what stands there"
    assert all(it.generation for it in conditions)
    assert world.store.metadata("new/") == {
        "goog-reserved-posix-mode": "700",
        "goog-reserved-file-mtime": "5",
        "foreign": "kept",
    }
    folder = world.index.entry("new")
    assert isinstance(folder, Folder)
    assert folder.info is not None
    assert (stat.S_IMODE(folder.info.mode), folder.info.mtime_ns) == (0o700, 5_000_000_000)


def test_a_time_of_access_alone_asks_nothing(world: World) -> None:
    world.writer.set_times("b.csv", (1, None))
    assert world.store.requests == []
    with pytest.raises(NotFound):
        world.writer.set_times("nothing", (1, None))


def test_an_implied_folder_gets_a_marker_that_keeps_its_attributes(world: World) -> None:
    world.writer.set_mode("dir", 0o700)
    world.writer.set_times("dir", (None, 7_000_000_000))
    folder = world.index.folder("dir")
    assert folder is not None
    assert folder.info is not None
    assert (folder.info.mode, folder.info.mtime_ns) == (stat.S_IFDIR | 0o700, 7_000_000_000)
    assert "dir/" in world.store.names()
    assert world.store.stat("dir").version == folder.info.version
    world.truth()


def test_the_dataset_s_own_folder_shows_what_was_set_while_it_is_mounted(world: World) -> None:
    world.writer.set_mode("", 0o700)
    world.writer.set_times("", (None, 5))
    root = world.index.root.info
    assert root is not None
    assert (root.mode, root.mtime_ns) == (stat.S_IFDIR | 0o700, 5)
    assert not world.store.asked("patch")


def test_only_the_present_owner_can_be_given(world: World) -> None:
    world.writer.set_owner("a.csv", os.getuid(), -1)
    world.writer.set_owner("dir", -1, os.getgid())
    with pytest.raises(NotPermitted):
        world.writer.set_owner("a.csv", os.getuid() + 1, -1)


def test_what_a_bucket_cannot_hold_is_unsupported(world: World) -> None:
    for refused in (
        lambda: world.writer.make_link("l", "a.csv", ME),
        lambda: world.writer.make_special("f", stat.S_IFIFO | 0o644, 0, ME),
        lambda: world.writer.link("a.csv", "l"),
        lambda: world.writer.set_xattr("a.csv", "user.x", b"", 0),
        lambda: world.writer.remove_xattr("a.csv", "user.x"),
    ):
        with pytest.raises(Unsupported):
            refused()


# --- the dataset's own record


def dataset_object(world: World, path: str = ".octue") -> Any:
    """What the `.octue` object holds."""
    return json.loads(world.store.data(path))


def test_the_dataset_s_metadata_is_stored_as_the_sdk_reads_it(world: World) -> None:
    change = MetadataChange(fields={"name": "trial"}, labels_added=frozenset({"z", "a"}), tags_set={"s": {"b", "a"}})
    world.writer.describe_dataset(change)
    assert dataset_object(world) == {
        "dataset": {
            "id": derived_id("gs://bucket/data"),
            "name": "trial",
            "tags": {"s": ["a", "b"]},
            "labels": ["a", "z"],
        }
    }
    assert world.keeper.stored.dataset is not None
    assert world.keeper.stored.dataset.name == "trial"
    world.truth()


def test_what_others_keep_in_the_object_stays(world: World) -> None:
    world.store.put(".octue", b'{"other": 1, "dataset": {"id": null, "path": "gs://x", "labels": []}}', {"mine": "1"})
    world.keeper.refresh().result()
    world.writer.describe_dataset(labelled("a"))
    content = dataset_object(world)
    assert (content["other"], content["dataset"]["path"], content["dataset"]["labels"]) == (1, "gs://x", ["a"])
    assert world.store.metadata(".octue") == {"mine": "1"}


def test_fields_of_the_dataset_that_another_changed_are_kept(world: World) -> None:
    world.store.before("upload", lambda: world.store.put(".octue", b'{"dataset": {"name": "theirs"}}'))
    world.writer.describe_dataset(labelled("a"))
    record = dataset_object(world)["dataset"]
    assert (record["name"], record["labels"]) == ("theirs", ["a"])


def test_the_same_field_of_the_dataset_is_a_conflict(world: World) -> None:
    world.store.put(".octue", b'{"dataset": {"name": "theirs"}}')
    with pytest.raises(Conflict, match="name"):
        world.writer.describe_dataset(MetadataChange(fields={"name": "mine"}))
    assert dataset_object(world) == {"dataset": {"name": "theirs"}}


def test_a_lost_answer_for_the_dataset_is_no_conflict(world: World) -> None:
    world.store.lose_answer("upload")
    world.writer.describe_dataset(MetadataChange(fields={"name": "mine"}))
    assert dataset_object(world)["dataset"]["name"] == "mine"
    world.truth()


def test_a_malformed_object_makes_room_and_is_kept(world: World) -> None:
    world.store.put(".octue", b"{torn")
    world.writer.describe_dataset(MetadataChange(fields={"name": "mine"}))
    assert dataset_object(world)["dataset"]["name"] == "mine"
    (entry,) = world.writer.recovered.entries()
    assert entry.path == ".octue"
    assert world.writer.recovered.open(entry.name).read(0, 100) == b"{torn"


# --- `.octue` as it is written


def document(dataset: Any = None, **records: Any) -> bytes:
    """The text of a `.octue` file."""
    content = {"datafiles": records, **({"dataset": dataset} if dataset else {})}
    return json.dumps(content).encode()


def record(*labels: str, **fields: Any) -> dict[str, Any]:
    """A record as a `.octue` file has it."""
    return {"labels": {"_type": "set", "items": list(labels)}, "timestamp": None, **fields}


ID = "11111111-2222-4333-8444-555555555555"
OTHER_ID = "99999999-2222-4333-8444-555555555555"


def test_records_go_to_the_files_that_are_there(world: World) -> None:
    world.writer.store_document("", document(**{"a.csv": record("x", id=ID, custom=[1]), "b.csv": record("y")}))
    assert (world.labels("a.csv"), world.labels("b.csv")) == ({"x"}, {"y"})
    assert world.datafile("a.csv").id == ID
    assert json.loads(world.store.metadata("a.csv")["octue__custom"]) == [1]
    assert world.store.metadata("b.csv")["foreign"] == "kept"
    assert ".octue" not in world.store.names()
    world.truth()


def test_a_file_that_is_left_out_loses_its_metadata_and_keeps_what_is_foreign(world: World) -> None:
    world.store.touch_metadata("b.csv", id=json.dumps(ID), tags='{"a": 1}')
    world.keeper.changed(["b.csv"]).result()
    world.writer.store_document("", document(**{"a.csv": record("x")}))
    assert world.store.metadata("b.csv") == {"foreign": "kept"}
    world.truth()


@pytest.mark.expected_logs("its stored ID")
def test_a_stored_id_wins_and_is_told(world: World) -> None:
    world.store.touch_metadata("b.csv", octue__id=json.dumps(ID))
    world.keeper.changed(["b.csv"]).result()
    world.writer.store_document("", document(**{"b.csv": record("new", id=OTHER_ID)}))
    assert world.datafile("b.csv").id == ID
    assert world.labels("b.csv") == {"new"}
    assert OTHER_ID in world.report.text()


def test_a_record_waits_for_its_file_over_mounts(world: World, store: MemoryStore) -> None:
    world.writer.store_document("dir", document(later=record("x", id=ID), one=record("y")))
    assert set(world.writer.waiting("dir")) == {"later"}
    assert world.labels("dir/one") == {"y"}
    again = begin(store, world.journal)
    assert again.writer.waiting("dir")["later"].id == ID
    again.writer.create("dir/later", os.O_WRONLY, 0o100644, ME)
    ((_, path, custom, mode, metadata),) = [it for it in again.files.told if it[0] == "create"]
    assert (path, mode, metadata.id, metadata.labels) == ("dir/later", 0o644, ID, {"x"})
    assert json.loads(custom["octue__id"]) == ID
    assert json.loads(custom["octue__sdk_version"]) == "0.69.1"
    assert not again.writer.waiting("dir")
    assert not world.journal.items("waiting")
    again.end()


@pytest.mark.expected_logs("two mounts kept metadata")
def test_a_record_that_gave_way_to_a_later_mount_s_is_kept(world: World, store: MemoryStore) -> None:
    world.writer.store_document("dir", document(later=record("x", id=ID)))
    earlier = {"kind": "waiting", "key": "dir/later", "value": {"labels": ["earlier"], "id": OTHER_ID}}
    world.journal.put(DISPLACED, "1-a/waiting/dir/later", earlier)
    again = begin(store, world.journal)
    again.writer.restore()
    assert again.writer.waiting("dir")["later"].labels == {"x"}
    (entry,) = again.writer.recovered.entries()
    assert (entry.path, "two mounts" in entry.reason) == ("dir/later.octue", True)
    text = json.loads(again.writer.recovered.open(entry.name).read(0, 10_000))
    assert text == {"datafiles": {"later": {"labels": ["earlier"], "id": OTHER_ID}}}
    assert world.journal.items(DISPLACED) == {}
    with pytest.raises(Unsupported):
        again.writer.recovered.restore(entry.name)
    again.end()


def test_entries_that_say_the_same_twice_go(world: World) -> None:
    for kind in ("text", "part"):
        world.journal.put(DISPLACED, f"1-a/{kind}/k", {"kind": kind, "key": "k", "value": {"when": 1}})
    world.writer.restore()
    assert world.journal.items(DISPLACED) == {}


def test_a_later_text_replaces_what_waits(world: World) -> None:
    world.writer.store_document("", document(later=record("x"), more=record("y")))
    version = world.index.version
    world.writer.store_document("", document(more=record("z")))
    assert world.index.version > version, "what is rendered is made anew"
    assert {name: set(it.labels) for name, it in world.writer.waiting("").items()} == {"more": {"z"}}
    world.writer.store_records("", {"third": DatafileMetadata(labels=frozenset({"t"}))})
    assert set(world.writer.waiting("")) == {"more", "third"}


@pytest.mark.expected_logs("its stored ID")
def test_the_dataset_s_record_in_a_text_replaces_the_stored_one(world: World) -> None:
    world.store.put(".octue", json.dumps({"dataset": {"id": ID, "name": "old", "labels": ["x"]}}).encode())
    world.keeper.refresh().result()
    text = document({"id": OTHER_ID, "name": "new", "tags": {"s": {"_type": "set", "items": ["b", "a"]}}})
    world.writer.store_document("", text)
    assert dataset_object(world) == {"dataset": {"id": ID, "name": "new", "tags": {"s": ["a", "b"]}, "labels": []}}
    assert OTHER_ID in world.report.text()
    world.writer.store_document("", document(**{"a.csv": record("x")}))
    assert ".octue" not in world.store.names()
    assert world.keeper.stored.dataset is None
    world.truth()


def test_a_dataset_within_the_dataset_keeps_its_own_record(world: World) -> None:
    world.writer.store_document("dir", document({"id": ID, "name": "inner"}, one=record("x")))
    assert dataset_object(world, "dir/.octue")["dataset"]["name"] == "inner"
    assert world.keeper.stored.dataset is None
    world.truth()


@pytest.mark.parametrize(
    "text",
    [
        b"{torn",
        b"[]",
        document(**{"a.csv": {"labels": "NOT A LABEL"}}),
        document(**{"x/y": record("x")}),
        document({"id": "no id"}),
    ],
)
def test_a_bad_text_changes_nothing_and_is_kept(world: World, text: bytes) -> None:
    before = {path: world.store.metadata(path) for path in world.store.names()}
    with pytest.raises(BadValue):
        world.writer.store_document("", text)
    assert {path: world.store.metadata(path) for path in world.store.names()} == before
    assert not world.writer.waiting("")
    (entry,) = world.writer.recovered.entries()
    assert (entry.path, entry.size) == (".octue", len(text))
    assert world.writer.recovered.open(entry.name).read(0, 1000) == text


def test_an_empty_text_is_refused_and_nothing_of_it_is_kept(world: World) -> None:
    with pytest.raises(BadValue):
        world.writer.store_document("", b" \n")
    assert not world.writer.recovered.entries()
    assert world.labels("b.csv") == {"old"}


@pytest.mark.expected_logs("its metadata could not be stored")
def test_a_text_of_which_a_part_could_not_be_stored_is_kept(world: World) -> None:
    world.store.fail("patch", DOWN, path="a.csv")
    with pytest.raises(StoreUnavailable):
        world.writer.store_document("", document(**{"a.csv": record("x"), "b.csv": record("y")}))
    assert world.labels("b.csv") == {"y"}, "the others are described all the same"
    (entry,) = world.writer.recovered.entries()
    world.writer.recovered.restore(entry.name)
    assert world.labels("a.csv") == {"x"}
    assert not world.writer.recovered.entries()


def test_removing_the_document_removes_metadata_of_the_folder_alone(world: World) -> None:
    world.writer.describe("dir/sub/two", labelled("deep"))
    world.writer.store_document("dir", document({"name": "inner"}, later=record("x"), one=record("y")))
    world.writer.remove_document("dir")
    assert world.store.metadata("dir/one") == {}
    assert world.labels("dir/sub/two") == {"deep"}
    assert not world.writer.waiting("dir")
    assert "dir/.octue" not in world.store.names()
    world.truth()


def test_removing_the_document_keeps_what_another_set_meanwhile(world: World) -> None:
    world.store.touch_metadata("b.csv", octue__labels='{"_type": "set", "items": ["theirs"]}')
    world.writer.remove_document("")
    assert world.labels("b.csv") == {"theirs"}
    assert world.store.metadata("b.csv")["foreign"] == "kept"
    world.truth()


@pytest.mark.expected_logs("dir/one: its metadata could not be stored")
def test_removing_what_another_changed_meanwhile_is_a_conflict(world: World) -> None:
    world.store.touch_metadata("dir/one", octue__tags='{"n": 2}')
    with pytest.raises(Conflict):
        world.writer.remove_document("dir")
    assert world.datafile("dir/one").tags == {"n": 2}


# --- names


def test_creating_what_is_there(world: World) -> None:
    with pytest.raises(AlreadyExists):
        world.writer.create("a.csv", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, ME)
    with pytest.raises(IsADirectory):
        world.writer.create("dir", os.O_WRONLY, 0o644, ME)
    with pytest.raises(NotFound):
        world.writer.create("nowhere/x", os.O_WRONLY, 0o644, ME)
    with pytest.raises(NotADirectory):
        world.writer.create("a.csv/x", os.O_WRONLY, 0o644, ME)


def test_names_that_no_object_can_have(world: World) -> None:
    with pytest.raises(BadValue):
        world.writer.create("\udcff", os.O_WRONLY, 0o644, ME)
    with pytest.raises(BadValue):
        world.writer.make_folder("a\nb", 0o755, ME)
    with pytest.raises(NameTooLong):
        world.writer.rename("a.csv", "/".join(["x" * 250] * 5))
    with pytest.raises(NotPermitted):
        world.writer.create(".octuefs-" + "0" * 32 + ".octue", os.O_WRONLY, 0o644, ME)


@pytest.mark.parametrize("prefix", ["", "data", "in/a/deeper/place"])
def test_a_path_that_no_object_can_have_is_refused_before_anything_happens(tmp_path: Path, prefix: str) -> None:
    store = MemoryStore(prefix=prefix)
    room = 1024 - len(store.place.object_prefix)
    deep = "/".join(["d" * 200] * 4) + "/"
    store.put("f", b"f")
    store.put(f"{deep}f", b"f")
    store.put(f"folder/{'g' * 190}/f", b"f")
    journal = Journal(tmp_path / "journal.sqlite")
    world = begin(store, journal)
    fits, folder = deep + "n" * (room - len(deep)), deep + "n" * (room - len(deep) - 1)
    before = store.names()
    for too_long in (
        lambda: world.writer.create(f"{fits}n", os.O_WRONLY, 0o644, ME),
        lambda: world.writer.make_folder(fits, 0o755, ME),
        lambda: world.writer.rename("f", f"{fits}n"),
        lambda: world.writer.rename("folder", fits),
        lambda: world.writer.rename("folder", f"{deep}{'n' * 100}"),
    ):
        with pytest.raises(NameTooLong):
            too_long()
    assert (store.names(), store.requests, world.rows()) == (before, [], {})
    world.writer.rename("f", fits)
    world.writer.make_folder(folder, 0o755, ME)
    assert {fits, f"{folder}/"} < store.names()
    world.end()
    journal.close()


def test_a_name_made_again_by_a_rename_onto_it_has_its_metadata_but_not_its_id(world: World) -> None:
    world.writer.rename("b.csv", "b.csv.bak")
    world.writer.describe("a.csv", tagged(mine=1))
    identity = world.datafile("a.csv").metadata.id
    world.writer.rename("a.csv", "b.csv")
    assert (world.labels("b.csv"), world.datafile("b.csv").tags) == ({"old"}, {"mine": 1})
    assert world.labels("b.csv.bak") == {"old"}
    assert world.datafile("b.csv").metadata.id == identity
    world.writer.rename("dir/one", "a.csv")
    world.writer.rename("a.csv", "b2.csv")
    assert world.datafile("b2.csv").tags == {"n": 1}, "what is set on the file wins"
    world.truth()


def test_a_first_record_never_gets_the_id_that_another_has_stored(world: World) -> None:
    world.writer.describe("a.csv", labelled("x"))
    identity = world.datafile("a.csv").metadata.id
    world.writer.rename("a.csv", "a.csv~")
    world.writer.create("a.csv", os.O_WRONLY, 0o644, ME)
    ((*_, metadata),) = [it for it in world.files.told if it[0] == "create"]
    assert metadata.labels == {"x"}
    assert world.datafile("a.csv~").metadata.id == identity != metadata.id is not None
    world.index.publish([world.keeper.classify(world.store.put("a.csv", b"others"), None)])
    world.writer.describe("a.csv", labelled("y"))
    assert world.datafile("a.csv").metadata.id not in (identity, None)


def test_a_removed_name_whose_record_was_written_of_late_has_it_again_whole(world: World) -> None:
    text = document(**{"a.csv": record("x", id=ID), "b.csv": record("y", id=OTHER_ID)})
    for _ in range(2):
        world.writer.store_document("", text)
        for path in ("a.csv", "b.csv"):
            world.writer.remove(path)
            world.files.told.clear()
            world.writer.create(path, os.O_WRONLY, 0o644, ME)
            ((*_, metadata),) = [it for it in world.files.told if it[0] == "create"]
            assert metadata.id == {"a.csv": ID, "b.csv": OTHER_ID}[path]
            custom = encode_custom_metadata(metadata)
            world.index.publish([world.keeper.classify(world.store.put(path, b"again", custom), None)])


def test_an_id_that_another_has_by_now_does_not_come_back(world: World) -> None:
    world.writer.store_document("", document(**{"a.csv": record("x", id=ID)}))
    world.writer.remove("a.csv")
    world.writer.store_document("dir", document(one=record("z", id=ID)))
    world.writer.create("a.csv", os.O_WRONLY, 0o644, ME)
    ((*_, metadata),) = [it for it in world.files.told if it[0] == "create"]
    assert (metadata.labels, metadata.id == ID) == ({"x"}, False)


def test_a_name_made_again_soon_has_its_metadata_but_not_its_id(world: World) -> None:
    world.writer.describe("a.csv", labelled("one"))
    world.store.touch_metadata("a.csv", octue__id=json.dumps(ID))
    world.keeper.changed(["a.csv"]).result()
    world.writer.rename("a.csv", "a.csv~")
    world.writer.create("a.csv", os.O_WRONLY, 0o644, ME, labelled("two"))
    (told,) = [it for it in world.files.told if it[0] == "create"]
    assert (told[4].labels, told[4].id) == ({"one", "two"}, derived_id("gs://bucket/data/a.csv"))
    assert world.datafile("a.csv~").id == ID


def test_a_file_is_removed(world: World) -> None:
    world.writer.remove("a.csv")
    assert "a.csv" not in world.store.names()
    assert world.files.told == [("keep_open", "a.csv"), ("removed", "a.csv")]
    with pytest.raises(NotFound):
        world.writer.remove("a.csv")
    with pytest.raises(IsADirectory):
        world.writer.remove("dir")
    world.truth()


def test_a_version_that_nobody_has_seen_is_not_removed(world: World) -> None:
    world.store.put("a.csv", b"newer")
    with pytest.raises(Conflict):
        world.writer.remove("a.csv")
    assert world.datafile("a.csv").size == 5
    assert ("removed", "a.csv") not in world.files.told
    world.writer.remove("a.csv")
    world.truth()


def test_a_lost_answer_to_a_delete_is_success(world: World) -> None:
    world.store.lose_answer("delete")
    world.writer.remove("a.csv")
    world.truth()


def test_a_folder_stays_when_its_last_file_goes(world: World) -> None:
    world.writer.remove("dir/sub/two")
    assert isinstance(world.index.entry("dir/sub"), Folder)
    world.truth()
    world.writer.remove_folder("dir/sub")
    assert world.index.entry("dir/sub") is None
    world.writer.rename("dir/one", "one")
    assert world.paths() >= {"dir/", "one"}
    world.truth()


def test_a_folder_stays_when_its_last_files_go_at_once(world: World) -> None:
    for number in range(8):
        world.store.put(f"many/{number}")
    world.keeper.refresh().result()
    threads = [threading.Thread(target=world.writer.remove, args=(f"many/{number}",)) for number in range(8)]
    barrier = threading.Barrier(8)
    for number in range(8):
        world.store.before("delete", barrier.wait, path=f"many/{number}")
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert isinstance(world.index.entry("many"), Folder)
    world.truth()


def test_folders_are_made_and_removed(world: World) -> None:
    world.writer.make_folder("new", 0o755, ME)
    world.writer.make_folder("new/private", 0o700, ME)
    assert world.store.metadata("new/private/") == {"goog-reserved-posix-mode": "700"}
    assert world.store.metadata("new/") == {}
    for path, failure in (
        ("new", AlreadyExists),
        ("a.csv", AlreadyExists),
        ("no/x", NotFound),
        ("a.csv/x", NotADirectory),
    ):
        with pytest.raises(failure):
            world.writer.make_folder(path, 0o755, ME)
    with pytest.raises(NotEmpty):
        world.writer.remove_folder("new")
    with pytest.raises(NotADirectory):
        world.writer.remove_folder("a.csv")
    world.writer.remove_folder("new/private")
    world.writer.remove_folder("new")
    assert world.index.entry("new") is None
    world.truth()


def test_a_folder_with_files_that_nobody_has_seen_is_not_empty(world: World) -> None:
    world.writer.make_folder("new", 0o755, ME)
    world.store.put("new/theirs", b"x")
    with pytest.raises(NotEmpty):
        world.writer.remove_folder("new")
    assert "new/" in world.store.names()
    world.store.drop("new/theirs")
    world.store.put("new/.octuefs-" + "0" * 32 + ".octue", b"part")
    world.writer.remove_folder("new")
    assert world.index.entry("new") is None


def test_a_folder_with_waiting_metadata_is_not_empty(world: World) -> None:
    world.writer.make_folder("new", 0o755, ME)
    world.writer.store_document("new", document(later=record("x")))
    with pytest.raises(NotEmpty):
        world.writer.remove_folder("new")
    world.writer.remove_document("new")
    world.writer.remove_folder("new")


# --- renames of files


def test_a_file_moves_with_all_that_it_has(world: World) -> None:
    world.writer.rename("b.csv", "dir/c.csv")
    assert world.store.data("dir/c.csv") == b"beta"
    assert world.store.metadata("dir/c.csv")["foreign"] == "kept"
    assert world.labels("dir/c.csv") == {"old"}
    assert "b.csv" not in world.store.names()
    assert world.files.told == [("moved", "b.csv", "dir/c.csv")]
    assert not world.rows()
    world.truth()


def test_over_another_file_what_is_set_wins_and_the_rest_is_kept(world: World) -> None:
    world.store.touch_metadata("a.csv", octue__id=json.dumps(ID), octue__tags='{"t": 1}', far="1", foreign="other")
    world.keeper.changed(["a.csv"]).result()
    world.writer.rename("b.csv", "a.csv")
    datafile = world.datafile("a.csv")
    assert (datafile.id, set(datafile.labels), datafile.tags) == (ID, {"old"}, {"t": 1})
    stored = world.store.metadata("a.csv")
    assert (stored["far"], stored["foreign"]) == ("1", "kept")
    assert world.store.data("a.csv") == b"beta"
    assert world.store.objects["a.csv"].fixed["contentType"] == "text/csv"
    assert world.files.told == [("keep_open", "a.csv"), ("removed", "a.csv"), ("moved", "b.csv", "a.csv")]
    world.truth()


def test_over_another_file_where_nothing_can_be_composed(world: World) -> None:
    world.store.facts = type(world.store.facts)(composes=False, has_folders=False)
    world.store.touch_metadata("a.csv", octue__tags='{"t": 1}')
    world.keeper.changed(["a.csv"]).result()
    world.writer.rename("b.csv", "a.csv")
    assert (world.labels("a.csv"), world.datafile("a.csv").tags) == ({"old"}, {"t": 1})
    assert world.store.asked("rewrite") == ["b.csv"]
    world.truth()


def test_a_change_is_made_on_the_way(world: World) -> None:
    world.writer.rename("b.csv", "c.csv", change=labelled("new"))
    assert world.labels("c.csv") == {"old", "new"}
    world.writer.rename("c.csv", "c.csv", change=labelled("newer"))
    assert world.labels("c.csv") == {"old", "new", "newer"}
    world.truth()


def test_metadata_that_waits_for_the_new_name_is_taken(world: World) -> None:
    world.writer.store_document("dir", document(final=record("x", tags={"k": 1}), one=record("y")))
    world.writer.rename("a.csv", "dir/final")
    assert world.labels("dir/final") == {"x"}
    assert not world.writer.waiting("dir")
    world.truth()


@pytest.mark.parametrize(
    ("old", "new", "failure"),
    [
        ("nothing", "x", NotFound),
        ("a.csv", "nowhere/x", NotFound),
        ("a.csv", "b.csv/x", NotADirectory),
        ("a.csv", "dir", IsADirectory),
        ("dir", "a.csv", NotADirectory),
        ("dir", "dir/sub/x", BadValue),
        ("full", "dir", NotEmpty),
        ("", "x", BadValue),
    ],
)
def test_renames_that_cannot_be(world: World, old: str, new: str, failure: type[OctuefsError]) -> None:
    world.store.put("full/x")
    world.keeper.refresh().result()
    before = world.store.names()
    with pytest.raises(failure):
        world.writer.rename(old, new)
    assert world.store.names() == before
    assert not world.rows()


def test_nothing_is_replaced_where_that_is_not_wanted(world: World) -> None:
    with pytest.raises(AlreadyExists):
        world.writer.rename("a.csv", "b.csv", replace=False)
    with pytest.raises(AlreadyExists):
        world.writer.rename("dir", "dir/sub", replace=False)


@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("method", ["rewrite", "compose", "delete", "patch"])
def test_a_lost_answer_to_any_step_of_a_rename_is_no_conflict(world: World, method: str, over: bool) -> None:
    if method == "patch":
        world.store.facts = type(world.store.facts)(composes=False, has_folders=False)
    world.store.lose_answer(method)
    world.writer.rename("b.csv", "a.csv" if over else "c.csv", change=labelled("new"))
    assert world.labels("a.csv" if over else "c.csv") == {"old", "new"}
    assert not world.rows()
    world.truth()


def test_a_target_that_nobody_has_seen_stays(world: World) -> None:
    world.store.put("c.csv", b"theirs")
    with pytest.raises(Conflict):
        world.writer.rename("a.csv", "c.csv")
    world.store.put("b.csv", b"newer than seen")
    with pytest.raises(Conflict):
        world.writer.rename("a.csv", "b.csv")
    assert (world.store.data("c.csv"), world.store.data("b.csv")) == (b"theirs", b"newer than seen")
    assert world.store.data("a.csv") == b"alpha"
    assert not world.rows()
    world.truth()


def test_a_source_that_another_replaced_stays(world: World) -> None:
    world.store.put("a.csv", b"newer")
    with pytest.raises(Conflict):
        world.writer.rename("a.csv", "c.csv")
    assert "c.csv" not in world.store.names()
    world.store.drop("a.csv")
    with pytest.raises(NotFound):
        world.writer.rename("a.csv", "c.csv")
    assert not world.rows()
    world.truth()


def test_metadata_set_by_another_in_the_middle_come_along(world: World) -> None:
    world.store.before("delete", lambda: world.store.touch_metadata("b.csv", octue__tags='{"late": 1}'))
    world.writer.rename("b.csv", "c.csv")
    assert world.datafile("c.csv").tags == {"late": 1}
    assert "b.csv" not in world.store.names()
    world.truth()


def test_a_version_stored_by_another_in_the_middle_stays_and_shows(world: World) -> None:
    world.store.before("delete", lambda: world.store.put("b.csv", b"late"))
    world.writer.rename("b.csv", "c.csv")
    assert (world.store.data("b.csv"), world.store.data("c.csv")) == (b"late", b"beta")
    assert not world.rows()
    world.truth()


@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("composes", [False, True])
def test_a_copy_that_is_said_to_fail_and_was_made_goes_on(world: World, over: bool, composes: bool) -> None:
    world.store.facts = type(world.store.facts)(composes=composes, has_folders=False)
    world.store.fail("compose" if over and composes else "rewrite", DOWN, after=True)
    world.store.fail("delete", DOWN, after=True)
    world.writer.rename("b.csv", "a.csv" if over else "c.csv", change=labelled("new"))
    assert world.labels("a.csv" if over else "c.csv") == {"old", "new"}
    assert not world.rows()
    world.truth()


@pytest.mark.expected_logs("goes on at the next rename")
@pytest.mark.parametrize("after", [False, True])
def test_a_copy_of_which_nothing_can_be_told_is_marked(world: World, after: bool) -> None:
    world.store.fail("rewrite", DOWN, after=after)
    world.store.fail("stat", DOWN, path="c.csv", times=2)
    with pytest.raises(StoreUnavailable):
        world.writer.rename("b.csv", "c.csv", change=labelled("new"))
    assert set(world.rows()) == {"b.csv"}


def test_a_copy_that_cannot_be_described_is_taken_back(world: World) -> None:
    world.store.fail("patch", DOWN)
    with pytest.raises(StoreUnavailable):
        world.writer.rename("b.csv", "c.csv", change=labelled("new"))
    assert "c.csv" not in world.store.names()
    assert not world.rows()
    world.truth()


@pytest.mark.expected_logs("goes on at the next rename")
def test_a_copy_over_another_that_cannot_be_described_goes_on_later(world: World) -> None:
    world.store.facts = type(world.store.facts)(composes=False, has_folders=False)
    world.store.fail("patch", DOWN)
    with pytest.raises(StoreUnavailable):
        world.writer.rename("b.csv", "a.csv", change=labelled("new"))
    assert set(world.rows()) == {"b.csv"}
    world.truth()
    world.writer.make_folder("x", 0o755, ME)
    world.writer.rename("x", "y")
    assert world.labels("a.csv") == {"old", "new"}
    assert world.index.entry("b.csv") is None
    assert not world.rows()
    world.truth()


def test_a_copy_that_fails_leaves_nothing(world: World) -> None:
    world.store.fail("rewrite", DOWN)
    with pytest.raises(StoreUnavailable):
        world.writer.rename("b.csv", "c.csv")
    assert not world.rows()
    world.truth()


@pytest.mark.expected_logs("could not be removed yet")
def test_a_source_that_cannot_be_removed_is_marked_and_goes_later(world: World) -> None:
    world.store.fail("delete", DOWN)
    with pytest.raises(StoreUnavailable):
        world.writer.rename("b.csv", "c.csv", change=labelled("new"))
    assert set(world.rows()) == {"b.csv"}
    assert world.writer.status()["interrupted_renames"] == 1
    world.truth()
    world.writer.rename("a.csv", "d.csv")
    assert world.store.names() >= {"c.csv", "d.csv"}
    assert "b.csv" not in world.store.names()
    assert not world.rows()
    world.truth()


@pytest.mark.expected_logs("interrupted before it began")
@pytest.mark.parametrize("step", ["rewrite", "patch", "delete"])
@pytest.mark.parametrize("after", [False, True])
def test_a_rename_goes_on_after_a_crash_at_any_moment(world: World, store: MemoryStore, step: str, after: bool) -> None:
    class Killed(BaseException):
        pass

    store.facts = type(store.facts)(composes=False, has_folders=False)
    store.fail(step, Killed(), after=after)  # type: ignore[arg-type]
    with pytest.raises(Killed):
        world.writer.rename("b.csv", "a.csv", change=labelled("new"))
    assert "b.csv" in world.rows()
    again = begin(store, world.journal)
    again.writer.restore()
    if step == "rewrite" and not after:
        assert (store.data("a.csv"), store.data("b.csv")) == (b"alpha", b"beta")
    else:
        assert store.data("a.csv") == b"beta"
        assert "b.csv" not in store.names()
        assert again.labels("a.csv") == {"old", "new"}
    assert not again.rows()
    again.truth()
    again.end()


# --- renames of folders


def test_renames_of_one_file_that_two_sessions_left_are_both_gone_on_with(world: World, store: MemoryStore) -> None:
    info = store.stat("a.csv")
    assert isinstance(info.version, tuple)
    row = {"kind": "file", "new": "y", "generation": info.version[0], "target": 0, "custom": {}}
    store.rewrite("a.csv", info.version[0], "x", Precondition(0))
    store.rewrite("a.csv", info.version[0], "y", Precondition(0))
    world.journal.put("rename", "a.csv", row)
    earlier = {"kind": "rename", "key": "a.csv", "value": {**row, "new": "x"}}
    world.journal.put(DISPLACED, "1-a/rename/a.csv", earlier)
    again = begin(store, world.journal)
    again.writer.restore()
    assert store.names() >= {"x", "y"}, "nothing is removed that is the last of its kind"
    assert "a.csv" not in store.names()
    assert (world.journal.items(DISPLACED), world.rows()) == ({}, {})
    again.truth()
    again.end()


def content(store: MemoryStore) -> dict[str, bytes]:
    """All files and markers with their bytes."""
    return {path: stored.data for path, stored in store.objects.items()}


MOVED = {"a.csv": b"alpha", "b.csv": b"beta", "to/one": b"1", "to/sub/two": b"2"}


def test_a_folder_moves_with_all_below(world: World) -> None:
    world.writer.describe("dir/sub/two", labelled("deep"))
    world.writer.set_mode("dir/sub", 0o700)
    world.writer.make_folder("dir/empty", 0o755, ME)
    world.writer.store_document("dir/empty", document(later=record("x")))
    world.writer.rename("dir", "to")
    assert content(world.store) == {**MOVED, "to/sub/": b"", "to/empty/": b""}
    assert world.labels("to/sub/two") == {"deep"}
    assert world.datafile("to/one").tags == {"n": 1}
    folder = world.index.folder("to/sub")
    assert folder is not None
    assert folder.info is not None
    assert folder.info.mode == stat.S_IFDIR | 0o700
    assert set(world.writer.waiting("to/empty")) == {"later"}
    assert ("moved_folder", "dir", "to") in world.files.told
    assert not world.rows()
    world.truth()


def test_a_folder_moves_over_an_empty_one(world: World) -> None:
    world.writer.make_folder("to", 0o755, ME)
    world.writer.rename("dir", "to")
    assert content(world.store) == {**MOVED, "to/": b""}
    world.truth()


def test_a_folder_that_seems_empty_is_not_replaced(world: World) -> None:
    world.writer.make_folder("to", 0o755, ME)
    world.store.put("to/theirs", b"x")
    with pytest.raises(NotEmpty):
        world.writer.rename("dir", "to")
    assert world.store.data("to/theirs") == b"x"


def test_the_folder_above_stays(world: World) -> None:
    world.writer.rename("dir/sub", "sub")
    world.writer.remove("dir/one")
    assert isinstance(world.index.entry("dir"), Folder)
    world.truth()


def test_a_folder_with_names_that_are_no_paths_stays_whole(world: World) -> None:
    world.store.objects["dir//x"] = world.store.objects["dir/one"]
    before = content(world.store)
    with pytest.raises(Unsupported, match="dir//x"):
        world.writer.rename("dir", "to")
    assert content(world.store) == before
    assert not world.rows()


@pytest.mark.parametrize("composes", [True, False])
def test_a_copy_that_fails_takes_the_others_back(world: World, composes: bool) -> None:
    world.store.facts = type(world.store.facts)(composes=composes, has_folders=False)
    before = content(world.store)
    world.store.fail("rewrite", DOWN, path="dir/sub/two")
    with pytest.raises(StoreUnavailable):
        world.writer.rename("dir", "to")
    assert content(world.store) == before
    assert not world.rows()
    world.truth()


@pytest.mark.expected_logs("could be taken back yet")
def test_copies_that_may_have_been_made_are_marked_and_go_later(world: World) -> None:
    before = content(world.store)
    world.store.fail("rewrite", DOWN, path="dir/sub/two", after=True)
    world.store.fail("stat", DOWN, path="to/sub/two")
    with pytest.raises(StoreUnavailable):
        world.writer.rename("dir", "to")
    assert world.rows()["dir"]["back"] is True
    world.writer.rename("a.csv", "a2.csv")
    world.writer.rename("a2.csv", "a.csv")
    assert content(world.store) == before
    assert not world.rows()
    world.truth()


@pytest.mark.expected_logs("could be taken back yet")
def test_copies_that_cannot_be_taken_back_are_marked_and_go_later(world: World) -> None:
    before = content(world.store)
    world.store.fail("rewrite", DOWN, path="dir/sub/two")
    world.store.fail("delete", DOWN, path="to/one")

    def wait_for_the_other() -> None:
        while "to/one" not in world.store.names():
            time.sleep(0.001)

    world.store.before("rewrite", wait_for_the_other, path="dir/sub/two")
    with pytest.raises(StoreUnavailable):
        world.writer.rename("dir", "to")
    assert world.rows()["dir"]["back"] is True
    world.truth()
    world.writer.rename("a.csv", "a2.csv")
    world.writer.rename("a2.csv", "a.csv")
    assert content(world.store) == before
    assert not world.rows()
    world.truth()


@pytest.mark.expected_logs("in both folders still")
def test_sources_that_cannot_be_removed_are_marked_and_go_later(world: World) -> None:
    world.store.fail("delete", DOWN, path="dir/one")
    with pytest.raises(StoreUnavailable):
        world.writer.rename("dir", "to")
    assert content(world.store) == {**MOVED, "dir/one": b"1"}
    assert set(world.rows()) == {"dir"}
    world.truth()
    world.writer.rename("a.csv", "a2.csv")
    world.writer.rename("a2.csv", "a.csv")
    assert content(world.store) == MOVED
    assert not world.rows()
    assert world.index.entry("dir") is None
    world.truth()


def test_a_version_stored_by_another_while_its_folder_moves_stays_and_shows(world: World) -> None:
    world.store.before("delete", lambda: world.store.put("dir/one", b"late"), path="dir/one")
    world.writer.rename("dir", "to")
    assert content(world.store) == {**MOVED, "dir/one": b"late"}
    world.truth()


@pytest.mark.parametrize("method", ["rewrite", "delete"])
def test_lost_answers_while_a_folder_moves_are_no_conflicts(world: World, method: str) -> None:
    world.store.lose_answer(method)
    world.writer.rename("dir", "to")
    assert content(world.store) == MOVED
    world.truth()


@pytest.mark.parametrize("step", ["rewrite", "delete"])
@pytest.mark.parametrize("after", [False, True])
def test_a_folder_s_rename_goes_on_after_a_crash(world: World, store: MemoryStore, step: str, after: bool) -> None:
    class Killed(BaseException):
        pass

    world.writer.set_mode("dir", 0o700)
    store.fail(step, Killed(), after=after, path="dir/sub/two")  # type: ignore[arg-type]
    with pytest.raises(Killed):
        world.writer.rename("dir", "to")
    again = begin(store, world.journal)
    again.writer.restore()
    assert content(store) == {**MOVED, "to/": b""}
    assert store.metadata("to/") == {"goog-reserved-posix-mode": "700"}
    assert not again.rows()
    again.truth()
    again.end()


def test_what_was_described_after_the_crash_is_kept(world: World, store: MemoryStore) -> None:
    class Killed(BaseException):
        pass

    store.fail("delete", Killed(), times=2)  # type: ignore[arg-type]
    with pytest.raises(Killed):
        world.writer.rename("dir", "to")
    store.touch_metadata("dir/one", octue__tags='{"late": 1}')
    store.touch_metadata("to/sub/two", octue__tags='{"late": 2}')
    again = begin(store, world.journal)
    again.writer.restore()
    assert (again.datafile("to/one").tags, again.datafile("to/sub/two").tags) == ({"late": 1}, {"late": 2})
    assert content(store) == MOVED
    again.truth()
    again.end()


def test_a_bucket_with_folders_moves_them_at_once(world: World) -> None:
    world.store.facts = type(world.store.facts)(composes=True, has_folders=True)
    world.writer.make_folder("to", 0o755, ME)
    world.store.lose_answer("rename_folder")
    world.writer.rename("dir", "to")
    assert content(world.store) == MOVED
    assert not world.store.asked("rewrite")
    world.truth()


def test_an_object_of_the_folder_s_own_name_stays(world: World) -> None:
    world.store.put("dir", b"hidden")
    world.store.put("dir/sub", b"hidden too")
    world.keeper.refresh().result()
    assert isinstance(world.index.entry("dir"), Folder)
    world.writer.rename("dir", "to")
    assert content(world.store) == {**MOVED, "dir": b"hidden", "to/sub": b"hidden too"}
    assert world.datafile("dir").size == 6
    assert world.index.shadowed.keys() == {"to/sub"}
    world.truth()


# --- what could not be stored


def test_recovered_names_are_unique_and_stay(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    taken: list[tuple[str, bytes]] = []
    recovered = Recovered(journal, lambda path, data: taken.append((path, data)))
    recovered.keep_text("dir/.octue", b"one", "bad")
    recovered.keep_text("dir/.octue", b"two", "bad")
    recovered.keep_text("dir/.octue", b"two", "bad")
    names = [entry.name for entry in recovered.entries()]
    assert len(set(names)) == 2
    assert all(name.startswith(".octue.2") for name in names)
    texts = {name: recovered.open(name).read(0, 10) for name in names}
    assert sorted(texts.values()) == [b"one", b"two"]
    recovered.discard(names[0])
    (entry,) = recovered.entries()
    assert (entry.name, entry.path, entry.reason, entry.size) == (names[1], "dir/.octue", "bad", 3)
    recovered.restore(names[1])
    assert taken == [("dir/.octue", texts[names[1]])]
    assert not recovered.entries()
    with pytest.raises(NotFound):
        recovered.open(names[1])
    journal.close()
