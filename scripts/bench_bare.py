"""The bare protocol loop: `python bench_bare.py SOURCE MOUNT_POINT io_uring|device`.

What octuefs's native driver is measured against where nothing is cached: the same transports and the same replies
with nothing between them but two dictionaries, made before of what is in SOURCE. Look-ups and attributes alone are
answered. It says "ready", and ends with its mount or by SIGTERM.
"""

import errno
import os
import signal
import sys
import threading
from pathlib import Path

from octuefs.drivers.kernel import device as devices
from octuefs.drivers.kernel import replies, requests
from octuefs.drivers.kernel.negotiation import Feature, agree, init_reply
from octuefs.drivers.kernel.request import Body, Request
from octuefs.drivers.kernel.transports import loop_threads, queue_threads, read_first
from octuefs.tree.node import Attributes

BLOCK_BYTES = 4096
LASTING = replies.validity(120)
"""As long as octuefs lets the kernel keep what it was told."""


class Names:
    """What was in a folder when this was made."""

    def __init__(self, source: Path) -> None:
        self._nodes: dict[tuple[int, bytes], int] = {}
        self._attributes: dict[int, Attributes] = {}
        self._add(source, requests.ROOT_ID)

    def _add(self, place: Path, node: int) -> None:
        found = place.lstat()
        self._attributes[node] = Attributes(
            node, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_uid, found.st_gid, 1
        )
        if place.is_dir():
            for child in place.iterdir():
                number = len(self._attributes) + requests.ROOT_ID
                self._nodes[node, os.fsencode(child.name)] = number
                self._add(child, number)

    def answer(self, request: Request) -> tuple[int, Body]:
        """Answer at once: errno, or 0 and a body."""
        if request.opcode == requests.LOOKUP:
            node = self._nodes.get((request.node, bytes(request.rest[:-1])))
            if node is None:
                return errno.ENOENT, b""
            return 0, replies.entry(node, self._attributes[node], BLOCK_BYTES, LASTING, LASTING)
        if request.opcode == requests.GETATTR:
            return 0, replies.attributes(self._attributes[request.node], BLOCK_BYTES, LASTING)
        return errno.ENOSYS, b""

    def note(self, request: Request) -> None:
        """Forget nothing."""


def main(source: str, mount_point: str, transport: str) -> None:
    """Mount and answer until the mount ends."""
    names = Names(Path(source))
    device = devices.mount(mount_point, devices.MountOptions("bare", read_only=True, allow_other=True))
    signal.signal(signal.SIGTERM, lambda *_: devices.unmount(mount_point, privileged=device.privileged))
    threads: list[threading.Thread] = []
    try:
        room = bytearray(devices.REQUEST_BYTES)
        length = read_first(device, room)
        unique = requests.HEADER.unpack_from(room)[2]
        offer = requests.init_request(bytes(room[requests.HEADER.size : length]))
        session = agree(offer, Feature.OVER_IO_URING if transport == "io_uring" else Feature(0))
        queues = []
        if session.has(Feature.OVER_IO_URING):
            queues = queue_threads(device, session.write_bytes, names)
        elif transport == "io_uring":
            raise SystemExit("bench: this kernel has no FUSE over io_uring")
        body = init_reply(session)
        os.writev(device.descriptor, (replies.head(unique, body), body))
        for queue in queues:
            queue.begin(wanted=True)
        loops = loop_threads(device, names, single=bool(queues))
        threads = [it.thread for it in (*queues, *loops)]
        print("ready", flush=True)
        for thread in threads:
            while thread.is_alive():
                thread.join(1)  # so that the signal is heard
    finally:
        devices.unmount(mount_point, privileged=device.privileged)


if __name__ == "__main__":
    main(*sys.argv[1:])
