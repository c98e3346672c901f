"""Listings. What a directory lists, with attributes or without, is made where a reading of it begins."""

import stat
import threading
import time
from collections.abc import Sequence
from typing import Final

from cachetools import LRUCache

from octuefs.drivers.kernel import replies, requests
from octuefs.drivers.kernel.freshness import Freshness
from octuefs.drivers.kernel.names import Names
from octuefs.drivers.kernel.nodes import DirectoryRecord, NodeTable
from octuefs.drivers.kernel.replies import CACHE_DIR, KEEP_CACHE
from octuefs.drivers.kernel.request import Body, Handler, Request
from octuefs.drivers.kernel.requests import READ_IN
from octuefs.drivers.kernel.resolving import Resolver
from octuefs.errors import NotFound, OctuefsError, StaleNode
from octuefs.operations import Operations
from octuefs.tree.node import DirectoryEntry, Node

_LISTINGS: Final = 64
_ITSELF: Final = 2
"""The entries before a directory's own: `.` and `..`."""
_UNKNOWN_INODE: Final = 0xFFFFFFFF
"""What stands for a number that is not known; readdir(3) would leave out an entry with 0."""


class Directories:
    """Answers what is asked about what directories list."""

    def __init__(
        self,
        operations: Operations,
        table: NodeTable,
        resolver: Resolver,
        freshness: Freshness,
        names: Names,
        *,
        kernel_opens: bool,
    ) -> None:
        """`kernel_opens` says whether the kernel opens directories itself, so that readings of them have no handle."""
        self._operations = operations
        self._table = table
        self._resolver = resolver
        self._freshness = freshness
        self._names = names
        self._kernel_opens = kernel_opens
        self._lock = threading.Lock()
        self._listings: LRUCache[int, Sequence[DirectoryEntry]] = LRUCache(_LISTINGS)
        """What directories without handles listed when a reading of them began, by node."""

    def handlers(self) -> dict[int, Handler]:
        """Return what answers each opcode."""
        listing: dict[int, Handler] = {requests.READDIR: self.readdir, requests.READDIRPLUS: self.readdirplus}
        if self._kernel_opens:
            return listing
        return {
            **listing,
            requests.OPENDIR: self.opendir,
            requests.RELEASEDIR: self.releasedir,
            requests.FSYNCDIR: self.fsyncdir,
        }

    def opendir(self, request: Request) -> Body:
        """OPENDIR: the kernel may keep the listing that follows, until something has changed."""
        record = self._table.directory(request.node)
        node = self._resolver.directory(record, request)
        flags = 0
        if record.found is not None and self._freshness.lasts(record):  # in the control panel more changes than facts
            version = record.found[0]
            flags = CACHE_DIR | (KEEP_CACHE if record.listed == version else 0)
            record.listed = version
        return replies.opened(self._operations.opendir(node), flags)

    def _listed(self, request: Request, handle: int, offset: int) -> Sequence[DirectoryEntry]:
        """Return what a directory listed when this reading of it began, which is now where `offset` is 0."""
        self._table.directory(request.node).listed_at = time.monotonic()
        if not self._kernel_opens:
            return self._operations.readdir(handle, anew=offset == 0)
        with self._lock:
            known = self._listings.get(request.node)
        if known is not None and offset:
            return known
        node = self._resolver.directory(self._table.directory(request.node), request)
        handle = self._operations.opendir(node)
        try:
            entries = self._operations.readdir(handle)
        except NotFound as error:
            raise StaleNode(str(error)) from error  # ENOENT reads as the end of the directory
        finally:
            self._operations.releasedir(handle)
        with self._lock:
            self._listings[request.node] = entries
        return entries

    def readdir(self, request: Request) -> Body:
        """READDIR."""
        handle, offset, size, *_ = READ_IN.unpack_from(request.head)
        entries = self._listed(request, handle, offset)
        answer = bytearray()
        for position in range(offset, len(entries) + _ITSELF):
            name, inode, mode = self._entry(request, entries, position)
            item = replies.listed(inode, position + 1, mode, name.encode("utf-8", "surrogateescape"))
            if len(answer) + len(item) > size:
                break
            answer += item
        return bytes(answer)

    def readdirplus(self, request: Request) -> Body:
        """READDIRPLUS: each entry is a look-up, too."""
        handle, offset, size, *_ = READ_IN.unpack_from(request.head)
        parent = self._table.directory(request.node)
        directory = self._resolver.directory(parent, request)
        entries = self._listed(request, handle, offset)
        answer = bytearray()
        for position in range(offset, len(entries) + _ITSELF):
            name, inode, mode = self._entry(request, entries, position)
            item = replies.listed(inode, position + 1, mode, name.encode("utf-8", "surrogateescape"))
            if len(answer) + len(replies.NOTHING_LOOKED_UP) + len(item) > size:
                break
            found = replies.NOTHING_LOOKED_UP
            if position >= _ITSELF:
                found = self._looked_up(parent, directory, name, request)
            answer += found + item
        return bytes(answer)

    def _looked_up(self, parent: DirectoryRecord, directory: Node, name: str, request: Request) -> bytes:
        seen = self._freshness.changes
        try:
            return self._names.entry(parent, name, self._resolver.child(directory, name, request), seen)
        except OctuefsError:
            return replies.NOTHING_LOOKED_UP  # it has gone meanwhile, or cannot be asked; who wants it will hear

    def _entry(self, request: Request, entries: Sequence[DirectoryEntry], position: int) -> tuple[str, int, int]:
        if position >= _ITSELF:
            entry = entries[position - _ITSELF]
            return entry.name, entry.inode, entry.mode
        record = self._table.directory(request.node)
        if position == 0:
            return ".", self._inode(record, request), stat.S_IFDIR
        return "..", self._inode(record.place[0] if record.place else record, request), stat.S_IFDIR

    def _inode(self, record: DirectoryRecord, request: Request) -> int:
        try:
            return self._operations.getattr(self._resolver.directory(record, request)).inode
        except OctuefsError:
            return _UNKNOWN_INODE

    def releasedir(self, request: Request) -> Body:
        """RELEASEDIR."""
        self._operations.releasedir(requests.handle_in(request.head))
        return b""

    def fsyncdir(self, request: Request) -> Body:
        """FSYNCDIR."""
        handle, _ = requests.fsync_request(request.head)
        self._operations.fsyncdir(handle)
        return b""
