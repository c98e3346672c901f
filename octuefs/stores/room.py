"""How many requests may be under way at once: fewer for a while where a store says that it is asked too much.

`Traffic` has one of these. Each refusal for overload halves the places, at most once in a moment, as all that were
under way are refused together; then they come back one by one.
"""

import threading
import time
from collections.abc import Callable
from enum import IntEnum

_LEAST = 2
_CALM_SECONDS = 1.0
"""How long after places were halved another refusal tells nothing new."""
_BACK_SECONDS = 64.0
"""How long it takes until all places are back where nearly all were lost."""
_LOOK_SECONDS = 0.5
"""How often whoever waits looks whether places have come back meanwhile."""


class Manner(IntEnum):
    """How a request is waited for: by somebody, with bytes to be read first, or by nobody."""

    AWAITED = 0
    UPLOAD = 1
    BACKGROUND = 2


class _Queue:
    def __init__(self, lock: threading.Lock) -> None:
        self.condition = threading.Condition(lock)
        self.waiting = 0
        self.taken = 0


class Room:
    """Places for requests. Any thread may call, and waits in `enter` until there is one.

    Three quarters are for what nobody waits for, and for uploads, whose bytes may have to be read from the store.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self._clock = clock
        self._lock = threading.Lock()  # guards all that follows; waited on by the queues' conditions
        self._queues = [_Queue(self._lock) for _ in Manner]  # by manner
        self._taken = 0
        self._waiting = 0
        self._low = float(most)
        self._lowered: float | None = None
        """When places were halved; None where all are back since."""

    def enter(self, manner: Manner) -> None:
        """Take a place, after those who came before in the same manner."""
        queue = self._queues[manner]
        with self._lock:
            if queue.waiting or not self._is_room(manner):
                self._wait(queue, manner)
            queue.taken += 1
            self._taken += 1
            if self._waiting:
                self._wake()  # there may be room for the next one too

    def leave(self, manner: Manner) -> None:
        """Give a place back; never waits."""
        with self._lock:
            self._queues[manner].taken -= 1
            self._taken -= 1
            if self._waiting:
                self._wake()

    def lower(self) -> None:
        """Halve the places, unless that was done just now."""
        with self._lock:
            now = self._clock()
            if self._lowered is None or now - self._lowered >= _CALM_SECONDS:
                self._low = max(float(min(_LEAST, self.most)), self._places() / 2)
                self._lowered = now

    def state(self) -> dict[str, int]:
        """Return how many requests are under way and wait to be, and how many places there are now."""
        with self._lock:
            return {"in_flight": self._taken, "waiting": self._waiting, "places": int(self._places())}

    # --- `_lock` is held in all that follows

    def _places(self) -> float:
        """Return how many places there are now."""
        if self._lowered is None:
            return self.most
        places = self._low + (self._clock() - self._lowered) * self.most / _BACK_SECONDS
        if places < self.most:
            return places
        self._lowered = None
        return self.most

    def _is_room(self, manner: Manner) -> bool:
        """Say whether one more may enter."""
        places = int(self._places())
        if manner == Manner.AWAITED:
            return self._taken < places
        some = max(1, places * 3 // 4)
        if manner == Manner.UPLOAD:
            return self._taken < places and self._queues[manner].taken < some
        return self._taken < some and not self._queues[Manner.AWAITED].waiting

    def _wait(self, queue: _Queue, manner: Manner) -> None:
        queue.waiting += 1
        self._waiting += 1
        try:
            queue.condition.wait(_LOOK_SECONDS)
            while not self._is_room(manner):
                queue.condition.wait(_LOOK_SECONDS)
        finally:
            queue.waiting -= 1
            self._waiting -= 1

    def _wake(self) -> None:
        """Let one of each manner look whether there is room."""
        for queue in self._queues:
            if queue.waiting:
                queue.condition.notify()
