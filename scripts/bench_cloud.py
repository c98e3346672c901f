"""The benchmark of reading from a bucket: `scripts/bench cloud`.

octuefs with each driver, `rclone mount` without and with its cache of files, and what programs do without any mount:
the SDK on gs://, plain requests for ranges in parallel, plain folders and files where all is cached. Each has its turn
with the same objects of one server (bench_cloud_places.py), first as it is, then behind 30 ms that each request takes
longer. "Cold" is a new mount with nothing cached. A mount's own time, without Python's start, stands in its own row:
who lists the bucket then has that behind him. The goals stand in bench_cloud_table.py; what takes 100,000 objects and
more is in bench_cloud_many.py.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench_cloud_places import (
    DATASET,
    KINDS,
    LARGE,
    LARGE_BYTES,
    LARGE_NAME,
    LISTED,
    NO_MOUNT,
    OURS,
    SMALL,
    SMALL_NAMES,
    Kind,
    begin_commands,
    drop_pages,
    fill,
    listed,
    may_drop_pages,
    memory,
    new_state,
    shown,
)
from bench_cloud_table import DELAYS, Figures, table
from bench_tools import PATIENCE, Row, time_client

from support.gcs import GcsServer
from support.latency import gcs_behind
from support.sdk import run_sdk

ROUNDS = 3
AGAIN = 3
"""How often what was done once is done again."""
RANDOM_READS = 100
SDK_WORK = Path(__file__).with_name("bench_sdk.py")

Steps = Iterator[tuple[str, float]]
"""Names of what was done, and the seconds it took."""


@dataclass(frozen=True)
class Bench:
    """One server, and how often each kind has its turn."""

    server: GcsServer
    delay: int
    work: Path
    figures: Figures
    rounds: int

    def in_turns(
        self,
        bucket: str,
        do: Callable[[Path], Steps],
        alone: Callable[[Path], Steps] | None = None,
        *,
        kinds: Sequence[Kind],
    ) -> None:
        """Let each kind do the work, on a new mount with nothing cached, in another order in each round.

        :param alone: what is done without a mount, in a new folder
        """
        print(f"bench: {self.delay} ms: {bucket} ...", file=sys.stderr)
        for number in range(self.rounds):
            turn = number % len(kinds)
            for kind in (*kinds[turn:], *kinds[:turn]):
                with new_state(self.work) as state:
                    for step, seconds in self._turn(kind, bucket, do, alone, state):
                        self.figures.add(kind, step, self.delay, seconds)

    def _turn(
        self, kind: Kind, bucket: str, do: Callable[[Path], Steps], alone: Callable[[Path], Steps] | None, state: Path
    ) -> Steps:
        if kind is NO_MOUNT:
            if alone is not None:
                yield from alone(state)
            return
        started = time.perf_counter()
        with shown(kind, self.server, bucket, state) as mount:
            yield f"mount {bucket}", time.perf_counter() - started
            yield from do(mount)
            if kind in OURS:
                yield "memory", memory(mount)["VmHWM"]


# --- works


def walk(mount: Path) -> Steps:
    """Look at all there is."""
    for step in ("walk, first", *["walk, again"] * AGAIN):
        yield step, time_client("run", "find", mount, "-ls")


def walk_alone(state: Path) -> Steps:
    """Look at as many files in a plain folder."""
    for name, _ in listed():
        path = state / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    yield from (it for it in walk(state) if it[0] == "walk, again")


def read_small(mount: Path, names: Path) -> Steps:
    """Read small files, one after another."""
    for step in ("small, cold", "small, again"):
        yield step, time_client("read_each", mount, names)


def read_large(mount: Path) -> Steps:
    """Read a large file from start to end."""
    yield "large, cold", time_client("read", mount / LARGE_NAME)
    yield from read_again(mount / LARGE_NAME)


def read_again(path: Path) -> Steps:
    """Read a file that was read before, some times: the first of them may still meet what is being kept of it."""
    os.sync()
    for _ in range(AGAIN):
        yield "large, again", time_client("read", path)
    for _ in range(AGAIN if may_drop_pages() else 0):
        drop_pages()
        yield "large, dropped", time_client("read", path)


def read_large_alone(state: Path, url: str) -> Steps:
    """Fetch the large file by parallel requests, and read it as the plain file it is then."""
    copy = state / LARGE_NAME
    yield "large, cold", time_client("get_in_parallel", url, LARGE_BYTES, copy)
    yield from read_again(copy)


def read_randomly(mount: Path) -> Steps:
    """Read pages of a file, nothing of which is cached."""
    yield "random", time_client("read_randomly", mount / LARGE_NAME, RANDOM_READS)


def use_sdk(location: Path | str, work: Path, server: GcsServer, *steps: str) -> Steps:
    """Have the SDK load a dataset, read some of its files and download all."""
    with new_state(work) as folder:
        arguments = (str(location), folder / "downloaded", *steps)
        environment = {**server.environment, "TMPDIR": str(folder)}  # it leaves the files there that it reads
        taken = run_sdk(SDK_WORK.read_text(), environment=environment, arguments=arguments, timeout=PATIENCE)
    for step, seconds in taken.items():
        yield f"SDK {step}", seconds


def do_all(bench: Bench, names: Path, *, quick: bool) -> None:
    """Do all works on one server."""
    server = bench.server
    mounts = [kind for kind in KINDS if kind is not NO_MOUNT]
    bench.in_turns(LISTED, walk, walk_alone, kinds=KINDS)
    bench.in_turns(SMALL, partial(read_small, names=names), kinds=mounts)
    url = f"{server.endpoint}/storage/v1/b/{LARGE}/o/{LARGE_NAME}?alt=media"
    bench.in_turns(LARGE, read_large, partial(read_large_alone, url=url), kinds=KINDS)
    bench.in_turns(LARGE, read_randomly, kinds=mounts)
    for steps in (("load", "read"), ("download",)):
        bench.in_turns(DATASET, lambda mount, steps=steps: use_sdk(mount, bench.work, server, *steps), kinds=OURS)
    if not quick:  # a minute, which differs little
        for step, seconds in use_sdk(f"gs://{DATASET}", bench.work, server, "load", "read", "download"):
            bench.figures.add(NO_MOUNT, step, bench.delay, seconds)


def bench_cloud(rows: list[Row], work: Path, *, quick: bool) -> None:
    """Measure all works, and add the rows of what was measured.

    :param quick: let each kind have one turn only, and leave the SDK on gs:// out
    """
    begin_commands()
    figures = Figures()
    names = work / "names"
    names.write_text("\n".join(SMALL_NAMES))
    large = os.urandom(LARGE_BYTES)
    if not may_drop_pages():
        print("bench: only root may drop the page cache: that row is left out", file=sys.stderr)
    try:
        for delay in DELAYS:
            with gcs_behind(delay) as server:
                fill(server, large)
                do_all(Bench(server, delay, work, figures, 1 if quick else ROUNDS), names, quick=quick)
    finally:
        rows += table(figures)
