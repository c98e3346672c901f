"""The writer of a cloud dataset where files are open: names, metadata and content that is not stored yet together."""

import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from unit.cloud_world import DOWN, ME, World, begin, labelled, tagged
from unit.memory_store import MemoryStore

from octuefs.datafile import Datafile
from octuefs.entries import Folder
from octuefs.errors import Conflict, NotFound, NotPermitted, OctuefsError
from octuefs.model.changes import MetadataChange
from octuefs.stores.base import Ownership
from octuefs.writing.base import OpenFile
from octuefs.writing.sessions import Session, open_session

LABELS = '{"_type": "set", "items": ["old"]}'


@pytest.fixture(name="store")
def _store() -> MemoryStore:
    store = MemoryStore()
    store.put("a.csv", b"alpha", {"octue__labels": LABELS, "octue__tags": '{"n": 1}'}, contentType="text/csv")
    store.put("b.csv", b"beta")
    store.put("dir/one", b"1")
    return store


@pytest.fixture(name="session")
def _session(tmp_path: Path) -> Iterator[Session]:
    folder = tmp_path / "writing"
    folder.mkdir()
    session = open_session(folder)
    yield session
    session.close()


@pytest.fixture(name="world")
def _world(store: MemoryStore, session: Session) -> Iterator[World]:
    world = begin(store, session.journal, session)
    yield world
    world.end()


def create(world: World, path: str, data: bytes, change: MetadataChange | None = None) -> OpenFile:
    """A new file with some content, still open."""
    file = world.writer.create(path, os.O_RDWR, 0o644, ME, *([change] if change else []))
    file.write(0, data)
    return file


def opened(world: World, path: str, flags: int = os.O_RDWR) -> OpenFile:
    """A file that is there, opened."""
    return world.writer.open(world.datafile(path).info, flags)


def finish(file: OpenFile) -> None:
    """close(2)."""
    file.flush()
    file.close()


def write(world: World, path: str, data: bytes) -> None:
    """Make a file."""
    finish(create(world, path, data))


def test_a_new_file_is_stored_with_metadata_that_waited_and_that_came(world: World) -> None:
    world.writer.store_document("dir", b'{"datafiles": {"one": {}, "new": {"labels": ["waited"]}}}')
    file = create(world, "dir/new", b"new", tagged(k=1))
    world.writer.describe("dir/new", labelled("dirty"))
    assert world.labels("dir/new") == {"waited", "dirty"}
    assert "dir/new" not in world.store.names()
    finish(file)
    stored = world.store.metadata("dir/new")
    assert set(json.loads(stored["octue__labels"])["items"]) == {"waited", "dirty"}
    assert json.loads(stored["octue__tags"]) == {"k": 1}
    assert not world.store.asked("patch")[1:], "the new file needed none"
    world.writer.describe("dir/new", labelled("later"))
    assert world.labels("dir/new") == {"waited", "dirty", "later"}
    world.truth()


def test_new_files_and_folders_show_the_chosen_owner_and_modes(session: Session) -> None:
    store = MemoryStore(ownership=Ownership(uid=7, gid=8, file_mode=0o640, dir_mode=0o750))
    world = begin(store, session.journal, session)
    key = "goog-reserved-posix-mode"
    for name, mode, stored in (("usual", 0o644, "644"), ("chosen", 0o640, "640"), ("special", 0o600, "600")):
        file = world.writer.create(name, os.O_WRONLY, mode, ME)
        before = file.info()
        finish(file)
        after = world.datafile(name).info
        assert after is not None
        assert before is not None
        for info in (before, after):
            assert (info.uid, info.gid, stat.S_IMODE(info.mode)) == (7, 8, mode)
        assert store.metadata(name)[key] == stored, "another mount may show others"
    world.writer.make_folder("folder", 0o750, ME)
    assert store.metadata("folder/")[key] == "750"
    world.writer.set_owner("usual", 7, 8)
    with pytest.raises(NotPermitted):
        world.writer.set_owner("usual", 0, 8)
    store.put("plain", b"x")
    world.keeper.changed(["plain"]).result()
    file = opened(world, "plain")
    file.write(0, b"y")
    assert (info := file.info()) is not None
    assert (info.uid, info.gid, stat.S_IMODE(info.mode)) == (7, 8, 0o640)
    finish(file)
    assert store.metadata("plain") == {}
    world.end()


