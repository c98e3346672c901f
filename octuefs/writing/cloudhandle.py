"""A handle of a file of a cloud dataset: the `OpenFile` that a program's descriptor leads to."""

import threading
from collections.abc import Callable, Hashable
from typing import Protocol

from octuefs.errors import Conflict, NotPermitted, Unsupported
from octuefs.stores.base import ByteSource, ObjectInfo, as_ready
from octuefs.stores.writing import Times
from octuefs.writing.cloudfile import CloudFile
from octuefs.writing.contents import Content

OpenObject = Callable[[ObjectInfo, Callable[[], object]], ByteSource]
"""Opens an object for reading; the callable is called where it turns out to be gone."""


class Keeper(Protocol):
    """What stores files, and forgets those that nobody has open (`cloudfiles.py`)."""

    def flush(self, file: CloudFile, *, durable: bool) -> None:
        """Store what was written; `durable` in the bucket in any case."""
        ...

    def release(self, file: CloudFile, *, writable: bool, flushed: bool) -> None:
        """Take note that a handle was closed, and whether it ever was `flushed`."""
        ...


class CloudHandle:
    """One opening of a file. A file that is stored is read from the bucket."""

    def __init__(
        self,
        open_object: "OpenObject",
        file: CloudFile,
        keeper: Keeper,
        gone: Callable[[str], object],
        *,
        writable: bool,
        appends: bool,
    ) -> None:
        """`open_object` opens what the bucket has; `gone` is told the path of an object whose generation is gone."""
        self._open_object = open_object
        self._file = file
        self._keeper = keeper
        self._gone = gone
        self._writable = writable
        self._appends = appends
        self._lock = threading.Lock()  # guards all below, for memory work alone
        self._reader: ByteSource | None = None
        self._reads: ObjectInfo | None = None
        """The object that the reader reads."""
        self._outdated: list[ByteSource] = []
        """Readers of earlier objects, which reads under way may have; closed with the handle."""
        self._closed = False
        self._flushed = False
        self._when_closed: list[Callable[[], object]] = []

    # --- reading

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only at the end of the file.

        :raise Conflict: where the version that was opened is gone
        """
        file = self._file
        while True:
            content, base = file.content, file.base  # in this order: what replaces a content is there before it goes
            try:
                return self._read(content, base, offset, size)
            except ValueError:  # the content was closed
                if file.content is content:
                    raise
            except Conflict:  # by ourselves, it may be: an append that is just being stored, a rename
                if not file.has_moved_on(base):
                    raise

    def read_now(self, offset: int, room: memoryview) -> int | None:
        """See `ReadySource`: bytes of a file that is stored as it is may be at hand."""
        content, base = self._file.content, self._file.base
        if content is not None or base is None or self._file.failure is not None:
            return None
        reader = as_ready(self._reader_of(base))
        count = reader.read_now(offset, room) if reader is not None else None
        return count if self._file.content is None and self._file.base is base else None

    def _read(self, content: Content | None, base: ObjectInfo | None, offset: int, size: int) -> bytes:
        first = content.first if content is not None else offset + size
        before = b""
        if offset < first:
            self._file.check()
            before = self._reader_of(base).read(offset, min(size, first - offset))
        if content is None or len(before) == size or offset + len(before) < first:
            return before
        return before + content.staged.read(offset + len(before), size - len(before))

    def _reader_of(self, base: ObjectInfo | None) -> ByteSource:
        assert base is not None, "a file has content or an object, or it has failed"
        with self._lock:
            if self._reader is None or self._reads is not base:
                path = base.path
                before = self._reader
                self._reader = self._open_object(base, lambda: self._gone(path))
                self._reads = base
                if before is not None:
                    self._outdated.append(before)
            return self._reader

    def version(self) -> Hashable:
        """Return the version of the file as it is now."""
        return self._file.version()

    def identity(self) -> Hashable:
        """Return which file is open."""
        return self._file.number

    def info(self) -> ObjectInfo:
        """Describe the file as it is now."""
        return self._file.info()

    # --- writing

    def write(self, offset: int, data: bytes) -> int:
        """Write all of `data` at `offset`, or at the end where it was opened with O_APPEND; return the number."""
        return self._file.write(None if self._appends else offset, data)

    def truncate(self, length: int) -> None:
        """Cut or extend to `length` bytes."""
        self._file.truncate(length)

    def allocate(self, mode: int, offset: int, length: int) -> None:
        """fallocate(2), mode 0 only.

        :raise Unsupported: for every other mode
        """
        if mode:
            raise Unsupported(f"{self._file.path}: space can only be allocated (fallocate mode 0) in a cloud dataset")
        self._file.allocate(offset, length)

    # --- a file without a name

    def set_mode(self, mode: int) -> None:
        """See `Unnamed`."""
        self._file.set_unnamed(mode=mode)

    def set_owner(self, uid: int, gid: int) -> None:
        """See `Unnamed`: succeed where it belongs to them already, for no owners are kept.

        :raise NotPermitted: for others
        """
        info = self._file.info()
        if uid not in (-1, info.uid) or gid not in (-1, info.gid):
            raise NotPermitted(f"{self._file.path}: a bucket keeps no owners; all belongs to who mounted")

    def set_times(self, times: Times) -> None:
        """See `Unnamed`: a bucket keeps no times of access."""
        self._file.set_unnamed(mtime_ns=times[1])

    # --- closing

    def flush(self) -> None:
        """close(2), once for each descriptor."""
        self._flushed = True
        if self._writable:
            self._keeper.flush(self._file, durable=False)

    def sync(self, *, data_only: bool = False) -> None:
        """fsync(2): what was written is in the bucket when it returns."""
        if self._writable:
            self._keeper.flush(self._file, durable=True)

    def when_closed(self, callback: Callable[[], object]) -> None:
        """See `OpenFile`."""
        self._when_closed.append(callback)

    def close(self) -> None:
        """Give the handle back; what was written since the last flush is stored in the background.

        An empty new file that never was flushed is one of mknod(2), and stored when this returns.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            readers = [*self._outdated, *([self._reader] if self._reader is not None else [])]
        for reader in readers:
            reader.close()
        try:
            self._keeper.release(self._file, writable=self._writable, flushed=self._flushed)
        finally:
            for callback in self._when_closed:
                callback()
