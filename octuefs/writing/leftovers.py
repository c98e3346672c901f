"""Content of cloud files that could not be stored, kept until it is put back or discarded (`recovered/`).

It is the rows of state `failed` and the staged bytes beside the journal. Any thread may call.
"""

import threading
from collections.abc import Hashable, Iterable
from pathlib import Path

from octuefs.content.staging import StagedFile
from octuefs.errors import NotFound
from octuefs.stores.base import ObjectInfo
from octuefs.writing.filerows import FILE, Recovered, Row, recovered_entry
from octuefs.writing.journal import Journal


class Leftover:
    """A ByteSource over kept content."""

    def __init__(self, staged: StagedFile, id: str) -> None:
        self._staged = staged
        self._id = id

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only at the end."""
        return self._staged.read(self._staged.first + offset, size)

    def version(self) -> Hashable:
        """Return what never changes: it is not written to any more."""
        return self._id

    def identity(self) -> Hashable:
        """Return the same."""
        return self._id

    def info(self) -> ObjectInfo | None:
        """Return nothing: no store has it."""
        return None

    def close(self) -> None:
        """Close the staged file."""
        self._staged.close()


class Leftovers:
    """What is kept of one dataset."""

    def __init__(self, journal: Journal, folder: Path) -> None:
        self._journal = journal
        self._folder = folder
        self._lock = threading.Lock()  # guards all below, for memory work alone
        self._entries: dict[str, Recovered] = {}
        self._reasons: dict[str, str] = {}
        """Why the latest content of a path failed, until one is stored."""

    def add(self, entries: Iterable[Recovered]) -> None:
        """Take in what was given up."""
        with self._lock:
            for entry in entries:
                self._entries[entry.id] = entry
                self._reasons[entry.path] = entry.reason

    def keep(self, id: str, row: Row, reason: str | None = None) -> None:
        """Take in what an earlier process left; with a `reason` as having failed only now."""
        first = int(row.get("appended_to", 0))
        if reason is not None:
            row = {**row, "state": "failed", "reason": reason}
            self._journal.put(FILE, id, row)
        size = max((self._folder / id).stat().st_size, first)
        self.add([recovered_entry(id, row, size)])

    def entries(self) -> list[Recovered]:
        """Return all that is kept, the oldest first."""
        with self._lock:
            return sorted(self._entries.values(), key=lambda entry: (entry.when, entry.id))

    def read(self, id: str) -> Leftover:
        """Open kept content.

        :raise NotFound: where there is none of this ID
        """
        entry = self.entry(id)
        return Leftover(StagedFile(self._folder / id, first=entry.first, existing=True), id)

    def discard(self, id: str) -> None:
        """Forget kept content; frees the disk.

        :raise NotFound: where there is none of this ID
        """
        entry = self.entry(id)
        self._journal.drop(FILE, id)
        (self._folder / id).unlink(missing_ok=True)
        with self._lock:
            self._entries.pop(id, None)
            if entry.path not in {other.path for other in self._entries.values()}:
                self._reasons.pop(entry.path, None)

    def reason(self, path: str) -> str | None:
        """Return why the latest content of a path could not be stored, None where nothing failed since one was."""
        return self._reasons.get(path)

    def clear_reason(self, path: str) -> None:
        """Take note that a content of this path was stored."""
        if path in self._reasons:
            with self._lock:
                self._reasons.pop(path, None)

    def entry(self, id: str) -> Recovered:
        """Return what is kept under an ID.

        :raise NotFound: where nothing is
        """
        entry = self._entries.get(id)
        if entry is None:
            raise NotFound(f"{id}: nothing of this ID is kept")
        return entry
