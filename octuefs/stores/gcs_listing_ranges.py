"""Which range of names each request of a parallel listing asks for. Pure: names in, ranges out; the caller locks.

A listing begins as one range, which is listed page by page. While a range has more pages, the part of it that was not
listed yet can be split in two: whoever has nothing to do takes ("steals") the upper part. Nothing is known of the names
before. Where to split is learnt from the pages: which characters stand where, and at which places of the names those of
different ranges differ. Whatever point is chosen, each name lies in exactly one range: points decide only how evenly
the work is spread, and a range without names costs one request. Names compare as their UTF-8 does, which is how str
compares too.
"""

import sys
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from octuefs.stores.gcs_listing_points import Sample, between, common, successor
from octuefs.stores.gcs_requests import LONGEST_NAME

_FREE_SPLITS = 14
"""How many more ranges than one there may be, however few names were found."""
_SPLITS_A_PAGE = 0.25
"""How many more for each page that was found, as each may cost a request."""
_FIRST_SPLITS = 3
"""At the beginning no more than so many for each page after the first: most listings have two pages at most."""


@dataclass(eq=False)
class Range:
    """The names from `start` to before `end` (None: to the last of the prefix), of which some are listed."""

    start: str | None
    end: str | None
    asked_end: str | None
    """The `end` with which the first page was asked for: a page's token is good for the same parameters only."""
    origin: str | None = None
    """The last name before `start` that had been listed when this range was split off; None for the first range."""
    level: int = 0
    """At which place of the names it was split off."""
    token: str | None = None
    last: str | None = None
    """The last name that is listed."""
    sample: Sample | None = None
    """What the last page tells of the names that follow."""


@dataclass
class Ranges:
    """All ranges of a listing of the names that begin with `prefix`, in pages of `page_size`."""

    prefix: str
    page_size: int
    found: int = 0
    """How many names are listed."""
    splits: int = 0
    under_way: int = 0
    """How many ranges have been taken and not been put back or finished."""
    _ready: list[Range] = field(default_factory=list)
    _open: list[Range] = field(default_factory=list)
    """Those whose next page is not the first: of these others may take a part."""
    _varied: set[int] = field(default_factory=set)
    """The places at which names of different ranges have been seen to differ."""
    _even: set[int] = field(default_factory=set)
    """The places at which it was tried in vain to find names that differ."""

    def __post_init__(self) -> None:
        self._ready.append(Range(None, None, None))

    @property
    def is_done(self) -> bool:
        """True where everything is listed."""
        return not self.under_way and not self._ready

    def take(self) -> Range | None:
        """Return a range whose next page is to be asked for; None where there is none now.

        One that waits goes first; else the largest rest is split.
        """
        taken = self._ready.pop() if self._ready else self._steal()
        self.under_way += taken is not None
        return taken

    def put_back(self, taken: Range, names: Sequence[str], token: str | None) -> slice:
        """Take in the page of a range that was taken, and return which of its names belong to the range.

        :param names: those of the page, in their order
        :param token: that of the next page, None where this was the last
        """
        self.under_way -= 1
        is_first = taken.last is None
        mine = slice(
            bisect_left(names, taken.start) if taken.start is not None else 0,
            bisect_left(names, taken.end) if taken.end is not None else len(names),
        )
        listed = names[mine]
        self.found += len(listed)
        if is_first and taken.origin is not None and (listed or token is None):
            self._learn(taken, listed)
        if listed:
            taken.last = listed[-1]
            taken.sample = Sample(listed)
            self._varied.update(taken.sample.varied)
        if token is None or mine.stop < len(names):
            if not is_first:
                self._open.remove(taken)
            return mine
        taken.token = token
        if is_first and listed:
            self._open.append(taken)
        self._ready.append(taken)
        return mine

    def _learn(self, taken: Range, listed: Sequence[str]) -> None:
        """Learn from the first page of a part: its first name differs from the one before it at some place, or none."""
        assert taken.origin is not None
        if listed:
            place = common(taken.origin, listed[0])
            self._varied.add(place)
            self._even.discard(place)
        else:
            lowest = len(self.prefix) if taken.end is None else common(taken.origin, taken.end)
            self._even.update(place for place in range(lowest, taken.level + 1) if place not in self._varied)

    def _steal(self) -> Range | None:
        pages = self.found // self.page_size
        if self.splits >= min(_FIRST_SPLITS * (pages - 1), _FREE_SPLITS + int(_SPLITS_A_PAGE * pages)):
            return None
        best: tuple[tuple[int, int], Range, str, int] | None = None
        for candidate in self._open:
            found = self._point_in(candidate)
            if found is not None and (best is None or found[0] < best[0]):
                best = (found[0], candidate, found[1], found[2])
        if best is None:
            return None
        _, victim, point, level = best
        self.splits += 1
        part = Range(point, victim.end, victim.end, origin=victim.last, level=level)
        victim.end = point
        return part

    def _point_in(self, candidate: Range) -> tuple[tuple[int, int], str, int] | None:
        """Return where to split what is not listed of a range, at which place of the names, and how small it is."""
        low, high, sample = candidate.last, candidate.end, candidate.sample
        assert low is not None
        assert sample is not None
        lowest = len(self.prefix) if high is None else common(low, high)
        untried: list[int] = []
        even: list[int] = []
        for place in range(lowest, min(max(sample.place, lowest) + 3, len(low) + 1)):
            if place not in self._varied and place < sample.place:
                (even if place in self._even else untried).append(place)
                continue
            if untried:
                break
            bound = high[place : place + 1] if high is not None and place == lowest else ""
            characters = [it for it in sample.alphabet(place, bound) if _is_point(low[:place] + it, low, high)]
            if characters:
                point = low[:place] + characters[len(characters) // 2]
                return (place, ord(low[place : place + 1] or "\0") - ord(characters[-1])), point, place
        for places in (untried, even):
            while places:
                place = places.pop((len(places) - 1) // 2)
                after = successor(low[: place + 1])
                if after is not None and _is_point(after, low, high):
                    return (place, -sys.maxsize), after, place
        after = between(low, high)
        return ((len(low), 0), after, len(low)) if after is not None and _is_point(after, low, high) else None


def _is_point(point: str, low: str, high: str | None) -> bool:
    return low < point and (high is None or point < high) and len(point.encode()) <= LONGEST_NAME
