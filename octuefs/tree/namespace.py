"""The namespace of a mount (DESIGN 3): which names answer in which directory.

`Namespace` is what the operations get. It makes the directory of a scope, and knows the virtual names that
answer in every one of them: the dataset's own names win, then come the virtual ones.
"""

import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from octuefs.dataset import Dataset
from octuefs.entries import FolderGone
from octuefs.model.manifest import MANIFEST_NAME
from octuefs.model.paths import METADATA_NAME
from octuefs.stores.base import Space
from octuefs.tree.control import CONTROL_NAME, ControlFiles, ControlPanel
from octuefs.tree.directory import ScopeDirectory
from octuefs.tree.document import DocumentNode, has_metadata
from octuefs.tree.documents import Documents
from octuefs.tree.emptied import Emptied
from octuefs.tree.filling import Filling
from octuefs.tree.folder import RealDirectory
from octuefs.tree.node import DirectoryEntry, Node, virtual_inode
from octuefs.tree.scope import Scope
from octuefs.tree.shown import Shown
from octuefs.tree.subset import SubsetDirectory
from octuefs.tree.views import VIEWS
from octuefs.tree.virtual import HASH_LINE_BYTES, OneNode, TextNode, hash_text, hashes_size, hashes_text, only_one
from octuefs.tree.xattrs import is_root

__all__ = ["CONTROL_NAME", "NAMES", "TEXTS", "ControlFiles", "MountedTree", "Namespace", "is_control", "views_text"]

TEXTS = (".hash", ".hashes", ".metadata_hash", ".one")
"""Virtual files, and `.one`, of every directory."""

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
    MANIFEST_NAME: "the manifest as the SDK writes it, at the root of a mount of several datasets",
    CONTROL_NAME + "/": "this control panel, at the mount's root",
}
"""What `.octuefs/views` says."""


class MountedTree(Protocol):
    """The tree of a mount, as operations walk it."""

    @property
    def root(self) -> Node:
        """The node of the mount's root."""
        ...

    def version(self, path: str) -> int:
        """Return a number that grows when a path of the mount ("/" is the root) may lead elsewhere than before.

        What is known of the datasets that it leads into is brought up to date first.
        """
        ...

    def is_fresh(self, path: str) -> bool:
        """Say whether `version(path)` would not wait; what it would wait for is begun where it would."""
        ...

    def version_at_once(self, path: str) -> int | None:
        """Return `version(path)`, or None where that would wait."""
        ...

    def lasting(self, path: str) -> float:
        """Return for how many seconds what is told of a path counts where nobody says otherwise; 0 for not at all."""
        ...

    def observe(self, callback: Callable[[str], object]) -> None:
        """Have `callback` told of each change from now on, by the path in the mount ("/" is the root) of what changed.

        Paths are those of the datasets' own files and folders, whatever views show them. A dataset that is lost, or
        comes back, is a change of its folder. `callback` is called under locks, for memory work alone.
        """
        ...

    def space(self, path: str) -> Space:
        """Return how much room there is for what is written at a path of the mount."""
        ...

    def forget_shown(self) -> None:
        """Let folders of views show only where files are in them, as after a new mount."""
        ...

    def shadowed_paths(self) -> Iterator[str]:
        """Yield the paths of the datasets' own files and folders that hide a virtual name of their folder."""
        ...


def is_control(path: str) -> bool:
    """Say whether a path of the mount lies in the control panel."""
    return f"{path}/".startswith(f"/{CONTROL_NAME}/")


