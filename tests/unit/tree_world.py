"""A mounted dataset for tests of the tree: a store and a writer in memory below, system calls on paths above."""

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import google_crc32c
import pytest

from octuefs.content.hashing import Hasher
from octuefs.datafile import NO_METADATA, Datafile
from octuefs.dataset import Dataset
from octuefs.entries import Change, DatafileSeen, FolderGone, FolderSeen, OtherSeen, Removed
from octuefs.errors import AlreadyExists, BadValue, NotEmpty, NotFound, OctuefsError, to_errno
from octuefs.index import Index
from octuefs.keeper import Keeper
from octuefs.model.changes import MetadataChange, over
from octuefs.model.metadata import DatafileMetadata, decode_octue, encode_octue
from octuefs.model.paths import CloudLocation, LocalLocation, join, name_of, parent_of
from octuefs.operations import Operations
from octuefs.report import Report
from octuefs.stores.base import Kind, LinkTarget, ObjectInfo
from octuefs.tree.namespace import ControlFiles, Namespace
from octuefs.tree.node import Node
from octuefs.writing.base import NO_CHANGE, Caller

CALLER = Caller(1000, 1000)

TYPES = {Kind.FILE: stat.S_IFREG, Kind.FOLDER: stat.S_IFDIR, Kind.SYMLINK: stat.S_IFLNK, Kind.SPECIAL: stat.S_IFIFO}


def info_of(path: str, kind: Kind, data: bytes = b"") -> ObjectInfo:
    return ObjectInfo(
        path=path,
        kind=kind,
        size=len(data),
        mtime_ns=1,
        ctime_ns=1,
        mode=TYPES[kind] | (0o755 if kind is Kind.FOLDER else 0o644),
        uid=os.getuid(),
        gid=os.getgid(),
        inode=abs(hash(path)) + 1,
        links=1,
        version=1,
        crc32c=int(google_crc32c.value(data)),
    )


class Source:
    """A ByteSource over what a path holds."""

    def __init__(self, disk: "Disk", path: str) -> None:
        self.disk = disk
        self.path = path
        self.callbacks: list[Callable[[], object]] = []

    def read(self, offset: int, size: int) -> bytes:
        return self.disk.files[self.path][offset : offset + size]

    def write(self, offset: int, data: bytes) -> int:
        present = self.disk.files[self.path]
        self.disk.files[self.path] = present[:offset] + data + present[offset + len(data) :]
        return len(data)

    def truncate(self, length: int) -> None:
        self.disk.files[self.path] = self.disk.files[self.path][:length].ljust(length, b"\0")

    def version(self) -> object:
        return self.path

    def identity(self) -> object:
        return self.path

    def info(self) -> None:
        return None

    def allocate(self, mode: int, offset: int, length: int) -> None: ...
    def flush(self) -> None: ...
    def sync(self, *, data_only: bool = False) -> None:
        self.disk.synced.append(self.path)

    def when_closed(self, callback: Callable[[], object]) -> None:
        self.callbacks.append(callback)

    def close(self) -> None:
        for callback in self.callbacks:
            callback()


class Disk:
    """A store in memory, as much as the tree asks of one."""

    def __init__(self, *, in_cloud: bool, name: str = "set") -> None:
        self.in_cloud = in_cloud
        self.location = CloudLocation("bucket", name) if in_cloud else LocalLocation(f"/data/{name}")
        self.files: dict[str, bytes] = {}
        self.folders = {""}
        self.links: dict[str, str] = {}
        self.synced: list[str] = []

    def stat(self, path: str) -> ObjectInfo:
        if path in self.folders:
            return info_of(path, Kind.FOLDER)
        if path in self.links:
            return info_of(path, Kind.SYMLINK)
        if path in self.files:
            return info_of(path, Kind.FILE, self.files[path])
        raise NotFound(path)

    def open(self, info: ObjectInfo) -> Source:
        return Source(self, info.path)

    def follow_link(self, path: str) -> LinkTarget:
        target = join(parent_of(path), self.links[path])
        if target in self.files:
            return LinkTarget("file", self.stat(target))
        return LinkTarget("other", self.stat(target)) if target in self.folders else LinkTarget("broken")

    def read_link(self, path: str) -> str:
        return self.links[path]

    def list_xattrs(self, path: str) -> list[str]:
        return []


