"""The namespace of a mount of several datasets: a directory for each of them, and views over all at once.

The datasets are those of a manifest, so nothing is made, removed or renamed in the root itself. One that cannot be
reached has its directory; reading in there gives the reason, and views over all leave it out. What is said of the
manifest as a whole (`.hash`, `.hashes`, `count`) needs all datasets, and fails for the same reason.
"""

import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from octuefs.errors import NotFound, NotPermitted, OctuefsError, StoreUnavailable
from octuefs.keeper import expire_all
from octuefs.model.hashes import hash_of_manifest, hash_of_text
from octuefs.model.manifest import MANIFEST_NAME
from octuefs.model.paths import path_bytes
from octuefs.stores.base import Space
from octuefs.tree.combined import OF_PORTIONS, CombinedDirectory
from octuefs.tree.combined_views import view_over
from octuefs.tree.control import CONTROL_NAME, ControlFiles, ControlPanel
from octuefs.tree.defaults import Branch
from octuefs.tree.namespace import TEXTS, Namespace, views_text
from octuefs.tree.node import Attributes, DirectoryEntry, Moving, Node, virtual_inode
from octuefs.tree.portions import Portion, Portions
from octuefs.tree.vanishing import Vanishing
from octuefs.tree.views import VIEWS
from octuefs.tree.virtual import (
    HASH_LINE_BYTES,
    Ground,
    OneNode,
    TextNode,
    hash_text,
    hashes_size,
    hashes_text,
    made_directory,
    only_one,
)
from octuefs.tree.xattrs import PREFIX, foreign_refusal, value_in

_PERMISSIONS = 0o755
_GENERATION_BITS = 40
"""More changes than a dataset sees in a mount's life."""
_NO_SPACE = Space(total_bytes=0, free_bytes=0, total_files=0, free_files=0)

_VIEWS_OVER_ALL = (
    b"Outside of the datasets' own directories they are over all datasets, e.g. by-label/<label>/<dataset>/...\n"
)
"""What `.octuefs/views` says besides."""

METADATA_HASH = hash_of_text("[]")
"""What the SDK's `Manifest.metadata_hash_value` is of every manifest: nothing but its ID is metadata."""


class Part(Protocol):
    """One of the datasets, in reach or not. It is asked each time, for that may change."""

    @property
    def generation(self) -> int:
        """A number that grows when another tree stands for the dataset, or one where there was none."""
        ...

    @property
    def namespace_or_none(self) -> Namespace | None:
        """The dataset's tree, None where the dataset cannot be reached; nothing is tried."""
        ...

    @property
    def answers_at_once(self) -> bool:
        """True where `namespace_or_none` has nothing to wait for."""
        ...

    def namespace(self) -> Namespace:
        """Return the dataset's tree.

        :raise OctuefsError: for the reason why the dataset cannot be reached
        """
        ...

    def observe(self, callback: Callable[[str], object]) -> None:
        """See `MountedTree`, of this dataset, be it in reach by now or later."""
        ...


@dataclass(frozen=True)
class ManifestFacts:
    """What is said of the manifest itself; `text` makes `.octue-manifest.json`."""

    id: str
    name: str | None
    text: Callable[[], bytes]


