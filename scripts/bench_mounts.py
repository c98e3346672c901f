"""The places where the native driver's benchmark does its work: a source folder, and mounts of it of each kind."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench_tools import PATIENCE, time_client

from support.mounting import MOUNT, OCTUEFS, environment_for, lazy_unmount, mounts_below, sweep

SCRIPTS = Path(__file__).parent
NOBODY = 65534
_MAY_SEARCH = "+dac_read_search"
AS_NOBODY = (
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    *(f"--inh-caps={_MAY_SEARCH}", f"--ambient-caps={_MAY_SEARCH}"),
)
"""A user without rights, but for reaching the interpreter where that lies in somebody's home."""
SWITCH = Path("/sys/module/fuse/parameters/enable_uring")
DEVICE = Path("/dev/fuse")


@dataclass(frozen=True)
class Kind:
    """A way to show the source."""

    name: str
    options: tuple[str, ...] | None
    """Of `octuefs mount`; None for what it does not mount."""
    bare: str = ""
    """The transport of the bare protocol loop."""
    unprivileged: bool = False

    @property
    def prefix(self) -> tuple[str, ...]:
        """What begins the commands of those who use it."""
        return AS_NOBODY if self.unprivileged else ()


SOURCE = Kind("source", None)
URING = Kind("io_uring", ("--driver", "kernel", "--io-uring", "on"))
DEVICE_ALONE = Kind("/dev/fuse", ("--driver", "kernel", "--io-uring", "off"))
FUSEPY = Kind("fusepy", ("--driver", "libfuse"))
USER = Kind("not root", ("--driver", "kernel", "--io-uring", "off"), unprivileged=True)
BARE_URING = Kind("bare, io_uring", None, bare="io_uring")
BARE_DEVICE = Kind("bare, /dev/fuse", None, bare="device")
KINDS = (SOURCE, URING, DEVICE_ALONE, FUSEPY, USER)


class NoMount(Exception):
    """A mount of one kind could not be made."""


@dataclass(frozen=True)
class Place:
    """A folder that clients work in."""

    kind: Kind
    path: Path

    def time(self, work: str, *arguments: object) -> float:
        """Return the seconds that a new client takes for a work of bench_client.py."""
        return time_client(work, *arguments, prefix=self.kind.prefix)

    def says_of_driver(self) -> dict[str, str]:
        """Return what the mount's status says of the native driver."""
        return dict(self._status().get("kernel", {}))

    def daemon_memory(self) -> tuple[float, float]:
        """Return the daemon's resident memory, and its share of it, in MB."""
        text = Path(f"/proc/{self._status()['pid']}/smaps_rollup").read_text()
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines() if line.endswith("kB")}
        return sizes["Rss"] * 1024 / 1e6, sizes["Pss"] * 1024 / 1e6

    def _status(self) -> dict:
        command = [*self.kind.prefix, "cat", str(self.path / ".octuefs/status")]
        return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)


def forget_names() -> None:
    """Let the kernel forget names and attributes that nobody uses; pages stay."""
    Path("/proc/sys/vm/drop_caches").write_text("2")


@contextmanager
def switched_back() -> Iterator[None]:
    """Have FUSE over io_uring, which mounts switch on, as it was before."""
    before = SWITCH.read_text() if SWITCH.exists() else None
    try:
        yield
    finally:
        if before is not None:
            with suppress(OSError):
                SWITCH.write_text(before)


@contextmanager
def shown(kind: Kind, source: Path, *options: str) -> Iterator[Place]:
    """Yield the place where a source is shown in one way; nothing of it is left afterwards.

    :param options: of `octuefs mount`, besides those of the kind
    :raise NoMount: where this system cannot do it
    """
    if kind is SOURCE:
        yield Place(kind, source)
        return
    parent = Path(tempfile.mkdtemp(dir=source.parent, prefix="mount-"))
    parent.chmod(0o755)
    point = parent / "point"
    point.mkdir()
    environment = {**environment_for(), MOUNT: str(point)}
    try:
        if kind.unprivileged:
            _give_away(parent, environment)
        if kind.bare:
            with _bare_loop(kind, source, point, environment):
                yield Place(kind, point)
            return
        _mount(kind, [*(kind.options or ()), *options], source, point, environment)
        place = Place(kind, point)
        if kind is URING and (found := place.says_of_driver()["io_uring"]) != "yes":
            raise NoMount(f"no io_uring: {found}")
        yield place
        subprocess.run(["umount", point], check=False, capture_output=True)
    finally:
        for path in mounts_below(point):
            lazy_unmount(path)
        if faults := sweep(point, patience=20):
            print(f"bench: {kind.name}: {'; '.join(faults)}", file=sys.stderr)
        if not mounts_below(parent):
            shutil.rmtree(parent, ignore_errors=True)


def _mount(kind: Kind, options: Sequence[str], source: Path, point: Path, environment: dict[str, str]) -> None:
    command = [str(OCTUEFS), "mount", *options, str(source), str(point)]
    with tempfile.TemporaryFile("w+") as words, _device_for_all(wanted=kind.unprivileged):
        result = subprocess.run(
            [*kind.prefix, *command],
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            timeout=PATIENCE,
            check=False,
        )
        if result.returncode != 0 or not mounts_below(point):
            words.seek(0)
            raise NoMount(words.read().strip())


def _give_away(parent: Path, environment: dict[str, str]) -> None:
    """Make the folders of a user who is nobody."""
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        folder = parent / name.lower()
        folder.mkdir(mode=0o700)
        environment[name] = str(folder)
    for path in (parent, *parent.iterdir()):
        os.chown(path, NOBODY, NOBODY)


@contextmanager
def _device_for_all(*, wanted: bool) -> Iterator[None]:
    """Let everybody open /dev/fuse for a moment, as most systems do always."""
    mode = stat.S_IMODE(DEVICE.stat().st_mode)
    if not wanted or mode & 0o006 == 0o006:
        yield
        return
    DEVICE.chmod(mode | 0o666)
    try:
        yield
    finally:
        DEVICE.chmod(mode)


@contextmanager
def _bare_loop(kind: Kind, source: Path, point: Path, environment: dict[str, str]) -> Iterator[None]:
    command = [sys.executable, SCRIPTS / "bench_bare.py", source, point, kind.bare]
    if kind is BARE_URING and SWITCH.exists():
        SWITCH.write_text("Y")  # as `octuefs mount --io-uring on` does
    process = subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise NoMount("the bare loop did not come up")
        yield
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
