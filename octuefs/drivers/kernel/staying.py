"""Letting a client that is answered stay on its core (sched(7)).

A client that waits for an answer sleeps, and the thread that answers runs on its core. When the answer is there, the
scheduler finds that core busy and wakes the client on an idle one, which takes longer than the answer did; then the
next request comes from there, and so on to and fro. A core on which only SCHED_IDLE threads run counts as idle. So the
threads that answer are such, but not while others want all cores: these would keep them from answering for long.
"""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_LOAD: Final = Path("/proc/loadavg")
_RUNNING_AT: Final = 3
_LOOK_SECONDS: Final = 0.05
_PRIORITY: Final = os.sched_param(0)


class Staying:
    """Makes the thread that uses it SCHED_IDLE, or what it was, as there is room."""

    def __init__(self) -> None:
        self._cores = os.cpu_count() or 1
        self._looked = 0.0
        self._room = False

    def look(self) -> None:
        """See whether there is a core for each thread that runs now; called again and again, it looks now and then."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        running = _LOAD.read_bytes().split()[_RUNNING_AT].split(b"/")[0]
        room = int(running) <= self._cores
        if room != self._room:
            os.sched_setscheduler(0, os.SCHED_IDLE if room else os.SCHED_OTHER, _PRIORITY)
            self._room = room


def be_ordinary() -> None:
    """Undo for a new thread what it has from the one that started it."""
    if os.sched_getscheduler(0) == os.SCHED_IDLE:
        os.sched_setscheduler(0, os.SCHED_OTHER, _PRIORITY)


def may_stay() -> bool:
    """Say whether a thread of this process may become SCHED_IDLE and what it was again: it takes CAP_SYS_NICE.

    Where the process has but some of the cores, nobody tells how many threads want just these: then it may not.
    """
    if len(os.sched_getaffinity(0)) < (os.cpu_count() or 1):
        return False
    found = []

    def try_it() -> None:
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, _PRIORITY)
            os.sched_setscheduler(0, os.SCHED_OTHER, _PRIORITY)
            found.append(True)

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()
    return bool(found)
