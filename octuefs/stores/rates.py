"""How fast bytes may go, by a bucket of tokens: who takes more than there is waits until it would have filled up."""

import threading
import time
from collections.abc import Callable

BURST_SECONDS = 0.25
"""What may go at once after a pause, in seconds at the rate."""


class Rate:
    """So many bytes a second at most, on the average; None for no bound. Any thread may call, and none waits here.

    Whoever takes bytes is told how long to wait, so that all who share the rate wait in the order of their coming.
    """

    def __init__(self, bytes_per_second: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.bytes_per_second = bytes_per_second
        self._clock = clock
        self._lock = threading.Lock()  # guards the two that follow
        self._filled = clock()
        self._left = 0.0 if bytes_per_second is None else bytes_per_second * BURST_SECONDS

    def take(self, count: int) -> float:
        """Take `count` bytes, and return how many seconds to wait for them; 0 bytes ask for what is owed already."""
        rate = self.bytes_per_second
        if rate is None:
            return 0.0
        with self._lock:
            now = self._clock()
            self._left = min(rate * BURST_SECONDS, self._left + (now - self._filled) * rate) - count
            self._filled = now
            return max(0.0, -self._left / rate)
