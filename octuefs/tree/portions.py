"""What a directory over several datasets shows: a scope of each of them.

A view over all narrows each dataset's own scope, so its conditions and orders are those of a single dataset's views;
here is only what takes all of them together.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from octuefs.datafile import Datafile
from octuefs.model.hashes import hash_of_set
from octuefs.model.ordering import Ordering
from octuefs.model.paths import path_bytes
from octuefs.tree.context import Context
from octuefs.tree.node import Node
from octuefs.tree.scope import Scope, numbered_names


@dataclass(frozen=True, slots=True)
class Portion:
    """What a directory shows of one dataset: a scope of it, under the dataset's name in the mount."""

    name: str
    context: Context
    scope: Scope

    def directory(self, above: str) -> Node:
        """Return its directory, given the path in the mount of the one above."""
        return self.context.directory(self.scope, f"{above}/{self.name}")

    @property
    def has_members(self) -> bool:
        """True where a datafile is in it.

        :raise OctuefsError: where a view asks for the hash of a file that cannot be read
        """
        self.scope.settle()
        return bool(self.scope.dataset.index.select(self.scope.folder, self.scope.queries))

    @property
    def is_shown(self) -> bool:
        """True where a datafile is in it, or a program has made or emptied a folder that is to show."""
        scope = self.scope
        remembered = scope.order is None and scope.is_view and self.context.shown.shows(scope.queries, scope.folder)
        return remembered or self.has_members


Numbered = Mapping[str, tuple[Portion, Datafile]]


class Portions:
    """The portions of one directory, sorted by name; with an `order` it is flat. Any thread may ask."""

    def __init__(self, portions: Iterable[Portion], order: Ordering | None = None) -> None:
        self._portions = {it.name: it for it in sorted(portions, key=lambda it: path_bytes(it.name))}
        self.order = order
        self._numbered: tuple[object, Numbered] | None = None
        """The files of a flat directory by name, and the versions of the datasets that they are of."""

    def __iter__(self) -> Iterator[Portion]:
        return iter(self._portions.values())

    def get(self, name: str) -> Portion | None:
        """Return the portion of a dataset."""
        return self._portions.get(name)

    def members(self) -> list[Datafile]:
        """Return the datafiles in and below the directory."""
        return [datafile for portion in self for datafile in portion.scope.members()]

    def hashed_members(self) -> list[Datafile]:
        """Return them with their hashes known.

        :raise OctuefsError: where one cannot be read
        """
        return [datafile for portion in self for datafile in portion.scope.hashed_members()]

    def set_hash(self) -> str:
        """Return the hash of the set of datafiles in and below the directory."""
        return hash_of_set(datafile.hash_value for datafile in self.hashed_members())

    def size_bytes(self) -> int:
        """Return how many bytes they have together."""
        return sum(datafile.size for datafile in self.members())

    def numbered(self) -> Numbered:
        """Return the files of a flat directory by their numbered names, in order; ties by dataset and path."""
        assert self.order is not None, "asked of flat directories alone"
        for portion in self:
            portion.scope.settle()
        versions = tuple(portion.scope.dataset.index.version for portion in self)
        known = self._numbered
        if known is None or known[0] != versions:
            known = self._numbered = (versions, self._in_order(self.order))
        return known[1]

    def _in_order(self, order: Ordering) -> Numbered:
        owners = {datafile: portion for portion in self for datafile in portion.scope.members()}
        ordered = order.sort(owners, lambda datafile: path_bytes(f"{owners[datafile].name}/{datafile.path}"))
        return {
            name: (owners[datafile], datafile) for name, datafile in zip(numbered_names(ordered), ordered, strict=True)
        }

    def shown_paths(self) -> Iterable[tuple[str, Datafile]]:
        """Yield (path relative to the directory, datafile) for each datafile in and below it."""
        if self.order is not None:
            for name, (_, datafile) in self.numbered().items():
                yield name, datafile
            return
        for portion in self:
            for path, datafile in portion.scope.shown_paths():
                yield f"{portion.name}/{path}", datafile
