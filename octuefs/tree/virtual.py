"""Virtual files: texts made from the facts, and links made from them."""

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from octuefs.datafile import Datafile
from octuefs.errors import NotFound, NotUnique
from octuefs.model.paths import path_bytes
from octuefs.stores.base import ByteSource
from octuefs.tree.defaults import Leaf
from octuefs.tree.node import Attributes, blocks_of, virtual_inode

T = TypeVar("T")

HASH_LINE_BYTES = 9
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r"})


class Ground(Protocol):
    """What virtual files and folders are made of: a dataset, or several together."""

    @property
    def owner(self) -> tuple[int, int, int]:
        """Whose they are, and the permission bits of folders: uid, gid, mode."""
        ...

    @property
    def changed_ns(self) -> int:
        """When it changed last, in nanoseconds since the epoch."""
        ...

    def check_writable(self) -> None:
        """Refuse changes where it is only read.

        :raise ReadOnly: with the reason
        """
        ...


class TextSource:
    """A `ByteSource` of bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, offset: int, size: int) -> bytes:
        """See `ByteSource`."""
        return self._data[offset : offset + size]

    def version(self) -> int:
        """See `ByteSource`."""
        return hash(self._data)

    def identity(self) -> int:
        """See `ByteSource`."""
        return hash(self._data)

    def info(self) -> None:
        """Tell nothing: the node does."""

    def close(self) -> None:
        """See `ByteSource`."""


class VirtualLeaf(Leaf):
    """What virtual files have in common: the owner of the dataset's root, and the time of the last change."""

    def __init__(self, ground: Ground, path: str) -> None:
        """`path` is the path in the mount: it gives the inode number."""
        self.ground = ground
        self.path = path

    def check_writable(self) -> None:
        """See `Node`."""
        self.ground.check_writable()

    def made_attributes(self, mode: int, size: int) -> Attributes:
        """Return attributes for a virtual file of this mode (with its type) and size."""
        uid, gid, _ = self.ground.owner
        changed_ns = self.ground.changed_ns
        return Attributes(
            inode=virtual_inode(self.path),
            mode=mode,
            size=size,
            mtime_ns=changed_ns,
            ctime_ns=changed_ns,
            uid=uid,
            gid=gid,
            blocks=blocks_of(size),
        )


class TextNode(VirtualLeaf):
    """A file whose text is made at open."""

    def __init__(
        self,
        ground: Ground,
        path: str,
        render: Callable[[], bytes],
        *,
        size: Callable[[], int] | None = None,
        volatile: bool = True,
        permissions: int = 0o444,
        is_ours: bool = False,
        control: Callable[[bytes], object] | None = None,
    ) -> None:
        """`size` tells the text's length in bytes where that is cheaper than making it.

        `is_ours` makes it belong to who mounted, not to the owner of the dataset.
        """
        super().__init__(ground, path)
        self._is_ours = is_ours
        self._render = render
        self._size = size
        self._permissions = permissions
        self.volatile = volatile
        self.control = control

    def attributes(self) -> Attributes:
        """See `Node`."""
        size = self._size() if self._size is not None else len(self._render())
        made = self.made_attributes(stat.S_IFREG | self._permissions, size)
        return made._replace(uid=os.getuid(), gid=os.getgid()) if self._is_ours else made

    def open(self) -> ByteSource:
        """See `Node`."""
        return TextSource(self._render())


class OneNode(VirtualLeaf):
    """`.one`: a link to the only datafile of a directory."""

    def __init__(self, ground: Ground, path: str, target: str) -> None:
        """`target` is its path from the directory."""
        super().__init__(ground, path)
        self._target = target

    def attributes(self) -> Attributes:
        """See `Node`."""
        return self.made_attributes(stat.S_IFLNK | 0o777, len(path_bytes(self._target)))

    def open(self) -> ByteSource:
        """See `Node`."""
        return TextSource(b"")

    def read_link(self) -> str:
        """See `Node`."""
        return self._target


def made_directory(ground: Ground, path: str) -> Attributes:
    """Return the attributes of an invented directory at a path of the mount; it looks like the root."""
    uid, gid, permissions = ground.owner
    changed_ns = ground.changed_ns
    return Attributes(
        inode=virtual_inode(path),
        mode=stat.S_IFDIR | permissions,
        size=0,
        mtime_ns=changed_ns,
        ctime_ns=changed_ns,
        uid=uid,
        gid=gid,
        blocks=0,
    )


class Shows(Protocol):
    """What a directory shows: a scope of a dataset, or of several."""

    def set_hash(self) -> str:
        """Return the hash of the set of datafiles in and below it.

        :raise OctuefsError: where one cannot be read
        """
        ...

    def hashed_members(self) -> Sequence[Datafile]:
        """Return these datafiles, with their hashes known, or raise likewise."""
        ...

    def shown_paths(self) -> Iterable[tuple[str, Datafile]]:
        """Yield the path from the directory of each, and the datafile."""
        ...


def hash_text(scope: Shows) -> bytes:
    """Return the text of `.hash`."""
    return f"{scope.set_hash()}\n".encode()


def _escaped(path: str) -> tuple[str, str]:
    """Return (prefix, path) as sha256sum writes a name: escaped and marked where it holds a newline or backslash."""
    escaped = path.translate(_ESCAPES)
    return ("\\" if escaped != path else ""), escaped


def hashes_text(scope: Shows) -> bytes:
    """Return the text of `.hashes`: hash, two spaces, path, sorted by the path's bytes."""
    scope.hashed_members()
    lines = sorted(
        ((path_bytes(path), datafile.hash_value, *_escaped(path)) for path, datafile in scope.shown_paths()),
        key=lambda line: line[0],
    )
    return b"".join(
        f"{mark}{hash_value}  ".encode() + path_bytes(escaped) + b"\n" for _, hash_value, mark, escaped in lines
    )


def hashes_size(scope: Shows) -> int:
    """Return the length of `.hashes` without computing a hash."""
    total = 0
    for path, _ in scope.shown_paths():
        mark, escaped = _escaped(path)
        total += len(mark) + HASH_LINE_BYTES - 1 + 2 + len(path_bytes(escaped)) + 1
    return total


def only_one(members: Sequence[T]) -> T:
    """Return the one that `.one` leads to, of all datafiles in and below a directory.

    :raise NotFound: for none
    :raise NotUnique: for several
    """
    if not members:
        raise NotFound(".one: no datafile is here")
    if len(members) > 1:
        raise NotUnique(f".one: {len(members)} datafiles are here")
    return members[0]
