"""What a mount counts: its requests by kind, with how long they took, its bytes, and what caches and prefetch did.

`Traffic` has one of these. Whoever does something worth counting says so from its own thread; `.octuefs/status`,
`octuefs status` and the metrics read all of it. To count something new, give it a line in `COUNTERS` or `GAUGES`.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Any

KINDS: Mapping[str, str] = {
    "read": "Requests for the bytes of files.",
    "list": "Requests for a page of a listing.",
    "stat": "Requests for the facts of one object or bucket.",
    "upload": "Requests that send bytes.",
    "change": "Requests that change anything else: joining, copying, removing, metadata.",
}
"""The kinds of requests, in the order in which they are shown."""

COUNTERS: Mapping[str, str] = {
    "received_bytes": "Bytes that came from the stores.",
    "sent_bytes": "Bytes that were sent to the stores.",
    "overloads": "Answers of a store that says it cannot do that now (HTTP 429 and 5xx).",
    "cache_hits": "Reads that the disk cache answered.",
    "cache_misses": "Reads that the disk cache could not answer.",
    "cache_hit_bytes": "Bytes that the disk cache answered.",
    "cache_dropped": "Files of the disk cache that were damaged, and dropped.",
    "cache_evicted_bytes": "Bytes that left the disk cache to make room.",
    "prefetch_files": "Files that were fetched before they were opened.",
    "prefetch_bytes": "Bytes of files that were fetched before they were opened.",
    "prefetch_used_bytes": "Of these, bytes that were read then.",
    "prefetch_wasted_bytes": "Of these, bytes that were let go unread.",
    "read_ahead_bytes": "Bytes that were fetched ahead of the reads of an open file.",
    "read_ahead_used_bytes": "Of these, bytes that were read then.",
    "read_ahead_wasted_bytes": "Of these, bytes that were let go unread.",
}
"""What only grows, each with what it says."""

GAUGES: Mapping[str, str] = {
    "cache_bytes": "Bytes in the disk cache.",
    "cache_objects": "Files in the disk cache.",
    "memory_bytes": "Bytes in buffers.",
    "pending_files": "Files that were written and are not stored yet.",
    "pending_bytes": "Bytes of these that are still to be sent.",
}
"""What goes up and down, each with what it says; read when somebody asks."""

_FIRST_SECONDS = 0.00025
_STEPS = 4
"""Bounds of a histogram's buckets within a factor of two."""
_DOUBLINGS = 20
"""From a quarter of a millisecond to over four minutes."""
BOUNDS: tuple[float, ...] = tuple(_FIRST_SECONDS * 2 ** (step / _STEPS) for step in range(_STEPS * _DOUBLINGS + 1))
"""The upper bounds of the buckets, in seconds; a last bucket takes what is longer."""


class Latencies:
    """How long requests took, in buckets: percentiles are right to about a tenth, in whatever number. Not locked."""

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.total_seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count one that took so long."""
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.total_seconds += seconds

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.buckets)

    def percentile(self, share: float) -> float | None:
        """Return the seconds that a `share` (0 to 1) of all took at most; None where there were none."""
        count = self.count
        if not count:
            return None
        rank, below = share * count, 0
        for number, here in enumerate(self.buckets):
            if here and below + here >= rank:
                lower = BOUNDS[number - 1] if number else 0.0
                upper = BOUNDS[number] if number < len(BOUNDS) else BOUNDS[-1]
                return lower + (upper - lower) * max(0.0, rank - below) / here
            below += here
        return BOUNDS[-1]

    def cumulative(self) -> list[tuple[float, int]]:
        """Return how many took at most so many seconds, for every doubling."""
        found, below = [], 0
        for number, bound in enumerate(BOUNDS):
            below += self.buckets[number]
            if number % _STEPS == 0:
                found.append((bound, below))
        return found


class _Requests:
    """The figures of one kind of requests."""

    def __init__(self) -> None:
        self.failed = 0
        self.retried = 0
        self.latencies = Latencies()


class Figures:
    """All figures of a mount. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all that follows; held for a few additions, and by nobody who waits
        self._counts = dict.fromkeys(COUNTERS, 0)
        self._gauges: dict[str, Callable[[], float]] = {}
        self._requests = {kind: _Requests() for kind in KINDS}

    def count(self, name: str, amount: int = 1) -> None:
        """Add to one of `COUNTERS`."""
        with self._lock:
            self._counts[name] += amount

    def gauge(self, name: str, read: Callable[[], float]) -> None:
        """Have one of `GAUGES` read so from now on; `read` takes no time and asks no store."""
        if name not in GAUGES:
            raise KeyError(name)
        with self._lock:
            self._gauges[name] = read

    def ended(self, kind: str, seconds: float, *, failed: bool) -> None:
        """Count a request, all its tries included, that took so long."""
        with self._lock:
            requests = self._requests[kind]
            requests.latencies.add(seconds)
            requests.failed += failed

    def retried(self, kind: str) -> None:
        """Count one more try of a request."""
        with self._lock:
            self._requests[kind].retried += 1

    def values(self) -> dict[str, Any]:
        """Return all figures: what is counted by name, gauges that anybody reads, and requests by kind."""
        with self._lock:
            counts, gauges = dict(self._counts), dict(self._gauges)
            requests = {kind: _shown(it) for kind, it in self._requests.items()}
        return {**counts, **{name: gauges[name]() for name in GAUGES if name in gauges}, "requests": requests}

    def latencies(self) -> dict[str, tuple[list[tuple[float, int]], int, float]]:
        """Return, by kind, how many requests took at most so many seconds, how many there were, and all seconds."""
        with self._lock:
            return {
                kind: ((latencies := it.latencies).cumulative(), latencies.count, latencies.total_seconds)
                for kind, it in self._requests.items()
            }


def _shown(requests: _Requests) -> dict[str, Any]:
    latencies = requests.latencies
    shown: dict[str, Any] = {"count": latencies.count, "failed": requests.failed, "retried": requests.retried}
    for percent in (50, 90, 99):
        seconds = latencies.percentile(percent / 100)
        shown[f"p{percent}_ms"] = None if seconds is None else round(seconds * 1000, 2)
    return shown
