"""Folders over several datasets that vanish with the last dataset's folder in them.

`rm -r by-label/a` of a mounted manifest empties and removes the folder of each dataset, after which nothing has that
label, and then removes `a` itself. So `a` answers for a while, as an empty folder.
"""

import threading
from collections.abc import Callable

from cachetools import TTLCache

_SECONDS = 15.0
_MOST = 4096


class Vanishing:
    """Those folders of one mount, by their path. Any thread may call."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """`changed` is called where a name answers no more."""
        self._changed = changed
        self._lock = threading.Lock()
        self._paths: TTLCache[str, None] = TTLCache(_MOST, _SECONDS)

    def add(self, path: str) -> None:
        """Take note that the folder of a dataset was removed from a folder."""
        with self._lock:
            self._paths[path] = None

    def __contains__(self, path: str) -> bool:
        with self._lock:
            return path in self._paths

    def forget(self, path: str) -> None:
        """Take note that the folder itself was removed."""
        with self._lock:
            self._paths.pop(path, None)
        self._changed()

    def forget_all(self) -> None:
        """Let only what is there answer, as after a new mount."""
        with self._lock:
            self._paths.clear()
        self._changed()
