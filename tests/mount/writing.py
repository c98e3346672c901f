"""Datasets to write in: one mount for a whole module, a folder of its own for each test, and a look into the store.

The store is looked at behind the mount's back: a local source as a folder, a cloud source by plain requests to
fake-gcs-server itself, while the mount is served by the strict front, whose requests are counted.
"""

import base64
import contextlib
import ctypes
import itertools
import json
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import google_crc32c
import pytest
from mount.conftest import SourceMaker
from mount.trees import CloudSource, LocalSource, Source, walk

from support.gcs import Bucket, GcsServer
from support.mounting import environment_for, mounted
from support.strict_gcs import Request, StrictGcs

T = TypeVar("T")
Server = Callable[[], GcsServer]

TEMPORARY = re.compile(r"\.octuefs-[0-9a-f]{32}\.octue|\.fuse_hidden")
PATIENCE = 15.0

_numbers = itertools.count(1)


# --- places ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Workplace:
    """A dataset that is mounted for writing."""

    root: Path
    source: Source
    gcs: StrictGcs | None

    @property
    def in_cloud(self) -> bool:
        return self.source.kind == "cloud"

    @property
    def environment(self) -> Mapping[str, str]:
        """What a program needs to find the source, through the strict front."""
        return self.gcs.environment if self.gcs is not None else {}

    @property
    def requests(self) -> StrictGcs:
        """What the mount asks of the bucket."""
        assert self.gcs is not None
        return self.gcs

    @property
    def bucket(self) -> Bucket:
        """The bucket behind the mount's back."""
        assert isinstance(self.source, CloudSource)
        return self.source.bucket

    @property
    def source_folder(self) -> Path:
        assert isinstance(self.source, LocalSource)
        return self.source.folder

    def object_name(self, path: str) -> str:
        assert isinstance(self.source, CloudSource)
        return f"{self.source.prefix}/{path}" if path else self.source.prefix

    # --- what the mount says of itself

    @property
    def errors(self) -> str:
        return (self.root / ".octuefs" / "errors").read_text(errors="surrogateescape")

    def recovered(self) -> dict[str, bytes]:
        folder = self.root / ".octuefs" / "recovered"
        return {name: (folder / name).read_bytes() for name in os.listdir(folder)}

    def refresh(self) -> None:
        (self.root / ".octuefs" / "refresh").write_text("now\n")

    @contextlib.contextmanager
    def mounted_again(self, *options: str) -> Iterator["Workplace"]:
        """The same source, mounted a second time."""
        with mounted(self.source.url, *options, environment=self.environment) as root:
            yield Workplace(root, self.source, self.gcs)

    @contextlib.contextmanager
    def place(self) -> Iterator["Place"]:
        """A new folder; at the end the store holds in it exactly what the mount shows."""
        name = f"t{next(_numbers)}"
        (self.root / name).mkdir()
        here = Place(self, name)
        yield here
        here.check()

    # --- what the store holds

    def stored(self, folder: str = "") -> dict[bytes, bytes]:
        """The bytes of the regular files in and below a folder, by path relative to it; no `.octue`."""
        return {path: data for path, data in self._stored(folder).items() if os.path.basename(path) != b".octue"}

    def _stored(self, folder: str) -> dict[bytes, bytes]:
        if isinstance(self.source, LocalSource):
            top = self.source.folder / folder
            return {
                os.path.relpath(path, os.fsencode(top)): Path(os.fsdecode(path)).read_bytes()
                for path in walk(top)
                if stat.S_ISREG(os.lstat(path).st_mode)
            }
        prefix = self.object_name(folder) + "/"
        names = [item["name"] for item in self.bucket.list(prefix) if not item["name"].endswith("/")]
        with ThreadPoolExecutor(4) as threads:
            return dict(
                zip([name[len(prefix) :].encode() for name in names], threads.map(self.bucket.get, names), strict=True)
            )

    def stored_folders(self, folder: str = "") -> set[str]:
        """The folders below a folder that the store holds by themselves: in the cloud those with a marker."""
        if isinstance(self.source, LocalSource):
            top = self.source.folder / folder
            return {
                os.fsdecode(os.path.relpath(path, os.fsencode(top)))
                for path in walk(top)
                if stat.S_ISDIR(os.lstat(path).st_mode)
            }
        prefix = self.object_name(folder) + "/"
        names = (item["name"][len(prefix) :] for item in self.bucket.list(prefix))
        return {name.rstrip("/") for name in names if name.endswith("/") and name != "/"}

    def record(self, path: str) -> dict[str, Any] | None:
        """What is stored of a file's metadata now, parsed; None for nothing. In the SDK's encoding on both stores."""
        if isinstance(self.source, LocalSource):
            found = self.document(os.path.dirname(path)).get("datafiles", {}).get(os.path.basename(path))
            return None if found is None else dict(found)
        custom = self.bucket.stat(self.object_name(path)).get("metadata", {})
        found = {key[7:]: json.loads(text) for key, text in custom.items() if key.startswith("octue__")}
        return found or None

    def dataset_record(self) -> dict[str, Any]:
        """What is stored of the dataset itself."""
        return dict(self.document("").get("dataset", {}))

    def document(self, folder: str) -> dict[str, Any]:
        """The parsed `.octue` of a folder in the store; {} where there is none."""
        try:
            if isinstance(self.source, LocalSource):
                text = (self.source.folder / folder / ".octue").read_bytes()
            else:
                text = self.bucket.get(self.object_name(f"{folder}/.octue" if folder else ".octue"))
        except OSError:
            return {}
        found: dict[str, Any] = json.loads(text)
        return found

    def put(
        self, path: str, data: bytes, metadata: Mapping[str, str] | None = None, content_type: str | None = None
    ) -> None:
        """Store a file behind the mount's back, and let the mount know."""
        if isinstance(self.source, LocalSource):
            (self.source.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.source.folder / path).write_bytes(data)
        else:
            self.bucket.put(self.object_name(path), data, metadata, content_type)
        self.refresh()
        assert eventually(lambda: os.path.lexists(self.root / path))


