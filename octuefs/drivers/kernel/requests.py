"""What the kernel asks: the layouts of its requests, and functions that read them. Pure: bytes in, values out.

Numbers and layouts are those of include/uapi/linux/fuse.h, protocol 7.45. A request is a header of 40 bytes, a `head`
of the length that its opcode has (`HEAD_BYTES`), and the `rest`: names, each with a zero byte after it, or bytes. Over
io_uring the two stand apart. Kernels before 7.12 send shorter forms, which nothing here reads: Linux 5.4, the oldest
that is served, speaks 7.31.
"""

import struct
from typing import Final, NamedTuple

LOOKUP: Final = 1
FORGET: Final = 2
GETATTR: Final = 3
SETATTR: Final = 4
READLINK: Final = 5
SYMLINK: Final = 6
MKNOD: Final = 8
MKDIR: Final = 9
UNLINK: Final = 10
RMDIR: Final = 11
RENAME: Final = 12
LINK: Final = 13
OPEN: Final = 14
READ: Final = 15
WRITE: Final = 16
STATFS: Final = 17
RELEASE: Final = 18
FSYNC: Final = 20
SETXATTR: Final = 21
GETXATTR: Final = 22
LISTXATTR: Final = 23
REMOVEXATTR: Final = 24
FLUSH: Final = 25
INIT: Final = 26
OPENDIR: Final = 27
READDIR: Final = 28
RELEASEDIR: Final = 29
FSYNCDIR: Final = 30
ACCESS: Final = 34
CREATE: Final = 35
INTERRUPT: Final = 36
BATCH_FORGET: Final = 42
FALLOCATE: Final = 43
READDIRPLUS: Final = 44
RENAME2: Final = 45
LSEEK: Final = 46
COPY_FILE_RANGE: Final = 47

NAMES: Final = {
    LOOKUP: "lookup",
    GETATTR: "getattr",
    SETATTR: "setattr",
    READLINK: "readlink",
    SYMLINK: "symlink",
    MKNOD: "mknod",
    MKDIR: "mkdir",
    UNLINK: "unlink",
    RMDIR: "rmdir",
    RENAME: "rename",
    LINK: "link",
    OPEN: "open",
    READ: "read",
    WRITE: "write",
    STATFS: "statfs",
    RELEASE: "release",
    FSYNC: "fsync",
    SETXATTR: "setxattr",
    GETXATTR: "getxattr",
    LISTXATTR: "listxattr",
    REMOVEXATTR: "removexattr",
    FLUSH: "flush",
    OPENDIR: "opendir",
    READDIR: "readdir",
    RELEASEDIR: "releasedir",
    FSYNCDIR: "fsyncdir",
    CREATE: "create",
    FALLOCATE: "fallocate",
    READDIRPLUS: "readdirplus",
    RENAME2: "rename",
    LSEEK: "lseek",
    COPY_FILE_RANGE: "copy_file_range",
}
"""What each is called, for people."""

BEGINS_WITH_NAME: Final = frozenset({LOOKUP, SYMLINK, MKNOD, MKDIR, UNLINK, RMDIR, RENAME, RENAME2, LINK, CREATE})
"""Those whose node is a directory, and whose rest begins with a name in it."""

ROOT_ID: Final = 1
"""The node of the mount's root, which is never looked up and never forgotten."""

HEADER: Final = struct.Struct("=IIQQIIIHH")
"""Length of all, opcode, unique, node, uid, gid, pid, length of extensions (units of 8 bytes), nothing."""

READ_IN: Final = struct.Struct("=QQIIQII")
"""Handle, offset, size, flags, lock owner, open flags, nothing."""
WRITE_IN: Final = struct.Struct("=QQIIQII")
"""As READ_IN, followed by the bytes."""
OPEN_IN: Final = struct.Struct("=II")
"""Flags of open(2), FUSE_OPEN_*."""
GETATTR_IN: Final = struct.Struct("=IIQ")
"""GETATTR_FH or not, nothing, handle."""

_INIT_IN: Final = struct.Struct("=IIII")
_FLAGS2_IN: Final = struct.Struct("=I")
_SETATTR_IN: Final = struct.Struct("=IIQQQqqqIIIIIIII")
_CREATE_IN: Final = struct.Struct("=IIII")
_MKNOD_IN: Final = struct.Struct("=IIII")
_MKDIR_IN: Final = struct.Struct("=II")
_RENAME_IN: Final = struct.Struct("=Q")
_RENAME2_IN: Final = struct.Struct("=QII")
_LINK_IN: Final = struct.Struct("=Q")
_SETXATTR_IN: Final = struct.Struct("=II")
_GETXATTR_IN: Final = struct.Struct("=II")
_FSYNC_IN: Final = struct.Struct("=QII")
_HANDLE: Final = struct.Struct("=Q")
_RELEASE_IN: Final = struct.Struct("=QIIQ")
_FLUSH_IN: Final = struct.Struct("=QIIQ")
_FALLOCATE_IN: Final = struct.Struct("=QQQII")
_LSEEK_IN: Final = struct.Struct("=QQII")
_COPY_IN: Final = struct.Struct("=QQQQQQQ")
_FORGET_IN: Final = struct.Struct("=Q")
_BATCH_IN: Final = struct.Struct("=II")
_FORGET_ONE: Final = struct.Struct("=QQ")
_INTERRUPT_IN: Final = struct.Struct("=Q")

