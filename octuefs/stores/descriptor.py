"""A descriptor of a file on a disk that several threads use: closed by the last of them. Any thread may call.

Local files that programs have open are made of one (`local_file.py`), and so are the files of the block cache.
"""

import ctypes
import errno
import os
import sys
import threading
from contextlib import AbstractContextManager

from octuefs.errors import Unsupported, from_os_error
from octuefs.stores.in_memory import lies_in_memory

_RWF_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)
"""Absent where the system cannot read without waiting."""
_NOT_NOW = (errno.EAGAIN, errno.EOPNOTSUPP)

_fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate64" if sys.maxsize < 1 << 32 else "fallocate", None)
if _fallocate is not None:
    _fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class _Use:
    """A descriptor while calls are under way: `with use as fd`; an OSError leaves as ours.

    `_lock` guards `_users` and `_closed`: the descriptor is closed by the last of close() and the calls under way, so
    its number is never reused under a call.
    """

    __slots__ = ("_closed", "_fd", "_lock", "_path", "_users")

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path
        self._lock = threading.Lock()
        self._users = 0
        self._closed = False

    def __enter__(self) -> int:
        with self._lock:
            if self._closed:
                raise from_os_error(OSError(errno.EBADF, ""), self._path)
            self._users += 1
        return self._fd

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with self._lock:
            self._users -= 1
            if self._closed and not self._users:
                os.close(self._fd)
        if isinstance(error, OSError):
            raise from_os_error(error, self._path) from error

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                if not self._users:
                    os.close(self._fd)


def _fill(fd: int, room: memoryview, offset: int, flags: int) -> int:
    """Read into all of `room`, or up to the end of the file, and return the number of bytes."""
    done = 0
    while done < len(room):  # one call reads 2 GiB at most, and no more than is at hand
        number = os.preadv(fd, [room[done:]], offset + done, flags)
        if not number:
            break
        done += number
    return done


class Descriptor:
    """An open file; it owns the descriptor."""

    def __init__(self, fd: int, path: str, *, in_memory: bool = False) -> None:
        """`path` is the absolute one, for people; what is `in_memory` is never waited for."""
        self._path = path
        self._never_waits = in_memory
        self._use = _Use(fd, path)

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only at the end of the file."""
        with self._use as fd:
            data = os.pread(fd, size, offset)
            while data and len(data) < size:  # one call returns 2 GiB at most
                more = os.pread(fd, size - len(data), offset + len(data))
                if not more:
                    break
                data += more
            return data

    def read_now(self, offset: int, room: memoryview) -> int | None:
        """See `DiskSource`: preadv2(2) with RWF_NOWAIT, which file systems in memory need not and do not know."""
        if not _RWF_NOWAIT:
            return None
        with self._use as fd:
            try:
                return _fill(fd, room, offset, 0 if self._never_waits else _RWF_NOWAIT)
            except OSError as error:
                if error.errno not in _NOT_NOW:
                    raise
                if error.errno != errno.EOPNOTSUPP or not lies_in_memory(os.fstat(fd).st_dev):
                    return None
            self._never_waits = True
            return _fill(fd, room, offset, 0)

    def lend(self) -> AbstractContextManager[int]:
        """See `DiskSource`: the descriptor stays open for that long, be the file closed or not."""
        return self._use

    def will_need(self, offset: int, size: int) -> None:
        """Have the system bring bytes from the disk that will be read soon; nobody waits for that."""
        if hasattr(os, "posix_fadvise"):
            with self._use as fd:
                os.posix_fadvise(fd, offset, size, os.POSIX_FADV_WILLNEED)

    def write(self, offset: int, data: bytes) -> int:
        """Write all of `data` at `offset`; return the number of bytes."""
        with self._use as fd:
            written = os.pwrite(fd, data, offset)
            while written < len(data):
                written += os.pwrite(fd, memoryview(data)[written:], offset + written)
            return written

    def allocate(self, mode: int, offset: int, length: int) -> None:
        """Do what fallocate(2) does, in every mode that the disk knows.

        :raise Unsupported: for others
        """
        with self._use as fd:
            if _fallocate is not None:
                while _fallocate(fd, mode, offset, length) != 0:
                    if (number := ctypes.get_errno()) != errno.EINTR:
                        raise OSError(number, os.strerror(number))
            elif mode == 0 and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(fd, offset, length)
            else:
                raise Unsupported(f"{self._path}: this system cannot reserve room in a file")

    def sync(self, *, data_only: bool = False) -> None:
        """Return once content and attributes (or what is needed to read the content) are durable."""
        with self._use as fd:
            if data_only and hasattr(os, "fdatasync"):
                os.fdatasync(fd)
            else:
                os.fsync(fd)

    def close(self) -> None:
        """Give back the descriptor, once the calls under way have ended."""
        self._use.close()
