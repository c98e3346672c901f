"""Open, dirty and pending files of a cloud dataset, over a strict store in memory, a real journal and real staging."""

import json
import os
import shutil
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from unit.memory_store import MemoryStore, crc32c

from octuefs.datafile import Datafile
from octuefs.entries import DatafileSeen, Removed
from octuefs.errors import (
    ChecksumMismatch,
    Conflict,
    LocalFailure,
    NotFound,
    NotPermitted,
    OctuefsError,
    PermissionRefused,
    StoreUnavailable,
    TimedOut,
    TooBig,
    Unsupported,
)
from octuefs.index import Index
from octuefs.model.changes import MetadataChange
from octuefs.model.metadata import DatafileMetadata, decode_custom_metadata
from octuefs.report import Report
from octuefs.stores.base import Kind, ObjectInfo
from octuefs.stores.writing import ObjectProperties, Precondition
from octuefs.writing import journal, uploads
from octuefs.writing.base import Unnamed
from octuefs.writing.cloud_facts import generation_of
from octuefs.writing.cloudfiles import CloudFiles
from octuefs.writing.cloudhandle import CloudHandle
from octuefs.writing.filerows import Recovered
from octuefs.writing.journal import Journal

MIB = 1 << 20
LABEL = MetadataChange(labels_added=frozenset({"new"}))
OTHER = MetadataChange(labels_added=frozenset({"other"}))
RDWR, WRONLY, RDONLY = os.O_RDWR, os.O_WRONLY, os.O_RDONLY


class World:
    """A store, an index that knows it, and the files of one daemon after another."""

    def __init__(self, folder: Path, *, composes: bool = True, **options: Any) -> None:
        self.store = MemoryStore(composes=composes)
        self.index = Index()
        self.report = Report()
        self.folder = folder
        self.options = options
        self.looked: list[str] = []
        self.start()

    def start(self) -> None:
        staged = self.folder / "staged"
        staged.mkdir(exist_ok=True)
        self.staged = staged
        self.journal = Journal(self.folder / "journal.sqlite")
        session: Any = SimpleNamespace(journal=self.journal, staged_folder=staged)
        self.files = CloudFiles(
            self.store,
            self.index,
            session,
            self.report,
            self.look,
            location=self.store.location,
            classify=self.classify,
            inode_of=lambda path: 7,
            **self.options,
        )

    def classify(self, info: ObjectInfo) -> DatafileSeen:
        metadata = decode_custom_metadata(info.custom_metadata or {})[0] or DatafileMetadata()
        datafile = Datafile(info, self.store.location, metadata, info)
        datafile.crc32c = info.crc32c or 0
        return DatafileSeen(datafile)

    def look(self, paths: Iterable[str]) -> "Future[None]":
        for path in paths:
            self.looked.append(path)
            with self.index.reading() as reading:
                try:
                    self.index.publish_read([self.classify(self.store.stat(path))], reading)
                except NotFound:
                    self.index.publish_read([Removed(path)], reading)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def crash(self) -> None:
        """End the daemon as kill -9 does once the journal is written, and begin the next."""
        self.files._stopping.set()
        self.files._storing.background.close(0)
        self.files._streams.close(0)
        self.journal.settle()
        self.journal.close()
        self.index = Index()
        self.start()
        self.files.restore()

    def put(self, path: str, data: bytes = b"", metadata: dict[str, str] | None = None, **fixed: str) -> ObjectInfo:
        info = self.store.put(path, data, metadata, **fixed)
        self.index.publish([self.classify(info)])
        return info

    def known(self, path: str) -> ObjectInfo:
        entry = self.index.entry(path)
        assert isinstance(entry, Datafile), f"{path}: {entry}"
        return entry.info

    def labels(self, path: str) -> set[str]:
        entry = self.index.entry(path)
        assert isinstance(entry, Datafile)
        return set(entry.metadata.labels)

    def open(self, path: str, flags: int = RDWR) -> CloudHandle:
        return self.files.open(self.known(path), flags)

    def create(self, path: str, flags: int = RDWR, mode: int = 0o644, **custom: str) -> CloudHandle:
        return self.files.create(path, flags, ObjectProperties(custom), mode=mode, metadata=None)

    def write(self, path: str, data: bytes) -> None:
        """Make or replace a file as `cp` does."""
        known = self.index.entry(path) is not None
        handle = self.open(path, WRONLY | os.O_TRUNC) if known else self.create(path)
        handle.write(0, data)
        handle.flush()
        handle.close()

    def left(self) -> list[tuple[str, int]]:
        """What the journal would say after a crash: paths and sizes."""
        for suffix in ("", "-wal"):
            shutil.copyfile(self.folder / f"journal.sqlite{suffix}", self.folder / f"copy.sqlite{suffix}")
        with closing(sqlite3.connect(self.folder / "copy.sqlite")) as connection:
            rows = [json.loads(text) for (text,) in connection.execute("SELECT value FROM entries WHERE kind = 'file'")]
        return [(row["path"], row["size"]) for row in rows]

    def rows(self, state: str | None = None) -> list[dict[str, Any]]:
        return [row for row in self.journal.items("file").values() if state in (None, row["state"])]

    def check_idle(self) -> None:
        """Nothing is left of anything."""
        assert not self.files.below("")
        assert not self.rows()
        assert not list(self.staged.iterdir())
        assert not self.index._held


Make = Callable[..., World]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    worlds = []

    def make(**options: Any) -> World:
        folder = tmp_path / str(len(worlds))
        folder.mkdir()
        worlds.append(World(folder, **options))
        return worlds[-1]

    yield make
    for world in worlds:
        world.files.close()
        with suppress(OctuefsError):
            world.journal.close()


@pytest.fixture
def world(make: Make) -> World:
    return make()