GETATTR_FH: Final = 1
"""Among the flags of GETATTR_IN: the handle counts."""
FSYNC_DATA_ONLY: Final = 1
WRITE_KILL_SUIDGID: Final = 4
OPEN_KILL_SUIDGID: Final = 1

# Bits of what SETATTR sets.
SET_MODE: Final = 1 << 0
SET_UID: Final = 1 << 1
SET_GID: Final = 1 << 2
SET_SIZE: Final = 1 << 3
SET_ATIME: Final = 1 << 4
SET_MTIME: Final = 1 << 5
WITH_HANDLE: Final = 1 << 6
SET_ATIME_NOW: Final = 1 << 7
SET_MTIME_NOW: Final = 1 << 8
KILL_SUIDGID: Final = 1 << 11

_NANOSECONDS: Final = 1_000_000_000


class InitRequest(NamedTuple):
    """What the kernel offers; `flags` has those of the second word from bit 32 on."""

    major: int
    minor: int
    max_readahead: int
    flags: int


class SetAttributes(NamedTuple):
    """What is to be set, None for what stays; times in nanoseconds since the epoch, `NOW` for the time of the call."""

    handle: int | None
    mode: int | None
    uid: int | None
    gid: int | None
    size: int | None
    atime: int | None
    mtime: int | None
    kills_suidgid: bool


NOW: Final = -1
"""A time that is the moment of the call."""


class Create(NamedTuple):
    """open(2) with O_CREAT of a name."""

    flags: int
    mode: int
    name: str


class Rename(NamedTuple):
    """renameat2(2): `flags` are its RENAME_*."""

    new_parent: int
    flags: int
    old_name: str
    new_name: str


class Copy(NamedTuple):
    """copy_file_range(2) between two open files."""

    handle: int
    offset: int
    to_node: int
    to_handle: int
    to_offset: int
    length: int


HEAD_BYTES: Final = {
    FORGET: _FORGET_IN.size,
    GETATTR: GETATTR_IN.size,
    SETATTR: _SETATTR_IN.size,
    MKNOD: _MKNOD_IN.size,
    MKDIR: _MKDIR_IN.size,
    RENAME: _RENAME_IN.size,
    LINK: _LINK_IN.size,
    OPEN: OPEN_IN.size,
    READ: READ_IN.size,
    WRITE: WRITE_IN.size,
    RELEASE: _RELEASE_IN.size,
    FSYNC: _FSYNC_IN.size,
    SETXATTR: _SETXATTR_IN.size,
    GETXATTR: _GETXATTR_IN.size,
    LISTXATTR: _GETXATTR_IN.size,
    FLUSH: _FLUSH_IN.size,
    INIT: 0,
    OPENDIR: OPEN_IN.size,
    READDIR: READ_IN.size,
    RELEASEDIR: _RELEASE_IN.size,
    FSYNCDIR: _FSYNC_IN.size,
    ACCESS: _MKDIR_IN.size,
    CREATE: _CREATE_IN.size,
    INTERRUPT: _INTERRUPT_IN.size,
    BATCH_FORGET: _BATCH_IN.size,
    FALLOCATE: _FALLOCATE_IN.size,
    READDIRPLUS: READ_IN.size,
    RENAME2: _RENAME2_IN.size,
    LSEEK: _LSEEK_IN.size,
    COPY_FILE_RANGE: _COPY_IN.size,
}
"""How long the head of each is; 0 for the others. INIT's grows with the protocol: all of it is `rest`."""

Bytes = bytes | memoryview


def name_in(rest: Bytes) -> str:
    """Return the only name, as Python has it: any bytes are legal (surrogateescape)."""
    return str(rest[:-1], "utf-8", "surrogateescape")


def first_name_in(rest: Bytes) -> str:
    """Return the first name, or the only one."""
    return str(bytes(rest).partition(b"\0")[0], "utf-8", "surrogateescape")


def two_names_in(rest: Bytes) -> tuple[str, str]:
    """Return the two names of RENAME, RENAME2 and SYMLINK (name, target)."""
    first, second, *_ = bytes(rest).split(b"\0")
    return str(first, "utf-8", "surrogateescape"), str(second, "utf-8", "surrogateescape")


def init_request(rest: Bytes) -> InitRequest:
    """Read INIT."""
    major, minor, readahead, flags = _INIT_IN.unpack_from(rest)
    if len(rest) >= _INIT_IN.size + _FLAGS2_IN.size:
        flags |= _FLAGS2_IN.unpack_from(rest, _INIT_IN.size)[0] << 32
    return InitRequest(major, minor, readahead, flags)