def test_usual_modes_are_not_stored(world: World) -> None:
    write(world, "new", b"x")
    world.writer.make_folder("folder", 0o755, ME)
    assert (world.store.metadata("new"), world.store.metadata("folder/")) == ({}, {})


def test_a_patch_between_open_and_close_is_kept(world: World) -> None:
    file = opened(world, "a.csv")
    world.writer.describe("a.csv", labelled("between"))
    file.write(0, b"ALPHA")
    world.writer.describe("a.csv", labelled("dirty"))
    finish(file)
    assert world.labels("a.csv") == {"old", "between", "dirty"}
    assert world.store.data("a.csv") == b"ALPHA"
    world.truth()


def test_a_file_never_stored_changes_its_name_alone(world: World) -> None:
    file = create(world, "dir/tmp", b"text", labelled("x"))
    world.writer.rename("dir/tmp", "final", change=labelled("y"))
    assert world.labels("final") == {"x", "y"}
    assert world.index.entry("dir/tmp") is None
    assert not [name for name, _ in world.store.requests if name != "make_marker"]
    finish(file)
    assert world.store.data("final") == b"text"
    assert "dir/tmp" not in world.store.names()
    world.truth()


def test_an_editor_s_save_keeps_what_the_file_had(world: World) -> None:
    write(world, "4913~tmp", b"edited")
    world.writer.rename("4913~tmp", "a.csv")
    assert world.store.data("a.csv") == b"edited"
    assert (world.labels("a.csv"), world.datafile("a.csv").tags) == ({"old"}, {"n": 1})
    assert world.store.objects["a.csv"].fixed["contentType"] == "text/csv"
    world.truth()


def test_a_file_never_stored_is_stored_before_it_replaces_another(world: World) -> None:
    reader = opened(world, "a.csv", os.O_RDONLY)
    file = create(world, "tmp", b"half")
    world.writer.rename("tmp", "a.csv")
    assert world.store.data("a.csv") == b"half"
    assert reader.read(0, 10) == b"alpha", "who has the old one open goes on"
    file.write(4, b" and half")
    finish(file)
    reader.close()
    assert world.store.data("a.csv") == b"half and half"
    assert world.labels("a.csv") == {"old"}
    assert "tmp" not in world.store.names()
    world.truth()


def test_what_was_written_and_not_stored_moves_along(world: World) -> None:
    file = opened(world, "b.csv")
    file.write(0, b"BETA")
    world.writer.rename("b.csv", "c.csv")
    assert world.index.entry("b.csv") is None
    assert file.read(0, 10) == b"BETA"
    finish(file)
    assert world.store.data("c.csv") == b"BETA"
    assert "b.csv" not in world.store.names()
    world.truth()


def test_a_dirty_file_over_another_has_both_metadata(world: World) -> None:
    file = opened(world, "b.csv")
    file.write(0, b"BETA")
    world.writer.describe("b.csv", labelled("dirty"))
    world.writer.rename("b.csv", "a.csv")
    finish(file)
    assert world.store.data("a.csv") == b"BETA"
    assert (world.labels("a.csv"), world.datafile("a.csv").tags) == ({"dirty"}, {"n": 1})
    world.truth()


def test_a_file_that_is_replaced_while_it_is_dirty_does_not_come_back(world: World) -> None:
    old = opened(world, "a.csv")
    old.write(0, b"unsaved")
    world.writer.rename("b.csv", "a.csv")
    assert old.read(0, 10) == b"unsaved"
    finish(old)
    assert world.store.data("a.csv") == b"beta"
    world.truth()


def test_a_removed_file_is_read_and_written_on_and_not_stored(world: World) -> None:
    reader, writer = opened(world, "a.csv", os.O_RDONLY), opened(world, "b.csv")
    world.writer.remove("a.csv")
    world.writer.remove("b.csv")
    writer.write(4, b"!")
    assert (reader.read(0, 10), writer.read(0, 10)) == (b"alpha", b"beta!")
    finish(writer)
    reader.close()
    assert not {"a.csv", "b.csv"} & world.store.names()
    new = create(world, "gone", b"x")
    world.writer.remove("gone")
    finish(new)
    assert "gone" not in world.store.names()
    world.truth()


def test_a_remove_that_is_refused_leaves_open_files_as_they_are(world: World) -> None:
    file = opened(world, "b.csv")
    world.store.fail("delete", DOWN)
    with pytest.raises(type(DOWN)):
        world.writer.remove("b.csv")
    file.write(0, b"BETA")
    finish(file)
    assert world.store.data("b.csv") == b"BETA"
    world.truth()


