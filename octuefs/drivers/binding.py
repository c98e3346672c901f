"""fusepy with its two busiest calls written out.

fusepy makes a dictionary and a C structure for each name that is listed or asked about, and sets its fields by
name; here one structure is filled directly. What enters and leaves is otherwise as in fusepy: libfuse's threads
call with C values, `operations(name, ...)` answers.
"""

import ctypes
from typing import Any

from octuefs.errors import OctuefsError
from octuefs.operations import IO_BYTES
from octuefs.tree.node import Attributes

try:
    import fuse
except OSError as error:  # fusepy looks for the library while it is imported
    raise OctuefsError(
        "libfuse 2 is not installed; on Debian and Ubuntu: sudo apt-get install libfuse2 (newer: libfuse2t64)"
    ) from error


class Fuse(fuse.FUSE):  # type: ignore[misc]
    """A mount; the constructor returns when it has ended."""

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


def library_version() -> str:
    """Return the version of the libfuse that was found, e.g. "2.9"."""
    version = int(fuse._libfuse.fuse_version())
    return f"{version // 10}.{version % 10}"
