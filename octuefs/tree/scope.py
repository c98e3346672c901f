"""A scope: which datafiles a directory shows, and under which names.

Every directory of a mounted dataset, real or a view, is a scope: a folder of the dataset, the queries of the
views on the way to it, and perhaps an order. Views narrow scopes; real folder names move down in them.
"""

import os
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pyroaring import BitMap

from octuefs.datafile import Datafile
from octuefs.dataset import Dataset, Queries
from octuefs.entries import Folder, Other
from octuefs.index import Query, has_rows_beneath
from octuefs.model.ordering import Ordering
from octuefs.model.paths import join, name_of, parent_of, path_bytes
from octuefs.stores.base import ObjectInfo

_LEAST_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Scope:
    """`folder` is where the directory is in the dataset; `origin` where its innermost view began.

    `queries` are those of the views so far, and `order` is that of the last `order-by`, which makes the
    scope flat.
    """

    dataset: Dataset
    folder: str = ""
    origin: str = ""
    queries: Queries = ()
    order: Ordering | None = None

    @property
    def is_view(self) -> bool:
        """False for the dataset's own folders."""
        return bool(self.queries) or self.order is not None

    @property
    def is_top(self) -> bool:
        """True for the dataset's root and where a view begins."""
        return self.folder == self.origin

    def down(self, name: str) -> "Scope":
        """Return the scope of a folder in this one."""
        return replace(self, folder=join(self.folder, name))

    @property
    def needs_hashes(self) -> bool:
        """True where a query or the order asks for the hashes of content."""
        by_hash = self.order is not None and self.order.attribute == "hash_value"
        return by_hash or any(query.needs_hashes for query in self.queries)

    def narrow(self, query: Query) -> "Scope":
        """Return the view of what satisfies one more query."""
        return replace(self, origin=self.folder, queries=(*self.queries, query))

    def ordered(self, order: Ordering) -> "Scope":
        """Return the flat view in an order; it replaces one that was there."""
        return replace(self, origin=self.folder, order=order)

    def contains(self, path: str) -> bool:
        """Say whether a path of the dataset lies below this directory's folder."""
        return not self.folder or path.startswith(self.folder + "/")

    def settle(self) -> None:
        """See to it that hashes which the queries ask for are known, before they are asked.

        :raise OctuefsError: where a file cannot be read
        """
        if self.needs_hashes and self.dataset.index.unhashed:
            self.dataset.hashed_members(self.origin, ())

    def members(self) -> list[Datafile]:
        """Return the datafiles in and below this directory."""
        self.settle()
        return self.dataset.index.members(self.folder, self.queries)

    def hashed_members(self) -> list[Datafile]:
        """Return them with their hashes known.

        :raise OctuefsError: where one cannot be read
        """
        return self.dataset.hashed_members(self.folder, self.queries)

    def set_hash(self) -> str:
        """Return the hash of the set of datafiles in and below this directory."""
        self.settle()
        return self.dataset.set_hash(self.folder, self.queries)

    def children(self) -> dict[str, Datafile | None]:
        """Return the names of a view's directory; None stands for a folder. (Not for real folders.)"""
        self.settle()
        return self.settled_children()

    def settled_children(self) -> dict[str, Datafile | None]:
        """Return the same after `settle`; memory work alone, so it may be asked under the index's lock."""
        if self.order is not None:
            return self._numbered(self.order)
        return self.dataset.index.subset_children(self.origin, self.queries, self.folder)

    def child(self, name: str) -> Datafile | Folder | None:
        """Return what one name of a view's directory stands for: a member, or a folder that leads to one.

        It costs no more than the folder is large, where `children` costs what the view is.
        """
        self.settle()
        index = self.dataset.index
        if self.order is not None:
            return self.children().get(name)
        with index.lock:
            entry = index.entry(join(self.folder, name))
            if isinstance(entry, Datafile):
                rows = BitMap([entry.row])
                for query in self.queries:
                    rows = query.select(index, rows)
                return entry if rows else None
            if isinstance(entry, Folder):
                return entry if has_rows_beneath(entry, index.select(self.origin, self.queries)) else None
        return None

    def is_known(self, name: str) -> bool:
        """Say whether `child(name)` takes no long computing, for it is known already what the view shows."""
        index = self.dataset.index
        if self.needs_hashes and index.unhashed:
            return False
        if self.order is not None:
            return index.is_cached(self._key_of_order(self.order), hashed=self.needs_hashes)
        is_folder = isinstance(index.entry(join(self.folder, name)), Folder)
        return not is_folder or index.is_selected(self.origin, self.queries)

    def _key_of_order(self, order: Ordering) -> Hashable:
        return ("order", self.folder, self.queries, order)

    def _numbered(self, order: Ordering) -> dict[str, Datafile | None]:
        """Return the datafiles of a flat view by their numbered names, in order."""
        index = self.dataset.index

        def compute() -> dict[str, Datafile | None]:
            members = index.members(self.folder, self.queries)
            ordered = order.sort(members, lambda datafile: path_bytes(datafile.path))
            return dict(zip(numbered_names(ordered), ordered, strict=True))

        return index.cached(self._key_of_order(order), compute, hashed=self.needs_hashes)

    def shown_paths(self) -> Iterable[tuple[str, Datafile]]:
        """Yield (path relative to this directory, datafile) for each datafile in and below it."""
        if self.order is not None:
            for name, datafile in self.children().items():
                if datafile is not None:
                    yield name, datafile
            return
        skip = len(self.folder) + 1 if self.folder else 0
        for datafile in self.members():
            yield datafile.path[skip:], datafile

    @property
    def whole_key(self) -> Hashable:
        """What this directory and all others of its view, or of the dataset, have in common."""
        return self.origin, self.queries, self.order

    def after(self, info: ObjectInfo) -> Iterator[ObjectInfo]:
        """Yield the datafiles after one, in the order of listings, on into the folders that follow in the view."""
        if self.order is not None:
            shown = iter(self.children().values())
            for datafile in shown:
                if datafile is not None and datafile.path == info.path:
                    break
            yield from (datafile.info for datafile in shown if datafile is not None)
            return
        folder, name = parent_of(info.path), name_of(info.path)
        while True:
            yield from self._below(folder, name)
            if folder == self.origin:
                return
            folder, name = parent_of(folder), name_of(folder)

    def _below(self, folder: str, name: str | None = None) -> Iterator[ObjectInfo]:
        """Yield the datafiles in and below a folder, of its names those after `name`."""
        children = self._shown_in(folder)
        names = self.dataset.index.cached(
            ("names", self.whole_key, folder), lambda: sorted(children, key=path_bytes), hashed=self.needs_hashes
        )
        start = 0 if name is None else bisect_right(names, path_bytes(name), key=path_bytes)
        for number in range(start, len(names)):
            child = children.get(names[number])
            if isinstance(child, Datafile):
                yield child.info
            elif child is None or isinstance(child, Folder):
                yield from self._below(join(folder, names[number]))

    def _shown_in(self, folder: str) -> Mapping[str, Datafile | Folder | Other | None]:
        index = self.dataset.index
        if self.queries:
            return index.subset_children(self.origin, self.queries, folder)
        found = index.folder(folder)
        return found.children if found is not None else {}

    def shown_path(self, datafile: Datafile) -> str:
        """Return where one member is shown, relative to this directory."""
        if self.order is not None:
            return next(name for name, shown in self.children().items() if shown is datafile)
        return os.path.relpath(datafile.path, self.folder) if self.folder else datafile.path


def numbered_names(ordered: Sequence[Datafile]) -> list[str]:
    """Return the names of datafiles in a flat view: their place in the order, and their basename."""
    digits = max(_LEAST_DIGITS, len(str(len(ordered))))
    return [f"{number:0{digits}}_{datafile.name}" for number, datafile in enumerate(ordered, 1)]
