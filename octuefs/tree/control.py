"""The control panel `.octuefs/` at the mount's root."""

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from octuefs.errors import NotFound
from octuefs.model.paths import path_bytes
from octuefs.stores.base import ByteSource
from octuefs.tree.defaults import Branch
from octuefs.tree.node import Attributes, DirectoryEntry, Node, virtual_inode
from octuefs.tree.virtual import Ground, TextNode, VirtualLeaf, made_directory

CONTROL_NAME = ".octuefs"
RECOVERED_NAME = "recovered"

_NANOSECONDS = 1_000_000_000


class RecoveredEntry(Protocol):
    """Something that could not be stored: its name, its length in bytes, since when (seconds)."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def when(self) -> float: ...


class RecoveredFiles(Protocol):
    """What could not be stored, by name."""

    def entries(self) -> Sequence[RecoveredEntry]:
        """Return all that is kept, the oldest first."""
        ...

    def open(self, name: str) -> ByteSource:
        """Open an entry for reading.

        :raise NotFound: where there is none
        """
        ...

    def discard(self, name: str) -> None:
        """Let go of an entry for ever."""
        ...


@dataclass(frozen=True)
class ControlFiles:
    """What `.octuefs/` shows and does. A mount that only reads recovers nothing."""

    status: Callable[[], bytes]
    errors: Callable[[], bytes]
    refresh: Callable[[], object]
    recovered: RecoveredFiles | None = None


class ControlPanel(Branch):
    """`.octuefs/`."""

    def __init__(self, ground: Ground, files: ControlFiles, views: Callable[[], bytes]) -> None:
        """`views` makes the text of the file of that name."""
        self._ground = ground
        self._path = f"/{CONTROL_NAME}"
        self._nodes: dict[str, Node] = {
            "status": self._file("status", files.status),
            "errors": self._file("errors", files.errors),
            "views": self._file("views", views),
            "refresh": TextNode(
                ground,
                f"{self._path}/refresh",
                lambda: b"",
                permissions=0o600,
                is_ours=True,
                control=lambda _: files.refresh(),
            ),
            RECOVERED_NAME: RecoveredFolder(ground, f"{self._path}/{RECOVERED_NAME}", files.recovered or _Nothing()),
        }

    def _file(self, name: str, render: Callable[[], bytes]) -> TextNode:
        return TextNode(self._ground, f"{self._path}/{name}", render, is_ours=True)

    def check_writable(self) -> None:
        """See `Node`."""
        self._ground.check_writable()

    def attributes(self) -> Attributes:
        """See `Node`."""
        return made_directory(self._ground, self._path)

    def lookup(self, name: str) -> Node:
        """See `Node`."""
        if name not in self._nodes:
            raise NotFound(f"{self._path}/{name}: no such file")
        return self._nodes[name]

    def entries(self) -> Iterable[DirectoryEntry]:
        """See `Node`."""
        return [
            DirectoryEntry(
                name,
                virtual_inode(f"{self._path}/{name}"),
                stat.S_IFDIR if isinstance(node, RecoveredFolder) else stat.S_IFREG,
            )
            for name, node in self._nodes.items()
        ]


class _Nothing:
    """What a mount that only reads has recovered."""

    def entries(self) -> Sequence[RecoveredEntry]:
        return ()

    def open(self, name: str) -> ByteSource:
        raise NotFound(f"{name}: nothing of this name is kept")

    def discard(self, name: str) -> None:
        raise NotFound(f"{name}: nothing of this name is kept")


class RecoveredFolder(Branch):
    """`.octuefs/recovered/`: files that can be read, copied, and removed for good."""

    def __init__(self, ground: Ground, path: str, files: RecoveredFiles) -> None:
        self._ground = ground
        self._path = path
        self._files = files

    def check_writable(self) -> None:
        """See `Node`."""
        self._ground.check_writable()

    def attributes(self) -> Attributes:
        """See `Node`."""
        made = made_directory(self._ground, self._path)
        return made._replace(mode=stat.S_IFDIR | 0o700, uid=os.getuid(), gid=os.getgid())

    def lookup(self, name: str) -> Node:
        """See `Node`."""
        node = RecoveredFile(self._ground, f"{self._path}/{name}", self._files, name)
        node.entry()
        return node

    def entries(self) -> Iterable[DirectoryEntry]:
        """See `Node`."""
        return [
            DirectoryEntry(name, virtual_inode(f"{self._path}/{name}"), stat.S_IFREG)
            for name in sorted((entry.name for entry in self._files.entries()), key=path_bytes)
        ]

    def remove(self, name: str) -> None:
        """See `Node`: it is discarded."""
        self._files.discard(name)


class RecoveredFile(VirtualLeaf):
    """One of them."""

    volatile = True
    """Another may get its name."""

    def __init__(self, ground: Ground, path: str, files: RecoveredFiles, name: str) -> None:
        super().__init__(ground, path)
        self._files = files
        self._name = name

    def entry(self) -> RecoveredEntry:
        """Return what is known of it.

        :raise NotFound: where it was discarded or put back
        """
        for entry in self._files.entries():
            if entry.name == self._name:
                return entry
        raise NotFound(f"{self.path}: nothing of this name is kept")

    def attributes(self) -> Attributes:
        """See `Node`."""
        entry = self.entry()
        made = self.made_attributes(stat.S_IFREG | 0o400, entry.size)
        when = round(entry.when * _NANOSECONDS)
        return made._replace(mtime_ns=when, ctime_ns=when, uid=os.getuid(), gid=os.getgid())

    def open(self) -> ByteSource:
        """See `Node`."""
        return self._files.open(self._name)
