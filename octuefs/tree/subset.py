"""Directories of views: a filtered tree of the dataset, or its files in an order.

What is changed in one is meant for the dataset: a new name is that path in the dataset, with the metadata that lets it
show here, and what is removed from here loses that metadata and stays in the dataset.
"""

import os
from collections.abc import Mapping
from contextlib import suppress

from octuefs.datafile import Datafile
from octuefs.entries import Folder
from octuefs.errors import (
    AlreadyExists,
    CrossDevice,
    HiddenHere,
    IsADirectory,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
    OctuefsError,
)
from octuefs.model.paths import METADATA_NAME, parent_of
from octuefs.tree.defaults import UnkeptAttributes
from octuefs.tree.directory import ScopeDirectory
from octuefs.tree.membership import check_settable, joining, leaving
from octuefs.tree.node import Attributes, DirectoryEntry, Moving, Node
from octuefs.tree.real import DatafileNode
from octuefs.tree.virtual import made_directory
from octuefs.writing.base import Caller, OpenFile


class SubsetDirectory(UnkeptAttributes, ScopeDirectory):
    """A directory of a view."""

    def attributes(self) -> Attributes:
        """See `Node`."""
        return made_directory(self.dataset, self.path)

    def answers_at_once(self, name: str) -> bool:
        """See `Node`: where what the view shows is known for the present version of the index."""
        return not self.is_made(name) and self.scope.is_known(name)

    def own(self, name: str) -> Node | None:
        """See `ScopeDirectory`."""
        child = self.scope.child(name)
        if isinstance(child, Datafile):
            return DatafileNode(self.dataset, child, in_view=True, described=self.was_described, scope=self.scope)
        return self.down(name) if child is not None or self._is_remembered(name) else None

    def _is_remembered(self, name: str) -> bool:
        scope = self.scope
        return scope.order is None and self.context.shown.shows(scope.queries, self.place(name))

    def own_entries(self) -> Mapping[str, DirectoryEntry]:
        """See `ScopeDirectory`."""
        scope = self.scope
        remembered = self.context.shown.below(scope.queries, scope.folder) if scope.order is None else set()
        entries = {name: self.folder_entry(name) for name in remembered}
        for name, datafile in scope.children().items():
            if datafile is None:
                entries[name] = self.folder_entry(name)
            else:
                shown = datafile if self.dataset.in_cloud else DatafileNode(self.dataset, datafile, in_view=True).shown
                entries[name] = DirectoryEntry(name, shown.inode, shown.mode)
        return entries

    # --- what comes

    def _check_enterable(self, name: str) -> None:
        """Refuse a new name where it could not show.

        :raise NotPermitted: with the reason
        """
        self.check_new(name)
        check_settable(self.scope, self.path)
        joining(self.scope.queries)

    def _check_unseen(self, name: str) -> None:
        """Refuse a name that stands for something in the dataset which does not show here."""
        if self._entry(name) is not None:
            raise HiddenHere(
                f"{self.path}/{name}: {self.place(name)} is in the dataset and does not show here; "
                "move that very file here to let it show"
            )

    def _entry(self, name: str) -> object:
        """Return what stands in the dataset under a name that does not show, also if it came a moment ago."""
        index, path = self.dataset.index, self.place(name)
        if index.entry(path) is None:
            self.dataset.keeper.find_unseen(path)
        return index.entry(path)

    def create(self, name: str, flags: int, mode: int, caller: Caller) -> OpenFile:
        """See `Node`."""
        if name == METADATA_NAME:
            return self.open_document(flags | os.O_TRUNC)
        self._check_enterable(name)
        child = self.scope.child(name)
        if isinstance(child, Datafile) and not flags & os.O_EXCL:
            return self.dataset.open_writable(child.info, flags)
        self._check_unseen(name)
        file = self.dataset.writing.create(
            self.place(name), flags | os.O_EXCL, mode, caller, joining(self.scope.queries)
        )
        self.context.filling.made(self.scope, file)
        return file

    def make_folder(self, name: str, mode: int, caller: Caller) -> None:
        """See `Node`: one that is in the dataset already shows from now on."""
        self._check_enterable(name)
        self.check_recursive(name)
        if name == METADATA_NAME:
            raise NotPermitted(f"{self.path}/{name}: a folder cannot have this name")
        if self.own(name) is not None:
            raise AlreadyExists(f"{self.path}/{name} is there already")
        made = not isinstance(self._entry(name), Folder)
        if made:
            self._check_unseen(name)
            self.dataset.writing.make_folder(self.place(name), mode, caller)
        self.context.shown.add(self.scope.queries, self.place(name), made=made)
        self.context.filling.begin(self.scope.down(name))

    def make_link(self, name: str, target: str, caller: Caller) -> None:
        """See `Node`: a link to a file counts as a datafile, and only such a one can show here."""
        self._check_enterable(name)
        if name == METADATA_NAME or self.own(name) is not None:
            raise AlreadyExists(f"{self.path}/{name} is there already")
        self._check_unseen(name)
        self.dataset.writing.make_link(self.place(name), target, caller)
        self._let_show(name)

    def make_special(self, name: str, mode: int, device: int, caller: Caller) -> None:
        """Refuse: it has no metadata that could let it show."""
        raise NotPermitted(f"{self.path}/{name}: only datafiles show in views")

    def _let_show(self, name: str) -> None:
        """Give a name that was just made in the dataset the metadata that lets it show, or remove it again."""
        path = self.place(name)
        try:
            datafile = self.dataset.index.entry(path)
            if not isinstance(datafile, Datafile):
                raise NotPermitted(f"{self.path}/{name}: it leads to no file, and only datafiles show in views")
            if change := joining(self.scope.queries, datafile.metadata):
                self.dataset.writing.describe(path, change)
        except OctuefsError:
            self.dataset.writing.remove(path)
            raise

    def take(self, moving: Moving, name: str, *, replace: bool) -> None:
        """See `Node`: what has this path in the dataset already is not moved, and shows here from now on."""
        self.check_moving(moving, name)
        if name == METADATA_NAME:
            self.take_document(moving, replace=replace)
            return
        self._check_enterable(name)
        shows = self.own(name) is not None
        if shows and not replace:
            raise AlreadyExists(f"{self.path}/{name} is there already")
        path = self.place(name)
        is_folder = isinstance(self.entry_of(moving), Folder)
        if not shows and path != moving.path:
            self._check_unseen(name)
        self.take_as(moving, name, replace=shows)
        shown = self.context.shown
        if moving.leaving:
            shown.leave(moving.leaving, parent_of(moving.path))
        if is_folder:
            if moving.leaving:
                shown.move(moving.leaving, moving.path, self.scope.queries, path)
            shown.add(self.scope.queries, path)

    def take_link(self, moving: Moving, name: str) -> None:
        """See `Node`: what has this path in the dataset already shows here from now on."""
        self.check_file_or_folder(moving, name)
        self._check_enterable(name)
        if name == METADATA_NAME:
            raise NotPermitted(f"{self.path}/{name}: a second name cannot be this one; copy the file")
        datafile = self.entry_of(moving)
        if not isinstance(datafile, Datafile):
            raise NotPermitted(f"{self.path}/{name}: only datafiles show in views")
        if self.own(name) is not None:
            raise AlreadyExists(f"{self.path}/{name} is there already")
        if self.place(name) == moving.path:
            self.dataset.writing.describe(moving.path, joining(self.scope.queries, datafile.metadata))
            return
        self._check_unseen(name)
        self.dataset.writing.link(moving.path, self.place(name))
        self._let_show(name)

    # --- what goes

    def remove(self, name: str) -> None:
        """See `Node`: it loses what the innermost view asks for, and stays in the dataset."""
        scope, shown = self.scope, self.context.shown
        if name == METADATA_NAME:
            # It is made of the files' metadata, which a view does not remove; `rm -r` is to go on.
            if shown.has_document(scope.queries, scope.folder):
                shown.forget_document(scope.queries, scope.folder)
            elif self.hides_document or not self.has_document:
                raise NotFound(f"{self.path}/{name}: no such file")
            self.context.filling.begin(scope)  # `tar x` makes it anew
            return
        self.check_ours(name)
        check_settable(scope, self.path)
        child = scope.child(name)
        if isinstance(child, Datafile):
            self.dataset.writing.describe(child.path, leaving(scope.queries[-1]))
            shown.leave(scope.queries, scope.folder)
        elif self.own(name) is not None:
            raise IsADirectory(f"{self.path}/{name}: it is a folder")
        else:
            raise NotFound(f"{self.path}/{name}: no such file")

    def remove_folder(self, name: str) -> None:
        """See `Node`: it shows no more; the dataset's folder goes too if it was made through a view and is empty."""
        self.check_ours(name)
        scope, shown = self.scope, self.context.shown
        check_settable(scope, self.path)
        path = self.place(name)
        child = scope.child(name)
        if isinstance(child, Datafile):
            raise NotADirectory(f"{self.path}/{name}: it is no folder")
        if child is not None or shown.below(scope.queries, path):
            raise NotEmpty(f"{self.path}/{name}: files show in it")
        if not self._is_remembered(name):
            raise NotFound(f"{self.path}/{name}: no such folder")
        if shown.is_made(path):
            with suppress(NotEmpty, NotFound):
                self.dataset.writing.remove_folder(path)
        shown.leave(scope.queries, scope.folder)
        shown.remove(scope.queries, path)

    def give(self, name: str) -> Moving:
        """See `Node`."""
        self.check_ours(name)
        if name == METADATA_NAME:
            raise CrossDevice(f"{self.path}/{name}: metadata cannot be moved, but copied")
        child = self.scope.child(name)
        if child is None and not self._is_remembered(name):
            raise NotFound(f"{self.path}/{name}: no such file or folder")
        path = child.path if child is not None else self.place(name)
        try:
            check_settable(self.scope, self.path)
        except NotPermitted as refusal:
            return Moving(self.dataset, path, refusal=refusal)
        return Moving(self.dataset, path, self.scope.queries)
