"""The bytes of one object that are at hand, in a local file: which of them, with the checksum of each piece.

An object's reader writes what it receives to its part, at the same offsets, and reads from there. What a part kept from
an earlier time counts only once it is proven, piece by piece. A part without a name in the cache folder is one in
memory, or one that somebody else has: it serves its readers and is gone with them.

Not thread-safe but for `read`, `read_now`, `write`, `prove` and `checksum`, which touch the file alone.
"""

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from octuefs.content.extents import Extents
from octuefs.errors import LocalFailure, OctuefsError
from octuefs.model.hashes import combine_crc32c, extend_crc32c
from octuefs.stores.descriptor import Descriptor

_BLOCK_BYTES = 1 << 20
_PUNCH_HOLE = 0x02 | 0x01
"""FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE (linux/falloc.h)."""

Pieces = dict[int, tuple[int, int]]
"""By its offset the end of each piece, and its checksum."""
Stamp = tuple[int, int]
"""What changes where somebody writes to a file, or cuts it: its size and the time of its last change."""


class Part:
    """A local file with some of an object's bytes."""

    def __init__(self, file: Descriptor, size: int, *, allowance: int, path: Path | None = None) -> None:
        """:param size: of the object, in bytes
        :param allowance: how many of them may be at hand at a time
        :param path: its name in the cache folder, None where it has none
        """
        self.file = file
        self.size = size
        self.allowance = allowance
        self.path = path
        self.extents = Extents()
        self.pieces: Pieces = {}
        """What is at hand, in the order in which it came."""
        self.kept: Pieces = {}
        """What is there from an earlier time, and not proven yet."""
        self.discards = 0
        """Grows before bytes at hand are let go of."""
        self.counted = 0
        """How many bytes the cache counts for it, while it grows; the cache's to change."""
        self.stamp: Stamp | None = None
        """How the file is to be found as long as nobody else touches it; None while it is still written."""

    # --- bytes

    def read(self, offset: int, size: int) -> bytes:
        """Return the bytes at `offset`; they count if they are at hand and `discards` is the same before and after."""
        return self.file.read(offset, size)

    def read_now(self, offset: int, room: memoryview) -> int | None:
        """Do the same without waiting for the disk, into `room`; None where that cannot be."""
        return self.file.read_now(offset, room)

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes that came.

        :raise OctuefsError: where the disk does not take them, or somebody else cut the file: it would get holes
        """
        least = self.extents.end  # before the size: what others write meanwhile makes both grow
        with self.file.lend() as fd:
            size = os.fstat(fd).st_size
        if size < least:
            raise LocalFailure(f"{self.path or 'what is read of an object'}: somebody cut the file short")
        self.file.write(offset, data)

    def is_intact(self) -> bool:
        """Say whether a file that is written no more is as it was proven: bytes that were read before count only then.

        :raise OctuefsError: where it cannot be looked at
        """
        return self.stamp is None or self.stamp == stamp_of(self.file)

    def close_piece(self, start: int, end: int, crc32c: int) -> None:
        """Take note of the checksum of bytes that came one after the other."""
        if start < end:
            self.pieces[start] = (end, crc32c)

    # --- what is there from an earlier time

    def restore(self, pieces: Mapping[int, tuple[int, int]]) -> None:
        """Have pieces of an earlier time, which are to be proven."""
        self.kept = dict(pieces)

    def kept_in(self, start: int, end: int) -> list[int]:
        """Return the offsets of kept pieces with bytes between `start` and `end`."""
        return [it for it, (stop, _) in self.kept.items() if it < end and start < stop] if self.kept else []

    def prove(self, start: int, end: int, crc32c: int) -> bool:
        """Read a piece and say whether it has its checksum."""
        return self.checksum(start, end) == crc32c

    def checksum(self, start: int, end: int) -> int | None:
        """Read a piece and return its checksum, None where it cannot be read."""
        found, offset = 0, start
        try:
            while offset < end and (data := self.file.read(offset, min(_BLOCK_BYTES, end - offset))):
                found = extend_crc32c(found, data)
                offset += len(data)
        except OctuefsError:
            return None
        return found if offset == end else None

    # --- all of them, and fewer

    @property
    def is_complete(self) -> bool:
        """True where all bytes are at hand."""
        return self.extents.total == self.size

    def crc32c(self) -> int | None:
        """Return the checksum of the whole, None where it does not follow from those of the pieces."""
        total = at = 0
        for start, (end, crc32c) in sorted(self.pieces.items()):
            if start != at:
                return None
            total = combine_crc32c(total, crc32c, end - start)
            at = end
        return total if at == self.size else None

    def discard_oldest(self, wanted: int) -> int:
        """Let go of the pieces that came first, of `wanted` bytes or more; return of how many.

        The disk has their room again where it knows holes.
        """
        freed = 0
        self.discards += 1
        for start, (end, _) in list(self.pieces.items()):
            if freed >= wanted:
                break
            del self.pieces[start]
            self.extents.remove(start, end)
            self.punch(start, end)
            freed += end - start
        return freed

    def discard_all(self) -> int:
        """Let go of everything; return of how many bytes."""
        freed = self.extents.total + sum(end - start for start, (end, _) in self.kept.items())
        self.discards += 1
        self.extents = Extents()
        self.pieces, self.kept = {}, {}
        self.punch(0, self.size)
        return freed

    def punch(self, start: int, end: int) -> None:
        """Give the room of bytes back to the disk, where it can."""
        try:
            self.file.allocate(_PUNCH_HOLE, start, end - start)
        except OctuefsError:
            return

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def remove(self) -> None:
        """Close the file, and have none of that name any more."""
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
        self.close()


def memory_part(size: int, allowance: int) -> Part:
    """Return a part in memory, or on a disk without a name where the system has no such files."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("octuefs", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile(prefix="octuefs-") as file:
            fd = os.dup(file.fileno())
    memory = Descriptor(fd, "what is read of an object", in_memory=hasattr(os, "memfd_create"))
    return Part(memory, size, allowance=allowance)


def stamp_of(file: Descriptor) -> Stamp:
    """Return the stamp of a file as it is now.

    :raise OctuefsError: where it cannot be looked at
    """
    with file.lend() as fd:
        facts = os.fstat(fd)
    return facts.st_size, facts.st_mtime_ns
