"""The native driver in a stack of file systems: over an overlay, under one, at a place in one, under a second FUSE."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount.datasets import crc32c
from mount.kernel_mounts import Native, by_each_transport, eventually, native, needs_root

from support.mounting import mounts_below, run_octuefs
from support.stacked import memory_disk, overlay, second_fuse, unmounted_after

pytestmark = needs_root

DATA = bytes(range(256)) * 1000


@pytest.fixture
def disk() -> Iterator[Path]:
    with memory_disk() as it:
        yield it


@pytest.fixture
def source(disk: Path) -> Path:
    folder = disk / "dataset"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.bin").write_bytes(DATA)
    (folder / "sub" / "b.bin").write_bytes(DATA[::-1])
    return folder


def works(point: Path) -> None:
    """Read, write, append, move and remove files."""
    assert (point / "a.bin").read_bytes() == DATA
    with (point / "a.bin").open("r+b", buffering=0) as file, (point / "a.bin").open("rb", buffering=0) as reader:
        file.write(b"written")
        assert reader.read(10) == b"written" + DATA[7:10]
    with (point / "sub" / "b.bin").open("ab") as file:
        file.write(b"at the end")
    assert (point / "sub" / "b.bin").read_bytes() == DATA[::-1] + b"at the end"
    (point / "new.bin").write_bytes(DATA)
    (point / "new.bin").rename(point / "sub" / "moved.bin")
    assert (point / "sub" / "moved.bin").read_bytes() == DATA
    assert sorted(os.listdir(point / "sub")) == ["b.bin", "moved.bin"]
    (point / "sub" / "moved.bin").unlink()
    assert (point / "a.bin").read_bytes() == b"written" + DATA[7:]


@by_each_transport
def test_a_source_on_an_overlay_works_and_says_whether_files_are_passed_through(
    source: Path, disk: Path, io_uring: str
) -> None:
    with overlay(source, disk) as merged, native(merged, io_uring=io_uring) as mount:
        works(mount.root)
        assert os.getxattr(mount / "a.bin", "user.octue.hash").decode() == crc32c(b"written" + DATA[7:])
        with (mount / "a.bin").open("rb") as file:
            assert file.read() == b"written" + DATA[7:]
            said = mount.status()["passthrough"]
            assert mount.passed_through == (said == "yes")
            assert said == "yes" or said.startswith("no: ")
        assert (merged / "a.bin").read_bytes() == b"written" + DATA[7:]
        assert (source / "a.bin").read_bytes() == DATA


def test_a_file_that_the_overlay_copies_up_while_it_is_read_is_read_to_its_end(source: Path, disk: Path) -> None:
    """The overlay has another file below for who opens it after it was written to: one that is open stays."""
    with overlay(source, disk) as merged, native(merged) as mount, (mount / "a.bin").open("rb", buffering=0) as reader:
        assert reader.read(10) == DATA[:10]
        (merged / "a.bin").write_bytes(b"new")
        eventually(lambda: (mount / "a.bin").read_bytes() == b"new")
        assert len(os.pread(reader.fileno(), len(DATA), 0)) in (3, len(DATA))


def test_an_overlay_over_a_mount_is_refused_or_works(source: Path, disk: Path) -> None:
    with native(source) as mount:
        try:
            with overlay(mount.root, disk) as merged:
                works(merged)
                assert (source / "a.bin").read_bytes() == DATA
        except OSError as error:
            # Where files may be passed through to such on an overlay, none may lie over the mount.
            if error.errno != errno.EINVAL or mount.status()["passthrough"] != "yes":
                raise
    with native(source, "--read-only", "--opens", "kernel") as mount, overlay(mount.root, disk) as merged:
        assert mount.status()["passthrough"].startswith("no: ")
        works(merged)
        assert (source / "a.bin").read_bytes() == DATA


def test_a_mount_point_in_an_overlay_works(source: Path, disk: Path) -> None:
    (disk / "below" / "point").mkdir(parents=True)
    with overlay(disk / "below", disk) as merged, unmounted_after(merged / "point"):
        result = run_octuefs("mount", "--driver", "kernel", source, merged / "point")
        assert result.returncode == 0, result.stderr
        works(merged / "point")
        assert run_octuefs("unmount", merged / "point").returncode == 0
        assert mounts_below(merged / "point") == []


@by_each_transport
def test_a_second_fuse_on_the_mount_reads_and_writes_through(source: Path, io_uring: str) -> None:
    with native(source, io_uring=io_uring) as mount, second_fuse(mount.root) as second:
        works(second)
        assert (mount / "a.bin").read_bytes() == b"written" + DATA[7:]
        assert os.getxattr(second / "a.bin", "user.octue.hash").decode() == crc32c(b"written" + DATA[7:])
        assert sorted(os.listdir(second / "by-ext" / "bin")) == sorted(os.listdir(mount / "by-ext" / "bin"))


def test_a_mount_of_a_mount_reads_and_writes_through(source: Path) -> None:
    with second_fuse(source) as first, native(first) as mount:
        works(mount.root)
        assert (source / "a.bin").read_bytes() == b"written" + DATA[7:]


def test_a_mount_point_below_a_second_fuse_works(source: Path, disk: Path) -> None:
    (disk / "place" / "point").mkdir(parents=True)
    with second_fuse(disk / "place") as second, unmounted_after(second / "point"):
        result = run_octuefs("mount", "--driver", "kernel", source, second / "point")
        assert result.returncode == 0, result.stderr
        works(second / "point")
        assert Native(second / "point").status()["nodes"] > 0
        assert run_octuefs("unmount", second / "point").returncode == 0
