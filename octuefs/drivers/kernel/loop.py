"""Requests over /dev/fuse: a thread per core, pinned to it, each with a clone of the descriptor (FUSE_DEV_IOC_CLONE).

A thread reads a request and answers it where that needs memory alone. One that has to wait goes to a worker together
with the buffer that it was read into, and the thread takes another, so that no byte is copied.
"""

import errno
import logging
import mmap
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from octuefs.drivers.kernel import replies
from octuefs.drivers.kernel.device import REQUEST_BYTES
from octuefs.drivers.kernel.request import Answer, Body, Request
from octuefs.drivers.kernel.requests import BATCH_FORGET, FORGET, HEAD_BYTES, HEADER, INTERRUPT

logger = logging.getLogger(__name__)

_READ_AGAIN: Final = frozenset({errno.EINTR, errno.EAGAIN, errno.ENOENT})
"""ENOENT: the request was given up before it was read."""
_IDLE_BUFFERS: Final = 4
_UNANSWERED: Final = frozenset({FORGET, BATCH_FORGET, INTERRUPT})


class _Buffer:
    """Where a request is read to and its answer's body may be written.

    Both begin on a page, for the kernel copies three times as fast then, and are resident only once they are used.
    """

    __slots__ = ("request", "whole")

    def __init__(self, transport: "LoopThread") -> None:
        self.whole = memoryview(mmap.mmap(-1, REQUEST_BYTES))
        room = memoryview(mmap.mmap(-1, REQUEST_BYTES))
        self.request = Request(transport, 0, self.whole, self.whole, room)


class LoopThread:
    """One thread with its descriptor."""

    def __init__(self, descriptor: int, core: int | None, answer: Answer, note: Callable[[Request], None]) -> None:
        """`core` is the one it is pinned to; `note` takes what the kernel wants no answer to."""
        self._descriptor = descriptor
        self._core = core
        self._answer = answer
        self._note = note
        self._lock = threading.Lock()
        self._idle: list[_Buffer] = []
        self._lent: dict[int, _Buffer] = {}
        self.thread = threading.Thread(target=self._run, name=f"loop-{core}", daemon=True)

    def answer(self, request: Request, error: int, body: Body) -> None:
        """See `Transport`: called by workers."""
        self._send(request.unique, error, body)
        with self._lock:
            buffer = self._lent.pop(request.unique)
            if len(self._idle) < _IDLE_BUFFERS:
                self._idle.append(buffer)

    def _run(self) -> None:
        if self._core is not None:
            with suppress(OSError):  # the core may not be used any more
                os.sched_setaffinity(0, {self._core})
        buffer = _Buffer(self)
        while True:
            try:
                length = os.readv(self._descriptor, [buffer.whole])
            except OSError as error:
                if error.errno in _READ_AGAIN:
                    continue
                if error.errno != errno.ENODEV:
                    logger.warning("/dev/fuse cannot be read any more: %s", error)
                return
            request, whole = buffer.request, buffer.whole
            (_, request.opcode, request.unique, request.node, request.uid, request.gid, request.pid, _, _) = (
                HEADER.unpack_from(whole)
            )
            start = HEADER.size + HEAD_BYTES.get(request.opcode, 0)
            request.head = whole[HEADER.size : start]
            request.rest = whole[start:length]
            if request.opcode in _UNANSWERED:
                self._note(request)
                continue
            self._lent[request.unique] = buffer  # before a worker may be done with it
            answered = self._answer(request)
            if answered is None:
                buffer = self._another()
                continue
            del self._lent[request.unique]
            self._send(request.unique, *answered)

    def _another(self) -> _Buffer:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return _Buffer(self)

    def _send(self, unique: int, error: int, body: Body) -> None:
        header = replies.head(unique, body, error)
        try:
            os.writev(self._descriptor, (header, body) if body else (header,))
        except OSError as failure:
            if failure.errno not in (errno.ENOENT, errno.ENODEV):  # given up by its caller, or unmounted
                logger.warning("an answer was refused: %s", failure)
