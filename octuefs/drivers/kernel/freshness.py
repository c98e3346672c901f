"""How long the kernel may believe what it is told, and what it is told when that has changed.

Each change of the facts comes here from the index, under its lock, and is only noted. One thread, the notifier, tells
the kernel: it holds no lock and answers no request, and nobody waits for it.

Only such notifications are sent as wait for nothing in the kernel. One about a name waits for the requests about its
directory that are under way, and one about a file's pages for those that are being read: were the daemon killed in that
moment, neither it nor those who wait for it would ever end. So names are let go all at once, by raising the epoch, and
of files the attributes: where these turn out to have changed the kernel forgets the pages itself. Kernels without
epochs (before Linux 6.16) keep names for a moment only.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from octuefs.drivers.kernel import replies
from octuefs.drivers.kernel.device import Device
from octuefs.drivers.kernel.negotiation import OPENS, Session
from octuefs.drivers.kernel.nodes import DirectoryRecord, FileRecord, NodeTable
from octuefs.drivers.kernel.replies import Validity, validity
from octuefs.operations import Operations
from octuefs.tree.node import Attributes

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

_DIRECTORY: Final = validity(1)
"""How long a directory's own attributes count: nobody tells of a chmod(1) of a folder in the source."""
_MOMENT: Final = validity(1)
"""How long a name counts as missing, and how long any name counts without epochs."""

_ASKED_SECONDS: Final = 0.25
"""How often it is asked how long that is."""

_TICKS: Final = 1000
_ON_ITS_WAY_SECONDS: Final = 5.0
"""Longer than any answer takes to be taken in by the kernel."""

NEVER: Final[Validity] = (0, 0)


