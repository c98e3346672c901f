"""Reading an object of a cloud store as programs read files: many small reads, mostly in order.

One reader stands between each open handle and its `ByteSource`. A small object is fetched whole and its
checksum proven; a larger one is fetched in pieces that grow while it is read in order, and exactly as asked
where it is not. The kernel asks for neighbouring pieces from several threads at once; those whose bytes are
on their way already wait for them.
"""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future

from octuefs.errors import ChecksumMismatch, Conflict, NotFound
from octuefs.model.hashes import extend_crc32c
from octuefs.stores.base import ByteSource, ObjectInfo

WHOLE_BYTES = 1 << 20
"""Objects up to this size are fetched in one piece and proven."""
FIRST_PIECE_BYTES = 512 << 10
LARGEST_PIECE_BYTES = 8 << 20


class _Piece:
    """Bytes `start` to `stop` of the object, there or on their way."""

    def __init__(self, start: int, stop: int) -> None:
        self.start = start
        self.stop = stop
        self.unread = stop - start
        self.bytes: Future[bytes] = Future()


class SequentialReader:
    """A `ByteSource` over another one that keeps the latest piece in memory until the object's end is read."""

    def __init__(self, source: ByteSource, info: ObjectInfo, gone: Callable[[], object]) -> None:
        """`gone` is called, before the read fails, where the object turns out to have been replaced or removed."""
        self._source = source
        self._info = info
        self._gone = gone
        self._lock = threading.Lock()
        self._piece = _Piece(0, 0)
        self._next_bytes = FIRST_PIECE_BYTES

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only at the end of the object.

        :raise Conflict: where the generation that was opened is gone
        :raise ChecksumMismatch: where bytes arrived that are not those the store promises
        """
        end = min(offset + size, self._info.size)
        parts = []
        while offset < end:
            with self._lock:
                piece = self._piece
                mine = not piece.start <= offset < piece.stop
                if mine:
                    piece = self._piece = self._plan(offset, end)
            if mine:
                self._fetch(piece)
            stop = min(end, piece.stop)
            parts.append(piece.bytes.result()[offset - piece.start : stop - piece.start])
            self._let_go(piece, stop - offset)
            offset = stop
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _let_go(self, piece: _Piece, size: int) -> None:
        """Count bytes as read; the last piece of a large object is given up once all of it was."""
        with self._lock:
            piece.unread -= size
            if piece.unread <= 0 and piece.stop == self._info.size > WHOLE_BYTES and self._piece is piece:
                self._piece = _Piece(0, 0)

    def _plan(self, offset: int, end: int) -> _Piece:
        """Choose the piece to fetch for bytes from `offset` to `end`, given where the last one ended."""
        if self._info.size <= WHOLE_BYTES:
            return _Piece(0, self._info.size)
        if offset in (0, self._piece.stop):
            wanted = max(self._next_bytes, end - offset)
            self._next_bytes = min(2 * self._next_bytes, LARGEST_PIECE_BYTES)
        else:
            wanted = end - offset
            self._next_bytes = FIRST_PIECE_BYTES
        return _Piece(offset, min(offset + wanted, self._info.size))

    def _fetch(self, piece: _Piece) -> None:
        try:
            data = self._source.read(piece.start, piece.stop - piece.start)
            self._prove(piece, data)
        except BaseException as error:
            with self._lock:
                if self._piece is piece:
                    self._piece = _Piece(0, 0)
            try:
                if isinstance(error, Conflict | NotFound):
                    self._gone()
            finally:
                piece.bytes.set_exception(error)
        else:
            piece.bytes.set_result(data)

    def _prove(self, piece: _Piece, data: bytes) -> None:
        whole = piece.start == 0 and piece.stop == self._info.size
        if whole and self._info.crc32c is not None and extend_crc32c(0, data) != self._info.crc32c:
            raise ChecksumMismatch(f"{self._info.path}: the bytes that arrived do not have the object's checksum")

    def version(self) -> Hashable:
        """Return the version that was opened."""
        return self._source.version()

    def identity(self) -> Hashable:
        """Return the same: what was opened never changes."""
        return self._source.identity()

    def info(self) -> ObjectInfo:
        """Describe the version that was opened."""
        return self._info

    def close(self) -> None:
        """Give back what the source holds."""
        self._piece = _Piece(0, 0)
        self._source.close()
