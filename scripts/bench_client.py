"""The client that is timed: `python bench_client.py WORK ARGUMENTS...` does one work and prints its seconds.

It knows nothing of octuefs: the same process does the same to the source folder and to each mount of it, so that its
own cost is in all figures. NAMES is a file with a path in the folder on each line; nothing of a mount is touched
before the time begins.
"""

import gc
import http.client
import mmap
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from urllib.parse import urlsplit

PIECE = 128 << 10
"""What cp(1) and cat(1) read at a time; a core keeps as much at hand."""
PAGE = 4096
SMALL = 64 << 10
RANGE, AT_ONCE = 8 << 20, 8
"""Bytes that a request asks for, and requests at once."""
WRITTEN = 1 << 20
"""Bytes written at a time: more take two to three times as long here."""


def stat(folder: str, names: str) -> float:
    """Ask for the attributes of each file."""
    paths = _paths(folder, names)
    started = time.perf_counter()
    for path in paths:
        os.stat(path)
    return time.perf_counter() - started


def read_each(folder: str, names: str) -> float:
    """Open, read and close each file; they are small."""
    paths = _paths(folder, names)
    started = time.perf_counter()
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.read(descriptor, SMALL)
        os.close(descriptor)
    return time.perf_counter() - started


def stat_by(folder: str, names: str, clients: str) -> float:
    """Ask for the attributes of each file, the files divided among so many processes at once."""
    paths = _paths(folder, names)
    waiting, go = os.pipe()
    children = []
    for number in range(int(clients)):
        child = os.fork()
        if child == 0:
            share = paths[number :: int(clients)]
            os.read(waiting, 1)
            for path in share:
                os.stat(path)
            os._exit(0)
        children.append(child)
    time.sleep(0.02)  # until all wait
    started = time.perf_counter()
    os.write(go, b"." * len(children))
    codes = [os.waitpid(child, 0)[1] for child in children]
    took = time.perf_counter() - started
    if any(codes):
        raise SystemExit("bench: a client failed")
    return took


def read(path: str) -> float:
    """Read a file from start to end, as cat(1) does."""
    room = mmap.mmap(-1, PIECE)  # copying to where no page begins takes the kernel twice as long
    started = time.perf_counter()
    descriptor = os.open(path, os.O_RDONLY)
    while os.readv(descriptor, [room]):
        pass
    os.close(descriptor)
    return time.perf_counter() - started


def read_randomly(path: str, times: str) -> float:
    """Read pages of a file in no order."""
    room = mmap.mmap(-1, PAGE)
    descriptor = os.open(path, os.O_RDONLY)
    pages = os.fstat(descriptor).st_size // PAGE
    chance = random.Random(6)
    places = [chance.randrange(pages) * PAGE for _ in range(int(times))]
    started = time.perf_counter()
    for place in places:
        os.preadv(descriptor, [room], place)
    took = time.perf_counter() - started
    os.close(descriptor)
    return took


def get_in_parallel(url: str, size: str, path: str) -> float:
    """Fetch so many bytes of a URL by requests for ranges of them, and write them where they belong in a new file."""
    place = urlsplit(url)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    started = time.perf_counter()
    os.posix_fallocate(descriptor, 0, int(size))
    ranges: SimpleQueue[int | None] = SimpleQueue()
    for first in (*range(0, int(size), RANGE), *[None] * AT_ONCE):
        ranges.put(first)

    def fetch(_: int) -> None:
        room = memoryview(bytearray(WRITTEN))
        with closing(http.client.HTTPConnection(place.netloc, timeout=60)) as connection:
            while (first := ranges.get()) is not None:
                end = min(first + RANGE, int(size))
                connection.request("GET", f"{place.path}?{place.query}", headers={"Range": f"bytes={first}-{end - 1}"})
                with connection.getresponse() as answer:
                    while first < end and (count := answer.readinto(room)):
                        os.pwrite(descriptor, room[:count], first)
                        first += count
                if first != end:
                    raise SystemExit(f"bench: {url}: a range was not answered in full: {answer.status}")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(fetch, range(AT_ONCE)))
    took = time.perf_counter() - started
    os.close(descriptor)
    return took


def write(path: str, size: str, piece: str) -> float:
    """Write a new file from start to end in pieces, and close it; it is removed afterwards."""
    block = bytes(range(256)) * (int(piece) // 256)
    started = time.perf_counter()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    for _ in range(int(size) // len(block)):
        os.write(descriptor, block)
    os.close(descriptor)
    took = time.perf_counter() - started
    os.unlink(path)
    return took


def run(*command: str) -> float:
    """Run a program to its end. It may fail: grep does where it finds nothing."""
    started = time.perf_counter()
    # A pipe, as grep(1) stops at the first hit where /dev/null is written to.
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = sum(part.count(b"\n") for part in iter(lambda: process.stdout.read1(PIECE), b""))
        assert process.stderr is not None
        words = process.stderr.read().decode(errors="replace")
    took = time.perf_counter() - started
    if words or process.returncode > 1:
        raise SystemExit(f"bench: {command[0]} ended with {process.returncode} after {lines} lines: {words[:300]}")
    return took


def _paths(folder: str, names: str) -> list[str]:
    return [f"{folder}/{name}" for name in Path(names).read_text().splitlines()]


WORKS: dict[str, Callable[..., float]] = {
    work.__name__: work for work in (stat, read_each, stat_by, read, read_randomly, get_in_parallel, write, run)
}

if __name__ == "__main__":
    gc.disable()
    print(WORKS[sys.argv[1]](*sys.argv[2:]))
