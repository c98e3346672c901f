"""One request of the kernel on its way through the driver, whichever transport it came by."""

from collections.abc import Callable
from typing import Protocol

Body = bytes | memoryview
"""What answers a request; a memoryview is a part of the request's `room` that was filled in place, from its start."""


class Transport(Protocol):
    """What a request came by, and its answer goes by."""

    def answer(self, request: "Request", error: int, body: Body) -> None:
        """Send an answer: an errno, or 0 and a body. Any thread may call, once for each request that was handed on."""
        ...


class Request:
    """What the kernel asks, and where the answer goes. Transports use the same object again and again."""

    __slots__ = (
        "gid",
        "head",
        "may_wait",
        "node",
        "opcode",
        "pid",
        "rest",
        "room",
        "slot",
        "transport",
        "uid",
        "unique",
    )

    def __init__(self, transport: Transport, slot: int, head: Body, rest: Body, room: memoryview) -> None:
        """`slot` is the transport's own; what else is given is where the parts of requests come to lie."""
        self.transport = transport
        self.slot = slot
        self.may_wait = False
        """Whether the thread that answers may wait: a worker's may, a transport's own must not."""
        self.opcode = 0
        self.unique = 0
        self.node = 0
        self.uid = 0
        self.gid = 0
        self.pid = 0
        self.head = head
        """The arguments of fixed length; more may stand behind them."""
        self.rest = rest
        """The names or bytes that follow, no longer than they are."""
        self.room = room
        """Where an answer's body may be written, as long as the longest."""

    def kept(self) -> "Request":
        """Return a copy that stays what it is, whatever its transport uses the memory for; it has no `room`."""
        copy = Request(self.transport, self.slot, bytes(self.head), bytes(self.rest), memoryview(b""))
        copy.opcode, copy.unique, copy.node = self.opcode, self.unique, self.node
        copy.uid, copy.gid, copy.pid = self.uid, self.gid, self.pid
        return copy


Handler = Callable[[Request], Body]
"""Answers a request.

:raise OctuefsError, OSError: for its errno
:raise WouldWait: where it must be called in a thread that may wait; nothing has happened yet
"""


Answer = Callable[[Request], tuple[int, Body] | None]
"""Answers a request of a transport: errno and body, None where a worker will."""


class WouldWait(Exception):
    """An answer has to wait for a disk, the cloud or another thread."""
