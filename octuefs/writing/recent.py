"""What a name's metadata was until a moment ago, for programs that save by making the name again.

An editor renames a file to its backup, or removes it, and writes a new one of that name: the new one is the same to
its user. Writers remember what leaves a name, and ask when a name is made. A program that unpacks over what is there
writes `.octue`, and then removes and makes each file that it names: those keep their records whole.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from cachetools import TTLCache

from octuefs.index import Index
from octuefs.model.changes import copied
from octuefs.model.metadata import DatafileMetadata

REMEMBERED_SECONDS = 15.0
_WRITTEN_SECONDS = 600.0
"""How long a record that was written for a name counts: the files of an archive come one after another."""
_REMEMBERED_NAMES = 65_536


class RecentNames:
    """The labels, tags and timestamp of names that were given up within the last 15 s. Any thread may call."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._timer = timer
        self._until = 0.0
        """When the last of the names is forgotten: most files are made where nothing was."""
        self._names: TTLCache[str, DatafileMetadata] = TTLCache(_REMEMBERED_NAMES, REMEMBERED_SECONDS, timer)
        self._written: TTLCache[str, None] = TTLCache(_REMEMBERED_NAMES, _WRITTEN_SECONDS, timer)

    def written(self, paths: Iterable[str]) -> None:
        """Take note that a `.octue` was written that names these files."""
        with self._lock:
            for path in paths:
                self._written[path] = None

    def remember(self, path: str, metadata: DatafileMetadata, *, removed: bool = False) -> None:
        """Take note of what a name had that was renamed away or `removed`.

        Its ID goes with the file, but for a removed one whose record was written of late: that is kept whole.
        """
        kept = copied(metadata)
        with self._lock:
            self._names.pop(path, None)
            if removed and path in self._written:
                kept = metadata
            if kept != DatafileMetadata():
                self._names[path] = kept
                self._until = self._timer() + REMEMBERED_SECONDS

    def find(self, path: str) -> DatafileMetadata | None:
        """Return what a name had that may be made anew; None where it had nothing, or too long ago."""
        if self._timer() > self._until:
            return None
        with self._lock:
            return self._names.get(path)

    def take(self, path: str) -> DatafileMetadata | None:
        """Return the same to who makes the name, once."""
        if self._timer() > self._until:
            return None
        with self._lock:
            return self._names.pop(path, None)


def without_anothers_id(metadata: DatafileMetadata, path: str, index: Index) -> DatafileMetadata:
    """Return metadata for what is made at `path`: without their ID where another file has that by now."""
    if metadata.id is None or not index.is_anothers(metadata.id, path):
        return metadata
    return replace(metadata, id=None)
