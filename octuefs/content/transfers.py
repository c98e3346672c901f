"""The bytes of one object that are on their way, or about to be. Pure, and safe for one thread at a time.

`objects.py` has one of these, under its lock.
"""

from collections.abc import Iterator

from octuefs.content.parts import Part
from octuefs.errors import OctuefsError


class Transfer:
    """Bytes `start` to `end` of the object, on their way or about to be."""

    __slots__ = ("ahead", "arrived", "end", "error", "running", "start")

    def __init__(self, start: int, end: int, *, ahead: bool) -> None:
        self.start = start
        self.end = end
        self.ahead = ahead
        """True where nobody has asked for them yet."""
        self.arrived = start
        self.running = False
        self.error: OctuefsError | None = None


class Transfers:
    """Disjoint ranges of bytes, each received by one request or waiting to be."""

    def __init__(self) -> None:
        self._all: list[Transfer] = []

    def __iter__(self) -> Iterator[Transfer]:
        return iter(self._all)

    def __contains__(self, transfer: Transfer) -> bool:
        return transfer in self._all

    def __bool__(self) -> bool:
        return bool(self._all)

    def missing(self, part: Part, start: int, end: int) -> list[tuple[int, int]]:
        """Return the ranges that the part has not, neither at hand nor kept, and that are not on their way."""
        found = list(part.extents.gaps(start, end))
        taken = [(it.start, it.end) for it in self._all]
        taken += [(it, part.kept[it][0]) for it in part.kept_in(start, end)]
        for low, high in sorted(taken):
            found = [
                (first, last) for a, b in found for first, last in ((a, min(b, low)), (max(a, high), b)) if first < last
            ]
        return found

    def bringing(self, offset: int) -> Transfer | None:
        """Return what is to bring a byte that has not arrived."""
        for transfer in self._all:
            if transfer.arrived <= offset < transfer.end:
                return transfer
        return None

    def begin(self, start: int, end: int, *, ahead: bool = False) -> Transfer:
        """Take note that bytes are to be fetched, up to where others are already."""
        for other in self._all:
            if start < other.start < end:
                end = other.start
        transfer = Transfer(start, end, ahead=ahead)
        self._all.append(transfer)
        return transfer

    def cut(self, transfer: Transfer, start: int, end: int) -> Transfer:
        """Take bytes out of a transfer that nobody has begun with.

        What comes before them stays one that waits to be begun, or else what comes after them.
        """
        mine = Transfer(start, min(end, transfer.end), ahead=False)
        self._all.append(mine)
        if start > transfer.start:
            transfer.end = start
        else:
            transfer.start = transfer.arrived = mine.end
            if transfer.start == transfer.end:
                self._all.remove(transfer)
        return mine

    def end(self, transfer: Transfer) -> None:
        """Forget one that has ended, or is not to be begun."""
        self._all.remove(transfer)

    def drop_waiting(self) -> None:
        """Forget those that nobody has begun with."""
        self._all = [it for it in self._all if it.running]
