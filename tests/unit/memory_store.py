"""A strict object store in memory: it enforces every precondition and checksum, as Google does, and fails on demand.

`before` runs something at the moment a request arrives (another writer, say); `fail` lets requests fail before or
after they are carried out; `lose_answer` lets one be carried out, and tried again, as the store does when an answer
is lost. `requests` tells what was asked.
"""

import base64
import threading
import time
import uuid
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import google_crc32c

from octuefs.errors import (
    BadValue,
    ChecksumMismatch,
    Conflict,
    IsADirectory,
    NotALink,
    NotFound,
    OctuefsError,
    Unsupported,
)
from octuefs.model.paths import CloudLocation, Location
from octuefs.stores.base import Kind, LinkTarget, ObjectInfo, Ownership, Skipped, Space
from octuefs.stores.gcs_resource import describe, problem_with_name
from octuefs.stores.writing import Body, BucketFacts, ObjectProperties, Precondition, UploadState

FIXED = ("contentType", "contentEncoding", "contentDisposition", "contentLanguage", "cacheControl")
LARGEST_METADATA = 8192
MOST_SOURCES = 32
CHUNK_UNIT = 256 * 1024


def crc32c(data: bytes) -> int:
    """The checksum as a number."""
    return int(google_crc32c.value(data))


@dataclass
class StoredObject:
    """One object."""

    data: bytes
    generation: int
    metageneration: int = 1
    metadata: dict[str, str] = field(default_factory=dict)
    fixed: dict[str, str] = field(default_factory=dict)
    created: str = ""
    updated: str = ""


@dataclass
class _Session:
    path: str
    properties: ObjectProperties
    condition: Precondition
    data: bytes = b""
    done: ObjectInfo | None = None


@dataclass
class _Fault:
    error: OctuefsError | None
    path: str | None
    after: bool
    times: int


class MemorySource:
    """A ByteSource pinned to a generation."""

    def __init__(self, store: "MemoryStore", info: ObjectInfo) -> None:
        self._store = store
        self._info = info

    def read(self, offset: int, size: int) -> bytes:
        """Read of that generation, or Conflict."""
        return self._store.read_generation(self._info, offset, size)

    def version(self) -> Hashable:
        """The version that is pinned."""
        return self._info.version

    def identity(self) -> Hashable:
        """The version that is pinned."""
        return self._info.version

    def info(self) -> ObjectInfo:
        """What was opened."""
        return self._info

    def close(self) -> None:
        """Nothing to give back."""