def pattern(size: int, seed: int = 1) -> bytes:
    return (bytes(range(seed, seed + 199)) * (size // 199 + 1))[:size]


# --- small files


def test_a_new_file_is_there_at_once_and_in_the_bucket_at_close(world: World) -> None:
    handle = world.create("a/new.csv")
    assert world.known("a/new.csv").size == 0
    assert world.store.names() == set()
    assert handle.write(0, b"hello") == 5
    handle.write(5, b" world")
    assert handle.read(0, 100) == b"hello world"
    assert handle.info().size == world.files.current(world.known("a/new.csv")).size == 11
    handle.flush()
    stored = world.store.objects["a/new.csv"]
    assert stored.data == b"hello world"
    assert stored.fixed == {"contentType": "text/csv"}
    assert stored.metadata == {}
    assert world.store.requests == [("upload", "a/new.csv")], "one request"
    assert world.known("a/new.csv").version == world.store.stat("a/new.csv").version
    handle.close()
    world.check_idle()


def test_an_empty_new_file_is_stored_at_its_flush(world: World) -> None:
    handle = world.create("empty")
    handle.flush()
    assert world.store.data("empty") == b""
    assert world.store.objects["empty"].fixed == {"contentType": "application/octet-stream"}
    handle.flush()
    handle.close()
    assert world.store.asked("upload") == ["empty"]
    world.check_idle()


def test_a_file_that_is_made_to_be_read_is_stored_too(world: World) -> None:
    handle = world.create("a", RDONLY)
    handle.flush()
    handle.close()
    assert world.store.data("a") == b""
    world.check_idle()


def test_a_reader_of_a_clean_file_stages_nothing(world: World) -> None:
    world.put("a", b"0123456789")
    handle = world.open("a", RDONLY)
    assert handle.read(2, 3) == b"234"
    assert not list(world.staged.iterdir())
    handle.flush()
    handle.close()
    assert world.store.asked("upload") == []
    world.check_idle()


def test_two_handles_of_a_file_see_each_others_writes(world: World) -> None:
    world.put("a", b"0123456789")
    reader, writer = world.open("a", RDONLY), world.open("a", RDWR)
    assert reader.read(0, 4) == b"0123"
    writer.write(1, b"xx")
    assert reader.read(0, 4) == b"0xx3"
    assert reader.info() == writer.info()
    assert reader.version() == writer.version() != world.known("a").version
    assert reader.identity() == writer.identity()
    reader.flush()
    assert world.store.data("a") == b"0123456789", "the reader's close stores nothing"
    writer.flush()
    assert world.store.data("a") == b"0xx3456789"
    assert reader.read(0, 100) == b"0xx3456789"
    writer.close()
    assert reader.read(0, 100) == b"0xx3456789"
    reader.close()
    world.check_idle()


def test_a_write_keeps_what_is_stored_along_but_the_mtime_that_was_set(world: World) -> None:
    kept = {"octue__labels": '["a"]', "foreign": "x", "goog-reserved-posix-mode": "600"}
    custom = {**kept, "goog-reserved-file-mtime": "5"}
    world.put("a", b"old", custom, contentType="text/x", cacheControl="no-store")
    handle = world.open("a")
    assert handle.info().mtime_ns == 5_000_000_000
    handle.write(0, b"new")
    assert handle.info().mtime_ns > 5_000_000_000
    assert handle.info().mode & 0o7777 == 0o600
    handle.flush()
    handle.close()
    stored = world.store.objects["a"]
    assert stored.metadata == kept
    assert stored.fixed == {"contentType": "text/x", "cacheControl": "no-store"}


def test_truncating_to_nothing_fetches_nothing(world: World) -> None:
    world.put("a", b"old" * 100)
    world.put("b", b"old" * 100)
    handle = world.open("a", WRONLY | os.O_TRUNC)
    assert world.files.current(world.known("a")).size == 0
    handle.write(0, b"new")
    handle.flush()
    handle.close()
    handle = world.open("b")
    handle.truncate(0)
    handle.flush()
    handle.close()
    assert (world.store.data("a"), world.store.data("b")) == (b"new", b"")
    assert world.store.asked("read") == []
    world.check_idle()


def test_a_cut_fetches_what_is_kept(world: World) -> None:
    world.put("a", pattern(1000))
    handle = world.open("a")
    handle.truncate(10)
    assert handle.read(0, 100) == pattern(1000)[:10]
    handle.truncate(12)
    handle.allocate(0, 20, 5)
    handle.flush()
    assert world.store.data("a") == pattern(1000)[:10] + bytes(15)
    with pytest.raises(Unsupported):
        handle.allocate(3, 0, 5)
    handle.close()


def test_appends_go_to_the_end_whatever_the_offset(world: World) -> None:
    world.put("a", b"0123")
    one, two = world.open("a", WRONLY | os.O_APPEND), world.open("a", WRONLY | os.O_APPEND)
    one.write(0, b"one")
    two.write(0, b"two")
    one.flush()
    two.flush()
    assert world.store.data("a") == b"0123onetwo"
    one.close()
    two.close()


def test_concurrent_appends_lose_nothing(world: World) -> None:
    handles = [world.create("log", WRONLY | os.O_APPEND)]
    handles += [world.open("log", WRONLY | os.O_APPEND) for _ in range(3)]

    def work(handle: CloudHandle, line: bytes) -> None:
        for number in range(50):
            handle.write(0, line)
            if number % 20 == 0:
                handle.sync()
        handle.flush()
        handle.close()

    threads = [threading.Thread(target=work, args=(handle, b"%d" % i * 8 + b"\n")) for i, handle in enumerate(handles)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = world.store.data("log").splitlines()
    assert sorted(lines) == sorted([b"%d" % i * 8 for i in range(4) for _ in range(50)])
    world.check_idle()


def test_who_writes_while_the_file_is_stored_waits_for_nobody(world: World) -> None:
    handle = world.create("a")
    handle.write(0, b"first")
    during: list[Any] = []

    def meanwhile() -> None:
        world.open("a").write(0, b"F")
        during.append(handle.info().size)

    world.store.before("upload", meanwhile)
    handle.flush()
    assert during == [5]
    assert world.store.data("a") == b"first", "what was stored is what was flushed"
    assert handle.read(0, 10) == b"First"
    handle.flush()
    assert world.store.data("a") == b"First"


# --- attributes and metadata


def test_mode_mtime_and_metadata_set_before_close_go_along(world: World) -> None:
    handle = world.create("a", mode=0o600)
    handle.write(0, b"x")
    assert world.files.set_attributes("a", mode=0o640, mtime_ns=1_500_000_000_250_000_000)
    assert world.files.change_metadata("a", LABEL)
    assert world.labels("a") == {"new"}
    assert handle.info().mtime_ns == 1_500_000_000_250_000_000
    handle.flush()
    custom = world.store.metadata("a")
    assert custom["goog-reserved-posix-mode"] == "640"
    assert custom["goog-reserved-file-mtime"] == "1500000000.25"
    metadata = decode_custom_metadata(custom)[0]
    assert metadata is not None
    assert metadata.labels == {"new"}
    assert metadata.id
    assert metadata.sdk_version
    assert world.store.requests == [("upload", "a")]
    assert not world.files.change_metadata("a", OTHER), "it is stored: the caller patches"
    assert not world.files.set_attributes("a", mode=0o600)
    handle.close()


def test_metadata_set_while_the_file_is_stored_follow(world: World) -> None:
    handle = world.create("a")
    handle.write(0, b"x")
    world.store.before("upload", lambda: world.files.change_metadata("a", LABEL))
    handle.flush()
    metadata = decode_custom_metadata(world.store.metadata("a"))[0]
    assert metadata is not None
    assert metadata.labels == {"new"}
    assert [name for name, _ in world.store.requests] == ["upload", "patch"]
    assert world.labels("a") == {"new"}
    handle.close()
    world.check_idle()


def test_too_much_metadata_change_nothing(world: World) -> None:
    handle = world.create("a")
    with pytest.raises(TooBig):
        world.files.change_metadata("a", MetadataChange(tags_set={"long": "x" * 9000}))
    handle.flush()
    assert world.store.metadata("a") == {}


def test_a_patch_by_us_is_followed_by_those_who_have_the_file_open(world: World) -> None:
    world.put("a", b"0123", {"foreign": "1"})
    handle = world.open("a")
    handle.write(0, b"x")
    world.files.replaced("a", world.store.touch_metadata("a", foreign="2"))
    handle.flush()
    assert world.store.data("a") == b"x123"
    assert world.store.metadata("a") == {"foreign": "2"}
    handle.close()


# --- conflicts


def test_a_version_of_somebody_else_stays_and_ours_is_kept(world: World) -> None:
    world.put("a", b"old")
    handle = world.open("a")
    handle.write(0, b"ours")
    world.store.put("a", b"theirs!")
    with pytest.raises(Conflict, match="recovered"):
        handle.flush()
    assert world.store.data("a") == b"theirs!"
    assert world.known("a").size == 7
    (entry,) = world.files.failed.recovered()
    assert (entry.path, entry.size) == ("a", 4)
    assert "another writer" in entry.reason
    assert world.files.failed.read_recovered(entry.id).read(0, 10) == b"ours"
    assert world.files.sync_state("a").startswith("failed: ")
    reader, writer = world.open("a", RDONLY), world.open("a")
    assert reader.read(0, 10) == b"theirs!", "who opens it now has what stands there"
    writer.write(7, b" and more")
    writer.flush()
    writer.close()
    assert world.store.data("a") == b"theirs! and more"
    assert reader.read(0, 99) == b"theirs! and more"
    for fails in (handle.sync, handle.flush, lambda: handle.read(0, 1), lambda: handle.write(0, b"x")):
        with pytest.raises(Conflict):
            fails()
    handle.close()
    reader.close()
    assert world.store.data("a") == b"theirs! and more"
    world.crash()
    assert [(it.path, it.size) for it in world.files.failed.recovered()] == [("a", 4)]
    world.files.failed.discard(entry.id)
    assert world.files.failed.recovered() == []
    world.check_idle()


def test_a_new_file_loses_to_one_that_came_first(world: World) -> None:
    handle = world.create("a")
    handle.write(0, b"ours")
    world.store.put("a", b"theirs")
    with pytest.raises(Conflict):
        handle.flush()
    handle.close()
    assert world.store.data("a") == b"theirs"
    assert world.known("a").size == 6
    assert world.open("a", RDONLY).read(0, 9) == b"theirs"


def test_an_object_that_was_removed_meanwhile_is_a_conflict(world: World) -> None:
    world.put("a", b"old")
    handle = world.open("a", WRONLY | os.O_TRUNC)
    handle.write(0, b"ours")
    world.store.drop("a")
    with pytest.raises(Conflict, match="removed"):
        handle.flush()
    handle.close()
    assert world.index.entry("a") is None


@pytest.mark.parametrize("size", [4, 9 * MIB])
def test_a_lost_answer_is_no_conflict(world: World, size: int) -> None:
    handle = world.create("a")
    handle.write(0, pattern(size))
    world.files.set_attributes("a", mode=0o600)
    world.store.lose_answer("upload")
    world.store.fail("send", TimedOut("no answer"), after=True)
    handle.flush()
    handle.close()
    assert world.store.data("a") == pattern(size)
    world.check_idle()


def test_metadata_that_another_changed_are_merged(world: World) -> None:
    world.put("a", b"old", {"octue__labels": '["first"]'})
    handle = world.open("a")
    handle.write(0, b"new")
    world.files.change_metadata("a", LABEL)
    world.files.set_attributes("a", mode=0o600)
    world.store.touch_metadata("a", octue__tags='{"k": 1}', foreign="x")
    handle.flush()
    custom = world.store.metadata("a")
    metadata = decode_custom_metadata(custom)[0]
    assert metadata is not None
    assert (metadata.labels, dict(metadata.tags)) == ({"first", "new"}, {"k": 1})
    assert (custom["foreign"], custom["goog-reserved-posix-mode"]) == ("x", "600")
    assert world.store.data("a") == b"new"
    handle.close()


def test_the_same_field_changed_by_another_is_a_conflict(world: World) -> None:
    world.put("a", b"old", {"octue__tags": '{"k": 0}'})
    handle = world.open("a")
    handle.write(0, b"new")
    world.files.change_metadata("a", MetadataChange(tags_set={"k": 1}))
    world.store.touch_metadata("a", octue__tags='{"k": 2}')
    with pytest.raises(Conflict):
        handle.flush()
    assert world.store.data("a") == b"old"
    assert [entry.path for entry in world.files.failed.recovered()] == ["a"]
    handle.close()


def test_an_open_sees_what_was_stored_since(world: World) -> None:
    world.put("a", b"old")
    before = world.known("a")
    handle = world.open("a", RDONLY)
    world.put("a", b"newer")
    assert handle.info().size == 3
    with pytest.raises(Conflict):
        handle.read(0, 10)
    later = world.open("a", RDWR)
    assert later.identity() != handle.identity()
    assert later.read(0, 10) == b"newer"
    later.write(0, b"N")
    later.flush()
    assert world.store.data("a") == b"Newer"
    stale = world.files.open(before, RDONLY)
    assert stale.read(0, 10) == b"Newer", "what the index knows is later than what the caller had"


# --- failures


def test_a_failure_keeps_what_was_written(world: World) -> None:
    handle = world.create("a")
    handle.write(0, b"ours")
    world.store.fail("upload", PermissionRefused("no"))
    with pytest.raises(PermissionRefused, match="recovered"):
        handle.flush()
    handle.close()
    assert [(it.path, it.size) for it in world.files.failed.recovered()] == [("a", 4)]
    assert world.index.entry("a") is None
    world.write("a", b"again")
    assert world.store.data("a") == b"again"
    assert world.files.sync_state("a") == "clean"


def test_other_bytes_than_were_sent_are_a_failure(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = world.create("a")
    handle.write(0, pattern(9 * MIB))
    send = world.store.send

    def damaged(path: str, session: str, body: Any, start: int, end: int, *, total: int | None) -> Any:
        return send(path, session, lambda offset, size: bytes(len(body(offset, size))), start, end, total=total)

    monkeypatch.setattr(world.store, "send", damaged)
    with pytest.raises(ChecksumMismatch):
        handle.flush()
    assert [it.size for it in world.files.failed.recovered()] == [9 * MIB]


@pytest.mark.parametrize("write_back", [False, True])
def test_a_full_staging_disk_stores_nothing(make: Make, monkeypatch: pytest.MonkeyPatch, write_back: bool) -> None:
    world = make(write_back=write_back)
    world.put("a", b"old")
    handle, new = world.open("a"), world.create("b")
    handle.write(0, b"x")
    full = LocalFailure("no space left")
    full.errno = 28

    def fail(*args: object) -> int:
        raise full

    for opened in (handle, new):
        content = opened._file.content
        assert content is not None
        monkeypatch.setattr(content.staged, "write", fail)
        with pytest.raises(LocalFailure):
            opened.write(3, b"more")
        with pytest.raises(LocalFailure) as failure:
            opened.flush()
        assert failure.value.errno == 28
        opened.close()
    assert world.store.asked("upload") == []
    assert world.store.data("a") == b"old"
    assert world.files.current(world.known("a")).size == 3
    assert world.index.entry("b") is None
    world.check_idle()


@pytest.mark.parametrize("write_back", [False, True])
def test_a_disk_too_full_to_begin_with_stores_nothing(
    make: Make, monkeypatch: pytest.MonkeyPatch, write_back: bool
) -> None:
    world = make(write_back=write_back)
    world.put("a", b"old")
    handle = world.open("a")

    def fail(*args: object, **kwargs: object) -> None:
        failure = LocalFailure("no space left")
        failure.errno = 28
        raise failure

    monkeypatch.setattr("octuefs.content.staging.StagedFile.materialise", fail)
    for attempt in (lambda: handle.write(0, b"x"), handle.flush, handle.sync):
        with pytest.raises(LocalFailure) as failure:
            attempt()
        assert failure.value.errno == 28
    assert handle.read(0, 9) == b"old"
    handle.close()
    assert world.store.asked("upload") == []
    world.check_idle()


def test_a_full_disk_is_over_once_the_file_is_begun_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = world.create("a")
    content = handle._file.content
    assert content is not None

    def fail(*args: object) -> int:
        raise LocalFailure("full")

    monkeypatch.setattr(content.staged, "write", fail)
    with pytest.raises(LocalFailure):
        handle.write(0, b"x")
    handle.truncate(0)
    handle.write(0, b"y")
    handle.flush()
    assert world.store.data("a") == b"y"


@pytest.mark.parametrize("when", ["give_up_full", "withdraw"])
def test_a_file_made_again_while_it_is_given_up_is_a_new_one(
    world: World, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    handle = world.create("a")
    file = handle._file
    file.note_full_disk(LocalFailure("full"))
    again: list[CloudHandle] = []
    act = getattr(file, when)

    def acts() -> object:
        monkeypatch.undo()
        known = world.known("a")
        if when == "withdraw":
            again.append(world.files.open(known, os.O_WRONLY | os.O_TRUNC))
            return act()
        result = act()  # given up by now, and still at its path
        again.append(world.files.open(known, os.O_WRONLY | os.O_TRUNC))
        return result

    monkeypatch.setattr(file, when, acts)
    handle.close()
    (new,) = again
    assert world.index.entry("a") is not None
    new.write(0, b"new")
    new.flush()
    new.close()
    assert world.store.data("a") == b"new"
    assert world.known("a").size == 3
    world.check_idle()


@pytest.mark.expected_logs("recovered")
def test_a_stored_file_that_is_cut_while_a_new_version_of_it_is_given_up_is_written_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put("a", b"old")
    handle = world.open("a")
    file = handle._file
    handle.write(0, b"lost")
    again: list[CloudHandle] = []
    fail = file.fail

    def fails(error: OctuefsError) -> object:
        kept = fail(error)
        again.append(world.files.open(world.known("a"), os.O_WRONLY | os.O_TRUNC))
        return kept

    monkeypatch.setattr(file, "fail", fails)
    world.store.fail("upload", PermissionRefused("no access"))
    with pytest.raises(PermissionRefused, match="recovered"):
        handle.flush()
    handle.close()
    (new,) = again
    new.write(0, b"new")
    new.flush()
    new.close()
    assert world.store.data("a") == b"new"
    assert world.known("a").size == 3
    assert [it.size for it in world.files.failed.recovered()] == [4]


@pytest.mark.expected_logs("recovered")
def test_a_file_that_is_opened_in_vain_while_it_is_given_up_does_not_hide_what_stands_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put("a", b"old")
    handle = world.open("a")
    file = handle._file
    handle.write(0, b"lost")
    fail = file.fail
    told = iter([None, PermissionRefused("told just now")])

    def raise_unreported(path: str) -> None:
        if (error := next(told)) is not None:
            raise error

    def fails(error: OctuefsError) -> object:
        kept = fail(error)
        with monkeypatch.context() as patched:
            patched.setattr(world.files._storing, "raise_unreported", raise_unreported)
            with pytest.raises(PermissionRefused, match="told just now"):
                world.files.open(world.known("a"), os.O_WRONLY | os.O_TRUNC)
        return kept

    monkeypatch.setattr(file, "fail", fails)
    world.store.fail("upload", PermissionRefused("no access"))
    with pytest.raises(PermissionRefused, match="recovered"):
        handle.flush()
    handle.close()
    world.store.put("a", b"theirs")
    world.look(["a"])
    assert world.known("a").size == 6
    assert not world.index._held


@pytest.mark.expected_logs("another writer|recovered")
@pytest.mark.parametrize("is_new", [True, False])
def test_regression_a_file_that_is_closed_while_it_is_given_up_does_not_hide_what_stands_there(
    make: Make, monkeypatch: pytest.MonkeyPatch, *, is_new: bool
) -> None:
    world = make(write_back=True)
    if not is_new:
        world.put("a", b"old")
    handle = world.create("a") if is_new else world.open("a")
    handle.write(0, b"lost")
    handle.flush()
    world.store.put("a", b"theirs")
    add = world.files._leftovers.add

    def adds(entries: Iterable[Recovered]) -> None:
        handle.close()  # the last one, while the file is given up
        add(entries)

    monkeypatch.setattr(world.files._leftovers, "add", adds)
    assert world.files.drain(10) == 0
    assert world.known("a").size == 6
    world.store.put("a", b"theirs again")
    world.look(["a"])
    assert world.known("a").size == 12
    assert not world.index._held
    assert not world.files.below("")


def test_regression_a_file_that_is_closed_at_the_moment_it_is_stored_shows_as_it_is_stored(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make(write_back=True)
    handle = world.create("a")
    handle.write(0, b"text")
    handle.flush()
    file = handle._file
    tell = file.tell

    def tells() -> None:
        if file.is_stored:
            handle.close()  # the last one, before the index is told
        tell()

    monkeypatch.setattr(file, "tell", tells)
    assert world.files.drain(10) == 0
    assert world.known("a").version == world.store.stat("a").version
    world.check_idle()


@pytest.mark.expected_logs("recovered")
def test_regression_who_has_a_path_at_rest_finds_no_file_half_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = world.create("a")
    handle.write(0, b"lost")
    file = handle._file
    found: list[set[str]] = []

    def rename() -> None:
        with world.files.at_rest("a") as at_rest:
            found.append(set(at_rest))
            world.files.moved("a", "b", None)

    renames = threading.Thread(target=rename)
    fail = file.fail

    def fails(error: OctuefsError) -> object:
        kept = fail(error)
        renames.start()
        renames.join(0.2)  # as far as it gets
        return kept

    monkeypatch.setattr(file, "fail", fails)
    world.store.fail("upload", PermissionRefused("no access"))
    with pytest.raises(PermissionRefused, match="recovered"):
        handle.flush()
    renames.join(10)
    handle.close()
    assert found == [set()]
    assert (world.index.entry("a"), world.index.entry("b")) == (None, None)
    assert not world.index._held


@pytest.mark.expected_logs("recovered")
def test_who_waits_to_store_what_another_gives_up_hears_of_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one = world.create("a")
    one.write(0, b"lost")
    other = world.open("a")
    file = one._file
    refused: list[OctuefsError] = []

    def store() -> None:
        other.write(0, b"LOST")
        try:
            other.flush()
        except OctuefsError as error:
            refused.append(error)

    stores = threading.Thread(target=store)
    fail = file.fail

    def fails(error: OctuefsError) -> object:
        stores.start()
        stores.join(0.2)  # as far as it gets
        return fail(error)

    monkeypatch.setattr(file, "fail", fails)
    world.store.fail("upload", PermissionRefused("no access"))
    with pytest.raises(PermissionRefused, match="recovered"):
        one.flush()
    stores.join(10)
    assert [type(error) for error in refused] == [PermissionRefused]
    assert world.store.names() == set()
    assert {it.size for it in world.files.failed.recovered()} == {4}
    one.close()
    other.close()
    assert not world.index._held


def test_what_is_written_after_the_last_flush_is_stored_behind(world: World) -> None:
    handle = world.create("a")
    handle.flush()
    handle.write(0, b"mapped")
    handle.close()
    assert world.files.drain(10) == 0
    assert world.store.data("a") == b"mapped"
    world.check_idle()


@pytest.mark.expected_logs("no access|recovered")
def test_a_failure_behind_is_told_before_the_store_is_asked_what_stands_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = world.create("a")
    handle.flush()
    handle.write(0, b"mapped")
    world.store.fail("upload", PermissionRefused("no access"))
    told: list[tuple[int, int, str | None]] = []
    add, look = world.files._leftovers.add, world.files._storing.look

    def adds(entries: Iterable[Recovered]) -> None:
        assert world.report.failure_count == 1
        add(entries)

    def looks(path: str) -> None:
        with pytest.raises(PermissionRefused, match="recovered"):
            world.open(path)
        told.append(
            (world.report.failure_count, len(world.files.failed.recovered()), world.files._leftovers.reason(path))
        )
        look(path)

    monkeypatch.setattr(world.files._leftovers, "add", adds)
    monkeypatch.setattr(world.files._storing, "look", looks)
    handle.close()
    assert world.files.drain(10) == 0
    assert told == [(1, 1, "no access")]


@pytest.mark.expected_logs("no access|recovered")
def test_a_failure_behind_is_told_at_the_next_open(world: World) -> None:
    handle = world.create("a")
    handle.flush()
    handle.write(0, b"mapped")
    world.store.fail("upload", PermissionRefused("no access"))
    handle.close()
    assert world.files.drain(10) == 0
    assert world.report.failure_count == 1
    with pytest.raises(PermissionRefused):
        world.open("a")
    assert world.open("a", RDONLY).read(0, 9) == b""
    assert [it.size for it in world.files.failed.recovered()] == [6]


# --- removing and renaming


def test_a_removed_file_goes_on_for_those_who_have_it_open(world: World) -> None:
    world.put("a", b"0123456789")
    reader, writer = world.open("a", RDONLY), world.open("a")
    assert reader.info().links == 1
    with world.files.at_rest("a") as there:
        assert there["a"] is not None
        world.files.removed("a")
        world.store.drop("a")
        world.index.publish([Removed("a")])
    assert reader.info().links == 0
    assert reader.read(0, 4) == b"0123"
    writer.write(0, b"x")
    assert reader.read(0, 4) == b"x123"
    before = reader.version()
    writer.write(10, b"more")
    assert (reader.info().size, reader.info().links) == (14, 0)
    assert reader.version() != before
    writer.sync()
    writer.flush()
    writer.close()
    reader.close()
    assert world.store.names() == set()
    world.check_idle()


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_file_without_a_name_keeps_its_attributes_for_those_who_have_it_open(world: World, is_stored: bool) -> None:
    if is_stored:
        world.put("a", b"text")
        handle = world.open("a")
    else:
        handle = world.create("a")
        handle.write(0, b"text")
    world.files.removed("a")
    assert isinstance(handle, Unnamed)
    before = handle.version()
    handle.set_mode(0o640)
    handle.set_times((5, 7_000_000_000))
    info = handle.info()
    assert (stat.S_IMODE(info.mode), info.mtime_ns, info.size, info.links) == (0o640, 7_000_000_000, 4, 0)
    assert handle.version() != before
    assert handle.read(0, 9) == b"text"
    handle.set_owner(-1, info.gid)
    with pytest.raises(NotPermitted):
        handle.set_owner(info.uid + 1, -1)
    handle.flush()
    handle.close()
    assert ("a" in world.store.names()) == is_stored


def test_a_file_with_a_name_is_not_changed_as_one_without(world: World) -> None:
    world.put("a", b"text")
    handle = world.open("a")
    with pytest.raises(Unsupported, match="has a name"):
        handle.set_mode(0o640)
    handle.close()


def test_who_asked_is_told_once_that_a_handle_is_closed(world: World) -> None:
    handle = world.create("a")
    told: list[str] = []
    handle.when_closed(lambda: told.append("closed"))
    handle.close()
    handle.close()
    assert told == ["closed"]


def test_a_new_file_that_was_removed_is_never_stored(world: World) -> None:
    handle = world.create("a")
    handle.write(0, b"x")
    world.files.removed("a")
    handle.sync()
    handle.flush()
    handle.close()
    assert world.store.requests == []
    world.check_idle()


def test_a_name_is_taken_again_while_the_old_file_is_open(world: World) -> None:
    old = world.create("a")
    old.write(0, b"old")
    world.files.removed("a")
    new = world.create("a")
    new.write(0, b"new")
    assert (old.read(0, 9), new.read(0, 9)) == (b"old", b"new")
    old.flush()
    new.flush()
    old.close()
    new.close()
    assert world.store.data("a") == b"new"
    world.check_idle()


def test_a_new_file_takes_another_name_without_a_request(world: World) -> None:
    handle = world.create("a.tmp")
    handle.write(0, b"x")
    with world.files.at_rest("a.tmp", "a.csv") as there:
        assert there == {"a.tmp": None}
        world.files.moved("a.tmp", "a.csv", None)
    assert world.store.requests == []
    assert world.index.entry("a.tmp") is None
    assert world.known("a.csv").size == 1
    handle.flush()
    assert world.store.names() == {"a.csv"}
    assert world.store.objects["a.csv"].fixed == {"contentType": "text/csv"}
    handle.close()
    world.check_idle()


def test_an_open_file_follows_its_object_to_another_name(world: World) -> None:
    world.put("a", b"0123", {"foreign": "1"})
    reader, writer = world.open("a", RDONLY), world.open("a")
    assert reader.read(0, 1) == b"0"
    writer.write(0, b"x")
    with world.files.at_rest("a", "b") as there:
        base = there["a"]
        assert base is not None
        moved = world.store.rewrite("a", base.version[0], "b", SimpleNamespace(generation=0, metageneration=None))  # type: ignore
        world.store.drop("a")
        world.index.publish([Removed("a")])
        world.files.moved("a", "b", moved)
    writer.write(1, b"y")
    assert reader.read(0, 9) == b"xy23"
    assert reader.info().path == "b"
    writer.flush()
    assert world.store.names() == {"b"}
    assert world.store.data("b") == b"xy23"
    writer.close()
    reader.close()
    world.check_idle()


def test_nothing_is_stored_while_a_path_rests(make: Make) -> None:
    world = make(write_back=True)
    with world.files.at_rest("a"):
        pass
    handle = world.create("a")
    with world.files.at_rest("a"):
        handle.write(0, b"x")
        handle.flush()
        time.sleep(0.05)
        assert world.store.requests == []
        world.files.moved("a", "b", None)
    assert world.files.drain(10) == 0
    assert world.store.names() == {"b"}
    handle.close()
    world.check_idle()


def test_store_now_stores_what_is_open(world: World) -> None:
    assert world.files.store_now("a") is None
    handle = world.create("a")
    handle.write(0, b"x")
    info = world.files.store_now("a")
    assert info is not None
    assert info.version == world.store.stat("a").version
    handle.close()


def test_all_below_a_folder_takes_another_name(world: World) -> None:
    world.put("a/clean", b"clean")
    clean, new = world.open("a/clean"), world.create("a/b/new")
    new.write(0, b"new")
    assert sorted(world.files.below("a")) == ["a/b/new", "a/clean"]
    info = world.put("c/clean", b"clean")
    world.store.drop("a/clean")
    world.files.moved_folder("a", "c", {"c/clean": info})
    clean.write(0, b"C")
    clean.flush()
    new.flush()
    assert world.store.names() == {"c/clean", "c/b/new"}
    assert world.store.data("c/clean") == b"Clean"


# --- large files


def test_a_folder_moves_when_a_file_that_was_opened_meanwhile_is_stored(world: World) -> None:
    world.put("a/b", b"old")
    handle = world.open("a/b")
    handle.write(0, b"new")
    moves = threading.Thread(target=lambda: world.files.moved_folder("a", "z", {}))

    def begin_to_move() -> None:
        moves.start()
        moves.join(0.2)  # as far as it gets

    world.store.before("upload", begin_to_move)
    handle.flush()
    moves.join(10)
    info = handle.info()
    assert (info.path, info.version) == ("z/b", world.store.stat("a/b").version)
    assert not world.index._held
    handle.close()
    world.check_idle()


def test_a_large_file_is_sent_while_it_is_written(world: World) -> None:
    data = pattern(40 * MIB)
    handle = world.create("a")
    for start in range(0, len(data), MIB):
        handle.write(start, data[start : start + MIB])
        if start in (10 * MIB, 30 * MIB):
            assert world.files._streams.wait(10)
    assert world.store.asked("send") == ["a"] * 2, "8 and 16 MiB"
    assert world.store.names() == set()
    assert any(row.get("session") for row in world.rows("open"))
    handle.flush()
    assert world.store.asked("send") == ["a"] * 3, "and the rest in one"
    assert world.store.asked("begin_upload") == ["a"]
    assert world.store.data("a") == data
    assert world.known("a").crc32c == crc32c(data)
    handle.close()
    world.check_idle()


@pytest.mark.parametrize("what", ["write", "truncate", "metadata", "attributes"])
def test_a_change_behind_what_was_sent_starts_it_over(world: World, what: str) -> None:
    data = bytearray(pattern(20 * MIB))
    handle = world.create("a")
    handle.write(0, bytes(data))
    assert world.files._streams.wait(10)
    assert len(world.store.sessions) == 1
    if what == "write":
        handle.write(5, b"header")
        data[5:11] = b"header"
    elif what == "truncate":
        handle.truncate(4 * MIB)
        handle.write(4 * MIB, pattern(8 * MIB, 7))
        data[4 * MIB :] = pattern(8 * MIB, 7)
    elif what == "metadata":
        world.files.change_metadata("a", LABEL)
    else:
        world.files.set_attributes("a", mtime_ns=1)
    handle.flush()
    assert world.files._streams.wait(10)
    assert world.store.data("a") == data
    assert len(world.store.asked("begin_upload")) == 2
    assert len(world.store.asked("cancel_upload")) == 1
    assert bool(world.store.metadata("a")) == (what in ("metadata", "attributes"))
    handle.close()
    world.check_idle()


def test_a_large_upload_goes_on_after_failures(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_FIRST_PAUSE", 0.001)
    data = pattern(20 * MIB)
    handle = world.create("a")
    handle.write(0, data)
    assert world.files._streams.wait(10)
    world.store.fail("send", StoreUnavailable("busy"), times=3)
    world.store.fail("upload_state", StoreUnavailable("busy"))
    handle.flush()
    assert world.store.data("a") == data
    assert len(world.store.asked("begin_upload")) == 1


def test_a_session_that_is_gone_is_begun_anew(world: World) -> None:
    data = pattern(20 * MIB)
    handle = world.create("a")
    handle.write(0, data)
    assert world.files._streams.wait(10)
    world.store.sessions.clear()
    handle.flush()
    assert world.store.data("a") == data


def test_a_large_upload_that_fails_for_good_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_FIRST_PAUSE", 0.001)
    handle = world.create("a")
    handle.write(0, pattern(9 * MIB))
    world.store.fail("send", StoreUnavailable("busy"), times=100)
    with pytest.raises(StoreUnavailable):
        handle.flush()
    assert [it.size for it in world.files.failed.recovered()] == [9 * MIB]
    assert world.store.names() == set()


def test_a_close_that_waited_for_the_begin_of_an_upload_in_vain_does_not_begin_again(world: World) -> None:
    handle = world.create("a")
    arrived, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        arrived.set()
        go_on.wait(10)

    world.store.before("begin_upload", wait)
    world.store.fail("begin_upload", StoreUnavailable("503"))
    handle.write(0, pattern(9 * MIB))
    assert arrived.wait(10)
    threading.Timer(0.1, go_on.set).start()
    with pytest.raises(StoreUnavailable, match="503"):
        handle.flush()
    handle.close()
    assert len(world.store.asked("begin_upload")) == 1
    assert [it.size for it in world.files.failed.recovered()] == [9 * MIB]


def test_a_stream_never_commits_over_another_version(world: World) -> None:
    world.put("a", b"old")
    handle = world.open("a", WRONLY | os.O_TRUNC)
    handle.write(0, pattern(20 * MIB))
    assert world.files._streams.wait(10)
    world.store.put("a", b"theirs")
    with pytest.raises(Conflict):
        handle.flush()
    assert world.store.data("a") == b"theirs"


# --- appending on the server


def test_appending_to_a_large_object_sends_the_new_bytes(world: World) -> None:
    base = pattern(9 * MIB)
    world.put("d/a", base, {"foreign": "x"}, contentType="text/x")
    handle = world.open("d/a", WRONLY | os.O_APPEND)
    handle.write(0, b"one")
    assert handle.info().size == len(base) + 3
    world.files.change_metadata("d/a", LABEL)
    handle.sync()
    handle.write(0, b"two")
    assert handle.read(len(base) - 2, 10) == base[-2:] + b"onetwo"
    handle.flush()
    handle.close()
    assert world.store.data("d/a") == base + b"onetwo"
    stored = world.store.objects["d/a"]
    assert (stored.metadata["foreign"], stored.fixed) == ("x", {"contentType": "text/x"})
    assert len(world.store.asked("compose")) == 2
    assert world.store.names() == {"d/a"}, "parts are deleted"
    assert all(path.startswith("d/.octuefs-") for path in world.store.asked("upload"))
    assert world.store.asked("read") == ["d/a"], "of the old bytes only those that were read"
    assert not world.journal.items("part")
    world.check_idle()


def test_a_write_before_the_end_fetches_the_rest(world: World) -> None:
    base = bytearray(pattern(9 * MIB))
    world.put("a", bytes(base))
    handle = world.open("a")
    handle.write(len(base), b"more")
    handle.write(3, b"x")
    base[3:4] = b"x"
    assert handle.read(0, 8) == base[:8]
    handle.flush()
    handle.close()
    assert world.store.data("a") == base + b"more"
    assert world.store.asked("compose") == []
    world.check_idle()


@pytest.mark.parametrize("how", ["small", "unwanted", "impossible"])
def test_other_objects_are_appended_to_here(make: Make, how: str) -> None:
    world = make(composes=how != "impossible", compose=how != "unwanted")
    base = pattern(MIB if how == "small" else 9 * MIB)
    world.put("a", base)
    handle = world.open("a", WRONLY | os.O_APPEND)
    handle.write(0, b"more")
    handle.flush()
    assert world.store.data("a") == base + b"more"
    assert world.store.asked("compose") == []


def test_an_append_over_metadata_of_others_keeps_them(world: World) -> None:
    base = pattern(9 * MIB)
    world.put("a", base)
    handle = world.open("a", WRONLY | os.O_APPEND)
    handle.write(0, b"more")
    world.store.touch_metadata("a", foreign="x")
    handle.flush()
    assert world.store.data("a") == base + b"more"
    assert world.store.metadata("a") == {"foreign": "x"}
    assert world.store.names() == {"a"}


def test_a_lost_append_is_kept_and_says_where_it_belongs(world: World) -> None:
    world.put("a", pattern(9 * MIB))
    handle = world.open("a", WRONLY | os.O_APPEND)
    handle.write(0, b"more")
    world.store.put("a", b"theirs")
    with pytest.raises(Conflict):
        handle.flush()
    (entry,) = world.files.failed.recovered()
    assert (entry.size, str(9 * MIB) in entry.reason) == (4, True)
    assert world.files.failed.read_recovered(entry.id).read(0, 9) == b"more"
    assert world.store.names() == {"a"}
    world.crash()
    assert world.files.failed.read_recovered(entry.id).read(1, 9) == b"ore"


def test_an_append_whose_answer_was_lost_is_no_conflict(world: World) -> None:
    base = pattern(9 * MIB)
    world.put("a", base)
    handle = world.open("a", WRONLY | os.O_APPEND)
    handle.write(0, b"more")
    world.store.lose_answer("compose")
    handle.flush()
    assert world.store.data("a") == base + b"more"
    assert world.files.failed.recovered() == []


@pytest.mark.expected_logs("could not be deleted")
def test_a_part_that_stays_is_deleted_by_the_next_mount_or_after_a_day(world: World) -> None:
    world.put("a", pattern(9 * MIB))
    handle = world.open("a", WRONLY | os.O_APPEND)
    handle.write(0, b"more")
    world.store.fail("delete", StoreUnavailable("busy"))
    handle.flush()
    handle.close()
    assert len(world.store.names()) == 2
    world.crash()
    assert world.files._streams.wait(10)
    assert world.store.names() == {"a"}
    old = f".octuefs-{'0' * 32}.octue"
    young = world.store.put(f".octuefs-{'1' * 32}.octue", b"x")
    world.files.sweep([world.store.put(old, b"x")._replace(ctime_ns=5), young])
    assert world.files._streams.wait(10)
    assert world.store.names() == {"a", young.path}


def test_an_append_while_another_is_stored_goes_after_it(make: Make) -> None:
    world = make(write_back=True)
    base = pattern(9 * MIB)
    world.put("a", base)
    handle = world.open("a", WRONLY | os.O_APPEND)
    handle.write(0, b"one")
    stop = threading.Event()
    world.store.before("compose", lambda: stop.wait(10))
    handle.flush()
    while not world.store.asked("compose"):
        time.sleep(0.01)
    handle.write(0, b"two")
    handle.flush()
    stop.set()
    assert world.files.drain(10) == 0
    assert world.store.data("a") == base + b"onetwo"
    assert len(world.store.asked("compose")) == 2
    handle.close()
    world.check_idle()


# --- write-back


def test_write_back_returns_before_the_file_is_stored(make: Make) -> None:
    world = make(write_back=True)
    go = threading.Event()
    world.store.before("upload", lambda: go.wait(10))
    world.write("a", b"behind")
    assert world.store.names() == set()
    assert world.files.sync_state("a") == "pending"
    assert world.files.pending() == [("a", 6, 0)]
    assert world.known("a").size == 6
    assert world.known("a").crc32c == crc32c(b"behind")
    assert [row["state"] for row in world.rows()] == ["closed"]
    reader = world.open("a", RDONLY)
    assert reader.read(0, 9) == b"behind"
    reader.close()
    go.set()
    assert world.files.drain(10) == 0
    assert world.store.data("a") == b"behind"
    assert world.files.sync_state("a") == "clean"
    world.check_idle()


def test_write_back_stores_the_latest_of_what_was_closed(make: Make) -> None:
    world = make(write_back=True)
    go = threading.Event()
    world.store.before("upload", lambda: go.wait(10))
    world.write("a", b"first")
    while not world.store.requests:
        time.sleep(0.01)
    for number in range(5):
        handle = world.open("a")
        handle.write(5, b"%d" % number)
        handle.flush()
        handle.close()
    go.set()
    assert world.files.drain(10) == 0
    assert world.store.data("a") == b"first4"
    assert len(world.store.asked("upload")) == 2
    world.check_idle()


def test_fsync_waits_for_the_bucket_in_write_back_too(make: Make) -> None:
    world = make(write_back=True)
    handle = world.create("a")
    handle.write(0, b"x")
    handle.flush()
    handle.write(1, b"y")
    handle.sync()
    assert world.store.data("a") == b"xy"
    handle.close()
    world.files.drain(10)
    world.check_idle()


@pytest.mark.expected_logs("stored later")
def test_write_back_tries_again_until_the_store_is_there(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(write_back=True)
    world.store.fail("upload", StoreUnavailable("busy"), times=3)
    world.write("a", b"x")
    end = time.monotonic() + 10
    while world.files.drain(0.05) and time.monotonic() < end:
        pass
    assert world.store.data("a") == b"x"
    assert world.report.failure_count == 1, "said once"
    assert world.files.failed.recovered() == []
    world.check_idle()


@pytest.mark.expected_logs("recovered")
def test_write_back_keeps_what_can_never_be_stored(make: Make) -> None:
    world = make(write_back=True)
    world.store.fail("upload", PermissionRefused("no"))
    world.write("a", b"x")
    assert world.files.drain(10) == 0
    assert world.index.entry("a") is None
    assert [it.path for it in world.files.failed.recovered()] == ["a"]
    assert world.files.sync_state("a") == "failed: no"


def test_metadata_of_a_pending_file_go_with_it(make: Make) -> None:
    world = make(write_back=True)
    go = threading.Event()
    world.store.before("upload", lambda: go.wait(10))
    world.write("a", b"x")
    assert world.files.change_metadata("a", LABEL)
    world.crash()
    go.set()
    assert world.labels("a") == {"new"}
    assert world.files.drain(10) == 0
    metadata = decode_custom_metadata(world.store.metadata("a"))[0]
    assert metadata is not None
    assert metadata.labels == {"new"}


def test_many_files_are_stored_side_by_side(make: Make) -> None:
    world = make(write_back=True)
    for number in range(40):
        world.store.before("upload", lambda: time.sleep(0.05), path=f"{number}")
    started = time.monotonic()
    for number in range(40):
        world.write(f"{number}", b"x")
    assert world.files.drain(20) == 0
    assert time.monotonic() - started < 1.5
    assert len(world.store.names()) == 40
    world.check_idle()


# --- after a crash


def test_what_was_closed_is_stored_by_the_next_mount(make: Make) -> None:
    world = make(write_back=True)
    world.put("old", b"old", {"foreign": "x"})
    world.store.before("upload", lambda: time.sleep(0.2), path="new")
    world.store.before("upload", lambda: time.sleep(0.2), path="old")
    world.files._storing.background.close(0)
    world.write("new", b"new")
    world.write("old", b"newer")
    world.crash()
    assert world.known("new").size == 3
    assert world.files.sync_state("new") in ("pending", "clean")
    assert world.files.drain(10) == 0
    assert (world.store.data("new"), world.store.data("old")) == (b"new", b"newer")
    assert world.store.metadata("old") == {"foreign": "x"}
    world.check_idle()


def test_what_was_stored_and_not_noted_is_no_conflict(make: Make) -> None:
    world = make(write_back=True)
    world.files._storing.background.close(0)
    world.write("a", b"data")
    world.store.put("a", b"data", contentType="application/octet-stream")
    world.crash()
    assert world.files.drain(10) == 0
    assert world.files.failed.recovered() == []
    world.check_idle()


@pytest.mark.expected_logs("another writer")
def test_a_conflict_after_a_crash_keeps_both(make: Make) -> None:
    world = make(write_back=True)
    world.files._storing.background.close(0)
    world.write("a", b"ours")
    world.store.put("a", b"theirs")
    world.crash()
    assert world.files.drain(10) == 0
    assert world.store.data("a") == b"theirs"
    assert [it.path for it in world.files.failed.recovered()] == ["a"]
    assert world.known("a").size == 6


def test_what_was_open_is_offered_and_its_session_cancelled(world: World) -> None:
    handle = world.create("a")
    handle.write(0, pattern(20 * MIB))
    assert world.files._streams.wait(10)
    empty = world.create("b")
    assert empty.info().size == 0
    assert len(world.store.sessions) == 1
    world.crash()
    assert world.files._streams.wait(10)
    assert world.store.sessions == {}
    (entry,) = world.files.failed.recovered()
    assert (entry.path, entry.size) == ("a", 20 * MIB)
    assert world.store.names() == set()
    world.files.failed.discard(entry.id)
    world.check_idle()


def test_staged_bytes_without_a_row_are_offered(world: World) -> None:
    world.journal.settle()
    id = "0123456789abcdef" * 2
    (world.staged / id).write_bytes(b"whose?")
    (world.staged / ("f" * 32)).write_bytes(b"")
    world.crash()
    for _ in range(2):
        (entry,) = world.files.failed.recovered()
        assert (entry.path, entry.size, "before it had noted" in entry.reason) == ("unknown-01234567", 6, True)
        assert world.files.failed.read_recovered(id).read(0, 10) == b"whose?"
        assert [path.name for path in world.staged.iterdir()] == [id]
        world.crash()
    world.files.failed.put_back(id)
    assert world.store.data("unknown-01234567") == b"whose?"
    assert world.files.failed.recovered() == []
    assert world.journal.items("file") == {}


def test_a_closed_file_is_in_the_journal_while_it_is_being_stored(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_LAZY_SECONDS", 60.0)
    world = make()
    handle = world.create("a")
    handle.write(0, b"closed")
    seen = []

    def look() -> None:
        deadline = time.monotonic() + 10
        while world.journal._durable != world.journal._queued:
            assert time.monotonic() < deadline, "it is committed while the request is under way"
            time.sleep(0.0005)
        seen.append([row["state"] for row in world.journal.items("file").values()])

    world.store.before("upload", look)
    handle.flush()
    assert seen == [["closed"]]
    handle.close()


def test_a_new_file_that_is_never_flushed_is_stored_when_it_is_released(world: World) -> None:
    world.create("mknod").close()
    assert world.store.data("mknod") == b""


def test_what_was_written_has_its_name_in_the_journal(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_LAZY_SECONDS", 60.0)
    world = make()
    monkeypatch.setattr(world.journal, "hurry", lambda: None)
    world.put("old", b"old")
    one, two = world.create("new"), world.open("old")
    one.write(0, b"x")
    assert [path for path, _ in world.left()] == ["new"]
    two.write(0, b"x")
    assert sorted(path for path, _ in world.left()) == ["new", "old"]
    for handle in (one, two):
        handle.flush()
        handle.close()


def test_a_crash_brings_nothing_back_that_was_overtaken(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_LAZY_SECONDS", 60.0)
    world = make()
    monkeypatch.setattr(world.journal, "hurry", lambda: None)
    world.store.before("upload", world.journal.settle)
    world.write("a", b"one")
    said = []

    assert world.left() == [("a", 3)], "its row is still there"
    world.store.before("upload", lambda: said.append(world.left()))
    world.open("a", WRONLY | os.O_TRUNC).flush()
    assert ("a", 3) not in said[0], "that is over before the next is stored"
    handle = world.open("a")
    handle.write(0, b"and more")
    world.files.moved("a", "b", None)
    assert world.left() == [("b", 8)]
    world.files.removed("b")
    assert world.left() == []
    handle.close()


@pytest.mark.parametrize("crashes", [0, 1, 2])
@pytest.mark.expected_logs("it is kept and stored later")
def test_a_content_that_was_stored_unnoticed_is_no_other_writer_s(
    make: Make, monkeypatch: pytest.MonkeyPatch, crashes: int
) -> None:
    monkeypatch.setattr("octuefs.writing.storing._FIRST_PAUSE", 0.05)
    world = make(write_back=True)
    world.put("a", b"zero", {"octue__labels": '{"_type": "set", "items": ["old"]}'})
    arrived, go_on = threading.Event(), threading.Event()
    upload = world.store.upload

    def unanswered(*arguments: Any) -> ObjectInfo:
        upload(*arguments)
        arrived.set()
        go_on.wait(10)
        raise StoreUnavailable("the answer is lost")

    monkeypatch.setattr(world.store, "upload", unanswered)
    handle = world.open("a", WRONLY | os.O_TRUNC)
    handle.write(0, b"first")
    assert world.files.change_metadata("a", LABEL)
    handle.flush()
    handle.close()
    assert arrived.wait(10)
    monkeypatch.setattr(world.store, "upload", upload)
    world.write("a", b"and the second")
    assert world.files.change_metadata("a", MetadataChange(labels_removed=frozenset({"new"})))
    world.journal.settle()
    for _ in range(crashes):
        world.crash()
    go_on.set()
    assert world.files.drain(10) == 0
    assert world.files.failed.recovered() == []
    assert world.store.data("a") == b"and the second"
    assert "new" not in world.store.metadata("a")["octue__labels"], "what was changed last counts"


@pytest.mark.expected_logs("it is kept and stored later")
def test_an_append_that_was_stored_unnoticed_and_then_changed_is_no_conflict(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octuefs.writing.storing._FIRST_PAUSE", 0.3)
    world = make(write_back=True)
    base = pattern(9 * MIB)
    world.put("a", base)
    world.store.fail("compose", StoreUnavailable("the answer is lost"), after=True)
    handle = world.open("a")
    handle.write(len(base), b"more")
    handle.flush()
    while world.store.data("a") == base:
        time.sleep(0.001)
    handle.write(len(base), b"M")
    handle.flush()
    handle.close()
    assert world.files.drain(10) == 0
    assert world.store.data("a") == base + b"More"
    assert world.files.failed.recovered() == []


def test_a_torn_file_is_not_stored(make: Make) -> None:
    world = make(write_back=True)
    world.files._storing.background.close(0)
    world.write("a", b"whole")
    world.write("b", bytes(100_000))
    for staged in world.staged.iterdir():
        staged.write_bytes(b"who")
    world.crash()
    assert world.files.drain(10) == 0
    assert world.store.names() == {"a"}, "small ones are whole in the journal"
    assert world.store.data("a") == b"whole"
    assert [(it.path, it.size) for it in world.files.failed.recovered()] == [("b", 3)]


def test_recovered_content_is_put_back_over_what_stands_there(world: World) -> None:
    world.put("a", b"old")
    for path in ("a", "b"):
        handle = world.open(path) if path == "a" else world.create(path, octue__labels='["mine"]')
        handle.write(0, b"ours")
        world.files.change_metadata(path, LABEL)
        world.store.put(path, b"theirs!", {"foreign": "x", "octue__id": f'"{UUID(int=1)}"'})
        with pytest.raises(Conflict):
            handle.flush()
        handle.close()
    world.store.drop("b")
    world.look(["b"])
    for entry in world.files.failed.recovered():
        world.files.failed.put_back(entry.id)
    assert (world.store.data("a"), world.store.data("b")) == (b"ours", b"ours")
    one, two = (decode_custom_metadata(world.store.metadata(path))[0] for path in "ab")
    assert one is not None
    assert two is not None
    assert (one.labels, one.id, world.store.metadata("a")["foreign"]) == ({"new"}, str(UUID(int=1)), "x")
    assert two.labels == {"mine", "new"}
    assert world.files.failed.recovered() == []
    world.check_idle()


@pytest.mark.expected_logs("refused")
def test_putting_back_is_not_refused_by_the_failure_that_is_still_to_be_told(make: Make) -> None:
    world = make(write_back=True)
    world.put("a", b"old")
    world.store.fail("upload", PermissionRefused("refused"))
    world.write("a", b"new")
    assert world.files.drain(10) == 0
    (entry,) = world.files.failed.recovered()
    world.files.failed.put_back(entry.id)
    assert world.store.data("a") == b"new"
    world.open("a", RDONLY).close()


def test_a_bucket_that_is_gone_is_no_file_that_is_not_there(world: World) -> None:
    handle = world.create("a")
    handle.write(0, b"new")
    world.store.fail("upload", NotFound("there is no such bucket"))
    with pytest.raises(StoreUnavailable, match=r"no such bucket.*recovered"):
        handle.flush()
    handle.close()
    assert [it.path for it in world.files.failed.recovered()] == ["a"]


def test_recovered_appends_are_put_back_at_the_end(world: World) -> None:
    world.put("a", pattern(9 * MIB))
    handle = world.open("a", WRONLY | os.O_APPEND)
    handle.write(0, b"more")
    world.store.put("a", b"theirs")
    with pytest.raises(Conflict):
        handle.flush()
    handle.close()
    (entry,) = world.files.failed.recovered()
    world.files.failed.put_back(entry.id)
    assert world.store.data("a") == b"theirsmore"


def test_the_latest_of_two_that_were_closed_is_stored(make: Make) -> None:
    world = make(write_back=True)
    go = threading.Event()
    world.store.before("upload", lambda: go.wait(0.3))
    world.write("a", b"first")
    while not world.store.requests:
        time.sleep(0.01)
    handle = world.open("a")
    handle.write(0, b"F")
    handle.flush()
    assert len(world.rows("closed")) == 2
    world.crash()
    go.set()
    assert world.files.drain(10) == 0
    assert world.store.data("a") == b"First"
    assert len(list(world.staged.iterdir())) == 0


def test_a_file_that_is_not_stored_has_no_generation(world: World) -> None:
    handle = world.create("a")
    info = handle.info()
    assert (info.kind, info.links, info.inode, info.size) == (Kind.FILE, 1, 7, 0)
    assert info.version[0] == 0  # type: ignore[index]


# --- all of it, at random


class Reference:
    """The same files as plain bytes: a name leads to a bytearray, which handles keep."""

    def __init__(self, world: World, random: Random) -> None:
        self.world = world
        self.random = random
        self.names: dict[str, bytearray] = {}
        self.handles: list[tuple[CloudHandle, bytearray]] = []

    def step(self) -> None:
        name = self.random.choice("abc")
        act = self.random.choice(
            [self.open] * 3 + [self.write] * 6 + [self.append, self.truncate, self.flush, self.flush, self.sync]
            + [self.close] * 2 + [self.remove, self.move, self.attributes, self.metadata, self.patch]
        )  # fmt: skip
        act(name)
        for handle, data in self.handles:
            offset = self.random.randrange(0, 150)
            assert handle.read(offset, 70) == data[offset : offset + 70]
            assert handle.info().size == len(data)
        for name, data in self.names.items():
            assert self.world.files.current(self.world.known(name)).size == len(data)

    def some_handle(self) -> tuple[CloudHandle, bytearray] | None:
        return self.random.choice(self.handles) if self.handles else None

    def open(self, name: str) -> None:
        truncates = self.random.random() < 0.2
        appends = os.O_APPEND if self.random.random() < 0.3 else 0
        if name not in self.names:
            self.names[name] = bytearray()
            handle = self.world.create(name, RDWR | appends)
        else:
            handle = self.world.open(name, RDWR | appends | (os.O_TRUNC if truncates else 0))
            if truncates:
                self.names[name].clear()
        self.handles.append((handle, self.names[name]))

    def write(self, name: str) -> None:
        if some := self.some_handle():
            handle, data = some
            chunk = self.random.randbytes(self.random.randrange(1, 60))
            offset = len(data) if handle._appends else self.random.randrange(0, 120)
            data.extend(bytes(max(0, offset - len(data))))
            data[offset : offset + len(chunk)] = chunk
            handle.write(offset, chunk)

    def append(self, name: str) -> None:
        if some := self.some_handle():
            handle, data = some
            handle.write(len(data), b"appended")
            data.extend(b"appended")

    def truncate(self, name: str) -> None:
        if some := self.some_handle():
            handle, data = some
            length = self.random.randrange(0, 150)
            handle.truncate(length)
            data.extend(bytes(max(0, length - len(data))))
            del data[length:]

    def flush(self, name: str) -> None:
        if some := self.some_handle():
            some[0].flush()

    def sync(self, name: str) -> None:
        if some := self.some_handle():
            some[0].sync()
            for name, data in self.names.items():
                if data is some[1]:
                    assert self.world.store.data(name) == data

    def close(self, name: str) -> None:
        if some := self.some_handle():
            self.handles.remove(some)
            if self.random.random() < 0.8:
                some[0].flush()
            some[0].close()

    def remove(self, name: str) -> None:
        if self.names.pop(name, None) is not None:
            with self.world.files.at_rest(name) as there:
                base = there.get(name, self.world.known(name))
                self.world.files.removed(name)
                if base is not None:
                    self.world.store.delete(name, Precondition(generation_of(base)))
                self.world.index.publish([Removed(name)])

    def move(self, name: str) -> None:
        target = self.random.choice("abc")
        if name == target or name not in self.names:
            return
        if target in self.names:
            self.remove(target)
        world = self.world
        with world.files.at_rest(name, target) as there:
            base = there.get(name, world.known(name))
            info = None
            if base is not None:
                info = world.store.rewrite(name, generation_of(base), target, Precondition(0))
                world.store.delete(name, Precondition(generation_of(base)))
                world.index.publish([Removed(name), world.classify(info)])
            world.files.moved(name, target, info)
        self.names[target] = self.names.pop(name)

    def attributes(self, name: str) -> None:
        self.world.files.set_attributes(name, mtime_ns=self.random.randrange(10**18))

    def metadata(self, name: str) -> None:
        self.world.files.change_metadata(name, MetadataChange(tags_set={"t": self.random.random()}))

    def patch(self, name: str) -> None:
        """Another writer's, of a key that is not ours."""
        with suppress(NotFound):
            self.world.store.touch_metadata(name, foreign=str(self.random.random()))

    def check_end(self) -> None:
        for handle, _ in self.handles:
            handle.flush()
            handle.close()
        assert self.world.files.drain(20) == 0
        assert self.world.files.failed.recovered() == []
        assert self.world.store.names() == set(self.names)
        for name, data in self.names.items():
            assert self.world.store.data(name) == data
            assert self.world.known(name).version[0] == self.world.store.stat(name).version[0]  # type: ignore[index]
        self.world.check_idle()


@pytest.mark.parametrize("write_back", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_files_are_what_plain_bytes_would_be(
    make: Make, monkeypatch: pytest.MonkeyPatch, seed: int, write_back: bool
) -> None:
    monkeypatch.setattr("octuefs.writing.appends.LEAST_BYTES", 40)
    reference = Reference(make(write_back=write_back), Random(seed))
    for _ in range(120):
        reference.step()
    reference.check_end()
