"""Files whose opening the kernel answers itself: reads name a node alone, and this finds the bytes.

That is for read-only mounts, and of the whole mount. A node stands for one version of a file: a file of the dataset
that was replaced, and a text of our making that reads otherwise by now, gets another node, so that no reader gets a
mix of two. What is read is kept open for the next read, so many files at a time.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from octuefs.drivers.kernel.nodes import FileRecord, NodeTable
from octuefs.drivers.kernel.request import Request
from octuefs.drivers.kernel.resolving import Resolver
from octuefs.operations import Operations
from octuefs.tree.node import Node

_MOST_OPEN: Final = 512
_PIECE_BYTES: Final = 1 << 20


@dataclass(slots=True)
class _Held:
    """An open handle, who reads by it, and whether it is to be closed after that."""

    handle: int
    users: int = 0
    dropped: bool = False


class PinnedFiles:
    """The open files of a mount whose opens the kernel answers itself. Any thread may call.

    The lock is held for memory work alone.
    """

    def __init__(self, operations: Operations, table: NodeTable, resolver: Resolver) -> None:
        self._operations = operations
        self._resolver = resolver
        self._lock = threading.Lock()
        self._held: OrderedDict[int, _Held] = OrderedDict()
        table.forgotten = self._drop

    def text_of(self, node: Node) -> bytes:
        """Return the whole of a text of our making."""
        handle = self._operations.open(node, os.O_RDONLY).handle
        try:
            parts = []
            length = 0
            while part := self._operations.read(handle, length, _PIECE_BYTES):
                parts.append(part)
                length += len(part)
            return b"".join(parts)
        finally:
            self._operations.release(handle)

    @contextmanager
    def opened(self, record: FileRecord, request: Request) -> Iterator[int]:
        """Give an open handle of a file, for as long as the context lasts.

        :raise StaleNode: where the file is not there any more
        :raise WouldWait: where opening it may have to wait, and the request must not
        """
        held = self._borrow(record, request)
        try:
            yield held.handle
        finally:
            self._give_back(held)

    def _borrow(self, record: FileRecord, request: Request) -> _Held:
        with self._lock:
            held = self._held.get(record.id)
            if held is not None:
                self._held.move_to_end(record.id)
                held.users += 1
                return held
        opened = self._resolver.opened(record, request, lambda node, _: self._operations.open(node, os.O_RDONLY))
        mine = _Held(opened.handle, users=1)
        with self._lock:
            held = self._held.setdefault(record.id, mine)
            held.users += held is not mine
            oldest = next(iter(self._held)) if len(self._held) > _MOST_OPEN else None
        if held is not mine:  # another thread was first
            self._operations.release(mine.handle)
        if oldest is not None:
            self._drop(oldest)
        return held

    def _give_back(self, held: _Held) -> None:
        with self._lock:
            held.users -= 1
            last = held.dropped and not held.users
        if last:
            self._operations.release(held.handle)

    def _drop(self, node: int) -> None:
        """Close what a node has open, once nobody reads by it."""
        with self._lock:
            held = self._held.pop(node, None)
            if held is None:
                return
            held.dropped = True
            unused = not held.users
        if unused:
            self._operations.release(held.handle)
