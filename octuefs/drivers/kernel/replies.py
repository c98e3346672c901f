"""What the kernel is told: the layouts of replies and notifications, and functions that make them. Pure.

Numbers and layouts are those of include/uapi/linux/fuse.h, protocol 7.45. A reply is a header of 16 bytes, which the
transport puts before it, and its body.
"""

import struct
from typing import Final

from octuefs.stores.base import ObjectInfo, Space
from octuefs.tree.node import Attributes, blocks_of

HEADER: Final = struct.Struct("=IiQ")
"""Length of all, minus the errno or 0, unique; of a notification 0, its code, 0."""


def head(unique: int, body: bytes | memoryview, error: int = 0) -> bytes:
    """Return what stands before the body of an answer, or an errno alone."""
    return HEADER.pack(HEADER.size + len(body), -error, unique)


# Bits of what an open answers.
DIRECT_IO: Final = 1 << 0
KEEP_CACHE: Final = 1 << 1
CACHE_DIR: Final = 1 << 3
NO_FLUSH: Final = 1 << 5
PARALLEL_DIRECT_WRITES: Final = 1 << 6
PASSTHROUGH: Final = 1 << 7

# Codes of notifications.
INVAL_INODE: Final = 2
INC_EPOCH: Final = 8

_ATTR: Final = "QQQqqqIIIIIIIIII"
_ENTRY: Final = struct.Struct("=QQQQII" + _ATTR)
_ATTR_OUT: Final = struct.Struct("=QII" + _ATTR)
_OPEN_OUT: Final = struct.Struct("=QIi")
_WRITE_OUT: Final = struct.Struct("=II")
_STATFS_OUT: Final = struct.Struct("=QQQQQIIII24x")
_SIZE_OUT: Final = struct.Struct("=II")
_OFFSET_OUT: Final = struct.Struct("=Q")
_DIRENT: Final = struct.Struct("=QQII")

_INVAL_INODE: Final = struct.Struct("=Qqq")

_NANOSECONDS: Final = 1_000_000_000
_FRAGMENT_BYTES: Final = 4096
NAME_MAX: Final = 255

Validity = tuple[int, int]
"""How long the kernel may believe something: whole seconds, and nanoseconds."""


def validity(seconds: float) -> Validity:
    """Return a time in seconds as replies hold it."""
    whole = int(seconds)
    return whole, int((seconds - whole) * _NANOSECONDS)


def _attributes(it: Attributes | ObjectInfo, block_bytes: int) -> tuple[int, ...]:
    """Return what `_ATTR` packs."""
    seconds, nanoseconds = divmod(it.mtime_ns, _NANOSECONDS)
    changed, changed_ns = divmod(it.ctime_ns, _NANOSECONDS)
    return (
        it.inode,
        it.size,
        blocks_of(it.size) if it.blocks is None else it.blocks,
        seconds,
        seconds,
        changed,
        nanoseconds,
        nanoseconds,
        changed_ns,
        it.mode,
        it.links,
        it.uid,
        it.gid,
        it.device,
        block_bytes,
        0,
    )


def entry(node: int, attributes: Attributes | ObjectInfo, block_bytes: int, names: Validity, facts: Validity) -> bytes:
    """Answer LOOKUP, MKDIR and so on: the node of a name.

    :param names: how long the name leads to the node
    :param facts: how long the attributes count
    """
    return _ENTRY.pack(node, 0, names[0], facts[0], names[1], facts[1], *_attributes(attributes, block_bytes))


def no_entry(names: Validity) -> bytes:
    """Answer LOOKUP of a name that is not there, and will not be for so long."""
    return _ENTRY.pack(0, 0, names[0], 0, names[1], 0, *(0,) * len(_ATTR))


def attributes(it: Attributes | ObjectInfo, block_bytes: int, facts: Validity) -> bytes:
    """Answer GETATTR and SETATTR."""
    return _ATTR_OUT.pack(facts[0], facts[1], 0, *_attributes(it, block_bytes))


def opened(handle: int, flags: int, backing: int = 0) -> bytes:
    """Answer OPEN, OPENDIR and, after an entry, CREATE; `backing` is the number of the file passed through to."""
    return _OPEN_OUT.pack(handle, flags, backing)


def written(size: int) -> bytes:
    """Answer WRITE and COPY_FILE_RANGE."""
    return _WRITE_OUT.pack(size, 0)


def size(number: int) -> bytes:
    """Answer GETXATTR and LISTXATTR that ask for a number of bytes alone."""
    return _SIZE_OUT.pack(number, 0)


def offset(number: int) -> bytes:
    """Answer LSEEK."""
    return _OFFSET_OUT.pack(number)


def space(it: Space, block_bytes: int) -> bytes:
    """Answer STATFS."""
    return _STATFS_OUT.pack(
        it.total_bytes // _FRAGMENT_BYTES,
        it.free_bytes // _FRAGMENT_BYTES,
        it.free_bytes // _FRAGMENT_BYTES,
        it.total_files,
        it.free_files,
        block_bytes,
        NAME_MAX,
        _FRAGMENT_BYTES,
        0,
    )


def listed(inode: int, position: int, mode: int, name: bytes) -> bytes:
    """Return one name of READDIR; `position` is that of the next one, of `mode` the type counts.

    In READDIRPLUS its `entry` stands before it, NOTHING_LOOKED_UP for one without.
    """
    head = _DIRENT.pack(inode, position, len(name), (mode >> 12) & 15)
    return head + name + bytes(-len(name) % 8)


NOTHING_LOOKED_UP: Final = bytes(_ENTRY.size)
"""What stands in a listing in the place of an entry, where the kernel is to look the name up itself."""


# --- notifications


def forget_inode(node: int, offset: int = 0, length: int = 0) -> bytes:
    """Let the kernel forget attributes, and what it has cached from `offset` on; -1 for the attributes alone."""
    return _INVAL_INODE.pack(node, offset, length)
