"""The writer of a local dataset: what it does to the folder, its `.octue` files and the index, without a mount."""

import errno
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from octuefs.content.hashing import Hasher
from octuefs.datafile import Datafile
from octuefs.dataset import Dataset
from octuefs.entries import Folder, Other
from octuefs.errors import (
    AlreadyExists,
    BadValue,
    LocalFailure,
    NotEmpty,
    NotFound,
    NotPermitted,
    OctuefsError,
)
from octuefs.index import Index
from octuefs.keeper import Keeper
from octuefs.model.changes import MetadataChange
from octuefs.model.metadata import DatafileMetadata, OctueDocument, decode_octue
from octuefs.model.paths import LocalLocation, derived_id, temporary_name
from octuefs.report import Report
from octuefs.stores.local import LocalStore
from octuefs.writing import documents
from octuefs.writing.base import Caller, Writer
from octuefs.writing.journal import Journal
from octuefs.writing.local import LocalWriter
from octuefs.writing.recent import RecentNames
from octuefs.writing.sessions import DISPLACED

ME = Caller(os.getuid(), os.getgid())
LABEL = MetadataChange(labels_added=frozenset({"a"}))
NOON = datetime(2024, 1, 1, 12)


def labels(*names: str) -> MetadataChange:
    return MetadataChange(labels_added=frozenset(names))


def tag(key: str, value: Any) -> MetadataChange:
    return MetadataChange(tags_set={key: value})


class Mount:
    """All that stands around a writer, on a folder that other mounts may have too."""

    def __init__(self, path: Path, journal: Path) -> None:
        self.path = path
        self.ended = False
        self.store = LocalStore(LocalLocation(str(path)))
        self.index = Index()
        self.report = Report()
        self.keeper = Keeper(self.store, self.report, self.index, recursive=True, metadata_ttl=60)
        self.journal = Journal(journal)
        self.kept: list[tuple[str, bytes, str]] = []
        self.writer = LocalWriter(
            self.store,
            self.keeper,
            self.journal,
            self.report,
            RecentNames(),
            lambda path, data, reason: self.kept.append((path, data, reason)),
        )
        self.keeper.load()

    def close(self) -> None:
        if not self.ended:
            self.writer.close()
            self.crash()

    def crash(self) -> None:
        """End without writing what is pending; the journal has it."""
        self.ended = True
        self.writer._documents._background.close(5)
        self.journal.close()
        self.keeper.close()
        self.store.close()

    def make(self, path: str, data: bytes = b"1", change: MetadataChange | None = None) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        file = self.writer.create(path, flags, 0o644, ME, *([change] if change else []))
        file.write(0, data)
        file.flush()
        file.close()

    def labels(self, path: str) -> list[str]:
        return sorted(self.datafile(path).labels)

    def datafile(self, path: str) -> Datafile:
        entry = self.index.entry(path)
        assert isinstance(entry, Datafile), f"{path} is no datafile: {entry}"
        return entry

    def stored(self, folder: str = "") -> dict[str, Any]:
        path = self.path / folder / ".octue"
        content: dict[str, Any] = json.loads(path.read_text())
        assert not [it for it in path.parent.iterdir() if it.name.startswith(".octuefs-")]
        return content

    def stored_labels(self, folder: str = "") -> dict[str, list[str]]:
        document, problems = decode_octue((self.path / folder / ".octue").read_bytes())
        assert problems == []
        return {name: sorted(it.labels) for name, it in document.datafiles.items()}

    def has_document(self, folder: str = "") -> bool:
        return (self.path / folder / ".octue").exists()

    def assert_true(self) -> None:
        """The index tells what a reading from nothing would, and its entries describe what stands there."""
        fresh = Index()
        keeper = Keeper(self.store, Report(), fresh, recursive=True, metadata_ttl=60)
        keeper.stored.overlay = self.keeper.stored.overlay
        keeper.stored.dataset = self.keeper.stored.overlay("", OctueDocument()).dataset
        keeper.load()
        keeper.close()
        assert facts(self.index) == facts(fresh)
        assert keeper.stored.dataset == self.keeper.stored.dataset


def facts(index: Index) -> dict[str, Any]:
    found: dict[str, Any] = {}
    pending: list[Folder] = [index.root]
    while pending:
        for child in pending.pop().children.values():
            if isinstance(child, Folder):
                pending.append(child)
                found[child.path] = child.info.mode if child.info else None
            elif isinstance(child, Datafile):
                found[child.path] = (child.info, child.metadata, child.content)
            else:
                found[child.info.path] = child.info
    return found


@pytest.fixture
def open_mount(tmp_path: Path) -> Iterator[Callable[..., Mount]]:
    """`open_mount()` opens the folder with a journal; each name of a journal is another daemon's."""
    (tmp_path / "dataset").mkdir()
    opened: list[Mount] = []
    mask = os.umask(0)

    def open_one(journal: str = "journal") -> Mount:
        opened.append(Mount(tmp_path / "dataset", tmp_path / journal))
        return opened[-1]

    yield open_one
    os.umask(mask)
    for mount in opened:
        mount.close()


@pytest.fixture
def mount(open_mount: Callable[..., Mount]) -> Mount:
    return open_mount()


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


# --- data


def test_it_is_a_writer(mount: Mount) -> None:
    writer: Writer = mount.writer
    assert writer.status() == {"pending_metadata": 0, "failed": {}}
    assert writer.drain(0) == 0