def set_attributes(head: Bytes) -> SetAttributes:
    """Read SETATTR."""
    (valid, _, handle, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _) = _SETATTR_IN.unpack_from(
        head
    )

    def moment(is_set: int, is_now: int, seconds: int, nanoseconds: int) -> int | None:
        if valid & is_now:
            return NOW
        return seconds * _NANOSECONDS + nanoseconds if valid & is_set else None

    return SetAttributes(
        handle=handle if valid & WITH_HANDLE else None,
        mode=mode if valid & SET_MODE else None,
        uid=uid if valid & SET_UID else None,
        gid=gid if valid & SET_GID else None,
        size=size if valid & SET_SIZE else None,
        atime=moment(SET_ATIME, SET_ATIME_NOW, atime, atime_ns),
        mtime=moment(SET_MTIME, SET_MTIME_NOW, mtime, mtime_ns),
        kills_suidgid=bool(valid & KILL_SUIDGID),
    )


def create_request(head: Bytes, rest: Bytes) -> Create:
    """Read CREATE; the umask was applied by the kernel."""
    flags, mode, _, _ = _CREATE_IN.unpack_from(head)
    return Create(flags, mode, name_in(rest))


def mknod_request(head: Bytes, rest: Bytes) -> tuple[int, int, str]:
    """Read MKNOD: mode, device, name."""
    mode, device, _, _ = _MKNOD_IN.unpack_from(head)
    return mode, device, name_in(rest)


def mkdir_request(head: Bytes, rest: Bytes) -> tuple[int, str]:
    """Read MKDIR: mode, name."""
    mode, _ = _MKDIR_IN.unpack_from(head)
    return mode, name_in(rest)


def rename_request(head: Bytes, rest: Bytes) -> Rename:
    """Read RENAME."""
    (parent,) = _RENAME_IN.unpack_from(head)
    return Rename(parent, 0, *two_names_in(rest))


def rename2_request(head: Bytes, rest: Bytes) -> Rename:
    """Read RENAME2."""
    parent, flags, _ = _RENAME2_IN.unpack_from(head)
    return Rename(parent, flags, *two_names_in(rest))


def link_request(head: Bytes, rest: Bytes) -> tuple[int, str]:
    """Read LINK: the node that gets another name, and that name in the directory of the header."""
    (node,) = _LINK_IN.unpack_from(head)
    return node, name_in(rest)


def setxattr_request(head: Bytes, rest: Bytes) -> tuple[str, bytes, int]:
    """Read SETXATTR in its short form: name, value, flags of setxattr(2)."""
    size, flags = _SETXATTR_IN.unpack_from(head)
    name, _, value = bytes(rest).partition(b"\0")
    return str(name, "utf-8", "surrogateescape"), value[:size], flags


def wanted_size(head: Bytes) -> int:
    """Read how many bytes GETXATTR and LISTXATTR want: 0 for their number alone."""
    return int(_GETXATTR_IN.unpack_from(head)[0])


def handle_in(head: Bytes) -> int:
    """Read the handle that RELEASE, RELEASEDIR and FLUSH begin with."""
    return int(_HANDLE.unpack_from(head)[0])


def fsync_request(head: Bytes) -> tuple[int, bool]:
    """Read FSYNC or FSYNCDIR: handle, and whether the data alone count."""
    handle, flags, _ = _FSYNC_IN.unpack_from(head)
    return handle, bool(flags & FSYNC_DATA_ONLY)


def fallocate_request(head: Bytes) -> tuple[int, int, int, int]:
    """Read FALLOCATE: handle, offset, length, mode."""
    handle, offset, length, mode, _ = _FALLOCATE_IN.unpack_from(head)
    return handle, offset, length, mode


def lseek_request(head: Bytes) -> tuple[int, int, int]:
    """Read LSEEK: handle, offset, whence (SEEK_DATA or SEEK_HOLE)."""
    handle, offset, whence, _ = _LSEEK_IN.unpack_from(head)
    return handle, offset, whence


def copy_request(head: Bytes) -> Copy:
    """Read COPY_FILE_RANGE."""
    return Copy(*_COPY_IN.unpack_from(head)[:6])


def forgotten(opcode: int, node: int, head: Bytes, rest: Bytes) -> list[tuple[int, int]]:
    """Read FORGET or BATCH_FORGET: (node, look-ups) of each."""
    if opcode == FORGET:
        return [(node, _FORGET_IN.unpack_from(head)[0])]
    count, _ = _BATCH_IN.unpack_from(head)
    return [_FORGET_ONE.unpack_from(rest, number * _FORGET_ONE.size) for number in range(count)]


def interrupted(head: Bytes) -> int:
    """Read INTERRUPT: the unique number of the request that its caller has given up."""
    return int(_INTERRUPT_IN.unpack_from(head)[0])