class Freshness:
    """What the kernel may keep. Any thread may call."""

    def __init__(self, operations: Operations, table: NodeTable, device: Device, session: Session) -> None:
        self._operations = operations
        self._table = table
        self._device = device
        self._knows_epochs = session.knows_epochs
        self._kernel_opens = session.has(OPENS)
        self.changes = 0
        """How many changes have been seen: an answer that was begun at another number is out of date."""
        self._epoch_due = False
        self._asked = threading.local()
        self._changed: deque[str] = deque()
        self._nodes: deque[int] = deque()
        self._wake = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)

    def start(self) -> None:
        """Begin to hear of changes, and to tell the kernel of them."""
        self._thread.start()
        self._operations.observe(self._observe)

    def end(self) -> None:
        """Tell the kernel nothing more; one notification may still wait in it."""
        self._ended = True
        self._wake.set()

    # --- how long

    def names(self, parent: DirectoryRecord, *, derived: bool, volatile: bool, seen: int) -> Validity:
        """Return how long a name in a directory leads to what was found, or to nothing.

        :param derived: whether what was found is made of the facts of the index
        :param volatile: whether it is a text that is made anew for each open
        :param seen: the number of `changes` before the answer was begun
        """
        if volatile or seen != self.changes:
            return NEVER
        if self._knows_epochs:
            return self._lasting(parent)
        return NEVER if derived or parent.derived else min(self._lasting(parent), _MOMENT)

    def _lasting(self, directory: DirectoryRecord) -> Validity:
        """Return how long what is told of a directory and the files in it counts."""
        now = time.monotonic()
        until, known = directory.lasting
        if until < now:
            known = validity(self._operations.lasting(self._table.path_of(directory)))
            directory.lasting = (now + _ASKED_SECONDS, known)
        return known

    def lasts(self, directory: DirectoryRecord) -> bool:
        """Say whether what is told of a directory counts for any time."""
        return self._lasting(directory) > NEVER

    def missing(self, parent: DirectoryRecord, seen: int) -> Validity:
        """Return how long a name that was not found in one of the dataset's own folders is missing."""
        if parent.derived or seen != self.changes:
            return NEVER
        return min(self._lasting(parent), _MOMENT)

    def directory_facts(self, names: Validity) -> Validity:
        """Return how long the attributes of a directory count where its name counts so long; of a file, as long."""
        return min(names, _DIRECTORY)

    def facts_of(self, record: DirectoryRecord | FileRecord, *, volatile: bool, seen: int) -> Validity:
        """Return how long the attributes of a node count."""
        if volatile or seen != self.changes:
            return NEVER
        if isinstance(record, DirectoryRecord):
            if record.derived and not self._knows_epochs:
                return NEVER
            return self.directory_facts(self._lasting(record))
        for parent, _ in record.places:
            return self._lasting(parent)
        return NEVER

    def of_directory(self, record: DirectoryRecord, attributes: Attributes) -> Attributes:
        """Return the attributes of a directory as the kernel is to be told of them.

        It knows by the time of the latest change whether a listing that it keeps still counts. An answer that was on
        its way when something changed may come to be kept after the kernel was told, under a time that is the new one
        already. So what it was told of just after a listing counts in that time, as nanoseconds.
        """
        if not record.changes:
            return attributes
        time_ns = attributes.mtime_ns
        return attributes._replace(mtime_ns=time_ns - time_ns % _TICKS + record.changes % _TICKS)

    # --- what has changed

    @contextmanager
    def asked_for(self, *paths: str) -> Iterator[None]:
        """Tell the kernel nothing of what this thread changes at paths of the mount: it asked for that itself."""
        self._asked.paths = paths
        try:
            yield
        finally:
            self._asked.paths = ()

    def _observe(self, path: str) -> None:
        self.changes += 1
        self._epoch_due = True
        if path not in getattr(self._asked, "paths", ()):
            self._changed.append(path)
            self._wake.set()

    def raise_epoch(self) -> None:
        """Let all names be looked up anew, where views may show something else since the last time."""
        if self._epoch_due and self._table.derived:
            self._raise_epoch()

    def _raise_epoch(self) -> None:
        self._epoch_due = False
        if self._knows_epochs:
            self._notify(replies.INC_EPOCH, b"")

    def forget_attributes(self, node: int) -> None:
        """Have the kernel ask for a node's attributes again, soon."""
        self._nodes.append(node)
        self._wake.set()

    # --- the notifier

    def _run(self) -> None:
        while not self._ended:
            self._wake.wait()
            self._wake.clear()
            try:
                for node in dict.fromkeys(_drained(self._nodes)):
                    self._notify(replies.INVAL_INODE, replies.forget_inode(node, -1))
                if paths := dict.fromkeys(_drained(self._changed)):
                    self._tell(paths)
            except Exception:
                logger.exception("the kernel may show what has changed only later")

    def _tell(self, paths: Iterable[str]) -> None:
        """Tell the kernel of what was changed by others than itself."""
        self._raise_epoch()
        directories: dict[int, DirectoryRecord] = {}
        for path in paths:
            if self._ended:
                return
            parent, _, record = self._table.find(path)
            if parent is not None:
                directories[parent.id] = parent
            if isinstance(record, FileRecord):
                self._notify(replies.INVAL_INODE, replies.forget_inode(record.id, -1))
            elif record is not None:
                directories[record.id] = record
        if self._kernel_opens:  # nobody asks us before a listing that the kernel keeps is read
            directories.update((it.id, it) for it in self._table.derived_directories())
        recently = time.monotonic() - _ON_ITS_WAY_SECONDS
        for directory in directories.values():
            directory.changes += directory.listed_at > recently
            self._notify(replies.INVAL_INODE, replies.forget_inode(directory.id))  # with the listing

    def _notify(self, code: int, body: bytes) -> None:
        try:
            self._device.notify(code, body)
        except OSError:
            logger.debug("the kernel knows nothing of what has changed, or the mount has ended")


def _drained(queue: deque[Item]) -> Iterator[Item]:
    while queue:
        yield queue.popleft()
