"""One version of a file's content on its way to the bucket: the staged bytes, and what the journal calls them.

A content is written to as long as it is open. Once it is *frozen* (closed or synced, until the bucket has it) nobody
changes it any more: who writes on writes to a copy. So an upload never sees bytes change under it, and what was
closed is whole on the disk until it is stored.
"""

import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from octuefs.content.staging import StagedFile
from octuefs.errors import OctuefsError
from octuefs.model.hashes import combine_crc32c, extend_crc32c
from octuefs.stores.base import ObjectInfo
from octuefs.stores.writing import Body

_PIECE_BYTES = 4 << 20
_SMALL_BYTES = 32 << 10


class Sending(Protocol):
    """An upload that goes on while the content is being written (`streams.py`)."""

    def grown(self) -> None:
        """Send more where enough has been written."""
        ...

    def is_valid(self) -> bool:
        """Say whether what was sent is still what stands in the file."""
        ...

    def abandon(self) -> None:
        """Give it up."""
        ...

    def finish(self) -> tuple[str, int] | None:
        """End sending and return the session and how far it is; None where there is nothing to go on with.

        :raise OctuefsError: where there is nothing, and to begin now would be in vain
        """
        ...


class Content:
    """A version of the content of one file.

    Where it is appended to a large object only what comes after that is staged: from `first` on, the bytes before it
    having the checksum `crc32c_before`.
    """

    def __init__(self, folder: Path, *, first: int = 0, crc32c_before: int = 0, id: str | None = None) -> None:
        """Stage in `folder`; with `id` what is there of that name.

        :raise LocalFailure: where the disk is full or fails; NotFound where there is nothing of that name
        """
        self.id = id or uuid.uuid4().hex
        self.staged = StagedFile(folder / self.id, first=first, existing=id is not None)
        self.crc32c_before = crc32c_before
        self.when = time.time()
        self.number = time.time_ns()
        """Orders the contents of one file, over the daemons that had it."""
        self.frozen = False
        self.persistent = False
        """True where an upload that fails for the moment is tried again, and again: what was closed by --write-back."""
        self.noted_at: int | None = None
        """The position in the journal of its first row, as long as that may not be committed yet."""
        self.in_journal = False
        """True where its row holds the bytes too."""
        self.stream: Sending | None = None
        self.may_stream = True
        self.session: str | None = None
        """The URI of its resumable upload, for the journal."""
        self.sent = 0
        """How many bytes are on their way or there, for those who watch."""

    @property
    def first(self) -> int:
        """The offset of the first byte that is staged."""
        return self.staged.first

    @property
    def size(self) -> int:
        """The length of the file."""
        return self.staged.size

    @property
    def is_small(self) -> bool:
        """True where its row may hold the bytes."""
        return not self.first and self.size <= _SMALL_BYTES

    def crc32c(self) -> int:
        """Return the checksum of the whole file; reads the staged bytes where they were not written in order."""
        known = self.staged.crc32c
        crc32c = self.staged.compute_crc32c() if known is None else known
        first = self.first
        return combine_crc32c(self.crc32c_before, crc32c, self.size - first) if first else crc32c

    def continues(self, base: ObjectInfo) -> bool:
        """Say whether the file begins with the bytes of an object, so that the rest can be appended to that."""
        first = self.first
        if not first or base.crc32c is None or not first <= base.size < self.size:
            return False
        beginning = checksum(self.staged.body(), first, base.size)
        return combine_crc32c(self.crc32c_before, beginning, base.size - first) == base.crc32c

    def copy(self, folder: Path) -> "Content":
        """Return another content with the same bytes, to be written to."""
        copy = Content(folder, first=self.first, crc32c_before=self.crc32c_before)
        try:
            if copy.first:
                start = copy.first
                while start < self.size:
                    start += copy.staged.write(start, self.staged.read(start, _PIECE_BYTES))
            else:
                copy.staged.materialise(self.staged.read, self.size)
        except BaseException:
            copy.forget()
            raise
        return copy

    def bring_in(self, read: Callable[[int, int], bytes]) -> None:
        """Stage the bytes before `first` too."""
        self.staged.materialise(read, self.first, crc32c=self.crc32c_before)

    def forget(self) -> None:
        """Remove the staged bytes; reads under way end well."""
        with suppress(OctuefsError):  # the next mount removes what the disk will not
            self.staged.unlink()
        self.staged.close()


def checksum(body: Body, start: int, end: int) -> int:
    """Return the checksum of bytes `start` to `end`."""
    crc32c = 0
    while start < end and (data := body(start, min(_PIECE_BYTES, end - start))):
        crc32c = extend_crc32c(crc32c, data)
        start += len(data)
    return crc32c
