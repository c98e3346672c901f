"""Mounts that a test ends and makes again, in order or with `kill -9`, always at one mount point."""

import errno
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from support.mounting import MOUNT, MountFailed, daemons_of, lazy_unmount, mounts_below, run_folder, run_octuefs, sweep

PATIENCE = 10.0
"""Seconds in which something must have happened, on a machine that is busy."""


def wait_until(what: Callable[[], object], seconds: float = PATIENCE, say: str = "it did not happen in time") -> None:
    """Wait until something is true; what is not there (yet), or cannot be read just now, is not."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(OSError):
            if what():
                return
        assert time.monotonic() < deadline, say
        time.sleep(0.01)


class Mount:
    """One mount point and what is mounted on it, as often as a test wants."""

    def __init__(self, source: str | Path, options: tuple[str, ...], environment: Mapping[str, str]) -> None:
        parent = run_folder() / "mounts"
        parent.mkdir(exist_ok=True)
        self.point = Path(tempfile.mkdtemp(dir=parent))
        self.source = source
        self.options = options
        self.environment = {MOUNT: str(self.point), **environment}

    @property
    def is_mounted(self) -> bool:
        return bool(mounts_below(self.point))

    def mount(self, *options: str) -> str:
        """Mount, and return what the command printed."""
        result = run_octuefs("mount", *self.options, *options, self.source, self.point, environment=self.environment)
        if result.returncode != 0 or not self.is_mounted:
            raise MountFailed(f"octuefs mount {self.source} ended with {result.returncode}:\n{result.stderr}")
        return result.stdout

    def command(self, name: str, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run `octuefs NAME MOUNTPOINT ARGUMENTS...`."""
        return run_octuefs(name, self.point, *arguments, environment=self.environment, timeout=timeout)

    def unmount(self, *options: str) -> None:
        """Unmount in order."""
        result = self.command("unmount", *options)
        if result.returncode != 0:
            raise MountFailed(f"octuefs unmount ended with {result.returncode}:\n{result.stdout}{result.stderr}")

    def kill(self, pid: int) -> None:
        """End the daemon as a crash does, and free the mount point."""
        descriptor = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGKILL)
            assert select.select([descriptor], [], [], PATIENCE)[0], "a killed process has not ended"
        finally:
            os.close(descriptor)
        lazy_unmount(self.point)

    def refresh(self) -> None:
        """Have the store read again."""
        (self.point / ".octuefs" / "refresh").write_text("now\n")

    def status(self) -> dict[str, Any]:
        return json.loads((self.point / ".octuefs" / "status").read_text())

    def pid(self) -> int:
        return int(self.status()["pid"])

    def errors(self) -> str:
        return (self.point / ".octuefs" / "errors").read_text()

    def recovered(self) -> dict[str, bytes]:
        """What is kept under `recovered/`, by name."""
        folder = self.point / ".octuefs" / "recovered"
        return {name: (folder / name).read_bytes() for name in os.listdir(folder)}

    def recovered_of(self, name: str) -> list[bytes]:
        """What is kept of a file of this basename."""
        return [data for entry, data in sorted(self.recovered().items()) if entry.startswith(f"{name}.")]

    def recover(self) -> list[dict[str, Any]]:
        """What `octuefs recover --json` lists."""
        result = self.command("recover", "--json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def left(self) -> list[str]:
        """What stands there that should have gone with the mount: mounts and daemons, in words."""
        return [
            *(f"{path} is mounted" for path in mounts_below(self.point)),
            *(f"process {pid} runs" for pid in daemons_of(self.point)),
        ]


@contextmanager
def remountable(
    source: str | Path, *options: str, environment: Mapping[str, str] | None = None, now: bool = True
) -> Iterator[Mount]:
    """Give a mount, made `now` or by the test; at the end it is unmounted if it is there, and nothing may be left."""
    it = Mount(source, options, environment or {})
    failures: list[str] = []
    try:
        if now:
            it.mount()
        yield it
        if it.is_mounted:
            result = it.command("unmount")
            if result.returncode != 0:
                failures.append(f"octuefs unmount ended with {result.returncode}:\n{result.stdout}{result.stderr}")
    finally:
        failures += sweep(it.point, patience=PATIENCE)
        with suppress(OSError):
            it.point.rmdir()
    if failures:
        raise MountFailed(f"mount of {source}: " + "; ".join(failures))


# --- attributes ------------------------------------------------------------------------------------------------------


def get(path: str | Path, name: str) -> str | None:
    """The value of a `user.octue.*` attribute, None where it is not set."""
    try:
        return os.getxattr(path, f"user.octue.{name}").decode()
    except OSError as error:
        if error.errno == errno.ENODATA:
            return None
        raise


def put(path: str | Path, name: str, value: str) -> None:
    os.setxattr(path, f"user.octue.{name}", value.encode())


def labels(path: str | Path) -> set[str]:
    return set((get(path, "labels") or "").split())
