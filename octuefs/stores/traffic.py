"""What a mount may ask of its stores at once and how fast, and what it has asked.

A mount has one, which the stores of all its datasets share. A store holds a `request` while it asks, in the thread
that waits for the answer; it says what it `received` and is `sending`, and is told how long to wait for that. What
caches and prefetch do is counted here too. Any thread may call; no lock is held while somebody waits.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from octuefs.errors import AlreadyExists, Conflict, NotFound, Overloaded
from octuefs.stores.figures import Figures
from octuefs.stores.rates import BURST_SECONDS, Rate
from octuefs.stores.room import Manner, Room

MOST_REQUESTS = 64
"""Requests under way at once, unless a store asks for fewer."""

_BULK = ("read", "list")
"""Kinds whose answers are long: they begin when what came before is paid for, and others need not wait behind them."""
_LEAST_AT_ONCE = 4096
_ANSWERS = (NotFound, Conflict, AlreadyExists)
"""What a store says when all is well with it."""


class Ticket:
    """A place that a request holds until `end` is called, once."""

    __slots__ = ("_begun", "_kind", "_manner", "_traffic")

    def __init__(self, traffic: "Traffic", kind: str, manner: Manner) -> None:
        self._traffic = traffic
        self._kind = kind
        self._manner = manner
        self._begun = traffic.clock()

    def retried(self, error: BaseException) -> None:
        """Count that the request failed so and is to be tried again."""
        self._traffic.figures_of_mount.retried(self._kind)
        if isinstance(error, Overloaded):
            self._traffic.note_overload()

    def end(self, error: BaseException | None = None) -> None:
        """Give the place back; `error` is why the request failed. Never waits."""
        traffic = self._traffic
        traffic.room.leave(self._manner)
        failed = isinstance(error, Exception) and not isinstance(error, _ANSWERS)
        traffic.figures_of_mount.ended(self._kind, traffic.clock() - self._begun, failed=failed)
        if isinstance(error, Overloaded):
            traffic.note_overload()


class Traffic:
    """The limits and the figures of a mount.

    :param most_requests: how many may be under way at once
    :param upload_rate: bytes per second, None for as fast as it goes
    :param download_rate: the same for what comes
    :param clock: seconds, from anywhere
    :param sleep: waits so many seconds
    """

    def __init__(
        self,
        *,
        most_requests: int = MOST_REQUESTS,
        upload_rate: float | None = None,
        download_rate: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.clock = clock
        self.room = Room(most_requests, clock)
        self.figures_of_mount = Figures()
        self._sleep = sleep
        self._uploads = Rate(upload_rate, clock)
        self._downloads = Rate(download_rate, clock)

    # --- requests

    @contextmanager
    def request(self, kind: str, *, background: bool = False) -> Iterator[Ticket]:
        """Hold a place for a request, waiting for one; it is counted by its `kind` (of `figures.KINDS`) and timed.

        What nobody waits for yet, `background`, leaves places for the rest. An Overloaded that is raised within
        lowers the number of places for a while; whoever tries again within tells the ticket.
        """
        ticket = self.begin(kind, background=background)
        try:
            yield ticket
        except BaseException as error:
            ticket.end(error)
            raise
        ticket.end()

    def begin(self, kind: str, *, background: bool = False) -> Ticket:
        """Take a place, waiting for one, for a request that ends in another thread; see `request`."""
        manner = Manner.BACKGROUND if background else Manner.UPLOAD if kind == "upload" else Manner.AWAITED
        if kind in _BULK:
            self._settle()
        self.room.enter(manner)
        return Ticket(self, kind, manner)

    def note_overload(self) -> None:
        """Have fewer places for a while: a store said that it is asked too much."""
        self.room.lower()
        self.count("overloads")

    # --- bytes

    def received(self, count: int) -> None:
        """Count bytes that came, and wait as the download rate asks."""
        self.arrived(count)
        self._settle()

    def arrived(self, count: int) -> None:
        """Count bytes that came, without waiting: the next long answers do."""
        self.count("received_bytes", count)
        self._downloads.take(count)

    def _settle(self) -> None:
        """Wait until as much has come as may by now."""
        if seconds := self._downloads.take(0):
            self._sleep(seconds)

    def sending(self, count: int) -> float:
        """Count bytes that are to be sent, and return how many seconds to wait first."""
        self.count("sent_bytes", count)
        return self._uploads.take(count)

    @property
    def received_at_once(self) -> int | None:
        """How many bytes to receive at once so that they come evenly; None where no rate bounds them."""
        return _at_once(self._downloads)

    @property
    def sent_at_once(self) -> int | None:
        """The same of bytes that are sent."""
        return _at_once(self._uploads)

    # --- figures

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a figure, one of `figures.COUNTERS`."""
        self.figures_of_mount.count(name, amount)

    def gauge(self, name: str, read: Callable[[], float]) -> None:
        """Have a figure, one of `figures.GAUGES`, read so when it is asked for; a later one takes its place."""
        self.figures_of_mount.gauge(name, read)

    def figures(self) -> dict[str, Any]:
        """Return all figures, as `.octuefs/status` shows them: times in milliseconds, None where there were none."""
        return {**self.room.state(), "most_places": self.room.most, **self.figures_of_mount.values()}

    def latencies(self) -> dict[str, tuple[list[tuple[float, int]], int, float]]:
        """Return, by kind, how many requests took at most so many seconds, how many there were, and all seconds."""
        return self.figures_of_mount.latencies()


def _at_once(rate: Rate) -> int | None:
    if rate.bytes_per_second is None:
        return None
    return max(_LEAST_AT_ONCE, int(rate.bytes_per_second * BURST_SECONDS))
