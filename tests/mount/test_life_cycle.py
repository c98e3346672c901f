"""A mount's life: made, listed by the system, unmounted in every way, and the mount points that cannot be."""

import contextlib
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from octuefs import launch
from octuefs.errors import OctuefsError
from octuefs.mounts import Mount, mount_at
from support import mounting
from support.gcs import Bucket
from support.mounting import environment_for, lazy_unmount, mounted, mounts_below, run_octuefs


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a.csv").write_text("1,2\n")
    return folder


@pytest.fixture(autouse=True)
def _each_command_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """How commands and daemons begin is tested here, too."""
    monkeypatch.setattr(mounting, "each_command_begins", True)


@pytest.fixture
def point(tmp_path: Path) -> Path:
    folder = tmp_path / "point"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """What a test mounted by itself must be gone at its end."""
    yield
    left = mounts_below(tmp_path)
    for path in left:
        lazy_unmount(path)
    assert left == []


def status_of(point: Path) -> dict[str, object]:
    return json.loads((point / ".octuefs" / "status").read_text())


def pid_of(point: Path) -> int:
    pid = status_of(point)["pid"]
    assert isinstance(pid, int)
    return pid


def mount_of(point: Path) -> Mount:
    found = mount_at(str(point))
    assert found is not None
    return found