@pytest.mark.expected_logs("is removed while it is open, and cannot be read any more")
def test_a_new_version_that_was_seen_is_removed_and_replaced_though_the_old_one_is_open(world: World) -> None:
    readers = [opened(world, path, os.O_RDONLY) for path in ("a.csv", "b.csv")]
    for path in ("a.csv", "b.csv"):
        world.store.put(path, b"theirs")
    world.keeper.refresh().result()
    world.writer.remove("a.csv")
    world.writer.rename("dir/one", "b.csv")
    for reader in readers:
        reader.close()
    assert world.store.data("b.csv") == b"1"
    assert "a.csv" not in world.store.names()
    world.truth()


def test_a_folder_moves_with_files_that_are_open_or_new(world: World) -> None:
    written, reader = opened(world, "dir/one"), opened(world, "dir/one", os.O_RDONLY)
    written.write(0, b"ONE")
    new = create(world, "dir/sub/new", b"new") if world.index.folder("dir/sub") else create(world, "dir/new", b"new")
    world.writer.rename("dir", "to")
    assert isinstance(world.index.entry("to"), Folder)
    assert {"to/one", "to/new"} <= world.paths()
    assert "dir/" not in world.paths()
    assert reader.read(0, 10) == b"ONE"
    finish(written)
    finish(new)
    reader.close()
    assert (world.store.data("to/one"), world.store.data("to/new")) == (b"ONE", b"new")
    assert not [name for name in world.store.names() if name.startswith("dir/")]
    world.truth()


def test_a_folder_of_new_files_alone_moves(world: World) -> None:
    world.writer.make_folder("fresh", 0o755, ME)
    file = create(world, "fresh/x", b"x")
    world.writer.rename("fresh", "named")
    finish(file)
    assert world.store.names() >= {"named/", "named/x"}
    assert not [name for name in world.store.names() if name.startswith("fresh")]
    world.truth()


def test_the_last_file_of_a_folder_is_a_new_one(world: World) -> None:
    file = create(world, "dir/two", b"2")
    world.writer.remove("dir/one")
    world.writer.remove("dir/two")
    finish(file)
    assert isinstance(world.index.entry("dir"), Folder)
    world.writer.remove_folder("dir")
    with pytest.raises(NotFound):
        world.writer.create("dir/x", os.O_WRONLY, 0o644, ME)
    world.truth()


def test_truncate_by_path_is_stored_and_seen_by_who_has_it_open(world: World) -> None:
    file = opened(world, "a.csv")
    world.writer.truncate("a.csv", 2)
    assert file.read(0, 10) == b"al"
    file.close()
    assert world.store.data("a.csv") == b"al"
    assert world.labels("a.csv") == {"old"}
    world.truth()


def test_attributes_of_a_dirty_file_go_with_its_upload(world: World) -> None:
    file = opened(world, "b.csv")
    file.write(0, b"BETA")
    world.writer.set_mode("b.csv", 0o600)
    world.writer.set_times("b.csv", (None, 5_000_000_000))
    finish(file)
    assert not world.store.asked("patch")
    stored = world.store.metadata("b.csv")
    assert (stored["goog-reserved-posix-mode"], stored["goog-reserved-file-mtime"]) == ("600", "5")
    world.truth()


def test_removing_the_document_reaches_files_that_are_not_stored(world: World) -> None:
    file = opened(world, "a.csv")
    file.write(0, b"ALPHA")
    world.writer.remove_document("")
    assert world.labels("a.csv") == set()
    finish(file)
    assert not [key for key in world.store.metadata("a.csv") if key.startswith("octue__")]
    world.truth()


def test_a_document_reaches_files_that_are_not_stored(world: World) -> None:
    file = create(world, "new", b"x")
    world.writer.store_document("", b'{"datafiles": {"new": {"labels": ["written"]}, "a.csv": {"labels": ["kept"]}}}')
    assert (world.labels("new"), world.labels("a.csv")) == ({"written"}, {"kept"})
    finish(file)
    assert world.labels("new") == {"written"}
    world.truth()


