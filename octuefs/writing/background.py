"""Work that nobody waits for: a few threads, each thing to do at its time, again after a pause where it asks for that.

The threads are daemons and are started as they are needed: a request that hangs keeps no process from ending.
"""

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Hashable

logger = logging.getLogger(__name__)

Work = Callable[[], float | None]
"""Returns after how many seconds it is to be done again, None where it is done."""

_IDLE_SECONDS = 10.0


class Background:
    """Things to do, by key: none is done twice at a time, and one that is added while it is done is done again."""

    def __init__(self, name: str, threads: int) -> None:
        self._name = name
        self._most = threads
        lock = threading.Lock()  # guards all below, for memory work alone
        self._there = threading.Condition(lock)
        self._done = threading.Condition(lock)
        self._heap: list[tuple[float, int, Hashable]] = []
        self._waiting: dict[Hashable, tuple[float, int, Work]] = {}
        self._running: set[Hashable] = set()
        self._numbers = itertools.count()
        self._threads = 0
        self._idle = 0
        self._closed = False

    @property
    def closed(self) -> bool:
        """True once nothing more is begun."""
        return self._closed

    def add(self, key: Hashable, work: Work, *, delay: float = 0.0) -> bool:
        """Have something done after `delay` seconds, in the place of what waits under that key; False once closed."""
        with self._there:
            if self._closed:
                return False
            self._put(key, work, time.monotonic() + delay)
            return True

    def _put(self, key: Hashable, work: Work, due: float) -> None:
        number = next(self._numbers)
        self._waiting[key] = (due, number, work)
        heapq.heappush(self._heap, (due, number, key))
        if len(self._waiting) > self._idle and self._threads < self._most:
            self._threads += 1
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        self._there.notify()

    def hurry(self) -> None:
        """Do now what waits for its time."""
        with self._there:
            for key, (_, number, work) in list(self._waiting.items()):
                self._waiting[key] = (0.0, number, work)
                heapq.heappush(self._heap, (0.0, number, key))
            self._there.notify_all()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until nothing is left to do, at most `seconds`; say whether that is so."""
        with self._done:
            return self._done.wait_for(lambda: not self._waiting and not self._running, seconds)

    def close(self, seconds: float) -> None:
        """Begin nothing more, and wait at most `seconds` for what is being done."""
        with self._done:
            self._closed = True
            self._waiting.clear()
            self._heap.clear()
            self._there.notify_all()
            self._done.wait_for(lambda: not self._running, seconds)

    def _work(self) -> None:
        while (next_thing := self._take()) is not None:
            key, work = next_thing
            pause: float | None = None
            try:
                pause = work()
            except Exception:
                logger.exception("unexpected failure in the background (%s)", self._name)
            with self._done:
                self._running.discard(key)
                if pause is not None and key not in self._waiting and not self._closed:
                    self._put(key, work, time.monotonic() + pause)
                elif key in self._waiting:
                    self._there.notify()  # it was put off as long as this ran
                self._done.notify_all()

    def _take(self) -> tuple[Hashable, Work] | None:
        """Wait for the next thing to do; None ends the thread."""
        with self._there:
            while not self._closed:
                pause = _IDLE_SECONDS
                postponed = []
                while self._heap:
                    due, number, key = self._heap[0]
                    known = self._waiting.get(key)
                    if known is None or known[1] != number or known[0] != due:
                        heapq.heappop(self._heap)  # replaced or done
                    elif (left := due - time.monotonic()) > 0:
                        pause = left
                        break
                    elif key in self._running:
                        postponed.append(heapq.heappop(self._heap))
                    else:
                        heapq.heappop(self._heap)
                        self._restore(postponed)
                        del self._waiting[key]
                        self._running.add(key)
                        return key, known[2]
                self._restore(postponed)
                self._idle += 1
                try:
                    woken = self._there.wait(pause)
                finally:
                    self._idle -= 1
                if not woken and not self._waiting:
                    break
            self._threads -= 1
            return None

    def _restore(self, postponed: list[tuple[float, int, Hashable]]) -> None:
        for item in postponed:
            heapq.heappush(self._heap, item)
