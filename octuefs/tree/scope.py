"""A scope: which datafiles a directory shows, and under which names.

Every directory of a mounted dataset, real or a view, is a scope: a folder of the dataset, the queries of the
views on the way to it, and perhaps an order. Views narrow scopes; real folder names move down in them.
"""

import os
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

from pyroaring import BitMap

from octuefs.datafile import Datafile
from octuefs.dataset import Dataset, Queries
from octuefs.entries import Folder
from octuefs.index import Query
from octuefs.model.ordering import Ordering
from octuefs.model.paths import join, path_bytes

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
        return self.dataset.index.subset_tree(self.origin, self.queries).get(self.folder, {})

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
                return entry if _leads_to(entry, index.select(self.origin, self.queries)) else None
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

    def shown_path(self, datafile: Datafile) -> str:
        """Return where one member is shown, relative to this directory."""
        if self.order is not None:
            return next(name for name, shown in self.children().items() if shown is datafile)
        return os.path.relpath(datafile.path, self.folder) if self.folder else datafile.path


def numbered_names(ordered: Sequence[Datafile]) -> list[str]:
    """Return the names of datafiles in a flat view: their place in the order, and their basename."""
    digits = max(_LEAST_DIGITS, len(str(len(ordered))))
    return [f"{number:0{digits}}_{datafile.name}" for number, datafile in enumerate(ordered, 1)]


def _leads_to(folder: Folder, rows: BitMap) -> bool:
    """Say whether one of these datafiles is in or below a folder."""
    pending = [folder] if rows else []
    while pending:
        for child in pending.pop().children.values():
            if isinstance(child, Datafile):
                if child.row in rows:
                    return True
            elif isinstance(child, Folder):
                pending.append(child)
    return False
