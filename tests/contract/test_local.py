"""What only a local folder has: links, special files, names of any bytes, rights, and trees that change meanwhile."""

import os
import shutil
import socket
import stat
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from contract.places import Folder

from octuefs.errors import NoAttribute, NotADirectory, NotFound, NotPermitted, OctuefsError, PermissionRefused
from octuefs.model.paths import LocalLocation
from octuefs.stores import beneath
from octuefs.stores.base import Kind, LinkTarget, ObjectInfo, Skipped
from octuefs.stores.beneath import open_beneath, walk_beneath
from octuefs.stores.local import LocalStore

Unprivileged = Callable[[Path], AbstractContextManager[None]]

pytestmark = pytest.mark.usefixtures("way")


@pytest.fixture(params=["openat2", "walked"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to open beneath a folder: by the kernel, and component by component."""
    if request.param == "walked":
        monkeypatch.setattr(beneath, "use_openat2", False)
    elif not beneath.use_openat2:
        pytest.skip("this kernel has no openat2")


def link(folder: Folder, path: str, target: str) -> LinkTarget:
    (folder.path / path).parent.mkdir(parents=True, exist_ok=True)
    (folder.path / path).symlink_to(target)
    return folder.store.follow_link(path)


def kinds(folder: Folder) -> dict[str, Kind]:
    return {item.path: item.kind for item in folder.store.scan() if isinstance(item, ObjectInfo)}


# --- symbolic links


def test_a_scan_describes_links_and_does_not_follow_them(folder: Folder, tmp_path: Path) -> None:
    folder.put("d/f", b"1")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("no")
    link(folder, "to_file", "d/f")
    link(folder, "to_folder", "d")
    link(folder, "out", "../outside")
    assert kinds(folder) == {
        "d": Kind.FOLDER,
        "d/f": Kind.FILE,
        "to_file": Kind.SYMLINK,
        "to_folder": Kind.SYMLINK,
        "out": Kind.SYMLINK,
    }
    assert folder.store.stat("to_file").size == len("d/f")
    assert folder.store.read_link("to_file") == "d/f"


@pytest.mark.parametrize(
    "target",
    ["d/f", "./d/../d/f", "{root}/d/f", "../dataset/d/f", "chain", "through/f"],
    ids=["relative", "dots", "absolute", "out and back", "chain", "through a link to a folder"],
)
def test_a_link_to_a_file_inside_is_that_file(folder: Folder, target: str) -> None:
    folder.put("d/f", b"content")
    link(folder, "chain", "d/f")
    link(folder, "through", "d")
    found = link(folder, "l", target.format(root=folder.path))
    assert found == LinkTarget("file", folder.store.stat("d/f"))
    for info in (folder.store.stat("l"), found.info):
        assert info is not None
        source = folder.store.open(info)
        assert source.read(0, 100) == b"content"
        assert source.version() == folder.store.stat("d/f").version
        source.close()


def test_an_absolute_link_is_inside_also_where_the_dataset_is_reached_by_a_link(folder: Folder, tmp_path: Path) -> None:
    folder.put("f", b"content")
    (tmp_path / "alias").symlink_to(folder.path)
    link(folder, "l", str(tmp_path / "alias" / "f"))
    store = LocalStore(LocalLocation(str(tmp_path / "alias")))
    assert store.follow_link("l").kind == "file"
    assert store.read_small("l", 100) == b"content"
    store.close()


@pytest.mark.parametrize(
    ("target", "reason"),
    [("missing", "nothing"), ("f/x", "nothing"), ("l", "circles"), ("../secret", "out of"), ("{outside}", "out of")],
    ids=["dangling", "through a file", "loop", "leaving", "absolute outside"],
)
def test_a_link_that_dangles_loops_or_leaves_is_broken(folder: Folder, target: str, reason: str) -> None:
    folder.put("f", b"1")
    secret = folder.path.parent / "secret"
    secret.write_text("secret")
    found = link(folder, "l", target.format(outside=secret))
    assert (found.kind, found.info) == ("broken", None)
    assert reason in found.reason
    with pytest.raises((NotFound, NotADirectory, PermissionRefused)):
        folder.store.open(folder.store.stat("l"))


@pytest.mark.parametrize("target", ["d", ".", "fifo", "..", "/", "/dev/null", "{root}/d"])
def test_a_link_to_a_folder_or_special_file_is_no_datafile(folder: Folder, target: str) -> None:
    folder.put_folder("d")
    os.mkfifo(folder.path / "fifo")
    found = link(folder, "l", target.format(root=folder.path))
    assert (found.kind, found.info) == ("other", None)
    with pytest.raises(OctuefsError):
        folder.store.open(folder.store.stat("l"))


def test_a_folder_that_was_swapped_for_a_link_is_not_gone_through(folder: Folder, tmp_path: Path) -> None:
    folder.put("d/f", b"mine")
    info = folder.store.stat("d/f")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/f").write_text("secret")
    for target in (tmp_path / "outside", "real"):
        if (folder.path / "d").is_symlink():
            (folder.path / "d").unlink()
        else:
            (folder.path / "d").rename(folder.path / "real")
        (folder.path / "d").symlink_to(target)
        with pytest.raises((NotFound, NotADirectory)):
            folder.store.open(info)
        with pytest.raises((NotFound, NotADirectory)):
            folder.store.stat("d/f")
        with pytest.raises((NotFound, NotADirectory)):
            list(folder.store.scan("d"))


def test_a_file_that_was_swapped_for_a_link_is_not_followed(folder: Folder) -> None:
    folder.put("f", b"1")
    info = folder.store.stat("f")
    folder.remove("f")
    (folder.path / "f").symlink_to("/etc/passwd")
    with pytest.raises(NotFound):
        folder.store.open(info)


# --- special files


def test_special_files_are_listed_and_never_opened(folder: Folder) -> None:
    os.mkfifo(folder.path / "fifo")
    here = os.open(folder.path, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        assert kinds(folder) == {"fifo": Kind.SPECIAL, "socket": Kind.SPECIAL}
        for path in ("fifo", "socket"):
            with pytest.raises(NotPermitted):
                folder.store.open(folder.store.stat(path))


def test_a_file_that_was_swapped_for_something_else_is_refused_at_once(folder: Folder) -> None:
    folder.put("f", b"1")
    info = folder.store.stat("f")
    folder.remove("f")
    os.mkfifo(folder.path / "f")
    with pytest.raises(NotFound, match="FIFO"):
        folder.store.open(info)
    with pytest.raises(NotFound, match="FIFO"):
        folder.store.read_small("f", 10)
    folder.remove("f")
    folder.put_folder("f")
    with pytest.raises(OctuefsError, match="directory"):
        folder.store.open(info)


# --- names and trees


def test_names_of_any_bytes_are_kept(folder: Folder) -> None:
    name = os.fsdecode(b"caf\xe9 \xff\xfe")
    folder.put(f"{name}/{name}", b"1")
    assert kinds(folder) == {name: Kind.FOLDER, f"{name}/{name}": Kind.FILE}
    assert folder.store.read_small(f"{name}/{name}", 10) == b"1"


def test_trees_deeper_than_the_longest_path_are_scanned_and_read(folder: Folder) -> None:
    depth, name = 400, "folder-with-a-long-name"
    here = os.open(folder.path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    fd = os.open("f", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=here)
    os.write(fd, b"deep")
    os.close(fd)
    os.close(here)
    path = "/".join([name] * depth) + "/f"
    assert len(path) > 8192
    try:
        assert [item.path for item in folder.store.scan() if isinstance(item, ObjectInfo)][-1] == path
        source = folder.store.open(folder.store.stat(path))
        assert source.read(0, 10) == b"deep"
        source.close()
    finally:
        shutil.rmtree(folder.path)


def test_what_vanishes_during_a_scan_is_left_out(folder: Folder) -> None:
    for name in ("a", "b", "c"):
        folder.put(f"{name}/f", b"1")
    scan = folder.store.scan()
    first = next(scan)
    shutil.rmtree(folder.path / "b")
    (folder.path / "c").rename(folder.path / "moved")
    (folder.path / "c").symlink_to("/etc")
    found = [first, *scan]
    assert [item.path for item in found if isinstance(item, ObjectInfo)] == ["a", "b", "c", "a/f"]
    assert len(found) == 4


def test_hard_links_share_their_inode_number(folder: Folder) -> None:
    folder.put("a", b"1")
    os.link(folder.path / "a", folder.path / "b")
    assert folder.store.stat("a").inode == folder.store.stat("b").inode
    assert folder.store.stat("a").links == 2


def test_facts_are_those_of_the_disk(folder: Folder) -> None:
    folder.put("f", b"123")
    os.chmod(folder.path / "f", 0o4751)
    os.utime(folder.path / "f", ns=(1, 1_234_567_890_123_456_789))
    info, facts = folder.store.stat("f"), (folder.path / "f").stat()
    assert (info.mtime_ns, info.ctime_ns, info.mode) == (1_234_567_890_123_456_789, facts.st_ctime_ns, 0o104751)
    assert info.version == (facts.st_dev, facts.st_ino, 3, info.mtime_ns, info.ctime_ns)
    assert (info.inode, info.blocks, info.device) == (facts.st_ino, facts.st_blocks, facts.st_rdev)


def test_an_open_file_is_read_on_after_it_was_removed(folder: Folder) -> None:
    folder.put("f", b"123")
    source = folder.store.open(folder.store.stat("f"))
    folder.remove("f")
    assert source.read(0, 10) == b"123"
    source.close()
    with pytest.raises(OctuefsError):
        source.read(0, 10)


def test_closing_a_file_under_readers_never_gives_them_bytes_of_another(folder: Folder) -> None:
    folder.put("a", b"a" * 4096)
    folder.put("b", b"b" * 4096)
    wrong: list[bytes] = []
    for _ in range(50):
        source = folder.store.open(folder.store.stat("a"))

        def read(source: object = source) -> None:
            try:
                while True:
                    data = source.read(0, 4096)  # type: ignore[attr-defined]
                    if data != b"a" * 4096:
                        wrong.append(data)
            except OctuefsError:
                return

        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        source.close()
        folder.store.open(folder.store.stat("b")).close()
        for reader in readers:
            reader.join()
    assert not wrong


def test_no_descriptor_is_left_open(folder: Folder) -> None:
    folder.put("d/f", b"1")
    link(folder, "l", "d/f")
    link(folder, "out", "/etc/passwd")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        list(folder.store.scan())
        folder.store.follow_link("l")
        folder.store.follow_link("out")
        folder.store.open(folder.store.stat("l")).close()
        folder.store.list_xattrs("d/f")
        with pytest.raises(OctuefsError):
            folder.store.stat("d/f/x/y")
        with pytest.raises(OctuefsError):
            folder.store.open(folder.store.stat("out"))
    assert len(os.listdir("/proc/self/fd")) == before


# --- rights and attributes


def test_a_folder_that_may_not_be_read_is_shown_and_named(folder: Folder, unprivileged: Unprivileged) -> None:
    folder.put("closed/f", b"1")
    folder.put("open/f", b"1")
    folder.store.check()
    with unprivileged(folder.path / "closed"):
        found = list(folder.store.scan())
        with pytest.raises(PermissionRefused):
            list(folder.store.scan("closed"))
    assert [item.path if isinstance(item, ObjectInfo) else item for item in found] == [
        "closed",
        "open",
        Skipped("closed", "Permission denied"),
        "open/f",
    ]


def test_check_says_that_a_folder_may_not_be_read(folder: Folder, unprivileged: Unprivileged) -> None:
    folder.store.check()
    with unprivileged(folder.path), pytest.raises(PermissionRefused, match=r"you may not read this folder.*chmod"):
        folder.store.check()


def test_check_says_that_a_file_is_no_folder(folder: Folder) -> None:
    folder.put("f", b"1")
    with pytest.raises(NotADirectory, match="is not a folder"):
        LocalStore(LocalLocation(str(folder.path / "f"))).check()


def test_foreign_attributes_pass_through(folder: Folder) -> None:
    folder.put("f", b"1")
    try:
        os.setxattr(folder.path / "f", "user.colour", b"blue\x00green")
    except OSError:
        pytest.skip("this file system keeps no extended attributes")
    assert folder.store.list_xattrs("f") == ["user.colour"]
    assert folder.store.get_xattr("f", "user.colour") == b"blue\x00green"
    with pytest.raises(NoAttribute):
        folder.store.get_xattr("f", "user.missing")
    link(folder, "l", "f")
    assert folder.store.list_xattrs("l") == []


# --- opening beneath a folder


@pytest.mark.parametrize("path", ["..", "d/../..", "/etc/passwd", "d/../../dataset/d", "out/passwd", "root/etc/passwd"])
def test_no_path_leads_out(folder: Folder, path: str) -> None:
    folder.put_folder("d")
    (folder.path / "out").symlink_to("/etc")
    (folder.path / "root").symlink_to("../../../../../../../../..")
    root = os.open(folder.path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="link") as caught:
            os.close(open_beneath(root, path, os.O_RDONLY))
        assert caught.value.errno is not None
    finally:
        os.close(root)


def test_both_ways_of_opening_agree(folder: Folder) -> None:
    folder.put("d/e/f", b"1")
    for path, target in {"l": "d/e/f", "dl": "d", "up": "d/../d/e", "loop": "loop", "d/back": "../d/e/f"}.items():
        (folder.path / path).symlink_to(target)
    root = os.open(folder.path, os.O_RDONLY)
    paths = [
        "",
        ".",
        "d",
        "d/e/f",
        "d/./e//f",
        "l",
        "dl",
        "dl/e/f",
        "up/f",
        "loop",
        "loop/x",
        "d/back",
        "d/e/f/x",
        "no",
    ]
    flags = [os.O_RDONLY, os.O_RDONLY | os.O_NOFOLLOW, beneath.O_PATH | os.O_NOFOLLOW, os.O_DIRECTORY]

    def outcome(opens: Callable[[int, str, int], int], path: str, flag: int) -> object:
        try:
            fd = opens(root, path, flag)
        except OSError as error:
            return error.errno
        facts = os.fstat(fd)
        os.close(fd)
        return facts.st_ino, stat.S_IFMT(facts.st_mode)

    for path in paths:
        for flag in flags:
            walked = outcome(lambda root, path, flag: walk_beneath(root, path.encode(), flag), path, flag)
            assert outcome(open_beneath, path, flag) == walked, (path, flag)
    os.close(root)


def test_descriptors_are_not_inherited(folder: Folder) -> None:
    folder.put("f", b"1")
    root = os.open(folder.path, os.O_RDONLY)
    fd = open_beneath(root, "f", os.O_RDONLY)
    assert not os.get_inheritable(fd)
    os.close(fd)
    os.close(root)


def test_swapping_folders_for_links_all_the_time_never_leads_out(folder: Folder, tmp_path: Path) -> None:
    folder.put("d/f", b"inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/f").write_bytes(b"secret!")
    (folder.path / "link").symlink_to(tmp_path / "outside")
    info = folder.store.stat("d/f")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            (folder.path / "d").rename(folder.path / "aside")
            (folder.path / "link").rename(folder.path / "d")
            (folder.path / "d").rename(folder.path / "link")
            (folder.path / "aside").rename(folder.path / "d")

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    end = time.monotonic() + 0.5
    try:
        while time.monotonic() < end:
            try:
                source = folder.store.open(info)
                seen.add(source.read(0, 100))
                source.close()
            except OctuefsError:
                seen.add(None)
    finally:
        done.set()
        swapper.join()
    assert seen <= {b"inside", None}


# --- a dataset that is replaced as a whole


def test_a_folder_that_was_replaced_is_turned_to_when_asked(folder: Folder, tmp_path: Path) -> None:
    folder.put("f", b"old")
    assert folder.store.read_small("f", 10) == b"old"
    assert not folder.store.reopen_if_replaced()
    opened = folder.store.open(folder.store.stat("f"))
    number = folder.store._root_fd
    shutil.rmtree(folder.path)
    assert not folder.store.reopen_if_replaced()
    (tmp_path / "new").mkdir()
    (tmp_path / "new/f").write_bytes(b"new")
    (tmp_path / "new").rename(folder.path)
    assert folder.store.reopen_if_replaced()
    assert not folder.store.reopen_if_replaced()
    assert folder.store.read_small("f", 10) == b"new"
    assert opened.read(0, 10) == b"old"
    assert folder.store._root_fd == number
    assert not os.get_inheritable(number)
    opened.close()


def test_a_store_that_was_not_used_yet_or_leads_into_its_mount_now_is_not_replaced(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "path").symlink_to("one")
    store = LocalStore(LocalLocation(str(tmp_path / "path")), avoid=str(tmp_path / "two"))
    assert not store.reopen_if_replaced()
    store.check()
    (tmp_path / "path").unlink()
    (tmp_path / "path").symlink_to("two")
    assert not store.reopen_if_replaced()
    store.close()
