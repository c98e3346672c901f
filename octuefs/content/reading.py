"""Reading the files of cloud stores as programs read files: many reads, of any size, from wherever the bytes are.

`dataset.py` and the writers open an object here, whose bytes come from the disk cache, from memory or from its store;
all datasets of a mount share one of these. What is here whole is a plain file that the kernel may read by itself; small
objects come whole (`small.py`), larger ones as far as they are read or about to be (`objects.py`).
"""

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from octuefs.content.blockcache import BlockCache
from octuefs.content.objects import CloudObject
from octuefs.content.parts import Part
from octuefs.content.prefetch import Prefetch
from octuefs.content.readers import CachedFile, ObjectReader, SmallReader
from octuefs.content.rooms import DiskRoom, MemoryRoom
from octuefs.content.small import SMALL_BYTES, SmallObjects
from octuefs.stores.base import ByteSource, ObjectInfo, StreamSource
from octuefs.stores.traffic import Traffic

_WORKERS = 16
"""Requests for what comes next in files that are open; those who wait for bytes ask for themselves."""
_LARGEST_PREFETCHED = 16 << 20
"""Files up to this size are fetched before they are opened, where a disk takes them."""
_REMEMBERED = 4096
"""So many files that were fetched ahead may still be opened; more count as fetched in vain."""
_MOST_RESTING = 32
"""So many objects that nobody has open are ready to be opened again."""
_FEWER = 4
"""So many of them are given up where the cache has no room for others."""
_PREFETCHED_SHARE = 16
"""A file that is fetched before it is opened takes at most one part in so many of the cache."""


@dataclass(slots=True)
class _Shared:
    """A large object, and how many handles have it open."""

    object: CloudObject
    users: int = 0
    left: "Future[None]" = field(default_factory=Future)
    """Done once it is given up."""


