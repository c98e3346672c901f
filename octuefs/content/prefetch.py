"""Fetching files before they are opened, where a program walks through those of a folder or a view.

Each opening of a file is told here, with the place where it was opened: the files after it there, in listing order.
Where a file is opened that comes just after one that was opened before, a walk has begun, and the next files are
fetched: 4, then 16, then 64 ahead of the program. A walk that does not go on is given up, with all that waits for it.
Listing and looking at files opens none, and begins nothing.

`opened` is called where nobody may wait: it does memory work alone, and leaves the rest to threads.
"""

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice, takewhile

from octuefs.errors import OctuefsError
from octuefs.stores.base import ObjectInfo

logger = logging.getLogger(__name__)

_REACHES = (4, 16, 64)
"""So many files are fetched ahead: at first, and with each one that was opened as expected, more."""
_NEAR = 3
"""A file counts as the next one if it is one of so many after another."""
_REMEMBERED = 4
"""So many openings that belong to no walk are remembered of a place: several programs may walk there."""
_WALKS = 32
_SKIPPED = 16
"""So many files that a walk passed by may still be opened."""
_LOOKED_THROUGH = 4096
"""So many files that are not fetched, as they are large or here, are passed over at once."""
_IDLE_SECONDS = 2.0
_FEW_AT_ONCE = 4
_AT_ONCE_PER_MS = 2.0
"""The longer a request takes, the more of them hide that: so many for each millisecond, within bounds."""
_MOST_AT_ONCE = 64
_SLOWER = 1.05


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file was opened: a folder or a view, whatever tells it from others, and what is there."""

    key: Hashable
    after: Callable[[ObjectInfo], Iterator[ObjectInfo]]
    """Returns the files after one, in listing order, on into the folders that follow."""
    fetch: Callable[[ObjectInfo], bool]
    """Has a file at hand and says whether the store was asked for it; raises OctuefsError where it cannot be had."""


@dataclass(slots=True)
class _Walk:
    """A program on its way through a place."""

    place: Place
    rest: Iterator[ObjectInfo]
    upcoming: OrderedDict[str, int] = field(default_factory=OrderedDict)
    """The files that are fetched ahead and not opened yet, with their sizes, in listing order."""
    steps: int = 0
    bytes: int = 0
    moved_at: float = field(default_factory=time.monotonic)

    @property
    def reach(self) -> int:
        return _REACHES[min(self.steps, len(_REACHES) - 1)]

    @property
    def goes_on(self) -> bool:
        return time.monotonic() - self.moved_at < _IDLE_SECONDS


class Prefetch:
    """The walks of a mount. Any thread may call."""

    def __init__(self, wanted: Callable[[ObjectInfo], bool], budget: int, *, sparing: bool = False) -> None:
        """Fetch what is `wanted`, and have at most `budget` bytes of it ahead of each walk.

        Who is `sparing` fetches one file at a time, as bytes come slowly and others wait for theirs.
        """
        self._most_at_once = 1 if sparing else _MOST_AT_ONCE
        self._wanted = wanted
        self._budget = budget
        self._planner = ThreadPoolExecutor(1, thread_name_prefix="prefetch-plan")
        self._workers = ThreadPoolExecutor(_MOST_AT_ONCE, thread_name_prefix="prefetch")
        self._lock = threading.Lock()  # guards all that follows, for memory work alone
        self._walks: OrderedDict[Hashable, list[_Walk]] = OrderedDict()
        self._opened: OrderedDict[Hashable, deque[ObjectInfo]] = OrderedDict()
        self._waiting: deque[tuple[_Walk, ObjectInfo]] = deque()
        self._working = 0
        self._quickest_ms: float | None = None
        """How long the store takes for one file, as far as that is known; it grows with each that takes longer."""

    def opened(self, place: Place, info: ObjectInfo) -> None:
        """Take note that a file was opened at a place."""
        with self._lock:
            for walk in self._walks.get(place.key, ()):
                if info.path in walk.upcoming:
                    self._move_on(walk, info.path)
                    break
            else:
                before = self._opened.setdefault(place.key, deque(maxlen=_REMEMBERED))
                self._opened.move_to_end(place.key)
                while len(self._opened) > _WALKS:
                    self._opened.popitem(last=False)
                others = [it for it in before if it.path != info.path]
                before.append(info)
                if not others:
                    return
                with suppress(RuntimeError):  # the mount ends
                    self._planner.submit(self._begin, place, others, info)
                return
            if len(walk.upcoming) > walk.reach // 2:
                return
        with suppress(RuntimeError):
            self._planner.submit(self._reach_out, walk)

    def _move_on(self, walk: _Walk, path: str) -> None:
        """Take note that a walk goes on as expected; under `_lock`."""
        passed_by = list(takewhile(lambda it: it != path, walk.upcoming))
        for it in (*passed_by[: len(passed_by) - _SKIPPED], path) if len(passed_by) > _SKIPPED else (path,):
            walk.bytes -= walk.upcoming.pop(it)
        walk.steps += 1
        walk.moved_at = time.monotonic()

    # --- planning, in a thread of its own

    def _begin(self, place: Place, others: list[ObjectInfo], info: ObjectInfo) -> None:
        """Begin a walk where a file comes just after another that was opened before."""
        for before in reversed(others):
            rest = place.after(before)
            if any(it.path == info.path for it in islice(rest, _NEAR)):
                walk = _Walk(place, rest)
                with self._lock:
                    walks = self._walks.setdefault(place.key, [])
                    walks[:] = [*[it for it in walks if it.goes_on][-_REMEMBERED:], walk]
                    self._walks.move_to_end(place.key)
                    while len(self._walks) > _WALKS:
                        self._walks.popitem(last=False)
                self._reach_out(walk)
                return

    def _reach_out(self, walk: _Walk) -> None:
        """Have the next files fetched, as far as the walk reaches by now."""
        while True:
            with self._lock:
                if len(walk.upcoming) >= walk.reach or walk.bytes >= self._budget * walk.reach // _REACHES[-1]:
                    return
            info = next((it for it in islice(walk.rest, _LOOKED_THROUGH) if self._wanted(it)), None)
            if info is None:
                return
            with self._lock:
                walk.upcoming[info.path] = info.size
                walk.bytes += info.size
                self._waiting.append((walk, info))
                at_once = int((self._quickest_ms or 0.0) * _AT_ONCE_PER_MS)
                if self._working >= min(max(_FEW_AT_ONCE, at_once), self._most_at_once):
                    continue
                self._working += 1
            try:
                self._workers.submit(self._work)
            except RuntimeError:  # the mount ends
                return

    # --- fetching

    def _work(self) -> None:
        """Fetch what waits, until nothing does."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._working -= 1
                    return
                walk, info = self._waiting.popleft()
                if info.path not in walk.upcoming:  # it was opened meanwhile, or passed by
                    continue
                if not walk.goes_on:
                    walk.bytes -= walk.upcoming.pop(info.path)
                    continue
            began = time.monotonic()
            asked = False
            try:
                asked = walk.place.fetch(info)
            except OctuefsError:
                pass  # who opens it is told
            except Exception:
                logger.exception("%s cannot be fetched ahead", info.path)
            took = 1000 * (time.monotonic() - began)
            if asked:
                with self._lock:
                    self._quickest_ms = min(_SLOWER * (self._quickest_ms or took), took)

    def close(self) -> None:
        """Fetch nothing more."""
        self._planner.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            self._waiting.clear()
        self._workers.shutdown(wait=True, cancel_futures=True)
