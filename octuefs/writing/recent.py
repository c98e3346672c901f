"""What a name's metadata was until a moment ago, for programs that save by making the name again.

An editor renames a file to its backup, or removes it, and writes a new one of that name: the new one is the same to
its user. Writers remember what leaves a name, and ask when a name is made.
"""

import threading
import time
from collections.abc import Callable

from cachetools import TTLCache

from octuefs.model.metadata import DatafileMetadata

REMEMBERED_SECONDS = 15.0
_REMEMBERED_NAMES = 65_536


class RecentNames:
    """The labels, tags and timestamp of names that were given up within the last 15 s. Any thread may call."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._names: TTLCache[str, DatafileMetadata] = TTLCache(_REMEMBERED_NAMES, REMEMBERED_SECONDS, timer)

    def remember(self, path: str, metadata: DatafileMetadata) -> None:
        """Take note of what a name had that was renamed away or removed; its ID is not another file's."""
        # A number that is stored for the timestamp stays the one that is written.
        unread = {key: value for key, value in metadata.unread.items() if key == "timestamp" and metadata.timestamp}
        kept = DatafileMetadata(timestamp=metadata.timestamp, tags=metadata.tags, labels=metadata.labels, unread=unread)
        with self._lock:
            self._names.pop(path, None)
            if kept != DatafileMetadata():
                self._names[path] = kept

    def take(self, path: str) -> DatafileMetadata | None:
        """Return what a name that is made anew had, once; None where it had nothing, or too long ago."""
        with self._lock:
            return self._names.pop(path, None)
