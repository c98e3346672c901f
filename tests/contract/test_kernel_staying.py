"""Letting a client that is answered stay on its core: which threads are SCHED_IDLE, and when (sched(7))."""

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the native driver is for Linux")

from octuefs.drivers.kernel import staying, transports  # noqa: E402 - only where there is one


def in_a_thread(act: Callable[[], object]) -> list[int]:
    """Return the policies of a thread before and after it does something."""
    found: list[int] = []

    def run() -> None:
        found.append(os.sched_getscheduler(0))
        act()
        found.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Says how many threads of the system run."""
    load = tmp_path / "loadavg"
    monkeypatch.setattr(staying, "_LOAD", load)

    def run(number: int) -> None:
        load.write_text(f"0.10 0.20 0.30 {number}/200 4711\n")

    return run


needs_permission = pytest.mark.skipif(not staying.may_stay(), reason="a thread that became SCHED_IDLE would stay it")


@needs_permission
def test_a_thread_is_idle_while_there_are_cores_for_all(running: Callable[[int], None]) -> None:
    running(1)
    assert in_a_thread(lambda: staying.Staying().look()) == [os.SCHED_OTHER, os.SCHED_IDLE]


def test_a_thread_stays_as_it_is_where_others_want_all_cores(running: Callable[[int], None]) -> None:
    running((os.cpu_count() or 1) + 1)
    assert in_a_thread(lambda: staying.Staying().look()) == [os.SCHED_OTHER, os.SCHED_OTHER]


@needs_permission
def test_a_thread_is_what_it_was_again_when_others_want_all_cores(
    running: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staying, "_LOOK_SECONDS", 0.0)
    seen = []

    def act() -> None:
        it = staying.Staying()
        for number in (1, 1000, 1):
            running(number)
            it.look()
            seen.append(os.sched_getscheduler(0))
        running(1000)
        it.look()

    assert in_a_thread(act) == [os.SCHED_OTHER, os.SCHED_OTHER]
    assert seen == [os.SCHED_IDLE, os.SCHED_OTHER, os.SCHED_IDLE]


def test_no_thread_is_idle_where_the_process_has_but_some_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1000)
    assert not staying.may_stay()


@needs_permission
def test_workers_that_such_a_thread_starts_are_ordinary(running: Callable[[int], None]) -> None:
    running(1)
    found = []

    def act() -> None:
        staying.Staying().look()
        with transports.workers() as workers:
            found.append(workers.submit(os.sched_getscheduler, 0).result())

    assert in_a_thread(act) == [os.SCHED_OTHER, os.SCHED_IDLE]
    assert found == [os.SCHED_OTHER]