class Recorder:
    """A writer that notes what it is asked, and does it in memory."""

    def __init__(self, disk: Disk, index: Index) -> None:
        self.disk = disk
        self.index = index
        self.calls: list[tuple[Any, ...]] = []
        self.records: dict[str, dict[str, DatafileMetadata]] = {}
        self.kept: list[tuple[str, bytes]] = []
        self.documents: dict[str, bytes] = {}
        self.failing: dict[str, OctuefsError] = {}
        self.opened: list[int] = []
        self.pending: set[str] = set()
        """Folders of a disk whose `.octue` is still to be written."""

    def note(self, *call: Any) -> None:
        self.calls.append(call)

    def seen(self, path: str, metadata: DatafileMetadata = NO_METADATA) -> Change:
        info = self.disk.stat(path)
        if info.kind is Kind.FOLDER:
            return FolderSeen(info)
        if info.kind is Kind.SYMLINK:
            target = self.disk.follow_link(path)
            if target.kind == "other":
                return OtherSeen(info)
            return DatafileSeen(Datafile(info, self.disk.location, metadata, target.info))
        if name_of(path) == ".octue":
            return OtherSeen(info)
        return DatafileSeen(Datafile(info, self.disk.location, metadata, info))

    def metadata_of(self, path: str) -> DatafileMetadata:
        entry = self.index.entry(path)
        assert isinstance(entry, Datafile), path
        return entry.metadata

    def open(self, info: ObjectInfo, flags: int) -> Source:
        self.opened.append(flags)
        if flags & os.O_TRUNC:
            self.disk.files[info.path] = b""
        return Source(self.disk, info.path)

    def create(self, path: str, flags: int, mode: int, caller: Caller, change: MetadataChange = NO_CHANGE) -> Source:
        self.note("create", path)
        if path in self.disk.files or path in self.disk.folders:
            if flags & os.O_EXCL:
                raise AlreadyExists(path)
            return Source(self.disk, path)
        self.disk.files[path] = b""
        waiting = self.records.get(parent_of(path), {}).pop(name_of(path), NO_METADATA)
        self.index.publish([self.seen(path, change.apply(waiting))])
        return Source(self.disk, path)

    def current(self, info: ObjectInfo) -> ObjectInfo:
        return info

    def truncate(self, path: str, length: int) -> None:
        self.note("truncate", path, length)

    def make_folder(self, path: str, mode: int, caller: Caller) -> None:
        self.note("make_folder", path)
        if path in self.disk.folders or path in self.disk.files:
            raise AlreadyExists(path)
        self.disk.folders.add(path)
        self.index.publish([self.seen(path)])

    def remove_folder(self, path: str) -> None:
        self.note("remove_folder", path)
        if path not in self.disk.folders:
            raise NotFound(path)
        if any(it.startswith(path + "/") for it in (*self.disk.files, *self.disk.folders)):
            raise NotEmpty(path)
        self.disk.folders.remove(path)
        self.index.publish([Removed(path)])

    def make_link(self, path: str, target: str, caller: Caller) -> None:
        self.note("make_link", path, target)
        self.disk.links[path] = target
        self.index.publish([self.seen(path)])

    def make_special(self, path: str, mode: int, device: int, caller: Caller) -> None:
        self.note("make_special", path)
        self.index.publish([OtherSeen(info_of(path, Kind.SPECIAL))])

    def link(self, old: str, new: str) -> None:
        self.note("link", old, new)
        self.disk.files[new] = self.disk.files[old]
        self.index.publish([self.seen(new)])

    def remove(self, path: str) -> None:
        self.note("remove", path)
        if self.disk.files.pop(path, None) is None and self.disk.links.pop(path, None) is None:
            raise NotFound(path)
        self.index.publish([Removed(path)])

    def rename(self, old: str, new: str, *, replace: bool = True, change: MetadataChange = NO_CHANGE) -> None:
        self.note("rename", old, new)
        if not replace and (new in self.disk.files or new in self.disk.folders):
            raise AlreadyExists(new)
        if old in self.disk.files:
            target = self.index.entry(new)
            waiting = self.records.get(parent_of(new), {}).pop(name_of(new), NO_METADATA)
            beneath = target.metadata if isinstance(target, Datafile) else waiting
            metadata = change.apply(over(self.metadata_of(old), beneath))
            self.disk.files[new] = self.disk.files.pop(old)
            self.index.publish([Removed(old), self.seen(new, metadata)])
            return
        moved = {it: self.metadata_of(it) for it in list(self.disk.files) if it.startswith(old + "/")}
        self.disk.folders = {new + it[len(old) :] if f"{it}/".startswith(old + "/") else it for it in self.disk.folders}
        for path in moved:
            self.disk.files[new + path[len(old) :]] = self.disk.files.pop(path)
        changes: list[Change] = [Removed(old), self.seen(new)]
        changes += [self.seen(new + path[len(old) :], metadata) for path, metadata in moved.items()]
        self.index.publish(changes)

    def set_mode(self, path: str, mode: int) -> None:
        self.note("set_mode", path, mode)

    def set_owner(self, path: str, uid: int, gid: int) -> None:
        self.note("set_owner", path, uid, gid)

    def set_times(self, path: str, times: Any) -> None:
        self.note("set_times", path)

    def set_xattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        self.note("set_xattr", path, name, value)

    def remove_xattr(self, path: str, name: str) -> None:
        self.note("remove_xattr", path, name)

    def describe(self, path: str, change: MetadataChange) -> None:
        if path in self.failing:
            raise self.failing[path]
        self.note("describe", path)
        self.index.publish([self.seen(path, change.apply(self.metadata_of(path)))])

    def describe_dataset(self, change: MetadataChange) -> None:
        self.note("describe_dataset")

    def store_document(self, folder: str, data: bytes) -> None:
        self.note("store_document", folder)
        document, problems = decode_octue(data)
        if problems:
            self.kept.append((folder, data))
            raise BadValue("; ".join(problems))
        self.documents[folder] = data
        if not self.disk.in_cloud:
            self.disk.files[join(folder, ".octue")] = encode_octue(document)
            self.index.publish([self.seen(join(folder, ".octue"))])
        for name, record in document.datafiles.items():
            path = join(folder, name)
            if path in self.disk.files:
                self.index.publish([self.seen(path, record)])
            else:
                self.records.setdefault(folder, {})[name] = record
        self.index.publish([FolderGone("")])

    def remove_document(self, folder: str) -> None:
        self.note("remove_document", folder)

    def waiting(self, folder: str) -> Mapping[str, DatafileMetadata]:
        return self.records.get(folder, {})

    def store_records(self, folder: str, records: Mapping[str, DatafileMetadata]) -> None:
        self.note("store_records", folder, sorted(records))
        self.records.setdefault(folder, {}).update(records)

    def write_document(self, folder: str) -> None:
        if folder in self.pending:
            self.pending.remove(folder)
            if not self.disk.in_cloud:
                self.disk.files[join(folder, ".octue")] = b"{}"
                self.index.publish([self.seen(join(folder, ".octue"))])

    def keep_text(self, path: str, data: bytes, reason: str) -> None:
        self.kept.append((path, data))

    def sync_state(self, path: str) -> str:
        return f"pending {path}"

    def sync_folder(self, path: str) -> None:
        self.note("sync_folder", path)
        if path not in self.disk.folders:
            raise NotFound(path)


