"""What a store is to the rest of octuefs: a place that lists, describes and reads the files of a dataset.

Who calls: `dataset.py` for facts (`scan`, `stat`), `content/` for bytes (`open`). What leaves: `ObjectInfo`
values and bytes. Every exception that leaves is one of `octuefs.errors`. Stores are safe to use from any
thread and know nothing of datasets' metadata, views or caches.
"""

import enum
import os
from collections.abc import Hashable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Literal, NamedTuple, Protocol, cast, runtime_checkable

from octuefs.model.paths import Location


class Kind(enum.Enum):
    """What stands at a path."""

    FILE = "file"
    FOLDER = "folder"
    SYMLINK = "symlink"
    SPECIAL = "special"
    """A FIFO, socket or device: listed, but never a datafile."""


NO_PROPERTIES: Mapping[str, str] = {}
"""The properties of what has none."""


class ObjectInfo(NamedTuple):
    """One file, folder or link as the store describes it.

    `path` is relative to the dataset; sizes are in bytes, times in nanoseconds since the epoch. `version`
    changes whenever content or metadata may have: (generation, metageneration, checksum of the custom
    metadata) in the cloud, zeros for a folder that is only implied, and (device, inode, size,
    mtime_ns, ctime_ns) on a disk. `mode` holds type and permission bits as st_mode does.
    `crc32c` is known where the store keeps it. `custom_metadata` is an object's own, None on a disk.
    """

    path: str
    kind: Kind
    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    uid: int
    gid: int
    inode: int
    links: int
    version: Hashable
    crc32c: int | None = None
    custom_metadata: Mapping[str, str] | None = None
    device: int = 0
    """The device number of a special file (st_rdev)."""
    blocks: int | None = None
    """Blocks of 512 bytes that a disk spends on it (st_blocks); None where the store does not say."""
    properties: Mapping[str, str] = NO_PROPERTIES
    """What an object store keeps for readers besides the bytes: those of contentType, contentEncoding,
    contentDisposition, contentLanguage and cacheControl that are set. Objects share these mappings."""
    origin: str | None = None
    """Where the bytes really live, for a file that a dataset names in a list: an absolute local path, a gs:// path, or
    a URL without its query. None where they live at `path` in the dataset's location."""

    @property
    def is_listed_on_disk(self) -> bool:
        """True for a file of a disk that a dataset names in a list; such a dataset may lie in the cloud otherwise."""
        return self.origin is not None and self.origin.startswith("/")

    @property
    def content_version(self) -> Hashable:
        """The part of `version` that changes with the bytes: that of a disk's file in a list tells metadata besides."""
        return self.version[:5] if self.is_listed_on_disk and isinstance(self.version, tuple) else self.version


@dataclass(frozen=True, slots=True)
class Ownership:
    """To whom files and folders belong in a store that keeps no owners, and their modes where none are stored."""

    uid: int = field(default_factory=os.getuid)
    gid: int = field(default_factory=os.getgid)
    file_mode: int = 0o644
    dir_mode: int = 0o755


@dataclass(frozen=True, slots=True)
class Access:
    """With what rights buckets are asked; without any of these, with the Application Default Credentials.

    `key_file` is the path of other credentials; `billing_project` pays for the requests (requester pays);
    `impersonate` is the e-mail address of a service account to act as.
    """

    anonymous: bool = False
    key_file: str | None = None
    billing_project: str | None = None
    impersonate: str | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something in the store that cannot be shown, with the reason in words."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Space:
    """Room in the store as statvfs(3) counts it: bytes and inodes, all and free."""

    total_bytes: int
    free_bytes: int
    total_files: int
    free_files: int


