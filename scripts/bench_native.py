"""The benchmark of the native driver: `scripts/bench local`.

A source folder on tmpfs and mounts of it, of each kind (bench_mounts.py), one at a time and in turns: the kinds stand
after one another in a round, in another order in each, and of each figure the best counts. So all of a row comes from
one run and meets the same noise; compare ratios, not seconds. A goal stands beside what was reached: ratios to the
source folder, to the fusepy driver, or to a bare protocol loop (bench_bare.py).
"""

import os
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench_mounts import (
    BARE_DEVICE,
    BARE_URING,
    DEVICE_ALONE,
    FUSEPY,
    KINDS,
    SOURCE,
    URING,
    USER,
    Kind,
    NoMount,
    Place,
    forget_names,
    shown,
    switched_back,
)
from bench_read import make_dataset
from bench_tools import BLOCK, GIB, Row

from support.mounting import remove

NATIVE = (URING, DEVICE_ALONE)
BARE_OF = {URING: BARE_URING, DEVICE_ALONE: BARE_DEVICE}
NAMES = {SOURCE: "the source"}
HEAD = ("what", *(it.name for it in KINDS), "bare loop", "goal", "reached")
RANDOM_READS = 20_000
SLOW = (FUSEPY, USER)
READ_ONLY = "--read-only"
Figures = dict[Kind, dict[str, float]]
"""What each kind took for each step: seconds, or MB of memory."""
Steps = Callable[[Place], Iterator[tuple[str, float]]]
"""Does the work in a place, and yields each step's name and seconds."""


@dataclass(frozen=True)
class Sizes:
    """How much there is to do."""

    share: int = 1
    """1, or 10 for a tenth of it."""
    rounds: int = 3

    @property
    def few_rounds(self) -> int:
        """For what takes long, and differs little from round to round."""
        return min(self.rounds, 2)

    def __call__(self, number: int) -> int:
        """Return the share of a number."""
        return number // self.share


# --- goals


@dataclass(frozen=True)
class Goal:
    """What is wanted of some kinds."""

    text: str
    ratio: Callable[[Figures, Kind], float]
    """May raise KeyError where something of it was not measured."""
    reached: Callable[[float], bool]
    kinds: Sequence[Kind] = NATIVE

    def judged(self, figures: Figures) -> str:
        """Say what each kind reached."""
        words = []
        for kind in self.kinds:
            try:
                ratio = self.ratio(figures, kind)
            except KeyError:
                continue
            shown_ratio = f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.2f}"
            words.append(f"{kind.name} {shown_ratio} {'yes' if self.reached(ratio) else 'NO'}")
        return ", ".join(words)


def at_most(limit: float, step: str, other: Kind, kinds: Sequence[Kind] = NATIVE) -> Goal:
    """Want no more than so much of another's time for a step."""
    ratio = lambda figures, kind: figures[kind][step] / figures[other][step]  # noqa: E731
    return Goal(f"<= {limit:g}x {NAMES.get(other, other.name)}", ratio, lambda it: it <= limit, kinds)


def at_least(limit: float, step: str, other: Kind) -> Goal:
    """Want at least so much of another's speed in a step."""
    ratio = lambda figures, kind: figures[other][step] / figures[kind][step]  # noqa: E731
    return Goal(f">= {limit:g}x the speed of {NAMES.get(other, other.name)}", ratio, lambda it: it >= limit)


def as_fast_as_bare(limit: float, step: str) -> Goal:
    """Want no more than so much of the time of the bare loop on the same transport."""
    ratio = lambda figures, kind: figures[kind][step] / figures[BARE_OF[kind]][step]  # noqa: E731
    return Goal(f"<= {limit:g}x the bare loop", ratio, lambda it: it <= limit)


# --- rows


def row(what: str, step: str, figures: Figures, unit: Callable[[float], str], *goals: Goal) -> Row:
    """Return a row of the table: one step, all kinds."""
    cells = [unit(figures[kind][step]) if step in figures.get(kind, {}) else "" for kind in KINDS]
    bare = [unit(figures[kind][step]) for kind in BARE_OF.values() if step in figures.get(kind, {})]
    reached = "; ".join(filter(None, (goal.judged(figures) for goal in goals)))
    return (what, *cells, ", ".join(bare), "; ".join(goal.text for goal in goals), reached)


def each(number: int) -> Callable[[float], str]:
    """Show seconds as microseconds of each of so many."""
    return lambda seconds: f"{seconds / number * 1e6:.1f} µs"


def speed(size: int) -> Callable[[float], str]:
    """Show seconds as MB in each."""
    return lambda seconds: f"{size / 1e6 / seconds:,.0f} MB/s"


