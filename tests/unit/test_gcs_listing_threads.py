"""The threads of a parallel listing: what they hand over, and that they end, whoever stops first."""

import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest

from octuefs.stores.gcs_listing_ranges import Range, Ranges
from octuefs.stores.gcs_listing_threads import KEPT, WORKERS, Underway, in_parallel

PATIENCE = 20.0
PAGE_SIZE = 10


class Item(NamedTuple):
    name: str


class Page(NamedTuple):
    items: list[Item]
    nextPageToken: str | None


@dataclass
class Bucket:
    """Answers at once; `held` says whose requests are never answered, `broken` whose fail."""

    names: list[str] = field(default_factory=lambda: [f"{number:05}" for number in range(2000)])
    held: str | None = None
    broken: str | None = None
    asked: list[Range] = field(default_factory=list)
    waiting: threading.Event = field(default_factory=threading.Event)

    def ask(self, taken: Range, underway: Underway) -> Page:
        self.asked.append(taken)
        if self.broken is not None and (taken.start or "") >= self.broken:
            raise OSError(f"{taken.start} is refused")
        if self.held is not None and (taken.start or "") >= self.held:
            never: Future[Page] = Future()
            with underway(never):
                self.waiting.set()
                return never.result(PATIENCE)
        start = 0 if taken.start is None else bisect_left(self.names, taken.start)
        end = len(self.names) if taken.asked_end is None else bisect_left(self.names, taken.asked_end)
        start = start if taken.token is None else int(taken.token)
        following = min(start + PAGE_SIZE, end)
        return Page([Item(it) for it in self.names[start:following]], str(following) if following < end else None)

    def pages(self) -> Iterator[list[str]]:
        return in_parallel(Ranges("", PAGE_SIZE), self.ask, names_of)


def names_of(items: Sequence[Item]) -> list[str]:
    return [item.name for item in items]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "octuefs-list"]


def test_all_pages_are_handed_over_once() -> None:
    bucket = Bucket()
    assert sorted(name for page in bucket.pages() for name in page) == bucket.names
    assert sum(taken.start is None for taken in bucket.asked) < len(bucket.asked)


def test_nothing_is_listed_of_an_empty_prefix() -> None:
    bucket = Bucket([])
    assert list(bucket.pages()) == []
    assert len(bucket.asked) == 1


def test_a_caller_who_is_slow_makes_the_threads_wait() -> None:
    enough = threading.Event()
    lock = threading.Lock()
    described = taken = most = 0

    def describe(items: Sequence[Item]) -> list[str]:
        nonlocal described, most
        with lock:
            described += 1
            most = max(most, described - taken)
        if described > KEPT:
            enough.set()
        return names_of(items)

    for _ in in_parallel(Ranges("", PAGE_SIZE), Bucket().ask, describe):
        assert enough.wait(PATIENCE)
        with lock:
            taken += 1
    assert taken == described
    assert most <= 1 + KEPT + WORKERS


def test_the_first_failure_reaches_the_caller_and_ends_all_requests() -> None:
    bucket = Bucket(broken="005")
    with pytest.raises(OSError, match="is refused"):
        list(bucket.pages())


def test_what_cannot_be_described_reaches_the_caller() -> None:
    def describe(items: Sequence[Item]) -> list[str]:
        if items[0].name == bucket.names[0]:  # one page alone: several threads describe at once
            raise ValueError(items[0].name)
        return names_of(items)

    bucket = Bucket()
    with pytest.raises(ValueError, match=bucket.names[0]):
        list(in_parallel(Ranges("", PAGE_SIZE), bucket.ask, describe))


def test_a_failure_ends_requests_that_are_not_answered() -> None:
    bucket = Bucket(held="01")

    def ask(taken: Range, underway: Underway) -> Page:
        if bucket.waiting.is_set():
            raise OSError("refused")
        return bucket.ask(taken, underway)

    pages = in_parallel(Ranges("", PAGE_SIZE), ask, names_of)
    with pytest.raises(OSError, match="refused"):
        list(pages)


def test_who_stops_early_ends_requests_that_are_not_answered() -> None:
    bucket = Bucket(held="0")
    for _ in bucket.pages():
        assert bucket.waiting.wait(PATIENCE)
        break