@dataclass
class Entry:
    name: str
    size: int
    when: float


class Kept:
    """What is under `recovered/`."""

    def __init__(self) -> None:
        self.texts: dict[str, bytes] = {}

    def entries(self) -> list[Entry]:
        return [Entry(name, len(text), 5.5) for name, text in self.texts.items()]

    def open(self, name: str) -> Any:
        disk = Disk(in_cloud=False)
        disk.files[name] = self.texts[name]
        return Source(disk, name)

    def discard(self, name: str) -> None:
        if self.texts.pop(name, None) is None:
            raise NotFound(name)


class Calls:
    """System calls on paths, without a kernel, as a driver makes them."""

    operations: Operations

    def node(self, path: str) -> Node:
        node: Node = self.operations.root
        for name in filter(None, path.split("/")):
            node = self.operations.lookup(node, name)
        return node

    def place(self, path: str) -> tuple[Node, str]:
        return self.node(parent_of(path)), name_of(path)

    def exists(self, path: str) -> bool:
        try:
            self.node(path)
        except NotFound:
            return False
        return True

    def ls(self, path: str) -> list[str]:
        return [entry.name for entry in self.node(path).entries() if entry.name != ".octue"]

    def read(self, path: str) -> bytes:
        source = self.node(path).open()
        try:
            return source.read(0, 1 << 20)
        finally:
            source.close()

    def write(self, path: str, data: bytes = b"new", *, flags: int = 0) -> None:
        """What `cat > path` does, or `cp` with O_EXCL."""
        if self.exists(path):
            opened = self.operations.open(self.node(path), os.O_WRONLY | os.O_TRUNC | flags)
        else:
            opened = self.operations.create(*self.place(path), os.O_WRONLY | os.O_CREAT | flags, 0o644, CALLER)
        try:
            self.operations.write(opened.handle, 0, data)
            self.operations.flush(opened.handle)
        finally:
            self.operations.release(opened.handle)

    def rm(self, path: str) -> None:
        self.operations.unlink(*self.place(path))

    def mkdir(self, path: str) -> None:
        self.operations.mkdir(*self.place(path), 0o755, CALLER)

    def rmdir(self, path: str) -> None:
        self.operations.rmdir(*self.place(path))

    def mv(self, old: str, new: str, *, replace: bool = True) -> None:
        self.operations.rename(*self.place(old), *self.place(new), replace=replace)

    def ln(self, old: str, new: str) -> None:
        self.operations.link(*self.place(old), *self.place(new))

    def rm_r(self, path: str) -> None:
        """What `rm -r` does: each folder is listed before anything in it is removed."""
        entries = list(self.node(path).entries())
        # The worst order: the metadata is removed last.
        for entry in sorted(entries, key=lambda entry: entry.name == ".octue"):
            below = f"{path}/{entry.name}"
            if stat.S_ISDIR(entry.mode):
                self.rm_r(below)
            else:
                self.node(below)
                self.rm(below)
        self.rmdir(path)


