"""Content of cloud files that could not be stored, as `recovered/` shows it: read, put back, or discarded by its ID."""

import os
from collections.abc import Callable
from typing import Protocol

from octuefs.datafile import Datafile
from octuefs.entries import Other
from octuefs.index import Index
from octuefs.model.changes import MetadataChange
from octuefs.stores.base import ByteSource, ObjectInfo
from octuefs.stores.writing import ObjectProperties
from octuefs.writing.base import OpenFile
from octuefs.writing.filerows import FILE, Recovered, Row, changed_in
from octuefs.writing.journal import Journal
from octuefs.writing.leftovers import Leftovers

_PIECE_BYTES = 4 << 20


class Files(Protocol):
    """What opens and makes files (`cloudfiles.py`)."""

    def open(self, info: ObjectInfo, flags: int, /) -> OpenFile: ...
    def create(self, path: str, flags: int, properties: ObjectProperties, /) -> OpenFile: ...
    def change_metadata(self, path: str, change: MetadataChange, /) -> bool: ...


class FailedContents:
    """That of one dataset. Any thread may call."""

    def __init__(
        self,
        files: Files,
        leftovers: Leftovers,
        journal: Journal,
        index: Index,
        forget_failure: Callable[[str], object],
    ) -> None:
        """`forget_failure` lets the next open of a path not be told of what failed there before."""
        self._forget_failure = forget_failure
        self._files = files
        self._leftovers = leftovers
        self._journal = journal
        self._index = index

    def recovered(self) -> list[Recovered]:
        """Return what is kept, the oldest first."""
        return self._leftovers.entries()

    def read_recovered(self, id: str) -> ByteSource:
        """Open such content.

        :raise NotFound: where there is none of this ID
        """
        return self._leftovers.read(id)

    def put_back(self, id: str) -> None:
        """Store such content at its path, over what stands there now; what was appended goes to the end of that.

        What was changed in its metadata comes along, but the ID that stands there.

        :raise OctuefsError: where it cannot be stored; it is kept
        """
        kept = self._leftovers.entry(id)
        row: Row = self._journal.items(FILE).get(id, {})
        source = self._leftovers.read(id)
        self._forget_failure(kept.path)  # who puts it back knows
        try:
            entry = self._index.entry(kept.path)
            if isinstance(entry, Datafile | Other):
                handle = self._files.open(entry.info, os.O_WRONLY | (os.O_APPEND if kept.first else os.O_TRUNC))
            else:
                properties = ObjectProperties(row.get("custom", {}), row.get("fixed", {}))
                handle = self._files.create(kept.path, os.O_WRONLY, properties)
            try:
                offset = 0
                while data := source.read(offset, _PIECE_BYTES):
                    offset += handle.write(offset, data)
                if entry is not None and (change := changed_in(row)):
                    self._files.change_metadata(kept.path, change)
                handle.sync()
            finally:
                handle.close()
        finally:
            source.close()
        self._leftovers.discard(id)

    def discard(self, id: str) -> None:
        """Forget such content."""
        self._leftovers.discard(id)
