"""The commands of the tests are forked from a process that has imported octuefs; they are what those that begin are."""

import errno
import json
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
from mount.datasets import wait_until

from octuefs import __version__
from support import mounting
from support.gcs import Bucket
from support.mounting import daemons_of, lazy_unmount, mounted, mounts_below, run_octuefs


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "dataset"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.csv").write_text("1\n")
    (folder / "sub" / "b.csv").write_text("2\n")
    return folder


def test_they_say_what_a_command_says_that_begins(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dataset)
    commands = [
        ("--version",),
        ("info", "sub"),
        ("hash", dataset),
        ("ls", ".", "--json"),
        ("ls", "nowhere"),
        ("unmount", "sub"),
        ("mount",),
    ]
    forked = [run_octuefs(*command) for command in commands]
    monkeypatch.setattr(mounting, "each_command_begins", True)
    begun = [run_octuefs(*command) for command in commands]
    for one, other in zip(forked, begun, strict=True):
        assert (one.returncode, one.stdout, one.stderr) == (other.returncode, other.stdout, other.stderr), one.args
    assert {done.returncode for done in forked} == {0, 1, 2}
    assert __version__ in forked[0].stdout


def test_they_have_the_umask_and_the_environment_of_who_runs_them(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("data/sub/b.csv", b"2\n")
    before = os.umask(0o027)
    try:
        done = run_octuefs("download", f"{bucket.url}/data", tmp_path / "copy", environment=bucket.environment)
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "copy" / "sub").stat().st_mode & 0o777 == 0o750


def test_one_that_takes_too_long_is_killed(dataset: Path, tmp_path: Path) -> None:
    point = tmp_path / "point"
    point.mkdir()
    for seconds in (3, 10, 30):  # the first that is enough to mount, on a machine that is busy
        with pytest.raises(subprocess.TimeoutExpired):
            run_octuefs("mount", "--foreground", dataset, point, timeout=seconds)
        if mounts_below(point):
            break
    try:
        assert mounts_below(point) == [point]
        wait_until(lambda: _answers_nobody(point))
    finally:
        lazy_unmount(point)


def _answers_nobody(point: Path) -> bool:
    """Whether the kernel knows that the mount's daemon has gone.

    A request that it was just handing over ends as the stage says that was reached (EIO, ECONNABORTED, ECANCELED).
    """
    with pytest.raises(OSError, match=re.escape(str(point))) as failure:
        os.listdir(point)
    return failure.value.errno == errno.ENOTCONN


def test_their_daemons_are_found_by_the_mount_point(dataset: Path) -> None:
    with mounted(dataset) as point:
        status = json.loads((point / ".octuefs" / "status").read_text())
        assert daemons_of(point) == [status["pid"]]
    assert daemons_of(point) == []


def test_their_daemons_are_what_those_are_that_begin(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def facts() -> tuple[object, ...]:
        with mounted(dataset) as point:
            (pid,) = daemons_of(point)
            process = Path(f"/proc/{pid}")
            kinds = {each.name: stat.S_IFMT(each.stat().st_mode) for each in (process / "fd").iterdir()}
            lines = (process / "status").read_text().splitlines()
            signals = [line for line in lines if line.startswith(("SigBlk", "SigIgn", "SigCgt", "Umask"))]
            return kinds, signals, os.readlink(process / "cwd"), os.getsid(pid) == os.getpgid(pid) == pid

    forked = facts()
    monkeypatch.setattr(mounting, "each_command_begins", True)
    assert forked == facts()