@dataclass(frozen=True)
class Place:
    """A folder in which one test works alone."""

    workplace: Workplace
    name: str
    unchecked: set[str] = field(default_factory=set)
    """Names that the final comparison leaves out."""

    @property
    def folder(self) -> Path:
        return self.workplace.root / self.name

    @property
    def in_cloud(self) -> bool:
        return self.workplace.in_cloud

    @property
    def requests(self) -> StrictGcs:
        return self.workplace.requests

    @property
    def source_folder(self) -> Path:
        return self.workplace.source_folder / self.name

    def __truediv__(self, path: str) -> Path:
        return self.folder / path

    def path(self, path: str) -> str:
        """The path in the dataset."""
        return f"{self.name}/{path}"

    def stored(self) -> dict[bytes, bytes]:
        return self.workplace.stored(self.name)

    def stored_data(self, path: str) -> bytes:
        """The bytes that the store holds of one file."""
        if self.in_cloud:
            return self.workplace.bucket.get(self.object_name(path))
        return (self.source_folder / path).read_bytes()

    def object_name(self, path: str) -> str:
        return self.workplace.object_name(self.path(path))

    def object(self, path: str) -> dict[str, Any]:
        """The resource of a file's object."""
        return self.workplace.bucket.stat(self.object_name(path))

    def record(self, path: str) -> dict[str, Any] | None:
        """The stored record of a file, once all that was said is stored."""
        self.sync(os.path.dirname(path))
        return self.workplace.record(self.path(path))

    def record_of_nothing(self, path: str) -> bool:
        """Say whether nothing is stored of a file that is gone, or that has lost its metadata."""
        self.sync(os.path.dirname(path))
        if self.in_cloud and not os.path.lexists(self / path):
            return not self.workplace.bucket.list(self.object_name(path))
        found = self.workplace.record(self.path(path))
        return found is None or not (found.get("labels", {}).get("items") or found.get("tags"))

    def document(self, folder: str = "") -> dict[str, Any]:
        """The stored `.octue` of a folder, once all that was said is stored."""
        self.sync(folder)
        return self.workplace.document(f"{self.name}/{folder}".rstrip("/"))

    def sync(self, folder: str = "") -> None:
        """fsync of a folder: names and metadata of its files are stored then."""
        with opened(self / folder, os.O_RDONLY | os.O_DIRECTORY) as fd:
            os.fsync(fd)

    def about(self) -> Callable[[Request], bool]:
        """Requests for objects of this place."""
        return lambda request: request.holds(f"/{self.name}/")

    def check(self) -> None:
        """The store holds what the mount shows, checksums included, and nothing temporary."""

        def shown() -> dict[bytes, bytes]:
            found = {}
            for path in walk(self.folder):
                name = os.path.relpath(path, os.fsencode(self.folder))
                if os.fsdecode(name) in self.unchecked or os.path.basename(name) == b".octue":
                    continue
                if stat.S_ISREG(os.lstat(path).st_mode):
                    found[name] = Path(os.fsdecode(path)).read_bytes()
            return found

        stored = {path: data for path, data in self.stored().items() if os.fsdecode(path) not in self.unchecked}
        assert shown() == stored
        assert eventually(lambda: not self._temporary()), self._temporary()

    def _temporary(self) -> list[str]:
        names = (os.fsdecode(path) for path in self.workplace._stored(self.name))
        return [name for name in names if TEMPORARY.search(name)]


