"""The namespace of a mount (DESIGN 3): which names answer in which directory.

`Namespace` is what the operations get. It makes the directory of a scope, and knows the virtual names that
answer in every one of them: the dataset's own names win, then come the virtual ones.
"""

import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from octuefs.datafile import Datafile
from octuefs.dataset import Dataset
from octuefs.errors import NameTooLong, NotFound
from octuefs.index import Folder
from octuefs.model.paths import METADATA_NAME, NAME_MAX, SIGNED_METADATA_NAME, join, path_bytes
from octuefs.tree.node import Attributes, Branch, DirectoryEntry, Node, virtual_inode
from octuefs.tree.real import DatafileNode, OtherNode
from octuefs.tree.scope import Scope
from octuefs.tree.views import VIEWS
from octuefs.tree.virtual import (
    HASH_LINE_BYTES,
    ControlPanel,
    OneNode,
    TextNode,
    has_metadata,
    hash_text,
    hashes_size,
    hashes_text,
    made_directory,
    metadata_text,
)
from octuefs.tree.xattrs import directory_xattr, is_root, listed_directory_xattrs

CONTROL_NAME = ".octuefs"

NAMES = {
    METADATA_NAME: "the metadata of this directory, in the SDK's format; listed where there is any",
    ".hash": "the hash of the datafiles in and below this directory",
    ".hashes": "a line for each of them: hash, two spaces, path",
    ".metadata_hash": "the hash of the dataset's own metadata",
    "by-label/<label>[,<label>...]/": "those with one of the labels",
    "by-ext/<extension>[,...]/": "those with one of the extensions, `_` for none",
    "by-tag/<key>/<value>[,...]/": "those whose tag has one of the values; nested keys are joined with `.`",
    "by-date/<YYYY>/<MM>/<DD>/": "those with a timestamp on that day",
    "by-id/<uuid>": "the datafile with that ID",
    "by-hash/<hash>[,...]/": "those with these bytes (URL-safe base64)",
    "filter/<expression>[,<expression>...]/": "those that satisfy all, e.g. filter/size_bytes__gt=1000/",
    "not/<view>/...": "what the next view leaves out",
    "order-by/[-]<attribute>/": "flat, numbered in that order, e.g. order-by/-size_bytes/",
    ".one": "a link to the only datafile here",
    CONTROL_NAME + "/": "this control panel, at the mount's root",
}
"""What `.octuefs/views` says."""


@dataclass(frozen=True)
class ControlFiles:
    """What `.octuefs/` shows and does."""

    status: Callable[[], bytes]
    errors: Callable[[], bytes]
    refresh: Callable[[], None]


class Namespace:
    """The tree of one mounted dataset."""

    def __init__(
        self, dataset: Dataset, control: ControlFiles, *, views: bool = True, list_views: bool = False
    ) -> None:
        """`views` off leaves `.octue` and the control panel only; `list_views` lists them in the root."""
        self.dataset = dataset
        self.views = views
        self.list_views = list_views
        self._control = ControlPanel(
            dataset,
            f"/{CONTROL_NAME}",
            {
                "status": self._control_file("status", control.status),
                "errors": self._control_file("errors", control.errors),
                "views": self._control_file("views", views_text),
                "refresh": TextNode(
                    dataset,
                    f"/{CONTROL_NAME}/refresh",
                    lambda: b"",
                    permissions=0o600,
                    is_ours=True,
                    control=lambda _: control.refresh(),
                ),
            },
        )
        self.root = self.directory(Scope(dataset), "")

    def _control_file(self, name: str, render: Callable[[], bytes]) -> TextNode:
        return TextNode(self.dataset, f"/{CONTROL_NAME}/{name}", render, is_ours=True)

    def directory(self, scope: Scope, path: str) -> "ScopeDirectory":
        """Return the directory of a scope at a path of the mount ("" is the root, others begin with "/")."""
        return ScopeDirectory(self, scope, path)

    def virtual(self, scope: Scope, path: str, name: str) -> Node | None:
        """Return the virtual node of a name in the directory of `scope` at `path`, or None."""
        here = f"{path}/{name}"
        if name == METADATA_NAME:
            return self._metadata_node(scope, here)
        if name == CONTROL_NAME and not path:
            return self._control
        if not self.views:
            return None
        if (view := VIEWS.get(name)) is not None:
            return view(scope, here, self.directory, negated=False)
        match name:
            case ".hash":
                return TextNode(self.dataset, here, lambda: hash_text(scope), size=lambda: HASH_LINE_BYTES)
            case ".hashes":
                return TextNode(self.dataset, here, lambda: hashes_text(scope), size=lambda: hashes_size(scope))
            case ".metadata_hash":
                return TextNode(self.dataset, here, lambda: f"{self.dataset.metadata_hash}\n".encode())
            case ".one":
                return OneNode(scope, here)
        return None

    def _metadata_node(self, scope: Scope, path: str) -> Node | None:
        if not has_metadata(scope):
            return None
        return TextNode(self.dataset, path, lambda: metadata_text(scope), volatile=False, permissions=0o644)

    def listed_virtual(self, scope: Scope, path: str) -> Iterable[DirectoryEntry]:
        """Yield the virtual names that the directory of `scope` lists."""
        if (scope.is_view or self.dataset.in_cloud) and has_metadata(scope):
            yield DirectoryEntry(METADATA_NAME, virtual_inode(f"{path}/{METADATA_NAME}"), stat.S_IFREG)
        if self.views and self.list_views and is_root(scope):
            for name in VIEWS:
                yield DirectoryEntry(name, virtual_inode(f"{path}/{name}"), stat.S_IFDIR)

    def shadowed_paths(self) -> Iterator[str]:
        """Yield the paths of the dataset's own files and folders that hide a virtual name of their folder."""
        names = {*VIEWS, ".hash", ".hashes", ".metadata_hash", ".one"} if self.views else set()
        pending = [self.dataset.index.root]
        while pending:
            folder = pending.pop()
            for name in sorted(names | ({CONTROL_NAME} if not folder.path else set())):
                if name in folder.children:
                    yield join(folder.path, name)
            pending.extend(child for child in folder.children.values() if isinstance(child, Folder))


