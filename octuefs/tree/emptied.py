"""Real folders whose `.octue` has gone with the last file that it told of.

`rm -r` lists a folder, removes what it has listed, and fails where a name is gone by then. So a `.octue` that was
listed goes on to answer, as an empty file, to the program that is removing the folder's files.
"""

import threading
from collections.abc import Callable

from cachetools import LRUCache, TTLCache

from octuefs.tree.scope import Scope

_SECONDS = 15.0
"""How long after the last removal of a name."""
_MOST = 4096


class Emptied:
    """Those folders of one mount. Any thread may call."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """`changed` is called where a name answers no more."""
        self._changed = changed
        self._lock = threading.Lock()
        self._listed: LRUCache[Scope, None] = LRUCache(_MOST)
        self._emptied: TTLCache[Scope, None] = TTLCache(_MOST, _SECONDS)

    def listed(self, scope: Scope, *, document: bool) -> None:
        """Take note that a folder was listed, with a `.octue` or without."""
        with self._lock:
            was_listed = scope in self._listed
            self._emptied.pop(scope, None)
            if document:
                self._listed[scope] = None
            else:
                self._listed.pop(scope, None)
        if was_listed and not document:
            self._changed()

    def removed(self, scope: Scope, *, described: bool) -> None:
        """Take note that a file was removed from a folder, one with metadata or without."""
        with self._lock:
            if scope in self._emptied or (described and scope in self._listed):
                self._emptied[scope] = None

    def has_document(self, scope: Scope) -> bool:
        """Say whether the `.octue` of a folder without metadata is to answer."""
        if not self._emptied:
            return False
        with self._lock:
            return scope in self._emptied

    def forget(self, scope: Scope) -> None:
        """Take note that `.octue` was removed."""
        with self._lock:
            self._listed.pop(scope, None)
            was_emptied = scope in self._emptied
            self._emptied.pop(scope, None)
        if was_emptied:
            self._changed()

    def forget_all(self) -> None:
        """Let only what is there answer, as after a new mount."""
        with self._lock:
            any_emptied = bool(self._emptied)
            self._listed.clear()
            self._emptied.clear()
        if any_emptied:
            self._changed()