@pytest.mark.expected_logs("b.csv")
def test_what_lost_to_another_is_kept_and_put_back(world: World) -> None:
    file = opened(world, "b.csv")
    file.write(0, b"mine")
    world.writer.describe("b.csv", labelled("mine"))
    world.store.put("b.csv", b"theirs")
    with pytest.raises(Conflict):
        file.flush()
    file.close()
    (entry,) = world.writer.recovered.entries()
    assert (entry.path, entry.size) == ("b.csv", 4)
    assert world.writer.status()["recovered"] == 1
    source = world.writer.recovered.open(entry.name)
    assert source.read(0, 10) == b"mine"
    source.close()
    world.writer.recovered.restore(entry.name)
    assert world.store.data("b.csv") == b"mine"
    assert world.labels("b.csv") == {"mine"}
    assert not world.writer.recovered.entries()
    world.truth()


def test_with_write_back_fsync_of_a_folder_waits_for_its_files(store: MemoryStore, session: Session) -> None:
    world = begin(store, session.journal, session, write_back=True)
    for number in range(5):
        write(world, f"dir/{number}", b"x")
    write(world, "else", b"x")
    world.writer.sync_folder("dir")
    assert store.names() >= {f"dir/{number}" for number in range(5)}
    assert world.writer.drain(10) == 0
    assert world.writer.sync_state("else") == "clean"
    world.truth()
    world.end()


@pytest.mark.expected_logs("it is kept and stored later")
def test_with_write_back_a_pending_file_is_renamed_and_removed(store: MemoryStore, session: Session) -> None:
    world = begin(store, session.journal, session, write_back=True)
    store.fail("upload", DOWN, path="one")
    store.fail("upload", DOWN, path="two")
    write(world, "one", b"1")
    write(world, "two", b"2")
    world.writer.rename("one", "dir/uno")
    world.writer.remove("two")
    assert world.writer.drain(10) == 0
    assert store.data("dir/uno") == b"1"
    assert not {"one", "two"} & store.names()
    world.truth()
    world.end()


NAMES = ("a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "f")


def change_something(world: World, random: Random) -> None:
    """Do one of all things to names that collide; what the writer refuses is refused."""
    writer, path, other = world.writer, random.choice(NAMES), random.choice(NAMES)

    def write() -> None:
        entry = world.index.entry(path)
        if isinstance(entry, Datafile) and random.random() < 0.5:
            file = writer.open(entry.info, os.O_RDWR)
        else:
            file = writer.create(path, os.O_RDWR, 0o644, ME, labelled(random.choice("xyz")))
        try:
            file.write(0, random.randbytes(4))
            if random.random() < 0.3:
                writer.rename(path, other)
            file.flush()
        finally:
            file.close()

    text = b'{"datafiles": {"a": {"labels": ["doc"]}, "b": {"labels": ["doc"]}}}'
    actions: list[Callable[[], object]] = [
        write,
        write,
        lambda: writer.remove(path),
        lambda: writer.make_folder(path, random.choice([0o755, 0o700]), ME),
        lambda: writer.remove_folder(path),
        lambda: writer.rename(path, other),
        lambda: writer.rename(path, other, change=labelled("moved")),
        lambda: writer.describe(path, labelled(random.choice("xyz"))),
        lambda: writer.set_mode(path, random.choice([0o600, 0o640])),
        lambda: writer.store_document(random.choice(["", "d"]), text),
        lambda: writer.remove_document(random.choice(["", "d"])),
        lambda: world.store.put("f", random.randbytes(6)),
    ]
    with suppress(OctuefsError):
        random.choice(actions)()


METHODS = ("delete", "rewrite", "patch", "compose", "stat", "upload", "make_marker", "delete_marker", "scan")


@pytest.mark.expected_logs("")
@pytest.mark.parametrize("write_back", [False, True])
@pytest.mark.parametrize("faults", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_many_changes_at_once_leave_the_index_true_and_nothing_half_done(
    store: MemoryStore, session: Session, *, seed: int, faults: bool, write_back: bool
) -> None:
    world = begin(store, session.journal, session, write_back=write_back)
    broken: list[BaseException] = []

    def work(number: int) -> None:
        random = Random(f"{seed}/{number}")
        try:
            for _ in range(60):
                if faults and random.random() < 0.2:
                    store.fail(random.choice(METHODS), DOWN, after=random.random() < 0.5)
                change_something(world, random)
        except BaseException as error:
            broken.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not broken
    assert not [thread for thread in threads if thread.is_alive()]
    store.forgive()
    world.writer._renames.resume()  # what the next rename would do
    assert world.writer.drain(30) == 0
    assert not world.rows()
    assert not world.files.below("")
    assert not world.index._held
    world.keeper.refresh().result()
    world.truth()
    world.end()
