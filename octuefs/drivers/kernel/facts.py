"""Attributes, ordinary and extended, and links."""

import errno
import os
import stat
import time

from octuefs.drivers.kernel import replies, requests
from octuefs.drivers.kernel.freshness import Freshness
from octuefs.drivers.kernel.names import Names
from octuefs.drivers.kernel.nodes import DirectoryRecord, FileRecord, NodeTable, Record
from octuefs.drivers.kernel.request import Body, Handler, Request, WouldWait
from octuefs.drivers.kernel.requests import NOW, SetAttributes
from octuefs.drivers.kernel.resolving import Resolver
from octuefs.errors import StaleNode
from octuefs.operations import IO_BYTES, Operations


class Facts:
    """Answers what is asked about what stands at a node."""

    def __init__(
        self, operations: Operations, table: NodeTable, resolver: Resolver, freshness: Freshness, names: Names
    ) -> None:
        self._operations = operations
        self._table = table
        self._resolver = resolver
        self._freshness = freshness
        self._names = names

    def handlers(self) -> dict[int, Handler]:
        """Return what answers each opcode."""
        return {
            requests.GETATTR: self.getattr,
            requests.SETATTR: self.setattr,
            requests.READLINK: self.readlink,
            requests.STATFS: self.statfs,
            requests.GETXATTR: self.getxattr,
            requests.LISTXATTR: self.listxattr,
            requests.SETXATTR: self.setxattr,
            requests.REMOVEXATTR: self.removexattr,
        }

    # --- ordinary ones

    def getattr(self, request: Request) -> Body:
        """GETATTR."""
        record = self._table.get(request.node)
        return self._told(record, request)

    def _told(self, record: Record, request: Request) -> bytes:
        seen = self._freshness.changes
        volatile = False
        if isinstance(record, FileRecord):
            attributes = record.told or self._names.of_handles(record)
            if attributes is None:
                node, attributes = self._resolver.file(record, request)
                volatile = node.volatile
        else:
            attributes = self._operations.getattr(self._resolver.directory(record, request))
            attributes = self._freshness.of_directory(record, attributes)
        return replies.attributes(attributes, IO_BYTES, self._freshness.facts_of(record, volatile=volatile, seen=seen))

    def setattr(self, request: Request) -> Body:
        """SETATTR."""
        record = self._table.get(request.node)
        change = requests.set_attributes(request.head)
        with self._freshness.asked_for(*self._names.paths(record)):
            if not self._set_by_name(record, change, request):
                assert isinstance(record, FileRecord)
                self._set_by_handle(record, change)
        if isinstance(record, DirectoryRecord):
            record.changes = 0  # a time that is set is told as it was set
        elif change.size is not None:
            record.version = None
        return self._told(record, request)

    def _set_by_name(self, record: Record, change: SetAttributes, request: Request) -> bool:
        """Make a change to what a name leads to; False for an open file that has none."""
        operations = self._operations
        if change.handle is not None and change.size is not None:
            operations.ftruncate(change.handle, change.size)
            change = change._replace(size=None)
        if change[1:7] == (None,) * 6:
            return True
        try:
            node = self._resolver.to_change(record, request)
        except StaleNode:
            if isinstance(record, FileRecord) and record.handles and not record.places:
                return False
            raise
        if change.mode is not None:
            operations.chmod(node, change.mode)
        if change.uid is not None or change.gid is not None:
            operations.chown(node, _or_as_it_is(change.uid), _or_as_it_is(change.gid))
        if change.size is not None:
            operations.truncate(node, change.size)
        if change.kills_suidgid:
            operations.drop_privileges(node)
        if change.atime is not None or change.mtime is not None:
            operations.utimens(node, (_moment(change.atime), _moment(change.mtime)))
        return True

    def _set_by_handle(self, record: FileRecord, change: SetAttributes) -> None:
        operations = self._operations
        handle = next((it for it in record.handles if operations.is_writer(it)), record.handles[0])
        if change.mode is not None:
            operations.fchmod(handle, stat.S_IMODE(change.mode))
        if change.uid is not None or change.gid is not None:
            operations.fchown(handle, _or_as_it_is(change.uid), _or_as_it_is(change.gid))
        if change.size is not None:
            operations.ftruncate(handle, change.size)
        if change.atime is not None or change.mtime is not None:
            operations.futimens(handle, (_moment(change.atime), _moment(change.mtime)))

    def readlink(self, request: Request) -> Body:
        """READLINK."""
        node = self._resolver.node(self._table.file(request.node), request)
        return self._operations.readlink(node).encode("utf-8", "surrogateescape")

    def statfs(self, request: Request) -> Body:
        """STATFS."""
        record = self._table.get(request.node)
        path = next(iter(self._names.paths(record)), "/")
        return replies.space(self._operations.statfs(path), IO_BYTES)

    # --- extended ones

    def getxattr(self, request: Request) -> Body:
        """GETXATTR."""
        name = requests.name_in(request.rest)
        self._operations.check_xattr(name)
        node = self._resolver.node(self._table.get(request.node), request)
        if not request.may_wait and not node.tells_at_once(name):
            raise WouldWait
        return _as_asked(request, self._operations.getxattr(node, name))

    def listxattr(self, request: Request) -> Body:
        """LISTXATTR."""
        node = self._resolver.node(self._table.get(request.node), request)
        if not request.may_wait and not node.tells_at_once(""):
            raise WouldWait
        names = self._operations.listxattr(node)
        return _as_asked(request, b"".join(name.encode("utf-8", "surrogateescape") + b"\0" for name in names))

    def setxattr(self, request: Request) -> Body:
        """SETXATTR."""
        name, value, flags = requests.setxattr_request(request.head, request.rest)
        record = self._table.get(request.node)
        with self._freshness.asked_for(*self._names.paths(record)):
            self._operations.setxattr(self._resolver.to_change(record, request), name, value, flags)
        return b""

    def removexattr(self, request: Request) -> Body:
        """REMOVEXATTR."""
        record = self._table.get(request.node)
        with self._freshness.asked_for(*self._names.paths(record)):
            self._operations.removexattr(self._resolver.to_change(record, request), requests.name_in(request.rest))
        return b""


def _as_asked(request: Request, data: bytes) -> bytes:
    """Return an attribute as it was asked for: all of it, or its length.

    :raise OSError: ERANGE where it is longer than there is room for
    """
    wanted = requests.wanted_size(request.head)
    if not wanted:
        return replies.size(len(data))
    if len(data) > wanted:
        raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
    return data


def _or_as_it_is(owner: int | None) -> int:
    return -1 if owner is None else owner


def _moment(time_ns: int | None) -> int | None:
    return time.time_ns() if time_ns == NOW else time_ns
