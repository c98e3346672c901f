"""What stores take, beyond what they tell: a disk's calls, and the requests of an object store.

The writers (`octuefs.writing`) call; every exception that leaves is one of `octuefs.errors`. Paths are relative to
the dataset's root, "" is the root itself. Any thread may call, and no call here holds a lock while it waits.
"""

import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from octuefs.stores.base import DiskSource, ObjectInfo, Ownership, Store

Times = tuple[int | None, int | None]
"""(atime, mtime) in nanoseconds since the epoch; None leaves one as it is."""


def privileges_in(mode: int) -> int:
    """Return the bits of a mode that a write takes away: setuid, and setgid where it means to run as the group."""
    gone = mode & (stat.S_ISUID | stat.S_ISGID)
    return gone if mode & stat.S_IXGRP else gone & stat.S_ISUID


# --- a disk


class DiskFile(DiskSource, Protocol):
    """An open file of a disk; it owns its descriptor. Closing waits for the calls under way."""

    def copy_from(self, source: DiskSource, offset: int, to_offset: int, length: int) -> int:
        """copy_file_range(2) out of another open file of a disk; return how many bytes are copied.

        :raise Unsupported: for files that are to be read and written instead
        """
        ...

    def write(self, offset: int, data: bytes) -> int:
        """Write all of `data` at `offset` (at the end, wherever that is, where opened with O_APPEND)."""
        ...

    def truncate(self, length: int) -> None:
        """Cut or extend to `length` bytes (ftruncate(2))."""
        ...

    def allocate(self, mode: int, offset: int, length: int) -> None:
        """Do what fallocate(2) does, in every mode that the disk knows."""
        ...

    def sync(self, *, data_only: bool = False) -> None:
        """Return once content and attributes (or what is needed to read the content) are durable."""
        ...

    def info(self) -> ObjectInfo:
        """Describe the open file as it is now, by whatever name, under the path it was opened with."""
        ...

    def drop_privileges(self) -> None:
        """Take setuid and setgid away, as a write does, be it one that this does not see."""
        ...

    def set_mode(self, mode: int) -> None:
        """Do what fchmod(2) does."""
        ...

    def set_owner(self, uid: int, gid: int) -> None:
        """Do what fchown(2) does; -1 leaves one as it is."""
        ...

    def set_times(self, times: Times) -> None:
        """Do what futimens(2) does."""
        ...


class DiskStore(Store, Protocol):
    """A folder of a disk. Nothing is ever followed out of it; a symbolic link on the way is NotFound."""

    def open_file(self, path: str, flags: int, mode: int = 0) -> DiskFile:
        """Open a regular file as open(2) does with these flags (O_CREAT, O_EXCL, O_TRUNC, O_APPEND among them).

        A link at the end is followed inside of the dataset, unless O_CREAT or O_NOFOLLOW is given. `mode` counts as
        it is: the process's umask is 0.
        """
        ...

    def make_folder(self, path: str, mode: int) -> None:
        """mkdir(2)."""
        ...

    def make_link(self, path: str, target: str) -> None:
        """symlink(2)."""
        ...

    def make_special(self, path: str, mode: int, device: int) -> None:
        """mknod(2)."""
        ...

    def link(self, old: str, new: str) -> None:
        """link(2): another name for what stands at `old`, a symbolic link itself included."""
        ...

    def remove(self, path: str, *, keeps_time: bool = False) -> None:
        """unlink(2); with `keeps_time` the folder's mtime stays what it is, where we may set it."""
        ...

    def remove_folder(self, path: str) -> None:
        """rmdir(2)."""
        ...

    def rename(self, old: str, new: str, *, replace: bool = True) -> None:
        """rename(2), or renameat2(2) with RENAME_NOREPLACE."""
        ...

    def truncate(self, path: str, length: int) -> None:
        """truncate(2)."""
        ...

    def set_mode(self, path: str, mode: int) -> None:
        """chmod(2); ENOTSUP for a symbolic link."""
        ...

    def set_owner(self, path: str, uid: int, gid: int) -> None:
        """lchown(2); -1 leaves one as it is."""
        ...

    def set_times(self, path: str, times: Times) -> None:
        """utimensat(2) with AT_SYMLINK_NOFOLLOW."""
        ...

    def set_xattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        """lsetxattr(2); `flags` are XATTR_CREATE and XATTR_REPLACE."""
        ...

    def remove_xattr(self, path: str, name: str) -> None:
        """lremovexattr(2)."""
        ...

    def sync_folder(self, path: str) -> None:
        """fsync(2) of a folder."""
        ...

    def replace_file(self, path: str, data: bytes, *, keeps_time: bool = False) -> None:
        """Put a file with this content in the place of what stands at `path`, atomically and durably.

        The present file's permissions and owner are kept. Nobody ever sees a part of the content, and another name
        shows in the folder for a moment at most: `.octuefs-<uuid>.octue`. With `keeps_time` the folder's mtime stays
        what it is, where we may set it.
        """
        ...

    def locked(self, folder: str) -> AbstractContextManager[None]:
        """Hold the folder's lock (flock(2) on the folder itself) against other processes and threads."""
        ...


