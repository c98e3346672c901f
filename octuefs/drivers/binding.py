"""fusepy with its two busiest calls written out, and what it leaves out of libfuse 2.9 added.

fusepy makes a dictionary and a C structure for each name that is listed or asked about, and sets its fields by
name; here one structure is filled directly. It knows nothing of fallocate(2), and adds the parts of times so that
UTIME_NOW and UTIME_OMIT cannot be told. What enters and leaves is otherwise as in fusepy: libfuse's threads call with
C values, `operations(name, ...)` answers.
"""

import ctypes
import time
from collections.abc import Callable
from typing import Any

from octuefs.drivers.threads import keep_state
from octuefs.errors import OctuefsError
from octuefs.operations import IO_BYTES
from octuefs.tree.node import Attributes

try:
    import fuse
except OSError as error:  # fusepy looks for the library while it is imported
    raise OctuefsError(
        "libfuse 2 is not installed; on Debian and Ubuntu: sudo apt-get install libfuse2 (newer: libfuse2t64)"
    ) from error


_UTIME_NOW = (1 << 30) - 1
_UTIME_OMIT = (1 << 30) - 2
"""What stands in tv_nsec for "now" and "as it is" (utimensat(2))."""


class _FuseOperations(ctypes.Structure):
    """struct fuse_operations of libfuse 2.9, to its end."""

    _fields_ = (
        *fuse.fuse_operations._fields_,
        ("poll", ctypes.c_void_p),
        ("write_buf", ctypes.c_void_p),
        ("read_buf", ctypes.c_void_p),
        ("flock", ctypes.c_void_p),
        (
            "fallocate",
            ctypes.CFUNCTYPE(
                ctypes.c_int,
                ctypes.c_char_p,
                ctypes.c_int,
                fuse.c_off_t,
                fuse.c_off_t,
                ctypes.POINTER(fuse.fuse_file_info),
            ),
        ),
    )


fuse.fuse_operations = _FuseOperations  # FUSE looks it up in its module when it mounts


def calling_user() -> tuple[int, int]:
    """Return uid and gid of the process whose request this thread answers."""
    uid, gid, _ = fuse.fuse_get_context()
    return uid, gid


def calling_thread() -> int:
    """Return the number of the thread whose request this thread answers."""
    return int(fuse.fuse_get_context()[2])


class Fuse(fuse.FUSE):  # type: ignore[misc]
    """A mount; the constructor returns when it has ended."""

    @staticmethod
    def _wrapper(call: Callable[..., Any], *arguments: Any) -> int:
        """Answer one request."""
        keep_state()
        status: int = fuse.FUSE._wrapper(call, *arguments)
        return status

    def fallocate(self, path: bytes | None, mode: int, offset: int, length: int, info: Any) -> int:
        """Pass fallocate(2) on."""
        self.operations("fallocate", self._decode_optional_path(path), mode, offset, length, info.contents)
        return 0

    def utimens(self, path: bytes, times: Any) -> int:
        """Pass utimensat(2) on: (atime, mtime) in nanoseconds, None for one that stays."""
        pair = times.contents if times else None
        moments = tuple(
            time.time_ns() if pair is None else _nanoseconds(moment)
            for moment in ((None, None) if pair is None else (pair.actime, pair.modtime))
        )
        self.operations("utimens", path.decode(self.encoding), moments)
        return 0

    def readdir(self, path: bytes | None, buffer: Any, filler: Any, _offset: int, info: Any) -> int:
        """Fill in a whole directory: `readdir` answers with (name, inode, mode) for each entry."""
        status = fuse.c_stat()
        for name, inode, mode in self.operations("readdir", self._decode_optional_path(path), info.contents.fh):
            status.st_ino, status.st_mode = inode, mode
            if filler(buffer, name.encode("utf-8", "surrogateescape"), status, 0):
                break
        return 0

    def fgetattr(self, path: bytes | None, buffer: Any, info: Any) -> int:
        """Fill in what stat(2) tells: `getattr` answers with `Attributes`."""
        handle = info.contents if info else None
        attributes: Attributes = self.operations("getattr", self._decode_optional_path(path), handle)
        ctypes.memset(buffer, 0, ctypes.sizeof(fuse.c_stat))
        status = buffer.contents
        status.st_ino = attributes.inode
        status.st_mode = attributes.mode
        status.st_nlink = attributes.links
        status.st_uid = attributes.uid
        status.st_gid = attributes.gid
        status.st_rdev = attributes.device
        status.st_size = attributes.size
        status.st_blocks = attributes.blocks
        status.st_blksize = IO_BYTES
        seconds, nanoseconds = divmod(attributes.mtime_ns, 1_000_000_000)
        for moment in (status.st_atimespec, status.st_mtimespec):
            moment.tv_sec, moment.tv_nsec = seconds, nanoseconds
        changed = status.st_ctimespec
        changed.tv_sec, changed.tv_nsec = divmod(attributes.ctime_ns, 1_000_000_000)
        return 0


def _nanoseconds(moment: Any) -> int | None:
    if moment.tv_nsec == _UTIME_OMIT:
        return None
    if moment.tv_nsec == _UTIME_NOW:
        return time.time_ns()
    return int(moment.tv_sec) * 1_000_000_000 + int(moment.tv_nsec)


def library_version() -> str:
    """Return the version of the libfuse that was found, e.g. "2.9"."""
    version = int(fuse._libfuse.fuse_version())
    return f"{version // 10}.{version % 10}"