class ManifestNamespace:
    """The tree of a mount of several datasets."""

    def __init__(
        self,
        parts: Mapping[str, Part],
        facts: ManifestFacts,
        control: ControlFiles,
        *,
        views: bool = True,
        list_views: bool = False,
    ) -> None:
        """`parts` are the datasets by name; their own trees stand at "/<name>".

        `views` off leaves the datasets, the manifest and the control panel only; `list_views` lists them in the root.
        """
        self.parts = {name: parts[name] for name in sorted(parts, key=path_bytes)}
        self.facts = facts
        self.views = views
        self.list_views = list_views
        self.vanishing = Vanishing(self._changed)
        self._observers: list[Callable[[str], object]] = []
        self._lock = threading.Lock()  # guards the next
        self._changes = 0
        self._made_ns = time.time_ns()
        self._control = ControlPanel(self, control, lambda: views_text() + _VIEWS_OVER_ALL)
        self.root: Node = ManifestRoot(self)

    def _changed(self) -> None:
        with self._lock:
            self._changes += 1
        for observer in self._observers:
            observer("/")

    # --- what the root and the views over all look like

    @property
    def owner(self) -> tuple[int, int, int]:
        """See `Ground`: whose mount it is."""
        return os.getuid(), os.getgid(), _PERMISSIONS

    @property
    def changed_ns(self) -> int:
        """See `Ground`: when one of the datasets was changed last."""
        return max([self._made_ns, *(it.dataset.changed_ns for it in self._in_reach().values())])

    def check_writable(self) -> None:
        """Refuse nothing: each dataset says for itself whether it is only read."""

    # --- the datasets

    def _in_reach(self) -> dict[str, Namespace]:
        return {
            name: namespace for name, part in self.parts.items() if (namespace := part.namespace_or_none) is not None
        }

    def portions(self) -> Portions:
        """Return the whole of each dataset that can be reached."""
        return _portions(self._in_reach())

    def all_portions(self) -> Portions:
        """Return the whole of each dataset.

        :raise OctuefsError: where one cannot be reached; not `NotFound`, for what asks for all of them is there
        """
        namespaces = {}
        for name, part in self.parts.items():
            try:
                namespaces[name] = part.namespace()
            except NotFound as error:
                raise StoreUnavailable(f"{name} cannot be reached: {error}") from error
        return _portions(namespaces)

    def manifest_hash(self) -> str:
        """Return the hash of the manifest.

        :raise OctuefsError: where a dataset cannot be reached, or a file not be read
        """
        return hash_of_manifest([(portion.name, portion.scope.set_hash()) for portion in self.all_portions()])

    # --- what operations ask

    def version(self, path: str) -> int:
        """See `MountedTree`: in a dataset its own number counts, elsewhere those of all."""
        first = path.split("/", 2)[1]
        part = self.parts.get(first)
        if part is not None:
            namespace = part.namespace_or_none
            number = namespace.version(path) if namespace is not None else 0
            still_there = part.namespace_or_none is not None  # asked again, for the store may just have said otherwise
            return _version(part.generation, number if still_there else 0)
        if first in VIEWS or first in TEXTS:
            expire_all([it.dataset.keeper for it in self._in_reach().values()])
        return self._changes + sum(map(_version_of, self.parts.values()))

    def is_fresh(self, path: str) -> bool:
        """See `MountedTree`."""
        first = path.split("/", 2)[1]
        part = self.parts.get(first)
        if part is not None:
            return _is_fresh(part, path)
        if not all(it.answers_at_once for it in self.parts.values()):
            return False
        if first in VIEWS or first in TEXTS:
            reading = [it.dataset.keeper.begin_expiring() for it in self._in_reach().values()]
            return not any(it is not None for it in reading)
        return True

    def version_at_once(self, path: str) -> int | None:
        """See `MountedTree`."""
        return self.version(path) if self.is_fresh(path) else None

    def lasting(self, path: str) -> float:
        """See `MountedTree`: what stands over all datasets, and the folder of one out of reach, counts at no time."""
        part = self.parts.get(path.split("/", 2)[1])
        namespace = part.namespace_or_none if part is not None else None
        return namespace.lasting(path) if namespace is not None else 0.0

    def observe(self, callback: Callable[[str], object]) -> None:
        """See `MountedTree`."""
        self._observers.append(callback)
        for part in self.parts.values():
            part.observe(callback)

    def space(self, path: str) -> Space:
        """See `MountedTree`: outside of the datasets the room of the one that has most of it.

        :raise OctuefsError: where the dataset that the path leads into cannot be reached
        """
        part = self.parts.get(path.split("/", 2)[1])
        if part is not None:
            return part.namespace().space(path)
        spaces = []
        for namespace in self._in_reach().values():
            with suppress(OctuefsError):
                spaces.append(namespace.space(path))
        return max(spaces, key=lambda space: space.free_bytes, default=_NO_SPACE)

    def forget_shown(self) -> None:
        """See `MountedTree`."""
        for namespace in self._in_reach().values():
            namespace.forget_shown()
        self.vanishing.forget_all()

    def shadowed_paths(self) -> Iterator[str]:
        """See `MountedTree`."""
        yield from (name for name in self.parts if self.of_root(name) is not None)
        for name, namespace in self._in_reach().items():
            for path in namespace.shadowed_paths():
                yield f"{name}/{path}"

    # --- names

    def directory(self, portions: Portions, path: str) -> Node:
        """See `Combining`."""
        return CombinedDirectory(self, portions, path)

    def virtual(self, portions: Portions, path: str, name: str) -> Node | None:
        """See `Combining`."""
        if not self.views:
            return None
        here = f"{path}/{name}"
        if (kind := VIEWS.get(name)) is not None:
            return view_over(self, kind, portions, here)
        match name:
            case ".hash":
                return TextNode(self, here, lambda: hash_text(portions), size=lambda: HASH_LINE_BYTES)
            case ".hashes":
                return TextNode(self, here, lambda: hashes_text(portions), size=lambda: hashes_size(portions))
            case ".metadata_hash":
                return TextNode(self, here, lambda: f"{METADATA_HASH}\n".encode())
            case ".one":
                return OneNode(self, here, only_one([shown for shown, _ in portions.shown_paths()]))
        return None

    def of_root(self, name: str) -> Node | None:
        """Return the virtual node of a name in the root, or None."""
        here = f"/{name}"
        if name == CONTROL_NAME:
            return self._control
        if name == MANIFEST_NAME:
            return TextNode(self, here, self.facts.text)
        if not self.views:
            return None
        if name == ".hash":
            return TextNode(self, here, lambda: f"{self.manifest_hash()}\n".encode(), size=lambda: HASH_LINE_BYTES)
        if name == ".hashes":
            return TextNode(
                self, here, lambda: hashes_text(self.all_portions()), size=lambda: hashes_size(self.all_portions())
            )
        return self.virtual(self.all_portions() if name == ".one" else self.portions(), "", name)


