"""Folders of views that show although no file is in them: made with mkdir, or left empty by what was moved away.

A view's folder exists because of the files in it. Programs make folders before they fill them, and empty them
before they remove them; so a mount remembers both until rmdir or a refresh.
"""

import threading
from collections.abc import Iterable, Iterator

from octuefs.dataset import Queries
from octuefs.entries import FolderGone
from octuefs.index import Index, Query
from octuefs.tree.queries import HasTag

_Place = tuple[Queries, str]
"""The conditions of a view, and a folder of the dataset."""


class Shown:
    """The remembered folders of one mount. Any thread may ask; `index.version` grows with each change.

    What is shown shows the folders above it, up to where its view begins.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._lock = threading.Lock()
        # Ordered and replaced as a whole, so that readers need no lock.
        self._places: frozenset[_Place] = frozenset()
        self._left: frozenset[_Place] = frozenset()
        self._made: frozenset[str] = frozenset()
        self._keys: frozenset[tuple[Queries, str, str]] = frozenset()

    def add(self, queries: Queries, folder: str, *, made: bool = False) -> None:
        """Show a folder; `made` says that it was made in the dataset for this."""
        with self._lock:
            changed = (queries, folder) not in self._places
            self._places |= {(queries, folder)}
            if made:
                self._made |= {folder}
        if changed:
            self._changed()

    def leave(self, queries: Queries, folder: str) -> None:
        """Show a folder that something was taken out of, be it the last that was in it or not."""
        with self._lock:
            self._left |= {(queries, folder)}
        self.add(queries, folder)

    def forget_document(self, queries: Queries, folder: str) -> None:
        """Take note that `.octue` was removed from a folder of a view."""
        with self._lock:
            self._left -= {(queries, folder)}
        self._changed()

    def remove(self, queries: Queries, folder: str) -> None:
        """Show a folder no more, nor what is below it and in further views."""
        with self._lock:
            self._made = frozenset(
                it for it in self._made if not folder or (it != folder and not _is_below(it, folder))
            )
            self._places = frozenset(it for it in self._places if not _is_within(it, queries, folder))
            self._left &= self._places
        self._changed()

    def move(self, queries: Queries, folder: str, new_queries: Queries, new_folder: str) -> None:
        """Show elsewhere what was shown in and below a folder and in further views of it."""
        with self._lock:
            moved = {it for it in self._places if _is_within(it, queries, folder)}
            self._places = (self._places - moved) | {
                (new_queries + its_queries[len(queries) :], new_folder + its_folder[len(folder) :])
                for its_queries, its_folder in moved
            }
            made = {it for it in self._made if it == folder or _is_below(it, folder)} if new_folder != folder else set()
            self._made = (self._made - made) | {new_folder + it[len(folder) :] for it in made}
            self._left &= self._places
        self._changed()

    def add_key(self, queries: Queries, folder: str, key: str) -> None:
        """Show the key of a tag in `by-tag` of a directory."""
        with self._lock:
            self._keys |= {(queries, folder, key)}
        self._changed()

    def remove_key(self, queries: Queries, folder: str, key: str) -> None:
        """Show it no more."""
        with self._lock:
            self._keys -= {(queries, folder, key)}
        self._changed()

    def forget(self) -> None:
        """Show only what files are in."""
        with self._lock:
            changed = bool(self._places or self._keys)
            self._places, self._left, self._made, self._keys = frozenset(), frozenset(), frozenset(), frozenset()
        if changed:
            self._changed()

    def _changed(self) -> None:
        # Drivers remember for a version where paths lead. This lets it grow, and changes nothing else.
        self._index.publish([FolderGone("")])

    # --- questions

    def _present(self, places: Iterable[_Place]) -> Iterator[_Place]:
        """Yield those whose folder is still in the dataset."""
        return (it for it in places if self._index.folder(it[1]) is not None)

    def shows(self, queries: Queries, folder: str) -> bool:
        """Say whether a folder shows, for itself or for one below it."""
        return any(self._present(it for it in self._places if _is_within(it, queries, folder)))

    def is_made(self, folder: str) -> bool:
        """Say whether a folder of the dataset was made through a view."""
        return folder in self._made

    def has_document(self, queries: Queries, folder: str) -> bool:
        """Say whether `.octue` may have gone from a folder of a view with the files that were taken out of it.

        It answers until it is removed, or `rm -r`, which has listed it before, would miss it.
        """
        return (queries, folder) in self._left

    def below(self, queries: Queries, folder: str) -> set[str]:
        """Return the names that show in a folder of a view."""
        skip = len(folder) + 1 if folder else 0
        return {
            its_folder[skip:].partition("/")[0]
            for its_queries, its_folder in self._present(self._places)
            if its_queries == queries and its_folder != folder and _is_below(its_folder, folder)
        }

    def further(self, queries: Queries, folder: str) -> list[Query]:
        """Return the conditions of the views that show in a directory of `queries`."""
        depth = len(queries)
        within = (it for it in self._places if len(it[0]) > depth and _is_within(it, queries, folder))
        return [its_queries[depth] for its_queries, _ in self._present(within)]

    def keys(self, queries: Queries, folder: str) -> set[str]:
        """Return the keys of tags that show in `by-tag` of a directory."""
        keys = {key for its_queries, its_folder, key in self._keys if (its_queries, its_folder) == (queries, folder)}
        return keys | {query.key for query in self.further(queries, folder) if isinstance(query, HasTag)}


def _is_below(path: str, folder: str) -> bool:
    return not folder or path.startswith(folder + "/")


def _is_within(place: _Place, queries: Queries, folder: str) -> bool:
    its_queries, its_folder = place
    return its_queries[: len(queries)] == queries and (its_folder == folder or _is_below(its_folder, folder))
