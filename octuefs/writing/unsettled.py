"""Which paths the journal would still speak of after a crash, though what it would say is over.

A row is dropped once its content is stored, and that is durable some ms later, with its neighbours. Until then a
crash would bring the row back, and what it tells to store would come after, and against, whatever was done to the
path since. So who changes a path again, or removes it, waits for that first; for any other path nobody does.
"""

from collections.abc import Iterable

from octuefs.errors import LocalFailure
from octuefs.report import Report
from octuefs.writing.journal import Journal

_MANY = 1000


class Unsettled:
    """Those of one journal. Any thread may call; nothing is asked of the disk but by `settle`."""

    def __init__(self, journal: Journal, report: Report) -> None:
        self._journal = journal
        self._report = report
        self._positions: dict[str, int] = {}

    def note(self, path: str) -> None:
        """Take note that a row of this path was just dropped."""
        if len(self._positions) >= _MANY:
            for other, position in list(self._positions.items()):
                if self._journal.is_durable(position):
                    self._positions.pop(other, None)
        self._positions[path] = self._journal.position

    def settle(self, path: str) -> None:
        """Return once no crash brings back a row of this path that was dropped.

        :raise LocalFailure: where the journal cannot be written
        """
        position = self._positions.get(path)
        if position is None:
            return
        if not self._journal.is_durable(position):
            self._journal.settle()
        if self._positions.get(path) == position:
            self._positions.pop(path, None)

    def settle_all(self, paths: Iterable[str]) -> None:
        """Do the same after a change that is made, and cannot fail any more: where it fails that is reported."""
        try:
            for path in paths:
                self.settle(path)
        except LocalFailure as error:
            self._report.failure(f"what was renamed or removed is not safe from a crash yet: {error}")