def wait_until(what: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@contextlib.contextmanager
def process(pid: int) -> Iterator[Callable[[float], bool]]:
    """Give a function that waits for a process's end and says whether it came."""
    descriptor = os.pidfd_open(pid)
    try:
        yield lambda seconds: bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def refusal(result: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that a command gave up with."""
    assert (result.returncode, result.stdout) == (1, ""), result.stdout + result.stderr
    (line,) = result.stderr.splitlines()
    return line.removeprefix("octuefs: ")


# --- mounting


def test_the_command_returns_when_the_mount_answers_and_says_what_was_mounted(source: Path, point: Path) -> None:
    result = run_octuefs("mount", source, point)
    try:
        assert (result.returncode, result.stderr) == (0, "")
        assert (point / "a.csv").read_text() == "1,2\n"
        lines = result.stdout.splitlines()
        assert lines[0].startswith(f"{source} is mounted on {point}")
        assert lines[1] == "  1 file, 4 bytes, 0 labels"
        assert lines[2] == "Try:"
        # What it says to try must work.
        for command in lines[3:]:
            assert subprocess.run(command, shell=True, capture_output=True, check=False).returncode == 0, command
        assert len(lines) == 6
    finally:
        assert run_octuefs("unmount", point).returncode == 0


def test_the_daemon_keeps_nothing_of_the_command_that_started_it(source: Path) -> None:
    with mounted(source) as point:
        pid = pid_of(point)
        proc = Path(f"/proc/{pid}")
        assert os.getsid(pid) == pid
        terminal = (proc / "stat").read_text().rpartition(")")[2].split()[4]
        assert terminal == "0"
        assert os.readlink(proc / "cwd") == "/"
        assert [os.readlink(proc / "fd" / number) for number in "01"] == ["/dev/null", "/dev/null"]
        log = os.readlink(proc / "fd" / "2")
        assert log.startswith(str(mounting.run_folder() / "user" / "state" / "octuefs" / "log"))
        parent = int((proc / "stat").read_text().rpartition(")")[2].split()[1])
        assert b"octuefs" not in Path(f"/proc/{parent}/cmdline").read_bytes()


def test_a_pipe_to_the_command_ends_with_the_command(source: Path, point: Path) -> None:
    # Were the pipe's end still open in the daemon, reading to the end would wait for ever.
    done = subprocess.run(
        [mounting.OCTUEFS, "mount", source, point],
        env=environment_for(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"is mounted" in done.stdout
    assert run_octuefs("unmount", point).returncode == 0


def test_the_daemon_survives_the_terminal_session_that_started_it(source: Path, point: Path) -> None:
    shell = subprocess.run(
        ["sh", "-c", f"{mounting.OCTUEFS} mount {source} {point} && kill -HUP 0"],
        env=environment_for(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        timeout=30,
        check=False,
    )
    assert shell.returncode == -signal.SIGHUP
    assert (point / "a.csv").read_text() == "1,2\n"
    assert run_octuefs("unmount", point).returncode == 0


def test_the_system_lists_the_mount_with_its_type_source_and_safe_options(source: Path) -> None:
    with mounted(source) as point:
        mount = mount_of(point)
        assert (mount.file_system, mount.source) == ("fuse.octuefs", str(source))
        options = mount.options.split(",")
        assert {"rw", "nosuid", "nodev"} <= set(options)
        lines = [
            line
            for line in Path("/proc/mounts").read_text(errors="surrogateescape").splitlines()
            if line.split()[1] == str(point)
        ]
        (line,) = lines
        superblock = line.split()[3].split(",")
        assert "default_permissions" in superblock
        assert "allow_other" not in superblock
        assert f"user_id={os.getuid()}" in superblock


def test_read_only_is_an_option_of_the_mount(source: Path) -> None:
    with mounted(source, "--read-only") as point:
        assert "ro" in mount_of(point).options.split(",")
        with pytest.raises(OSError, match="Read-only"):
            (point / "new").write_text("x")
        assert status_of(point)["read_only"] is True


def test_the_daemons_arguments_hold_no_config(source: Path) -> None:
    with mounted(source) as point:
        arguments = Path(f"/proc/{pid_of(point)}/cmdline").read_bytes().split(b"\0")
        assert arguments[1:4] == [b"-P", b"-m", b"octuefs.daemon"]
        assert not any(os.fsencode(source) in argument for argument in arguments)


def test_modules_that_lie_in_the_dataset_are_not_run(
    source: Path, point: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("fuse", "stat", "json", "octuefs"):
        (source / f"{name}.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    monkeypatch.chdir(source)
    assert run_octuefs("mount", ".", point).returncode == 0
    assert status_of(point)["source"] == str(source)
    assert run_octuefs("unmount", point).returncode == 0
    assert not (tmp_path / "run").exists()


def test_the_daemon_may_open_as_many_files_as_the_system_allows(source: Path, point: Path) -> None:
    command = f"ulimit -Sn 64 && exec {mounting.OCTUEFS} mount {source} {point}"
    subprocess.run(["sh", "-c", command], env=environment_for(), stdout=subprocess.DEVNULL, timeout=30, check=True)
    limits = Path(f"/proc/{pid_of(point)}/limits").read_text().splitlines()
    (soft, hard) = next(line.split()[3:5] for line in limits if line.startswith("Max open files"))
    assert soft == hard
    assert run_octuefs("unmount", point).returncode == 0


def test_a_name_that_is_not_utf_8_is_told_to_the_strictest_terminal(tmp_path: Path, point: Path) -> None:
    source = tmp_path / os.fsdecode(b"a\xff")
    source.mkdir()
    result = run_octuefs("mount", source, point, environment={"PYTHONIOENCODING": "utf-8:strict"})
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{tmp_path}/a\\xff is mounted on {point}")
    assert run_octuefs("unmount", point).returncode == 0


def test_a_folder_for_state_that_cannot_be_used_is_named(source: Path, point: Path) -> None:
    environment = {"XDG_STATE_HOME": "/dev/null"}
    for option in ("--views", "--foreground"):
        line = refusal(run_octuefs("mount", option, source, point, environment=environment))
        assert line.startswith("/dev/null/octuefs/")
        assert "XDG_STATE_HOME" in line
    assert run_octuefs("mount", source, point).returncode == 0
    assert "XDG_STATE_HOME" in refusal(run_octuefs("refresh", point, environment=environment))
    # Unmounting needs none.
    with process(pid_of(point)) as ended:
        assert run_octuefs("unmount", point, environment=environment).returncode == 0
        assert ended(10)


def test_folders_that_only_save_time_are_not_needed(source: Path) -> None:
    with mounted(source, environment={"XDG_CACHE_HOME": "/dev/null", "XDG_RUNTIME_DIR": "/dev/null"}) as point:
        assert (point / ".hash").read_text()


def test_a_long_path_of_the_state_is_no_obstacle(source: Path, tmp_path: Path) -> None:
    environment = {"XDG_STATE_HOME": str(tmp_path / ("x" * 120)), "TMPDIR": tempfile.mkdtemp(prefix="octuefs-t-")}
    try:
        with mounted(source, environment=environment) as point:
            assert run_octuefs("refresh", point, environment=environment).returncode == 0
    finally:
        shutil.rmtree(environment["TMPDIR"])


def test_what_octuefs_keeps_for_itself_is_private(source: Path) -> None:
    with mounted(source) as point:
        (point / ".hash").read_text()
        user = mounting.run_folder() / "user"
        folders = {
            "cache": user / "cache" / "octuefs",
            "state": user / "state" / "octuefs",
            "log": user / "state" / "octuefs" / "log",
            "sockets": user / "state" / "octuefs" / "run",
        }
        assert {name: stat.S_IMODE(folder.stat().st_mode) for name, folder in folders.items()} == dict.fromkeys(
            folders, 0o700
        )
        log = Path(os.readlink(f"/proc/{pid_of(point)}/fd/2"))
        assert log.parent == folders["log"]
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
        wait_until(lambda: f"mounted {source} on {point}" in log.read_text())
        assert stat.S_IMODE((folders["cache"] / "hashes.sqlite").stat().st_mode) == 0o600
        for path in folders["sockets"].iterdir():
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or stat.S_ISSOCK(path.stat().st_mode)


def test_the_log_tells_more_where_asked(source: Path) -> None:
    with mounted(source, "--log-level", "error") as point:
        log = Path(os.readlink(f"/proc/{pid_of(point)}/fd/2"))
        assert log.read_text() == ""


def test_an_empty_folder_is_mounted_and_said_to_be_empty(tmp_path: Path, point: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run_octuefs("mount", tmp_path / "empty", point)
    assert result.returncode == 0
    assert "there are no files in it (yet)" in result.stdout
    assert os.listdir(point) == []
    assert run_octuefs("unmount", point).returncode == 0


def test_an_empty_prefix_is_mounted_and_said_to_be_empty(bucket: Bucket, point: Path) -> None:
    result = run_octuefs("mount", f"{bucket.url}/no/such/prefix", point, environment=bucket.environment)
    assert result.returncode == 0, result.stderr
    assert "there are no files in it (yet)" in result.stdout
    assert os.listdir(point) == []
    assert run_octuefs("unmount", point).returncode == 0


def test_a_cloud_mount_names_its_source_and_no_secret(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("d/a.csv", b"1")
    key = tmp_path / "key.json"
    key.write_text(
        json.dumps({"type": "authorized_user", "client_id": "c", "client_secret": "s3cret", "refresh_token": "t"})
    )
    environment = {**bucket.environment, "GOOGLE_APPLICATION_CREDENTIALS": str(key)}
    with mounted(f"{bucket.url}/d", "--log-level", "debug", environment=environment) as point:
        assert mount_of(point).source == f"{bucket.url}/d"
        arguments = Path(f"/proc/{pid_of(point)}/cmdline").read_text()
        log = Path(os.readlink(f"/proc/{pid_of(point)}/fd/2")).read_text()
        shown = arguments + log + (point / ".octuefs/status").read_text()
        assert "s3cret" not in shown


@pytest.mark.parametrize(
    "name", ["with space", "naïve-名前\nline 100%#?*'\"", "comma,ro", "back\\slash,suid=1\\,allow_other"]
)
def test_sources_and_mount_points_of_any_name_work(name: str, tmp_path: Path) -> None:
    source, point = tmp_path / f"source {name}", tmp_path / f"point {name}"
    source.mkdir()
    point.mkdir()
    (source / "a.csv").write_text("1")
    result = run_octuefs("mount", source, point)
    assert result.returncode == 0, result.stderr
    try:
        assert (point / "a.csv").read_text() == "1"
        mount = mount_of(point)
        assert (mount.source, mount.file_system) == (str(source), "fuse.octuefs")
        assert {"rw", "nosuid"} <= set(mount.options.split(","))
        lines = [
            line.split()
            for line in Path("/proc/mounts").read_text(errors="surrogateescape").splitlines()
            if "fuse.octuefs" in line
        ]
        assert all("allow_other" not in fields[3].split(",") for fields in lines if fields[0].startswith(str(tmp_path)))
        assert status_of(point)["source"] == str(source)
        assert run_octuefs("refresh", point).returncode == 0
    finally:
        assert run_octuefs("unmount", point).returncode == 0
    assert mount_at(str(point)) is None


def test_relative_paths_and_links_to_a_mount_point_work(source: Path, point: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(point)
    folder = os.getcwd()
    os.chdir(tmp_path)
    try:
        assert run_octuefs("mount", "source", "link").returncode == 0
        assert (point / "a.csv").read_text() == "1,2\n"
        assert run_octuefs("refresh", "point").returncode == 0
        assert run_octuefs("refresh", "link").returncode == 0
        assert run_octuefs("unmount", "link").returncode == 0
    finally:
        os.chdir(folder)


def test_one_source_can_be_mounted_twice(source: Path) -> None:
    with mounted(source) as first, mounted(source, "--read-only") as second:
        assert pid_of(first) != pid_of(second)
        assert (first / ".hash").read_text() == (second / ".hash").read_text()
        (source / "new.csv").write_text("x")
        wait_until(lambda: (first / "new.csv").exists() and (second / "new.csv").exists())


def test_mounting_again_right_after_unmounting_works(source: Path, point: Path) -> None:
    for _ in range(2):
        assert run_octuefs("mount", source, point).returncode == 0
        assert (point / "a.csv").read_text() == "1,2\n"
        assert run_octuefs("unmount", point).returncode == 0


# --- unmounting


def test_unmount_returns_when_the_daemon_has_ended(source: Path, point: Path) -> None:
    sockets = mounting.run_folder() / "user" / "state" / "octuefs" / "run"
    of_others = set(sockets.iterdir()) if sockets.exists() else set()
    assert run_octuefs("mount", source, point).returncode == 0
    assert len(set(sockets.iterdir()) - of_others) == 1
    with process(pid_of(point)) as ended:
        result = run_octuefs("unmount", point)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        assert ended(0)
    assert mount_at(str(point)) is None
    assert set(sockets.iterdir()) == of_others


def test_a_plain_fusermount_ends_the_daemon_too(source: Path, point: Path) -> None:
    assert run_octuefs("mount", source, point).returncode == 0
    with process(pid_of(point)) as ended:
        subprocess.run(["fusermount3", "-u", point], check=True)
        assert ended(10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_daemon_unmounts(number: signal.Signals, source: Path, point: Path) -> None:
    assert run_octuefs("mount", source, point).returncode == 0
    pid = pid_of(point)
    with process(pid) as ended:
        os.kill(pid, number)
        assert ended(10)
    assert mount_at(str(point)) is None
    assert os.listdir(point) == []


def test_a_mount_in_use_is_not_unmounted_and_the_way_out_is_told(source: Path, point: Path) -> None:
    assert run_octuefs("mount", source, point).returncode == 0
    with (point / "a.csv").open() as used:
        line = refusal(run_octuefs("unmount", point))
        assert line.startswith(f"{point} is in use;")
        assert f"octuefs unmount --lazy {point}" in line
        assert used.read() == "1,2\n"
    assert run_octuefs("unmount", point).returncode == 0


def test_a_lazy_unmount_leaves_open_files_readable_and_the_daemon_ends_with_them(source: Path, point: Path) -> None:
    (source / "big").write_bytes(bytes(4 << 20))
    assert run_octuefs("mount", source, point).returncode == 0
    with process(pid_of(point)) as ended:
        with (point / "big").open("rb") as used:
            assert run_octuefs("unmount", "--lazy", point).returncode == 0
            assert mount_at(str(point)) is None
            assert os.listdir(point) == []
            assert len(used.read()) == 4 << 20
            assert not ended(0)
        assert ended(10)


def test_the_end_of_a_lazy_unmount_leaves_the_next_mount_its_socket(source: Path, point: Path) -> None:
    assert run_octuefs("mount", source, point).returncode == 0
    with process(pid_of(point)) as ended:
        with (point / "a.csv").open():
            assert run_octuefs("unmount", "--lazy", point).returncode == 0
            assert run_octuefs("mount", source, point).returncode == 0
        assert ended(10)
    assert run_octuefs("refresh", point).returncode == 0
    assert run_octuefs("unmount", point).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_a_signal_unmounts_and_ends_with_0(
    number: signal.Signals, source: Path, point: Path, tmp_path: Path
) -> None:
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        command = subprocess.Popen(
            [mounting.OCTUEFS, "mount", "--foreground", source, point],
            env=environment_for(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
        try:
            wait_until(lambda: command.poll() is not None or "Ctrl-C" in (tmp_path / "out").read_text(), 30)
            assert (point / "a.csv").read_text() == "1,2\n"
            assert pid_of(point) == command.pid
            command.send_signal(number)
            assert command.wait(timeout=10) == 0
        finally:
            if command.poll() is None:
                command.kill()
                command.wait()
    assert mount_at(str(point)) is None
    assert "Traceback" not in (tmp_path / "err").read_text()
    assert f"unmounted {point}" in (tmp_path / "err").read_text()


def test_ctrl_c_while_mounting_leaves_nothing(bucket: Bucket, point: Path) -> None:
    import socket

    # A server that takes the connection and never answers.
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        environment = {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        command = subprocess.Popen(
            [mounting.OCTUEFS, "mount", "gs://some-bucket/x", point],
            env=environment_for(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        silent.settimeout(30)
        connection, _ = silent.accept()
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=20)
        connection.close()
    assert (command.returncode, out) == (1, "")
    assert err == "octuefs: interrupted\n"
    assert mount_at(str(point)) is None
    wait_until(lambda: not daemons_with(point))


def daemons_with(point: Path) -> list[int]:
    """Return our daemons that have a log for this mount point open."""
    found = []
    for pid in mounting.daemons_of(mounting.run_folder()):
        with contextlib.suppress(OSError):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                if os.readlink(descriptor).endswith(".log") and point.name in os.readlink(descriptor):
                    found.append(pid)
    return found


# --- mount points that cannot be


def test_a_missing_mount_point_comes_with_the_command_that_makes_it(source: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert (
        refusal(run_octuefs("mount", source, missing)) == f"no such folder: {missing}; make it with: mkdir -p {missing}"
    )


def test_a_mount_point_with_something_in_it_is_refused(source: Path, point: Path) -> None:
    (point / "x").touch()
    assert refusal(run_octuefs("mount", source, point)) == f"{point} is not empty; choose an empty folder"


def test_a_file_is_no_mount_point(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert (
        refusal(run_octuefs("mount", source, tmp_path / "file"))
        == f"{tmp_path}/file is no folder; give an empty folder"
    )


def test_the_source_itself_and_what_lies_in_it_are_no_mount_points(source: Path) -> None:
    (source / "inner").mkdir()
    for point in (source, source / "inner"):
        line = refusal(run_octuefs("mount", source, point))
        assert line == f"the mount point {point} lies in the source {source}; choose one outside of it"


def test_a_mount_point_of_ours_is_busy_and_the_command_that_frees_it_is_told(source: Path) -> None:
    with mounted(source) as point:
        line = refusal(run_octuefs("mount", source, point))
        assert line == f"{point} is busy: {source} is mounted there; octuefs unmount {point}"
        # Nor is the mount that stands there harmed.
        assert (point / "a.csv").read_text() == "1,2\n"
        assert run_octuefs("refresh", point).returncode == 0


def test_a_source_in_a_mount_of_ours_is_refused_and_its_own_source_named(source: Path, point: Path) -> None:
    (source / "sub").mkdir()
    with mounted(source) as first:
        for inner in (first, first / "sub", first / "by-ext" / "csv"):
            line = refusal(run_octuefs("mount", inner, point))
            assert line == f"{inner} lies in an octuefs mount ({first}); mount its source, {source}, instead"


def test_a_dead_mount_is_recognised_everywhere_and_the_command_that_frees_it_works(source: Path, point: Path) -> None:
    assert run_octuefs("mount", source, point).returncode == 0
    pid = pid_of(point)
    mending = f"fusermount3 -uz {point}"
    try:
        with process(pid) as ended:
            os.kill(pid, signal.SIGKILL)
            assert ended(10)
        line = refusal(run_octuefs("mount", source, point))
        assert line.startswith(f"{point} holds a dead mount (its daemon is gone); free it with: ")
        mending = line.partition("free it with: ")[2]
        assert f"{point} holds a dead mount" in run_octuefs("doctor", environment={"NO_GCE_CHECK": "true"}).stdout
        assert refusal(run_octuefs("refresh", point)).startswith(f"{point} holds a dead mount")
    finally:
        if mount_at(str(point)) is not None:
            subprocess.run(mending, shell=True, check=True)
    assert mount_at(str(point)) is None
    # What the dead daemon left (its socket) is in nobody's way.
    assert run_octuefs("mount", source, point).returncode == 0
    assert run_octuefs("refresh", point).returncode == 0
    assert run_octuefs("unmount", point).returncode == 0


def test_unmount_frees_a_dead_mount(source: Path, point: Path) -> None:
    assert run_octuefs("mount", source, point).returncode == 0
    pid = pid_of(point)
    with process(pid) as ended:
        os.kill(pid, signal.SIGKILL)
        assert ended(10)
    result = run_octuefs("unmount", point)
    assert (result.returncode, result.stderr) == (0, "")
    assert mount_at(str(point)) is None


def test_unmount_of_a_path_inside_a_mount_is_refused(source: Path) -> None:
    (source / "sub").mkdir()
    with mounted(source) as point:
        assert refusal(run_octuefs("unmount", point / "sub")) == f"{point}/sub is not an octuefs mount point"
        assert mount_at(str(point)) is not None


def test_a_mount_that_fails_in_the_daemon_says_why_and_leaves_nothing(source: Path, point: Path) -> None:
    # A mount namespace in which /dev/fuse is no device.
    result = subprocess.run(
        [
            "unshare",
            "-m",
            "sh",
            "-c",
            f"mount --bind /dev/null /dev/fuse && exec {mounting.OCTUEFS} mount {source} {point}",
        ],
        env=environment_for(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    line = refusal(result)
    assert line.startswith(f"could not mount on {point}: /dev/fuse is no FUSE device")
    assert os.listdir(point) == []


def test_a_mount_that_does_not_answer_is_said_to(tmp_path: Path) -> None:
    with pytest.raises(OctuefsError, match="was mounted, but does not answer: No such file"):
        launch._wait_for_mount(str(tmp_path / "gone"))
