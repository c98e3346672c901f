"""The system calls, driver-neutral: what a driver has decoded comes in, node calls go down, values come up.

Named after the calls. Every failure leaves as an exception that `errors.to_errno` knows. Safe from any
number of threads. Reading only: each change is refused with EROFS, but writing to a control file.
"""

import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from octuefs.errors import (
    ChecksumMismatch,
    Conflict,
    LocalFailure,
    PermissionRefused,
    ReadOnly,
    StoreUnavailable,
    TimedOut,
    Unsupported,
)
from octuefs.handles import BadHandle, ControlHandle, DirectoryHandle, HandleTable, ReadHandle
from octuefs.report import Report, printable
from octuefs.stores.base import Space
from octuefs.tree.namespace import CONTROL_NAME, Namespace
from octuefs.tree.node import Attributes, DirectoryEntry, Node

_FAILURES = (ChecksumMismatch, Conflict, LocalFailure, PermissionRefused, StoreUnavailable, TimedOut)

IO_BYTES = 128 << 10
"""The size of blocks that programs are told to read in (st_blksize, f_bsize)."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A file just opened: its handle, and whether the kernel must not cache its bytes."""

    handle: int
    direct: bool


class Operations:
    """What a mount answers."""

    def __init__(self, namespace: Namespace, report: Report) -> None:
        self._namespace = namespace
        self._report = report
        self._dataset = namespace.dataset
        self._files: HandleTable[ReadHandle | ControlHandle] = HandleTable()
        self._directories: HandleTable[DirectoryHandle] = HandleTable()

    @property
    def root(self) -> Node:
        """The node of the mount's root."""
        return self._namespace.root

    def version(self, path: str) -> int:
        """Return a number that changes when a path of the mount may lead to another node than before.

        What is known of a cloud dataset is brought up to date first, where its time has come; the control panel
        waits for nobody, and neither does the root itself.
        """
        if path != "/" and not f"{path}/".startswith(f"/{CONTROL_NAME}/"):
            self._dataset.keeper.expire()
        return self._dataset.index.version

    def note_failure(self, call: str, path: str, error: Exception) -> None:
        """Say in the report what failed on the way to or from the store; a plain "no" is no failure."""
        if isinstance(error, _FAILURES):
            self._report.failure(f"{call} {printable(path)}: {error}")

    # --- names and attributes

    def lookup(self, parent: Node, name: str) -> Node:
        """Return the node of a name in a directory.

        :raise NotFound: where there is none
        """
        return parent.lookup(name)

    def getattr(self, node: Node) -> Attributes:
        """Return what stat(2) tells."""
        return node.attributes()

    def readlink(self, node: Node) -> str:
        """Return where a symbolic link points."""
        return node.read_link()

    def getxattr(self, node: Node, name: str) -> bytes:
        """Return the value of an extended attribute.

        :raise Unsupported: for `system.*`, whatever the node is
        """
        if name.startswith("system."):
            raise Unsupported(f"{name}: attributes of this name cannot be kept here")
        return node.get_xattr(name)

    def listxattr(self, node: Node) -> list[str]:
        """Return the names of the extended attributes that are set and can be copied."""
        return node.list_xattrs()

    def statfs(self) -> Space:
        """Return how much room the store has."""
        return self._dataset.store.space()

    # --- directories

    def opendir(self, node: Node) -> int:
        """Open a directory: what it lists now is what its handle will list."""
        self._dataset.keeper.expire()
        return self._directories.add(DirectoryHandle(node, list(node.entries())))

    def readdir(self, handle: int) -> Sequence[DirectoryEntry]:
        """Return the entries of an open directory, without "." and ".."; their positions never change."""
        return self._directories.get(handle).entries

    def releasedir(self, handle: int) -> None:
        """Close a directory."""
        self._directories.pop(handle)

    # --- files

    def open(self, node: Node, flags: int) -> Opened:
        """Open a file; `flags` as for open(2).

        :raise ReadOnly: for writing, but to a control file
        """
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            if node.control is None:
                raise ReadOnly("the mount is read-only")
            return Opened(self._files.add(ControlHandle(node)), direct=True)
        return Opened(self._files.add(ReadHandle(node, node.open())), direct=node.volatile)

    def read(self, handle: int, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only at the end of the file."""
        opened = self._files.get(handle)
        if not isinstance(opened, ReadHandle):
            raise BadHandle(f"handle {handle} is not open for reading")
        return opened.source.read(offset, size)

    def write(self, handle: int, data: bytes) -> int:
        """Take bytes written to a control file and return their number."""
        opened = self._files.get(handle)
        if not isinstance(opened, ControlHandle) or opened.node.control is None:
            raise BadHandle(f"handle {handle} is not open for writing")
        opened.node.control(data)
        return len(data)

    def truncate(self, node: Node) -> None:
        """Accept for a control file, as `echo > file` truncates first.

        :raise ReadOnly: for everything else
        """
        if node.control is None:
            raise ReadOnly("the mount is read-only")

    def node_of(self, handle: int) -> Node:
        """Return the node of an open file, for fstat(2)."""
        return self._files.get(handle).node

    def version_of(self, handle: int) -> Hashable:
        """Return the version of a file open for reading, as it stands now."""
        opened = self._files.get(handle)
        return opened.source.version() if isinstance(opened, ReadHandle) else None

    def release(self, handle: int) -> None:
        """Close a file."""
        opened = self._files.pop(handle)
        if isinstance(opened, ReadHandle):
            opened.source.close()

    # --- changes

    def refuse_change(self) -> None:
        """Answer every call that would change something.

        :raise ReadOnly: always
        """
        raise ReadOnly("the mount is read-only")

    def close(self) -> None:
        """Close what programs left open."""
        for opened in self._files.drain():
            if isinstance(opened, ReadHandle):
                opened.source.close()
        self._directories.drain()