def duration(seconds: float) -> str:
    """Show seconds."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


# --- the rounds


def in_rounds(
    source: Path,
    steps: Steps,
    rounds: int,
    kinds: Sequence[Kind] = KINDS,
    options: Sequence[str] = (),
    once: Collection[Kind] = (),
) -> Figures:
    """Do the steps in all kinds of places in turns, each time in a new mount, and return the best of each.

    :param options: of `octuefs mount`, for all kinds that it mounts
    :param once: kinds that are slow, and that no goal of these steps names: for them the first round is enough
    """
    figures: Figures = {}
    for number in range(rounds):
        turn = number % len(kinds)
        for kind in (*kinds[turn:], *kinds[:turn]):
            if number and kind in once:
                continue
            try:
                with shown(kind, source, *(options if kind.options else ())) as place:
                    taken = list(steps(place))
            except NoMount as error:
                print(f"bench: {source.name} left out: {kind.name}: {error}", file=sys.stderr)
                continue
            best = figures.setdefault(kind, {})
            for step, took in taken:
                best[step] = min(took, best.get(step, took))
    return figures


@contextmanager
def dataset(work: Path, name: str, files: int) -> Iterator[tuple[Path, Path]]:
    """Make a dataset, and a file of the names in it; it is removed afterwards."""
    source, names = work / name, work / f"{name}.names"
    make_dataset(source, files)
    source.chmod(0o777)
    with names.open("w") as lines:
        lines.writelines(f"{it.relative_to(source)}\n" for it in sorted(source.glob("*/*.csv")))
    yield source, names
    remove(source)


@contextmanager
def one_file(work: Path, name: str, size: int) -> Iterator[Path]:
    """Make a dataset of one large file; it is removed afterwards."""
    source = work / name
    source.mkdir()
    source.chmod(0o777)
    block = os.urandom(BLOCK)
    with (source / "file").open("wb") as file:
        for _ in range(size // BLOCK):
            file.write(block)
    yield source
    remove(source)


# --- what is measured


def reading(work: Path, sizes: Sizes) -> list[Row]:
    """Measure a large file."""
    size, times = sizes(GIB), sizes(RANDOM_READS)

    def warm(place: Place) -> Iterator[tuple[str, float]]:
        path = place.path / "file"
        yield "first", place.time("read", path)
        for _ in range(3):
            yield "again", place.time("read", path)
            yield "random", place.time("read_randomly", path, times)

    def without_passthrough(place: Place) -> Iterator[tuple[str, float]]:
        if place.says_of_driver()["passthrough"] == "yes":
            raise NoMount("files are passed through although the kernel answers opens")
        yield "first", place.time("read", place.path / "file")

    with one_file(work, "large", size) as source:
        figures = in_rounds(source, warm, sizes.rounds)
        by_us = in_rounds(source, without_passthrough, sizes.rounds, NATIVE, (READ_ONLY, "--opens", "kernel"))
    first = {**figures, **by_us}
    fast = Goal(
        ">= 1,500 MB/s", lambda figures, kind: size / 1e6 / figures[kind]["first"], lambda reached: reached >= 1500
    )
    return [
        row("sequential read, warm", "again", figures, speed(size), at_least(0.9, "again", SOURCE)),
        row(f"{times:,} random reads of 4 KiB", "random", figures, each(times), at_most(1.3, "random", SOURCE)),
        row("sequential read, first", "first", figures, speed(size)),
        row("the same, no passthrough", "first", first, speed(size), fast, at_least(4, "first", FUSEPY)),
    ]


def small_files(work: Path, sizes: Sizes) -> list[Row]:
    """Measure what each of many small files costs."""
    number = sizes(5_000)

    with dataset(work, "small", number) as (source, names):

        def read_twice(place: Place) -> Iterator[tuple[str, float]]:
            yield "first", place.time("read_each", place.path, names)
            for _ in range(3):
                yield "again", place.time("read_each", place.path, names)

        def ask(place: Place) -> Iterator[tuple[str, float]]:
            yield "stat first", place.time("stat", place.path, names)
            for _ in range(2):
                forget_names()
                yield "stat later", place.time("stat", place.path, names)
            for clients in (1, 2):
                for _ in range(2):
                    forget_names()
                    yield f"by {clients}", place.time("stat_by", place.path, names, clients)

        def ask_and_read(place: Place) -> Iterator[tuple[str, float]]:
            yield from ask(place)
            if not place.kind.bare:  # that opens nothing
                yield from read_twice(place)

        shut = in_rounds(source, read_twice, sizes.rounds, options=(READ_ONLY,))
        figures = in_rounds(source, ask_and_read, sizes.rounds, (*KINDS, *BARE_OF.values()))
    by_two = Goal(
        "<= 1.6x one client", lambda figures, kind: figures[kind]["by 2"] / figures[kind]["by 1"], lambda it: it <= 1.6
    )
    files, cost = f"open+read+close of {number:,} files", each(number)
    rows = [
        row(f"{files}, read-only, again", "again", shut, cost, at_most(1, "again", SOURCE)),
        row(f"{files}, read-only, first", "first", shut, cost, *below_fusepy("first", 0.25, 0.5)),
        row(f"{files}, writable, again", "again", figures, cost, *below_fusepy("again", 0.2, 0.4)),
        row(f"{files}, writable, first", "first", figures, cost),
    ]
    for when in ("first", "later"):
        step = f"stat {when}"
        goals = (as_fast_as_bare(2, step), at_most(0.3, step, FUSEPY, [URING]))
        rows.append(row(f"stat of {number:,} files, nothing cached, {when}", step, figures, cost, *goals))
    rows.append(row("the same, elapsed, one client", "by 1", figures, duration))
    rows.append(row("the same, elapsed, 2 clients at once", "by 2", figures, duration, by_two))
    return rows


def below_fusepy(step: str, by_uring: float, by_device: float) -> tuple[Goal, Goal]:
    """Want no more than so much of fusepy's time for a step."""
    return at_most(by_uring, step, FUSEPY, [URING]), at_most(by_device, step, FUSEPY, [DEVICE_ALONE])


