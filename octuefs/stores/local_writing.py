"""How a local folder is changed: each call finds the folder of a path beneath the root, then acts there by name.

So nothing is ever followed out of the dataset, whatever other programs swap meanwhile. Called by the writers, from
any thread.
"""

import ctypes
import errno
import fcntl
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from octuefs.errors import IsADirectory, NotFound, TimedOut, Unsupported
from octuefs.model.paths import parent_of, temporary_name
from octuefs.stores.beneath import O_PATH, open_beneath
from octuefs.stores.local_file import LocalFile
from octuefs.stores.local_root import LocalRoot, what_stands
from octuefs.stores.writing import Times

_FLAGS = os.O_ACCMODE | os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_APPEND | os.O_SYNC | os.O_DSYNC
"""The flags of open(2) that are taken; O_DIRECT for one would ask for aligned buffers."""
_O_TMPFILE: int = getattr(os, "O_TMPFILE", 0)
_LOCK_SECONDS = 30.0
_POLL_SECONDS = 0.005
_NO_LOCKS = (errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)
"""What file systems answer that cannot lock a folder (NFS wants it open for writing)."""

_AT_SYMLINK_NOFOLLOW = 0x100 if sys.platform == "linux" else 0x20
_UTIME_OMIT = (1 << 30) - 2 if sys.platform == "linux" else -2
_RENAME_NOREPLACE = 1
_NANOSECONDS = 1_000_000_000