class World(Calls):
    """A mounted dataset, without a kernel; where it is one of several, paths are those in it."""

    def __init__(
        self,
        *,
        in_cloud: bool = False,
        recursive: bool = True,
        views: bool = True,
        list_views: bool = False,
        name: str = "set",
        path: str = "",
    ) -> None:
        """`path` is where the dataset is in the mount; the control panel is at the root alone."""
        self.disk = Disk(in_cloud=in_cloud, name=name)
        self.index = Index()
        self.report = Report()
        store: Any = self.disk
        self.keeper = Keeper(store, self.report, self.index, recursive=recursive, metadata_ttl=float("inf"))
        self.dataset = Dataset(self.keeper, Hasher(store, self.index.publish_hash, None))
        self.writer = Recorder(self.disk, self.index)
        writer: Any = self.writer
        self.dataset.writer = writer
        self.kept = Kept()
        control = ControlFiles(lambda: b"{}", lambda: b"", lambda: None, self.kept)
        self.namespace = Namespace(
            self.dataset, None if path else control, views=views, list_views=list_views, path=path
        )
        self.operations = Operations(self.namespace, self.report)

    def close(self) -> None:
        self.dataset.hasher.close()
        self.keeper.close()

    def put(self, path: str, *labels: str, tags: Mapping[str, Any] | None = None, id: str | None = None) -> None:
        """Let a file stand in the dataset; its text is its path."""
        folder = parent_of(path)
        while folder:
            self.disk.folders.add(folder)
            folder = parent_of(folder)
        self.disk.files[path] = path.encode()
        metadata = DatafileMetadata(id=id, labels=frozenset(labels), tags=tags or {})
        self.index.publish([self.writer.seen(path, metadata)])

    # --- what came of it

    def labels(self, path: str) -> set[str]:
        return set(self.writer.metadata_of(path).labels)

    def tags(self, path: str) -> dict[str, Any]:
        return dict(self.writer.metadata_of(path).tags)

    def changes(self) -> list[tuple[Any, ...]]:
        """What the writer was asked since the last time."""
        calls, self.writer.calls = self.writer.calls, []
        return calls

    @contextmanager
    def refused(self, number: int, words: str = "") -> Iterator[None]:
        """The call fails with an errno, and the dataset is as it was."""
        before = (dict(self.disk.files), set(self.disk.folders), self.facts())
        with pytest.raises(OctuefsError) as failure:
            yield
        assert to_errno(failure.value) == number, failure.value
        assert words in str(failure.value)
        assert (dict(self.disk.files), set(self.disk.folders), self.facts()) == before

    def facts(self) -> dict[str, DatafileMetadata]:
        return {datafile.path: datafile.metadata for datafile in self.index.members("", ())}
