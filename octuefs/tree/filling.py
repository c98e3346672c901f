"""Folders that a program has just made and is filling: their `.octue` does not answer until somebody looks.

`cp` makes each file in a folder that it made with O_EXCL. Where it comes to `.octue` last, the files that it made have
metadata already (a view's label, extended attributes, what a name had before), and `.octue` would be in its way. What
it then writes there is the whole of the folder's metadata.
"""

import threading
from collections.abc import Callable

from cachetools import TTLCache

from octuefs.tree.scope import Scope

_SECONDS = 10.0
"""How long a folder in which nothing is done counts as being filled: large files take a while to be stored."""
_MOST = 4096


class Filling:
    """Those folders of one mount. Any thread may call."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """`changed` is called where a name comes to answer."""
        self._changed = changed
        self._lock = threading.Lock()
        self._scopes: TTLCache[Scope, None] = TTLCache(_MOST, _SECONDS)

    def begin(self, scope: Scope) -> None:
        """Take note that a folder was made."""
        with self._lock:
            self._scopes[scope] = None

    def touch(self, scope: Scope) -> None:
        """Take note that a name was looked up in a folder."""
        if self._scopes:
            with self._lock:
                if scope in self._scopes:
                    self._scopes[scope] = None

    def end(self, scope: Scope) -> None:
        """Take note that a folder was listed, or its metadata written."""
        if self._scopes:
            with self._lock:
                if scope not in self._scopes:
                    return
                del self._scopes[scope]
            self._changed()

    def hides(self, scope: Scope) -> bool:
        """Say whether a folder's `.octue` is not to answer yet."""
        if not self._scopes:
            return False
        with self._lock:
            return scope in self._scopes