class _Timespec(ctypes.Structure):
    """struct timespec of time.h."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


_libc = ctypes.CDLL(None, use_errno=True)
_utimensat = _libc.utimensat
_utimensat.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_Timespec), ctypes.c_int)
_renameat2 = getattr(_libc, "renameat2", None)
if _renameat2 is not None:
    _renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)

use_renameat2 = _renameat2 is not None
"""Whether the system renames without replacing in one call; False puts it together here (tests set it)."""
use_tmpfile = bool(_O_TMPFILE)
"""Whether files are made without a name at first, where the file system can (tests set it)."""


class LocalWriting(LocalRoot):
    """The half of a `DiskStore` that changes things."""

    # --- files

    def open_file(self, path: str, flags: int, mode: int = 0) -> LocalFile:
        """Open a regular file as open(2) does.

        A link at the end is followed inside of the dataset, unless O_CREAT or O_NOFOLLOW is given.

        :raise NotFound: where something else stands there
        """
        full_path = self._place.of(path)
        wanted = flags & _FLAGS | os.O_NOCTTY
        is_new = flags & os.O_CREAT and flags & os.O_EXCL
        if not is_new:
            wanted |= os.O_NONBLOCK  # a FIFO must not hang us; of a regular file it changes nothing (open(2))
        try:
            try:
                fd = open_beneath(self._root(), path, wanted | os.O_NOFOLLOW, mode)
            except OSError as error:
                if error.errno != errno.ELOOP or flags & (os.O_CREAT | os.O_NOFOLLOW):
                    raise
                os.close(open_beneath(self._root(), path, O_PATH | os.O_NOFOLLOW))  # no link on the way there
                fd = self._open_followed(path, wanted)
        except OSError as error:
            if error.errno == errno.ENXIO:
                raise NotFound(f"{full_path}: a FIFO, socket or device stands there, no file") from error
            raise self._failure(error, path) from error
        kind = stat.S_IFREG if is_new else os.fstat(fd).st_mode
        if stat.S_ISREG(kind):
            return LocalFile(fd, full_path, partial(self._info, path), flags=flags)
        os.close(fd)
        if stat.S_ISDIR(kind):
            raise IsADirectory(f"{full_path}: Is a directory")
        raise NotFound(f"{full_path}: {what_stands(kind)} stands there, no file")

    def truncate(self, path: str, length: int) -> None:
        """truncate(2)."""
        file = self.open_file(path, os.O_WRONLY)
        try:
            file.truncate(length)
        finally:
            file.close()

    def replace_file(self, path: str, data: bytes, *, keeps_time: bool = False) -> None:
        """Put a file with this content in the place of what stands at `path`, atomically and durably.

        The present file's permissions and owner are kept as far as we may; a first one has mode 0644, and where we
        are root it belongs to the folder's owner. With `keeps_time` the folder's mtime stays what it is, where we may
        set it.
        """
        with self._in_folder(path) as (folder, name):
            temporary = os.fsencode(temporary_name())
            fd = _unnamed_file(folder)
            try:
                named = fd < 0
                before = os.fstat(folder).st_mtime_ns
                if named:
                    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
                try:
                    _write_all(fd, data)
                    _take_after(fd, folder, name)
                    os.fsync(fd)
                    if not named:
                        before = os.fstat(folder).st_mtime_ns  # so late: others may have made names meanwhile
                        os.link(f"/proc/self/fd/{fd}", temporary, dst_dir_fd=folder)
                        named = True
                    os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
                    if keeps_time:
                        _set_times(folder, b".", (None, before))
                except BaseException:
                    if named:
                        with suppress(OSError):
                            os.unlink(temporary, dir_fd=folder)
                    raise
            finally:
                if fd >= 0:
                    os.close(fd)
        self.sync_folder(parent_of(path))

    # --- names

    def make_folder(self, path: str, mode: int) -> None:
        """mkdir(2)."""
        with self._in_folder(path) as (folder, name):
            os.mkdir(name, stat.S_IMODE(mode), dir_fd=folder)

    def make_link(self, path: str, target: str) -> None:
        """symlink(2)."""
        with self._in_folder(path) as (folder, name):
            os.symlink(os.fsencode(target), name, dir_fd=folder)

    def make_special(self, path: str, mode: int, device: int) -> None:
        """mknod(2)."""
        with self._in_folder(path) as (folder, name):
            os.mknod(name, mode, device, dir_fd=folder)

    def link(self, old: str, new: str) -> None:
        """link(2): another name for what stands at `old`, a symbolic link itself included."""
        with self._in_folder(old) as (folder, name), self._in_folder(new) as (new_folder, new_name):
            os.link(name, new_name, src_dir_fd=folder, dst_dir_fd=new_folder, follow_symlinks=False)

    def remove(self, path: str, *, keeps_time: bool = False) -> None:
        """unlink(2); with `keeps_time` the folder's mtime stays what it is, where we may set it."""
        with self._in_folder(path) as (folder, name):
            before = os.fstat(folder).st_mtime_ns if keeps_time else None
            os.unlink(name, dir_fd=folder)
            if keeps_time:
                _set_times(folder, b".", (None, before))

    def remove_folder(self, path: str) -> None:
        """rmdir(2)."""
        with self._in_folder(path) as (folder, name):
            os.rmdir(name, dir_fd=folder)

    def rename(self, old: str, new: str, *, replace: bool = True) -> None:
        """rename(2), or renameat2(2) with RENAME_NOREPLACE."""
        with self._in_folder(old) as (folder, name), self._in_folder(new) as (new_folder, new_name):
            if replace:
                os.rename(name, new_name, src_dir_fd=folder, dst_dir_fd=new_folder)
            else:
                _rename_without_replacing(folder, name, new_folder, new_name)

    # --- attributes

    def set_mode(self, path: str, mode: int) -> None:
        """chmod(2); ENOTSUP for a symbolic link."""
        try:
            fd = open_beneath(self._root(), path, O_PATH | os.O_NOFOLLOW)
        except OSError as error:
            raise self._failure(error, path) from error
        try:
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                raise Unsupported(f"{self._place.of(path)}: a symbolic link has no permissions of its own")
            if sys.platform == "linux":  # where a descriptor of O_PATH takes no fchmod(2)
                os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(mode))
            else:
                os.fchmod(fd, stat.S_IMODE(mode))
        except OSError as error:
            raise self._failure(error, path) from error
        finally:
            os.close(fd)

    def set_owner(self, path: str, uid: int, gid: int) -> None:
        """lchown(2); -1 leaves one as it is."""
        with self._in_folder(path) as (folder, name):
            os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)

    def set_times(self, path: str, times: Times) -> None:
        """utimensat(2) with AT_SYMLINK_NOFOLLOW."""
        with self._in_folder(path) as (folder, name):
            if number := _set_times(folder, name, times):
                raise OSError(number, os.strerror(number))

    def set_xattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        """lsetxattr(2)."""
        with self._for_xattrs(path) as place:
            os.setxattr(place, name, value, flags)

    def remove_xattr(self, path: str, name: str) -> None:
        """lremovexattr(2)."""
        with self._for_xattrs(path) as place:
            os.removexattr(place, name)

    @contextmanager
    def _for_xattrs(self, path: str) -> Iterator[str]:
        """Give a name for what stands at `path`, itself where it is a link, that the calls for attributes take."""
        if sys.platform != "linux":
            raise Unsupported(f"{self._place.of(path)}: extended attributes are kept on Linux only")
        try:
            fd = open_beneath(self._root(), path, O_PATH | os.O_NOFOLLOW)
            try:
                yield f"/proc/self/fd/{fd}"
            finally:
                os.close(fd)
        except OSError as error:
            raise self._failure(error, path) from error

    # --- folders

    def sync_folder(self, path: str) -> None:
        """fsync(2) of a folder."""
        fd = self._open_folder(path)
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EBADF):  # file systems that have nothing to do for a folder
                raise self._failure(error, path) from error
        finally:
            os.close(fd)

    @contextmanager
    def locked(self, folder: str) -> Iterator[None]:
        """Hold the folder's lock (flock(2) on the folder itself) against other processes and threads.

        A file system that locks no folders is used without.

        :raise TimedOut: where another holds it for half a minute
        """
        fd = self._open_folder(folder)
        try:
            end = time.monotonic() + _LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        text = f"{self._place.of(folder)}: another program keeps this folder locked (flock); end it"
                        raise TimedOut(text) from None
                    time.sleep(_POLL_SECONDS)
                except OSError as error:
                    if error.errno not in _NO_LOCKS:
                        raise self._failure(error, folder) from error
                    break
            yield
        finally:
            os.close(fd)

    def _open_folder(self, path: str) -> int:
        try:
            return open_beneath(self._root(), path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            raise self._failure(error, path) from error


def _set_times(folder: int, name: bytes, times: Times) -> int:
    """Call utimensat(2), which follows no link, and return its errno, 0 for success."""
    values = (_Timespec * 2)(_timespec(times[0]), _timespec(times[1]))
    return ctypes.get_errno() if _utimensat(folder, name, values, _AT_SYMLINK_NOFOLLOW) != 0 else 0


def _timespec(nanoseconds: int | None) -> _Timespec:
    return _Timespec(0, _UTIME_OMIT) if nanoseconds is None else _Timespec(*divmod(nanoseconds, _NANOSECONDS))


def _unnamed_file(folder: int) -> int:
    """Return the descriptor of a new file that has no name yet, -1 where the file system makes none."""
    if use_tmpfile:
        with suppress(OSError):  # whatever it is, a file with a name is tried next and fails in words
            return os.open(".", _O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=folder)
    return -1


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _take_after(fd: int, folder: int, name: bytes) -> None:
    """Give a new file the mode and owner of the file that it will replace."""
    try:
        present = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        present = None
    if present is not None and stat.S_ISREG(present.st_mode):
        owner, mode = present, stat.S_IMODE(present.st_mode)
    else:
        owner, mode = (os.fstat(folder) if os.geteuid() == 0 else os.fstat(fd)), 0o644
    ours = os.fstat(fd)
    if ours.st_uid != owner.st_uid:
        with suppress(PermissionError):
            os.fchown(fd, owner.st_uid, -1)
    if ours.st_gid != owner.st_gid:
        with suppress(PermissionError):
            os.fchown(fd, -1, owner.st_gid)
    os.fchmod(fd, mode)


def _rename_without_replacing(folder: int, name: bytes, new_folder: int, new_name: bytes) -> None:
    if use_renameat2 and _renameat2 is not None:
        if _renameat2(folder, name, new_folder, new_name, _RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # not known to this file system
            raise OSError(number, os.strerror(number))
    if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        # A folder takes the place of an empty one, and of nothing else.
        os.mkdir(new_name, 0o700, dir_fd=new_folder)
        try:
            os.rename(name, new_name, src_dir_fd=folder, dst_dir_fd=new_folder)
        except OSError:
            with suppress(OSError):
                os.rmdir(new_name, dir_fd=new_folder)
            raise
        return
    os.link(name, new_name, src_dir_fd=folder, dst_dir_fd=new_folder, follow_symlinks=False)
    os.unlink(name, dir_fd=folder)
