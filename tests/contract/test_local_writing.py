"""How a local folder is changed: as the system's calls do it, and never outside of the folder."""

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from contract.places import Folder

from octuefs.errors import AlreadyExists, IsADirectory, NotEmpty, NotFound, OctuefsError, TimedOut, Unsupported
from octuefs.model.paths import is_temporary
from octuefs.stores import beneath, local_writing
from octuefs.stores.base import Kind
from octuefs.stores.local import LocalStore
from octuefs.stores.local_file import LocalFile
from octuefs.stores.writing import DiskFile, DiskStore

pytestmark = pytest.mark.usefixtures("way", "no_umask")


@pytest.fixture(params=["openat2", "walked"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to open beneath a folder: by the kernel, and component by component."""
    if request.param == "walked":
        monkeypatch.setattr(beneath, "use_openat2", False)
    elif not beneath.use_openat2:
        pytest.skip("this kernel has no openat2")


@pytest.fixture
def no_umask() -> Iterator[None]:
    """The daemon's umask is 0: the callers' have been applied."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def store(folder: Folder) -> LocalStore:
    return folder.store


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def leftovers(folder: Folder) -> list[str]:
    return [it.name for it in folder.path.rglob("*") if is_temporary(it.name)]


def test_the_local_store_is_a_disk_store(folder: Folder) -> None:
    store: DiskStore = folder.store
    file: DiskFile = store.open_file("f", os.O_RDWR | os.O_CREAT)
    file.close()
    assert store.stat("f").kind is Kind.FILE


# --- open files


def test_a_file_is_made_with_its_mode_and_read_back(folder: Folder, store: LocalStore) -> None:
    file = store.open_file("f", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
    assert file.write(0, b"hello") == 5
    assert file.write(8, b"world") == 5
    assert file.read(0, 100) == b"hello\0\0\0world"
    info = file.info()
    assert (info.path, info.size, info.kind) == ("f", 13, Kind.FILE)
    assert info == store.stat("f")
    assert file.version() == info.version
    file.close()
    assert (folder.path / "f").read_bytes() == b"hello\0\0\0world"
    assert mode_of(folder.path / "f") == 0o640


def test_a_file_that_is_there_is_not_made_again(folder: Folder, store: LocalStore) -> None:
    folder.put("f", b"there")
    with pytest.raises(AlreadyExists):
        store.open_file("f", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    file = store.open_file("f", os.O_RDWR | os.O_CREAT, 0o600)
    assert file.read(0, 10) == b"there"
    file.close()
    store.open_file("f", os.O_WRONLY | os.O_TRUNC).close()
    assert (folder.path / "f").read_bytes() == b""


def test_what_is_opened_to_append_appends_whatever_the_offset(folder: Folder, store: LocalStore) -> None:
    folder.put("f", b"1")
    file = store.open_file("f", os.O_WRONLY | os.O_APPEND)
    with (folder.path / "f").open("ab") as other:
        other.write(b"2")
    assert file.write(0, b"3") == 1
    file.close()
    assert (folder.path / "f").read_bytes() == b"123"


def test_a_long_write_is_written_completely(folder: Folder, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: whole(fd, bytes(data)[:3], offset))
    file = store.open_file("f", os.O_WRONLY | os.O_CREAT)
    assert file.write(1, b"0123456789") == 10
    file.close()
    assert (folder.path / "f").read_bytes() == b"\x000123456789"


def test_an_open_file_is_cut_extended_and_allocated(folder: Folder, store: LocalStore) -> None:
    file = store.open_file("f", os.O_RDWR | os.O_CREAT)
    file.write(0, b"0123456789")
    file.truncate(4)
    file.truncate(6)
    assert file.read(0, 10) == b"0123\0\0"
    file.allocate(0, 0, 8192)
    assert file.info().size == 8192
    assert (folder.path / "f").stat().st_blocks >= 16
    file.allocate(1, 8192, 4096)  # FALLOC_FL_KEEP_SIZE
    assert file.info().size == 8192
    with pytest.raises(Unsupported):
        file.allocate(0x4000, 0, 4096)
    file.sync()
    file.sync(data_only=True)
    file.close()


def test_a_path_is_cut(folder: Folder, store: LocalStore) -> None:
    folder.put("f", b"0123456789")
    store.truncate("f", 3)
    assert (folder.path / "f").read_bytes() == b"012"
    folder.put_folder("d")
    with pytest.raises(IsADirectory):
        store.truncate("d", 3)
    with pytest.raises(NotFound):
        store.truncate("missing", 3)


def test_an_open_file_goes_on_under_no_name(folder: Folder, store: LocalStore) -> None:
    file = store.open_file("f", os.O_RDWR | os.O_CREAT)
    store.remove("f")
    file.write(0, b"still")
    assert file.read(0, 10) == b"still"
    assert (file.info().links, file.info().size) == (0, 5)
    file.close()
    assert not (folder.path / "f").exists()


def test_a_closed_file_takes_no_calls(store: LocalStore) -> None:
    file = store.open_file("f", os.O_RDWR | os.O_CREAT)
    file.close()
    file.close()
    for call in (lambda: file.write(0, b"x"), lambda: file.read(0, 1), file.sync, file.info, file.identity):
        with pytest.raises(OctuefsError) as refusal:
            call()
        assert refusal.value.errno == errno.EBADF


def test_the_identity_of_a_file_stays_while_it_is_written(folder: Folder, store: LocalStore) -> None:
    file = store.open_file("f", os.O_RDWR | os.O_CREAT)
    before = file.identity()
    file.write(0, b"1")
    again = store.open(store.stat("f"))
    assert file.identity() == before == again.identity()
    (folder.path / "f").unlink()
    folder.put("f")
    replaced = store.open(store.stat("f"))
    assert replaced.identity() != before
    for it in (file, again, replaced):
        it.close()


@pytest.mark.parametrize(
    ("mode", "left"), [(0o4755, 0o755), (0o2755, 0o755), (0o6711, 0o711), (0o2640, 0o2640), (0o644, 0o644)]
)
def test_a_write_takes_setuid_and_setgid_away_also_from_root(
    folder: Folder, store: LocalStore, mode: int, left: int
) -> None:
    folder.put("f", b"1")
    (folder.path / "f").chmod(mode)
    file = store.open_file("f", os.O_RDWR)
    assert mode_of(folder.path / "f") == mode
    file.write(0, b"2")
    assert mode_of(folder.path / "f") == left
    file.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_an_open_file_changes_hands(folder: Folder, store: LocalStore) -> None:
    file = store.open_file("f", os.O_RDWR | os.O_CREAT)
    file.set_owner(12, 34)
    file.set_owner(-1, 35)
    assert (file.info().uid, file.info().gid) == (12, 35)
    file.close()


@pytest.mark.parametrize("kind", ["fifo", "socket", "folder"])
def test_only_regular_files_are_opened(folder: Folder, store: LocalStore, kind: str) -> None:
    if kind == "folder":
        folder.put_folder("x")
    else:
        os.mknod(folder.path / "x", (stat.S_IFIFO if kind == "fifo" else stat.S_IFSOCK) | 0o666)
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        with pytest.raises(OctuefsError) as refusal:
            store.open_file("x", flags)
        assert isinstance(refusal.value, IsADirectory if kind == "folder" else NotFound)


def test_a_link_at_the_end_is_followed_inside_only(folder: Folder, store: LocalStore, tmp_path: Path) -> None:
    folder.put("d/f", b"inside")
    outside = tmp_path / "outside"
    outside.write_bytes(b"outside")
    (folder.path / "in").symlink_to("d/f")
    (folder.path / "out").symlink_to(outside)
    (folder.path / "way").symlink_to("d")
    (folder.path / "through").symlink_to("way/f")
    for name in ("in", "through"):
        file = store.open_file(name, os.O_RDWR)
        assert file.write(0, b"I") == 1
        file.close()
    assert (folder.path / "d/f").read_bytes() == b"Inside"
    for path, flags in (
        ("out", os.O_RDWR),
        ("out", os.O_RDWR | os.O_CREAT),
        ("in", os.O_RDWR | os.O_CREAT),
        ("in", os.O_RDWR | os.O_NOFOLLOW),
        ("way/f", os.O_RDWR),
        ("way/g", os.O_RDWR | os.O_CREAT),
    ):
        with pytest.raises(OctuefsError):
            store.open_file(path, flags)
    assert outside.read_bytes() == b"outside"
    assert os.listdir(folder.path / "d") == ["f"]


# --- names


def test_folders_links_and_special_files_are_made_and_removed(folder: Folder, store: LocalStore) -> None:
    store.make_folder("d", 0o750)
    assert mode_of(folder.path / "d") == 0o750
    store.make_link("d/l", "any\udcff/../where")
    assert os.readlink(os.fsencode(folder.path / "d/l")) == b"any\xff/../where"
    store.make_special("d/p", stat.S_IFIFO | 0o640, 0)
    assert stat.S_ISFIFO((folder.path / "d/p").stat().st_mode)
    assert mode_of(folder.path / "d/p") == 0o640
    with pytest.raises(NotEmpty):
        store.remove_folder("d")
    with pytest.raises(AlreadyExists):
        store.make_folder("d", 0o750)
    with pytest.raises(IsADirectory):
        store.remove("d")
    store.remove("d/l")
    store.remove("d/p")
    store.remove_folder("d")
    assert list(folder.path.iterdir()) == []
    for call in (store.remove, store.remove_folder):
        with pytest.raises(NotFound):
            call("d")


def test_a_second_name_is_the_same_file_and_a_link_stays_a_link(folder: Folder, store: LocalStore) -> None:
    folder.put("d/f", b"1")
    store.link("d/f", "g")
    assert store.stat("g").inode == store.stat("d/f").inode
    assert store.stat("g").links == 2
    store.make_link("l", "d/f")
    store.link("l", "m")
    assert store.stat("m").kind is Kind.SYMLINK
    with pytest.raises(AlreadyExists):
        store.link("d/f", "g")


def test_files_and_folders_are_renamed_over_others(folder: Folder, store: LocalStore) -> None:
    folder.put("d/f", b"1")
    folder.put("g", b"2")
    store.rename("d/f", "g")
    assert (folder.path / "g").read_bytes() == b"1"
    store.make_folder("empty", 0o755)
    folder.put("d/h", b"3")
    store.rename("d", "empty")
    assert (folder.path / "empty/h").read_bytes() == b"3"
    with pytest.raises(OctuefsError) as refusal:
        store.rename("empty", "empty/inside")
    assert refusal.value.errno == errno.EINVAL
    with pytest.raises(NotFound):
        store.rename("d", "e")


@pytest.mark.parametrize("by_system", [True, False])
def test_nothing_is_replaced_where_that_is_asked(
    folder: Folder, store: LocalStore, monkeypatch: pytest.MonkeyPatch, *, by_system: bool
) -> None:
    monkeypatch.setattr(local_writing, "use_renameat2", by_system)
    folder.put("f", b"1")
    folder.put("g", b"2")
    folder.put_folder("d")
    folder.put_folder("e")
    for old, new in (("f", "g"), ("d", "e"), ("f", "d"), ("d", "f")):
        with pytest.raises(AlreadyExists):
            store.rename(old, new, replace=False)
    with pytest.raises(OctuefsError):
        store.rename("d", "d/x", replace=False)
    assert not list((folder.path / "d").iterdir())
    store.rename("f", "d/h", replace=False)
    store.rename("d", "n", replace=False)
    assert (folder.path / "n/h").read_bytes() == b"1"
    assert sorted(os.listdir(folder.path)) == ["e", "g", "n"]


def test_the_root_itself_is_neither_removed_nor_renamed(store: LocalStore) -> None:
    for call in (
        lambda: store.remove_folder(""),
        lambda: store.remove(""),
        lambda: store.rename("", "x"),
        lambda: store.make_folder("", 0o755),
    ):
        with pytest.raises(OctuefsError):
            call()


# --- attributes


def test_permissions_are_set_but_not_those_of_links(folder: Folder, store: LocalStore) -> None:
    folder.put("f", b"1")
    store.make_link("l", "f")
    store.set_mode("f", 0o4711)
    assert mode_of(folder.path / "f") == 0o4711
    store.set_mode("", 0o711)
    assert mode_of(folder.path) == 0o711
    with pytest.raises(Unsupported):
        store.set_mode("l", 0o600)
    assert mode_of(folder.path / "f") == 0o4711


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_owners_are_set_also_of_links(folder: Folder, store: LocalStore) -> None:
    folder.put("f", b"1")
    store.make_link("l", "f")
    store.set_owner("l", 5, 6)
    store.set_owner("f", 7, -1)
    assert (store.stat("l").uid, store.stat("l").gid) == (5, 6)
    assert (store.stat("f").uid, store.stat("f").gid) == (7, 0)


def test_times_are_set_one_by_one_also_of_links(folder: Folder, store: LocalStore) -> None:
    folder.put("f", b"1")
    store.make_link("l", "f")
    untouched = (folder.path / "f").stat().st_mtime_ns
    store.set_times("l", (1_000_000_001, -5))
    found = (folder.path / "l").lstat()
    assert (found.st_atime_ns, found.st_mtime_ns) == (1_000_000_001, -5)
    store.set_times("f", (7, None))
    found = (folder.path / "f").stat()
    assert (found.st_atime_ns, found.st_mtime_ns) == (7, untouched)
    store.set_times("", (None, 9))
    assert folder.path.stat().st_mtime_ns == 9
    with pytest.raises(NotFound):
        store.set_times("missing", (1, 1))


def test_extended_attributes_are_set_and_removed(folder: Folder, store: LocalStore) -> None:
    folder.put("f", b"1")
    try:
        store.set_xattr("f", "user.a", b"1", 0)
    except Unsupported:
        pytest.skip("no extended attributes here")
    with pytest.raises(AlreadyExists):
        store.set_xattr("f", "user.a", b"2", os.XATTR_CREATE)
    with pytest.raises(OctuefsError):
        store.set_xattr("f", "user.b", b"2", os.XATTR_REPLACE)
    assert store.get_xattr("f", "user.a") == b"1"
    store.remove_xattr("f", "user.a")
    assert store.list_xattrs("f") == []
    store.make_link("l", "f")
    with pytest.raises(OctuefsError):
        store.set_xattr("l", "user.a", b"1", 0)


# --- nothing outside


CHANGES: list[Callable[[LocalStore, str], object]] = [
    lambda store, path: store.open_file(path, os.O_WRONLY | os.O_CREAT, 0o600),
    lambda store, path: store.open_file(path, os.O_RDWR),
    lambda store, path: store.make_folder(f"{path}-new", 0o700),
    lambda store, path: store.make_link(f"{path}-new", "x"),
    lambda store, path: store.make_special(f"{path}-new", stat.S_IFIFO | 0o600, 0),
    lambda store, path: store.link("f", f"{path}-new"),
    lambda store, path: store.link(path, "new"),
    lambda store, path: store.remove(path),
    lambda store, path: store.remove_folder(path),
    lambda store, path: store.rename("f", f"{path}-new"),
    lambda store, path: store.rename(path, "new"),
    lambda store, path: store.truncate(path, 0),
    lambda store, path: store.set_mode(path, 0o777),
    lambda store, path: store.set_owner(path, 1, 1),
    lambda store, path: store.set_times(path, (1, 1)),
    lambda store, path: store.set_xattr(path, "user.a", b"1", 0),
    lambda store, path: store.replace_file(path, b"new"),
    lambda store, path: store.sync_folder(path),
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("path", ["out/secret", "in/secret", "../outside/secret", "d/../../outside/secret"])
def test_no_change_leaves_the_folder(
    folder: Folder, store: LocalStore, tmp_path: Path, path: str, change: Callable[[LocalStore, str], object]
) -> None:
    folder.put("f", b"1")
    folder.put("d/secret", b"2")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"outside")
    (folder.path / "out").symlink_to(tmp_path / "outside")
    (folder.path / "in").symlink_to("d")
    before = [(it.name, it.stat()) for it in (tmp_path / "outside", tmp_path / "outside/secret", folder.path / "d")]
    with pytest.raises(OctuefsError):
        change(store, path)
    after = [(it.name, it.stat()) for it in (tmp_path / "outside", tmp_path / "outside/secret", folder.path / "d")]
    assert [(name, it.st_ctime_ns) for name, it in after] == [(name, it.st_ctime_ns) for name, it in before]


@pytest.mark.parametrize("path", ["..", ".", "d/..", "nul\0", "lone\ud800"])
def test_names_that_name_nothing_beneath_are_refused(folder: Folder, store: LocalStore, path: str) -> None:
    folder.put("d/f", b"1")
    before = folder.path.parent.stat()
    for call in (
        lambda: store.set_mode(path, 0o777),
        lambda: store.set_times(path, (1, 1)),
        lambda: store.rename("d/f", path),
        lambda: store.make_folder(path, 0o700),
    ):
        if path == "." and call is not None:
            continue
        with pytest.raises(OctuefsError):
            call()
    assert folder.path.parent.stat().st_mtime_ns == before.st_mtime_ns


# --- files that are replaced


@pytest.mark.parametrize("unnamed", [True, False])
def test_a_file_is_replaced_at_once_and_keeps_its_permissions_and_owner(
    folder: Folder, store: LocalStore, monkeypatch: pytest.MonkeyPatch, *, unnamed: bool
) -> None:
    monkeypatch.setattr(local_writing, "use_tmpfile", unnamed and local_writing.use_tmpfile)
    store.replace_file("d.octue", b"first")
    assert mode_of(folder.path / "d.octue") == 0o644
    (folder.path / "d.octue").chmod(0o640)
    if os.geteuid() == 0:
        os.chown(folder.path / "d.octue", 12, 34)
    before = store.stat("d.octue")
    store.replace_file("d.octue", b"second")
    after = store.stat("d.octue")
    assert (after.mode, after.uid, after.gid) == (before.mode, before.uid, before.gid)
    assert after.inode != before.inode
    assert (folder.path / "d.octue").read_bytes() == b"second"
    assert leftovers(folder) == []


@pytest.mark.parametrize("unnamed", [True, False])
def test_the_time_of_the_folder_is_kept_where_that_is_asked_for(
    folder: Folder, store: LocalStore, monkeypatch: pytest.MonkeyPatch, *, unnamed: bool
) -> None:
    monkeypatch.setattr(local_writing, "use_tmpfile", unnamed and local_writing.use_tmpfile)
    store.make_folder("d", 0o755)
    then = 10**18 + 5
    for path, place in (("d/f", folder.path / "d"), ("f", folder.path)):
        os.utime(place, ns=(then - 1, then))
        store.replace_file(path, b"1", keeps_time=True)
        store.replace_file(path, b"2", keeps_time=True)
        store.remove(path, keeps_time=True)
        assert place.stat().st_mtime_ns == then
        store.replace_file(path, b"3")
        assert place.stat().st_mtime_ns > then
        os.utime(place, ns=(then, then))
        store.remove(path)
        assert place.stat().st_mtime_ns > then


@pytest.mark.parametrize("unnamed", [True, False])
def test_what_cannot_be_replaced_stays_and_nothing_is_left_behind(
    folder: Folder, store: LocalStore, monkeypatch: pytest.MonkeyPatch, *, unnamed: bool
) -> None:
    monkeypatch.setattr(local_writing, "use_tmpfile", unnamed and local_writing.use_tmpfile)
    folder.put("f", b"present")
    folder.put("d/x", b"1")

    def no_space(fd: int) -> None:
        raise OSError(errno.ENOSPC, "")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(OctuefsError) as refusal:
            store.replace_file("f", b"new")
    assert refusal.value.errno == errno.ENOSPC
    with pytest.raises(IsADirectory):
        store.replace_file("d", b"new")
    assert (folder.path / "f").read_bytes() == b"present"
    assert leftovers(folder) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_first_file_of_roots_belongs_to_the_owner_of_the_folder(folder: Folder, store: LocalStore) -> None:
    store.make_folder("d", 0o755)
    store.set_owner("d", 12, 34)
    store.replace_file("d/f", b"1")
    assert (store.stat("d/f").uid, store.stat("d/f").gid) == (12, 34)


def test_a_replaced_link_is_a_file_then_and_its_target_stays(folder: Folder, store: LocalStore) -> None:
    folder.put("f", b"target")
    store.make_link("l", "f")
    store.replace_file("l", b"new")
    assert store.stat("l").kind is Kind.FILE
    assert (folder.path / "f").read_bytes() == b"target"


# --- locks


def test_the_lock_of_a_folder_holds_among_threads_and_stores(folder: Folder, store: LocalStore) -> None:
    other = LocalStore(store._place)
    inside: list[int] = []
    most = 0

    def work(mine: LocalStore) -> None:
        nonlocal most
        for _ in range(20):
            with mine.locked(""):
                inside.append(1)
                most = max(most, len(inside))
                time.sleep(0.0005)
                inside.pop()

    threads = [threading.Thread(target=work, args=(mine,)) for mine in (store, store, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert most == 1


def test_a_lock_that_another_keeps_is_not_waited_for_for_ever(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_writing, "_LOCK_SECONDS", 0.05)
    with store.locked(""), pytest.raises(TimedOut), store.locked(""):
        pass
    with store.locked(""):
        pass
    with pytest.raises(NotFound), store.locked("missing"):
        pass


def test_descriptors_are_given_back(folder: Folder, store: LocalStore) -> None:
    folder.put("f", b"1")
    store.stat("f")

    def everything() -> None:
        file: LocalFile = store.open_file("g", os.O_RDWR | os.O_CREAT)
        file.write(0, b"1")
        file.close()
        store.rename("g", "h", replace=False)
        store.replace_file("h", b"2")
        store.remove("h")
        store.sync_folder("")
        with store.locked(""):
            pass
        with pytest.raises(NotFound):
            store.open_file("missing", os.O_RDWR)
        with pytest.raises(OctuefsError):
            store.rename("missing", "f")

    everything()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        everything()
    assert len(os.listdir("/proc/self/fd")) == before
