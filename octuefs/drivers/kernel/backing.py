"""How open files use the kernel's caches: passed through to a file of this machine, through the page cache, or past it.

The kernel's rules (fs/fuse/iomode.c): while a node is open by passthrough, every open of it must be, with the same
backing file; while it is open through the page cache, none may be. So what a node's first handle is decides for all
that join it, and a file that cannot join, because another stands at the path by now, gets another node.
"""

import errno
import logging
import threading
from collections.abc import Hashable
from dataclasses import dataclass

from octuefs.drivers.kernel.device import Device
from octuefs.drivers.kernel.nodes import FileRecord, NodeTable
from octuefs.drivers.kernel.replies import DIRECT_IO, KEEP_CACHE, NO_FLUSH, PASSTHROUGH
from octuefs.errors import OctuefsError
from octuefs.operations import Opened
from octuefs.stores.base import ByteSource, DiskSource, as_disk

logger = logging.getLogger(__name__)

MOST_BACKINGS = 4096
"""So many files at most are passed through at a time: each keeps one open in the kernel."""

_WORDS = {
    errno.EPERM: "this process may not (CAP_SYS_ADMIN)",
    errno.ENOTTY: "this kernel cannot (Linux 6.9 can)",
    errno.ELOOP: "the files lie on file systems stacked too deep",
    errno.EOPNOTSUPP: "the file system of the files does not allow it",
    errno.EINVAL: "the file system of the files does not allow it",
}


class Replaced(Exception):
    """What was opened is not what the node's other handles have open."""


@dataclass(slots=True)
class Opening:
    """An open handle of a node: whether it can write, and how it uses the kernel's caches; past them, if in no way."""

    record: FileRecord
    source: ByteSource | None
    """None for a control file's."""
    writes: bool
    cached: bool = False
    passed_through: bool = False
    version: Hashable = None
    """The version that is known, of what is passed through."""


class OpenFiles:
    """The open handles. Any thread may call; the lock is held for memory work and for one ioctl(2) on the device."""

    def __init__(self, device: Device, table: NodeTable, *, passthrough: str) -> None:
        """`passthrough` says why files cannot be passed through, "" where they can."""
        self._device = device
        self._table = table
        self.no_passthrough = passthrough
        """Why no file is passed through to, "" where they are."""
        self._lock = threading.Lock()
        self._handles: dict[int, Opening] = {}
        self._backings = 0

    def opened(
        self, record: FileRecord, opened: Opened, source: ByteSource | None, *, writes: bool, direct: bool
    ) -> tuple[int, int]:
        """Take note of a handle, and return the flags and the backing file that its opening is answered with.

        :raise Replaced: where the node's other handles have another file open
        """
        opening = Opening(record, source, writes=writes)
        with self._lock:
            flags = DIRECT_IO if source is None or direct else 0
            if source is not None:
                flags |= self._join(opening, opened, source, direct=direct)
            self._handles[opened.handle] = opening
            self._table.opened(record, opened.handle)
            backing = record.backing if opening.passed_through else 0
        return flags | (0 if writes else NO_FLUSH), backing

    def _join(self, opening: Opening, opened: Opened, source: ByteSource, *, direct: bool) -> int:
        record = opening.record
        others = [self._handles[it] for it in record.handles]
        if others and others[0].source is not None and others[0].source.identity() != source.identity():
            raise Replaced
        disk = as_disk(source)
        if record.backing and (disk is None or direct):
            raise Replaced
        if direct:
            return 0
        version = source.version() if disk is None else opened.version
        if disk is not None and not any(it.cached for it in others):
            record.backing = record.backing or self._open_backing(disk)
        if record.backing:
            opening.passed_through, opening.version = True, version
            record.version = None  # what is written shows in no page
            return PASSTHROUGH
        opening.cached = True
        keeps = version is not None and record.version == version
        record.version = version
        return KEEP_CACHE if keeps else 0

    def _open_backing(self, source: DiskSource) -> int:
        if self.no_passthrough or self._backings >= MOST_BACKINGS:
            return 0
        try:
            with source.lend() as descriptor:
                number = self._device.open_backing(descriptor)
        except (OSError, OctuefsError) as error:
            if (reason := _WORDS.get(error.errno or 0)) is not None:
                self.no_passthrough = reason
                logger.info("files are not passed through: %s", reason)
            return 0
        self._backings += 1
        return number

    def get(self, handle: int) -> Opening | None:
        """Return what is known of a handle."""
        return self._handles.get(handle)

    def closed(self, handle: int) -> None:
        """Forget a handle, before it is closed."""
        with self._lock:
            opening = self._handles.pop(handle, None)
            if opening is None:
                return
            record = opening.record
            self._table.released(record, handle)
            if record.backing and not any(self._handles[it].passed_through for it in record.handles):
                self._device.close_backing(record.backing)
                record.backing = 0
                self._backings -= 1

    @property
    def passed_through(self) -> int:
        """How many files are passed through now."""
        return self._backings
