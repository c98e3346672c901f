"""Staged files: what is being written to a file of the cloud, on a local disk until it is stored.

A writer (`writing/`) makes one for an open file; libfuse's threads read and write it, an uploader reads it
meanwhile, and recovery opens again what a dead daemon has left. The local file is sparse and has each byte at its
own offset, so bytes that live elsewhere yet (`first`) can be brought in later without moving any.

The checksum grows with what is written in order, beginning at `first`, so that a file that was written once is not
read again. Calls that change a file go one after another, as the kernel has it for any file; reads, and the
questions an uploader asks, wait for nobody.
"""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from octuefs.content.pieces import copy_pieces
from octuefs.errors import ChecksumMismatch, OctuefsError, from_os_error
from octuefs.model.hashes import combine_crc32c, encode_crc32c, extend_crc32c
from octuefs.stores.writing import Body

_BLOCK_BYTES = 1 << 20


class StagedFile:
    """A sparse local file of mode 0600; holes are zeros. Any thread may call.

    Offsets and sizes are the whole file's. Calls that touch bytes before `first`, or a closed file, are mistakes of
    the caller: ValueError.
    """

    def __init__(self, path: Path, *, first: int = 0, existing: bool = False) -> None:
        """Make the file, or open an `existing` one, whose size and bytes from `first` on count.

        :param first: offset of the first byte that is staged; those before it live elsewhere (appending)
        :raise AlreadyExists: where a new one would replace another; NotFound where an existing one is gone
        """
        self.path = path
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (0 if existing else os.O_CREAT | os.O_EXCL)
        try:
            self._descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise self._failed(error) from error
        # Held by one change at a time, over its disk calls; taken before _lock.
        self._changing = threading.Lock()
        # Guards all below, and is never held over a disk call.
        self._lock = threading.Lock()
        self._first = first
        self._size = max(first, os.fstat(self._descriptor).st_size)
        # The checksum of [_first, _frontier), which counts while _in_order; nothing there has been changed since.
        self._frontier = first
        self._crc32c = 0
        self._in_order = True
        self._changes = 0
        self._rewrites = 0
        self._users = 0
        self._materialising = False
        self._closed = False
        self._name_is_durable = existing
        self._sync_failure: OSError | None = None

    # --- what it is now

    @property
    def first(self) -> int:
        """The offset of the first byte that is here."""
        return self._first

    @property
    def size(self) -> int:
        """The size of the whole file: `first` included."""
        return self._size

    @property
    def crc32c(self) -> int | None:
        """The checksum of all bytes from `first` on, None until `compute_crc32c` where it is not known."""
        with self._lock:
            return self._known()

    @property
    def written_in_order(self) -> int:
        """The end of what was written from `first` on without a gap and not changed since.

        It only grows as long as `rewrites` is the same. Who reads bytes before it, and finds `rewrites` unchanged
        after that, has what was written there.
        """
        with self._lock:
            return self._frontier if self._in_order else self._first

    @property
    def rewrites(self) -> int:
        """A number that grows before bytes ahead of `written_in_order` are changed or cut off."""
        return self._rewrites

    @property
    def changes(self) -> int:
        """A number for `unchanged_since`."""
        return self._changes

    def unchanged_since(self, changes: int) -> bool:
        """Say whether size and all bytes were the same ever since `changes` was read.

        Not where a change was under way at that time.
        """
        return changes % 2 == 0 and self._changes == changes  # odd while one is under way

    def _known(self) -> int | None:
        return self._crc32c if self._in_order and self._frontier == self._size else None

    # --- bytes

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only at the end of the file."""
        descriptor = self._enter(offset)
        try:
            return self._read(descriptor, offset, min(size, self._size - offset))
        except OSError as error:
            raise self._failed(error) from error
        finally:
            self._leave()

    def body(self) -> Body:
        """Return what an upload reads; the caller sees to it that the file is not closed meanwhile."""
        return self.read

    def write(self, offset: int, data: bytes) -> int:
        """Write all of `data` at `offset` and return its length.

        :raise LocalFailure: where the disk takes less (ENOSPC); the size is what it was before
        """
        descriptor = self._enter(offset)
        try:
            if data:
                with self._changing:
                    self._write(descriptor, offset, data)
            return len(data)
        finally:
            self._leave()

    def _write(self, descriptor: int, offset: int, data: bytes) -> None:
        end = offset + len(data)
        self._begin(offset)
        crc32c = None
        size = self._size
        try:
            _write_all(descriptor, offset, data)
            size = max(size, end)
            if self._in_order and offset == self._frontier:  # which only changes change
                crc32c = extend_crc32c(self._crc32c, data)
        except OSError as error:
            self._cut_growth(descriptor)
            raise self._failed(error) from error
        finally:
            with self._lock:
                self._size = size
                if crc32c is not None:
                    self._crc32c, self._frontier = crc32c, end
                self._changes += 1

    def truncate(self, length: int) -> None:
        """Cut or extend to `length` bytes."""
        descriptor = self._enter(length)
        try:
            with self._changing:
                if length != self._size:
                    self._truncate(descriptor, length)
        finally:
            self._leave()

    def _truncate(self, descriptor: int, length: int) -> None:
        self._begin(length)
        size = self._size
        try:
            os.ftruncate(descriptor, length)
            size = length
        except OSError as error:
            raise self._failed(error) from error
        finally:
            with self._lock:
                self._size = size
                if size == self._first:
                    self._in_order, self._frontier, self._crc32c = True, size, 0
                self._changes += 1

    def allocate(self, offset: int, length: int) -> None:
        """Have room for these bytes and extend the file to their end; those there stay (fallocate(2), mode 0).

        :raise LocalFailure: where there is no room (ENOSPC); the file is as it was
        """
        descriptor = self._enter(offset)
        try:
            with self._changing:
                self._allocate(descriptor, offset, length)
        finally:
            self._leave()

    def _allocate(self, descriptor: int, offset: int, length: int) -> None:
        end = max(self._size, offset + length)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, offset, length)
            elif end > self._size:  # macOS promises no room
                os.ftruncate(descriptor, end)
        except OSError as error:
            self._cut_growth(descriptor)
            raise self._failed(error) from error
        if end > self._size:
            with self._lock:
                self._size = end
                self._changes += 2

    def _begin(self, offset: int) -> None:
        """Begin to change bytes from `offset` on."""
        with self._lock:
            self._changes += 1
            if self._in_order and offset < self._frontier:
                self._rewrites += 1
                self._in_order = False

    def _cut_growth(self, descriptor: int) -> None:
        """Remove what a failed change has left behind the end, where a hole may be one day."""
        with suppress(OSError):
            if os.fstat(descriptor).st_size > self._size:
                os.ftruncate(descriptor, self._size)

    # --- checksum

    def compute_crc32c(self) -> int:
        """Return the checksum of all bytes from `first` on; reads those for which it is not known.

        It is of one state of the file, and kept until that changes.
        """
        descriptor = self._enter(self._first)
        try:
            changes = self._changes
            if changes % 2 == 0 and (crc32c := self._sum(descriptor, changes)) is not None:
                return crc32c
            with self._changing:  # others write on and on
                crc32c = self._sum(descriptor, self._changes)
                assert crc32c is not None
                return crc32c
        except OSError as error:
            raise self._failed(error) from error
        finally:
            self._leave()

    def _sum(self, descriptor: int, changes: int) -> int | None:
        """Sum up the state that `changes` stands for and remember it; None where another has come meanwhile."""
        with self._lock:
            if self._changes != changes:
                return None
            first, end = self._first, self._size
            start, crc32c = (self._frontier, self._crc32c) if self._in_order else (first, 0)
        while start < end:
            data = self._read(descriptor, start, min(_BLOCK_BYTES, end - start))
            if not data or self._changes != changes:
                return None
            crc32c = extend_crc32c(crc32c, data)
            start += len(data)
        with self._lock:
            if self._changes != changes or self._first != first:
                return None
            self._in_order, self._frontier, self._crc32c = True, end, crc32c
        return crc32c

    # --- the bytes that live elsewhere

    def materialise(
        self, read: Callable[[int, int], bytes], size: int, parallel: int = 4, *, crc32c: int | None = None
    ) -> None:
        """Bring in the bytes [0, `size`) that `read(offset, size)` gives; `first` is 0 afterwards.

        Where `first` is `size`, others may read and write from there on meanwhile. Else `first` is 0, the file is
        empty, and nobody else calls. A failure leaves the file as it was.

        :param parallel: how many pieces of 8 MiB to read at a time
        :param crc32c: the checksum that all of them must have
        :raise ChecksumMismatch: where they have not, or are fewer
        :raise OctuefsError: what `read` raises, or the disk (LocalFailure, ENOSPC)
        """
        descriptor = self._enter(self._first)
        try:
            with self._lock:
                fits = self._first == size if self._first else self._size == 0
                if not fits or self._materialising:
                    raise ValueError(f"{size} bytes to go before {self._first} in a file of {self._size}")
                self._materialising = True
            try:
                brought = self._bring(descriptor, read, size, parallel, crc32c)
                with self._changing, self._lock:
                    self._have_brought(size, brought)
            except BaseException:
                if self._first == 0:
                    with suppress(OSError):
                        os.ftruncate(descriptor, 0)
                raise
            finally:
                self._materialising = False
        finally:
            self._leave()

    def _bring(
        self, descriptor: int, read: Callable[[int, int], bytes], size: int, parallel: int, expected: int | None
    ) -> int:
        """Write the bytes [0, `size`) to the disk and return their checksum."""

        def write(offset: int, data: bytes) -> None:
            try:
                _write_all(descriptor, offset, data)
            except OSError as error:
                raise self._failed(error) from error

        crc32c = copy_pieces(read, write, size, parallel)
        if expected is not None and crc32c != expected:
            raise ChecksumMismatch(
                f"the bytes read have the checksum {encode_crc32c(crc32c)}, not {encode_crc32c(expected)} as their "
                "store says; try again"
            )
        return crc32c

    def _have_brought(self, size: int, crc32c: int) -> None:
        if self._first == 0:  # and empty
            self._size = self._frontier = size
            self._crc32c = crc32c
            self._in_order = True
            self._changes += 2
            return
        self._first = 0
        if self._in_order:
            self._crc32c = combine_crc32c(crc32c, self._crc32c, self._frontier - size)
        else:
            self._rewrites += 1  # `written_in_order` falls

    # --- the file

    def sync(self) -> None:
        """Return when the bytes written before, and the file's name, are durable.

        :raise LocalFailure: where they are not, ever after too: the system forgets what it failed to write
        """
        descriptor = self._enter(self._first)
        try:
            if self._sync_failure is not None:
                raise self._sync_failure
            try:
                getattr(os, "fdatasync", os.fsync)(descriptor)  # macOS has but one
            except OSError as error:
                self._sync_failure = error
                raise
            if not self._name_is_durable:
                folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
                self._name_is_durable = True
        except OSError as error:
            raise self._failed(error) from error
        finally:
            self._leave()

    def close(self) -> None:
        """Close the file once the calls under way are done, which this does not wait for."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            last = self._users == 0
        if last:
            os.close(self._descriptor)

    def unlink(self) -> None:
        """Remove the file; who has it open goes on. One that is gone is no failure."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise self._failed(error) from error

    def _enter(self, offset: int) -> int:
        """Begin a call from `offset` on and return the descriptor, open until `_leave`."""
        with self._lock:
            if self._closed:
                raise ValueError(f"staging file {self.path} is closed")
            if offset < self._first:
                raise ValueError(f"byte {offset} is not in staging file {self.path}, which begins at {self._first}")
            self._users += 1
            return self._descriptor

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            last = self._closed and self._users == 0
        if last:
            os.close(self._descriptor)

    @staticmethod
    def _read(descriptor: int, offset: int, size: int) -> bytes:
        if size <= 0:
            return b""
        data = os.pread(descriptor, size, offset)
        while 0 < len(data) < size:  # one call gives 2 GiB at most
            more = os.pread(descriptor, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def _failed(self, error: OSError) -> OctuefsError:
        return from_os_error(error, f"staging file {self.path}")


def _write_all(descriptor: int, offset: int, data: bytes) -> None:
    """Write all of `data`, in as many calls as the system takes."""
    written = os.pwrite(descriptor, data, offset)
    while written < len(data):
        written += os.pwrite(descriptor, memoryview(data)[written:], offset + written)