def walking(work: Path, sizes: Sizes) -> list[Row]:
    """Measure a large tree, and the daemon's memory after that."""
    number = sizes(100_000)
    rows = []

    def walk(place: Place) -> Iterator[tuple[str, float]]:
        for step in ("first", "again"):
            yield step, place.time("run", "find", place.path, "-ls")
        if place.kind is not SOURCE:
            yield from zip(("resident", "share"), place.daemon_memory(), strict=True)

    with dataset(work, "tree", number) as (source, _):
        figures = in_rounds(source, walk, sizes.few_rounds, once=SLOW)
    for step, limit in (("first", 4), ("again", 1.1)):
        what = f"find -ls, {number:,} files, {step}"
        rows.append(row(what, step, figures, duration, at_most(limit, step, SOURCE)))
    modest = Goal("< 250 MB", lambda figures, kind: figures[kind]["resident"], lambda reached: reached < 250)
    what = f"daemon memory, {number:,} files looked up"
    rows.append(row(what, "resident", figures, "{:.0f} MB".format, modest))
    rows.append(row("the same, its share of what is shared", "share", figures, "{:.0f} MB".format))
    return rows


def searching(work: Path, sizes: Sizes) -> list[Row]:
    """Measure grep(1)."""
    number = sizes(20_000)

    def search(place: Place) -> Iterator[tuple[str, float]]:
        for step in ("first", "again", "again"):
            yield step, place.time("run", "grep", "-r", "--include=*.csv", "nothing of this kind", place.path)

    with dataset(work, "texts", number) as (source, _):
        figures = in_rounds(source, search, sizes.few_rounds, options=(READ_ONLY,), once=SLOW)
    what = f"grep -r, {number:,} files, read-only"
    return [
        row(f"{what}, first", "first", figures, duration),
        row(f"{what}, again", "again", figures, duration, at_most(1.2, "again", SOURCE)),
    ]


def listing(work: Path, sizes: Sizes) -> list[Row]:
    """Measure what asks each file for its extended attributes."""
    number = sizes(10_000)
    commands = {
        "getfattr -d -R": ("getfattr", "-d", "-R", "--absolute-names"),
        "ls -lR, first": ("ls", "-lR"),
        "ls -lR, again": ("ls", "-lR"),
    }

    def list_all(place: Place) -> Iterator[tuple[str, float]]:
        for what, command in commands.items():
            yield what, place.time("run", *command, place.path)

    with dataset(work, "tagged", number) as (source, _):
        figures = in_rounds(source, list_all, sizes.few_rounds)
    return [row(f"{number:,} files, {what}", what, figures, duration, at_least(4, what, FUSEPY)) for what in commands]


def writing(work: Path, sizes: Sizes) -> list[Row]:
    """Measure the writing of a large file; who is slow writes an eighth of it in small pieces."""
    size = sizes(GIB)
    pieces = {"1 MiB": 1 << 20, "4 KiB": 4 << 10}

    def write(place: Place) -> Iterator[tuple[str, float]]:
        for name, piece in pieces.items():
            share = 8 if place.kind in SLOW and piece < BLOCK else 1
            yield name, place.time("write", place.path / f"new-{piece}", size // share, piece) * share

    source = work / "written"
    source.mkdir()
    source.chmod(0o777)
    figures = in_rounds(source, write, sizes.few_rounds, once=SLOW)
    remove(source)
    return [
        row(f"writing {size >> 20:,} MiB, pieces of {name}", name, figures, speed(size), at_least(limit, name, SOURCE))
        for name, limit in (("1 MiB", 0.5), ("4 KiB", 0.1))
    ]


PARTS = (reading, small_files, walking, searching, listing, writing)


def bench_native(rows: list[Row], *, quick: bool, rounds: int) -> None:
    """Measure all kinds of mounts of local folders, and add the rows of what was measured.

    :param quick: do a tenth of the work
    :param rounds: how many times each kind of mount has its turn
    """
    if os.geteuid() != 0:
        raise SystemExit("bench: the table of local mounts takes root, who alone may make all of them")
    sizes = Sizes(10 if quick else 1, rounds)
    memory = Path("/dev/shm")
    work = Path(tempfile.mkdtemp(prefix="octuefs-bench-", dir=memory if memory.is_dir() else None))
    work.chmod(0o755)
    try:
        with switched_back():
            for part in PARTS:
                print(f"bench: {part.__name__} ...", file=sys.stderr)
                rows += part(work, sizes)
    finally:
        remove(work)
