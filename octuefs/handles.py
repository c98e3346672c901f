"""Open files and directories: records in one table, by the number that the kernel gives back to us."""

import errno
import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

from octuefs.errors import OctuefsError
from octuefs.stores.base import ByteSource
from octuefs.tree.node import DirectoryEntry, Node
from octuefs.writing.base import OpenFile


class BadHandle(OctuefsError):
    """A handle number that is not open (any more)."""

    errno = errno.EBADF


@runtime_checkable
class Synced(Protocol):
    """What can be made durable though it is open for reading alone, as on a disk."""

    def sync(self, *, data_only: bool = False) -> None:
        """fsync(2)."""
        ...


@dataclass(frozen=True, slots=True)
class ReadHandle:
    """A file open for reading."""

    node: Node
    source: ByteSource


@dataclass(frozen=True, slots=True)
class WriteHandle:
    """A file open for writing, or for both."""

    node: Node
    source: OpenFile


@dataclass(frozen=True, slots=True)
class ControlHandle:
    """A control file open for writing."""

    node: Node


class DirectoryHandle:
    """An open directory, and what it listed when it was first asked for that."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._lock = threading.Lock()  # held while the directory is listed: who asks meanwhile waits for the same
        self._entries: Sequence[DirectoryEntry] | None = None

    def entries(self, *, anew: bool) -> Sequence[DirectoryEntry]:
        """Return what it listed at first, or lists now where it is to be asked `anew`."""
        with self._lock:
            if self._entries is None or anew:
                self._entries = list(self.node.entries())
            return self._entries


Handle = TypeVar("Handle")


class HandleTable(Generic[Handle]):
    """Handles by number; numbers are never used twice. Safe from any thread."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._handles: dict[int, Handle] = {}

    def add(self, handle: Handle) -> int:
        """Keep a handle and return its number."""
        with self._lock:
            number = next(self._numbers)
            self._handles[number] = handle
            return number

    def get(self, number: int) -> Handle:
        """Return an open handle.

        :raise BadHandle: where there is none of that number
        """
        try:
            return self._handles[number]
        except KeyError:
            raise BadHandle(f"handle {number} is not open") from None

    def pop(self, number: int) -> Handle:
        """Forget a handle and return it.

        :raise BadHandle: where there is none of that number
        """
        with self._lock:
            if number not in self._handles:
                raise BadHandle(f"handle {number} is not open")
            return self._handles.pop(number)

    def __len__(self) -> int:
        return len(self._handles)

    def drain(self) -> list[Handle]:
        """Forget all handles and return them."""
        with self._lock:
            handles = list(self._handles.values())
            self._handles.clear()
            return handles
