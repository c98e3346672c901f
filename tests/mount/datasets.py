"""Datasets for tests of mounts: described once, stored in a local folder or in a bucket as the SDK stores them.

Nothing of octuefs is used here: what is stored, and what is expected, is written down anew.
"""

import base64
import contextlib
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import google_crc32c
import pytest

from support.gcs import Bucket, GcsServer
from support.mounting import mounted, run_folder

T = TypeVar("T")

KINDS = ("local", "cloud")


@dataclass(frozen=True)
class File:
    """One datafile: its path in the dataset, its bytes, its metadata. Without any of these it has no record."""

    path: str
    data: bytes = b""
    id: str | None = None
    labels: tuple[str, ...] = ()
    tags: Mapping[str, Any] = field(default_factory=dict)
    timestamp: datetime | None = None

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]

    @property
    def extension(self) -> str:
        return os.path.splitext(self.name)[1][1:]

    @property
    def has_record(self) -> bool:
        return bool(self.id or self.labels or self.tags or self.timestamp)

    @property
    def hash(self) -> str:
        return crc32c(self.data)

    @property
    def record(self) -> dict[str, Any]:
        """Its record as it stands in `.octue`; labels as a set, and an ID only where it has one."""
        timestamp = {"_type": "datetime", "value": self.timestamp.isoformat()} if self.timestamp else None
        return {
            **({"id": self.id} if self.id else {}),
            "timestamp": timestamp,
            "tags": dict(self.tags),
            "labels": {"_type": "set", "items": sorted(self.labels)},
            "sdk_version": "0.69.1",
        }


@dataclass(frozen=True)
class Plan:
    """A dataset: its files, its own record, and folders with nothing in them."""

    files: tuple[File, ...]
    dataset: Mapping[str, Any] | None = None
    empty_folders: tuple[str, ...] = ()

    def __getitem__(self, path: str) -> File:
        return next(file for file in self.files if file.path == path)

    def octue(self, folder: str) -> dict[str, Any]:
        """What `.octue` of a real folder says; {} where there is none."""
        records = {file.name: file.record for file in self.files if file.folder == folder and file.has_record}
        return {
            **({"datafiles": records} if records else {}),
            **({"dataset": dict(self.dataset)} if self.dataset and not folder else {}),
        }


def crc32c(data: bytes) -> str:
    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


def set_hash(files: Iterable[File]) -> str:
    """The hash of a set of datafiles as DESIGN 2.4 has it."""
    return crc32c(str(sorted(file.hash for file in files)).encode())


# --- sources ---------------------------------------------------------------------------------------------------------


class Folder:
    """A dataset in a local folder."""

    in_cloud = False
    environment: Mapping[str, str] = {}

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True)
        self.path = path
        self.url = str(path)

    def put(self, path: str, data: bytes) -> None:
        """Store a file and nothing of its metadata."""
        (self.path / path).parent.mkdir(parents=True, exist_ok=True)
        (self.path / path).write_bytes(data)

    def store(self, plan: Plan) -> None:
        for file in plan.files:
            self.put(file.path, file.data)
        for folder in plan.empty_folders:
            (self.path / folder).mkdir(parents=True)
        for folder in {"", *(file.folder for file in plan.files)}:
            if content := plan.octue(folder):
                (self.path / folder / ".octue").write_text(json.dumps(content, indent=4) + "\n")

    def location(self, path: str = "") -> str:
        return str(self.path / path) if path else str(self.path)


class Prefix:
    """A dataset in a bucket, below `data/set`."""

    in_cloud = True

    def __init__(self, bucket: Bucket, prefix: str = "data/set") -> None:
        self.bucket = bucket
        self.prefix = prefix
        self.url = f"{bucket.url}/{prefix}"
        self.environment = bucket.environment

    def put(self, path: str, data: bytes, metadata: Mapping[str, str] | None = None) -> None:
        self.bucket.put(f"{self.prefix}/{path}", data, metadata)

    def store(self, plan: Plan) -> None:
        for file in plan.files:
            record = file.record if file.has_record else {}
            self.put(file.path, file.data, {f"octue__{key}": json.dumps(value) for key, value in record.items()})
        for folder in plan.empty_folders:
            self.put(f"{folder}/", b"")
        if plan.dataset:
            self.put(".octue", json.dumps({"dataset": dict(plan.dataset)}).encode())

    def location(self, path: str = "") -> str:
        return f"{self.url}/{path}" if path else self.url


Source = Folder | Prefix


@contextlib.contextmanager
def empty_source(kind: str, server: GcsServer) -> Iterator[Source]:
    """A new empty dataset, "local" or "cloud"; the bucket goes afterwards, the folder with the run."""
    unique = uuid.uuid4().hex[:12]
    if kind == "local":
        yield Folder(run_folder() / "sources" / unique / "set")
        return
    name = f"octuefs-{unique}"
    server.create_bucket(name)
    yield Prefix(Bucket(server, name))
    server.delete_bucket(name)


@contextlib.contextmanager
def mounted_plan(kind: str, server: GcsServer, plan: Plan, *options: str) -> Iterator["Mounted"]:
    """A plan, stored and mounted."""
    with empty_source(kind, server) as source:
        source.store(plan)
        with mounted_source(source, plan, *options) as it:
            yield it


@contextlib.contextmanager
def mounted_source(source: Source, plan: Plan, *options: str, zone: str | None = None) -> Iterator["Mounted"]:
    with mounted(source.url, *options, environment=source.environment, zone=zone) as root:
        yield Mounted(root, source, plan)


@dataclass(frozen=True)
class Mounted:
    """A mounted dataset: where it is mounted, where it lives, what it is."""

    root: Path
    source: Source
    plan: Plan

    @property
    def in_cloud(self) -> bool:
        return self.source.in_cloud

    def __truediv__(self, path: str) -> Path:
        return self.root / path if path else self.root

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads((self.root / ".octuefs" / "status").read_bytes())
        return answer


# --- looking ---------------------------------------------------------------------------------------------------------


def names(folder: Path) -> list[str]:
    """What a directory lists, sorted."""
    return sorted(os.listdir(folder))


def walk(top: Path) -> dict[str, bool]:
    """All that is listed in and below a directory, by path relative to it: True for directories."""
    found: dict[str, bool] = {}
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(top / folder if folder else top) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                assert path not in found, f"{path} is listed twice"
                found[path] = entry.is_dir(follow_symlinks=False)
                if found[path]:
                    pending.append(path)
    return found


def files_in(top: Path) -> set[str]:
    """The paths of the files that are listed in and below a directory, without rendered metadata."""
    return {path for path, folder in walk(top).items() if not folder and path.rpartition("/")[2] != ".octue"}


def document(path: Path) -> dict[str, Any]:
    """What a `.octue` file says."""
    answer: dict[str, Any] = json.loads(path.read_bytes())
    return answer


def wait_until(look: Callable[[], T], seconds: float = 10) -> T:
    """What `look` returns as soon as that is true; fails after a while."""
    deadline = time.monotonic() + seconds
    while True:
        answer = look()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds} s; the last answer was {answer!r}"
        time.sleep(0.02)


@contextlib.contextmanager
def fails_with(number: int) -> Iterator[None]:
    """The system call inside fails with this errno."""
    with pytest.raises(OSError, match=re.escape(os.strerror(number))) as failure:
        yield
    assert failure.value.errno == number