class MemoryStore:
    """An ObjectStore; `objects` may be looked at, and changed with `put` and `drop` as another writer would."""

    def __init__(
        self,
        *,
        composes: bool = True,
        has_folders: bool = False,
        prefix: str = "data",
        ownership: Ownership | None = None,
    ) -> None:
        self.place = CloudLocation("bucket", prefix)
        self.ownership = ownership or Ownership()
        self.location: Location = self.place
        self.endpoint = "memory"
        self.facts = BucketFacts(composes=composes, has_folders=has_folders)
        self.objects: dict[str, StoredObject] = {}
        """By path; markers end in "/"."""
        self.sessions: dict[str, _Session] = {}
        self.requests: list[tuple[str, str]] = []
        self._generation = 1000
        self._clock = time.time_ns()
        self._lock = threading.RLock()
        self._faults: dict[str, list[_Fault]] = {}
        self._before: dict[str, list[tuple[str | None, Callable[[], object]]]] = {}

    # --- what tests do

    @property
    def in_cloud(self) -> bool:
        """True."""
        return True

    def put(self, path: str, data: bytes = b"", metadata: Mapping[str, str] | None = None, **fixed: str) -> ObjectInfo:
        """Store an object as somebody else."""
        with self._lock:
            return self._store(path, data, ObjectProperties(metadata or {}, fixed))

    def touch_metadata(self, path: str, **metadata: str | None) -> ObjectInfo:
        """Patch an object as somebody else."""
        with self._lock:
            return self._patch(path, metadata)

    def drop(self, path: str) -> None:
        """Remove an object as somebody else."""
        with self._lock:
            del self.objects[path]

    def fail(
        self, method: str, error: OctuefsError, *, path: str | None = None, after: bool = False, times: int = 1
    ) -> None:
        """Let the next requests (of that path) fail, before or after they are carried out."""
        self._faults.setdefault(method, []).append(_Fault(error, path, after, times))

    def lose_answer(self, method: str, *, path: str | None = None) -> None:
        """Let the next request be carried out, and then once more, as after a lost answer."""
        self._faults.setdefault(method, []).append(_Fault(None, path, True, 1))

    def before(self, method: str, action: Callable[[], object], *, path: str | None = None) -> None:
        """Run `action` once, when the next such request arrives."""
        self._before.setdefault(method, []).append((path, action))

    def forgive(self) -> None:
        """Let no request fail any more."""
        self._faults.clear()
        self._before.clear()

    def asked(self, method: str) -> list[str]:
        """The paths of the requests of one kind."""
        return [path for name, path in self.requests if name == method]

    def names(self) -> set[str]:
        """What there is."""
        with self._lock:
            return set(self.objects)

    def data(self, path: str) -> bytes:
        """The bytes of an object."""
        return self.objects[path].data

    def metadata(self, path: str) -> dict[str, str]:
        """The custom metadata of an object."""
        return dict(self.objects[path].metadata)

    # --- the machinery

    def _request(self, method: str, path: str, act: Callable[[], Any]) -> Any:
        self.requests.append((method, path))
        actions = self._before.get(method, [])
        for number, (only, action) in enumerate(actions):
            if only in (None, path):
                del actions[number]
                action()
                break
        fault = self._fault(method, path)
        if fault is not None and not fault.after:
            assert fault.error is not None
            raise fault.error
        with self._lock:
            result = act()
            if fault is not None and fault.error is None:
                result = act()
        if fault is not None and fault.error is not None:
            raise fault.error
        return result

    def _fault(self, method: str, path: str) -> _Fault | None:
        faults = self._faults.get(method, [])
        for fault in faults:
            if fault.path in (None, path):
                fault.times -= 1
                if fault.times <= 0:
                    faults.remove(fault)
                return fault
        return None

    def _now(self) -> str:
        self._clock += 1_000_000
        moment = datetime.fromtimestamp(self._clock // 1_000_000_000, UTC)
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{self._clock % 1_000_000_000 // 1_000_000:03d}Z"

    def _check_name(self, path: str) -> None:
        if problem_with_name(path.removesuffix("/")) or len((self.place.object_prefix + path).encode()) > 1024:
            raise BadValue(f"{path}: no object can have this name")

    def _check(self, path: str, condition: Precondition) -> None:
        present = self.objects.get(path)
        if condition.generation is not None and condition.generation != (present.generation if present else 0):
            raise Conflict(f"{path}: another version stands there (412)")
        if condition.metageneration is not None and (
            present is None or condition.metageneration != present.metageneration
        ):
            raise Conflict(f"{path}: another version stands there (412)")

    def _store(self, path: str, data: bytes, properties: ObjectProperties) -> ObjectInfo:
        self._check_name(path)
        self._check_metadata(path, properties.custom_metadata)
        assert set(properties.fixed) <= set(FIXED), properties.fixed
        self._generation += 1
        now = self._now()
        self.objects[path] = StoredObject(
            bytes(data), self._generation, 1, dict(properties.custom_metadata), dict(properties.fixed), now, now
        )
        return self._info(path)

    def _check_metadata(self, path: str, metadata: Mapping[str, str]) -> None:
        assert all(isinstance(value, str) for value in metadata.values()), metadata
        if sum(len(key.encode()) + len(value.encode()) for key, value in metadata.items()) > LARGEST_METADATA:
            raise BadValue(f"{path}: the store refuses the request as invalid (400)")

    def _patch(self, path: str, changes: Mapping[str, str | None]) -> ObjectInfo:
        stored = self.objects.get(path)
        if stored is None:
            raise NotFound(f"{path}: no such object")
        merged = {**stored.metadata, **changes}
        kept = {key: value for key, value in merged.items() if value is not None}
        self._check_metadata(path, kept)
        stored.metadata = kept
        stored.metageneration += 1
        stored.updated = self._now()
        return self._info(path)

    def _info(self, path: str) -> ObjectInfo:
        stored = self.objects[path]
        kind = Kind.FOLDER if path.endswith("/") else Kind.FILE
        resource: dict[str, Any] = {
            "name": self.place.object_prefix + path,
            "size": str(len(stored.data)),
            "generation": str(stored.generation),
            "metageneration": str(stored.metageneration),
            "crc32c": base64.b64encode(crc32c(stored.data).to_bytes(4, "big")).decode(),
            "metadata": dict(stored.metadata),
            "updated": stored.updated,
            "timeCreated": stored.created,
            **stored.fixed,
        }
        return describe(self.place, path.removesuffix("/"), kind, resource, self.ownership)

    # --- Store

    def check(self) -> None:
        """All is well."""

    def scan(self, folder: str = "", *, recursive: bool = True) -> Iterator[ObjectInfo | Skipped]:
        """List objects in and below a folder."""
        prefix = f"{folder}/" if folder else ""

        def listing() -> list[ObjectInfo | Skipped]:
            found: list[ObjectInfo | Skipped] = []
            implied: set[str] = set()
            for path in sorted(self.objects):
                if not path.startswith(prefix) or path == prefix:
                    continue
                rest = path[len(prefix) :]
                if not recursive and "/" in rest:
                    implied.add(prefix + rest.partition("/")[0])
                elif problem := problem_with_name(path.removesuffix("/")):
                    found.append(Skipped(path, problem))
                else:
                    found.append(self._info(path))
            found.extend(describe(self.place, path, Kind.FOLDER, {}, self.ownership) for path in sorted(implied))
            if folder and not found and prefix not in self.objects:
                raise NotFound(f"{folder}: no such folder")
            return found

        yield from self._request("scan", folder, listing)

    def stat(self, path: str) -> ObjectInfo:
        """Say what stands at a path."""

        def look() -> ObjectInfo:
            if path in self.objects:
                return self._info(path)
            if path and f"{path}/" in self.objects:
                return self._info(f"{path}/")
            if not path or any(name.startswith(f"{path}/") for name in self.objects):
                return describe(self.place, path, Kind.FOLDER, {}, self.ownership)
            raise NotFound(f"{path}: no such object or folder")

        info: ObjectInfo = self._request("stat", path, look)
        return info

    def open(self, info: ObjectInfo) -> MemorySource:
        """Open one generation."""
        if info.kind is not Kind.FILE:
            raise IsADirectory(f"{info.path}: is a folder")
        return MemorySource(self, info)

    def read_generation(self, info: ObjectInfo, offset: int, size: int) -> bytes:
        """Read of one generation."""

        def read() -> bytes:
            stored = self.objects.get(info.path)
            assert isinstance(info.version, tuple)
            if stored is None or stored.generation != info.version[0]:
                raise Conflict(f"{info.path}: the version that was opened was replaced or removed since")
            return stored.data[offset : offset + size]

        data: bytes = self._request("read", info.path, read)
        return data

    def read_small(self, path: str, limit: int) -> bytes:
        """Read all of an object."""

        def read() -> bytes:
            if path not in self.objects:
                raise NotFound(f"{path}: no such object")
            if len(self.objects[path].data) > limit:
                raise BadValue(f"{path}: too long")
            return self.objects[path].data

        data: bytes = self._request("read", path, read)
        return data

    def read_link(self, path: str) -> str:
        """Refuse."""
        raise NotALink(path)

    def follow_link(self, path: str) -> LinkTarget:
        """Refuse."""
        raise NotALink(path)

    def get_xattr(self, path: str, name: str) -> bytes:
        """Refuse."""
        raise Unsupported(path)

    def list_xattrs(self, path: str) -> list[str]:
        """None."""
        return []

    def space(self) -> Space:
        """Room without end."""
        return Space(1 << 50, 1 << 50, 1 << 32, 1 << 32)

    def reopen_if_replaced(self) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """Nothing to close."""

    # --- ObjectStore

    def bucket_facts(self) -> BucketFacts:
        """What the bucket can do."""
        return self.facts

    def upload(
        self, path: str, body: Body, size: int, crc32c: int, properties: ObjectProperties, condition: Precondition
    ) -> ObjectInfo:
        """Store an object whose checksum is right."""
        data = read_all(body, 0, size)

        def store() -> ObjectInfo:
            if int(google_crc32c.value(data)) != crc32c:
                raise ChecksumMismatch(f"{path}: other bytes arrived than were sent")
            self._check(path, condition)
            return self._store(path, data, properties)

        info: ObjectInfo = self._request("upload", path, store)
        return info

    def begin_upload(self, path: str, properties: ObjectProperties, condition: Precondition) -> str:
        """Open a session; the precondition is looked at here and at the end."""

        def begin() -> str:
            self._check(path, condition)
            self._check_metadata(path, properties.custom_metadata)
            session = f"memory://{uuid.uuid4()}"
            self.sessions[session] = _Session(path, properties, condition)
            return session

        session: str = self._request("begin_upload", path, begin)
        return session

    def send(self, path: str, session: str, body: Body, start: int, end: int, *, total: int | None) -> UploadState:
        """Take bytes of a session."""
        data = read_all(body, start, end)

        def take() -> UploadState:
            found = self._session(session)
            if found.done is not None:
                return UploadState(len(found.data), found.done)
            assert found.path == path
            if start != len(found.data):
                raise BadValue(f"{path}: bytes from {start} where {len(found.data)} are kept")
            if total is None and (end - start) % CHUNK_UNIT:
                raise BadValue(f"{path}: a chunk of {end - start} bytes")
            if total is not None and end != total:
                raise BadValue(f"{path}: the end is {end} of {total}")
            if total is not None:
                self._check(path, found.condition)
            found.data += data
            if total is not None:
                found.done = self._store(path, found.data, found.properties)
            return UploadState(len(found.data), found.done)

        state: UploadState = self._request("send", path, take)
        return state

    def upload_state(self, path: str, session: str) -> UploadState:
        """Say how far a session is."""

        def look() -> UploadState:
            found = self._session(session)
            return UploadState(len(found.data), found.done)

        state: UploadState = self._request("upload_state", path, look)
        return state

    def _session(self, session: str) -> _Session:
        if session not in self.sessions:
            raise NotFound(f"{session}: no such session")
        return self.sessions[session]

    def cancel_upload(self, session: str) -> None:
        """Forget a session."""
        self._request("cancel_upload", session, lambda: self.sessions.pop(session, None))

    def compose(
        self,
        path: str,
        sources: Sequence[tuple[str, int]],
        properties: ObjectProperties,
        condition: Precondition,
    ) -> ObjectInfo:
        """Join objects."""

        def join() -> ObjectInfo:
            if not self.facts.composes:
                raise BadValue(f"{path}: this bucket does not compose")
            assert 1 <= len(sources) <= MOST_SOURCES
            for source, generation in sources:
                if source not in self.objects:
                    raise NotFound(f"{source}: no such object")
                if self.objects[source].generation != generation:
                    raise NotFound(f"{source}: that generation is gone")
            self._check(path, condition)
            return self._store(path, b"".join(self.objects[source].data for source, _ in sources), properties)

        info: ObjectInfo = self._request("compose", path, join)
        return info

    def rewrite(self, old: str, generation: int, new: str, condition: Precondition) -> ObjectInfo:
        """Copy an object."""

        def copy() -> ObjectInfo:
            source = self.objects.get(old)
            if source is None or source.generation != generation:
                raise NotFound(f"{old}: that generation is gone")
            self._check(new, condition)
            return self._store(new, source.data, ObjectProperties(source.metadata, source.fixed))

        info: ObjectInfo = self._request("rewrite", old, copy)
        return info

    def patch(self, path: str, custom_metadata: Mapping[str, str | None], condition: Precondition) -> ObjectInfo:
        """Change custom metadata."""

        def change() -> ObjectInfo:
            if path not in self.objects:
                raise NotFound(f"{path}: no such object")
            self._check(path, condition)
            return self._patch(path, custom_metadata)

        info: ObjectInfo = self._request("patch", path, change)
        return info

    def delete(self, path: str, condition: Precondition) -> None:
        """Remove an object."""

        def remove() -> None:
            if path not in self.objects:
                raise NotFound(f"{path}: no such object")
            self._check(path, condition)
            del self.objects[path]

        self._request("delete", path, remove)

    def make_marker(self, folder: str) -> ObjectInfo:
        """Make an empty folder."""
        name = f"{folder}/"

        def make() -> ObjectInfo:
            return self._info(name) if name in self.objects else self._store(name, b"", ObjectProperties())

        info: ObjectInfo = self._request("make_marker", folder, make)
        return info

    def delete_marker(self, folder: str) -> None:
        """Remove the object of a folder."""
        self._request("delete_marker", folder, lambda: self.objects.pop(f"{folder}/", None))

    def rename_folder(self, old: str, new: str) -> None:
        """Move all objects below a folder."""

        def move() -> None:
            if not self.facts.has_folders:
                raise Unsupported("this bucket has no folders")
            moved = [name for name in self.objects if name.startswith(f"{old}/")]
            if not moved:
                raise NotFound(f"{old}: no such folder")
            if any(name.startswith(f"{new}/") for name in self.objects):
                raise Conflict(f"{new}: something stands there")
            for name in moved:
                stored = self.objects.pop(name)
                self._generation += 1
                self.objects[new + name[len(old) :]] = replace(stored, generation=self._generation)

        self._request("rename_folder", old, move)


def read_all(body: Body, start: int, end: int) -> bytes:
    """Read bytes `start` to `end` of a body."""
    data = bytearray()
    while start + len(data) < end:
        part = body(start + len(data), end - start - len(data))
        assert part, "a body gives all bytes that were announced"
        data += part
    return bytes(data)


def only(names: Collection[str]) -> str:
    """The one name of a collection."""
    (name,) = names
    return name
