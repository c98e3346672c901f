"""Many files at a time: a pool of threads works through jobs, and what fails stands in the outcome.

The thread that calls waits and takes Ctrl-C; a job asks `Outcome.stopping` between its pieces and gives up then.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Protocol

from octuefs.datafile import Datafile
from octuefs.entries import Folder, Other
from octuefs.errors import LocalFailure, OctuefsError, PermissionRefused, StoreUnavailable, TimedOut

logger = logging.getLogger(__name__)

SMALL_AT_ONCE = 16
"""Files that are transferred at the same time."""
LARGE_AT_ONCE = 4
"""Large ones among them, of each of which several pieces are on their way or in memory."""
PIECES_AT_ONCE = 4
LARGE_BYTES = 8 << 20
"""A file of more than this is a large one."""

_ASK_SECONDS = 0.2
_HOPELESS = (PermissionRefused, StoreUnavailable, TimedOut, LocalFailure)
"""Failures that are hardly the fault of one file."""
_HOPELESS_IN_A_ROW = 32
"""After so many of them with no success between, the rest is not tried."""


class Progress(Protocol):
    """Is told how a transfer gets on, by any thread."""

    def expect(self, files: int, size: int) -> None:
        """Take note that there are so many more files, of so many bytes together, to see to."""
        ...

    def moved(self, size: int) -> None:
        """Take note that bytes were transferred."""
        ...

    def skipped(self, size: int) -> None:
        """Take note that bytes need no transfer."""
        ...

    def finished(self) -> None:
        """Take note that a file is done, or has failed."""
        ...


@dataclass
class Outcome:
    """What came of a transfer; `stopping` is set where it is to end early."""

    moved: int = 0
    """Files that were transferred."""
    moved_bytes: int = 0
    same: int = 0
    """Files that were there already, with the same bytes and metadata."""
    described: int = 0
    """Files and folders of which only metadata was stored."""
    others: int = 0
    """Files at the target that the source has not; they stay as they are."""
    failures: dict[str, str] = field(default_factory=dict)
    """Why, by path."""
    notes: dict[str, str] = field(default_factory=dict)
    """What cannot be transferred by its nature, and is no failure."""
    stopping: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Guards the counts, for memory work alone."""

    def count_moved(self, size: int) -> None:
        """Count a file that was transferred."""
        with self.lock:
            self.moved += 1
            self.moved_bytes += size

    def count_same(self) -> None:
        """Count a file that needed nothing."""
        with self.lock:
            self.same += 1

    def count_described(self) -> None:
        """Count a change of metadata alone."""
        with self.lock:
            self.described += 1

    def fail(self, path: str, error: Exception | str) -> None:
        """Take note of a failure."""
        with self.lock:
            self.failures[path] = str(error)

    def check(self) -> None:
        """Give up where the transfer is to end.

        :raise LocalFailure: which nobody is told of
        """
        if self.stopping.is_set():
            raise LocalFailure("interrupted")


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done for one path. `size` bytes count in the progress."""

    path: str
    size: int
    work: Callable[[], None]


class _Luck:
    """Knows when trying on is of no use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_a_row = 0
        self.hopeless: OctuefsError | None = None

    def had(self, error: OctuefsError | None) -> None:
        with self._lock:
            self._in_a_row = self._in_a_row + 1 if isinstance(error, _HOPELESS) else 0
            if self._in_a_row >= _HOPELESS_IN_A_ROW:
                self.hopeless = error


def run_jobs(jobs: Iterable[Job], outcome: Outcome, progress: Progress, *, is_large_only_slow: bool = False) -> None:
    """Do all jobs, many at a time; a failure is taken into the outcome and ends nothing but its own job.

    :param is_large_only_slow: let large files take no more memory than others, and run as many at once
    :raise KeyboardInterrupt: on Ctrl-C, when the jobs under way have given up
    """
    small: list[Job] = []
    large: list[Job] = []
    for job in jobs:
        (large if job.size > LARGE_BYTES and not is_large_only_slow else small).append(job)
    progress.expect(len(small) + len(large), sum(job.size for job in (*small, *large)))
    luck = _Luck()
    with (
        ThreadPoolExecutor(SMALL_AT_ONCE, thread_name_prefix="transfer") as pool,
        ThreadPoolExecutor(LARGE_AT_ONCE, thread_name_prefix="transfer-large") as large_pool,
    ):
        waiting: set[Future[None]] = set()
        try:
            waiting.update(large_pool.submit(_do, job, outcome, progress, luck) for job in large)
            waiting.update(pool.submit(_do, job, outcome, progress, luck) for job in small)
            while waiting:
                waiting = wait(waiting, _ASK_SECONDS).not_done
        except BaseException:
            outcome.stopping.set()
            for each in (pool, large_pool):
                each.shutdown(wait=False, cancel_futures=True)
            raise


def _do(job: Job, outcome: Outcome, progress: Progress, luck: _Luck) -> None:
    if outcome.stopping.is_set():
        return
    if luck.hopeless is not None:
        outcome.fail(job.path, f"not tried, for all before it failed: {luck.hopeless}")
        progress.finished()
        return
    failed: OctuefsError | None = None
    try:
        job.work()
    except OctuefsError as error:
        failed = error
    except Exception as error:
        logger.exception("unexpected failure with %r", job.path)
        failed = OctuefsError(f"unexpected failure: {error!r}")
    if failed is not None and not outcome.stopping.is_set():
        outcome.fail(job.path, failed)
    luck.had(failed)
    progress.finished()


def walk(folder: Folder) -> Iterator[Folder | Datafile | Other]:
    """Yield all that is in a folder and below it, a folder before its content."""
    pending = [folder]
    while pending:
        for child in pending.pop().children.values():
            yield child
            if isinstance(child, Folder):
                pending.append(child)