# --- an object store


@dataclass(frozen=True, slots=True)
class ObjectProperties:
    """What is stored along with an object's bytes: custom metadata, and the headers that Google keeps.

    `fixed` may hold contentType, contentEncoding, contentDisposition, contentLanguage and cacheControl.
    """

    custom_metadata: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Precondition:
    """The version that must stand there for a request to succeed; generation 0 means none, None does not ask."""

    generation: int | None = None
    metageneration: int | None = None


@dataclass(frozen=True, slots=True)
class UploadState:
    """How far a resumable upload is: the bytes the server has kept, and the object once it is complete."""

    offset: int
    done: ObjectInfo | None = None


@dataclass(frozen=True, slots=True)
class BucketFacts:
    """What a bucket can do: `composes` where parts may be joined and deleted, `has_folders` where it moves folders."""

    composes: bool
    has_folders: bool


Body = Callable[[int, int], bytes]
"""`body(offset, size)` reads the bytes to send, up to `size` of them; called from threads, again after a failure."""


class ObjectStore(Store, Protocol):
    """A prefix in a bucket. Every change carries its precondition; a failed one is a Conflict.

    A request whose answer was lost is tried again, and a 412 (a delete's 404) then may be our own doing: callers
    compare what stands there with what they sent before they call it a conflict (`stat` is theirs to ask).
    """

    @property
    def ownership(self) -> Ownership:
        """To whom all belongs, and the modes of what has none stored."""
        ...

    def bucket_facts(self) -> BucketFacts:
        """Say what the bucket can do; asked once and remembered."""
        ...

    def upload(
        self, path: str, body: Body, size: int, crc32c: int, properties: ObjectProperties, condition: Precondition
    ) -> ObjectInfo:
        """Store an object in one request, its checksum sent along and compared with the server's.

        :raise Conflict: where the precondition does not hold
        :raise ChecksumMismatch: where other bytes arrived
        """
        ...

    def begin_upload(self, path: str, properties: ObjectProperties, condition: Precondition) -> str:
        """Open a resumable session and return its URI, a secret that lasts a week."""
        ...

    def send(self, path: str, session: str, body: Body, start: int, end: int, *, total: int | None) -> UploadState:
        """Send bytes `start` to `end` of a session; with `total` the object is complete at its end.

        Without `total` the number of bytes is a multiple of 256 KiB. The state may tell of fewer bytes than were
        sent; after a failure `upload_state` says where to go on.

        :raise Conflict: where the precondition given at the beginning no longer holds
        :raise NotFound: where the session is gone
        """
        ...

    def upload_state(self, path: str, session: str) -> UploadState:
        """Ask how far a session is.

        :raise NotFound: where it is gone
        """
        ...

    def cancel_upload(self, session: str) -> None:
        """End a session; one that is gone is no failure."""
        ...

    def compose(
        self,
        path: str,
        sources: Sequence[tuple[str, int]],
        properties: ObjectProperties,
        condition: Precondition,
    ) -> ObjectInfo:
        """Join objects, (path, generation) each, into one on the server."""
        ...

    def rewrite(self, old: str, generation: int, new: str, condition: Precondition) -> ObjectInfo:
        """Copy an object on the server with all that is stored along; loops until the server is done.

        :raise NotFound: where that generation of the source is gone
        :raise Conflict: where the target's precondition does not hold
        """
        ...

    def patch(self, path: str, custom_metadata: Mapping[str, str | None], condition: Precondition) -> ObjectInfo:
        """Set some keys of the custom metadata and remove those that are None; the others stay."""
        ...

    def delete(self, path: str, condition: Precondition) -> None:
        """Remove an object.

        :raise NotFound: where there is none
        """
        ...

    def make_marker(self, folder: str) -> ObjectInfo:
        """Store the empty object `folder/` that makes an empty folder; one that is there already is returned."""
        ...

    def delete_marker(self, folder: str) -> None:
        """Remove that object; none there is no failure."""
        ...

    def rename_folder(self, old: str, new: str) -> None:
        """Move a folder in one operation of the server (where `bucket_facts().has_folders`)."""
        ...
