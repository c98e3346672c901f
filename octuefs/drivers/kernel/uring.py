"""Requests over io_uring (Documentation/filesystems/fuse/fuse-io-uring.rst; Linux 6.14 on).

The kernel has a queue for each possible CPU, and puts a request on that of the caller. A thread that is pinned to the
CPU answers there, without waking another. What has to wait is answered by a worker, which fills in the answer and lets
the queue's thread send it: the ring is the thread's alone. FORGET, INTERRUPT and notifications stay on /dev/fuse.
"""

import errno
import logging
import mmap
import os
import signal
import struct
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from octuefs.drivers.kernel.replies import HEADER as ANSWER_HEADER
from octuefs.drivers.kernel.request import Answer, Body, Request
from octuefs.drivers.kernel.requests import HEADER
from octuefs.drivers.kernel.ring import (
    COMMAND_AT,
    ENTRY_BYTES,
    FIXED_FILE,
    OP_READ,
    OP_URING_CMD,
    SQE,
    Ring,
    address_of,
)
from octuefs.drivers.kernel.staying import Staying

logger = logging.getLogger(__name__)

ENTRIES: Final = 72
"""Requests of one CPU that may be under way: 64 that wait leave some for those that need not."""
SPARE_ENTRIES: Final = 4
"""The same for CPUs that no thread of this process may run on."""

_REGISTER, _COMMIT_AND_FETCH = 1, 2
_HEADER_BYTES: Final = 288
_HEADER_ROOM: Final = 512
_HEAD_AT: Final = 128
_PAYLOAD_SIZE_AT: Final = 272
_WORD_BYTES: Final = 8
_COMMIT_ID_WORD: Final = 264 // _WORD_BYTES
"""Where the number of a request stands in the header of an entry, and then in what its answer is sent with."""
_COMMIT_WORD: Final = (COMMAND_AT + 8) // _WORD_BYTES
_HEADER_WORDS: Final = _HEADER_ROOM // _WORD_BYTES
_ENTRY_WORDS: Final = ENTRY_BYTES // _WORD_BYTES
_PAYLOAD_SIZE = struct.Struct("=I")
_VECTORS = struct.Struct("=QQQQ")
_COMMAND = struct.Struct("=QQH")
_ENDED: Final = frozenset({errno.ENOTCONN, errno.ECANCELED, errno.ENODEV})
"""What is told of an entry when the connection has ended."""


