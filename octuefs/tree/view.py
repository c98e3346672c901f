"""What all index folders have in common: `by-label/`, `by-tag/<key>/`, `not/`, `filter/` and the like.

They hold only their values. Looking one up narrows the scope of the directory D that the view stands in and leads to a
directory of that scope. It takes three steps, for a view over several datasets (`combined_views.py`) asks many such
folders: what a name stands for (`values`), which of that occurs in D (`present`), and where it leads (`chosen`).
"""

import stat
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import ClassVar, Generic, TypeVar

from pyroaring import BitMap

from octuefs.errors import BadValue, NotFound, NotPermitted
from octuefs.hash_rows import HashRows
from octuefs.index import Index, Query
from octuefs.tree.context import Context
from octuefs.tree.defaults import Branch, UnkeptAttributes
from octuefs.tree.node import Attributes, DirectoryEntry, Node, virtual_inode
from octuefs.tree.queries import Not
from octuefs.tree.scope import Scope
from octuefs.tree.virtual import made_directory

V = TypeVar("V")


class View(UnkeptAttributes, Branch, Generic[V]):
    """An index folder in directory D, at `path` in the mount. `negated` turns what it leads to into the rest of D."""

    open_ended: ClassVar[bool] = False
    """True where every value that can be written exists, be anything behind it or not."""

    def __init__(self, scope: Scope, path: str, context: Context, *, negated: bool) -> None:
        """`scope` is D's; `context` makes the directories of narrower ones."""
        self.scope = scope
        self.path = path
        self.context = context
        self.negated = negated

    def check_writable(self) -> None:
        """See `Node`."""
        self.scope.dataset.check_writable()

    def attributes(self) -> Attributes:
        """See `Node`."""
        return made_directory(self.scope.dataset, self.path)

    def names(self) -> Iterable[str]:
        """Return the values that this folder lists."""
        return ()

    @property
    def leads_to(self) -> int:
        """The file type of what is listed."""
        return stat.S_IFDIR

    def entries(self) -> Iterable[DirectoryEntry]:
        """See `Node`."""
        return [DirectoryEntry(name, virtual_inode(f"{self.path}/{name}"), self.leads_to) for name in self.names()]

    @classmethod
    def values(cls, name: str) -> Sequence[V]:
        """Return the values that a name stands for; any of them is meant, or all, as the folder has it.

        :raise BadValue: with the reason, where it can stand for none
        """
        raise NotImplementedError

    def present(self, values: Sequence[V]) -> Collection[V]:
        """Return those that exist here: they occur in D, or a program has made them."""
        return values

    def chosen(self, name: str, values: Sequence[V]) -> Node:
        """Return what a name leads to, given its values, whether they exist here or not."""
        raise NotImplementedError

    def lookup(self, name: str) -> Node:
        """See `Node`."""
        try:
            values = self.values(name)
        except BadValue as error:
            raise NotFound(f"{self.child_path(name)}: {error}") from None
        if not values or not set(values) <= set(self.present(values)):
            raise self.missing(name)
        return self.chosen(name, values)

    def child_path(self, name: str) -> str:
        """Return the path in the mount of a name here."""
        return f"{self.path}/{name}"

    def missing(self, name: str) -> NotFound:
        """Return the error of a name that is not here."""
        return NotFound(f"{self.child_path(name)}: nothing here has this value")

    def narrowed(self, name: str, query: Query) -> Node:
        """Return the directory of what satisfies `query`, or of the rest."""
        scope = self.scope.narrow(Not(query) if self.negated else query)
        return self.context.directory(scope, self.child_path(name))

    def occurring(self, table: dict[str, BitMap]) -> Iterable[str]:
        """Return the keys of an index table that occur in D."""
        here = self.rows()
        return [key for key, rows in list(table.items()) if rows.intersect(here)]

    def among(self, table: Mapping[str, BitMap] | HashRows, keys: Sequence[str]) -> list[str]:
        """Return those of some keys of an index table that occur in D."""
        here = self.rows()
        return [key for key in keys if key in table and table[key].intersect(here)]

    def rows(self) -> BitMap:
        """Return the rows of the datafiles in D."""
        self.scope.settle()
        return self.index.select(self.scope.folder, self.scope.queries)

    @property
    def index(self) -> Index:
        """The dataset's index."""
        return self.scope.dataset.index

    # --- changes

    def refusal(self, name: str) -> NotPermitted:
        """Return the error of a change that means nothing here."""
        return NotPermitted(f"{self.child_path(name)}: {self.path} holds the values that occur, and nothing else")


def encoded(values: Iterable[str], encode: Callable[[str], str | None]) -> list[str]:
    """Return values as sorted names, without those that are too long for one."""
    return sorted(name for value in values if (name := encode(value)) is not None)
