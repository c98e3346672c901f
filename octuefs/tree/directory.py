"""What all directories of the dataset have in common, its real folders and those in views."""

import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress

from octuefs.datafile import Datafile
from octuefs.dataset import Dataset
from octuefs.entries import Folder, Other
from octuefs.errors import (
    AlreadyExists,
    CrossDevice,
    NameTooLong,
    NotFound,
    NotPermitted,
    OctuefsError,
)
from octuefs.model.paths import METADATA_NAME, NAME_MAX, is_temporary, join, name_of, parent_of, path_bytes
from octuefs.stores.base import Kind
from octuefs.tree.context import Context
from octuefs.tree.defaults import Branch
from octuefs.tree.document import StoredDocumentNode, has_metadata, open_document, read_text, store_text, stored_file
from octuefs.tree.membership import crossing, describe_all, given_by, joining
from octuefs.tree.node import Attributes, DirectoryEntry, Moving, Node, virtual_inode
from octuefs.tree.scope import Scope
from octuefs.tree.xattrs import (
    directory_xattr,
    is_root,
    listed_directory_xattrs,
    remove_directory_xattr,
    set_directory_xattr,
)
from octuefs.writing.base import NO_CHANGE, OpenFile


class ScopeDirectory(Branch):
    """A directory of the dataset, real or in a view, at `path` in the mount."""

    def __init__(self, context: Context, scope: Scope, path: str) -> None:
        self.context = context
        self.scope = scope
        self.dataset: Dataset = scope.dataset
        self.path = path

    def check_writable(self) -> None:
        """See `Node`."""
        self.dataset.check_writable()

    def attributes(self) -> Attributes:
        """See `Node`."""
        raise NotImplementedError

    def own(self, name: str) -> Node | None:
        """Return the node of one of the dataset's own names, or None."""
        raise NotImplementedError

    def own_entries(self) -> Mapping[str, DirectoryEntry]:
        """Return what is listed of the dataset's own names."""
        raise NotImplementedError

    def find(self, name: str) -> Node | None:
        """Return the node of a name, listed or not, or None."""
        if name == METADATA_NAME and self.hides_document:
            return None
        return self.own(name) or self.context.virtual(self.scope, self.path, name)

    def lookup(self, name: str) -> Node:
        """See `Node`."""
        found = self.find(name)
        if found is None:
            self.check_length(name)
            raise NotFound(f"{self.path}/{name}: no such file or folder")
        return found

    def entries(self) -> Iterable[DirectoryEntry]:
        """See `Node`; what a dataset's root lists is brought up to date first."""
        context, scope = self.context, self.scope
        if is_root(scope):
            self.dataset.keeper.expire()
        context.filling.end(scope)
        own = self.own_entries()
        virtual = [it for it in context.listed_virtual(scope, self.path) if it.name not in own]
        entries = sorted([*own.values(), *virtual], key=lambda entry: path_bytes(entry.name))
        if not scope.is_view:
            context.emptied.listed(scope, document=any(it.name == METADATA_NAME for it in entries))
        return entries

    def folder_entry(self, name: str, folder: Folder | None = None) -> DirectoryEntry:
        """Return the entry of a folder in this directory."""
        inode = folder.info.inode if folder is not None and folder.info else virtual_inode(f"{self.path}/{name}")
        return DirectoryEntry(name, inode, stat.S_IFDIR)

    def down(self, name: str) -> Node:
        """Return the directory of a folder in this one."""
        return self.context.directory(self.scope.down(name), f"{self.path}/{name}")

    def get_xattr(self, name: str) -> bytes:
        """See `Node`."""
        return directory_xattr(self.scope, name)

    def list_xattrs(self) -> list[str]:
        """See `Node`."""
        return listed_directory_xattrs(self.scope)

    def set_xattr(self, name: str, value: bytes, flags: int) -> None:
        """See `Node`."""
        set_directory_xattr(self.scope, name, value, flags)

    def remove_xattr(self, name: str) -> None:
        """See `Node`."""
        remove_directory_xattr(self.scope, name)

    def sync(self) -> None:
        """See `Node`."""
        if self.dataset.writer is None:
            return
        with suppress(NotFound):  # what has gone needs nothing
            self.dataset.writing.sync_folder(self.scope.folder)

    # --- names

    def place(self, name: str) -> str:
        """Return the path in the dataset of a name here."""
        return join(self.scope.folder, name)

    def check_length(self, name: str) -> None:
        """Refuse a name that is too long."""
        if len(path_bytes(name)) > NAME_MAX:
            raise NameTooLong(f"{self.path}/{name}: a name has at most {NAME_MAX} bytes")

    def check_new(self, name: str) -> None:
        """Refuse a name that no file or folder can be given here.

        :raise NotPermitted: for a virtual one, unless the dataset's own stands there, and for those that we use
        """
        self.check_length(name)
        if is_temporary(name):
            raise NotPermitted(f"{self.path}/{name}: names of this form are octuefs' own, while it writes")
        self.check_ours(name)
        stored, place = self.dataset.keeper.stored, self.place(name)
        if not stored.admits(place) and not stored.admits_folder(place):
            raise NotPermitted(
                f"{self.path}/{name}: the dataset is a list of files, in its record or its manifest,"
                " and this is none of them; add it there"
            )

    def is_made(self, name: str) -> bool:
        """Say whether a name is a virtual one of this directory, `.octue` included, whatever stands there."""
        return name == METADATA_NAME or self.context.is_virtual(self.path, name)

    def check_ours(self, name: str) -> None:
        """Refuse to change what is of our making, unless the dataset's own of this name stands there."""
        if self.context.is_virtual(self.path, name) and self.own(name) is None:
            raise NotPermitted(f"{self.path}/{name}: octuefs makes this out of the dataset; the name is taken")

    def check_recursive(self, name: str) -> None:
        """Refuse folders where only the files directly in the dataset count."""
        if not self.dataset.keeper.recursive:
            raise NotPermitted(f"{self.path}/{name}: folders are not shown, for the mount was made with --no-recursive")

    # --- `.octue`

    @property
    def hides_document(self) -> bool:
        """Say whether `.octue` is not to answer, because the folder is being filled."""
        return self.context.filling.hides(self.scope) and self.context.documents.find(self.scope) is None

    @property
    def has_document(self) -> bool:
        """Say whether there is a `.octue` here, on a disk or of our making."""
        return stored_file(self.scope) is not None or has_metadata(self.scope)

    def is_document(self, name: str) -> bool:
        """Say whether a name stands for the directory's metadata, as it does unless something odd has it."""
        return name == METADATA_NAME and (isinstance(self.own(name), StoredDocumentNode) or self.own(name) is None)

    def was_described(self) -> None:
        """Take note that a file here was given metadata."""
        self.context.filling.described(self.scope)

    def open_document(self, flags: int) -> OpenFile:
        """Open it for writing, be it there or not."""
        self.context.filling.end(self.scope)
        return open_document(self.scope, self.context.documents, flags)

    def take_document(self, source: Moving, *, replace: bool) -> None:
        """Let the text of a file be the metadata of this directory; the file goes."""
        if not replace and self.has_document:
            raise AlreadyExists(f"{self.path}/{METADATA_NAME} is there already")
        entry = self.entry_of(source)
        if isinstance(entry, Folder):
            raise NotPermitted(f"{self.path}/{METADATA_NAME}: a folder cannot have this name")
        if entry.info.kind is not Kind.FILE:
            raise NotPermitted(f"{self.path}/{METADATA_NAME}: only the text of a file can be metadata")
        store_text(self.scope, read_text(self.dataset, entry.info))
        self.context.filling.end(self.scope)
        self.dataset.writing.remove(source.path)

    # --- moving

    def check_moving(self, source: Moving, name: str) -> None:
        """Refuse what cannot be moved."""
        if source.refusal is not None and source.index_folder is None:
            raise source.refusal  # before EXDEV: a copy would be left where removing what was copied is refused
        self.check_file_or_folder(source, name)

    def check_file_or_folder(self, source: Moving, name: str) -> None:
        """Refuse what belongs to another dataset, and the folder of a view's value, which is no folder of this one."""
        if source.dataset is not self.dataset:
            raise CrossDevice(f"{self.path}/{name}: it belongs to another dataset, so it can only be copied")
        if source.index_folder is not None:
            raise NotPermitted(f"{self.path}/{name}: the folder of a value can be renamed within its view alone")

    def entry_of(self, source: Moving) -> Folder | Datafile | Other:
        """Return what is moved.

        :raise NotFound: where it has gone
        """
        entry = self.dataset.index.entry(source.path)
        if entry is None:
            raise NotFound(f"{source.path}: no such file or folder")
        return entry

    def take_as(self, source: Moving, name: str, *, replace: bool) -> None:
        """Rename what is moved, if it is not at its place already; let it show here, and no more where it left."""
        new = self.place(name)
        entry = self.entry_of(source)
        entered = self.scope.queries
        if isinstance(entry, Folder):
            self._take_folder(source, entry, new, replace=replace)
        elif isinstance(entry, Datafile):
            if new != source.path:
                self._take_file(source, entry, new, replace=replace)
            elif change := crossing(source.leaving, entered, entry.metadata):
                self.dataset.writing.describe(new, change)
        elif entered:
            raise NotPermitted(f"{self.path}/{name}: it is no datafile, and only these have labels and tags")
        elif new != source.path:
            self.dataset.writing.rename(source.path, new, replace=replace)

    def _take_file(self, source: Moving, datafile: Datafile, new: str, *, replace: bool) -> None:
        """Rename a file.

        Over another file, or where a record waits, the metadata set on the source win. What it has only because it was
        made in a view, an editor's new version say, is not set on it: that goes before, and comes again.
        """
        writer, entered, metadata = self.dataset.writing, self.scope.queries, datafile.metadata
        given = given_by(source.leaving, metadata)
        if given and not (self.dataset.index.entry(new) or name_of(new) in writer.waiting(parent_of(new))):
            given = NO_CHANGE
        if given:
            writer.describe(source.path, given)
            metadata = given.apply(metadata)
        try:
            writer.rename(source.path, new, replace=replace, change=crossing(source.leaving, entered, metadata))
        except OctuefsError:
            if given:
                writer.describe(source.path, joining(source.leaving, metadata))
            raise

    def _take_folder(self, source: Moving, folder: Folder, new: str, *, replace: bool) -> None:
        """Move a folder, or what a view shows of it."""
        index = self.dataset.index
        if new != source.path:
            if source.leaving and not _is_shown_whole(self.dataset, folder, source):
                raise NotPermitted(
                    f"{source.path}: the folder holds what does not show in the view; rename it in the dataset itself"
                )
            self.dataset.writing.rename(source.path, new, replace=replace)
        if not source.leaving and not self.scope.queries:
            return
        # What is in it now; of a folder that stayed where it is, only what the view shows.
        members = index.members(new, source.leaving)
        describe_all(
            self.dataset,
            {it.path: crossing(source.leaving, self.scope.queries, it.metadata) for it in members},
        )


def _is_shown_whole(dataset: Dataset, folder: Folder, source: Moving) -> bool:
    """Say whether a view shows all that is in and below a folder."""
    with dataset.index.lock:
        members = {id(it) for it in dataset.index.members(folder.path, source.leaving)}
        pending = [folder]
        while pending:
            for child in pending.pop().children.values():
                if isinstance(child, Folder):
                    pending.append(child)
                elif id(child) not in members and child.info.path.rpartition("/")[2] != METADATA_NAME:
                    return False
    return True