def test_a_file_that_is_made_is_known_at_once_and_right_after_each_flush(mount: Mount) -> None:
    file = mount.writer.create("f", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640, ME)
    assert stat.S_IMODE(mount.datafile("f").info.mode) == 0o640
    assert file.write(0, b"12345") == 5
    assert file.info().size == 5
    file.flush()
    assert (mount.datafile("f").size, mount.datafile("f").crc32c) == (5, None)
    mount.index.publish_hash(mount.datafile("f"), 7)
    file.flush()
    assert mount.datafile("f").crc32c == 7
    file.truncate(2)
    file.sync()
    assert (mount.datafile("f").size, mount.datafile("f").crc32c) == (2, None)
    file.write(0, b"abcd")
    file.close()
    assert mount.datafile("f").size == 4
    assert not mount.has_document()
    mount.assert_true()


def test_what_is_there_is_opened_or_refused(mount: Mount) -> None:
    mount.make("f", b"123")
    with pytest.raises(AlreadyExists):
        mount.writer.create("f", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, ME)
    file = mount.writer.create("f", os.O_RDWR | os.O_CREAT, 0o600, ME)
    assert file.read(0, 10) == b"123"
    file.close()
    mount.writer.create("f", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600, ME).close()
    assert mount.datafile("f").size == 0
    assert stat.S_IMODE(mount.datafile("f").info.mode) == 0o644
    mount.assert_true()


def test_two_handles_see_each_other_and_appending_appends(mount: Mount) -> None:
    mount.make("f", b"1")
    info = mount.datafile("f").info
    one, other = mount.writer.open(info, os.O_RDWR), mount.writer.open(info, os.O_WRONLY | os.O_APPEND)
    other.write(0, b"2")
    assert one.read(0, 10) == b"12"
    one.truncate(1)
    other.write(5, b"3")
    assert one.read(0, 10) == b"13"
    one.close()
    other.close()
    mount.writer.open(mount.datafile("f").info, os.O_WRONLY | os.O_TRUNC).close()
    assert mount.datafile("f").size == 0
    mount.assert_true()


def test_open_files_follow_their_names(mount: Mount) -> None:
    mount.writer.make_folder("d", 0o755, ME)
    mount.make("d/f")
    mount.make("g")
    file = mount.writer.open(mount.datafile("d/f").info, os.O_RDWR)
    replaced = mount.writer.open(mount.datafile("g").info, os.O_RDWR)
    mount.writer.rename("d/f", "d/h")
    mount.writer.rename("d", "e")
    file.write(0, b"123")
    file.flush()
    assert (mount.datafile("e/h").size, file.info().path) == (3, "e/h")
    mount.writer.rename("e/h", "g")
    replaced.write(0, b"gone")
    replaced.flush()
    assert replaced.info().links == 0
    file.write(0, b"12345")
    file.flush()
    assert mount.datafile("g").size == 5
    mount.writer.remove("g")
    file.write(0, b"1234567")
    file.flush()
    assert (file.info().links, file.info().size) == (0, 7)
    file.close()
    replaced.close()
    mount.assert_true()


def test_a_file_that_another_program_moved_is_not_published_where_it_was(mount: Mount) -> None:
    mount.make("f")
    file = mount.writer.open(mount.datafile("f").info, os.O_RDWR)
    (mount.path / "f").rename(mount.path / "g")
    (mount.path / "f").write_bytes(b"another")
    file.write(0, b"123")
    file.close()
    mount.keeper.changed(["f", "g"]).result()
    mount.assert_true()


def test_the_size_of_a_file_cut_by_its_path_is_known(mount: Mount) -> None:
    mount.make("f", b"12345")
    mount.writer.truncate("f", 2)
    assert mount.datafile("f").size == 2
    assert mount.writer.current(mount.datafile("f").info).size == 2
    with pytest.raises(NotFound):
        mount.writer.truncate("missing", 2)
    mount.assert_true()


def test_what_is_written_through_a_link_is_known_of_both(mount: Mount) -> None:
    mount.make("f", b"1")
    mount.writer.make_link("l", "f", ME)
    file = mount.writer.open(mount.datafile("l").info, os.O_RDWR)
    file.write(0, b"12345")
    file.close()
    assert (mount.datafile("f").size, mount.datafile("l").size) == (5, 5)
    mount.assert_true()


@pytest.mark.expected_logs("it leads to nothing")
def test_all_names_of_a_file_follow_its_changes_at_once(mount: Mount) -> None:
    mount.writer.make_folder("d", 0o755, ME)
    mount.make("d/f", b"1")
    mount.writer.make_link("l", "d/f", ME)
    mount.writer.link("d/f", "h")
    mount.assert_true()
    for path, size in (("d/f", 3), ("h", 5)):
        file = mount.writer.open(mount.datafile(path).info, os.O_RDWR)
        file.write(0, b"x" * size)
        file.close()
        assert [mount.datafile(it).size for it in ("d/f", "l", "h")] == [size] * 3
        mount.assert_true()
    mount.writer.truncate("d/f", 1)
    assert [mount.datafile(it).size for it in ("d/f", "l", "h")] == [1] * 3
    mount.make("other", b"1234567")
    mount.writer.rename("other", "d/f")
    assert [mount.datafile(it).size for it in ("d/f", "l", "h")] == [7, 7, 1]
    mount.assert_true()
    mount.writer.rename("d/f", "d/g")
    assert mount.datafile("l").size_bytes is None
    mount.assert_true()
    mount.writer.rename("d/g", "d/f")
    wait_for(lambda: mount.datafile("l").size == 7)
    mount.writer.rename("d", "e")
    assert mount.datafile("l").size_bytes is None
    mount.writer.remove("l")
    mount.writer.remove("e/f")
    mount.assert_true()


