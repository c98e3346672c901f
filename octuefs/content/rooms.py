"""Where the bytes of a large object are kept while it is read: in the disk cache, or in memory where there is none.

What `objects.py` knows of either is its `Room`.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from octuefs.content.blockcache import FULL, BlockCache
from octuefs.content.parts import Part, memory_part
from octuefs.errors import LocalFailure, OctuefsError
from octuefs.stores.base import ObjectInfo

logger = logging.getLogger(__name__)

_LEAST_BYTES = 2 << 20
"""A cache that became smaller than this is none for large objects."""
_MOST_SHRINKS = 2
"""So many times an object has the cache made smaller."""


class Room(Protocol):
    """Where an object's bytes are kept. Any thread may call, and may have to wait for a disk, but for `in_memory`."""

    def open(self) -> Part:
        """Return what is at hand of the object, where more can be written."""
        ...

    def make(self, part: Part, count: int) -> bool:
        """Have room for so many more bytes of the part; False where there is none."""
        ...

    def give_back(self, part: Part, count: int) -> None:
        """Have so many bytes of the part count no more."""
        ...

    def relieve(self, part: Part, error: LocalFailure) -> bool:
        """Do something about a disk that does not take what is written; False where nothing helps."""
        ...

    def in_memory(self, size: int) -> Part:
        """Return a part for an object of this size that needs no disk."""
        ...

    def completed(self, part: Part, crc32c: int) -> bool:
        """Keep a part all of whose bytes are at hand, and proven; False where it is not kept for later."""
        ...


class MemoryRoom:
    """Room for an object in memory: a little, of what was read last."""

    def __init__(self, info: ObjectInfo, memory_each: Callable[[], int]) -> None:
        """`memory_each` returns how many bytes an object may have."""
        self._info = info
        self._memory_each = memory_each

    def open(self) -> Part:
        """See `Room`."""
        return self.in_memory(self._info.size)

    def make(self, part: Part, count: int) -> bool:
        """See `Room`: the more objects share the memory, the less each has."""
        return part.extents.total + count <= self._memory_each()

    def give_back(self, part: Part, count: int) -> None:
        """See `Room`."""

    def relieve(self, part: Part, error: LocalFailure) -> bool:
        """See `Room`: there is nothing to be done."""
        raise error

    def in_memory(self, size: int) -> Part:
        """See `Room`."""
        return memory_part(size, self._memory_each())

    def completed(self, part: Part, crc32c: int) -> bool:
        """See `Room`: it goes when nobody reads it any more."""
        return False


class DiskRoom(MemoryRoom):
    """Room for an object in the disk cache."""

    def __init__(
        self,
        cache: BlockCache,
        key: str,
        info: ObjectInfo,
        memory_each: Callable[[], int],
        left: "Future[None] | None" = None,
        kept: Callable[[], object] | None = None,
        pressed: Callable[[], object] | None = None,
    ) -> None:
        """`left` says when those who had it open before have given it up.

        `kept` is called once it is here whole, `pressed` where the cache has no room: others may be let go.
        """
        super().__init__(info, memory_each)
        self._cache = cache
        self._key = key
        self._left = left
        self._kept = kept
        self._pressed = pressed
        self._relieving = threading.Lock()  # held over the disk's work by who makes the cache smaller
        self._shrunk = 0

    def open(self) -> Part:
        """See `Room`: with what the cache has of the object."""
        if self._left is not None:
            self._left.result()
        if self._cache.limit < _LEAST_BYTES:
            return self.in_memory(self._info.size)
        try:
            return self._cache.part(self._key, self._info)
        except OctuefsError as error:
            logger.warning("%s cannot be kept in the cache: %s", self._info.path, error)
            return self.in_memory(self._info.size)

    def make(self, part: Part, count: int) -> bool:
        """See `Room`."""
        if part.path is None or self._cache.make_room(count, part):
            return True
        if self._pressed is not None:
            self._pressed()
        return False

    def give_back(self, part: Part, count: int) -> None:
        """See `Room`."""
        self._cache.give_back(part, count)

    def relieve(self, part: Part, error: LocalFailure) -> bool:
        """See `Room`: for a full disk the cache gets smaller; where that does not help, the object goes to memory."""
        seen = self._shrunk
        with self._relieving:
            if self._shrunk != seen:  # another thread did that meanwhile
                return True
            if error.errno not in FULL or self._shrunk == _MOST_SHRINKS:
                logger.warning("%s is not kept in the cache: %s", self._info.path, error)
                return False
            self._shrunk += 1
            self._cache.shrink()
        return True

    def completed(self, part: Part, crc32c: int) -> bool:
        """See `Room`."""
        kept = self._cache.finish(self._key, part, crc32c)
        if kept and self._kept is not None:
            self._kept()
        return kept
