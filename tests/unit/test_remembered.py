"""What is remembered of a bucket over mounts: an index begins with it, and what differs by then is found out."""

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from unit.memory_store import MemoryStore

from octuefs.content.hashing import Hasher
from octuefs.datafile import Datafile
from octuefs.dataset import Dataset
from octuefs.entries import Folder
from octuefs.errors import NotFound, StoreUnavailable
from octuefs.facts.pack import Bucket
from octuefs.index import Index
from octuefs.keeper import Keeper
from octuefs.remembered import Remembered
from octuefs.report import Report
from octuefs.stores.base import ObjectInfo, Skipped
from octuefs.stores.gcs_resource import inode_of
from octuefs.tree.queries import HasExtension, HasHash, HasLabel, HasTag


class Slow(MemoryStore):
    """A store whose listings wait until they are let go, if they are told to."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.listing = threading.Event()
        """Set while one waits."""

    def scan(self, folder: str = "", *, recursive: bool = True) -> Iterator[ObjectInfo | Skipped]:
        found = list(super().scan(folder, recursive=recursive))
        self.listing.set()
        assert self.gate.wait(20)
        return iter(found)


class World:
    """A bucket, and the file in which mounts remember it."""

    def __init__(self, file: Path, stack: ExitStack) -> None:
        stack.enter_context(mock.patch("octuefs.keeper._HEAD_START_SECONDS", 0))
        self.store = Slow()
        self.file = file
        self._stack = stack

    def mount(self, *, ttl: float = 60, store: Any = None) -> "Mount":
        mount = Mount(store or self.store, self.file, ttl)
        self._stack.callback(mount.close)
        return mount

    def remembered(self) -> None:
        """Mount, and unmount again, so that all is remembered."""
        self.mount().close()
        self.store.requests.clear()


class Mount:
    """What a mount has of it."""

    def __init__(self, store: Any, file: Path, ttl: float) -> None:
        self.store = store
        self.report = Report()
        self.index = Index()

        def bucket_of(templates: Any) -> Bucket:
            return Bucket(store.place, store.ownership, lambda path: inode_of(store.place, path), templates)

        self.keeper = Keeper(
            store,
            self.report,
            self.index,
            recursive=True,
            metadata_ttl=ttl,
            remembered=Remembered(lambda: file, self.index, bucket_of),
        )
        self.hasher = Hasher(store, self.index.publish_hash)
        self.dataset = Dataset(self.keeper, self.hasher)
        self.keeper.load()

    def confirmed(self) -> "Mount":
        """Wait until the bucket has been read."""
        done = threading.Event()
        self.keeper.when_confirmed(done.set)
        assert done.wait(20)
        return self

    def close(self) -> None:
        self.keeper.close()
        self.hasher.close()

    def shown(self) -> dict[str, Any]:
        """All that shows, with what is known of it."""
        found: dict[str, Any] = {}
        pending = [self.index.root]
        while pending:
            folder = pending.pop()
            for entry in folder.children.values():
                if isinstance(entry, Folder):
                    found[f"{entry.path}/"] = entry.info
                    pending.append(entry)
                elif isinstance(entry, Datafile):
                    found[entry.path] = (entry.info, entry.metadata, entry.crc32c, entry.size, entry.id)
                else:
                    found[entry.info.path] = entry.info
        return {**found, **{f"hidden {path}": it.info for path, it in self.index.shadowed.items()}}


def octue(*labels: str, id: str | None = None, timestamp: str | None = None, **tags: Any) -> dict[str, str]:
    """Custom metadata as the SDK writes them."""
    metadata = {"octue__labels": json.dumps({"_type": "set", "items": labels}), "octue__tags": json.dumps(tags)}
    metadata["octue__timestamp"] = (
        json.dumps({"_type": "datetime", "value": timestamp}) if timestamp is not None else "null"
    )
    if id is not None:
        metadata["octue__id"] = json.dumps(id)
    return {**metadata, "octue__sdk_version": '"0.69.1"'}


AN_ID = "6f1f8d1e-0f5c-4c57-8c2a-111111111111"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        world = World(tmp_path / "facts.sqlite", stack)
        store = world.store
        store.put(".octue", json.dumps({"dataset": {"name": "The farm", "labels": ["l"], "id": AN_ID}}).encode())
        store.put("a.csv", b"1", octue("one", id=AN_ID, timestamp="2024-03-01T10:00:00"))
        store.put("b.csv", b"22", octue("one", "two", mast=1), contentType="text/csv")
        store.put("d/e/x.dat", b"333", {"octue__labels": "two", "foreign": "kept", "goog-reserved-posix-mode": "600"})
        store.put("d/e/y", b"333", {"goog-reserved-file-mtime": "1700000000.5", "labels": '["bare"]'})
        store.put("d/z.octue", b"text")
        store.put("d", b"hidden by the folder")
        store.put("empty/", b"")
        store.put("d-1", b"", {"octue__labels": "NOT A LABEL!"})
        yield world
        store.gate.set()


def asked(world: World) -> list[tuple[str, str]]:
    """The requests about single paths; the root is there without being asked for."""
    return [it for it in world.store.requests if it[0] != "scan" and it[1]]


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    for _ in range(2000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come about")


# --- the same as before ------------------------------------------------------------------------------------------


@pytest.mark.expected_logs("is no label")
def test_a_mount_shows_at_once_all_that_another_knew_and_asks_nothing(world: World) -> None:
    first = world.mount()
    before, hashes = first.shown(), first.dataset.set_hash("", ())
    problems = first.report.problems()
    first.close()
    plain = Keeper(world.store, Report(), Index(), recursive=True, metadata_ttl=60)
    plain.load()
    plain.close()
    world.store.requests.clear()
    world.store.gate.clear()
    second = world.mount()
    assert second.shown() == before
    assert second.dataset.set_hash("", ()) == hashes
    assert (second.dataset.name, second.dataset.id) == ("The farm", AN_ID)
    assert second.report.problems() == problems != {}
    assert asked(world) == []
    assert second.index.total_bytes == plain.index.total_bytes
    world.store.gate.set()
    version = second.index.version
    second.confirmed()
    assert second.index.version == version  # nothing differs, so nothing is told


@pytest.mark.expected_logs("is no label")
def test_what_is_packed_is_what_the_store_says(world: World) -> None:
    plain = Keeper(world.store, Report(), Index(), recursive=True, metadata_ttl=60)
    plain.load()
    plain.close()
    mount = world.mount()
    for path in ("a.csv", "b.csv", "d/e/x.dat", "d/e/y", "d-1"):
        ours, theirs = mount.index.entry(path), plain.index.entry(path)
        assert isinstance(ours, Datafile)
        assert isinstance(theirs, Datafile)
        assert ours.info == theirs.info
        assert (ours.metadata, ours.labels, ours.tags) == (theirs.metadata, theirs.labels, theirs.tags)
        assert (ours.timestamp, ours.id, ours.crc32c) == (theirs.timestamp, theirs.id, theirs.crc32c)
        assert (ours.size, ours.extension, ours.full_path) == (theirs.size, theirs.extension, theirs.full_path)
    assert mount.index.shadowed.keys() == plain.index.shadowed.keys() == {"d"}
    for query in (
        HasLabel(frozenset({"two"})),
        HasLabel(frozenset({"bare"})),
        HasExtension(frozenset({"csv"})),
        HasTag("mast", frozenset({"1"})),
        HasHash(frozenset({theirs.hash_value})),
    ):
        ours_shown = sorted(it.path for it in mount.index.members("", (query,)))
        assert ours_shown == sorted(it.path for it in plain.index.members("", (query,))) != []
    assert list(mount.index.by_date) == list(plain.index.by_date)
    assert dict(mount.index.by_hash.items()).keys() == dict(plain.index.by_hash.items()).keys()
    assert mount.index.is_anothers(AN_ID, "b.csv")
    assert not mount.index.is_anothers(AN_ID, "a.csv")


# --- what differs by then ------------------------------------------------------------------------------------------


pytestmark = pytest.mark.expected_logs("is no label")


def test_what_has_changed_meanwhile_is_published_and_nothing_else(world: World) -> None:
    world.remembered()
    store = world.store
    store.put("a.csv", b"new bytes", octue("three"))
    store.touch_metadata("b.csv", octue__labels='["four"]')
    store.drop("d/e/y")
    store.drop("empty/")
    store.drop("d/z.octue")
    store.put("f/g/new", b"1", octue("one"))
    store.gate.clear()
    mount = world.mount()
    told: list[str] = []
    mount.index.observe(told.append)
    assert mount.index.entry("f") is None
    store.gate.set()
    mount.confirmed()
    assert set(told) == {"a.csv", "b.csv", "d/e/y", "empty", "d/z.octue", "f", "f/g", "f/g/new"}
    plain = Keeper(store, Report(), Index(), recursive=True, metadata_ttl=60)
    plain.load()
    plain.close()
    assert {it.path: it.info for it in mount.index.members("", ())} == {
        it.path: it.info for it in plain.index.members("", ())
    }
    assert mount.index.folder("empty") is None
    assert sorted(mount.index.by_label) == sorted(plain.index.by_label)


def test_what_gets_the_place_of_a_file_that_a_folder_hides_stays(world: World) -> None:
    mount = world.mount()
    world.store.drop("b.csv")
    world.store.put("b.csv/below", b"1")
    for number in range(5):
        world.store.put(f"n/{number}", b"1")
    mount.keeper.refresh().result()
    assert sorted(it.path for it in mount.index.members("n", ())) == [f"n/{number}" for number in range(5)]
    assert mount.index.shadowed.keys() == {"d"}


def test_what_was_found_to_differ_is_remembered_in_turn(world: World) -> None:
    world.remembered()
    store = world.store
    store.put("a.csv", b"new bytes", octue("three"))
    store.drop("d/e/y")
    store.drop("d")
    store.put("f/g/new", b"1")
    store.put("made/", b"")
    mount = world.mount().confirmed()
    now = mount.shown()
    mount.close()
    store.gate.clear()
    assert world.mount().shown() == now


def test_the_datasets_own_record_is_remembered_and_read_again_where_it_has_changed(world: World) -> None:
    world.remembered()
    world.store.put(".octue", json.dumps({"dataset": {"name": "The mast"}}).encode())
    world.store.gate.clear()
    mount = world.mount()
    assert mount.dataset.name == "The farm"
    world.store.gate.set()
    mount.confirmed()
    assert mount.dataset.name == "The mast"
    mount.close()
    world.store.drop(".octue")
    mount = world.mount()
    assert mount.dataset.name in ("The mast", "data")
    mount.confirmed()
    assert mount.dataset.name == "data"


@pytest.mark.expected_logs("not now")
def test_a_record_that_cannot_be_read_is_read_again_by_the_next_mount(world: World) -> None:
    world.store.fail("read", StoreUnavailable("not now"))
    mount = world.mount()
    assert mount.dataset.name == "data"
    mount.close()
    again = world.mount()
    assert again.dataset.name == "The farm"


# --- what is not confirmed yet is asked for --------------------------------------------------------------------------


def info_of(mount: Mount, path: str) -> ObjectInfo:
    entry = mount.index.entry(path)
    assert isinstance(entry, Datafile)
    return entry.info


def test_an_open_asks_once_until_the_bucket_has_been_read(world: World) -> None:
    world.remembered()
    world.store.gate.clear()
    mount = world.mount()
    world.store.put("a.csv", b"new bytes")
    for _ in range(3):
        with_new = mount.dataset.open(info_of(mount, "a.csv"))
        assert with_new.read(0, 100) == b"new bytes"
    assert [it for it in asked(world) if it[0] == "stat"] == [("stat", "a.csv")]
    assert info_of(mount, "a.csv").size == 9
    world.store.gate.set()
    mount.confirmed()
    world.store.requests.clear()
    mount.dataset.open(info_of(mount, "b.csv"))
    assert asked(world) == []


def test_an_open_of_what_has_gone_says_so(world: World) -> None:
    world.remembered()
    world.store.gate.clear()
    mount = world.mount()
    world.store.drop("a.csv")
    info = info_of(mount, "a.csv")
    with pytest.raises(NotFound):
        mount.dataset.open(info)
    assert mount.index.entry("a.csv") is None


def test_a_name_that_is_not_found_is_asked_for_once_until_the_bucket_has_been_read(world: World) -> None:
    world.remembered()
    world.store.gate.clear()
    mount = world.mount()
    world.store.put("new.csv", b"1", octue("new"))
    assert mount.keeper.find_unseen("new.csv")
    assert sorted(info_of(mount, "new.csv").custom_metadata or {})[1] == "octue__sdk_version"
    assert asked(world) == [("stat", "new.csv")]
    for _ in range(3):
        assert not mount.keeper.find_unseen("none.csv")
        assert not mount.keeper.find_unseen("d/.octue")
    assert asked(world) == [("stat", "new.csv"), ("stat", "none.csv")]
    world.store.gate.set()
    mount.confirmed()
    assert not mount.keeper.find_unseen("other.csv")
    assert asked(world) == [("stat", "new.csv"), ("stat", "none.csv")]


def test_a_new_folder_is_found_too(world: World) -> None:
    world.remembered()
    mount = world.mount().confirmed()
    mount.close()
    world.store.put("f/g/new.csv", b"1")
    world.store.gate.clear()
    mount = world.mount()
    world.store.listing.wait(20)
    found = threading.Thread(target=mount.keeper.find_unseen, args=("f",))
    found.start()
    world.store.gate.set()
    found.join(20)
    assert isinstance(mount.index.entry("f/g/new.csv"), Datafile)


@pytest.mark.expected_logs("could not re-read")
def test_a_bucket_that_does_not_answer_leaves_what_was_known(world: World) -> None:
    world.remembered()
    world.store.fail("scan", StoreUnavailable("down"))
    mount = world.mount()
    wait_until(lambda: mount.keeper.failure is not None)
    world.store.fail("stat", StoreUnavailable("down"))
    assert mount.dataset.open(info_of(mount, "a.csv")).read(0, 9) == b"1"
    mount.keeper.expire()
    assert mount.keeper.lasting() <= 1


# --- what a listing must not undo -------------------------------------------------------------------------------------


def test_a_listing_does_not_undo_what_was_found_since_it_began(world: World) -> None:
    world.remembered()
    store = world.store
    store.gate.clear()
    mount = world.mount()
    assert store.listing.wait(20)  # it has seen the bucket as it was
    store.put("a.csv", b"newer", octue("newer"))
    store.put("new.csv", b"1")
    store.drop("b.csv")
    mount.dataset.open(info_of(mount, "a.csv"))
    assert mount.keeper.find_unseen("new.csv")
    with pytest.raises(NotFound):
        mount.dataset.open(info_of(mount, "b.csv"))
    told: list[str] = []
    mount.index.observe(told.append)
    store.gate.set()
    mount.confirmed()
    mount.keeper.changed([]).result()
    assert info_of(mount, "a.csv").size == 5
    assert mount.index.entry("new.csv") is not None
    assert mount.index.entry("b.csv") is None
    assert told == []


def test_an_older_word_of_an_object_never_replaces_a_newer_one_on_disk(world: World) -> None:
    world.remembered()
    store = world.store
    one, two = world.mount().confirmed(), world.mount().confirmed()
    store.put("a.csv", b"1st")
    store.put("b.csv", b"1st")
    one.keeper.refresh().result()
    two.keeper.refresh().result()
    store.put("a.csv", b"second")
    store.drop("b.csv")
    two.keeper.refresh().result()
    two.close()
    one.close()  # which knows less, and writes later
    store.gate.clear()
    mount = world.mount()
    assert info_of(mount, "a.csv").size == 6
    assert mount.index.entry("b.csv") is None


def test_facts_written_anew_keep_what_another_mount_found_since(world: World) -> None:
    world.remembered()
    store = world.store
    one, two = world.mount().confirmed(), world.mount().confirmed()
    store.put("a.csv", b"second")
    store.put("fresh", b"1")
    store.drop("b.csv")
    two.keeper.refresh().result()
    two.close()
    one.index.publish([])
    assert one.keeper._remembered is not None
    one.keeper._remembered.write_anew()
    one.close()
    store.gate.clear()
    mount = world.mount()
    assert info_of(mount, "a.csv").size == 6
    assert mount.index.entry("fresh") is not None
    assert mount.index.entry("b.csv") is None


def test_many_changes_are_gathered_into_new_facts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octuefs.remembered._MOST_CHANGES", 3)
    world.remembered()
    for number in range(10):
        world.store.put(f"n/{number}", b"1", octue(f"label{number}"))
    mount = world.mount().confirmed()
    now = mount.shown()
    wait_until(lambda: changes_in(world.file) == 0)
    mount.close()
    world.store.gate.clear()
    again = world.mount()
    assert again.shown() == now
    assert sorted(again.index.by_label) == sorted(mount.index.by_label)


def changes_in(file: Path) -> int:
    connection = sqlite3.connect(file)
    try:
        (count,) = connection.execute("SELECT count(*) FROM changes").fetchone()
        (folders,) = connection.execute("SELECT count(*) FROM folders WHERE path = 'n'").fetchone()
        return int(count) if folders else -1
    finally:
        connection.close()


# --- files that cannot be used ----------------------------------------------------------------------------------------


def damage_page(file: Path) -> None:
    data = bytearray(file.read_bytes())
    at = data.index(b"a.csv")
    data[at : at + 5] = b"z.csv"
    file.write_bytes(data)


def another_make(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE facts SET value = 'octuefs facts 0' WHERE name = 'make'")
    connection.close()


def bad_change(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute(
            "INSERT INTO changes (path, kind, generation, metageneration, text) VALUES ('q', 'file', 1, 1, '[]')"
        )
    connection.close()


def lost_folder(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("DELETE FROM folders WHERE path = 'd'")
    connection.close()


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b"no database at all" * 100),
        lambda file: file.write_bytes(file.read_bytes()[:5000]),
        damage_page,
        another_make,
        bad_change,
        lost_folder,
    ],
)
def test_a_damaged_file_is_made_anew(world: World, damage: Callable[[Path], object]) -> None:
    world.remembered()
    damage(world.file)
    mount = world.mount()
    assert ("scan", "") in world.store.requests
    assert isinstance(mount.index.entry("a.csv"), Datafile)
    before = mount.shown()
    mount.close()
    world.store.gate.clear()
    assert world.mount().shown() == before
    assert oct(os.stat(world.file).st_mode & 0o777) == "0o600"


@pytest.mark.expected_logs("not remembered for now")
def test_a_file_that_cannot_be_made_is_no_harm(world: World, tmp_path: Path) -> None:
    world.file = tmp_path / "nowhere" / "facts.sqlite"
    mount = world.mount()
    assert isinstance(mount.index.entry("a.csv"), Datafile)
    mount.keeper.refresh().result()


def test_a_dataset_that_names_its_files_is_not_remembered(world: World) -> None:
    world.remembered()
    record = {"dataset": {"files": ["gs://bucket/data/a.csv"]}}
    world.store.put(".octue", json.dumps(record).encode())
    mount = world.mount().confirmed()
    assert [it.path for it in mount.index.members("", ())] == ["a.csv"]
    mount.close()
    world.store.requests.clear()
    mount = world.mount()
    assert ("scan", "") in world.store.requests
    assert [it.path for it in mount.index.members("", ())] == ["a.csv"]


def test_what_a_killed_writer_may_not_have_noted_does_not_count(world: World) -> None:
    world.remembered()
    killed = world.mount().confirmed()
    killed.keeper.about_to_write()
    other = world.mount()  # while that one lives its own word is on its way
    assert ("scan", "") in world.store.requests
    other.close()
    assert killed.keeper._remembered is not None
    remembered = killed.keeper._remembered
    assert remembered._writers is not None
    remembered._writers.close()  # as its end does
    remembered._writers = None
    world.store.put("z.csv", b"1")
    world.store.gate.clear()
    opened = threading.Event()
    threading.Thread(target=lambda: (world.mount(), opened.set())).start()
    wait_until(world.store.listing.is_set)
    assert not opened.is_set()
    world.store.gate.set()
    assert opened.wait(20)


def test_who_has_written_and_ends_leaves_all_noted(world: World) -> None:
    world.remembered()
    mount = world.mount().confirmed()
    mount.keeper.about_to_write()
    info = world.store.put("z.csv", b"1")
    mount.index.publish([mount.keeper.classify(info, None)])
    now = mount.shown()
    mount.close()
    world.store.gate.clear()
    assert world.mount().shown() == now


def test_what_nobody_mounts_any_more_is_forgotten_after_long(world: World) -> None:
    world.remembered()
    old, recent = world.file.with_name("old.sqlite"), world.file.with_name("recent.sqlite")
    for path in (old, recent):
        path.write_bytes(b"facts")
    os.utime(old, (0, 0))
    world.mount()
    assert (old.exists(), recent.exists()) == (False, True)
