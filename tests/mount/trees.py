"""Datasets for the tests of mounts: the same files in a folder and in a bucket, and what must come out of a mount."""

import ctypes
import ctypes.util
import hashlib
import json
import os
import random
import stat
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from support.gcs import Bucket

KIB = 1 << 10
MIB = 1 << 20
NO_CREDENTIALS: Mapping[str, str] = {}


def some_bytes(size: int, seed: int = 0) -> bytes:
    """Bytes that look like no other part of any file."""
    return random.Random(seed * 1_000_003 + size).randbytes(size)


# --- what stands in a dataset ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class File:
    """The bytes of a datafile and the metadata stored with it."""

    data: bytes = b""
    labels: Sequence[str] = ()
    tags: Mapping[str, Any] = field(default_factory=dict)
    timestamp: str | None = None
    custom: Mapping[str, str] = field(default_factory=dict)
    """More custom metadata, in the cloud only."""

    @property
    def has_record(self) -> bool:
        return bool(self.labels or self.tags or self.timestamp)

    def record(self, path: str) -> dict[str, Any]:
        """The metadata in the SDK's encoding."""
        when = {"_type": "datetime", "value": self.timestamp} if self.timestamp else None
        return {
            "id": id_of(path),
            "timestamp": when,
            "tags": dict(self.tags),
            "labels": {"_type": "set", "items": sorted(self.labels)},
            "sdk_version": "0.69.1",
        }


def id_of(path: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, os.fsencode(path).hex()))


DATASET = {
    "id": id_of("the dataset itself"),
    "name": "turbines",
    "tags": {"farm": "haute-borne"},
    "labels": ["published", "wind"],
}


def records_by_folder(files: Mapping[str, File]) -> dict[str, dict[str, Any]]:
    """The `.octue` documents of a dataset's folders."""
    documents: dict[str, dict[str, Any]] = {}
    for path, file in sorted(files.items()):
        if file.has_record:
            folder, _, name = path.rpartition("/")
            documents.setdefault(folder, {}).setdefault("datafiles", {})[name] = file.record(path)
    documents.setdefault("", {})["dataset"] = DATASET
    return documents


# --- where a dataset stands ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LocalSource:
    """A dataset in a folder."""

    folder: Path
    kind: ClassVar[str] = "local"
    environment: ClassVar[Mapping[str, str]] = NO_CREDENTIALS

    @property
    def url(self) -> str:
        return str(self.folder)

    def fill(self, files: Mapping[str, File]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for path, file in files.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_bytes(file.data)
        for folder, document in records_by_folder(files).items():
            (self.folder / folder / ".octue").write_text(json.dumps(document, indent=4) + "\n")

    def state(self) -> dict[bytes, Any]:
        """All that a change through a mount could change."""
        found: dict[bytes, Any] = {}
        for path in walk(self.folder):
            at = os.lstat(path)
            xattrs = {} if stat.S_ISLNK(at.st_mode) else {name: os.getxattr(path, name) for name in os.listxattr(path)}
            data = digest(path) if stat.S_ISREG(at.st_mode) else None
            owned = (at.st_mode, at.st_uid, at.st_gid, at.st_nlink)
            found[path] = (at.st_ino, *owned, at.st_size, at.st_mtime_ns, at.st_ctime_ns, xattrs, data)
        return found


@dataclass(frozen=True)
class CloudSource:
    """A dataset in a bucket, below a prefix."""

    bucket: Bucket
    prefix: ClassVar[str] = "some/data"
    kind: ClassVar[str] = "cloud"

    @property
    def url(self) -> str:
        return f"{self.bucket.url}/{self.prefix}"

    @property
    def environment(self) -> Mapping[str, str]:
        return self.bucket.environment

    def fill(self, files: Mapping[str, File]) -> None:
        def put(item: tuple[str, File]) -> None:
            path, file = item
            record = file.record(path) if file.has_record else {}
            metadata = {f"octue__{key}": json.dumps(value) for key, value in record.items()}
            self.bucket.put(f"{self.prefix}/{path}", file.data, {**metadata, **file.custom})

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(put, files.items()))
        self.bucket.put(f"{self.prefix}/.octue", json.dumps({"dataset": DATASET}).encode())

    def state(self) -> list[dict[str, Any]]:
        """All that a change through a mount could change."""
        return self.bucket.list()


