"""How a file is being read, and what is worth fetching of it: the pure part of reading ahead.

`Streams` belongs to one open handle and tells reading in order from reading here and there. `Bargain` belongs to one
object and says when so many single pieces of it were asked for that the rest is worth having.
"""

from dataclasses import dataclass

_MOST_STREAMS = 8
_OUT_OF_ORDER_BYTES = 256 << 10
"""The kernel asks for neighbouring pieces from several threads, so they come out of order by so much at least."""
_AHEAD = 4
"""So many times what was read in order is fetched ahead."""

_FREE_MISSES = 4
"""So many pieces are single ones, whatever comes."""
_MISSES_A_SIZE = 8
SMALLEST_PIECE_BYTES = 4 << 10
_LARGEST_PIECE_BYTES = 256 << 10
_FAR_SECONDS = 0.005
"""A store that takes longer for a piece is asked for several at a time, to hide that; a near one for few, as each of
them takes from those who wait."""
_FAR_AT_ONCE, _NEAR_AT_ONCE = 8, 2


@dataclass(slots=True)
class _Stream:
    """Bytes that are read in order: up to `next`, `length` of them."""

    next: int
    length: int


class Streams:
    """The streams in which one handle reads its file. Not thread-safe."""

    def __init__(self, most_ahead: int) -> None:
        """At most `most_ahead` bytes are worth fetching ahead of each."""
        self._most_ahead = most_ahead
        self._streams: list[_Stream] = []
        """The one that was read last comes last."""

    def note(self, offset: int, size: int) -> int | None:
        """Take note that `size` bytes are read at `offset`; return how many after them are worth having soon.

        None where they continue nothing: a first read, or one of many here and there.
        """
        near = max(2 * size, _OUT_OF_ORDER_BYTES)
        for stream in reversed(self._streams):
            if abs(offset - stream.next) <= near:
                self._streams.remove(stream)
                self._streams.append(stream)
                stream.next = max(stream.next, offset + size)
                stream.length += size
                return min(_AHEAD * stream.length, self._most_ahead)
        self._streams.append(_Stream(offset + size, size))
        del self._streams[:-_MOST_STREAMS]
        return None


class Bargain:
    """Whether to rent or to buy: to fetch single pieces of an object, or all of it. Not thread-safe.

    Whoever knows nothing of what comes does no worse than twice the best by spending on the whole, in the background,
    as much time as was spent on waiting for single pieces.
    """

    def __init__(self) -> None:
        self._misses = 0
        self._rented = 0.0
        self._bought = 0.0

    def piece_bytes(self) -> int:
        """Return how large the next single piece should be, where less is asked for."""
        return min(SMALLEST_PIECE_BYTES << (self._misses // _MISSES_A_SIZE), _LARGEST_PIECE_BYTES)

    def missed(self, seconds: float) -> None:
        """Take note that a single piece was waited for."""
        self._misses += 1
        self._rented += seconds

    def bought(self, seconds: float) -> None:
        """Take note of time that was spent on the whole."""
        self._bought += seconds

    @property
    def at_once(self) -> int:
        """How many requests for the whole may be under way at a time."""
        return _FAR_AT_ONCE if self._rented > _FAR_SECONDS * self._misses else _NEAR_AT_ONCE

    @property
    def buys(self) -> bool:
        """True where more of the whole is worth having."""
        return self._misses > _FREE_MISSES and self._bought < self._rented