def _portions(namespaces: Mapping[str, Namespace]) -> Portions:
    return Portions(Portion(name, namespace, namespace.scope) for name, namespace in namespaces.items())


def _version(generation: int, version: int) -> int:
    return (generation << _GENERATION_BITS) + version


def _is_fresh(part: Part, path: str) -> bool:
    """Say whether asking for the version of a path in a dataset waits for nothing."""
    if not part.answers_at_once:
        return False
    namespace = part.namespace_or_none
    return namespace is None or namespace.is_fresh(path)


def _version_of(part: Part) -> int:
    generation, namespace = part.generation, part.namespace_or_none
    return _version(generation, namespace.dataset.index.version if namespace is not None else 0)


_OF_MANIFEST: Mapping[str, Callable[[ManifestNamespace], str | None]] = {
    "id": lambda manifest: manifest.facts.id,
    "name": lambda manifest: manifest.facts.name,
    "hash": lambda manifest: manifest.manifest_hash(),
    "metadata_hash": lambda manifest: METADATA_HASH,
}


class ManifestRoot(CombinedDirectory):
    """The root: a directory for each dataset."""

    def __init__(self, manifest: ManifestNamespace) -> None:
        super().__init__(manifest, Portions([]), "")
        self._manifest = manifest

    def own(self, name: str) -> Node | None:
        """See `CombinedDirectory`."""
        part = self._manifest.parts.get(name)
        if part is None:
            return None
        namespace = part.namespace_or_none
        return namespace.root if namespace is not None else OutOfReach(self._manifest, part, f"/{name}")

    def answers_at_once(self, name: str) -> bool:
        """See `Node`: the datasets' own folders do, unless one is to be read again first."""
        part = self._manifest.parts.get(name)
        return part is not None and part.answers_at_once

    def lookup(self, name: str) -> Node:
        """See `Node`."""
        found = self.own(name) or self._manifest.of_root(name)
        if found is None:
            raise self.missing(name)
        return found

    def entries(self) -> Iterable[DirectoryEntry]:
        """See `Node`."""
        names = list(self._manifest.parts)
        entries = [DirectoryEntry(name, self._inode(name), stat.S_IFDIR) for name in names]
        if self._manifest.views and self._manifest.list_views:
            entries += [
                DirectoryEntry(name, virtual_inode(f"/{name}"), stat.S_IFDIR) for name in VIEWS if name not in names
            ]
        return sorted(entries, key=lambda entry: path_bytes(entry.name))

    def _inode(self, name: str) -> int:
        node = self.own(name)
        with suppress(OctuefsError):
            if node is not None:
                return node.attributes().inode
        return virtual_inode(f"/{name}")

    def octue_xattr(self, name: str) -> bytes:
        """See `CombinedDirectory`."""
        if name.removeprefix(PREFIX) in _OF_MANIFEST:
            return value_in([(_OF_MANIFEST, self._manifest)], {}, name)
        return value_in([(OF_PORTIONS, self._manifest.all_portions())], {}, name)

    def refusal(self, name: str) -> NotPermitted:
        """See `OverAll`."""
        return NotPermitted(
            f"/{name}: the root holds the datasets that are mounted, and nothing else; change what is in them"
        )

    def give(self, name: str) -> Moving:
        """Refuse."""
        raise self.refusal(name)

    def remove(self, name: str) -> None:
        """Refuse."""
        raise self.refusal(name)

    def remove_folder(self, name: str) -> None:
        """Refuse."""
        raise self.refusal(name)


class OutOfReach(Branch):
    """The directory of a dataset that cannot be reached: it is there, and reading it raises the reason.

    Should the dataset have come into reach meanwhile, it answers in its place.
    """

    def __init__(self, ground: Ground, part: Part, path: str) -> None:
        self._ground = ground
        self._part = part
        self._path = path

    def attributes(self) -> Attributes:
        """See `Node`."""
        return made_directory(self._ground, self._path)

    def check_writable(self) -> None:
        """Refuse for the same reason; see `Node`."""
        self._part.namespace().root.check_writable()

    def lookup(self, name: str) -> Node:
        """See `Node`."""
        return self._part.namespace().root.lookup(name)

    def check_listable(self) -> None:
        """See `Node`."""
        self._part.namespace()

    def entries(self) -> Iterable[DirectoryEntry]:
        """See `Node`."""
        return self._part.namespace().root.entries()

    def get_xattr(self, name: str) -> bytes:
        """See `Node`."""
        if not name.startswith(PREFIX):
            raise foreign_refusal(name)
        return self._part.namespace().root.get_xattr(name)