class ByteSource(Protocol):
    """An open version of one file. Safe to use from several threads at once."""

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only at the end of the file.

        :raise Conflict: where this version is gone
        """
        ...

    def version(self) -> Hashable:
        """Return the version of what is open, as it stands now; compare with `ObjectInfo.version`."""
        ...

    def identity(self) -> Hashable:
        """Return which file is open, whatever was written to it: those of one identity have the same bytes."""
        ...

    def info(self) -> ObjectInfo | None:
        """Describe the open file as it is now, also after its name was removed; None for what no store has."""
        ...

    def close(self) -> None:
        """Give back what the source holds."""
        ...


@runtime_checkable
class StreamSource(ByteSource, Protocol):
    """An open object of a cloud store, whose bytes never change: it is received in order, and known in a cache."""

    def stream(self, offset: int, end: int, *, background: bool = False) -> Iterator[bytes]:
        """Yield the bytes from `offset` to before `end` (at most the object's), in pieces of 1 MiB or so, all of them.

        Who leaves the iteration early ends the request. In the `background` it leaves its place to those who wait.

        :raise Conflict: where this version is gone
        """
        ...

    def cache_key(self) -> str | None:
        """Return what stands for these bytes wherever they are kept; None where the version is not known for sure."""
        ...


@runtime_checkable
class ReadySource(ByteSource, Protocol):
    """An open file some of whose bytes may be at hand."""

    def read_now(self, offset: int, room: memoryview) -> int | None:
        """Read what fits into `room` from `offset`, if that needs no waiting for the disk, and return its length.

        It is shorter than `room` only at the end of the file. None where some of it would have to be waited for, or
        where the system cannot say; `room` may have been written to then.
        """
        ...


@runtime_checkable
class DiskSource(ReadySource, Protocol):
    """An open file of a disk: a descriptor that can be read without being waited for, and lent."""

    def lend(self) -> AbstractContextManager[int]:
        """Lend the descriptor for as long as the context lasts; its position counts for nothing.

        An OSError in there leaves as ours.
        """
        ...


@cache
def _is_disk(kind: type) -> bool:
    return issubclass(kind, DiskSource)


@cache
def _is_ready(kind: type) -> bool:
    return issubclass(kind, ReadySource)


def as_disk(source: ByteSource | None) -> DiskSource | None:
    """Return a source as one of a disk where it is one, else None; asked of its class once, as that takes long."""
    kind: type = type(source)
    return cast(DiskSource, source) if _is_disk(kind) else None


def as_ready(source: ByteSource | None) -> ReadySource | None:
    """Return a source as one that may answer at once where it is one, else None."""
    kind: type = type(source)
    return cast(ReadySource, source) if _is_ready(kind) else None


@dataclass(frozen=True, slots=True)
class LinkTarget:
    """Where a symbolic link of a dataset leads.

    "file": to the regular file `info` inside the dataset; "other": to something inside it that is no
    regular file; "broken": nowhere or out of the dataset, `reason` says which.
    """

    kind: Literal["file", "other", "broken"]
    info: ObjectInfo | None = None
    reason: str = ""


class LinkSigner(Protocol):
    """Makes links by which anybody may read one object for a while. Safe to use from several threads at once."""

    @property
    def account(self) -> str:
        """The service account whose right to read the links carry."""
        ...

    @property
    def asks(self) -> bool:
        """True where each signature is a request to Google, whose own keys sign: for 12 hours at least, no longer."""
        ...

    def link(self, bucket: str, name: str, lifetime: timedelta) -> str:
        """Return a link to an object, a secret.

        :raise OctuefsError: where it cannot be signed
        """
        ...

    def check(self, link: str, subject: str) -> None:
        """See that a link is no dead one, where its server answers; `subject` is what it leads to.

        :raise PermissionRefused: where the account may not read that, or nobody pays for it
        """
        ...


class Store(Protocol):
    """A place where a dataset lives."""

    location: Location

    @property
    def in_cloud(self) -> bool:
        """True where metadata stands with each object, False where it stands in `.octue` files."""
        ...

    def check(self) -> None:
        """Raise where the dataset's place does not exist or may not be read, naming it and the remedy."""
        ...

    def scan(self, folder: str = "", *, recursive: bool = True) -> Iterator[ObjectInfo | Skipped]:
        """Yield what stands in `folder`, and below it where `recursive`.

        A disk's folders come before their content. In the cloud all come in any order where `recursive`, and only
        those folders that have an object of their own; the others are implied by the paths.

        :raise NotFound: where the folder is not there
        """
        ...

    def stat(self, path: str) -> ObjectInfo:
        """Return what stands at `path` now; "" is the dataset's root, always a folder.

        :raise NotFound: where nothing does
        """
        ...

    def open(self, info: ObjectInfo) -> ByteSource:
        """Open for reading the version that `info` describes (a disk: the file that stands there now).

        In the cloud this asks nothing: an object that has gone shows as Conflict at the first read.

        :raise NotFound: where it is gone
        """
        ...

    def read_link(self, path: str) -> str:
        """Return the target of a symbolic link, as it is stored."""
        ...

    def follow_link(self, path: str) -> LinkTarget:
        """Return where a symbolic link leads, resolved beneath the dataset's root; never followed out of it."""
        ...

    def read_small(self, path: str, limit: int) -> bytes:
        """Return the content of a file of at most `limit` bytes as it is now.

        :raise BadValue: where it is larger
        """
        ...

    def get_xattr(self, path: str, name: str) -> bytes:
        """Return a foreign extended attribute, stored with the file.

        :raise NoAttribute: where there is none of that name
        :raise Unsupported: where the store keeps none
        """
        ...

    def list_xattrs(self, path: str) -> list[str]:
        """Return the names of the foreign `user.*` attributes stored with the file."""
        ...

    def space(self) -> Space:
        """Return how much room there is."""
        ...

    def reopen_if_replaced(self) -> bool:
        """Turn to the place that the location names now; True where another folder stands there than before."""
        ...

    def close(self) -> None:
        """Give back descriptors and connections."""
        ...
