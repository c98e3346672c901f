"""Who waits for a bucket that does not answer holds up nobody else, and need not wait."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mount.kernel_mounts import Native, by_each_transport, eventually, native

from support.gcs import Bucket
from support.mounting import daemons_of, lazy_unmount, mounts_below
from support.strict_gcs import StrictGcs

STALLED = 64
DEAD = {errno.ENOTCONN, errno.ECONNABORTED, errno.ECANCELED, errno.EIO}
"""What a program may get whose daemon has died: with io_uring the kernel says ECANCELED, too."""

READ_ALL = """
import os, sys, threading
os.sched_setaffinity(0, {int(sys.argv[1])})
def read(path):
    os.read(os.open(path, os.O_RDONLY), 100)
threads = [threading.Thread(target=read, args=(path,), daemon=True) for path in sys.argv[2:]]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@pytest.fixture
def stored(strict_bucket: Bucket) -> Bucket:
    for number in range(STALLED):
        strict_bucket.put(f"d/{number:02}.bin", bytes(1000))
    return strict_bucket


@contextmanager
def ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Nothing of a process is left afterwards."""
    try:
        yield
    finally:
        process.kill()
        process.wait(20)


@by_each_transport
def test_many_reads_that_hang_do_not_delay_others_on_the_same_core(
    stored: Bucket, strict_gcs: StrictGcs, io_uring: str
) -> None:
    core = min(os.sched_getaffinity(0))
    with native(f"{stored.url}/d", io_uring=io_uring, environment=stored.environment) as mount:
        names = os.listdir(mount.root)
        strict_gcs.hold(lambda request: request.kind == "media", times=None)
        files = [str(mount / f"{number:02}.bin") for number in range(STALLED)]
        reader = subprocess.Popen([sys.executable, "-c", READ_ALL, str(core), *files])
        with ended(reader):
            eventually(lambda: mount.status()["requests"].get("read", 0) >= STALLED, 20)
            look = (
                "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); point = sys.argv[2]; "
                "print(os.stat(point + '/by-ext/bin/05.bin').st_size, len(os.listdir(point)), "
                "len(os.getxattr(point + '/06.bin', 'user.octue.hash')), os.path.exists(point + '/missing'))"
            )
            answer = subprocess.run(
                [sys.executable, "-c", look, str(core), mount.root], capture_output=True, text=True, timeout=15
            )
            assert answer.stdout.split() == ["1000", str(len(names)), "8", "False"], answer.stderr
            strict_gcs.clear()
            assert reader.wait(30) == 0


@by_each_transport
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_program_that_waits_for_a_read_can_be_ended(
    stored: Bucket, strict_gcs: StrictGcs, io_uring: str, number: signal.Signals
) -> None:
    with native(f"{stored.url}/d", io_uring=io_uring, environment=stored.environment) as mount:
        held = strict_gcs.hold(lambda request: request.kind == "media", times=None)
        process = subprocess.Popen(["cat", mount / "07.bin"])
        with ended(process):
            assert held.arrived.wait(20)
            time.sleep(0.2)  # a signal that comes before read(2) waits proves nothing
            process.send_signal(number)
            assert process.wait(10) == -number
        strict_gcs.clear()
        assert (mount / "07.bin").read_bytes() == bytes(1000)


@by_each_transport
def test_a_daemon_that_is_killed_in_the_midst_of_requests_leaves_nobody_waiting(
    stored: Bucket, strict_gcs: StrictGcs, io_uring: str
) -> None:
    with native(f"{stored.url}/d", io_uring=io_uring, environment=stored.environment) as mount:
        os.listdir(mount.root)
        held = strict_gcs.hold(lambda request: request.kind == "media", times=None)
        failures: list[int | None] = []
        threads = [
            threading.Thread(target=failing, args=(mount / f"{number:02}.bin", failures), daemon=True)
            for number in range(8)
        ]
        for thread in threads:
            thread.start()
        assert held.arrived.wait(20)
        kill_daemon(mount)
        assert_all_heard_of_it(threads, failures)
        assert_dead_and_removable(mount.root)


@by_each_transport
def test_a_daemon_that_is_killed_while_files_come_and_go_leaves_nobody_waiting(tmp_path: Path, io_uring: str) -> None:
    source = tmp_path / "dataset"
    source.mkdir()
    with native(source, io_uring=io_uring) as mount:
        failures: list[int | None] = []
        threads = [
            threading.Thread(target=working, args=(mount.root, source, number, failures), daemon=True)
            for number in range(6)
        ]
        for thread in threads:
            thread.start()
        time.sleep(1)
        assert failures == []
        kill_daemon(mount)
        assert_all_heard_of_it(threads, failures)
        assert_dead_and_removable(mount.root)


def kill_daemon(mount: Native) -> None:
    (daemon,) = daemons_of(mount.root)
    os.kill(daemon, signal.SIGKILL)


def assert_all_heard_of_it(threads: list[threading.Thread], failures: list[int | None]) -> None:
    """See that nobody waits any more, and that each was told that the daemon is gone."""
    for thread in threads:
        thread.join(20)
    assert len(failures) == len(threads)
    assert set(failures) <= DEAD


def failing(path: Path, failures: list[int | None]) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        failures.append(error.errno)


def working(point: Path, source: Path, number: int, failures: list[int | None]) -> None:
    """Make, move, list and remove files, in the mount and below it, until that fails."""
    turn = 0
    try:
        while True:
            turn += 1
            path = point / f"{number}-{turn}"
            path.write_bytes(b"x" * 1000)
            path.rename(point / f"{number}-moved")
            (source / f"{number}-source").write_bytes(b"y" * turn)
            os.listdir(point / "by-ext")
            (point / f"{number}-moved").unlink()
    except OSError as error:
        failures.append(error.errno)


def assert_dead_and_removable(point: Path) -> None:
    with pytest.raises(OSError, match=r"not connected|abort|canceled"):  # the last over io_uring
        os.listdir(point)
    lazy_unmount(point)
    assert mounts_below(point) == []
