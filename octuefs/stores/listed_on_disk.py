"""Files of this machine that a dataset names in a list: each described and opened wherever it is.

A path is followed to the file itself, through symbolic links too, as whoever made the list named it; but never into
our own mount, which would wait for itself. The metadata are those of the `.octue` in the folder that the list names,
as the SDK reads them.
"""

import errno
import logging
import os
import threading
import zlib
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from octuefs.errors import BadValue, IsADirectory, NotFound, OctuefsError, from_os_error
from octuefs.model.given import as_custom_metadata, with_given
from octuefs.model.listed_files import FileEntry
from octuefs.model.paths import METADATA_NAME, LocalLocation
from octuefs.model.values import MAX_DEPTH, check_depth, load_json
from octuefs.report import printable
from octuefs.stores.base import ByteSource, DiskSource, Kind, ObjectInfo, Store
from octuefs.stores.links import real_path
from octuefs.stores.members import MemberSource, number_of

logger = logging.getLogger(__name__)

_ROOT = LocalLocation("/")
_LARGEST_RECORDS = 1 << 30
_LEVELS_ABOVE_FIELDS = 3

Records = Mapping[str, Any]
"""The raw JSON of a folder's records by name."""
_NO_RECORDS: Records = {}


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder as it was a moment ago: where it really is, and what its `.octue` says of its files."""

    path: str
    records: Records


class DiskFiles:
    """Describes and opens listed files of this machine."""

    def __init__(self, open_folder: Callable[[LocalLocation], Store], avoid: str | None = None) -> None:
        """`open_folder` makes the store that everything is read through; `avoid` is the mount point."""
        self._open_folder = open_folder
        self._avoid = os.path.realpath(avoid) if avoid is not None else None
        self._lock = threading.Lock()  # guards the two below
        self._store: Store | None = None
        self._documents: dict[str, tuple[Hashable, Records]] = {}

    def close(self) -> None:
        """Give back the descriptor; a later use opens it again."""
        with self._lock:
            store, self._store = self._store, None
        if store is not None:
            store.close()

    def _disk(self) -> Store:
        with self._lock:
            if self._store is None:
                self._store = self._open_folder(_ROOT)
            return self._store

    def describe(self, place: str, member: FileEntry, seen: dict[str, Folder]) -> ObjectInfo:
        """Return a file under its `place` in the dataset; `seen` remembers folders from one member to the next.

        Its version is that of the disk, and a checksum of its metadata.

        :raise OctuefsError: where no file is there, or it may not be read
        """
        folder, name = os.path.split(member.path)
        if folder not in seen:
            seen[folder] = self._folder(folder)
        found = self._file(seen[folder], name, member.path)
        record = seen[folder].records.get(name)
        custom = with_given(as_custom_metadata(record) if isinstance(record, dict) else {}, member.given)
        return _as_member(found, place, member.path, custom)

    def open(self, member: FileEntry, info: ObjectInfo) -> ByteSource:
        """Open the file that stands there now; what `info` says of its metadata stays in its version.

        :raise OctuefsError: where it is gone, or may not be read
        """
        folder, name = os.path.split(member.path)
        found = self._file(Folder(self._real(folder), _NO_RECORDS), name, member.path)
        source = self._disk().open(found)
        assert isinstance(source, DiskSource), "a folder's store opens files of a disk"
        return _ListedFile(source, info)

    def _file(self, folder: Folder, name: str, path: str) -> ObjectInfo:
        """Return the regular file that `path` leads to, as the store of the whole disk describes it."""
        disk = self._disk()
        found = disk.stat(os.path.join(folder.path, name)[1:])
        if found.kind is Kind.SYMLINK:
            found = disk.stat(self._real(path)[1:])
        if found.kind is Kind.FOLDER:
            raise IsADirectory(f"{path}: a folder, where a file is listed")
        if found.kind is not Kind.FILE:
            raise NotFound(f"{path}: no regular file")
        return found

    def _folder(self, path: str) -> Folder:
        real = self._real(path)
        return Folder(real, self._records(real))

    def _real(self, path: str) -> str:
        """Return a path without symbolic links.

        :raise OctuefsError: where it leads to nothing, or into our own mount
        """
        try:
            return real_path(path, self._avoid)[0]
        except OSError as error:
            if error.errno == errno.EDEADLK:
                raise NotFound(f"{path}: it lies in this very mount") from None
            raise from_os_error(error, path) from None

    def _records(self, folder: str) -> Records:
        """Return what a folder's `.octue` says of its files, read again where it has changed."""
        path = os.path.join(folder, METADATA_NAME)
        disk = self._disk()
        try:
            version = disk.stat(path[1:]).version
        except OctuefsError:
            return _NO_RECORDS
        with self._lock:
            known = self._documents.get(folder)
        if known is None or known[0] != version:
            known = (version, self._read_records(path))
            with self._lock:
                self._documents[folder] = known
        return known[1]

    def _read_records(self, path: str) -> Records:
        try:
            content = load_json(self._disk().read_small(path[1:], _LARGEST_RECORDS).decode("utf-8"))
            check_depth(content, MAX_DEPTH + _LEVELS_ABOVE_FIELDS)
            records = content.get("datafiles") if isinstance(content, dict) else None
            if not isinstance(content, dict) or not isinstance(records, dict | None):
                raise BadValue("it holds no records")
            return records or _NO_RECORDS
        except (OctuefsError, UnicodeDecodeError) as error:
            logger.warning("%s: it counts as no metadata: %s", printable(path), error)
            return _NO_RECORDS


def _as_member(found: ObjectInfo, place: str, origin: str, custom: Mapping[str, str]) -> ObjectInfo:
    assert isinstance(found.version, tuple)
    checksum = zlib.crc32(repr(sorted(custom.items())).encode("utf-8", "surrogatepass")) if custom else 0
    return found._replace(
        path=place,
        origin=origin,
        links=1,  # it has one place in the dataset, whatever names it has on the disk
        inode=number_of(origin),
        version=(*found.version, checksum),
        custom_metadata=custom,
    )


class _ListedFile(MemberSource):
    """A `DiskSource` that goes by its place in a dataset, and may change while it is open."""

    def __init__(self, source: DiskSource, info: ObjectInfo) -> None:
        super().__init__(source, info)
        self._file = source

    def read_now(self, offset: int, room: memoryview) -> int | None:
        """See `DiskSource`."""
        return self._file.read_now(offset, room)

    def lend(self) -> AbstractContextManager[int]:
        """See `DiskSource`."""
        return self._file.lend()

    def version(self) -> Hashable:
        """Return the version of the open file as it stands now, with the checksum of the metadata that it had."""
        return (*_numbers(self._source.version()), *_numbers(self._info.version)[-1:])

    def info(self) -> ObjectInfo | None:
        """Describe the open file as it is now, under its place."""
        found = self._source.info()
        if found is None or self._info.origin is None:
            return found
        return _as_member(found, self._info.path, self._info.origin, self._info.custom_metadata or {})


def _numbers(version: Hashable) -> tuple[object, ...]:
    assert isinstance(version, tuple)
    return version
