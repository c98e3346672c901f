"""Attributes, ordinary and extended, and links."""

import errno
import os
import stat
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from octuefs.drivers.kernel import replies, requests
from octuefs.drivers.kernel.freshness import Freshness
from octuefs.drivers.kernel.names import Names
from octuefs.drivers.kernel.nodes import DirectoryRecord, FileRecord, NodeTable, Record
from octuefs.drivers.kernel.request import Body, Handler, Request, WouldWait
from octuefs.drivers.kernel.requests import NOW, SetAttributes
from octuefs.drivers.kernel.resolving import Resolver
from octuefs.errors import StaleNode
from octuefs.operations import IO_BYTES, Operations
from octuefs.tree.node import Node

_MEASURED_SECONDS: Final = 0.01


class _Measured(NamedTuple):
    """An extended attribute, or the list of names, whose length somebody has asked for."""

    question: tuple[int, int, str, int]
    """Node, thread, name, and how many changes there have been."""
    data: bytes
    at: float

    def is_fresh(self) -> bool:
        return time.monotonic() - self.at < _MEASURED_SECONDS


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
        self._measured: _Measured | None = None

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
        return self._as_asked(request, name, self._value)

    def _value(self, node: Node, name: str) -> bytes:
        return self._operations.getxattr(node, name)

    def listxattr(self, request: Request) -> Body:
        """LISTXATTR."""
        return self._as_asked(request, "", self._names_of)

    def _names_of(self, node: Node, _: str) -> bytes:
        return b"".join(it.encode("utf-8", "surrogateescape") + b"\0" for it in self._operations.listxattr(node))

    def _as_asked(self, request: Request, name: str, find: Callable[[Node, str], bytes]) -> bytes:
        """Return an attribute as it was asked for: all of it, or its length.

        Programs ask for the length first and for all right after. So what was measured is kept for who asks next.

        :param name: of the attribute; "" for the list of names
        :raise OSError: ERANGE where it is longer than there is room for
        """
        wanted = requests.wanted_size(request.head)
        question = (request.node, request.pid, name, self._freshness.changes)
        measured, self._measured = self._measured, None
        if wanted and measured is not None and measured.question == question and measured.is_fresh():
            data = measured.data
        else:
            node = self._resolver.node(self._table.get(request.node), request)
            if not request.may_wait and not node.tells_at_once(name):
                raise WouldWait
            data = find(node, name)
        if not wanted:
            self._measured = _Measured(question, data, time.monotonic())
            return replies.size(len(data))
        if len(data) > wanted:
            raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
        return data

    def setxattr(self, request: Request) -> Body:
        """SETXATTR."""
        name, value, flags = requests.setxattr_request(request.head, request.rest)
        record = self._table.get(request.node)
        with self._freshness.asked_for(*self._names.paths(record)):
            self._operations.setxattr(self._resolver.to_change(record, request), name, value, flags)
            self._measured = None
        return b""

    def removexattr(self, request: Request) -> Body:
        """REMOVEXATTR."""
        record = self._table.get(request.node)
        with self._freshness.asked_for(*self._names.paths(record)):
            self._operations.removexattr(self._resolver.to_change(record, request), requests.name_in(request.rest))
            self._measured = None
        return b""


def _or_as_it_is(owner: int | None) -> int:
    return -1 if owner is None else owner


def _moment(time_ns: int | None) -> int | None:
    return time.time_ns() if time_ns == NOW else time_ns
