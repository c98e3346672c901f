"""Objects of a store that does what a test says, byte by byte, and counts what it is asked for."""

import random
import threading
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256

from octuefs.content.objects import CloudObject
from octuefs.content.parts import Part, memory_part
from octuefs.errors import LocalFailure, OctuefsError
from octuefs.model.hashes import extend_crc32c
from octuefs.stores.base import Kind, ObjectInfo
from octuefs.stores.traffic import Traffic

MIB = 1 << 20
KIB = 1 << 10
PATIENCE = 20.0
"""Seconds after which a thread that does not come is a failure of the test."""


def content(size: int, seed: int = 1) -> bytes:
    """Bytes that tell where they stand: no zeros in a row."""
    return random.Random(seed).randbytes(size)


def info_of(data: bytes, path: str = "a.dat", *, crc32c: int | None = -1) -> ObjectInfo:
    """The facts of an object; with its checksum unless another, or None, is given."""
    crc = extend_crc32c(0, data) if crc32c == -1 else crc32c
    return ObjectInfo(path, Kind.FILE, len(data), 0, 0, 0o100644, 0, 0, 7, 1, (1, 1, 0), crc)


@dataclass
class Request:
    """A range that was asked for."""

    start: int
    end: int
    background: bool


@dataclass
class FakeSource:
    """A `StreamSource`. `before` is called with each request, and before each piece, in the thread that receives."""

    data: bytes
    facts: ObjectInfo
    piece: int = MIB
    key: str | None = None
    before: Callable[[Request, int], None] = lambda request, at: None
    requests: list[Request] = field(default_factory=list)
    served: list[tuple[int, int]] = field(default_factory=list)
    closed: int = 0
    most: int = 0
    under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def stream(self, offset: int, end: int, *, background: bool = False) -> Iterator[bytes]:
        request = Request(offset, end, background)
        with self.lock:
            self.requests.append(request)
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        try:
            while True:
                self.before(request, offset)
                if offset >= end:
                    return
                stop = min(offset + self.piece, end)
                with self.lock:
                    self.served.append((offset, stop))
                yield self.data[offset:stop]
                offset = stop
        finally:
            with self.lock:
                self.under_way -= 1

    def read(self, offset: int, size: int) -> bytes:
        return b"".join(self.stream(offset, min(offset + size, len(self.data))))

    def cache_key(self) -> str | None:
        return self.key

    def version(self) -> Hashable:
        return self.facts.version

    def identity(self) -> Hashable:
        return (self.facts.path, self.facts.version)

    def info(self) -> ObjectInfo:
        return self.facts

    def close(self) -> None:
        self.closed += 1

    @property
    def served_bytes(self) -> int:
        with self.lock:
            return sum(end - start for start, end in self.served)


def source_of(data: bytes, path: str = "a.dat", *, crc32c: int | None = -1, piece: int = MIB) -> FakeSource:
    """An object with a key of its own."""
    facts = info_of(data, path, crc32c=crc32c)
    key = sha256(f"{path} {facts.crc32c} {len(data)}".encode()).hexdigest()
    return FakeSource(data, facts, piece=piece, key=key)


class Gate:
    """A place where threads wait until the test lets them through, or fail there."""

    def __init__(self, *, at: Callable[[Request, int], bool] = lambda request, at: True) -> None:
        self.reached = threading.Semaphore(0)
        self.open = threading.Event()
        self.error: OctuefsError | None = None
        self._at = at

    def __call__(self, request: Request, at: int) -> None:
        if self._at(request, at):
            self.reached.release()
            assert self.open.wait(PATIENCE), "the test opens the gate"
            if self.error is not None:
                raise self.error

    def wait(self, times: int = 1) -> None:
        """Return once so many threads came."""
        for _ in range(times):
            assert self.reached.acquire(timeout=PATIENCE), "somebody comes"

    def fail(self, error: OctuefsError) -> None:
        """Let who waits fail."""
        self.error = error
        self.open.set()


class FakeRoom:
    """A `Room` in memory that keeps books."""

    def __init__(self, size: int, *, allowance: int | None = None, limit: int | None = None) -> None:
        self.size = size
        self.allowance = size if allowance is None else allowance
        self.limit = limit
        self.counted = 0
        self.most_counted = 0
        self.completed_parts: list[tuple[Part, int]] = []
        self.completing: Callable[[], None] = lambda: None
        self.relieved = 0
        self.relief = True
        self.kept: dict[int, tuple[int, int]] = {}
        self.part: Part | None = None
        self.lock = threading.Lock()

    def open(self) -> Part:
        if self.part is None:
            self.part = memory_part(self.size, self.allowance)
            self.part.restore(self.kept)
        return self.part

    def make(self, part: Part, count: int) -> bool:
        with self.lock:
            if self.limit is not None and self.counted + count > self.limit:
                return False
            self.counted += count
            self.most_counted = max(self.most_counted, self.counted)
            return True

    def give_back(self, part: Part, count: int) -> None:
        with self.lock:
            self.counted -= count

    def relieve(self, part: Part, error: LocalFailure) -> bool:
        self.relieved += 1
        return self.relief and self.relieved < 3

    def in_memory(self, size: int) -> Part:
        return memory_part(size, size)

    def completed(self, part: Part, crc32c: int) -> bool:
        self.completing()
        self.completed_parts.append((part, crc32c))
        return True


@dataclass
class World:
    """An object that is read, and what is around it."""

    source: FakeSource
    room: FakeRoom
    object: CloudObject
    workers: ThreadPoolExecutor
    traffic: Traffic

    def counter(self, name: str) -> int:
        """A figure."""
        value: int = self.traffic.figures()[name]
        return value

    def settle(self) -> None:
        """Return once all that runs in the background has ended."""
        self.workers.shutdown(wait=True)


def world(source: FakeSource, room: FakeRoom | None = None, *, workers: int = 16) -> World:
    """A new object over a source."""
    room = room or FakeRoom(len(source.data))
    pool, traffic = ThreadPoolExecutor(workers), Traffic()
    return World(
        source, room, CloudObject(source, source.facts, room=room, workers=pool, traffic=traffic), pool, traffic
    )


def in_thread(call: Callable[[], object]) -> "Running":
    """Call in a thread of its own."""
    return Running(call)


class Running:
    """A call that is under way."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._result: object = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:
            self._error = error

    @property
    def is_done(self) -> bool:
        """True where it has ended."""
        return not self._thread.is_alive()

    def result(self) -> object:
        """What it returned, or raised."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "it ends"
        if self._error is not None:
            raise self._error
        return self._result
