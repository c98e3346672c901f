"""What the operations walk: nodes. A view wraps the same protocol that it shows.

Nodes are values made on the way and thrown away; what lasts are the index and the inode numbers. A node
never asks who called: permissions are the kernel's work (`default_permissions`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from octuefs.errors import IsADirectory, NoAttribute, NotADirectory, NotALink
from octuefs.stores.base import ByteSource, ObjectInfo

_VIRTUAL_INODE_BIT = 1 << 63
"""Inode numbers of what we invent have the highest bit set; a disk's own hardly ever do."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What stat(2) tells; sizes in bytes, times in nanoseconds since the epoch, blocks of 512 bytes."""

    inode: int
    mode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    uid: int
    gid: int
    blocks: int
    links: int = 1
    device: int = 0

    @classmethod
    def of(cls, info: ObjectInfo) -> "Attributes":
        """Return the attributes of what a store describes."""
        return cls(
            inode=info.inode,
            mode=info.mode,
            size=info.size,
            mtime_ns=info.mtime_ns,
            ctime_ns=info.ctime_ns,
            uid=info.uid,
            gid=info.gid,
            blocks=blocks_of(info.size) if info.blocks is None else info.blocks,
            links=info.links,
            device=info.device,
        )


def blocks_of(size: int) -> int:
    """Return how many blocks of 512 bytes hold `size` bytes."""
    return -(-size // 512)


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """One listed name; of `mode` only the file type counts, as for d_type."""

    name: str
    inode: int
    mode: int


class Node(Protocol):
    """Anything that has a path in the mount."""

    def attributes(self) -> Attributes:
        """Return what stat(2) tells.

        :raise NotFound: where it has gone underneath
        """
        ...

    def lookup(self, name: str) -> "Node":
        """Return the node of a name in this directory, listed or not.

        :raise NotFound: where there is none
        :raise NotADirectory: where this is none
        """
        ...

    def entries(self) -> Iterable[DirectoryEntry]:
        """Return what this directory lists, in a stable order.

        :raise NotADirectory: where this is none
        """
        ...

    def open(self) -> ByteSource:
        """Open the bytes for reading.

        :raise IsADirectory: where this is a directory
        """
        ...

    @property
    def volatile(self) -> bool:
        """True where the text is made anew for each open and must not be cached by the kernel."""
        ...

    def read_link(self) -> str:
        """Return where a symbolic link points.

        :raise NotALink: where this is none
        """
        ...

    def get_xattr(self, name: str) -> bytes:
        """Return the value of an extended attribute.

        :raise NoAttribute: where it has none of that name
        """
        ...

    def list_xattrs(self) -> list[str]:
        """Return the names of the attributes that are set and can be copied."""
        ...

    @property
    def control(self) -> Callable[[bytes], None] | None:
        """What takes the bytes written into a control file, None for everything else."""
        ...


class Leaf:
    """Defaults of a node that is no directory."""

    volatile = False
    control: Callable[[bytes], None] | None = None

    def lookup(self, name: str) -> Node:
        """Refuse: nothing is in a file."""
        raise NotADirectory(f"{name}: what stands above it is no directory")

    def entries(self) -> Iterable[DirectoryEntry]:
        """Refuse: nothing is in a file."""
        raise NotADirectory("not a directory")

    def read_link(self) -> str:
        """Refuse: no link."""
        raise NotALink("not a symbolic link")

    def get_xattr(self, name: str) -> bytes:
        """Have none."""
        raise NoAttribute(name)

    def list_xattrs(self) -> list[str]:
        """Have none."""
        return []


class Branch:
    """Defaults of a directory."""

    volatile = False
    control: Callable[[bytes], None] | None = None

    def open(self) -> ByteSource:
        """Refuse: a directory has no bytes."""
        raise IsADirectory("a directory cannot be read as a file")

    def read_link(self) -> str:
        """Refuse: no link."""
        raise NotALink("not a symbolic link")

    def get_xattr(self, name: str) -> bytes:
        """Have none."""
        raise NoAttribute(name)

    def list_xattrs(self) -> list[str]:
        """Have none."""
        return []


def virtual_inode(path: str) -> int:
    """Return the stable inode number of something invented, by its path in the mount."""
    digest = blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") | _VIRTUAL_INODE_BIT
