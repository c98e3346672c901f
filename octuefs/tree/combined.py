"""Directories of views over several datasets: `/by-label/a/` of a mounted manifest, and what stands below it.

They hold a directory per dataset that has members, in which that dataset's own views take over, or, in an order, the
files of all datasets. Nothing is made or removed in them: which dataset would be meant?
"""

import stat
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from octuefs.datafile import Datafile
from octuefs.errors import (
    IsADirectory,
    NameTooLong,
    NoAttribute,
    NotEmpty,
    NotFound,
    NotPermitted,
    Unsupported,
)
from octuefs.model.paths import NAME_MAX, path_bytes
from octuefs.tree.defaults import Branch, UnkeptAttributes
from octuefs.tree.membership import check_settable
from octuefs.tree.node import Attributes, DirectoryEntry, Moving, Node, virtual_inode
from octuefs.tree.portions import Portion, Portions
from octuefs.tree.real import DatafileNode
from octuefs.tree.vanishing import Vanishing
from octuefs.tree.virtual import Ground, made_directory
from octuefs.tree.xattrs import PREFIX, foreign_refusal, value_in


class Combining(Ground, Protocol):
    """The tree of several datasets, as its directories over all of them know it."""

    @property
    def vanishing(self) -> Vanishing:
        """The folders that programs are removing."""
        ...

    def directory(self, portions: Portions, path: str) -> Node:
        """Return the directory of these portions at a path of the mount."""
        ...

    def virtual(self, portions: Portions, path: str, name: str) -> Node | None:
        """Return the virtual node of a name in the directory of `portions` at `path`, or None."""
        ...


class OverAll(UnkeptAttributes, Branch):
    """What directories and index folders over several datasets have in common, at `path` in the mount."""

    def __init__(self, context: Combining, path: str) -> None:
        self.context = context
        self.path = path

    def attributes(self) -> Attributes:
        """See `Node`."""
        return made_directory(self.context, self.path)

    def missing(self, name: str) -> NotFound | NameTooLong:
        """Return the error of a name that is not here."""
        if len(path_bytes(name)) > NAME_MAX:
            return NameTooLong(f"{self.path}/{name}: a name has at most {NAME_MAX} bytes")
        return NotFound(f"{self.path}/{name}: no such file or folder")

    def set_xattr(self, name: str, value: bytes, flags: int) -> None:
        """Refuse."""
        if name.startswith(PREFIX):
            raise NotPermitted(f"{name}: it follows from the datasets; set it on files, or on a dataset's own folder")
        raise Unsupported(f"{name}: a folder over several datasets keeps no attributes")

    def remove_xattr(self, name: str) -> None:
        """Refuse."""
        if name.startswith(PREFIX):
            raise NotPermitted(f"{name}: it follows from the datasets; remove it from files, or a dataset's own folder")
        raise NoAttribute(f"{name} is not set")

    # --- changes

    def refusal(self, name: str) -> NotPermitted:
        """Return the error of a change in a folder that stands for several datasets."""
        return NotPermitted(
            f"{self.path}/{name}: {self.path} shows several datasets at once; "
            f"change it in one dataset's own views, /<dataset>{self.path}"
        )


OF_PORTIONS: Mapping[str, Callable[[Portions], str]] = {
    "hash": lambda portions: portions.set_hash(),
    "count": lambda portions: str(len(portions.members())),
    "size_bytes": lambda portions: str(portions.size_bytes()),
}
"""The attributes of Octue's that any directory has."""


class CombinedDirectory(OverAll):
    """A directory of a view over several datasets."""

    def __init__(self, context: Combining, portions: Portions, path: str) -> None:
        super().__init__(context, path)
        self.portions = portions

    def own(self, name: str) -> Node | None:
        """Return the node of what the directory lists under a name, or None."""
        if self.portions.order is not None:
            numbered = self.portions.numbered().get(name)
            return _file(*numbered) if numbered is not None else None
        portion = self.portions.get(name)
        return portion.directory(self.path) if portion is not None and portion.is_shown else None

    def lookup(self, name: str) -> Node:
        """See `Node`."""
        found = self.own(name) or self.context.virtual(self.portions, self.path, name)
        if found is None:
            raise self.missing(name)
        return found

    def entries(self) -> Iterable[DirectoryEntry]:
        """See `Node`."""
        if self.portions.order is not None:
            return [
                DirectoryEntry(name, shown.inode, shown.mode)
                for name, numbered in self.portions.numbered().items()
                for shown in [_file(*numbered).shown]
            ]
        return [
            DirectoryEntry(portion.name, virtual_inode(f"{self.path}/{portion.name}"), stat.S_IFDIR)
            for portion in self.portions
            if portion.is_shown
        ]

    def get_xattr(self, name: str) -> bytes:
        """See `Node`."""
        if not name.startswith(PREFIX):
            raise foreign_refusal(name)
        return self.octue_xattr(name)

    def octue_xattr(self, name: str) -> bytes:
        """Return one of Octue's attributes.

        :raise NoAttribute: where it is not set
        """
        return value_in([(OF_PORTIONS, self.portions)], {}, name)

    def give(self, name: str) -> Moving:
        """See `Node`: a file of a flat directory may be linked elsewhere in its dataset."""
        if self.portions.order is None or (numbered := self.portions.numbered().get(name)) is None:
            raise self.refusal(name)
        portion, datafile = numbered
        return Moving(portion.scope.dataset, datafile.path, refusal=self.refusal(name))

    def remove_folder(self, name: str) -> None:
        """See `Node`: the folder of a dataset in which nothing shows any more goes, so that `rm -r` ends well."""
        portion = self.portions.get(name)
        if portion is None or not portion.is_shown:
            raise self.missing(name)
        scope, shown = portion.scope, portion.context.shown
        scope.dataset.check_writable()
        check_settable(scope, self.path)
        if portion.has_members or shown.below(scope.queries, scope.folder):
            raise NotEmpty(f"{self.path}/{name}: files show in it")
        self.context.vanishing.add(self.path)
        shown.remove(scope.queries, scope.folder)

    def remove(self, name: str) -> None:
        """Refuse."""
        if self.portions.order is None and self.portions.get(name) is not None:
            raise IsADirectory(f"{self.path}/{name}: it is a folder")
        raise self.refusal(name)


def _file(portion: Portion, datafile: Datafile) -> DatafileNode:
    return DatafileNode(portion.scope.dataset, datafile, in_view=True)
