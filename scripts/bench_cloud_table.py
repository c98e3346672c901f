"""The table of the cloud benchmark: what was measured of each kind of mount, and what is wanted of octuefs."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench_cloud_places import KINDS, LISTED, NO_MOUNT, OURS, THEIRS, Kind
from bench_tools import Row

DELAYS = (0, 30)
"""Milliseconds that each request takes longer."""
HEAD = ("what, s at 0 ms / 30 ms", *(it.name for it in KINDS), "goal", "reached")


class Figures:
    """What was measured; of several rounds the median counts."""

    def __init__(self) -> None:
        self._taken: dict[tuple[Kind, str, int], list[float]] = defaultdict(list)

    def add(self, kind: Kind, step: str, delay: int, seconds: float) -> None:
        """Remember one measurement."""
        self._taken[kind, step, delay].append(seconds)

    def get(self, kind: Kind, step: str, delay: int) -> float | None:
        """Return the median, None where nothing was measured."""
        taken = self._taken.get((kind, step, delay))
        return statistics.median(taken) if taken else None

    def most(self, kind: Kind, step: str, delay: int) -> float | None:
        """Return the largest, None where nothing was measured."""
        return max(self._taken.get((kind, step, delay), ()), default=None)


@dataclass(frozen=True)
class Goal:
    """How long octuefs may take."""

    text: str
    limit: Callable[[Figures, int], float | None]
    """The seconds at a delay, None where nothing is wanted."""

    def judged(self, figures: Figures, step: str) -> str:
        """Say what each driver reached at each delay, and where it did not, how many times too much it was."""
        words = []
        for kind in OURS:
            found = [self._judge(figures, kind, step, delay) for delay in DELAYS]
            if any(found):
                words.append(f"{kind.name.removeprefix('octuefs, ')} {' / '.join(it or '-' for it in found)}")
        return "; ".join(words)

    def _judge(self, figures: Figures, kind: Kind, step: str, delay: int) -> str:
        taken, limit = figures.get(kind, step, delay), self.limit(figures, delay)
        if taken is None or limit is None:
            return ""
        return "yes" if taken <= limit else f"NO ({taken / limit:.1f}x)"


def at_most(*seconds: float | None) -> Goal:
    """Want no more than so many seconds at each delay."""
    limits = dict(zip(DELAYS, seconds, strict=True))
    text = " / ".join("-" if it is None else f"{it:g}" for it in seconds)
    return Goal(f"<= {text}", lambda _, delay: limits[delay])


def as_fast_as_requests(step: str) -> Goal:
    """Want 1.5 times the time of plain requests at most, and to be ahead of every other mount."""

    def limit(figures: Figures, delay: int) -> float | None:
        plain = figures.get(NO_MOUNT, step, delay)
        others = [seconds for kind in THEIRS if (seconds := figures.get(kind, step, delay)) is not None]
        return None if plain is None else min([1.5 * plain, *others])

    return Goal("<= 1.5x parallel requests, ahead of all", limit)


def as_fast_as_file(step: str, times: float, text: str) -> Goal:
    """Want no more than so many times what reading the plain file takes."""

    def limit(figures: Figures, delay: int) -> float | None:
        plain = figures.get(NO_MOUNT, step, delay)
        return None if plain is None else times * plain

    return Goal(text, limit)


ROWS: Sequence[tuple[str, str, Goal | None]] = (
    ("mount, 2,000 objects in 20 folders", f"mount {LISTED}", None),
    ("find -ls of them, first", "walk, first", at_most(0.10, 0.25)),
    ("find -ls, again", "walk, again", at_most(0.01, 0.01)),
    ("400 files of 3 KB one after another, cold", "small, cold", at_most(0.25, 0.6)),
    ("400 files of 3 KB, again", "small, again", at_most(0.04, 0.04)),
    ("256 MiB sequential, cold", "large, cold", as_fast_as_requests("large, cold")),
    (
        "256 MiB again, root",
        "large, again",
        as_fast_as_file("large, again", 1 / 0.8, ">= 0.8 of the plain file's speed"),
    ),
    (
        "256 MiB again, page cache dropped",
        "large, dropped",
        as_fast_as_file("large, dropped", 1.2, "<= 1.2x the plain file"),
    ),
    ("100 random reads of 4 KiB of it, cold", "random", at_most(0.15, 1.0)),
    ("SDK, 500 files: load", "SDK load", at_most(None, 1.0)),
    ("SDK: read 100 of them", "SDK read", at_most(None, 1.0)),
    ("SDK: download all", "SDK download", at_most(None, 1.0)),
)


def _row(what: str, step: str, goal: Goal | None, figures: Figures) -> Row:
    """Return a row of the table: one step, all kinds."""
    cells = []
    for kind in KINDS:
        found = [figures.get(kind, step, delay) for delay in DELAYS]
        cells.append(
            "" if found == [None] * len(found) else " / ".join("-" if it is None else _short(it) for it in found)
        )
    return (what, *cells, goal.text if goal else "", goal.judged(figures, step) if goal else "")


def _short(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds >= 10 else f"{seconds:.2f}" if seconds >= 0.1 else f"{seconds:.3f}"


def _memory_row(figures: Figures) -> Row:
    """Return the row of the daemons' memory at most."""
    found = {kind: [figures.most(kind, "memory", delay) for delay in DELAYS] for kind in OURS}
    cells = [" / ".join("-" if it is None else f"{it:.0f} MB" for it in found.get(kind, [])) for kind in KINDS]
    most = max((it for them in found.values() for it in them if it is not None), default=None)
    return ("daemon memory at most", *cells, "< 512 MB", "" if most is None else "yes" if most < 512 else "NO")


def table(figures: Figures) -> Iterator[Row]:
    """Yield all rows."""
    for what, step, goal in ROWS:
        yield _row(what, step, goal, figures)
    yield _memory_row(figures)
