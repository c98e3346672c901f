"""What a path in the mount stands for: where its files really are, and which.

`mount.py` calls `dataset_at`, for `octuefs manifest` and `octuefs share`, in a thread of the control socket, and
`fetches.py` calls `datafiles_at`.
"""

import stat
import uuid
from collections.abc import Iterator
from typing import Any

from octuefs.datafile import Datafile
from octuefs.dataset import Dataset
from octuefs.errors import BadValue, NotADirectory
from octuefs.model.manifest import dataset_dictionary
from octuefs.model.metadata import DatasetMetadata
from octuefs.tree.directory import ScopeDirectory
from octuefs.tree.manifest import OutOfReach
from octuefs.tree.namespace import MountedTree
from octuefs.tree.node import Node
from octuefs.tree.real import DatafileNode
from octuefs.tree.scope import Scope


def dataset_at(tree: MountedTree, path: str) -> dict[str, Any]:
    """Return the dataset that a path in the mount is ("" is its root; others have no slash at either end).

    A dictionary of `path` (absolute or gs://), `files`, `id`, `name`, `tags`, `labels`, as in a manifest, and
    `in_cloud`. `files` is null where the dataset is all that lies in and below `path`; else they are sorted, each where
    it really is, and may be none.

    :raise BadValue: where the path is no dataset, or several
    :raise OctuefsError: where nothing stands there, or its dataset cannot be reached
    """
    tree.version(f"/{path}")  # which brings up to date what is known, but for a root
    node, is_inside = _walk(tree, path)
    if isinstance(node, OutOfReach):
        node.entries()  # raises the reason, unless the dataset came into reach just now
        node, is_inside = _walk(tree, path)
    if not isinstance(node, ScopeDirectory):
        raise _not_one(path, is_inside=is_inside)
    scope = node.scope
    scope.dataset.keeper.expire()
    files = None if is_whole(scope) else [datafile.full_path for datafile in scope.members()]
    stored = scope.dataset.metadata or DatasetMetadata()
    found = dataset_dictionary(
        scope.dataset.location.of(scope.folder),
        files or (),
        id=_id_of(scope, path),
        name=scope.dataset.name,
        tags=stored.tags,
        labels=stored.labels,
    )
    return {**found, "files": None if files is None else found["files"], "in_cloud": scope.dataset.location.in_cloud}


def datafiles_at(tree: MountedTree, path: str) -> list[tuple[Dataset, Datafile]]:
    """Return the datafiles at a path in the mount, and below it where that is a directory, each with its dataset.

    :raise BadValue: where the path is something else
    :raise OctuefsError: where nothing stands there, or a dataset cannot be reached
    """
    tree.version(f"/{path}")
    node, _ = _walk(tree, path)
    if isinstance(node, DatafileNode):
        return [(node.dataset, node.datafile)]
    found = [*_datafiles_below(node)] if stat.S_ISDIR(node.attributes().mode) else []
    if not found:
        raise BadValue(f"/{path}: there are no datafiles")
    return found


def _datafiles_below(directory: Node) -> Iterator[tuple[Dataset, Datafile]]:
    """Yield those of a directory: all of a scope at once, of a directory over several datasets what is listed in it."""
    if isinstance(directory, ScopeDirectory):
        scope = directory.scope
        scope.dataset.keeper.expire()
        yield from ((scope.dataset, datafile) for datafile in scope.members())
        return
    for entry in directory.entries():
        child = directory.lookup(entry.name)
        if isinstance(child, DatafileNode):
            yield child.dataset, child.datafile
        elif stat.S_ISDIR(entry.mode):
            yield from _datafiles_below(child)


def _walk(tree: MountedTree, path: str) -> tuple[Node, bool]:
    """Return the node of a path, and whether the way to it leads through one dataset alone."""
    node = tree.root
    is_inside = isinstance(node, ScopeDirectory)
    for name in path.split("/") if path else ():
        node = node.lookup(name)
        is_inside = is_inside or isinstance(node, ScopeDirectory)
    return node, is_inside


def is_whole(scope: Scope) -> bool:
    """Say whether the SDK finds the files of a directory, and no others, by the place of its folder alone."""
    stored = scope.dataset.keeper.stored
    if scope.is_view or stored.is_fixed or not scope.dataset.keeper.recursive:
        return False
    if not scope.folder:
        return True
    # The SDK does not read the dataset's record for a folder in it, but the folder's own.
    return stored.named is None and not _names_files(scope)


def _names_files(scope: Scope) -> bool:
    """Say whether a folder's own `.octue` holds the record of a dataset that lists its files."""
    dataset = scope.dataset
    if not dataset.stores_metadata_in(scope.folder):
        return False
    if dataset.in_cloud:
        record = dataset.record_in(scope.folder)
    else:
        record = dataset.keeper.stored.document(scope.folder).dataset
    return record is not None and record.files is not None


def _id_of(scope: Scope, path: str) -> str:
    """Return the dataset's ID; a part of it has one of its own, the same whenever it is asked for at this path."""
    whole = scope.dataset.id
    if not scope.is_view and not scope.folder:
        return whole
    return str(uuid.uuid5(uuid.UUID(whole), path.encode("utf-8", "surrogateescape").hex()))


def _not_one(path: str, *, is_inside: bool) -> BadValue | NotADirectory:
    if is_inside:
        return NotADirectory(f"/{path}: it is no dataset, nor a folder or view of one")
    return BadValue(
        f"/{path}: several datasets are mounted here; name each of them, or a view in each of them:"
        " NAME=MOUNTPOINT/<dataset>/..."
    )
