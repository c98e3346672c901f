"""Small objects: fetched whole, proven, and kept in memory as long as there is room, as well as in the disk cache.

A read asks for the bytes of one; prefetch has those of others fetched before they are asked for. Whoever comes while an
object is on its way waits for that.
"""

import threading
from concurrent.futures import Future

from cachetools import LRUCache

from octuefs.content.blockcache import BlockCache
from octuefs.errors import ChecksumMismatch, OctuefsError, StoreUnavailable, again
from octuefs.model.hashes import extend_crc32c
from octuefs.stores.base import ObjectInfo, StreamSource
from octuefs.stores.traffic import Traffic

SMALL_BYTES = 1 << 20
"""Objects up to this size are fetched in one piece."""


class SmallObjects:
    """The small objects of a mount. Any thread may call; no lock is held while one is fetched."""

    def __init__(self, cache: BlockCache | None, traffic: Traffic, most_bytes: int) -> None:
        """Hold `most_bytes` in memory at most."""
        self._cache = cache
        self._traffic = traffic
        self._lock = threading.Lock()  # guards all that follows
        self._held: LRUCache[str, bytes] = LRUCache(most_bytes, getsizeof=len)
        self._fetching: dict[str, tuple[bool, Future[bytes]]] = {}
        """Those that are on their way, and whether nobody had asked for them when that began."""

    @property
    def total_bytes(self) -> int:
        """How many bytes are in memory."""
        return int(self._held.currsize)

    def held(self, key: str) -> bytes | None:
        """Return the bytes of an object that are in memory."""
        with self._lock:
            found: bytes | None = self._held.get(key)
            return found

    def get(self, key: str, source: StreamSource, info: ObjectInfo) -> bytes:
        """Return the bytes of an object, from wherever they are.

        :raise Conflict: where they are nowhere, as the generation is gone
        :raise ChecksumMismatch: where bytes came that are not those the store promises
        """
        return self._get(key, source, info, ahead=False)

    def fetch_ahead(self, key: str, source: StreamSource, info: ObjectInfo) -> bool:
        """Have the bytes of an object in memory, for somebody who may ask for them soon; False where they are there."""
        with self._lock:
            if key in self._held or key in self._fetching:
                return False
        self._get(key, source, info, ahead=True)
        return True

    def _get(self, key: str, source: StreamSource, info: ObjectInfo, *, ahead: bool) -> bytes:
        with self._lock:
            data: bytes | None = self._held.get(key)
            if data is not None:
                return data
            under_way = self._fetching.get(key)
            if under_way is None:
                mine = Future[bytes]()
                self._fetching[key] = ahead, mine
        if under_way is not None:
            begun_ahead, future = under_way
            data = self._awaited(future, fails=ahead or not begun_ahead)
            return self._get(key, source, info, ahead=ahead) if data is None else data
        try:
            data = self._found(key, source, info, ahead=ahead)
        except BaseException as error:
            with self._lock:
                del self._fetching[key]
            mine.set_exception(error if isinstance(error, OctuefsError) else StoreUnavailable(f"{info.path}: {error}"))
            raise
        with self._lock:
            del self._fetching[key]
            if len(data) <= self._held.maxsize:
                self._held[key] = data
        mine.set_result(data)
        return data

    def _awaited(self, under_way: "Future[bytes]", *, fails: bool) -> bytes | None:
        """Return what another thread fetches; where it `fails` not, None says that it is to be asked for again."""
        try:
            return under_way.result()
        except OctuefsError as error:
            if fails:
                raise again(error) from error
            return None

    def _found(self, key: str, source: StreamSource, info: ObjectInfo, *, ahead: bool) -> bytes:
        cache = self._cache if source.cache_key() is not None else None  # or a later mount has other bytes of this key
        cached = cache.small(key, info) if cache is not None else None
        if cached is not None:
            self._traffic.count("cache_hits")
            self._traffic.count("cache_hit_bytes", len(cached))
            return cached
        data = b"".join(source.stream(0, info.size, background=ahead))
        crc32c = extend_crc32c(0, data)
        if info.crc32c not in (None, crc32c):
            raise ChecksumMismatch(f"{info.path}: the bytes that arrived do not have the object's checksum")
        if not ahead:
            self._traffic.count("cache_misses")
        if cache is not None:
            cache.store(key, data, crc32c)
        return data
