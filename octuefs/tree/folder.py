"""The dataset's real folders."""

import os
from collections.abc import Mapping

from octuefs.datafile import NO_METADATA, Datafile
from octuefs.entries import Folder
from octuefs.errors import AlreadyExists, CrossDevice, IsADirectory, NotADirectory, NotFound, NotPermitted, OctuefsError
from octuefs.model.paths import METADATA_NAME, SIGNED_METADATA_NAME, is_temporary, parent_of
from octuefs.stores.base import Kind
from octuefs.stores.writing import Times
from octuefs.tree.directory import ScopeDirectory
from octuefs.tree.document import StoredDocumentNode
from octuefs.tree.node import Attributes, DirectoryEntry, Moving, Node
from octuefs.tree.real import DatafileNode, OtherNode
from octuefs.tree.virtual import made_directory
from octuefs.tree.xattrs import is_root
from octuefs.writing.base import Caller, OpenFile


class RealDirectory(ScopeDirectory):
    """A folder of the dataset."""

    derived = False

    def attributes(self) -> Attributes:
        """See `Node`."""
        if not self.dataset.in_cloud:
            return self._on_disk()
        folder = self._folder()
        if folder.info is None:
            return made_directory(self.dataset, self.path)
        return Attributes.of(folder.info)

    def _on_disk(self) -> Attributes:
        try:
            return Attributes.of(self.dataset.store.stat(self.scope.folder))
        except OctuefsError:
            if self.path and is_root(self.scope):  # one of several datasets: it is there, be it out of reach or not
                return Attributes.of(self.dataset.root_info)
            raise

    def find(self, name: str) -> Node | None:
        """See `ScopeDirectory`; the store is asked too for what the index may not know yet."""
        if name == METADATA_NAME and not self.hides_document:
            self.dataset.show_document(self.scope.folder)
        found = super().find(name)
        if found is not None or (name == METADATA_NAME and self.hides_document):
            return found
        return self.own(name) if self.dataset.keeper.find_unseen(self.place(name)) else None

    def known(self, name: str) -> Node | None:
        """See `Node`: the dataset's own names go before all others."""
        return self.own(name) if name != METADATA_NAME else None

    def answers_at_once(self, name: str) -> bool:
        """See `Node`: of what the index does not know, the keeper says whether it would wait."""
        if self.is_made(name):
            return False
        keeper, place = self.dataset.keeper, self.place(name)
        return self.dataset.index.entry(place) is not None or keeper.finds_at_once(place)

    def own(self, name: str) -> Node | None:
        """See `ScopeDirectory`."""
        folder = self.dataset.index.folder(self.scope.folder)
        entry = folder.children.get(name) if folder is not None else None
        if entry is None:
            return None
        if isinstance(entry, Folder):
            return self.down(name)
        if isinstance(entry, Datafile):
            return DatafileNode(self.dataset, entry, in_view=False, described=self.was_described, scope=self.scope)
        if name == METADATA_NAME:
            if self.dataset.makes_documents:
                return None  # made of the files' metadata and of what is stored
            if entry.info.kind is Kind.FILE:
                return StoredDocumentNode(self.scope, entry.info, self.context.documents)
        return OtherNode(self.dataset, entry.info)

    def check_listable(self) -> None:
        """See `Node`."""
        self._folder()

    def _folder(self) -> Folder:
        """Return what the index has of the folder.

        :raise NotFound: where it has gone
        """
        folder = self.dataset.index.folder(self.scope.folder)
        if folder is None:
            raise NotFound(f"{self.path}: no such folder")
        return folder

    def own_entries(self) -> Mapping[str, DirectoryEntry]:
        """See `ScopeDirectory`."""
        dataset = self.dataset
        dataset.show_document(self.scope.folder)
        folder = self._folder()
        entries = {}
        for name, entry in list(folder.children.items()):
            if isinstance(entry, Folder):
                if dataset.in_cloud and name == SIGNED_METADATA_NAME:
                    continue
                entries[name] = self.folder_entry(name, entry)
            elif isinstance(entry, Datafile):
                entries[name] = DirectoryEntry(name, entry.inode, entry.mode)
            elif name != METADATA_NAME or not dataset.makes_documents:
                entries[name] = DirectoryEntry(name, entry.info.inode, entry.info.mode)
        return entries

    # --- changes of the folder itself

    def set_mode(self, mode: int) -> None:
        """See `Node`."""
        self.dataset.writing.set_mode(self.scope.folder, mode)

    def set_owner(self, uid: int, gid: int) -> None:
        """See `Node`."""
        self.dataset.writing.set_owner(self.scope.folder, uid, gid)

    def set_times(self, times: Times) -> None:
        """See `Node`."""
        self.dataset.writing.set_times(self.scope.folder, times)

    # --- changes in it

    def create(self, name: str, flags: int, mode: int, caller: Caller) -> OpenFile:
        """See `Node`."""
        self.check_new(name)
        if self.is_document(name):
            return self.open_document(flags | os.O_TRUNC)
        file = self.dataset.writing.create(self.place(name), flags, mode, caller)
        self.context.filling.made(self.scope, file)
        return file

    def make_folder(self, name: str, mode: int, caller: Caller) -> None:
        """See `Node`."""
        self.check_new(name)
        self.check_recursive(name)
        if name == METADATA_NAME:
            raise NotPermitted(f"{self.path}/{name}: a folder cannot have this name")
        self.dataset.writing.make_folder(self.place(name), mode, caller)
        self.context.filling.begin(self.scope.down(name))

    def make_link(self, name: str, target: str, caller: Caller) -> None:
        """See `Node`."""
        self.check_new(name)
        if name == METADATA_NAME:
            raise NotPermitted(f"{self.path}/{name}: a link cannot have this name")
        self.dataset.writing.make_link(self.place(name), target, caller)

    def make_special(self, name: str, mode: int, device: int, caller: Caller) -> None:
        """See `Node`."""
        self.check_new(name)
        if name == METADATA_NAME:
            raise NotPermitted(f"{self.path}/{name}: only a file can have this name")
        self.dataset.writing.make_special(self.place(name), mode, device, caller)

    def remove(self, name: str) -> None:
        """See `Node`."""
        self.check_ours(name)
        if is_temporary(name):
            raise NotFound(f"{self.path}/{name}: no such file")
        dataset, emptied = self.dataset, self.context.emptied
        if self.is_document(name):
            dataset.show_document(self.scope.folder)
            if self.has_document:
                if not dataset.keeper.stored.is_fixed:  # else it is made of what the manifest says, as in a view
                    dataset.writing.remove_document(self.scope.folder)
            elif not emptied.has_document(self.scope):
                raise NotFound(f"{self.path}/{name}: no such file")
            emptied.forget(self.scope)
            return
        entry = dataset.index.entry(self.place(name))
        if isinstance(entry, Folder):
            raise IsADirectory(f"{self.path}/{name}: it is a folder")
        dataset.writing.remove(self.place(name))
        emptied.removed(self.scope, described=isinstance(entry, Datafile) and entry.metadata != NO_METADATA)

    def remove_folder(self, name: str) -> None:
        """See `Node`."""
        self.check_ours(name)
        entry = self.dataset.index.entry(self.place(name))
        if entry is not None and not isinstance(entry, Folder):
            raise NotADirectory(f"{self.path}/{name}: it is no folder")
        self.dataset.writing.remove_folder(self.place(name))
        self.context.emptied.forget(self.scope.down(name))

    def give(self, name: str) -> Moving:
        """See `Node`."""
        self.check_ours(name)
        if self.is_document(name):
            # Copied and removed, it does what it should: both are metadata of a folder's files.
            raise CrossDevice(f"{self.path}/{name}: metadata cannot be moved, but copied and removed")
        if self.find(name) is None:
            raise NotFound(f"{self.path}/{name}: no such file or folder")
        return Moving(self.dataset, self.place(name))

    def take(self, moving: Moving, name: str, *, replace: bool) -> None:
        """See `Node`."""
        self.check_new(name)
        self.check_moving(moving, name)
        if not replace and moving.path == self.place(name):
            raise AlreadyExists(f"{self.path}/{name} is there already")
        if self.is_document(name):
            self.dataset.show_document(self.scope.folder)
            self.take_document(moving, replace=replace)
        else:
            self.take_as(moving, name, replace=replace)
        if moving.leaving:
            self.context.shown.leave(moving.leaving, parent_of(moving.path))

    def take_link(self, moving: Moving, name: str) -> None:
        """See `Node`."""
        self.check_new(name)
        self.check_file_or_folder(moving, name)
        if self.is_document(name):
            raise NotPermitted(f"{self.path}/{name}: a second name cannot be this one; copy the file")
        self.dataset.writing.link(moving.path, self.place(name))
