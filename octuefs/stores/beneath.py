"""Opening files beneath a folder, whatever other programs do to the tree meanwhile.

The local store calls, with the descriptor of a dataset's root and a relative path; a new descriptor leaves,
or an OSError as of openat2(2): EXDEV where the path would leave the root, ELOOP where it goes through a
symbolic link that is not to be followed. On Linux the kernel does it in one call (openat2, Linux 5.6);
where that call is missing or forbidden, the path is walked component by component. Any thread may call.
"""

import ctypes
import errno
import os
import platform
import stat
import sys
from collections import deque

O_PATH: int = getattr(os, "O_PATH", os.O_RDONLY)
"""Opens a place without reading it; systems without it open for reading."""

_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_FOLLOWING = _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS
_NOT_FOLLOWING = _FOLLOWING | _RESOLVE_NO_SYMLINKS

_MOST_TRIES = 64
"""Tries where the kernel says EAGAIN: a rename raced with a ".." of the path, or a lease is being broken."""

_MOST_LINKS = 40
"""Symbolic links in one path, as in the kernel (MAXSYMLINKS)."""

_LONGEST_PATH = 4095
"""Bytes that one system call takes (PATH_MAX without its NUL); longer paths are opened in pieces."""


class _OpenHow(ctypes.Structure):
    """struct open_how of linux/openat2.h."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW_SIZE = ctypes.sizeof(_OpenHow)

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)

_hows: dict[tuple[int, bool], tuple[_OpenHow, int]] = {}
"""Structures by (flags, follow) with their addresses: the kernel only reads them, so threads share them."""


def _how(flags: int, follow: bool) -> tuple[_OpenHow, int]:
    """Return the structure for these flags and its address."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, _FOLLOWING if follow else _NOT_FOLLOWING)
    return _hows.setdefault((flags, follow), (how, ctypes.addressof(how)))


def _openat2(root_fd: int, path: bytes, flags: int, follow: bool) -> int:
    """Call openat2(2) until it does not ask for another try."""
    address = (_hows.get((flags, follow)) or _how(flags, follow))[1]
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
        os.close(_openat2(-100, b".", O_PATH, True))  # -100 is AT_FDCWD
    except OSError as error:
        return error.errno not in (errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG)
    return True


use_openat2 = _kernel_has_openat2()
"""Whether the kernel resolves paths; False walks them here (tests set it)."""


def open_beneath(root_fd: int, path: str, flags: int, *, follow: bool = False) -> int:
    """Open `path` beneath the folder `root_fd` and return a descriptor, close-on-exec always.

    `path` is relative, "" the root itself. Symbolic links are followed only with `follow`, and only inside
    the root; without it a link at the end opens with O_PATH | O_NOFOLLOW and is ELOOP otherwise.

    :raise OSError: as openat2(2) does
    """
    try:
        name = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
    if b"\0" in name:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    if not use_openat2:
        return walk_beneath(root_fd, path, flags, follow=follow)
    if len(name) > _LONGEST_PATH:
        return _open_in_pieces(root_fd, name, flags, follow)
    return _openat2(root_fd, name or b".", flags, follow)


def _open_in_pieces(root_fd: int, path: bytes, flags: int, follow: bool) -> int:
    """Open a path that is too long for one call: folder by folder in pieces that each fit.

    A link that leads out of its piece but not out of the root is refused (EXDEV), which errs to the safe side.
    """
    folder = os.dup(root_fd)
    try:
        while len(path) > _LONGEST_PATH:
            cut = path.rfind(b"/", 0, _LONGEST_PATH + 1)
            if cut <= 0:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            deeper = _openat2(folder, path[:cut], O_PATH | os.O_DIRECTORY, follow)
            os.close(folder)
            folder, path = deeper, path[cut + 1 :].lstrip(b"/") or b"."
        return _openat2(folder, path, flags, follow)
    finally:
        os.close(folder)


def walk_beneath(root_fd: int, path: str, flags: int, *, follow: bool = False) -> int:
    """Do what `open_beneath` does with one openat(2) per component, none of which follows a link.

    Links are read and resolved here. As no call follows one, a folder that is swapped for a link in between
    fails with ELOOP instead of leading out.
    """
    if path.startswith("/"):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    pending = deque(_components(path))
    walked: list[str] = []
    links = 0
    folder = os.dup(root_fd)
    try:
        while pending:
            name = pending.popleft()
            if name == "..":
                if not walked:
                    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
                walked.pop()
                folder = _replace(folder, _descend(root_fd, walked))
                continue
            if _is_link(folder, name) and (pending or not flags & os.O_NOFOLLOW):
                links += 1
                if not follow or links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink(name, dir_fd=folder)
                if target.startswith("/"):
                    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
                pending.extendleft(reversed(_components(target)))
                continue
            if not pending:
                return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            folder = _replace(folder, _open_folder(folder, name))
            walked.append(name)
        return os.open(".", flags | os.O_CLOEXEC, dir_fd=folder)
    finally:
        os.close(folder)


def _components(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _is_link(folder: int, name: str) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


def _open_folder(folder: int, name: str) -> int:
    return os.open(name, O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)


def _descend(root_fd: int, names: list[str]) -> int:
    """Open the folder that `names`, none of them a link, lead to."""
    folder = os.dup(root_fd)
    try:
        for name in names:
            folder = _replace(folder, _open_folder(folder, name))
    except BaseException:
        os.close(folder)
        raise
    return folder


def _replace(old: int, new: int) -> int:
    """Close `old` and return `new`."""
    os.close(old)
    return new
