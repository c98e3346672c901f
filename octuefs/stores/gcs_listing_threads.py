"""The threads of a parallel listing: they ask for pages, describe what is on them, and hand that to the caller.

`in_parallel` is called by `gcs_listing`; pages leave on the caller's thread, in any order. A thread that has a page in
hand first says what it learnt of the names (`gcs_listing_ranges`), so that the next requests are on their way while it
describes the objects. A caller who is slow makes the threads wait: few pages are kept. Nothing goes on when the caller
stops, or when a request failed for good.
"""

import concurrent.futures
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Generic, Protocol, TypeVar

from octuefs.stores.gcs_listing_ranges import Range, Ranges

WORKERS = 8
"""How many pages are asked for at once, at most."""
KEPT = 4
"""So many pages wait for the caller; besides, each thread may have one in hand."""


class Named(Protocol):
    """What is listed."""

    @property
    def name(self) -> str: ...


N_co = TypeVar("N_co", bound=Named, covariant=True)
N = TypeVar("N", bound=Named)
T = TypeVar("T")


class Answer(Protocol[N_co]):
    """A page."""

    @property
    def items(self) -> Sequence[N_co]: ...
    @property
    def nextPageToken(self) -> str | None: ...


Asked = concurrent.futures.Future[Any]
Underway = Callable[[Asked], AbstractContextManager[None]]
"""`with underway(request)`: the request is waited for; where the listing stops meanwhile, it is cancelled."""


def in_parallel(
    ranges: Ranges, ask: Callable[[Range, Underway], Answer[N]], describe: Callable[[Sequence[N]], list[T]]
) -> Iterator[list[T]]:
    """Yield by page what `describe` makes of the objects in `ranges`, of pages that hold any; in any order.

    :param ask: asks for the next page of a range and waits for it
    :raise Exception: what `ask` or `describe` raised first, after which nothing is asked for any more
    """
    listing = _Listing(ranges, ask, describe)
    try:
        listing.start()
        while (page := listing.next_page()) is not None:
            yield page
    finally:
        listing.stop()


class _Listing(Generic[N, T]):
    def __init__(
        self, ranges: Ranges, ask: Callable[[Range, Underway], Answer[N]], describe: Callable[[Sequence[N]], list[T]]
    ) -> None:
        self._ask = ask
        self._describe = describe
        self._changed = threading.Condition()  # guards all below; nothing is asked or described under it
        self._ranges = ranges
        self._tasks: deque[Range] = deque()
        self._busy = 0
        """How many tasks are not done, those included that no thread has taken yet."""
        self._threads: list[threading.Thread] = []
        self._asked: set[Asked] = set()
        self._pages: deque[list[T]] = deque()
        self._failure: BaseException | None = None
        self._is_stopped = False

    # --- the caller's thread

    def start(self) -> None:
        """Begin to list."""
        with self._changed:
            self._give_out()

    def next_page(self) -> list[T] | None:
        """Wait for a page and return it, None after the last."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure or self._pages or not self._busy)
            if self._failure is not None:
                raise self._failure
            if not self._pages:
                return None
            self._changed.notify_all()
            return self._pages.popleft()

    def stop(self) -> None:
        """Cancel what was asked for, and wait until all threads have ended."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
            asked = list(self._asked)
        for request in asked:
            request.cancel()
        if threading.current_thread() not in self._threads:  # where garbage happens to be collected
            for thread in self._threads:
                thread.join()

    # --- the threads

    def _give_out(self) -> None:
        """Have threads ask for all pages that can be asked for now; with the lock held."""
        while self._busy < WORKERS and not self._is_stopped and (taken := self._ranges.take()) is not None:
            self._tasks.append(taken)
            self._busy += 1
            if self._busy > len(self._threads):
                thread = threading.Thread(target=self._work, name="octuefs-list", daemon=True)
                thread.start()
                self._threads.append(thread)
        self._changed.notify_all()

    def _work(self) -> None:
        try:
            while (taken := self._next_task()) is not None:
                self._list(taken)
                with self._changed:
                    self._busy -= 1
                    self._give_out()
        except BaseException as error:
            with self._changed:
                self._failure = self._failure or error
                self._changed.notify_all()

    def _next_task(self) -> Range | None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopped or self._failure or self._tasks or not self._busy)
            return None if self._is_stopped or self._failure or not self._tasks else self._tasks.popleft()

    def _list(self, taken: Range) -> None:
        page = self._ask(taken, self._underway)
        items = page.items
        names = [item.name for item in items]
        with self._changed:
            mine = self._ranges.put_back(taken, names, page.nextPageToken or None)
            self._give_out()
        if mine.stop > mine.start:
            self._hand_over(self._describe(items if mine.stop - mine.start == len(items) else items[mine]))

    def _hand_over(self, described: list[T]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopped or self._failure or len(self._pages) < KEPT)
            self._pages.append(described)
            self._changed.notify_all()

    @contextmanager
    def _underway(self, asked: Asked) -> Iterator[None]:
        with self._changed:
            self._asked.add(asked)
            is_stopped = self._is_stopped
        if is_stopped:
            asked.cancel()
        try:
            yield
        finally:
            with self._changed:
                self._asked.discard(asked)