def test_another_name_of_a_file_has_a_copy_of_its_metadata(mount: Mount) -> None:
    record = MetadataChange({"timestamp": NOON}, frozenset({"a"}), tags_set={"k": 1})
    mount.make("f", b"1", record)
    mount.writer.link("f", "g")
    f, g = mount.datafile("f").metadata, mount.datafile("g").metadata
    assert (g.labels, g.tags, g.timestamp) == (f.labels, f.tags, f.timestamp) == (frozenset({"a"}), {"k": 1}, NOON)
    assert g.id == derived_id(f"{mount.path}/g") != f.id
    mount.writer.drain()
    assert mount.stored_labels() == {"f": ["a"], "g": ["a"]}
    mount.make("plain")
    mount.writer.link("plain", "second")
    assert mount.datafile("second").metadata == DatafileMetadata()
    mount.assert_true()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_root_makes_belongs_to_the_caller(mount: Mount) -> None:
    caller = Caller(12, 34)
    mount.writer.create("f", os.O_WRONLY | os.O_CREAT, 0o4755, caller).close()
    mount.writer.make_folder("d", 0o755, caller)
    mount.writer.make_link("l", "f", caller)
    mount.writer.make_special("p", stat.S_IFIFO | 0o600, 0, caller)
    for path in ("f", "d", "l", "p"):
        assert (mount.store.stat(path).uid, mount.store.stat(path).gid) == (12, 34)
    assert stat.S_IMODE(mount.store.stat("f").mode) == 0o4755
    mount.store.set_owner("d", 0, 99)
    mount.writer.set_mode("d", 0o2755)
    mount.writer.create("d/f", os.O_WRONLY | os.O_CREAT, 0o644, caller).close()
    assert (mount.store.stat("d/f").uid, mount.store.stat("d/f").gid) == (12, 99)
    mount.assert_true()