Source = LocalSource | CloudSource


@dataclass(frozen=True)
class Served:
    """A mounted dataset."""

    root: Path
    source: Source
    files: Mapping[str, File]

    @property
    def in_cloud(self) -> bool:
        return self.source.kind == "cloud"

    @property
    def folder(self) -> Path:
        """The folder that is mounted."""
        assert isinstance(self.source, LocalSource)
        return self.source.folder

    @property
    def bucket(self) -> Bucket:
        """The bucket that is mounted."""
        assert isinstance(self.source, CloudSource)
        return self.source.bucket


# --- looking at trees ------------------------------------------------------------------------------------------------


def walk(top: Path | str) -> Iterator[bytes]:
    """All paths below a folder, as bytes; links are not followed."""
    for folder, folders, files in os.walk(os.fsencode(top)):
        for name in (*folders, *files):
            yield os.path.join(folder, name)


def digest(path: bytes | str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def contents(top: Path) -> dict[bytes, Any]:
    """What stands below a folder, by relative path: bytes of files, targets of links, the types of others."""
    found: dict[bytes, Any] = {}
    for path in walk(top):
        mode = os.lstat(path).st_mode
        place = os.path.relpath(path, os.fsencode(top))
        if stat.S_ISREG(mode):
            found[place] = Path(os.fsdecode(path)).read_bytes()
        elif stat.S_ISLNK(mode):
            found[place] = ("link to", os.readlink(path))
        else:
            found[place] = stat.S_IFMT(mode)
    return found


def run(
    *command: str | bytes | Path, cwd: Path | None = None, stdin: bytes | None = None, timeout: float = 60
) -> bytes:
    """The output of a command that must succeed, say nothing on stderr and end in time."""
    done = subprocess.run(
        command,
        cwd=cwd,
        input=stdin or b"",
        capture_output=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    assert (done.returncode, done.stderr) == (0, b""), (command, done.returncode, done.stderr[-2000:])
    return done.stdout


class _Dirent(ctypes.Structure):
    _fields_ = (
        ("d_ino", ctypes.c_uint64),
        ("d_off", ctypes.c_int64),
        ("d_reclen", ctypes.c_uint16),
        ("d_type", ctypes.c_uint8),
        ("d_name", ctypes.c_char * 256),
    )


_libc = ctypes.CDLL(None, use_errno=True)
_libc.opendir.restype = ctypes.c_void_p
_libc.opendir.argtypes = (ctypes.c_char_p,)
_libc.readdir64.restype = ctypes.POINTER(_Dirent)
_libc.telldir.restype = ctypes.c_long
_libc.seekdir.argtypes = (ctypes.c_void_p, ctypes.c_long)
for _function in (_libc.readdir64, _libc.telldir, _libc.rewinddir, _libc.closedir):
    _function.argtypes = (ctypes.c_void_p,)


@dataclass(frozen=True)
class Entry:
    """What readdir(3) says of one name."""

    name: bytes
    inode: int
    type: int


class DirectoryStream:
    """opendir(3) and its relatives, "." and ".." included."""

    def __init__(self, path: Path) -> None:
        self._stream = _libc.opendir(os.fsencode(path))
        if not self._stream:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))

    def read(self) -> Entry | None:
        """The next entry, None at the end."""
        ctypes.set_errno(0)
        found = _libc.readdir64(self._stream)
        if not found:
            if ctypes.get_errno():
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            return None
        # By its address: a name may be longer than the structure's array.
        name = ctypes.string_at(ctypes.addressof(found.contents) + _Dirent.d_name.offset)
        return Entry(name, found.contents.d_ino, found.contents.d_type)

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self.read()) is not None:
            yield entry

    def tell(self) -> int:
        return int(_libc.telldir(self._stream))

    def seek(self, position: int) -> None:
        _libc.seekdir(self._stream, position)

    def rewind(self) -> None:
        _libc.rewinddir(self._stream)

    def __enter__(self) -> "DirectoryStream":
        return self

    def __exit__(self, *_: object) -> None:
        _libc.closedir(self._stream)
