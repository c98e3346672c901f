"""What the kernel keeps for minutes is true all the same: changes below the mount and by other names of it show."""

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount.datasets import crc32c
from mount.kernel_mounts import TRANSPORTS, Native, eventually, native


@pytest.fixture(scope="module")
def all_sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("caches") / "dataset"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module", params=TRANSPORTS)
def mount(all_sources: Path, request: pytest.FixtureRequest) -> Iterator[Native]:
    with native(all_sources, io_uring=request.param) as it:
        yield it


@pytest.fixture
def folder(mount: Native, all_sources: Path, request: pytest.FixtureRequest) -> str:
    """A folder of the test's own, with three files that the kernel knows by heart."""
    name = f"{request.node.originalname}-{time.monotonic_ns()}"
    (all_sources / name / "sub").mkdir(parents=True)
    for path, data in (("a.csv", b"1"), ("b.dat", b"22"), ("sub/c.csv", b"333")):
        (all_sources / name / path).write_bytes(data)
    eventually(lambda: (mount / name / "sub" / "c.csv").read_bytes() == b"333")
    eventually(lambda: sorted(os.listdir(mount / name)) == ["a.csv", "b.dat", "sub"])
    eventually(lambda: is_known(mount, name))
    return name


def is_known(mount: Native, folder: str) -> bool:
    """Say whether the kernel can tell all of a folder's files without asking."""
    paths = [mount / folder / name for name in ("a.csv", "b.dat", "sub/c.csv")]
    for path in paths:
        path.stat()
    with mount.asked() as asked:
        for path in paths:
            path.stat()
    return not set(asked) - {"getattr"}


@pytest.fixture
def source(all_sources: Path, folder: str) -> Path:
    return all_sources / folder


@pytest.fixture
def point(mount: Native, folder: str) -> Path:
    return mount / folder


def test_a_file_that_was_missing_a_moment_ago_shows(source: Path, point: Path) -> None:
    assert not (point / "new.csv").exists()
    (source / "new.csv").write_bytes(b"new")
    eventually(lambda: (point / "new.csv").read_bytes() == b"new")
    eventually(lambda: "new.csv" in os.listdir(point))


def test_a_file_that_grows_or_shrinks_shows_to_who_has_it_open(source: Path, point: Path) -> None:
    with (point / "b.dat").open("rb", buffering=0) as file:
        for data in (b"22 and more", b"2", b"", b"x" * 100_000):
            (source / "b.dat").write_bytes(data)
            eventually(lambda data=data: os.fstat(file.fileno()).st_size == len(data))
            assert os.pread(file.fileno(), 200_000, 0) == data
            eventually(lambda data=data: (point / "b.dat").stat().st_size == len(data))


def test_a_file_replaced_or_removed_shows_by_name_and_not_to_who_has_it_open(source: Path, point: Path) -> None:
    with (point / "a.csv").open("rb", buffering=0) as file:
        (source / "beside").write_bytes(b"another")
        (source / "beside").replace(source / "a.csv")
        eventually(lambda: (point / "a.csv").stat().st_size == 7)
        assert (point / "a.csv").read_bytes() == b"another"
        assert os.pread(file.fileno(), 100, 0) == b"1"
        (source / "a.csv").unlink()
        eventually(lambda: not (point / "a.csv").exists())
        eventually(lambda: sorted(os.listdir(point)) == ["b.dat", "sub"])
        assert os.pread(file.fileno(), 100, 0) == b"1"