class QueueThread:
    """Serves the queues of some CPUs with one ring."""

    def __init__(
        self, device: int, queues: Sequence[int], entries: int, payload_bytes: int, answer: Answer, *, stays: bool
    ) -> None:
        """Make ready to serve; nothing is asked of the kernel before `begin`.

        :param queues: numbers of CPUs; this thread is pinned to the only one, and runs anywhere where they are several
        :param payload_bytes: the longest body of a request or an answer; resident only once it is used
        :param stays: whether who is answered may be kept on the core, see `Staying`
        """
        self._device = device
        self._queues = queues
        self._answer = answer
        count = entries * len(queues)
        self._headers = mmap.mmap(-1, _HEADER_ROOM * count)
        self._vectors = mmap.mmap(-1, _VECTORS.size * count)
        self._payloads = [mmap.mmap(-1, payload_bytes) for _ in range(count)]
        self._payload_bytes = payload_bytes
        self._entries_of = [queue for queue in queues for _ in range(entries)]
        headers = memoryview(self._headers)
        self._words = headers.cast("Q")
        self._stays = stays and len(queues) == 1
        self._requests = []
        self._rooms = [memoryview(it) for it in self._payloads]
        for slot, room in enumerate(self._rooms):
            start = _HEADER_ROOM * slot + _HEAD_AT
            self._requests.append(Request(self, slot, headers[start : start + 128], room, room))
        self._answered: deque[tuple[int, int, Body]] = deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._woken = mmap.mmap(-1, 4096)
        self._go_on = threading.Event()
        self.ready = threading.Event()
        self.failure: OSError | None = None
        """Why no ring could be made, once `ready` is set."""
        self._wanted = False
        name = f"queue-{queues[0]}" if len(queues) == 1 else "queues"
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def begin(self, *, wanted: bool) -> None:
        """Register the queues, after INIT was answered; or end, where they are not `wanted`."""
        self._wanted = wanted
        self._go_on.set()

    def answer(self, request: Request, error: int, body: Body) -> None:
        """See `Transport`: called by workers."""
        self._answered.append((request.slot, error, body))
        os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        try:
            if len(self._queues) == 1:
                os.sched_setaffinity(0, {self._queues[0]})
            ring = Ring(len(self._requests) + 1, [self._device])
        except OSError as error:
            self.failure = error
            return
        finally:
            self.ready.set()
        try:
            self._go_on.wait()
            if self._wanted:
                self._serve(ring)
        except OSError as error:
            # The kernel would answer nobody any more: a mount that ends is better than one that hangs.
            logger.error("requests cannot come over io_uring (%s); mount with --io-uring off", error.strerror)
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            ring.close()

    def _serve(self, ring: Ring) -> None:
        self._register(ring)
        found = ring.enter()
        self._make_ready(ring)
        staying = Staying() if self._stays else None
        left = len(self._requests)
        # Names of this function alone are the fastest to look up.
        answer, requests, send, headers, rooms = self._answer, self._requests, self._send, self._headers, self._rooms
        unpack, sizes, wake = HEADER.unpack_from, _PAYLOAD_SIZE.unpack_from, len(requests)
        while True:
            for slot, result in found:
                if result < 0:
                    if -result not in _ENDED:
                        raise OSError(-result, os.strerror(-result))
                    left -= slot != wake
                    continue
                if slot == wake:
                    self._send_answered(ring)
                    ring.submit(wake)
                    continue
                request = requests[slot]
                at = slot * _HEADER_ROOM
                (_, request.opcode, request.unique, request.node, request.uid, request.gid, request.pid, _, _) = unpack(
                    headers, at
                )
                request.rest = rooms[slot][: sizes(headers, at + _PAYLOAD_SIZE_AT)[0]]
                answered = answer(request)
                if answered is not None:
                    send(ring, slot, *answered)
            if not left:
                return
            if staying is not None:
                staying.look()
            found = ring.enter()

    def _register(self, ring: Ring) -> None:
        """Make all entries of the queues known, and wait for what workers have answered, with the next `enter`."""
        for slot, queue in enumerate(self._entries_of):
            header = address_of(self._headers, slot * _HEADER_ROOM)
            payload = address_of(self._payloads[slot])
            _VECTORS.pack_into(self._vectors, slot * _VECTORS.size, header, _HEADER_BYTES, payload, self._payload_bytes)
            where = address_of(self._vectors, slot * _VECTORS.size)
            SQE.pack_into(
                ring.sqes, slot * ENTRY_BYTES, OP_URING_CMD, FIXED_FILE, 0, 0, _REGISTER, where, 2, 0, slot, 0
            )
            _COMMAND.pack_into(ring.sqes, slot * ENTRY_BYTES + COMMAND_AT, 0, 0, queue)
            ring.submit(slot)
        wake = len(self._requests)
        where = address_of(self._woken)
        SQE.pack_into(ring.sqes, wake * ENTRY_BYTES, OP_READ, 0, 0, self._wake, 0, where, _WORD_BYTES, 0, wake, 0)
        ring.submit(wake)

    def _make_ready(self, ring: Ring) -> None:
        """Write what each answer is sent with, but for the number of the request."""
        for slot in range(len(self._requests)):
            SQE.pack_into(
                ring.sqes, slot * ENTRY_BYTES, OP_URING_CMD, FIXED_FILE, 0, 0, _COMMIT_AND_FETCH, 0, 0, 0, slot, 0
            )

    def _send_answered(self, ring: Ring) -> None:
        with suppress(IndexError):
            while True:
                self._send(ring, *self._answered.popleft())

    def _send(self, ring: Ring, slot: int, error: int, body: Body) -> None:
        """Answer, and make the entry free for the next request, with the next `enter`."""
        at = slot * _HEADER_ROOM
        headers = self._headers
        size = len(body)
        if size and body.__class__ is bytes:
            self._rooms[slot][:size] = body
        ANSWER_HEADER.pack_into(headers, at, ANSWER_HEADER.size + size, -error, self._requests[slot].unique)
        _PAYLOAD_SIZE.pack_into(headers, at + _PAYLOAD_SIZE_AT, size)
        ring.words[slot * _ENTRY_WORDS + _COMMIT_WORD] = self._words[slot * _HEADER_WORDS + _COMMIT_ID_WORD]
        ring.submit(slot)
