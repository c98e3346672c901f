"""What the kernel's page cache may be left with, for a driver that names files by path.

To libfuse 2 a path is one file for as long as anybody holds it, so all handles of a path share one page cache,
whatever stands there; and a file with two paths (a view's, a hard link's) has two page caches, and two sizes that the
kernel believes for a moment. The driver asks at each open; any thread may call.
"""

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from cachetools import LRUCache

_BELIEVED_SECONDS = 1.0
"""How long after a write by another path a file is read past the page cache: longer than the kernel believes a size."""
_WRITTEN = 4096


@dataclass(frozen=True, slots=True)
class Caching:
    """How a handle uses the page cache: `keep` the pages that are there, or go past it (`direct`)."""

    keep: bool
    direct: bool


class PageCaches:
    """Whose bytes each path's pages hold, and which handles fill them."""

    def __init__(
        self, size: int, version_of: Callable[[int], Hashable], identity_of: Callable[[int], Hashable]
    ) -> None:
        """`version_of` and `identity_of` tell of an open handle as it is now; `size` bounds the paths remembered."""
        self._version_of = version_of
        self._identity_of = identity_of
        self._lock = threading.Lock()
        self._held: LRUCache[str, Hashable] = LRUCache(size)
        self._paths: dict[int, str] = {}
        self._handles: dict[str, set[int]] = {}
        self._inodes: dict[int, int] = {}
        self._written: dict[int, tuple[str, float]] = {}
        """The path by which a file was written, and until when that counts."""

    def opened(self, path: str, handle: int, *, inode: int, names: int, apart: bool = False) -> Caching:
        """Say how a handle just opened uses the pages of its path; `names` is how many hard links its inode has.

        `apart` says that it is to go past them.

        While a handle of what stood there before is open, its pages are the old ones: the new handle goes past them.
        So does one of a file that is written, or was just now, by another path.
        """
        with self._lock:
            self._inodes[handle] = inode
            if apart or names > 1 or self._written_by(inode, path) != path:
                self._held.pop(path, None)
                self._paths[handle] = path
                return Caching(keep=False, direct=True)
            version = self._version_of(handle)
            handles = self._handles.setdefault(path, set())
            replaced = bool(handles) and self._is_replaced(handle, handles)
            keep = not replaced and self._held.get(path) == version
            self._held[path] = None if replaced else version
            handles.add(handle)
            self._paths[handle] = path
        return Caching(keep, direct=replaced)

    def _is_replaced(self, handle: int, handles: set[int]) -> bool:
        identity = self._identity_of(handle)
        return any(self._identity_of(other) != identity for other in handles)

    def has(self, handle: int) -> bool:
        """Say whether a handle has a part in the pages of its path."""
        with self._lock:
            return handle in self._handles.get(self._paths.get(handle, ""), ())

    def moved(self, path: str, to: str | None) -> None:
        """Take note that a file or folder has another path now, or none: libfuse's own table moves likewise."""
        below = path + "/"
        with self._lock:
            for old in [known for known in self._handles if known == path or known.startswith(below)]:
                handles = self._handles.pop(old)
                for handle in handles:
                    if to is None:
                        self._paths.pop(handle, None)
                    else:
                        self._paths[handle] = to + old[len(path) :]
                if to is not None:
                    self._handles[to + old[len(path) :]] = handles

    def written(self, handle: int) -> None:
        """Take note that a file was written through this handle."""
        with self._lock:
            if (path := self._paths.get(handle)) is None:
                return
            inode = self._inodes[handle]
            self._written.pop(inode, None)  # so that the first is the oldest
            self._written[inode] = (path, time.monotonic() + _BELIEVED_SECONDS)
            if len(self._written) > _WRITTEN:
                del self._written[next(iter(self._written))]

    def _written_by(self, inode: int, otherwise: str) -> str:
        """Return the path by which a file was written of late, `otherwise` where it was not."""
        path, until = self._written.get(inode, (otherwise, 0.0))
        return path if until > time.monotonic() else otherwise

    def released(self, handle: int) -> None:
        """Forget a handle, before it is closed."""
        with self._lock:
            self._inodes.pop(handle, None)
            path = self._paths.pop(handle, None)
            handles = self._handles.get(path) if path is not None else None
            if path is None or handles is None:
                return
            handles.discard(handle)
            if not handles:
                del self._handles[path]