def test_who_has_a_folder_open_sees_what_comes_and_goes_in_it(source: Path, point: Path) -> None:
    descriptor = os.open(point / "sub", os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert os.listdir(descriptor) == ["c.csv"]
        (source / "sub" / "d.csv").write_bytes(b"4")
        eventually(lambda: sorted(os.listdir(descriptor)) == ["c.csv", "d.csv"])
        assert os.stat("d.csv", dir_fd=descriptor).st_size == 1
        (source / "sub" / "c.csv").unlink()
        eventually(lambda: os.listdir(descriptor) == ["d.csv"])
    finally:
        os.close(descriptor)


def test_a_folder_that_is_renamed_shows_and_its_files_keep_their_numbers(source: Path, point: Path) -> None:
    number = (point / "sub" / "c.csv").stat().st_ino
    (source / "sub").rename(source / "moved")
    eventually(lambda: (point / "moved" / "c.csv").read_bytes() == b"333")
    eventually(lambda: not (point / "sub").exists())
    eventually(lambda: sorted(os.listdir(point)) == ["a.csv", "b.dat", "moved"])
    assert (point / "moved" / "c.csv").stat().st_ino == number


def test_modes_and_times_changed_below_show(source: Path, point: Path) -> None:
    (source / "a.csv").chmod(0o600)
    os.utime(source / "b.dat", ns=(1, 10**18))
    eventually(lambda: (point / "a.csv").stat().st_mode & 0o777 == 0o600)
    eventually(lambda: (point / "b.dat").stat().st_mtime_ns == 10**18)
    (source / "sub").chmod(0o700)
    eventually(lambda: (point / "sub").stat().st_mode & 0o777 == 0o700)


def test_who_stands_in_a_folder_can_stay_there_while_its_files_change(source: Path, point: Path) -> None:
    script = """
        cd "$1" && echo ready
        for turn in 1 2 3 4 5 6 7 8 9 10; do
            read line
            /bin/pwd || exit 1
            cat c.csv || exit 2
            ls > /dev/null || exit 3
        done
    """
    shell = subprocess.Popen(
        ["sh", "-c", script, "sh", point / "sub"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert shell.stdin is not None
    assert shell.stdout is not None
    try:
        assert shell.stdout.readline() == "ready\n"
        for turn in range(10):
            (source / "sub" / "c.csv").write_text(f"{turn}\n")
            (source / "sub" / f"{turn}.csv").write_text("x")
            (source.parent / f"{source.name}-{turn}").touch()
            eventually(lambda turn=turn: (point / "sub" / "c.csv").read_text() == f"{turn}\n")
            shell.stdin.write("\n")
            shell.stdin.flush()
            assert shell.stdout.readline() == f"{point / 'sub'}\n"
            assert shell.stdout.readline() == f"{turn}\n"
        assert shell.wait(10) == 0
    finally:
        shell.kill()
        shell.communicate()


def stands(name: str, directory: int) -> bool:
    """Say whether a name is there, for who has its directory open."""
    try:
        os.stat(name, dir_fd=directory)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):
            raise
        return False
    return True


def test_a_folder_that_is_removed_below_is_gone_for_who_stands_in_it(source: Path, point: Path) -> None:
    descriptor = os.open(point / "sub", os.O_RDONLY | os.O_DIRECTORY)
    try:
        shutil.rmtree(source / "sub")
        eventually(lambda: not (point / "sub").exists())
        eventually(lambda: not stands("c.csv", descriptor))  # the disk was asked for the folder, before it told of that
        (source / "sub").mkdir()
        (source / "sub" / "new").write_bytes(b"new")
        eventually(lambda: (point / "sub" / "new").read_bytes() == b"new")
    finally:
        os.close(descriptor)


# --- several names


def test_a_label_set_by_one_path_shows_at_once_in_views_by_another(mount: Native, folder: str) -> None:
    file, view, label = mount / folder / "a.csv", mount / "by-label", f"l{time.monotonic_ns()}"
    in_view = view / label / folder / "a.csv"
    for _ in range(5):
        assert not in_view.exists()
        os.setxattr(file, "user.octue.labels", label.encode())
        assert in_view.read_bytes() == b"1"
        assert label in os.listdir(view)
        assert os.listdir(view / label / folder) == [".octue", "a.csv"]
        assert in_view.stat().st_ino == file.stat().st_ino
        os.removexattr(file, "user.octue.labels")
        assert not in_view.exists()
        assert label not in os.listdir(view)


def test_a_label_set_in_a_view_shows_at_once_by_the_files_own_path(mount: Native, folder: str) -> None:
    file, label = mount / folder / "a.csv", f"l{time.monotonic_ns()}"
    in_view = mount / "by-ext" / "csv" / folder / "a.csv"
    assert in_view.read_bytes() == b"1"
    os.setxattr(in_view, "user.octue.labels", label.encode())
    assert os.getxattr(file, "user.octue.labels").decode() == label
    assert (mount / "by-label" / label / folder / "a.csv").read_bytes() == b"1"
    os.setxattr(file, "user.octue.labels", b"other")
    assert os.getxattr(in_view, "user.octue.labels") == b"other"
    assert not (mount / "by-label" / label).exists()


def test_what_is_written_by_one_name_is_read_at_once_by_every_other(mount: Native, folder: str) -> None:
    file, in_view = mount / folder / "a.csv", mount / "by-ext" / "csv" / folder / "a.csv"
    linked = mount / folder / "linked.csv"
    linked.hardlink_to(file)
    names = (file, in_view, linked)
    with in_view.open("rb", buffering=0) as open_before:
        for number, writer in enumerate(names * 2):
            data = b"%d" % number * (number + 1) * 1000
            writer.write_bytes(data)
            for name in names:
                assert name.read_bytes() == data
                assert name.stat().st_size == len(data)
                assert os.getxattr(name, "user.octue.hash").decode() == crc32c(data)
            assert os.pread(open_before.fileno(), 100_000, 0) == data
    assert len({name.stat().st_ino for name in names}) == 1


def test_the_count_of_names_is_right_at_once_after_each_is_made_and_removed(mount: Native, folder: str) -> None:
    file = mount / folder / "a.csv"
    assert file.stat().st_nlink == 1
    for number in range(3):
        (mount / folder / f"link-{number}.csv").hardlink_to(file)
        assert file.stat().st_nlink == number + 2
        assert (mount / folder / f"link-{number}.csv").stat().st_nlink == number + 2
    for number in range(3):
        (mount / folder / f"link-{number}.csv").unlink()
        assert file.stat().st_nlink == 3 - number


def test_a_file_removed_in_a_view_of_labels_loses_the_label_and_not_its_name(mount: Native, folder: str) -> None:
    file, label = mount / folder / "a.csv", f"l{time.monotonic_ns()}"
    os.setxattr(file, "user.octue.labels", f"{label} stays".encode())
    in_view = mount / "by-label" / label / folder / "a.csv"
    before = file.stat()
    with in_view.open("rb") as opened:
        in_view.unlink()
        assert not in_view.exists()
        assert file.stat().st_nlink == before.st_nlink
        assert os.fstat(opened.fileno()).st_nlink == before.st_nlink
    assert file.read_bytes() == b"1"
    assert os.getxattr(file, "user.octue.labels") == b"stays"
    assert (mount / "by-label" / "stays" / folder / "a.csv").stat().st_ino == before.st_ino


def test_a_new_file_shows_at_once_in_every_view_and_a_removed_one_in_none(mount: Native, folder: str) -> None:
    extension = f"e{time.monotonic_ns()}"
    view = mount / "by-ext" / extension
    for number in range(5):
        name = f"{number}.{extension}"
        assert not (view / folder / name).exists()
        (mount / folder / name).write_bytes(b"x")
        assert (view / folder / name).read_bytes() == b"x"
        assert os.listdir(view / folder) == [name]
        (mount / folder / name).rename(mount / folder / f"moved-{name}")
        assert os.listdir(view / folder) == [f"moved-{name}"]
        (mount / folder / f"moved-{name}").unlink()
        assert extension not in os.listdir(mount / "by-ext")
