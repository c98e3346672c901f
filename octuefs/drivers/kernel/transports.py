"""What a mount's requests come by: /dev/fuse alone, or io_uring beside it, each with a thread for each core."""

import errno
import logging
import os
import re
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from octuefs.drivers.kernel.device import Device
from octuefs.drivers.kernel.dispatch import Dispatcher
from octuefs.drivers.kernel.loop import LoopThread
from octuefs.drivers.kernel.staying import be_ordinary, may_stay
from octuefs.drivers.kernel.uring import ENTRIES, SPARE_ENTRIES, QueueThread

logger = logging.getLogger(__name__)

_POSSIBLE: Final = Path("/sys/devices/system/cpu/possible")
MOST_WORKERS: Final = 256
"""So many requests at most wait for a disk or the cloud at a time."""


def usable_cpus() -> list[int]:
    """Return the cores that this process may run on."""
    return sorted(os.sched_getaffinity(0))


def possible_cpus() -> int:
    """Return how many cores the kernel may ever have: it has an io_uring queue for each."""
    numbers = [int(it) for it in re.findall(r"\d+", _POSSIBLE.read_text())]
    return max(numbers) + 1


def workers() -> Executor:
    """Return the threads that may wait, which run on any core."""
    cores = os.sched_getaffinity(0)

    def begin() -> None:
        """Be what the process is, and not the thread that handed the first request on."""
        os.sched_setaffinity(0, cores)
        be_ordinary()

    return ThreadPoolExecutor(MOST_WORKERS, "worker", begin)


def queue_threads(device: Device, payload_bytes: int, dispatcher: Dispatcher) -> list[QueueThread]:
    """Start the threads of FUSE over io_uring, with their rings, which serve nobody before `begin`.

    :raise OSError: where one has no ring; none is left then
    """
    usable, number = usable_cpus(), possible_cpus()
    answer, stays = dispatcher.answer, may_stay()
    threads = [QueueThread(device.descriptor, [cpu], ENTRIES, payload_bytes, answer, stays=stays) for cpu in usable]
    if others := [cpu for cpu in range(number) if cpu not in usable]:
        threads.append(QueueThread(device.descriptor, others, SPARE_ENTRIES, payload_bytes, answer, stays=stays))
    for it in threads:
        it.thread.start()
    for it in threads:
        it.ready.wait()
    failure = next((it.failure for it in threads if it.failure is not None), None)
    if failure is not None:
        for it in threads:
            it.begin(wanted=False)
        raise failure
    return threads


def loop_threads(device: Device, dispatcher: Dispatcher, *, single: bool) -> list[LoopThread]:
    """Start the threads that read /dev/fuse: one for each core, or a `single` one for what io_uring leaves there."""
    cores: Sequence[int | None] = [None] if single else usable_cpus()
    threads = []
    for number, core in enumerate(cores):
        descriptor = device.descriptor
        if number:
            try:
                descriptor = device.clone()
            except OSError as error:
                logger.info("/dev/fuse cannot be cloned, so all threads share it: %s", os.strerror(error.errno or 0))
        threads.append(LoopThread(descriptor, core, dispatcher.answer, dispatcher.note))
    for it in threads:
        it.thread.start()
    return threads


def read_first(device: Device, room: bytearray) -> int:
    """Read the first request of a session into `room` and return its length.

    :raise OSError: ENODEV where the mount has ended before
    """
    while True:
        with suppress(InterruptedError):
            try:
                return os.readv(device.descriptor, [room])
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.ENOENT):
                    raise
