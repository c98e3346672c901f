"""Which bytes of an object are at hand: disjoint ranges, in order. Pure, and safe for one thread at a time."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Extents:
    """A set of byte offsets as half-open ranges (start, end); neighbours are joined."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.total = 0
        """How many bytes there are in all."""

    def add(self, start: int, end: int) -> None:
        """Put in the bytes from `start` to before `end`, be some of them in already."""
        if start >= end:
            return
        first = bisect_left(self._ends, start)  # the first range that touches, or comes after
        last = bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self.total += end - start - self._length(first, last)
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def remove(self, start: int, end: int) -> None:
        """Take out the bytes from `start` to before `end`, be some of them not in."""
        first = bisect_right(self._ends, start)
        last = bisect_left(self._starts, end)
        if start >= end or first >= last:
            return
        kept = [(low, high) for low, high in ((self._starts[first], start), (end, self._ends[last - 1])) if low < high]
        self.total += sum(high - low for low, high in kept) - self._length(first, last)
        self._starts[first:last] = [low for low, _ in kept]
        self._ends[first:last] = [high for _, high in kept]

    def _length(self, first: int, last: int) -> int:
        return sum(self._ends[first:last]) - sum(self._starts[first:last])

    @property
    def end(self) -> int:
        """Where the last range ends; 0 where there is none."""
        return self._ends[-1] if self._ends else 0

    def covers(self, start: int, end: int) -> bool:
        """Say whether all bytes from `start` to before `end` are in."""
        place = bisect_right(self._starts, start) - 1
        return start >= end or (place >= 0 and self._ends[place] >= end)

    def gaps(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges between `start` and `end` that are not in."""
        place = bisect_right(self._ends, start)
        while start < end:
            low = self._starts[place] if place < len(self._starts) else end
            if start < low:
                yield start, min(low, end)
            if low >= end:
                return
            start = self._ends[place]
            place += 1

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._starts, self._ends, strict=True)))
