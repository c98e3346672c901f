"""The cloud benchmark's part with many objects, on the generator server, each request to which takes 30 ms.

100,000 objects, through octuefs and through `rclone mount`; 1,000,000, through octuefs. Where memory is measured the
commands are processes of their own, so that a daemon's memory is all its own. A remount is timed from the command to
the first `ls`, with and without the time that Python takes to import the program.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench_cloud_places import OCTUEFS, RCLONE, Kind, begin_commands, memory, new_state, shown
from bench_tools import Row, seconds, time_client

from support import mounting
from support.generated import BUCKET, LABEL
from support.generator import GeneratorServer

HEAD = ("what, each request + 30 ms", "octuefs", "rclone", "goal", "reached")
DELAY = 30
MANY, MOST = 100_000, 1_000_000
ROUNDS = 3
FILTER = "filter/tags__height__gt=49"


@contextmanager
def commands_begin() -> Iterator[None]:
    """Have each command be a process that begins with it."""
    before = mounting.each_command_begins
    mounting.each_command_begins = True
    try:
        yield
    finally:
        mounting.each_command_begins = before


def show(path: Path) -> float:
    """Return the seconds that `ls` takes."""
    return time_client("run", "ls", path)


def timed(what: str, taken: float, limit: float, *, more: str = "", theirs: str = "") -> Row:
    """Return a row with a time that has a limit in seconds."""
    return what, f"{taken:.2f} s{more}", theirs, f"< {limit:g} s", "yes" if taken < limit else "NO"


def sized(what: str, size: float, limit: float) -> Row:
    """Return a row with a size that has a limit in MB."""
    return what, f"{size:.0f} MB", "", f"<= {limit:g} MB", "yes" if size <= limit else "NO"


def walk_cold(kind: Kind, server: GeneratorServer, work: Path) -> tuple[float, float]:
    """Return the seconds of mounting with nothing cached, and those of looking at all there is."""
    with new_state(work) as state:
        started = time.perf_counter()
        with shown(kind, server, BUCKET, state) as mount:
            mounting_took = time.perf_counter() - started
            return mounting_took, time_client("run", "find", mount, "-ls")


def walking(server: GeneratorServer, work: Path, rounds: int) -> list[Row]:
    """Measure `find -ls` over all objects, cold, against rclone."""
    taken: dict[Kind, list[tuple[float, float]]] = {OCTUEFS: [], RCLONE: []}
    for _ in range(rounds):
        for kind, times in taken.items():
            times.append(walk_cold(kind, server, work))
    mounts, walks = (
        {kind: statistics.median(it[place] for it in times) for kind, times in taken.items()} for place in (0, 1)
    )
    what = f"find -ls, {MANY:,} objects, cold"
    ratio = walks[RCLONE] / walks[OCTUEFS]
    whole = {kind: mounts[kind] + walks[kind] for kind in taken}
    goal = ">= 3x the speed of rclone"
    return [
        (
            what,
            f"{walks[OCTUEFS]:.2f} s",
            f"{walks[RCLONE]:.2f} s",
            goal,
            f"{ratio:.1f}x {'yes' if ratio >= 3 else 'NO'}",
        ),
        ("the same, and the mount", f"{whole[OCTUEFS]:.2f} s", f"{whole[RCLONE]:.2f} s", "", ""),
    ]


def remount(server: GeneratorServer, state: Path) -> tuple[float, str]:
    """Return the seconds until the first `ls` of a mount, and which requests were made until then."""
    before = server.counts()
    started = time.perf_counter()
    with shown(OCTUEFS, server, BUCKET, state) as mount:
        os.listdir(mount)
        taken = time.perf_counter() - started
        after = server.counts()
        return taken, f", {after['list'] - before['list']} pages listed"


def remounting(server: GeneratorServer, state: Path, what: str, limit: float) -> list[Row]:
    """Measure the first `ls` of a mount whose state is there."""
    with commands_begin():
        begun, pages = remount(server, state)
    taken, more = remount(server, state)
    return [
        timed(f"{what}: remount until first ls", taken, limit, more=more),
        (f"{what}: the same, and Python's start", f"{begun:.2f} s{pages}", "", "", ""),
    ]


def hashing(server: GeneratorServer, mount: Path) -> Row:
    """Measure the hash of all objects."""
    before = server.counts()["media"]
    taken = seconds((mount / ".hash").read_bytes)
    fetched = server.counts()["media"] - before
    what, cell, theirs, goal, reached = timed(f"{MANY:,} objects: cat .hash", taken, 1.0)
    return what, f"{cell}, {fetched} GETs", theirs, f"{goal}, no GET", reached if not fetched else "NO"


def bench_many(rows: list[Row], work: Path, *, quick: bool) -> None:
    """Measure what many objects cost, and add the rows of what was measured.

    :param quick: leave the 1,000,000 out, and have one round of the rest
    """
    begin_commands()
    print(f"bench: {MANY:,} objects ...", file=sys.stderr)
    with GeneratorServer(MANY, delay=DELAY) as server:
        rows += walking(server, work, 1 if quick else ROUNDS)
        with new_state(work) as state:
            with commands_begin(), shown(OCTUEFS, server, BUCKET, state) as mount:
                subprocess.run(["find", mount, "-ls"], stdout=subprocess.DEVNULL, check=True)
                rows.append(hashing(server, mount))
                rows.append(sized(f"{MANY:,} objects: daemon memory at most", memory(mount)["VmHWM"], 512))
            rows += remounting(server, state, f"{MANY:,} objects", 0.5)
    if quick:
        return
    print(f"bench: {MOST:,} objects ...", file=sys.stderr)
    with GeneratorServer(MOST, delay=DELAY) as server, new_state(work) as state:
        rows += most(server, state)


def most(server: GeneratorServer, state: Path) -> list[Row]:
    """Measure a mount of a million objects."""
    what = f"{MOST:,} objects"
    started = time.perf_counter()
    rows: list[Row] = []
    with commands_begin(), shown(OCTUEFS, server, BUCKET, state) as mount:
        show(mount / "by-label/odd")  # which takes all to be known
        rows.append((f"{what}: mount, cold, until by-label/odd/", f"{time.perf_counter() - started:.1f} s", "", "", ""))
        rows += views(mount)
        rows.append(sized(f"{what}: daemon memory", memory(mount)["VmRSS"], 600))
    rows += remounting(server, state, what, 1.0)
    with commands_begin(), shown(OCTUEFS, server, BUCKET, state) as mount:
        rows += ((f"{name}, after a remount", *rest) for name, *rest in views(mount))
        rows.append(sized(f"{what}: daemon memory after a remount", memory(mount)["VmRSS"], 600))
    return rows


def views(mount: Path) -> list[Row]:
    """Measure views of a million objects."""
    what = f"{MOST:,} objects"
    return [
        timed(f"{what}: ls by-label/{LABEL}/", show(mount / f"by-label/{LABEL}"), 1.0),
        timed(f"{what}: ls {FILTER}/", show(mount / FILTER), 5.0),
    ]