class Namespace:
    """The tree of one dataset: a mount's own, or that of one directory of a mount of several."""

    def __init__(
        self,
        dataset: Dataset,
        control: ControlFiles | None,
        *,
        views: bool = True,
        list_views: bool = False,
        path: str = "",
    ) -> None:
        """`path` is where the dataset's root is in the mount: "", or "/<name>" where it is one of several.

        `control` is None there, for the control panel is at the mount's root. `views` off leaves `.octue` and the
        control panel only; `list_views` lists them in the root.
        """
        self.dataset = dataset
        self.path = path
        self.views = views
        self.list_views = list_views
        self.shown = Shown(dataset.index)
        self.documents = Documents(self._changed)
        self.filling = Filling(self._changed)
        self.emptied = Emptied(self._changed)
        self._control = ControlPanel(dataset, control, views_text) if control is not None else None
        self.scope = Scope(dataset)
        self.root: Node = self.directory(self.scope, path)

    def _changed(self) -> None:
        # A change of nothing: drivers remember for a version of the index what paths lead to.
        self.dataset.index.publish([FolderGone("")])

    def version(self, path: str) -> int:
        """See `MountedTree`.

        What is known of a cloud dataset is brought up to date first, where its time has come; the control panel
        waits for nobody, and neither does the root itself.
        """
        if self._may_expire(path):
            self.dataset.keeper.expire()
        return self.dataset.index.version

    def _may_expire(self, path: str) -> bool:
        return path not in ("/", self.path) and not self._is_control(path)

    def _is_control(self, path: str) -> bool:
        return self._control is not None and is_control(path)

    def is_fresh(self, path: str) -> bool:
        """See `MountedTree`."""
        return not self._may_expire(path) or self.dataset.keeper.begin_expiring() is None

    def version_at_once(self, path: str) -> int | None:
        """See `MountedTree`."""
        dataset = self.dataset
        return dataset.index.version if not dataset.in_cloud or self.is_fresh(path) else None

    def lasting(self, path: str) -> float:
        """See `MountedTree`."""
        return 0.0 if self._is_control(path) else self.dataset.keeper.lasting()

    def observe(self, callback: Callable[[str], object]) -> None:
        """See `MountedTree`."""
        self.dataset.index.observe(lambda path: callback(f"{self.path}/{path}" if path else self.path or "/"))

    def space(self, path: str) -> Space:
        """See `MountedTree`."""
        return self.dataset.space()

    def forget_shown(self) -> None:
        """Let folders of views show only where files are in them, as after a new mount; `.octue` likewise."""
        self.shown.forget()
        self.emptied.forget_all()

    def directory(self, scope: Scope, path: str) -> ScopeDirectory:
        """Return the directory of a scope at a path of the mount ("" is the root, others begin with "/")."""
        return (SubsetDirectory if scope.is_view else RealDirectory)(self, scope, path)

    def is_virtual(self, path: str, name: str) -> bool:
        """Say whether a name in the directory at `path` is of our making, be there anything behind it or not.

        `.octue` is not meant, which can be written.
        """
        return (self._has_control(path) and name == CONTROL_NAME) or (self.views and (name in VIEWS or name in TEXTS))

    def _has_control(self, path: str) -> bool:
        return self._control is not None and path == self.path

    def virtual(self, scope: Scope, path: str, name: str) -> Node | None:
        """Return the virtual node of a name in the directory of `scope` at `path`, or None."""
        here = f"{path}/{name}"
        if name == METADATA_NAME:
            return self._metadata_node(scope, here)
        if name == CONTROL_NAME and self._has_control(path):
            return self._control
        if not self.views:
            return None
        if (view := VIEWS.get(name)) is not None:
            return view(scope, here, self, negated=False)
        match name:
            case ".hash":
                return TextNode(self.dataset, here, lambda: hash_text(scope), size=lambda: HASH_LINE_BYTES)
            case ".hashes":
                return TextNode(self.dataset, here, lambda: hashes_text(scope), size=lambda: hashes_size(scope))
            case ".metadata_hash":
                return TextNode(self.dataset, here, lambda: f"{self.dataset.metadata_hash}\n".encode())
            case ".one":
                return OneNode(self.dataset, here, scope.shown_path(only_one(scope.members())))
        return None

    def _metadata_node(self, scope: Scope, path: str) -> Node | None:
        """Return the node of `.octue` where there is metadata, or a program is about to write some."""
        is_known = (
            has_metadata(scope)
            or self.documents.find(scope) is not None
            or (scope.is_view and self.shown.has_document(scope.queries, scope.folder))
            or self.emptied.has_document(scope)
        )
        return DocumentNode(scope, path, self.documents) if is_known else None

    def listed_virtual(self, scope: Scope, path: str) -> Iterable[DirectoryEntry]:
        """Yield the virtual names that the directory of `scope` lists."""
        if (scope.is_view or self.dataset.makes_documents) and has_metadata(scope):
            yield DirectoryEntry(METADATA_NAME, virtual_inode(f"{path}/{METADATA_NAME}"), stat.S_IFREG)
        if self.views and self.list_views and is_root(scope):
            for name in VIEWS:
                yield DirectoryEntry(name, virtual_inode(f"{path}/{name}"), stat.S_IFDIR)

    def shadowed_paths(self) -> Iterator[str]:
        """Yield the paths of the dataset's own files and folders that hide a virtual name of their folder."""
        names = {*VIEWS, *TEXTS} if self.views else set()
        index = self.dataset.index
        if self._control is not None and CONTROL_NAME in index.root.children:
            yield CONTROL_NAME
        yield from index.named(names)


def views_text() -> bytes:
    """Return the text of `.octuefs/views`."""
    width = max(map(len, NAMES))
    head = "These names answer in every directory, real or a view, and nest to any depth (`,` is OR, `not/` is NOT).\n"
    return (head + "".join(f"{name:<{width}}  {text}\n" for name, text in NAMES.items())).encode()
