"""Real mounts, made as a user makes them: by the `octuefs` command of .venv.

All that belongs to one test run stands in one folder, /tmp/octuefs-tests-*: mount points, and the user's cache, state
and runtime folders as octuefs sees them. What a run started carries that folder's name in its environment, so that a
mount or a daemon left behind can be found and ended: at the end of the run, or, where that run was killed, at the
start of the next.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from support.commands import run_command

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = ROOT / ".venv" / "bin" / "octuefs"
OCTUEFS = INSTALLED
"""What is run; a test may put another program here."""
each_command_begins = False
"""Whether every command is a process that begins with it; a test of how they begin says so."""

PREFIX = "octuefs-tests-"
RUN = "OCTUEFS_TESTS_RUN"  # in this process and in all that it starts: the folder of the run
MOUNT = "OCTUEFS_TESTS_MOUNT"  # in a daemon, besides: its mount point

DRIVERS = ("kernel", "libfuse")
"""The drivers that the POSIX suites run over; the first is everybody else's, unless the environment names one."""
DRIVER = "OCTUEFS_DRIVER"

# What the developer's own shell may say must not reach a test; each test says which server it means.
FOREIGN = (
    *("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "TZ"),
    "PYTHONDONTWRITEBYTECODE",  # or each of thousands of processes compiles octuefs anew
)


class MountFailed(Exception):
    """`octuefs mount` or `octuefs unmount` did not do what it should."""


# --- the command -----------------------------------------------------------------------------------------------------


def environment_for(environment: Mapping[str, str] | None = None, zone: str | None = None) -> dict[str, str]:
    """The environment of an octuefs command: the present one, without the user's folders, servers and credentials."""
    run = run_folder()
    result = {DRIVER: DRIVERS[0], **{key: value for key, value in os.environ.items() if key not in FOREIGN}}
    for variable, name in (("XDG_CACHE_HOME", "cache"), ("XDG_STATE_HOME", "state"), ("XDG_RUNTIME_DIR", "runtime")):
        folder = run / "user" / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        result[variable] = str(folder)
    result[RUN] = str(run)
    if zone is not None:
        result["TZ"] = zone
    return {**result, **(environment or {})}


def run_octuefs(
    *arguments: str | Path,
    environment: Mapping[str, str] | None = None,
    zone: str | None = None,
    timeout: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Run `octuefs ARGUMENTS...` to its end; its exit code, output and errors are in the result, nothing is raised.

    All commands of a run share their user folders, so `refresh` and `unmount` find what `mount` left there.
    """
    command = [os.fspath(argument) for argument in (OCTUEFS, *arguments)]
    fresh = each_command_begins or OCTUEFS != INSTALLED
    return run_command(command, environment_for(environment, zone), timeout, fresh=fresh)


@contextlib.contextmanager
def driven_by(driver: str) -> Iterator[None]:
    """Within, this driver is the one of all mounts that are made."""
    before = os.environ.get(DRIVER)
    os.environ[DRIVER] = driver
    try:
        yield
    finally:
        del os.environ[DRIVER]
        if before is not None:
            os.environ[DRIVER] = before


def current_driver() -> str:
    """The driver of mounts that are made now."""
    return os.environ.get(DRIVER, DRIVERS[0])


@contextlib.contextmanager
def mounted(
    source: str | Path,
    *options: str | Path,
    environment: Mapping[str, str] | None = None,
    zone: str | None = None,
    timeout: float = 60,
) -> Iterator[Path]:
    """Mount SOURCE in a new folder, yield the mount point, unmount; nothing of it is left afterwards, or it fails."""
    parent = run_folder() / "mounts"
    parent.mkdir(exist_ok=True)
    mountpoint = Path(tempfile.mkdtemp(dir=parent))
    environment = {MOUNT: str(mountpoint), **(environment or {})}
    failures: list[str] = []
    try:
        result = run_octuefs("mount", *options, source, mountpoint, environment=environment, zone=zone, timeout=timeout)
        if result.returncode != 0 or not mounts_below(mountpoint):
            raise MountFailed(f"octuefs mount {source} ended with {result.returncode}:\n{result.stdout}{result.stderr}")
        yield mountpoint
        # A test may have unmounted on its own; that is not for us to do twice.
        if mounts_below(mountpoint):
            result = run_octuefs("unmount", mountpoint, environment=environment, timeout=timeout)
            if result.returncode != 0:
                failures.append(f"octuefs unmount ended with {result.returncode}:\n{result.stdout}{result.stderr}")
    finally:
        failures += sweep(mountpoint, patience=10)
        with contextlib.suppress(OSError):
            mountpoint.rmdir()
    # Only reached where the body did not raise: its own failure says more.
    if failures:
        raise MountFailed(f"mount of {source}: " + "; ".join(failures))


# --- what may be left behind ---------------------------------------------------------------------------------------


def start_run() -> Path:
    """Make the folder of this test run, and put its mark on all that this process starts from now on."""
    # Anew even where the environment names one: then this run was started by a test of another.
    folder = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
    (folder / "owner").write_text(_identity(os.getpid()))
    os.environ[RUN] = str(folder)
    return folder


def run_folder() -> Path:
    """The folder of this test run."""
    return Path(os.environ[RUN]) if RUN in os.environ else start_run()


def mounts_below(folder: Path) -> list[Path]:
    """What is mounted at or below a folder, the innermost first; nothing is touched, so a hung mount cannot hang us."""
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        escaped = line.split(b" ")[4]
        path = Path(os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), escaped)))
        if path.is_relative_to(folder):
            found.append(path)
    return found[::-1]


def daemons_of(folder: Path) -> list[int]:
    """The processes that a run (its folder) or a mount (its mount point) left in the background."""
    marks = {f"{name}={folder}".encode() for name in (RUN, MOUNT)}
    ours, name = f"{RUN}={run_folder()}".encode(), folder.name[:15].encode()  # those of a daemon that was forked
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in (os.getpid(), os.getppid()):
            continue
        with contextlib.suppress(OSError):
            of_process = set((entry / "environ").read_bytes().split(b"\0"))
            if marks & of_process or (ours in of_process and (entry / "comm").read_bytes().strip() == name):
                state = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
                if state != "Z":
                    found.append(int(entry.name))
    return found


def sweep(folder: Path, patience: float) -> list[str]:
    """End every mount and daemon of a run's folder or of one mount point; what there was to end, in words.

    Daemons whose mount is gone are given `patience` seconds to end by themselves, which is no fault.
    """
    faults = []
    for path in mounts_below(folder):
        faults.append(f"{path} was still mounted")
        lazy_unmount(path)
    if not _gone(folder, patience):
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in daemons_of(folder):
                faults.append(f"process {pid} was still running, and got {number.name}")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            if _gone(folder, 5):
                break
    return faults


def lazy_unmount(path: Path) -> None:
    """Take a mount away from its place at once, whatever its daemon does."""
    tool = shutil.which("fusermount3") or shutil.which("fusermount") or "fusermount3"
    result = subprocess.run([tool, "-uz", path], capture_output=True, text=True, timeout=20, check=False)
    if result.returncode != 0 and path in mounts_below(path):
        raise MountFailed(f"{path} cannot be unmounted ({result.stderr.strip()}); try: umount -l {path}")


def sweep_earlier_runs() -> list[str]:
    """Clean up after runs that were killed: their mounts, daemons and folders."""
    faults = []
    for folder in Path(tempfile.gettempdir()).resolve().glob(f"{PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):
            if folder.stat().st_uid == os.getuid() and not _owner_lives(folder):
                faults += sweep(folder, patience=0)
                remove(folder)
    return faults


def remove(folder: Path) -> None:
    """Remove a run's folder; never through a mount into what is mounted."""
    if not mounts_below(folder):
        shutil.rmtree(folder, ignore_errors=True)


def _identity(pid: int) -> str:
    """A process's number and start time: numbers are used again."""
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return f"{pid} {fields[19]}"


def _owner_lives(folder: Path) -> bool:
    try:
        owner = (folder / "owner").read_text()
    except OSError:
        return time.time() - folder.stat().st_mtime < 60  # made just now, and not signed yet
    with contextlib.suppress(OSError, ValueError):
        return _identity(int(owner.split()[0])) == owner
    return False


def _gone(folder: Path, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while daemons_of(folder):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True
