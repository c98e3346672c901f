"""Mounts of the native driver: by each transport that this kernel has, and how often the daemon is asked."""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from octuefs.drivers.kernel.abilities import find_abilities
from support.mounting import mounted

_PARAMETER = Path("/sys/module/fuse/parameters/enable_uring")

IS_ROOT = os.geteuid() == 0
TRANSPORTS = ("off", "on") if IS_ROOT and _PARAMETER.exists() else ("off",)
"""What `--io-uring` may be here; with `on` the mount has it, and the kernel's parameter stays as that leaves it."""

by_each_transport = pytest.mark.parametrize("io_uring", TRANSPORTS)
needs_root = pytest.mark.skipif(not IS_ROOT, reason="takes root")
needs_passthrough = pytest.mark.skipif(
    bool(find_abilities().passthrough), reason=f"no passthrough: {find_abilities().passthrough}"
)

_ASYNCHRONOUS = ("release", "releasedir")
"""What the kernel asks without anybody's waiting for it."""


@dataclass(frozen=True)
class Native:
    """A mount of the native driver."""

    root: Path

    def __truediv__(self, path: str) -> Path:
        return self.root / path

    def status(self) -> dict[str, Any]:
        """What the status says of the driver."""
        answer: dict[str, Any] = json.loads((self.root / ".octuefs" / "status").read_bytes())["kernel"]
        return answer

    @property
    def passed_through(self) -> int:
        count: int = self.status()["files_passed_through"]
        return count

    @contextmanager
    def asked(self) -> Iterator[dict[str, int]]:
        """Fill what is yielded with the requests that came meanwhile, by name; none for what asked for the status.

        What the kernel asks without waiting for the answer is left out.
        """
        self.status()  # what only the first call costs: each open, for the kernel to learn that it need not ask
        first, before = self.status()["requests"], self.status()["requests"]
        own = {name: count - first.get(name, 0) for name, count in before.items()}
        counted: dict[str, int] = {}
        yield counted
        after = self.status()["requests"]
        for name, count in after.items():
            more = count - before.get(name, 0) - own.get(name, 0)
            if more and name not in _ASYNCHRONOUS:
                counted[name] = more


@contextmanager
def native(
    source: str | Path, *options: str, io_uring: str = "auto", environment: Mapping[str, str] | None = None
) -> Iterator[Native]:
    """Mount a source with the native driver."""
    with mounted(source, "--driver", "kernel", "--io-uring", io_uring, *options, environment=environment) as point:
        it = Native(point)
        if io_uring == "on":
            assert it.status()["io_uring"] == "yes"
        yield it


def replace(path: Path, data: bytes) -> None:
    """Let another file stand at a path, at once, as programs do that write beside it first."""
    beside = path.with_name(f"{uuid.uuid4().hex}-{path.name}")
    beside.write_bytes(data)
    beside.replace(path)


def eventually(look: Callable[[], object], seconds: float = 8.0) -> None:
    """Wait until something holds; a name that is not there (yet) is not true."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            answer = look()
        except (FileNotFoundError, NotADirectoryError) as error:
            answer = error
        if answer and not isinstance(answer, OSError):
            return
        assert time.monotonic() < deadline, f"not within {seconds} s; the last answer was {answer!r}"
        time.sleep(0.02)
