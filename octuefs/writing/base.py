"""What changes a dataset: the `Writer` that the tree calls, and the open files that it gives out.

Operations come down through nodes, which say *what they mean* (a path of the dataset and a change of its metadata);
a writer makes it so in the store, publishes the new facts to the index before it returns, and raises one of
`octuefs.errors` where it cannot, with nothing half-done. Any thread may call.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from octuefs.model.changes import MetadataChange
from octuefs.model.metadata import DatafileMetadata
from octuefs.stores.base import ByteSource, DiskSource, ObjectInfo
from octuefs.stores.writing import Times


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: what is made belongs to them where the store keeps owners."""

    uid: int
    gid: int


NO_CHANGE = MetadataChange()


@dataclass(frozen=True, slots=True)
class Pending:
    """Content that is on its way: how many bytes it has, and how many of them the store has got."""

    path: str
    size: int
    sent: int


class OpenFile(ByteSource, Protocol):
    """A file open for reading, writing or both; all handles of one file see each other's writes.

    `info()` tells of what was written and not stored yet too, and of no links once the name was removed.
    """

    def write(self, offset: int, data: bytes) -> int:
        """Write all of `data` at `offset`, or at the end where it was opened with O_APPEND; return the number."""
        ...

    def truncate(self, length: int) -> None:
        """Cut or extend to `length` bytes."""
        ...

    def allocate(self, mode: int, offset: int, length: int) -> None:
        """fallocate(2).

        :raise Unsupported: for a mode that the store does not know
        """
        ...

    def flush(self) -> None:
        """close(2), once for each descriptor: what was written is in the store when this returns.

        :raise Conflict: where another version stands there; what was written is kept under `recovered/`
        """
        ...

    def sync(self, *, data_only: bool = False) -> None:
        """fsync(2): the same, and durable; metadata set before it included."""
        ...

    def when_closed(self, callback: Callable[[], object]) -> None:
        """Have `callback` called once this is closed."""
        ...


@runtime_checkable
class DiskOpenFile(DiskSource, OpenFile, Protocol):
    """An open file of a disk, which may be written to through its descriptor besides."""

    def mark_written(self) -> None:
        """Take note that somebody writes through the descriptor: the next flush looks at what came of it.

        As with any user's write setuid and setgid go.
        """
        ...

    def copy_from(self, source: DiskSource, offset: int, to_offset: int, length: int) -> int:
        """copy_file_range(2) out of another open file of a disk; return how many bytes are copied.

        :raise Unsupported: for files that are to be read and written instead
        """
        ...


@runtime_checkable
class Unnamed(Protocol):
    """What an open file can be told when its name is gone, and with it the way of all other changes."""

    def set_mode(self, mode: int) -> None:
        """fchmod(2)."""
        ...

    def set_owner(self, uid: int, gid: int) -> None:
        """fchown(2); -1 leaves one as it is."""
        ...

    def set_times(self, times: Times) -> None:
        """futimens(2)."""
        ...


class Writer(Protocol):
    """Changes one dataset."""

    def open(self, info: ObjectInfo, flags: int) -> OpenFile:
        """Open the file that `info` describes; of `flags` access mode, O_TRUNC and O_APPEND count (open(2))."""
        ...

    def create(self, path: str, flags: int, mode: int, caller: Caller, change: MetadataChange = NO_CHANGE) -> OpenFile:
        """Make a file and open it; `change` is made to the metadata that it begins with.

        Metadata that waited for the name, or that it had within the last 15 s, is taken.

        :raise AlreadyExists: with O_EXCL, where something stands there
        """
        ...

    def current(self, info: ObjectInfo) -> ObjectInfo:
        """Return what stands at `info.path` now, as stat(2) must tell it; `info` is what the index knows.

        :raise NotFound: where it has gone
        """
        ...

    def truncate(self, path: str, length: int) -> None:
        """truncate(2): durable in the store when it returns, or part of what handles of the file have open."""
        ...

    def make_folder(self, path: str, mode: int, caller: Caller) -> None:
        """mkdir(2)."""
        ...

    def remove_folder(self, path: str) -> None:
        """rmdir(2).

        :raise NotEmpty: where anything is left in it
        """
        ...

    def make_link(self, path: str, target: str, caller: Caller) -> None:
        """symlink(2)."""
        ...

    def make_special(self, path: str, mode: int, device: int, caller: Caller) -> None:
        """mknod(2) of anything but a regular file."""
        ...

    def link(self, old: str, new: str) -> None:
        """link(2)."""
        ...

    def remove(self, path: str) -> None:
        """unlink(2): the file and its record; those who have it open go on."""
        ...

    def rename(self, old: str, new: str, *, replace: bool = True, change: MetadataChange = NO_CHANGE) -> None:
        """rename(2) of a file or folder with its metadata; `change` is made to a file's on the way.

        Over another file the fields set on the source win, those it lacks are kept, the target's ID too. `old` may
        be `new` where there is a `change`.
        """
        ...

    def set_mode(self, path: str, mode: int) -> None:
        """chmod(2)."""
        ...

    def set_owner(self, path: str, uid: int, gid: int) -> None:
        """chown(2); -1 leaves one as it is."""
        ...

    def set_times(self, path: str, times: Times) -> None:
        """utimensat(2)."""
        ...

    def set_xattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        """Set a foreign `user.*` attribute.

        :raise Unsupported: where the store keeps none
        """
        ...

    def remove_xattr(self, path: str, name: str) -> None:
        """Remove a foreign `user.*` attribute."""
        ...

    def describe(self, path: str, change: MetadataChange) -> None:
        """Change the metadata of the datafile at `path`; a first one is stored with its ID and our version.

        :raise Conflict: where the same field was changed by another
        """
        ...

    def describe_dataset(self, change: MetadataChange) -> None:
        """Change the dataset's own metadata."""
        ...

    def store_document(self, folder: str, data: bytes) -> None:
        """Take the text of a folder's `.octue` as it was written: its records replace those of the folder's files.

        :raise BadValue: where it is malformed; it is kept under `recovered/`
        """
        ...

    def remove_document(self, folder: str) -> None:
        """Remove a folder's `.octue`: the metadata of its files, in the root the dataset's too."""
        ...

    def waiting(self, folder: str) -> Mapping[str, DatafileMetadata]:
        """Return the records that wait for files of a folder that do not exist yet."""
        ...

    def store_records(self, folder: str, records: Mapping[str, DatafileMetadata]) -> None:
        """Let records, by basename, wait for files of a folder that do not exist yet; all others stay as they are."""
        ...

    def write_document(self, folder: str) -> None:
        """See to it that a folder's `.octue` on a disk says all that was set, for somebody is about to look at it."""
        ...

    def keep_text(self, path: str, data: bytes, reason: str) -> None:
        """Keep under `recovered/` what could not be stored at `path`."""
        ...

    def sync_state(self, path: str) -> str:
        """Return `clean`, `pending`, or `failed: why`."""
        ...

    def sync_folder(self, path: str) -> None:
        """fsync(2) of a folder: names and metadata of its files are durable."""
        ...

    def status(self) -> Mapping[str, Any]:
        """Return what `.octuefs/status` says under "writing"."""
        ...

    def pending(self) -> Sequence[Pending]:
        """Return what was written and is not stored yet."""
        ...

    def drain(self, seconds: float | None = None) -> int:
        """Wait until all that is pending is stored, at most `seconds`; return how many files are left."""
        ...

    def close(self) -> None:
        """Store what is left as far as it goes without waiting long; the rest stays in the journal."""
        ...