def test_plain_data_are_neither_journaled_nor_handed_to_another_thread(
    mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount.writer.make_folder("d", 0o755, ME)
    handed: list[object] = []
    monkeypatch.setattr(mount.keeper, "changed", handed.append)
    monkeypatch.setattr(mount.journal, "settle", lambda: handed.append("settled"))
    for number in range(100):
        mount.make(f"d/{number}")
    assert handed == []
    assert mount.journal.entries() == []
    monkeypatch.undo()
    mount.assert_true()


# --- names


@pytest.mark.expected_logs("broken: it leads to nothing", "l: it leads to nothing")
def test_folders_links_and_special_files_are_known_and_gone_at_once(mount: Mount) -> None:
    writer = mount.writer
    writer.make_folder("d", 0o750, ME)
    mount.make("d/f")
    writer.make_link("l", "d/f", ME)
    writer.make_link("broken", "missing", ME)
    writer.make_special("p", stat.S_IFIFO | 0o600, 0, ME)
    writer.link("d/f", "g")
    assert mount.datafile("l").size == 1
    assert mount.datafile("g").info.links == 2
    mount.assert_true()
    with pytest.raises(NotEmpty):
        writer.remove_folder("d")
    for path in ("d/f", "l", "broken", "p", "g"):
        writer.remove(path)
        assert mount.index.entry(path) is None
    writer.remove_folder("d")
    assert mount.index.entry("d") is None
    mount.assert_true()


def test_attributes_are_known_at_once(mount: Mount) -> None:
    mount.make("f")
    mount.writer.make_folder("d", 0o755, ME)
    for path in ("f", "d"):
        mount.writer.set_mode(path, 0o700)
        mount.writer.set_times(path, (5, 7))
        mount.writer.set_owner(path, os.getuid(), -1)
    assert mount.datafile("f").info.mtime_ns == 7
    folder = mount.index.entry("d")
    assert isinstance(folder, Folder)
    assert folder.info is not None
    assert stat.S_IMODE(folder.info.mode) == 0o700
    mount.writer.set_xattr("f", "user.x", b"1", 0)
    mount.writer.remove_xattr("f", "user.x")
    mount.assert_true()


def test_names_that_mean_metadata_are_not_made(mount: Mount) -> None:
    for path in (".octue", temporary_name()):
        with pytest.raises(NotPermitted):
            mount.writer.create(path, os.O_WRONLY | os.O_CREAT, 0o644, ME)
        with pytest.raises(NotPermitted):
            mount.writer.make_folder(path, 0o755, ME)


@pytest.mark.expected_logs("up: it leads to nothing")
def test_a_folder_is_renamed_with_all_that_is_known_of_it(mount: Mount) -> None:
    writer = mount.writer
    writer.make_folder("d", 0o755, ME)
    writer.make_folder("d/e", 0o755, ME)
    mount.make("d/f", b"12", LABEL)
    mount.make("d/e/g", b"123", labels("b"))
    writer.make_link("d/l", "f", ME)
    writer.make_link("up", "d/f", ME)
    mount.index.publish_hash(mount.datafile("d/f"), 7)
    writer.make_folder("new", 0o700, ME)
    writer.rename("d", "new")
    assert mount.index.entry("d") is None
    assert (mount.datafile("new/f").crc32c, mount.labels("new/f")) == (7, ["a"])
    assert mount.datafile("new/l").content == mount.datafile("new/f").info
    assert mount.stored_labels("new/e") == {"g": ["b"]}
    mount.assert_true()
    mount.make("new/x", b"", labels("c"))
    with pytest.raises(OctuefsError):
        writer.rename("new", "new/e/inside")
    mount.assert_true()


def test_leftovers_of_a_crash_do_not_keep_a_folder(mount: Mount) -> None:
    mount.writer.make_folder("d", 0o755, ME)
    (mount.path / "d" / temporary_name()).write_bytes(b"half")
    mount.writer.remove_folder("d")
    assert not (mount.path / "d").exists()
    left = mount.path / temporary_name()
    left.write_bytes(b"half")
    mount.writer.sweep([left.name])
    assert not left.exists()


# --- metadata of single files


def test_a_first_change_is_known_at_once_journaled_and_written_soon(mount: Mount) -> None:
    mount.make("f")
    own_id = mount.datafile("f").id
    mount.writer.describe("f", LABEL)
    assert (mount.labels("f"), mount.datafile("f").id) == (["a"], own_id)
    assert mount.writer.sync_state("f") == "pending"
    assert list(mount.journal.items("pending")) == ["f"]
    assert not mount.has_document()
    wait_for(mount.has_document, 1.5)
    wait_for(lambda: mount.writer.sync_state("f") == "clean")
    record = mount.stored()["datafiles"]["f"]
    assert record["id"] == own_id == derived_id(str(mount.path / "f"))
    assert record["sdk_version"] == "0.69.1"
    assert record["labels"] == {"_type": "set", "items": ["a"]}
    assert mount.journal.items("pending") == {}
    mount.assert_true()


def test_a_burst_of_changes_is_one_rewrite(mount: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        mount.make(f"f{number}")
    writes: list[str] = []
    replace = mount.store.replace_file

    def counted(path: str, data: bytes, *, keeps_time: bool) -> None:
        writes.append(path)
        replace(path, data, keeps_time=keeps_time)

    monkeypatch.setattr(mount.store, "replace_file", counted)
    for number in range(30):
        mount.writer.describe(f"f{number}", LABEL)
        mount.writer.describe(f"f{number}", tag("n", number))
    wait_for(lambda: mount.writer.status()["pending_metadata"] == 0)
    assert writes == [".octue"]
    assert len(mount.stored()["datafiles"]) == 30
    mount.assert_true()


def test_a_document_is_shown_and_gone_before_its_burst_is_over(mount: Mount) -> None:
    hasher = Hasher(mount.store, mount.index.publish_hash)
    dataset = Dataset(mount.keeper, hasher)
    dataset.writer = mount.writer
    mount.make("f", b"1", LABEL)
    assert not mount.has_document()
    dataset.show_document("")
    assert mount.stored_labels() == {"f": ["a"]}
    mount.writer.describe("f", labels("b"))
    dataset.show_document("")  # it is there already: not rewritten for that
    assert mount.stored_labels() == {"f": ["a"]}
    entry = mount.index.entry(".octue")
    assert isinstance(entry, Other)
    file = dataset.open(entry.info)
    assert b'"b"' in file.read(0, 4096)
    file.close()
    mount.writer.remove("f")
    dataset.show_document("")
    assert not mount.has_document()
    assert mount.index.entry(".octue") is None
    hasher.close()


def test_metadata_that_are_written_later_leave_the_folders_time_alone(mount: Mount) -> None:
    mount.writer.make_folder("d", 0o755, ME)
    mount.make("d/f", b"1", LABEL)
    then = 10**18
    for change in (labels("b"), MetadataChange(labels_removed=frozenset("ab"))):
        mount.writer.set_times("d", (then, then))
        mount.writer.drain()
        assert (mount.path / "d").stat().st_mtime_ns == then
        mount.writer.describe("d/f", change)
    mount.writer.set_times("d", (then, then))
    mount.writer.store_document("d", b'{"datafiles": {}}')  # as a file that is there is written
    assert (mount.path / "d").stat().st_mtime_ns == then
    mount.writer.remove_document("d")
    assert (mount.path / "d").stat().st_mtime_ns > then


def test_a_change_that_changes_nothing_writes_nothing(mount: Mount) -> None:
    mount.make("f")
    mount.writer.describe("f", MetadataChange({"labels": frozenset()}))
    mount.writer.describe("f", MetadataChange(labels_removed=frozenset({"x"})))
    assert mount.writer.sync_state("f") == "clean"
    mount.writer.describe("f", LABEL)
    mount.writer.drain()
    before = mount.store.stat(".octue")
    mount.writer.describe("f", LABEL)
    mount.writer.sync_folder("")
    assert mount.store.stat(".octue") == before


def test_fsync_writes_the_metadata_that_was_set_before(mount: Mount) -> None:
    mount.make("f")
    file = mount.writer.open(mount.datafile("f").info, os.O_RDWR)
    mount.writer.describe("f", LABEL)
    file.sync()
    assert mount.stored_labels() == {"f": ["a"]}
    mount.writer.describe("f", labels("b"))
    mount.writer.sync_folder("")
    assert mount.stored_labels() == {"f": ["a", "b"]}
    file.close()


def test_what_is_not_a_datafile_has_no_metadata(mount: Mount) -> None:
    mount.writer.make_folder("d", 0o755, ME)
    with pytest.raises(NotPermitted):
        mount.writer.describe("d", LABEL)
    with pytest.raises(NotFound):
        mount.writer.describe("missing", LABEL)


def test_removing_a_file_removes_its_record_and_an_empty_document(mount: Mount) -> None:
    mount.make("f", b"1", LABEL)
    mount.make("g", b"1", labels("b"))
    mount.writer.drain()
    mount.writer.remove("f")
    mount.writer.drain()
    assert mount.stored_labels() == {"g": ["b"]}
    mount.writer.remove("g")
    mount.writer.drain()
    assert not mount.has_document()
    mount.assert_true()


def test_a_name_made_again_has_what_it_had_with_another_id(mount: Mount) -> None:
    mount.make("f", b"1", MetadataChange({"id": "2f7ff8a1-0d0b-4a2f-9d8f-4be6d1b7c2a1"}, frozenset({"a"})))
    mount.writer.rename("f", "f~")
    mount.make("f", b"2")
    assert (mount.labels("f"), mount.labels("f~")) == (["a"], ["a"])
    assert mount.datafile("f~").id != mount.datafile("f").id
    mount.writer.remove("f")
    mount.make("f", b"3")
    assert mount.labels("f") == ["a"]
    mount.writer.drain()
    assert mount.stored_labels() == {"f": ["a"], "f~": ["a"]}
    mount.assert_true()


def test_no_two_files_have_one_id(mount: Mount) -> None:
    mount.make("f", b"1", LABEL)
    own = mount.datafile("f").id
    mount.writer.rename("f", "f~")
    mount.make("f", b"2")
    assert (mount.labels("f~"), mount.labels("f")) == (["a"], ["a"])
    assert mount.datafile("f~").id == own == derived_id(f"{mount.path}/f")
    again = mount.datafile("f").metadata.id
    assert again == derived_id(f"{mount.path}/f", 1)
    mount.make("g", b"3")
    mount.writer.rename("f~", "x")
    mount.writer.rename("g", "g~")
    mount.writer.drain()
    assert mount.stored()["datafiles"]["f"]["id"] == again
    mount.assert_true()

    mount.writer.rename("f", "y")  # without a record, and then with the first: the change alone is journaled
    mount.writer._metadata._recent.take("f")
    mount.make("f")
    third = mount.index.id_of(mount.datafile("f"))
    assert third not in (own, again)
    mount.writer.describe("f", labels("b"))
    mount.writer.describe("f", labels("c"))
    assert mount.datafile("f").id == third
    mount.writer.drain()
    assert mount.stored()["datafiles"]["f"]["id"] == third
    mount.assert_true()


def test_an_id_that_is_no_others_survives_a_crash(open_mount: Callable[..., Mount]) -> None:
    first = open_mount()
    first.make("f", b"1", LABEL)
    first.writer.rename("f", "f~")
    first.writer._metadata._recent.take("f")
    first.make("f")
    first.writer.describe("f", labels("b"))
    ids = {path: first.datafile(path).id for path in ("f", "f~")}
    assert len(set(ids.values())) == 2
    first.crash()
    second = open_mount()
    assert {path: second.datafile(path).id for path in ("f", "f~")} == ids
    second.writer.drain()
    assert {name: it["id"] for name, it in second.stored()["datafiles"].items()} == ids


def test_records_of_a_written_document_get_ids_of_their_own(mount: Mount) -> None:
    mount.make("f")
    mount.make("g")
    taken = derived_id(f"{mount.path}/f")
    mount.writer.store_document("", json.dumps({"datafiles": {"g": {"id": taken}, "f": {"labels": ["a"]}}}).encode())
    assert mount.datafile("g").id == taken
    assert mount.datafile("f").metadata.id == derived_id(f"{mount.path}/f", 1)
    mount.assert_true()


def test_files_that_are_unpacked_over_others_keep_what_was_written_for_them(mount: Mount) -> None:
    mount.make("f")
    own = "9e1a5d20-3d56-4b2c-8f38-3a0fbd3ef4a7"
    mount.writer.store_document("", json.dumps({"datafiles": {"f": {"id": own, "labels": ["a"]}}}).encode())
    mount.writer.remove("f")
    mount.make("f", b"2")
    assert (mount.datafile("f").id, mount.labels("f")) == (own, ["a"])
    mount.writer.rename("f", "g")  # takes its ID along
    mount.make("f", b"3")
    assert mount.datafile("f").id not in (own, None)
    assert mount.labels("f") == ["a"]
    mount.assert_true()


def test_a_save_by_renaming_over_keeps_what_the_new_file_lacks(mount: Mount) -> None:
    mount.make("f", b"1", labels("a").then(tag("t", 1)))
    own_id = mount.datafile("f").id
    mount.make("tmp", b"2")
    mount.writer.rename("tmp", "f")
    assert (mount.labels("f"), mount.datafile("f").id, mount.datafile("f").size) == (["a"], own_id, 1)
    mount.make("tmp", b"3", labels("b"))
    mount.writer.rename("tmp", "f")
    assert (mount.labels("f"), dict(mount.datafile("f").tags)) == (["b"], {"t": 1})
    assert mount.datafile("f").id == own_id
    mount.writer.drain()
    assert mount.stored_labels() == {"f": ["b"]}
    mount.assert_true()


def test_records_follow_files_into_other_folders_with_what_we_do_not_know(mount: Mount) -> None:
    mount.make("f")
    mount.writer.make_folder("d", 0o755, ME)
    (mount.path / ".octue").write_text('{"datafiles": {"f": {"labels": ["a"], "strange": 1}}, "kept": 2}')
    mount.keeper.changed([".octue"]).result()
    mount.writer.rename("f", "d/g", change=labels("b"))
    assert mount.labels("d/g") == ["a", "b"]
    mount.writer.drain()
    assert mount.stored() == {"kept": 2}
    assert mount.stored("d")["datafiles"]["g"]["strange"] == 1
    mount.assert_true()


def test_a_rename_onto_itself_makes_the_change(mount: Mount) -> None:
    mount.make("f")
    mount.writer.rename("f", "f", change=LABEL)
    assert mount.labels("f") == ["a"]
    mount.writer.link("f", "g")
    mount.writer.rename("f", "g", change=labels("b"))
    assert (mount.labels("f"), mount.labels("g")) == (["a"], ["a", "b"])


def test_a_refused_rename_changes_nothing(mount: Mount) -> None:
    mount.make("f", b"1", LABEL)
    mount.make("g", b"2", labels("b"))
    with pytest.raises(AlreadyExists):
        mount.writer.rename("f", "g", replace=False)
    mount.writer.make_folder("d", 0o755, ME)
    with pytest.raises(OctuefsError):
        mount.writer.rename("f", "d")
    mount.writer.drain()
    assert mount.stored_labels() == {"f": ["a"], "g": ["b"]}
    assert mount.journal.items("pending") == {}
    mount.assert_true()


def test_a_known_hash_outlives_a_rename_and_new_metadata(mount: Mount) -> None:
    mount.make("f")
    mount.index.publish_hash(mount.datafile("f"), 7)
    mount.writer.describe("f", LABEL)
    mount.writer.rename("f", "g")
    assert mount.datafile("g").crc32c == 7


def test_records_may_wait_for_their_files(mount: Mount) -> None:
    mount.make("f", b"1", LABEL)
    mount.writer.store_records("", {"later": DatafileMetadata(labels=frozenset({"b"})), "f": DatafileMetadata()})
    assert {name: sorted(it.labels) for name, it in mount.writer.waiting("").items()} == {"later": ["b"]}
    mount.make("later")
    assert mount.writer.waiting("") == {}
    assert mount.labels("later") == ["b"]
    row = mount.journal.items("pending")["later"]
    assert row["inode"] == mount.datafile("later").info.inode
    mount.writer.drain()
    assert mount.stored_labels() == {"f": ["a"], "later": ["b"]}
    mount.assert_true()


# --- metadata written as a file


def test_a_written_document_is_stored_as_it_was_written(mount: Mount) -> None:
    mount.make("f")
    text = (
        b'{"dataset": {"id": "5a3d7f3e-64c8-4a1d-8a2c-0f3b8d7f9b11", "name": "n"},'
        b' "datafiles": {"f": {"id": "0b0f9a58-5b8e-4c0f-8a7d-6f6f9b5b1c22", "labels": ["x"], "sdk_version": "1"}}}'
    )
    mount.writer.store_document("", text)
    assert (mount.path / ".octue").read_bytes() == text
    assert mount.labels("f") == ["x"]
    dataset = mount.keeper.stored.dataset
    assert dataset is not None
    assert dataset.name == "n"
    mount.assert_true()


@pytest.mark.expected_logs("its stored ID")
def test_the_order_of_tags_in_a_written_document_counts_at_once(mount: Mount) -> None:
    mount.make("f", b"1", MetadataChange({"tags": {"a": 1, "b": {"c": 1, "d": 2}}}))
    for text in ('{"b": {"c": 1, "d": 2}, "a": 1}', '{"b": {"d": 2, "c": 1}, "a": 1}'):
        mount.writer.store_document("", f'{{"datafiles": {{"f": {{"tags": {text}}}}}}}'.encode())
        assert json.dumps(mount.datafile("f").tags) == text


@pytest.mark.expected_logs("its stored ID .* is kept")
def test_written_records_replace_all_and_stored_ids_win(mount: Mount) -> None:
    for name in "fgh":
        mount.make(name, b"1", LABEL)
    own_id = mount.datafile("f").id
    mount.writer.store_document(
        "", json.dumps({"datafiles": {"f": {"id": derived_id("other"), "labels": ["x"]}, "later": {}}}).encode()
    )
    assert [mount.labels(name) for name in "fgh"] == [["x"], [], []]
    assert mount.datafile("f").id == own_id
    assert own_id in mount.report.text()
    assert set(mount.stored()["datafiles"]) == {"f", "later"}
    mount.assert_true()


def test_metadata_may_come_before_its_files(mount: Mount) -> None:
    mount.writer.store_document("", b'{"datafiles": {"f": {"labels": ["a"]}, "g": {"labels": ["b"]}}}')
    mount.make("f")
    mount.make("tmp")
    mount.writer.rename("tmp", "g")
    assert (mount.labels("f"), mount.labels("g")) == (["a"], ["b"])
    mount.writer.drain()
    assert mount.stored_labels() == {"f": ["a"], "g": ["b"]}
    mount.assert_true()


@pytest.mark.parametrize(
    "text", [b"{", b"", b"[]", b'{"datafiles": {"f": {"labels": ["A B"]}}}', b'{"datafiles": {"a/b": {}}}']
)
def test_a_malformed_document_is_refused_and_kept(mount: Mount, text: bytes) -> None:
    mount.make("f", b"1", LABEL)
    mount.writer.drain()
    before = mount.store.stat(".octue")
    with pytest.raises(BadValue):
        mount.writer.store_document("", text)
    assert [(path, data) for path, data, _ in mount.kept] == [(".octue", text)]
    assert mount.store.stat(".octue") == before
    mount.assert_true()


def test_a_file_renamed_to_the_document_is_taken_as_written(mount: Mount) -> None:
    mount.make("f")
    mount.make("tmp", b'{"datafiles": {"f": {"labels": ["a"]}}}')
    mount.writer.rename("tmp", ".octue")
    assert mount.labels("f") == ["a"]
    assert mount.index.entry("tmp") is None
    mount.make("bad", b"{")
    with pytest.raises(BadValue):
        mount.writer.rename("bad", ".octue")
    assert mount.datafile("bad").size == 1
    with pytest.raises(AlreadyExists):
        mount.writer.rename("bad", ".octue", replace=False)
    mount.writer.rename(".octue", "backup")
    assert mount.labels("f") == []
    mount.assert_true()


def test_removing_the_document_removes_the_metadata(mount: Mount) -> None:
    mount.make("f", b"1", LABEL)
    mount.writer.describe_dataset(MetadataChange({"name": "n"}))
    mount.writer.remove(".octue")
    assert mount.labels("f") == []
    assert mount.keeper.stored.dataset is None
    assert not mount.has_document()
    with pytest.raises(NotFound):
        mount.writer.remove_document("")
    mount.assert_true()


def test_the_datasets_own_record_is_set(mount: Mount) -> None:
    mount.writer.describe_dataset(MetadataChange({"name": "The farm"}, frozenset({"a"})))
    assert mount.writer.sync_state("") == "pending"
    mount.assert_true()
    mount.writer.drain()
    assert mount.stored()["dataset"] == {
        "id": derived_id(str(mount.path)),
        "name": "The farm",
        "tags": {},
        "labels": ["a"],
    }
    mount.keeper.changed([".octue"]).result()
    mount.assert_true()
    mount.make("f", b"1", LABEL)
    mount.writer.drain()
    assert list(mount.stored()) == ["dataset", "datafiles"]


@pytest.mark.parametrize("written", [True, False])
def test_the_datasets_own_record_goes_with_the_document_at_once(mount: Mount, *, written: bool) -> None:
    mount.writer.describe_dataset(MetadataChange({"name": "The farm"}, frozenset({"a"})))
    if written:
        mount.writer.drain()
        mount.keeper.changed([".octue"]).result()
    mount.writer.remove(".octue")
    assert mount.keeper.stored.dataset is None
    assert not mount.has_document()
    mount.assert_true()


def test_owner_and_permissions_of_the_root_are_known_at_once(mount: Mount) -> None:
    mount.writer.set_mode("", 0o701)
    assert mount.index.root.info is not None
    assert stat.S_IMODE(mount.index.root.info.mode) == 0o701
    mount.path.chmod(0o705)
    mount.keeper.changed([""]).result()
    assert mount.index.root.info is not None
    assert stat.S_IMODE(mount.index.root.info.mode) == 0o705


# --- others at work


def test_two_mounts_of_a_folder_lose_nothing(open_mount: Callable[..., Mount]) -> None:
    one, other = open_mount("one"), open_mount("other")
    for number in range(20):
        one.make(f"f{number}")
    other.keeper.refresh().result()

    def work(mount: Mount, name: str) -> None:
        for number in range(20):
            mount.writer.describe(f"f{number}", labels(name))
            mount.writer.describe(f"f{number}", tag(name, number))
            if number % 5 == 0:
                mount.writer.sync_folder("")

    threads = [threading.Thread(target=work, args=pair) for pair in ((one, "one"), (other, "other"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one.writer.drain()
    other.writer.drain()
    assert one.stored_labels() == {f"f{number}": ["one", "other"] for number in range(20)}
    one.keeper.changed([".octue"]).result()
    other.keeper.changed([".octue"]).result()
    one.assert_true()
    other.assert_true()


def test_the_change_of_another_program_is_kept_and_shown(mount: Mount) -> None:
    mount.make("f")
    mount.make("g")
    mount.writer.describe("f", LABEL)
    (mount.path / ".octue").write_text('{"dataset": {"name": "theirs"}, "datafiles": {"g": {"labels": ["b"]}}}')
    mount.writer.drain()
    assert mount.stored_labels() == {"f": ["a"], "g": ["b"]}
    assert mount.labels("g") == ["b"]
    wait_for(lambda: mount.keeper.stored.dataset is not None)
    mount.assert_true()


def test_a_malformed_document_that_is_rewritten_is_kept(mount: Mount) -> None:
    mount.make("f")
    (mount.path / ".octue").write_text("{ my precious notes")
    mount.writer.describe("f", LABEL)
    mount.writer.drain()
    assert mount.stored_labels() == {"f": ["a"]}
    assert [(path, data) for path, data, _ in mount.kept] == [(".octue", b"{ my precious notes")]


def test_a_folder_that_vanishes_takes_its_changes_along(mount: Mount) -> None:
    mount.writer.make_folder("d", 0o755, ME)
    mount.make("d/f", b"1", LABEL)
    (mount.path / "d/f").unlink()
    (mount.path / "d").rmdir()
    assert mount.writer.drain() == 0


@pytest.mark.expected_logs("could not be written")
def test_metadata_that_cannot_be_written_stay_and_are_written_later(
    mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "_RETRY_SECONDS", 0.2)
    mount.make("f")
    (mount.path / ".octue").mkdir()
    mount.writer.describe("f", LABEL)
    wait_for(lambda: mount.writer.sync_state("f").startswith("failed: "))
    assert mount.labels("f") == ["a"]
    assert mount.writer.drain(0.1) == 1
    with pytest.raises(OctuefsError):
        mount.writer.sync_folder("")
    assert mount.report.failure_count == 1
    (mount.path / ".octue").rmdir()
    wait_for(lambda: mount.writer.sync_state("f") == "clean")
    assert mount.stored_labels() == {"f": ["a"]}


@pytest.mark.expected_logs("could not be written|what was to be written is kept in memory")
def test_a_change_that_cannot_be_journaled_is_written_at_once(mount: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        failure = LocalFailure("the journal: No space left on device")
        failure.errno = errno.ENOSPC
        raise failure

    mount.make("f")
    monkeypatch.setattr(mount.journal, "settle", full)
    mount.writer.describe("f", LABEL)
    assert mount.stored_labels() == {"f": ["a"]}

    def too_full(path: str, data: bytes, *, keeps_time: bool) -> None:
        full()

    monkeypatch.setattr(mount.store, "replace_file", too_full)
    with pytest.raises(LocalFailure):
        mount.writer.describe("f", labels("b"))
    with pytest.raises(LocalFailure):
        mount.writer.describe_dataset(MetadataChange({"name": "n"}))
    with pytest.raises(LocalFailure):
        mount.writer.rename("f", "g")
    assert mount.labels("f") == ["a"]
    assert mount.writer.sync_state("f") == mount.writer.sync_state("") == "clean"
    mount.assert_true()


# --- crashes


def test_what_was_journaled_is_written_by_the_next_mount(open_mount: Callable[..., Mount]) -> None:
    first = open_mount()
    first.make("f")
    first.make("g")
    first.writer.describe("f", LABEL)
    first.writer.describe_dataset(MetadataChange({"name": "n"}))
    first.writer.describe("g", labels("b"))
    first.crash()
    (first.path / "new").write_bytes(b"")  # first: it must not get the inode of the other
    (first.path / "new").rename(first.path / "g")
    second = open_mount()
    assert second.labels("f") == ["a"]
    assert second.labels("g") == []
    second.assert_true()
    second.writer.drain()
    assert second.stored_labels() == {"f": ["a"]}
    assert second.stored()["dataset"]["name"] == "n"
    assert second.journal.items("pending") == {}


@pytest.mark.parametrize("removed", [True, False])
def test_a_file_that_is_made_after_a_crash_inherits_nothing(
    open_mount: Callable[..., Mount], monkeypatch: pytest.MonkeyPatch, *, removed: bool
) -> None:
    first = open_mount()
    first.make("f", b"1", LABEL)
    first.writer.drain()
    monkeypatch.setattr(Journal, "_commit_lazily", lambda self: None)
    first.close()
    second = open_mount()
    if removed:
        second.writer.remove("f")
    else:
        monkeypatch.setattr(second.store, "remove", lambda path: os.unlink("/nowhere"))
        with pytest.raises(OSError, match="nowhere"):
            second.writer.remove("f")
        second.writer.drain()
        assert second.labels("f") == ["a"]
    durable = sqlite_rows(second.journal)
    assert [key for kind, key in durable if kind == "pending"] == ["f"]
    second.crash()
    third = open_mount()
    if removed:
        third.make("f", b"2")
    assert third.labels("f") == ([] if removed else ["a"])
    third.writer.drain()
    assert third.stored_labels() if not removed else not third.has_document()


def sqlite_rows(journal: Journal) -> list[tuple[str, str]]:
    """What a crash at this moment would leave."""
    assert journal._connection is not None
    return [(kind, json.loads(key)) for kind, key in journal._connection.execute("SELECT kind, key FROM entries")]


@pytest.mark.parametrize("renamed", [True, False])
def test_a_crash_around_a_rename_loses_no_record(
    open_mount: Callable[..., Mount], monkeypatch: pytest.MonkeyPatch, *, renamed: bool
) -> None:
    first = open_mount()
    first.make("f", b"1", LABEL)
    first.make("g", b"2")
    first.writer.drain()
    first.writer.describe("f", labels("b"))
    first.writer.describe("g", labels("c"))
    rename = first.store.rename

    class Crash(BaseException):
        pass

    def crash(old: str, new: str, *, replace: bool = True) -> None:
        if renamed:
            rename(old, new, replace=replace)
        raise Crash

    monkeypatch.setattr(first.store, "rename", crash)
    monkeypatch.setattr(first.writer._documents, "withdraw", lambda paths: None)
    with pytest.raises(Crash):
        first.writer.rename("f", "g")
    first.crash()
    second = open_mount()
    expected = {"g": ["a", "b"]} if renamed else {"f": ["a", "b"], "g": ["c"]}
    assert {it.path: sorted(it.labels) for it in second.index.members("", ())} == expected
    second.writer.drain()
    assert second.stored_labels() == expected
    second.assert_true()


def test_what_two_dead_mounts_left_is_put_together(open_mount: Callable[..., Mount], tmp_path: Path) -> None:
    first = open_mount()
    first.make("f")
    first.writer.describe("f", LABEL)
    row = first.journal.items("pending")["f"]
    later = {**row, "change": labels("b").to_json()}
    first.journal.put(DISPLACED, "x/pending/f", {"kind": "pending", "key": "f", "value": row})
    first.journal.put("pending", "f", later)
    first.crash()
    second = open_mount()
    assert second.labels("f") == ["a", "b"]
    second.writer.drain()
    assert second.journal.entries() == []


def test_readings_of_the_folder_meanwhile_never_show_the_past(mount: Mount) -> None:
    """The keeper reads again and again; what was answered stays true."""
    for number in range(40):
        mount.make(f"f{number}")
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            mount.keeper.refresh().result()
            mount.keeper.changed([".octue", "f1", "f2"]).result()

    def write() -> None:
        while not stop.is_set():
            mount.writer.sync_folder("")

    threads = [threading.Thread(target=it) for it in (read, write)]
    for thread in threads:
        thread.start()
    try:
        end = time.monotonic() + 3
        count = 0
        while time.monotonic() < end:
            count += 1
            name = f"f{count % 40}"
            mount.writer.describe(name, tag("n", count))
            for _ in range(3):
                assert mount.datafile(name).tags["n"] == count
                time.sleep(0.001)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    mount.writer.drain()
    mount.assert_true()
