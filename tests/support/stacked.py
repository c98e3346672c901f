"""Mounts that a test makes besides those of octuefs: overlays, disks in memory, a second FUSE. All go with the test."""

import ctypes
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.mounting import environment_for, lazy_unmount, mounts_below, run_folder

_libc = ctypes.CDLL(None, use_errno=True)


def mount_at(point: Path, kind: str, options: str) -> None:
    """Mount a file system of the kernel's.

    :raise OSError: what mount(2) says
    """
    arguments = (kind.encode(), os.fsencode(point), kind.encode(), ctypes.c_ulong(0), options.encode())
    if _libc.mount(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)}: mount -t {kind} -o {options}")


def new_point() -> Path:
    """Return an empty folder to mount at."""
    parent = run_folder() / "mounts"
    parent.mkdir(exist_ok=True)
    return Path(tempfile.mkdtemp(dir=parent))


@contextmanager
def unmounted_after(point: Path) -> Iterator[Path]:
    """Leave nothing mounted at a place."""
    try:
        yield point
    finally:
        for path in mounts_below(point):
            lazy_unmount(path) if "fuse" in _kind(path) else subprocess.run(["umount", "-l", path], check=True)


def _kind(point: Path) -> str:
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return next(line.split(" - ")[1].split()[0] for line in reversed(lines) if line.split()[4] == os.fspath(point))


@contextmanager
def memory_disk() -> Iterator[Path]:
    """Yield a new tmpfs, as an overlay's upper layer must not lie on an overlay itself."""
    point = new_point()
    with unmounted_after(point):
        mount_at(point, "tmpfs", "size=64m")
        yield point


@contextmanager
def overlay(lower: Path, disk: Path) -> Iterator[Path]:
    """Yield an overlay of a folder; what is changed in it goes to `disk`.

    :raise OSError: where the kernel refuses it
    """
    point = new_point()
    upper, work = disk / f"upper-{point.name}", disk / f"work-{point.name}"
    upper.mkdir()
    work.mkdir()
    with unmounted_after(point):
        mount_at(point, "overlay", f"lowerdir={lower},upperdir={upper},workdir={work}")
        yield point


@contextmanager
def second_fuse(folder: Path) -> Iterator[Path]:
    """Yield a mount that shows a folder through libfuse."""
    point = new_point()
    environment = {**environment_for(), "PYTHONPATH": os.fspath(Path(__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-m", "support.loopback", folder, point], env=environment)
    try:
        deadline = time.monotonic() + 20
        while not mounts_below(point):
            assert process.poll() is None, "the second FUSE did not mount"
            assert time.monotonic() < deadline, "the second FUSE does not mount"
            time.sleep(0.02)
        with unmounted_after(point):
            yield point
    finally:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
