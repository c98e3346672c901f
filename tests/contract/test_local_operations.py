"""The calls on open files that a disk answers in a way of its own, from the operations down to the folder."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.tree_world import CALLER, Calls, World

from octuefs.content.hashing import Hasher
from octuefs.dataset import Dataset
from octuefs.errors import BadValue, NotADirectory, NotFound, ReadOnly, Unsupported, to_errno
from octuefs.handles import BadHandle
from octuefs.index import Datafile, Index
from octuefs.keeper import Keeper
from octuefs.model.paths import LocalLocation
from octuefs.operations import Operations
from octuefs.report import Report
from octuefs.stores.base import DiskSource
from octuefs.stores.local import LocalStore
from octuefs.tree.control import ControlFiles
from octuefs.tree.namespace import Namespace
from octuefs.writing.journal import Journal
from octuefs.writing.local import LocalWriter
from octuefs.writing.recent import RecentNames

MIB = 1 << 20


class Mount(Calls):
    """A folder that is mounted, without a kernel."""

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self.path = folder / "dataset"
        self.path.mkdir(exist_ok=True)
        self.store = LocalStore(LocalLocation(str(self.path)))
        self.index = Index()
        self.report = Report()
        self.keeper = Keeper(self.store, self.report, self.index, recursive=True, metadata_ttl=60)
        self.dataset = Dataset(self.keeper, Hasher(self.store, self.index.publish_hash))
        self.journal = Journal(folder / ("reader" if read_only else "journal"))
        if not read_only:
            self.dataset.writer = LocalWriter(
                self.store, self.keeper, self.journal, self.report, RecentNames(), lambda *_: None
            )
        self.keeper.load()
        control = ControlFiles(lambda: b"{}", lambda: b"", lambda: None)
        self.operations = Operations(Namespace(self.dataset, control), self.report)

    def close(self) -> None:
        self.operations.close()
        if self.dataset.writer is not None:
            self.dataset.writer.close()
        self.journal.close()
        self.dataset.hasher.close()
        self.keeper.close()
        self.store.close()

    def open(self, path: str, flags: int = os.O_RDWR) -> int:
        if self.exists(path):
            return self.operations.open(self.node(path), flags).handle
        return self.operations.create(*self.place(path), flags | os.O_CREAT, 0o644, CALLER).handle

    def size_in_index(self, path: str) -> int:
        entry = self.index.entry(path)
        assert isinstance(entry, Datafile)
        return entry.info.size


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    it = Mount(tmp_path)
    yield it
    it.close()


@pytest.fixture
def in_cloud() -> Iterator[World]:
    it = World(in_cloud=True)
    yield it
    it.close()


# --- what is open


def test_a_local_file_is_opened_as_a_source_of_a_disk(mount: Mount) -> None:
    mount.write("f", b"1")
    for flags in (os.O_RDONLY, os.O_RDWR):
        handle = mount.open("f", flags)
        assert isinstance(mount.operations.source_of(handle), DiskSource)
        assert mount.operations.is_writer(handle) == (flags != os.O_RDONLY)
        assert mount.operations.node_of(handle).home is mount.dataset


def test_a_new_file_in_a_folder_that_is_being_filled_is_one_too(mount: Mount) -> None:
    mount.mkdir("new")
    handle = mount.open("new/f")
    assert isinstance(mount.operations.source_of(handle), DiskSource)
    filling = mount.operations.root.lookup("new").context.filling  # type: ignore[attr-defined]
    assert len(filling._open) == 1
    mount.operations.release(handle)
    assert filling._open == {}


def test_a_control_file_has_no_source(mount: Mount) -> None:
    handle = mount.operations.open(mount.node(".octuefs/refresh"), os.O_WRONLY).handle
    assert mount.operations.source_of(handle) is None
    assert mount.operations.is_writer(handle)


def test_what_is_written_through_a_lent_descriptor_is_in_the_index_with_the_flush(mount: Mount) -> None:
    mount.write("f", b"1")
    handle = mount.open("f")
    source = mount.operations.source_of(handle)
    source.mark_written()  # type: ignore[union-attr]
    with source.lend() as fd:  # type: ignore[union-attr]
        os.pwrite(fd, b"123", 0)
    mount.operations.flush(handle)
    assert mount.size_in_index("f") == 3


# --- lseek


def test_holes_of_a_disk_are_found(mount: Mount) -> None:
    with open(mount.path / "f", "wb") as file:
        file.truncate(2 * MIB)
        file.seek(MIB)
        file.write(b"data")
    mount.keeper.refresh().result()
    handle = mount.open("f", os.O_RDONLY)
    with open(mount.path / "f", "rb") as file:
        wanted = [file.seek(0, os.SEEK_DATA), file.seek(MIB, os.SEEK_HOLE)]
    lseek = mount.operations.lseek
    assert [lseek(handle, 0, os.SEEK_DATA), lseek(handle, MIB, os.SEEK_HOLE)] == wanted
    assert lseek(handle, 2 * MIB - 1, os.SEEK_HOLE) == 2 * MIB - 1
    with pytest.raises(OSError, match="address") as failure:
        lseek(handle, 2 * MIB, os.SEEK_DATA)
    assert to_errno(failure.value) == errno.ENXIO
    assert mount.report.failure_count == 0


def test_a_file_that_no_disk_has_is_all_data(in_cloud: World) -> None:
    in_cloud.put("abcdef")
    handle = in_cloud.operations.open(in_cloud.node("abcdef"), os.O_RDONLY).handle
    lseek = in_cloud.operations.lseek
    assert [lseek(handle, at, os.SEEK_DATA) for at in (0, 5)] == [0, 5]
    assert [lseek(handle, at, os.SEEK_HOLE) for at in (0, 5)] == [6, 6]
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        with pytest.raises(OSError, match="address") as failure:
            lseek(handle, 6, whence)
        assert to_errno(failure.value) == errno.ENXIO


def test_other_ways_to_seek_are_the_kernels_own(mount: Mount) -> None:
    mount.write("f", b"1")
    with pytest.raises(BadValue):
        mount.operations.lseek(mount.open("f"), 0, os.SEEK_END)


# --- copy_file_range


def test_bytes_are_copied_between_files_of_a_disk(mount: Mount) -> None:
    mount.write("f", b"0123456789")
    source, target = mount.open("f", os.O_RDONLY), mount.open("g")
    assert mount.operations.copy_file_range(source, 2, target, 1, 5) == 5
    mount.operations.flush(target)
    assert (mount.path / "g").read_bytes() == b"\x0023456"
    assert mount.size_in_index("g") == 6


def test_bytes_are_copied_into_files_that_are_open_for_writing_alone(mount: Mount) -> None:
    mount.write("f", b"0123456789")
    source = mount.open("f", os.O_RDONLY)
    with pytest.raises(BadHandle):
        mount.operations.copy_file_range(source, 0, source, 5, 5)


def test_other_files_are_to_be_read_and_written(mount: Mount, in_cloud: World) -> None:
    mount.write("f", b"1")
    text = mount.operations.open(mount.node(".hash"), os.O_RDONLY).handle
    with pytest.raises(Unsupported) as failure:
        mount.operations.copy_file_range(text, 0, mount.open("f"), 0, 5)
    assert to_errno(failure.value) == errno.EOPNOTSUPP
    in_cloud.put("a")
    one, other = (in_cloud.operations.open(in_cloud.node("a"), os.O_RDWR).handle for _ in range(2))
    with pytest.raises(Unsupported):
        in_cloud.operations.copy_file_range(one, 0, other, 5, 5)


# --- files without a name


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR])
def test_an_open_file_whose_name_is_gone_is_changed_by_its_handle(mount: Mount, flags: int) -> None:
    mount.write("f", b"1")
    handle = mount.open("f", flags)
    mount.rm("f")
    operations = mount.operations
    operations.fchmod(handle, stat.S_IFREG | 0o640)
    operations.futimens(handle, (None, 7))
    operations.fchown(handle, -1, os.getgid())
    found = operations.fgetattr(handle)
    assert (found.mode, found.mtime_ns, found.links) == (stat.S_IFREG | 0o640, 7, 0)
    operations.release(handle)
    assert not mount.exists("f")


def test_what_cannot_be_changed_without_a_name_has_none_any_more(mount: Mount, in_cloud: World) -> None:
    text = mount.operations.open(mount.node(".hash"), os.O_RDONLY).handle
    control = mount.operations.open(mount.node(".octuefs/refresh"), os.O_WRONLY).handle
    for handle in (text, control):
        with pytest.raises(NotFound, match="no name any more"):
            mount.operations.fchmod(handle, 0o600)


def test_nothing_is_changed_through_a_read_only_mount(mount: Mount, tmp_path: Path) -> None:
    mount.write("f", b"1")
    reader = Mount(tmp_path, read_only=True)
    try:
        handle = reader.open("f", os.O_RDONLY)
        with pytest.raises(ReadOnly):
            reader.operations.fchmod(handle, 0o600)
    finally:
        reader.close()


# --- directories


def test_a_directory_is_listed_when_it_is_first_read_and_then_again_where_that_is_asked(mount: Mount) -> None:
    handle = mount.operations.opendir(mount.operations.root)

    def names(*, anew: bool = False) -> list[str]:
        return [entry.name for entry in mount.operations.readdir(handle, anew=anew)]

    mount.write("a", b"")  # after the directory was opened
    assert names() == ["a"]
    mount.write("b", b"")
    assert names() == ["a"]
    assert names(anew=True) == ["a", "b"]
    assert names() == ["a", "b"]


def test_a_folder_that_has_gone_and_a_file_cannot_be_opened_as_directories(mount: Mount) -> None:
    mount.mkdir("d")
    mount.write("f", b"")
    folder = mount.node("d")
    mount.rmdir("d")
    with pytest.raises(NotFound):
        mount.operations.opendir(folder)
    with pytest.raises(NotADirectory):
        mount.operations.opendir(mount.node("f"))
