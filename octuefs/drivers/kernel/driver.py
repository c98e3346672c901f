"""The native driver: the kernel's FUSE protocol on /dev/fuse, and over io_uring where the kernel has that."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from octuefs.drivers.kernel import device as devices
from octuefs.drivers.kernel import replies, requests
from octuefs.drivers.kernel.abilities import find_abilities, switch_uring_on
from octuefs.drivers.kernel.backing import OpenFiles
from octuefs.drivers.kernel.device import Device, MountOptions
from octuefs.drivers.kernel.directories import Directories
from octuefs.drivers.kernel.dispatch import Dispatcher
from octuefs.drivers.kernel.facts import Facts
from octuefs.drivers.kernel.files import Files
from octuefs.drivers.kernel.freshness import Freshness
from octuefs.drivers.kernel.names import Names
from octuefs.drivers.kernel.negotiation import OPENS, Feature, Session, agree, init_reply
from octuefs.drivers.kernel.nodes import NodeTable
from octuefs.drivers.kernel.pinned import PinnedFiles
from octuefs.drivers.kernel.resolving import Resolver
from octuefs.drivers.kernel.transports import loop_threads, queue_threads, read_first, workers
from octuefs.drivers.kernel.uring import QueueThread
from octuefs.mounts import device_number
from octuefs.operations import Operations

logger = logging.getLogger(__name__)

_READAHEAD_KIB = 1024
_STACK_DEPTH = 2
"""Source or cache may lie on a file system that is stacked itself, as in every container."""
_LAST_SECONDS = 2.0
"""How long requests under way may take when the mount is told to end."""


class KernelDriver:
    """One mount of the native driver, in the thread that makes it."""

    def __init__(
        self, operations: Operations, mount_point: str, options: MountOptions, io_uring: str, *, kernel_opens: bool
    ) -> None:
        """`io_uring` is auto, on or off; `kernel_opens` lets the kernel answer opens itself, where it can."""
        self._operations = operations
        self._mount_point = os.path.realpath(mount_point)  # once it is mounted, looking at it would ask ourselves
        self._options = options
        self._io_uring = io_uring
        self._kernel_opens = kernel_opens
        self._no_io_uring = ""
        self._readahead_raised = False
        self._number: str | None = None
        """The mount's device number: other mounts may come to stand at its place."""

    def serve(self, mounted: Callable[[], None]) -> None:
        """Mount and answer until unmounted or told to end by SIGINT, SIGTERM or SIGHUP; then unmount.

        :param mounted: called once programs are answered
        :raise OctuefsError: where the mount cannot be made
        """
        if self._io_uring == "on":
            switch_uring_on()
        device = devices.mount(self._mount_point, self._options)
        self._number = device_number(self._mount_point)
        ending = threading.Event()
        threads: list[threading.Thread] = []
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, lambda *_: ending.set())
            threads = self._begin(device)
            threading.Thread(target=_join_all, args=(threads, ending), name="end", daemon=True).start()
            mounted()
            ending.wait()
        finally:
            if device_number(self._mount_point) == self._number:  # and no other mount's, made at this place since
                devices.unmount(self._mount_point, privileged=device.privileged)
            latest = time.monotonic() + _LAST_SECONDS
            for thread in threads:
                thread.join(max(0.0, latest - time.monotonic()))
            if threads:
                self._freshness.end()
            self._operations.close()

    def _begin(self, device: Device) -> list[threading.Thread]:
        """Answer the kernel's first request, and start what answers all others."""
        room = bytearray(devices.REQUEST_BYTES)
        length = read_first(device, room)
        unique = requests.HEADER.unpack_from(room)[2]
        offer = requests.init_request(bytes(room[requests.HEADER.size : length]))
        wanted = Feature(0)
        abilities = find_abilities()
        self._no_io_uring = "--io-uring off" if self._io_uring == "off" else abilities.io_uring
        passthrough = abilities.passthrough if device.privileged else "fusermount3 made the mount, and it takes root"
        if self._kernel_opens and offer.flags & OPENS == OPENS:
            wanted |= OPENS
            passthrough = "the kernel answers opens itself"
        if not passthrough:
            wanted |= Feature.PASSTHROUGH
        if not self._no_io_uring:
            wanted |= Feature.OVER_IO_URING
        self.session = agree(offer, wanted, _STACK_DEPTH)
        self._dispatcher = dispatcher = self._put_together(device, self.session, passthrough)
        queues: list[QueueThread] = []
        if self.session.has(Feature.OVER_IO_URING):
            try:
                queues = queue_threads(device, self.session.write_bytes, dispatcher)
            except OSError as error:
                self._no_io_uring = f"no ring could be made: {error.strerror}"
                self.session = agree(offer, wanted & ~Feature.OVER_IO_URING, _STACK_DEPTH)
        elif not self._no_io_uring:
            self._no_io_uring = "the kernel does not offer it"
        _answer(device, unique, init_reply(self.session))
        for queue in queues:
            queue.begin(wanted=True)
        loops = loop_threads(device, dispatcher, single=bool(queues))
        self._freshness.start()
        self._readahead_raised = self._raise_readahead()
        return [*(it.thread for it in queues), *(it.thread for it in loops)]

    def _put_together(self, device: Device, session: Session, passthrough: str) -> Dispatcher:
        """Put together what answers."""
        operations, table = self._operations, NodeTable()
        resolver = Resolver(operations, table)
        freshness = Freshness(operations, table, device, session)
        kernel_opens = session.has(OPENS)
        pinned = PinnedFiles(operations, table, resolver) if kernel_opens else None
        names = Names(operations, table, resolver, freshness, pinned)
        open_files = OpenFiles(device, table, passthrough=passthrough)
        handlers = {
            **names.handlers(),
            **Facts(operations, table, resolver, freshness, names).handlers(),
            **Files(operations, table, resolver, freshness, names, open_files, pinned).handlers(),
            **Directories(operations, table, resolver, freshness, names, kernel_opens=kernel_opens).handlers(),
        }
        self._freshness, self._table, self._open_files = freshness, table, open_files
        return Dispatcher(handlers, operations, table, freshness, workers())

    def _raise_readahead(self) -> bool:
        """Let the kernel read further ahead than the 128 KiB that it keeps to, where we may say so."""
        return self._number is not None and devices.raise_readahead(self._number, _READAHEAD_KIB)

    # --- how it is

    def status(self) -> dict[str, Any]:
        """Return what `.octuefs/status` says of the driver."""
        open_files = self._open_files
        return {
            "protocol": f"7.{self.session.minor}",
            "io_uring": "yes" if self.session.has(Feature.OVER_IO_URING) else f"no: {self._no_io_uring}",
            "passthrough": f"no: {open_files.no_passthrough}" if open_files.no_passthrough else "yes",
            "opens": "kernel" if self.session.has(OPENS) else "daemon",
            "files_passed_through": open_files.passed_through,
            "nodes": len(self._table),
            "requests": self._dispatcher.requests(),
            "read_ahead": f"{_READAHEAD_KIB} KiB" if self._readahead_raised else "as the kernel has it",
        }


def _join_all(threads: list[threading.Thread], ended: threading.Event) -> None:
    for thread in threads:
        thread.join()
    ended.set()


def _answer(device: Device, unique: int, body: bytes) -> None:
    os.writev(device.descriptor, (replies.head(unique, body), body))
