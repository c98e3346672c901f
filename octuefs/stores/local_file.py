"""An open file of a local folder: a descriptor, with the calls that act on one. Any thread may call."""

import ctypes
import errno
import os
import stat
import sys
import threading
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager

from octuefs.errors import Unsupported, from_os_error
from octuefs.stores.base import DiskSource, ObjectInfo
from octuefs.stores.in_memory import lies_in_memory
from octuefs.stores.local_root import version_of
from octuefs.stores.writing import Times, privileges_in

_RWF_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)
"""Absent where the system cannot read without waiting."""
_NOT_NOW = (errno.EAGAIN, errno.EOPNOTSUPP)
_NO_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ETXTBSY)
"""What copy_file_range(2) answers for files that are to be read and written instead."""

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


class LocalFile:
    """A `DiskFile` over a descriptor, which it owns."""

    def __init__(self, fd: int, path: str, describe: Callable[[os.stat_result], ObjectInfo], *, flags: int = 0) -> None:
        """`path` is the absolute one, for people; `flags` are those that the descriptor was opened with."""
        self._path = path
        self._describe = describe
        self._never_waits = False
        self._appends = bool(flags & os.O_APPEND)
        self._use = _Use(fd, path)
        self._privileges_cleared = os.geteuid() != 0  # the system does it

    # --- reading

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

    def version(self) -> Hashable:
        """Return the version of the open file as it stands now."""
        with self._use as fd:
            return version_of(os.fstat(fd))

    def identity(self) -> Hashable:
        """Return which file is open: its device and inode."""
        with self._use as fd:
            facts = os.fstat(fd)
            return (facts.st_dev, facts.st_ino)

    def info(self) -> ObjectInfo:
        """Describe the open file as it is now, under the path it was opened with; no links once it is removed."""
        with self._use as fd:
            return self._describe(os.fstat(fd))

    # --- writing

    def write(self, offset: int, data: bytes) -> int:
        """Write all of `data` at `offset`, or at the end where it was opened with O_APPEND.

        As for any user's write, setuid and setgid go; the system does not do that to what root writes.
        """
        with self._use as fd:
            written = self._write_some(fd, offset, data)
            if written < len(data):
                rest = memoryview(data)
                while written < len(data):
                    written += self._write_some(fd, offset + written, rest[written:])
            if not self._privileges_cleared:
                self._clear_privileges(fd)
            return written

    def _write_some(self, fd: int, offset: int, data: bytes | memoryview) -> int:
        return os.write(fd, data) if self._appends else os.pwrite(fd, data, offset)

    def _clear_privileges(self, fd: int) -> None:
        """Take setuid away, and setgid where it means to run as the group; done once."""
        self._privileges_cleared = True
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        if gone := privileges_in(mode):
            os.fchmod(fd, mode & ~gone)

    def truncate(self, length: int) -> None:
        """Cut or extend to `length` bytes."""
        with self._use as fd:
            os.ftruncate(fd, length)
            self._clear_privileges(fd)

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

    def copy_from(self, source: DiskSource, offset: int, to_offset: int, length: int) -> int:
        """Do what copy_file_range(2) does, out of another open file of a disk; return how many bytes are copied.

        :raise Unsupported: for files that are to be read and written instead
        """
        with self._use as to_fd, source.lend() as fd:
            try:
                copied = os.copy_file_range(fd, to_fd, length, offset, to_offset)
            except OSError as error:
                if error.errno in _NO_COPY:
                    raise Unsupported(f"{self._path}: {error.strerror}; read and write instead") from error
                raise
            if not self._privileges_cleared:
                self._clear_privileges(to_fd)
            return copied

    def drop_privileges(self) -> None:
        """See `DiskFile`."""
        if not self._privileges_cleared:
            with self._use as fd:
                self._clear_privileges(fd)

    def sync(self, *, data_only: bool = False) -> None:
        """Return once content and attributes (or what is needed to read the content) are durable."""
        with self._use as fd:
            if data_only and hasattr(os, "fdatasync"):
                os.fdatasync(fd)
            else:
                os.fsync(fd)

    def set_mode(self, mode: int) -> None:
        """Do what fchmod(2) does."""
        with self._use as fd:
            os.fchmod(fd, stat.S_IMODE(mode))
            self._privileges_cleared = os.geteuid() != 0

    def set_times(self, times: Times) -> None:
        """Do what futimens(2) does; a time that is to stay is set to what it is."""
        with self._use as fd:
            facts = os.fstat(fd)
            accessed_ns, modified_ns = times
            os.utime(
                fd,
                ns=(
                    facts.st_atime_ns if accessed_ns is None else accessed_ns,
                    facts.st_mtime_ns if modified_ns is None else modified_ns,
                ),
            )

    def set_owner(self, uid: int, gid: int) -> None:
        """Do what fchown(2) does; -1 leaves one as it is."""
        with self._use as fd:
            os.fchown(fd, uid, gid)

    def close(self) -> None:
        """Give back the descriptor, once the calls under way have ended."""
        self._use.close()
