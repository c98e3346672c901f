"""Folders whose `.octue` does not answer for a while, though they have metadata, because a program is to write it.

`cp` makes each file in a folder that it made with O_EXCL. Where it comes to `.octue` last, the files that it made have
metadata already (a view's label, extended attributes, what a name had before), and `.octue` would be in its way. What
it then writes there is the whole of the folder's metadata. `tar x` removes a `.octue` that it finds, and makes it anew.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

from cachetools import TTLCache

from octuefs.model.paths import parent_of
from octuefs.tree.scope import Scope
from octuefs.writing.base import OpenFile

_SECONDS = 5.0
"""How long a folder in which nothing is made, and no new file is open, counts as being filled."""
_MOST = 4096


class Filling:
    """Those folders of one mount. Any thread may call.

    A folder is filled from `begin` on as long as new files in or below it are open, and for a moment after each that
    is made or closed; not beyond the moment that it is listed, or that its files or its metadata are described
    (`end`).
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        """`changed` is called where a name comes to answer, or answers no more."""
        self._changed = changed
        self._lock = threading.Lock()
        self._scopes: TTLCache[Scope, None] = TTLCache(_MOST, _SECONDS)
        self._open: dict[Scope, set[OpenFile]] = {}
        """The new files in and below such folders that are being written."""

    def begin(self, scope: Scope) -> None:
        """Take note that a folder was made, or its `.octue` removed though its files keep their metadata."""
        with self._lock:
            for above in _upwards(scope):
                if above in self._scopes:
                    self._scopes[above] = None
            self._scopes[scope] = None
        self._changed()

    def made(self, scope: Scope, file: OpenFile) -> None:
        """Take note that a file was made in a folder, and is open until it is closed."""
        if not self._scopes and not self._open:
            return
        with self._lock:
            filled = [it for it in _upwards(scope) if it in self._scopes or it in self._open]
            for it in filled:
                self._open.setdefault(it, set()).add(file)
        if filled:
            file.when_closed(lambda: self._closed(filled, file))

    def _closed(self, scopes: list[Scope], file: OpenFile) -> None:
        with self._lock:
            for scope in scopes:
                files = self._open.get(scope, set())
                if file in files:
                    files.remove(file)
                    self._scopes[scope] = None
                    if not files:
                        del self._open[scope]

    def described(self, scope: Scope) -> None:
        """Take note that a file of a folder was given metadata by name; copying programs do so while it is open."""
        if self._scopes and scope not in self._open:
            self.end(scope)

    def end(self, scope: Scope) -> None:
        """Take note that a folder was listed, or its metadata written."""
        if self._scopes or self._open:
            with self._lock:
                if scope not in self._scopes and scope not in self._open:
                    return
                self._scopes.pop(scope, None)
                self._open.pop(scope, None)
            self._changed()

    def hides(self, scope: Scope) -> bool:
        """Say whether a folder's `.octue` is not to answer yet."""
        if not self._scopes and not self._open:
            return False
        with self._lock:
            return scope in self._scopes or scope in self._open


def _upwards(scope: Scope) -> Iterator[Scope]:
    """Yield a folder and those above it, up to where its view begins."""
    yield scope
    while not scope.is_top and scope.folder:
        scope = replace(scope, folder=parent_of(scope.folder))
        yield scope
