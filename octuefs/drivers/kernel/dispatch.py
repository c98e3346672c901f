"""From a request to its answer: the handler of its opcode, and an errno for whatever that raises.

It runs in the transport's own thread where it need not wait, else in a worker's.
"""

import logging
import struct
import threading
from collections.abc import Mapping
from concurrent.futures import Executor
from functools import partial
from typing import Final

from octuefs.drivers.kernel import requests
from octuefs.drivers.kernel.freshness import Freshness
from octuefs.drivers.kernel.nodes import NodeTable
from octuefs.drivers.kernel.request import Body, Handler, Request, WouldWait
from octuefs.drivers.second_tries import SecondTries
from octuefs.errors import Conflict, OctuefsError, to_errno
from octuefs.operations import Operations

logger = logging.getLogger(__name__)

_AT_ONCE: Final = frozenset(
    {
        *(requests.LOOKUP, requests.GETATTR, requests.GETXATTR, requests.LISTXATTR),
        *(requests.OPEN, requests.READ, requests.FLUSH, requests.RELEASE),
        *(requests.OPENDIR, requests.RELEASEDIR),
    }
)
"""What is tried without waiting first; all else goes to a worker at once."""
_GIVEN_UP: Final = frozenset(
    {
        *(requests.LOOKUP, requests.GETATTR, requests.READ, requests.READLINK, requests.STATFS),
        *(requests.GETXATTR, requests.LISTXATTR, requests.READDIR),
    }
)
"""What its caller may stop waiting for: it leaves nothing behind."""
_BY_PATH: Final = frozenset(
    {
        *(requests.OPEN, requests.CREATE, requests.MKNOD, requests.MKDIR, requests.SYMLINK, requests.LINK),
        *(requests.UNLINK, requests.RMDIR, requests.RENAME, requests.RENAME2),
        *(requests.SETATTR, requests.SETXATTR, requests.REMOVEXATTR),
    }
)
"""What the kernel tries twice."""
_ENTRY_NODE: Final = struct.Struct("=Q")
_OPCODES: Final = 64
"""More than there are."""
_ENOSYS: Final = 38
_EINTR: Final = 4


class Dispatcher:
    """Answers requests, whichever transport they came by. Any thread may call."""

    def __init__(
        self,
        handlers: Mapping[int, Handler],
        operations: Operations,
        table: NodeTable,
        freshness: Freshness,
        workers: Executor,
    ) -> None:
        self._handlers = [handlers.get(opcode) for opcode in range(_OPCODES)]
        self._operations = operations
        self._table = table
        self._freshness = freshness
        self._workers = workers
        self._tries = SecondTries()
        self._counts = [0] * _OPCODES
        self._lock = threading.Lock()
        self._under_way: dict[int, Request] = {}
        """Requests that wait in a worker, by their unique number, as long as nobody has answered."""

    def answer(self, request: Request) -> tuple[int, Body] | None:
        """Answer in the calling thread, which must not wait; None where a worker will.

        Returns the errno, or 0 and a body.
        """
        opcode = request.opcode
        if opcode >= _OPCODES:
            return _ENOSYS, b""
        self._counts[opcode] += 1
        handler = self._handlers[opcode]
        if handler is None:
            return _ENOSYS, b""
        if opcode in _AT_ONCE:
            request.may_wait = False
            try:
                if opcode == requests.OPEN and self._tries:
                    self._tries.refuse(_call(request))
                return 0, handler(request)
            except WouldWait:
                pass
            except Exception as error:
                return self._failed(request, error), b""
        if opcode in _GIVEN_UP:
            request = request.kept()
        request.may_wait = True
        with self._lock:
            self._under_way[request.unique] = request
        self._workers.submit(self._work, handler, request)
        return None

    def _work(self, handler: Handler, request: Request) -> None:
        error = 0
        body: Body = b""
        unique = request.unique
        try:
            if self._tries and request.opcode in _BY_PATH:
                self._tries.refuse(_call(request))
            body = handler(request)
            self._freshness.raise_epoch()
        except Exception as failure:
            error = self._failed(request, failure)
        with self._lock:
            mine = self._under_way.pop(unique, None) is not None
        if mine:
            request.transport.answer(request, error, body)
        elif not error and request.opcode == requests.LOOKUP and body:
            self._table.forget(_ENTRY_NODE.unpack_from(body)[0], 1)

    def _failed(self, request: Request, error: Exception) -> int:
        """Say in the report what failed, and return its errno."""
        if isinstance(error, OctuefsError):
            if isinstance(error, Conflict) and request.opcode in _BY_PATH:
                self._tries.note(_call(request), error)
            call = requests.NAMES.get(request.opcode, "a request")
            self._operations.note_failure(call, partial(self._subject, request), error)
        elif not isinstance(error, OSError):
            logger.exception("%s failed unexpectedly", requests.NAMES.get(request.opcode, request.opcode))
        return to_errno(error)

    def _subject(self, request: Request) -> str:
        """Return the path that a request was about, for people."""
        try:
            record = self._table.get(request.node)
            path = self._table.describe(record)
        except OctuefsError:
            path = "?"
        if request.opcode in requests.BEGINS_WITH_NAME:
            return f"{path.rstrip('/')}/{requests.first_name_in(request.rest)}"
        return path

    def requests(self) -> dict[str, int]:
        """Return how many requests of each kind have come, those that wanted no answer left out."""
        return {requests.NAMES[it]: count for it, count in enumerate(self._counts) if count and it in requests.NAMES}

    # --- what wants no answer

    def note(self, request: Request) -> None:
        """Take FORGET, BATCH_FORGET or INTERRUPT."""
        if request.opcode == requests.INTERRUPT:
            self._give_up(requests.interrupted(request.head))
            return
        for node, lookups in requests.forgotten(request.opcode, request.node, request.head, request.rest):
            self._table.forget(node, lookups)

    def _give_up(self, unique: int) -> None:
        """Answer who does not want to wait any longer; what was begun for it ends unheard."""
        with self._lock:
            request = self._under_way.get(unique)
            if request is None or request.opcode not in _GIVEN_UP:
                return
            del self._under_way[unique]
        request.transport.answer(request, _EINTR, b"")


def _call(request: Request) -> tuple[int, int, bytes, int]:
    return request.opcode, request.node, bytes(request.rest), request.pid