class ScopeDirectory(Branch):
    """A directory of the dataset, real or in a view."""

    def __init__(self, namespace: Namespace, scope: Scope, path: str) -> None:
        self.namespace = namespace
        self.scope = scope
        self.path = path

    @property
    def _dataset(self) -> Dataset:
        return self.scope.dataset

    def attributes(self) -> Attributes:
        """See `Node`."""
        scope = self.scope
        if scope.is_view:
            return made_directory(self._dataset, self.path)
        if not self._dataset.in_cloud:
            return Attributes.of(self._dataset.store.stat(scope.folder))
        folder = self._dataset.index.folder(scope.folder)
        if folder is None:
            raise NotFound(f"{self.path}: no such folder")
        if folder.info is None:
            return made_directory(self._dataset, self.path)
        return Attributes.of(folder.info)

    def lookup(self, name: str) -> Node:
        """See `Node`."""
        found = self._own(name)
        if found is None:
            found = self.namespace.virtual(self.scope, self.path, name)
        if found is None and not self.scope.is_view and self._dataset.keeper.find_unseen(join(self.scope.folder, name)):
            found = self._own(name)
        if found is None and len(path_bytes(name)) > NAME_MAX:
            raise NameTooLong(f"{self.path}/{name}: a name has at most {NAME_MAX} bytes")
        if found is None:
            raise NotFound(f"{self.path}/{name}: no such file or folder")
        return found

    def _own(self, name: str) -> Node | None:
        """Return the node of one of the dataset's own names, or None."""
        scope = self.scope
        if scope.is_view:
            children = scope.children()
            if name not in children:
                return None
            datafile = children[name]
            if datafile is None:
                return self.namespace.directory(scope.down(name), f"{self.path}/{name}")
            return DatafileNode(self._dataset, datafile, in_view=True)
        folder = self._dataset.index.folder(scope.folder)
        entry = folder.children.get(name) if folder is not None else None
        if entry is None:
            return None
        if isinstance(entry, Folder):
            return self.namespace.directory(scope.down(name), f"{self.path}/{name}")
        if isinstance(entry, Datafile):
            return DatafileNode(self._dataset, entry, in_view=False)
        if name == METADATA_NAME and self._dataset.in_cloud:
            return None  # made of the objects' metadata and of what is stored
        return OtherNode(self._dataset, entry.info)

    def entries(self) -> Iterable[DirectoryEntry]:
        """See `Node`."""
        own = self._own_entries()
        virtual = [it for it in self.namespace.listed_virtual(self.scope, self.path) if it.name not in own]
        return sorted([*own.values(), *virtual], key=lambda entry: path_bytes(entry.name))

    def _own_entries(self) -> Mapping[str, DirectoryEntry]:
        scope = self.scope
        dataset = self._dataset
        if scope.is_view:
            return {
                name: self._folder_entry(name) if datafile is None else _datafile_entry(dataset, name, datafile)
                for name, datafile in scope.children().items()
            }
        folder = dataset.index.folder(scope.folder)
        if folder is None:
            raise NotFound(f"{self.path}: no such folder")
        entries = {}
        for name, entry in list(folder.children.items()):
            if isinstance(entry, Folder):
                if dataset.in_cloud and name == SIGNED_METADATA_NAME:
                    continue
                entries[name] = self._folder_entry(name, entry)
            elif name != METADATA_NAME or not dataset.in_cloud:
                entries[name] = DirectoryEntry(name, entry.info.inode, entry.info.mode)
        return entries

    def _folder_entry(self, name: str, folder: Folder | None = None) -> DirectoryEntry:
        inode = folder.info.inode if folder is not None and folder.info else virtual_inode(f"{self.path}/{name}")
        return DirectoryEntry(name, inode, stat.S_IFDIR)

    def get_xattr(self, name: str) -> bytes:
        """See `Node`."""
        return directory_xattr(self.scope, name)

    def list_xattrs(self) -> list[str]:
        """See `Node`."""
        return listed_directory_xattrs(self.scope)


def _datafile_entry(dataset: Dataset, name: str, datafile: Datafile) -> DirectoryEntry:
    shown = DatafileNode(dataset, datafile, in_view=True).shown
    return DirectoryEntry(name, shown.inode, shown.mode)


def views_text() -> bytes:
    """Return the text of `.octuefs/views`."""
    width = max(map(len, NAMES))
    head = "These names answer in every directory, real or a view, and nest to any depth (`,` is OR, `not/` is NOT).\n"
    return (head + "".join(f"{name:<{width}}  {text}\n" for name, text in NAMES.items())).encode()
