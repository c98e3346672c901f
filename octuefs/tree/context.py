"""What the directories of a mount share, and ask of the namespace that they are in."""

from collections.abc import Iterable
from typing import Protocol

from octuefs.tree.documents import Documents
from octuefs.tree.emptied import Emptied
from octuefs.tree.filling import Filling
from octuefs.tree.node import DirectoryEntry, Node
from octuefs.tree.scope import Scope
from octuefs.tree.shown import Shown


class Context(Protocol):
    """The namespace, as its directories know it."""

    @property
    def shown(self) -> Shown:
        """The folders of views that show although nothing is in them."""
        ...

    @property
    def documents(self) -> Documents:
        """The `.octue` files that are being written."""
        ...

    @property
    def filling(self) -> Filling:
        """The folders that programs are filling."""
        ...

    @property
    def emptied(self) -> Emptied:
        """The folders that programs are removing."""
        ...

    def directory(self, scope: Scope, path: str) -> Node:
        """Return the directory of a scope at a path of the mount ("" is the root, others begin with "/")."""
        ...

    def virtual(self, scope: Scope, path: str, name: str) -> Node | None:
        """Return the virtual node of a name in the directory of `scope` at `path`, or None."""
        ...

    def is_virtual(self, path: str, name: str) -> bool:
        """Say whether a name in the directory at `path` is of our making, be there anything behind it or not.

        `.octue` is not meant, which can be written.
        """
        ...

    def listed_virtual(self, scope: Scope, path: str) -> Iterable[DirectoryEntry]:
        """Return the virtual names that the directory of `scope` lists."""
        ...
