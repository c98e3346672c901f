"""The rows of datafiles by something of which mostly each has another: the hash of its bytes, the stored ID.

A million bitmaps of one row each would take half a gigabyte. So of those that came packed (`facts`) a sorted column is
made when it is first asked for, and only what has changed since stands for itself.
"""

import struct
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from pyroaring import BitMap

from octuefs.errors import BadValue
from octuefs.model.hashes import decode_crc32c, encode_crc32c

_WORD = struct.Struct("=I")


class HashRows:
    """The rows of each hash, read as a mapping. Used under the index's lock."""

    def __init__(self) -> None:
        self._own: dict[str, BitMap] = {}
        self._packed = BitMap()
        """The packed rows that count still."""
        self._column: array[int] | None = None
        self._gather: Callable[[], array[int]] = lambda: array("I")

    def load(self, count: int, gather: "Callable[[], array[int]]") -> None:
        """Begin with `count` packed rows; `gather` returns their hashes as numbers, in order."""
        self._packed = BitMap(range(count))
        self._gather = gather

    def add(self, value: str, row: int) -> None:
        """Let a row have a hash."""
        rows = self._own.get(value)
        if rows is None:
            rows = self._own[value] = BitMap()
        rows.add(row)

    def discard(self, value: str, row: int) -> None:
        """Let it have the hash no more."""
        if row in self._packed:
            self._packed.discard(row)
            return
        rows = self._own.get(value)
        if rows is not None:
            rows.discard(row)
            if not rows:
                del self._own[value]

    def get(self, value: str) -> BitMap:
        """Return the rows of a hash."""
        own = self._own.get(value, BitMap())
        return own | self._among_packed(value) if self._packed else own

    def __getitem__(self, value: str) -> BitMap:
        return self.get(value)

    def __contains__(self, value: str) -> bool:
        return bool(self.get(value))

    def __iter__(self) -> Iterator[str]:
        column = self._hashes()
        packed = {encode_crc32c(it) for it in {column[row] for row in self._packed}}
        return iter(self._own.keys() | packed)

    def items(self) -> Iterator[tuple[str, BitMap]]:
        """Yield each hash with its rows."""
        table = {value: rows.copy() for value, rows in self._own.items()}
        column = self._hashes()
        for row in self._packed:
            table.setdefault(encode_crc32c(column[row]), BitMap()).add(row)
        return iter(table.items())

    def _hashes(self) -> "array[int]":
        if self._column is None:
            self._column = self._gather()
        return self._column

    def _among_packed(self, value: str) -> BitMap:
        found = BitMap()
        try:
            word = _WORD.pack(decode_crc32c(value))
        except BadValue:
            return found
        data = self._hashes().tobytes()
        at = data.find(word)
        while at >= 0:
            if at % _WORD.size == 0 and at // _WORD.size in self._packed:
                found.add(at // _WORD.size)
            at = data.find(word, at + 1)
        return found


class StoredIds:
    """How many datafiles have an ID stored. Used under the index's lock."""

    def __init__(self) -> None:
        self._changes: Counter[str] = Counter()
        self._packed: array[int] | None = array("q")
        self._gather: Callable[[], Iterable[str]] = lambda: ()

    def load(self, gather: Callable[[], Iterable[str]]) -> None:
        """Begin with the IDs that `gather` returns, in any order, when they are first asked for."""
        self._packed = None
        self._gather = gather

    def add(self, stored_id: str) -> None:
        """Take note that one more has an ID."""
        self._change(stored_id, 1)

    def discard(self, stored_id: str) -> None:
        """Take note that one less has it."""
        self._change(stored_id, -1)

    def _change(self, stored_id: str, by: int) -> None:
        self._changes[stored_id] += by
        if not self._changes[stored_id]:
            del self._changes[stored_id]

    def count(self, stored_id: str) -> int:
        """Return how many have it."""
        packed = self._packed
        if packed is None:
            packed = self._packed = array("q", sorted(map(hash, self._gather())))
        wanted = hash(stored_id)
        return bisect_right(packed, wanted) - bisect_left(packed, wanted) + self._changes[stored_id]