@contextlib.contextmanager
def workplace_of(kind: str, new_source: SourceMaker, server: Server, *options: str) -> Iterator[Workplace]:
    """An empty dataset, "local" or "cloud", mounted; the cloud through a strict front of its own."""
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(new_source(kind))
        gcs = None
        if isinstance(source, LocalSource):
            source.folder.mkdir(parents=True)
        else:
            gcs = stack.enter_context(StrictGcs(server().environment))
            source.bucket.put(f"{source.prefix}/kept", b"so that the dataset exists\n")
        environment = gcs.environment if gcs is not None else {}
        root = stack.enter_context(mounted(source.url, *options, environment=environment))
        yield Workplace(root, source, gcs)


def state_folder() -> Path:
    """Where the mounts of this run keep what is not stored yet."""
    return Path(environment_for()["XDG_STATE_HOME"])


def log_of(root: Path) -> str:
    """What the daemon of a mount point has logged."""
    name = "".join(char if char.isalnum() else "-" for char in root.name)
    logs = state_folder().glob(f"**/{name}-*.log")
    return "".join(log.read_text(errors="replace") for log in logs)


# --- system calls ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(path: Path | bytes, flags: int = os.O_RDONLY, mode: int = 0o666) -> Iterator[int]:
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def fails_with(*numbers: int) -> Iterator[None]:
    """The system call inside fails with this errno, or one of these."""
    with pytest.raises(OSError, match=re.escape("[Errno ")) as failure:
        yield
    assert failure.value.errno in numbers, failure.value


def write_fully(fd: int, data: bytes, offset: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset + done)


def pread_fully(fd: int, offset: int, size: int) -> bytes:
    found = b""
    while len(found) < size and (more := os.pread(fd, size - len(found), offset + len(found))):
        found += more
    return found


_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)

KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE = 1, 2, 8
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
_AT_FDCWD = -100


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2), without glibc's emulation."""
    _check(_libc.fallocate(fd, mode, offset, length))


def renameat2(old: Path, new: Path, flags: int) -> None:
    _check(_libc.renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), flags))


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def utimensat(path: Path, atime: tuple[int, int], mtime: tuple[int, int]) -> None:
    """utimensat(2): (seconds, nanoseconds, UTIME_NOW or UTIME_OMIT) of atime and mtime."""
    times = (_Timespec * 2)(_Timespec(*atime), _Timespec(*mtime))
    _check(_libc.utimensat(_AT_FDCWD, os.fsencode(path), times, 0))


def python(program: str, *arguments: str | Path, timeout: float = 60) -> str:
    """Run a program in a process of its own; it must succeed. Returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(os.fspath, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[-3000:]
    return done.stdout


# --- attributes ------------------------------------------------------------------------------------------------------


def get(path: Path, name: str) -> str | None:
    """An attribute `user.octue.<name>`; None where it is not set."""
    try:
        return os.getxattr(path, f"user.octue.{name}").decode()
    except OSError as error:
        if error.errno != 61:  # ENODATA
            raise
        return None


def put(path: Path, name: str, value: str | bytes, flags: int = 0) -> None:
    """Set an attribute `user.octue.<name>`."""
    os.setxattr(path, f"user.octue.{name}", value.encode() if isinstance(value, str) else value, flags)


def drop(path: Path, name: str) -> None:
    """Remove an attribute `user.octue.<name>`."""
    os.removexattr(path, f"user.octue.{name}")


def crc32c(data: bytes) -> str:
    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


def eventually(condition: Callable[[], object]) -> bool:
    """Wait, within reason, for what must become true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
