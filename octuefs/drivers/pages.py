"""What the kernel's page cache may be left with, for a driver that names files by path.

To libfuse 2 a path is one file for as long as anybody holds it, so all handles of a path share one page cache,
whatever stands there. The driver asks at each open; any thread may call.
"""

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from cachetools import LRUCache


@dataclass(frozen=True, slots=True)
class Caching:
    """How a handle uses the page cache: `keep` the pages that are there, or go past it (`direct`)."""

    keep: bool
    direct: bool


class PageCaches:
    """Whose bytes each path's pages hold, and which handles fill them."""

    def __init__(self, size: int, version_of: Callable[[int], Hashable]) -> None:
        """`version_of` tells the version of an open handle as it stands now; `size` bounds the paths remembered."""
        self._version_of = version_of
        self._lock = threading.Lock()
        self._held: LRUCache[str, Hashable] = LRUCache(size)
        self._paths: dict[int, str] = {}
        self._handles: dict[str, set[int]] = {}

    def opened(self, path: str, handle: int) -> Caching:
        """Say how a handle just opened uses the pages of its path.

        While a handle of what stood there before is open, its pages are the old ones: the new handle goes past them.
        """
        with self._lock:
            version = self._version_of(handle)
            handles = self._handles.setdefault(path, set())
            replaced = any(self._version_of(other) != version for other in handles)
            keep = not replaced and self._held.get(path) == version
            self._held[path] = None if replaced else version
            handles.add(handle)
            self._paths[handle] = path
        return Caching(keep, direct=replaced)

    def released(self, handle: int) -> None:
        """Forget a handle, before it is closed."""
        with self._lock:
            path = self._paths.pop(handle, None)
            if path is None:
                return
            handles = self._handles[path]
            handles.discard(handle)
            if not handles:
                del self._handles[path]
