"""Opening files beneath a folder, whatever other programs do to the tree meanwhile.

The local store calls, with the descriptor of a dataset's root and a relative path; a new descriptor leaves,
or an OSError as of openat2(2): EXDEV where the path would leave the root, ELOOP where it goes through a
symbolic link, which no call here ever follows. On Linux the kernel does it in one call (openat2, Linux 5.6);
where that call is missing or forbidden, the path is walked component by component. Any thread may call.
"""

import ctypes
import errno
import os
import platform
import sys

O_PATH: int = getattr(os, "O_PATH", os.O_RDONLY)
"""Opens a place without reading it; systems without it open for reading."""

_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_RESOLVE = _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS

_MOST_TRIES = 64
"""Tries where the kernel says EAGAIN: a lease is being broken."""

_LONGEST_PATH = 4095
"""Bytes that one system call takes (PATH_MAX without its NUL); longer paths are opened in pieces."""


class _OpenHow(ctypes.Structure):
    """struct open_how of linux/openat2.h."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW_SIZE = ctypes.sizeof(_OpenHow)

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)

_hows: dict[tuple[int, int], tuple[_OpenHow, int]] = {}
"""Structures by flags and mode with their addresses: the kernel only reads them, so threads share them."""


def _how(flags: int, mode: int) -> tuple[_OpenHow, int]:
    """Return the structure for these flags and this mode, and its address."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, _RESOLVE)
    return _hows.setdefault((flags, mode), (how, ctypes.addressof(how)))


def _openat2(root_fd: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Call openat2(2) until it does not ask for another try."""
    address = (_hows.get((flags, mode)) or _how(flags, mode))[1]
    for _ in range(_MOST_TRIES):
        fd: int = _syscall(_SYS_OPENAT2, root_fd, path, address, _HOW_SIZE)
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(number, os.strerror(number))


def _kernel_has_openat2() -> bool:
    """Ask the kernel once: an old one says ENOSYS, a sandbox EPERM."""
    if sys.platform != "linux" or platform.machine() == "alpha":
        return False
    try:
        os.close(_openat2(-100, b".", O_PATH))  # -100 is AT_FDCWD
    except OSError as error:
        return error.errno not in (errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG)
    return True


use_openat2 = _kernel_has_openat2()
"""Whether the kernel resolves paths; False walks them here (tests set it)."""


def open_beneath(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open `path` beneath the folder `root_fd` and return a descriptor, close-on-exec always.

    `path` is relative and has no "..", "" is the root itself. A symbolic link at the end opens with
    O_PATH | O_NOFOLLOW; everywhere else a link is ELOOP. `mode` counts with O_CREAT alone.

    :raise OSError: as openat2(2) does; EXDEV for a path that is absolute or has ".."
    """
    name = bytes_beneath(path)
    mode = mode & 0o7777 if flags & os.O_CREAT else 0
    if not use_openat2:
        return walk_beneath(root_fd, name, flags, mode)
    if len(name) > _LONGEST_PATH:
        return _open_in_pieces(root_fd, name, flags, mode)
    return _openat2(root_fd, name or b".", flags, mode)


def bytes_beneath(path: str) -> bytes:
    """Return a relative path as the system takes it.

    :raise OSError: where it can name nothing, or nothing beneath the root (EXDEV)
    """
    try:
        name = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
    if b"\0" in name:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    if name.startswith(b"/") or (b".." in name and b".." in name.split(b"/")):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    return name


def _open_in_pieces(root_fd: int, path: bytes, flags: int, mode: int) -> int:
    """Open a path that is too long for one call: folder by folder in pieces that each fit."""
    folder = os.dup(root_fd)
    try:
        while len(path) > _LONGEST_PATH:
            cut = path.rfind(b"/", 0, _LONGEST_PATH + 1)
            if cut <= 0:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            deeper = _openat2(folder, path[:cut], O_PATH | os.O_DIRECTORY)
            os.close(folder)
            folder, path = deeper, path[cut + 1 :].lstrip(b"/") or b"."
        return _openat2(folder, path, flags, mode)
    finally:
        os.close(folder)


def walk_beneath(root_fd: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Do what `open_beneath` does with one openat(2) per component, none of which follows a link."""
    *folders, name = [part for part in path.split(b"/") if part not in (b"", b".")] or [b"."]
    folder = os.dup(root_fd)
    try:
        for part in folders:
            deeper = _refusing_links(folder, part, O_PATH | os.O_DIRECTORY)
            os.close(folder)
            folder = deeper
        return _refusing_links(folder, name, flags, mode)
    finally:
        os.close(folder)


def _refusing_links(folder: int, name: bytes, flags: int, mode: int = 0) -> int:
    """Open one name; a link is ELOOP, also where the system says ENOTDIR of it."""
    try:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=folder)
    except NotADirectoryError:
        if os.path.islink(f"/proc/self/fd/{folder}/{os.fsdecode(name)}"):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
        raise
