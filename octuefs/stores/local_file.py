"""An open file of a local folder: a descriptor, with the calls that act on one. Any thread may call."""

import errno
import os
import stat
from collections.abc import Callable, Hashable

from octuefs.errors import Unsupported
from octuefs.stores.base import DiskSource, ObjectInfo
from octuefs.stores.descriptor import Descriptor
from octuefs.stores.local_root import version_of
from octuefs.stores.writing import Times, privileges_in

_NO_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ETXTBSY)
"""What copy_file_range(2) answers for files that are to be read and written instead."""


class LocalFile(Descriptor):
    """A `DiskFile` over a descriptor, which it owns."""

    def __init__(self, fd: int, path: str, describe: Callable[[os.stat_result], ObjectInfo], *, flags: int = 0) -> None:
        """`path` is the absolute one, for people; `flags` are those that the descriptor was opened with."""
        super().__init__(fd, path)
        self._describe = describe
        self._appends = bool(flags & os.O_APPEND)
        self._privileges_cleared = os.geteuid() != 0  # the system does it

    # --- what it is

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