class Reading:
    """What the reading of cloud objects shares. Any thread may call."""

    def __init__(self, cache: BlockCache | None, traffic: Traffic, *, read_ahead: int, memory_limit: int) -> None:
        """:param cache: None where nothing is to be kept on a disk
        :param read_ahead: bytes to fetch ahead of each stream, at most
        :param memory_limit: bytes of the whole process; a part of them is for buffers here
        """
        self.cache = cache
        self.traffic = traffic
        self._read_ahead = read_ahead
        self.small = SmallObjects(cache, traffic, memory_limit // 8)
        self._memory = memory_limit // 4
        sparing = traffic.received_at_once is not None
        self.prefetch = Prefetch(self._is_worth_fetching, memory_limit // 8, sparing=sparing)
        self.workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="read-ahead")
        self._openings = itertools.count(1)
        self._lock = threading.Lock()  # guards all that follows, for memory work alone
        self._objects: dict[str, _Shared] = {}
        self._resting: OrderedDict[str, None] = OrderedDict()
        self._fetched: OrderedDict[str, int] = OrderedDict()
        """What was fetched before it was opened, with its size, and has not been opened yet."""
        self._leaving: dict[str, _Shared] = {}
        """Objects that are being given up."""
        traffic.gauge("memory_bytes", lambda: self.small.total_bytes)
        if cache is not None:
            traffic.gauge("cache_bytes", lambda: cache.total_bytes)
            traffic.gauge("cache_objects", lambda: cache.objects)

    def open(self, source: ByteSource, gone: Callable[[], object]) -> ByteSource:
        """Return what reads an open object; nothing is asked of its store, and it takes no time.

        What is no object of a cloud store is returned as it is. `gone` is called, before a read fails, where the object
        turns out to have been replaced or removed.
        """
        info = source.info()
        if not isinstance(source, StreamSource) or info is None or not info.size:
            return source
        key, cache = source.cache_key(), self.cache
        if key is None:  # nobody can say later that it is the same
            key, cache = f"opening {next(self._openings)}", None
        self._note_opened(key)
        if info.size <= SMALL_BYTES:
            return SmallReader(self.small, key, source, info, gone)
        if cache is not None and (file := cache.whole(key, info)) is not None:
            self.traffic.count("cache_hits")
            self.traffic.count("cache_hit_bytes", info.size)
            return CachedFile(file, source, info, lambda: self._opened(key, source, info, gone))
        return self._opened(key, source, info, gone)

    def _opened(self, key: str, source: StreamSource, info: ObjectInfo, gone: Callable[[], object]) -> ObjectReader:
        cache = self.cache if source.cache_key() is not None else None
        shared = self._taken(key, source, info, cache)
        return ObjectReader(shared.object, source, gone, self._read_ahead, partial(self.release, key, shared))

    def fetch_ahead(self, source: ByteSource) -> bool:
        """Have an object at hand, whole, for somebody who may open it soon; say whether its store was asked.

        :raise OctuefsError: where it cannot be had
        """
        info, cache = source.info(), self.cache
        key = source.cache_key() if isinstance(source, StreamSource) else None
        if not isinstance(source, StreamSource) or info is None or key is None:
            return False
        if cache is not None and cache.has(key):
            return False
        if info.size <= SMALL_BYTES:
            fetched = self.small.fetch_ahead(key, source, info)
        else:
            fetched = self._fetch_large(key, source, info)
        if fetched:
            self._note_fetched(key, info.size)
        return fetched

    def _note_fetched(self, key: str, size: int) -> None:
        self.traffic.count("prefetch_files")
        self.traffic.count("prefetch_bytes", size)
        with self._lock:
            self._fetched[key] = size
            unread = [self._fetched.popitem(last=False)[1]] if len(self._fetched) > _REMEMBERED else []
        for size in unread:
            self.traffic.count("prefetch_wasted_bytes", size)

    def _note_opened(self, key: str) -> None:
        if self._fetched:
            with self._lock:
                size = self._fetched.pop(key, 0)
            self.traffic.count("prefetch_used_bytes", size)

    def _fetch_large(self, key: str, source: StreamSource, info: ObjectInfo) -> bool:
        cache = self.cache
        if cache is None or info.size > cache.limit:
            return False
        shared = self._taken(key, source, info, cache)
        try:
            return shared.object.fetch_all()
        finally:
            self.release(key, shared)

    def fetch(self, source: ByteSource) -> str | None:
        """Have an object at hand, whole, and return its key in the disk cache; None where it is not to be there.

        :raise OctuefsError: where it cannot be had
        """
        info, cache = source.info(), self.cache
        key = source.cache_key() if isinstance(source, StreamSource) else None
        if not isinstance(source, StreamSource) or info is None or key is None or not info.size:
            return None
        if cache is not None and cache.has(key):
            return key
        if cache is None:
            return None
        if info.size <= SMALL_BYTES:
            self.small.get(key, source, info)
            return key
        return key if self._fetch_large(key, source, info) else None

    def pin(self, keys: Iterable[str], *, pinned: bool) -> None:
        """Keep objects that were fetched in the disk cache whatever comes, or no longer.

        :raise OctuefsError: where that cannot be written
        """
        if self.cache is not None:
            self.cache.pin(keys, pinned=pinned)

    def _is_worth_fetching(self, info: ObjectInfo) -> bool:
        if info.size <= SMALL_BYTES or self.cache is None:
            return 0 < info.size <= SMALL_BYTES
        return info.size <= min(_LARGEST_PREFETCHED, self.cache.limit // _PREFETCHED_SHARE)

    # --- large objects

    def _taken(self, key: str, source: StreamSource, info: ObjectInfo, cache: BlockCache | None) -> _Shared:
        with self._lock:
            shared = self._objects.get(key)
            if shared is None:
                leaving = self._leaving.get(key)
                room: DiskRoom | MemoryRoom
                if cache is not None:
                    left = leaving.left if leaving is not None else None
                    room = DiskRoom(
                        cache, key, info, self._memory_each, left, lambda: self._note_kept(key), self._rest_fewer
                    )
                else:
                    room = MemoryRoom(info, self._memory_each)
                found = CloudObject(source, info, room=room, workers=self.workers, traffic=self.traffic)
                shared = self._objects[key] = _Shared(found)
                self.traffic.count("cache_misses")
            shared.users += 1
            self._resting.pop(key, None)
        shared.object.wake()
        return shared

    def _memory_each(self) -> int:
        """Return how many bytes an object may have in memory that no disk takes."""
        return max(self._memory // max(1, len(self._objects)), 2 << 20)

    def release(self, key: str, shared: _Shared) -> None:
        """Take note that a handle was closed."""
        with self._lock:
            shared.users -= 1
            if shared.users:
                return
            shared.object.rest()
            self._resting[key] = None
            leaving = [key] if shared.object.is_kept or self.cache is None else []
            leaving += list(self._resting)[: max(0, len(self._resting) - _MOST_RESTING)]
        self._have_given_up(leaving)

    def _note_kept(self, key: str) -> None:
        """Give up an object that is whole in the disk cache by now, if nobody has it open."""
        self._have_given_up([key])

    def _rest_fewer(self) -> None:
        """Give up some objects that nobody has open, for the cache has no room: it can let go what they have."""
        with self._lock:
            oldest = [] if self._leaving else list(self._resting)[:_FEWER]
        self._have_given_up(oldest)

    def _have_given_up(self, keys: Iterable[str]) -> None:
        """Have those of some objects given up that nobody has open."""
        for key in keys:
            with self._lock:
                if key not in self._resting or key in self._leaving:
                    continue
                del self._resting[key]
                shared = self._objects.pop(key, None)
                if shared is None:  # the mount ended, which gave it up
                    continue
                self._leaving[key] = shared
            try:
                self.workers.submit(self._give_up, key, shared)
            except RuntimeError:  # the mount ends
                self._give_up(key, shared)

    def _give_up(self, key: str, shared: _Shared) -> None:
        try:
            self._keep(key, shared.object.close())
        finally:
            with self._lock:
                del self._leaving[key]
            shared.left.set_result(None)

    def _keep(self, key: str, part: Part | None) -> None:
        if part is None:
            return
        if self.cache is not None:
            self.cache.keep(key, part)
        else:
            part.close()

    def close(self) -> None:
        """Keep what is here for the next mount; nobody reads after this."""
        self.prefetch.close()
        with self._lock:
            objects, self._objects = self._objects, {}
            self._resting.clear()
        for shared in objects.values():
            shared.object.rest()
        self.workers.shutdown(wait=True)  # what is given up is to be kept; nothing more is fetched
        for key, shared in objects.items():
            self._keep(key, shared.object.close())
        self.traffic.count("prefetch_wasted_bytes", sum(self._fetched.values()))
        if self.cache is not None:
            self.cache.close()
