"""The `user.octue.*` attributes of DESIGN 3.1, as tables by name, and what passes through to a disk."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from octuefs.datafile import Datafile
from octuefs.dataset import Dataset
from octuefs.errors import AlreadyExists, NoAttribute, NotPermitted, Unsupported
from octuefs.model.changes import datafile_change, dataset_change, removal_change
from octuefs.model.metadata import DatasetMetadata, labels_text, tag_text, tags_text, timestamp_text
from octuefs.tree.scope import Scope

PREFIX = "user.octue."
_TAG_PREFIX = "tags."
_LARGEST_VALUE = 65_536
_NO_METADATA = DatasetMetadata()
XATTR_CREATE = 1
XATTR_REPLACE = 2
"""Flags of setxattr(2), as in linux/xattr.h."""

T = TypeVar("T")
_Table = Mapping[str, Callable[[T], str | None]]
DatafileIn = tuple[Dataset, Datafile]


def _labels(labels: frozenset[str]) -> str | None:
    return labels_text(labels) if labels else None


def _tags(tags: Mapping[str, Any]) -> str | None:
    return tags_text(tags) if tags else None


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _stored(dataset: Dataset) -> DatasetMetadata:
    return dataset.metadata or _NO_METADATA


_OF_DATAFILE: _Table[DatafileIn] = {
    "id": lambda it: it[0].index.id_of(it[1]),
    "labels": lambda it: _labels(it[1].labels),
    "tags": lambda it: _tags(it[1].tags),
    "timestamp": lambda it: timestamp_text(it[1].timestamp) if it[1].timestamp else None,
    "hash": lambda it: it[0].hash_of(it[1]),
    "metadata_hash": lambda it: it[1].metadata_hash_value,
    "cloud_path": lambda it: it[1].cloud_path,
    "local_path": lambda it: it[1].local_path,
    "exists_in_cloud": lambda it: _truth(it[1].in_cloud),
    "exists_locally": lambda it: _truth(not it[1].in_cloud),
    "sync": lambda it: it[0].writer.sync_state(it[1].path) if it[0].writer is not None else "clean",
}

_OF_DATASET: _Table[Dataset] = {
    "id": lambda dataset: dataset.id,
    "name": lambda dataset: dataset.name,
    "labels": lambda dataset: _labels(_stored(dataset).labels),
    "tags": lambda dataset: _tags(_stored(dataset).tags),
    "metadata_hash": lambda dataset: dataset.metadata_hash,
    "cloud_path": lambda dataset: str(dataset.location) if dataset.location.in_cloud else None,
    "local_path": lambda dataset: None if dataset.location.in_cloud else str(dataset.location),
    "exists_in_cloud": lambda dataset: _truth(dataset.location.in_cloud),
    "exists_locally": lambda dataset: _truth(not dataset.location.in_cloud),
}

_OF_DIRECTORY: _Table[Scope] = {
    "hash": lambda scope: scope.set_hash(),
    "count": lambda scope: str(len(scope.members())),
    "size_bytes": lambda scope: str(sum(datafile.size for datafile in scope.members())),
}

HASH_NAME = PREFIX + "hash"
DATAFILE_NAMES = tuple(PREFIX + name for name in _OF_DATAFILE)
DIRECTORY_NAMES = tuple(PREFIX + name for name in (*_OF_DATASET, *_OF_DIRECTORY))


def value_in(tables: list[tuple[_Table[Any], Any]], tags: Mapping[str, Any], name: str) -> bytes:
    """Return one of Octue's attributes, by its full name: from tables, each with its subject, or from tags.

    :raise NoAttribute: where it is not set
    """
    key = name.removeprefix(PREFIX)
    text: str | None = None
    for table, subject in tables:
        if key in table:
            text = table[key](subject)
            break
    else:
        tag = key.removeprefix(_TAG_PREFIX)
        if key != tag and tag in tags:
            text = tag_text(tags[tag])
    if text is None:
        raise NoAttribute(f"{name} is not set")
    return text.encode("utf-8", "surrogateescape" if _has_bytes(text) else "surrogatepass")


def _has_bytes(text: str) -> bool:
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def datafile_xattr(dataset: Dataset, datafile: Datafile, name: str) -> bytes:
    """Return an attribute of a datafile.

    :raise NoAttribute: where it is not set
    """
    if name.startswith(PREFIX):
        return value_in([(_OF_DATAFILE, (dataset, datafile))], datafile.tags, name)
    return foreign_xattr(dataset, datafile.path, name)


def directory_xattr(scope: Scope, name: str) -> bytes:
    """Return an attribute of a directory; a dataset's own ones are on its root alone.

    :raise NoAttribute: where it is not set
    """
    if name.startswith(PREFIX):
        if is_root(scope):
            return value_in([(_OF_DATASET, scope.dataset), (_OF_DIRECTORY, scope)], _stored(scope.dataset).tags, name)
        return value_in([(_OF_DIRECTORY, scope)], {}, name)
    if scope.is_view:
        raise foreign_refusal(name)
    return foreign_xattr(scope.dataset, scope.folder, name)


def listed_datafile_xattrs(dataset: Dataset, datafile: Datafile) -> list[str]:
    """Return the names that are set on a datafile and can be copied to another."""
    set_here = {name: _OF_DATAFILE[name]((dataset, datafile)) for name in ("labels", "tags", "timestamp")}
    return _copyable(set_here) + foreign_names(dataset, datafile.path)


def _copyable(values: Mapping[str, str | None]) -> list[str]:
    """Return the full names of those that are set and fit into an attribute (XATTR_SIZE_MAX of linux/limits.h)."""
    return [
        PREFIX + name
        for name, text in values.items()
        if text and len(text.encode("utf-8", "replace")) <= _LARGEST_VALUE
    ]


def listed_directory_xattrs(scope: Scope) -> list[str]:
    """Return the names that are set on a directory and can be copied to another."""
    names = []
    if is_root(scope):
        stored = _stored(scope.dataset)
        names = _copyable({"name": stored.name, "labels": _labels(stored.labels), "tags": _tags(stored.tags)})
    return names if scope.is_view else names + foreign_names(scope.dataset, scope.folder)


def is_root(scope: Scope) -> bool:
    """Say whether a directory is its dataset's root."""
    return not scope.folder and not scope.is_view


def foreign_xattr(dataset: Dataset, path: str, name: str) -> bytes:
    """Return an attribute that is not ours: `user.*` of a disk passes through.

    :raise NoAttribute: where it is not set
    :raise Unsupported: where it can never be
    """
    if name.startswith(PREFIX):
        raise NoAttribute(f"{name} is not set")
    if dataset.in_cloud or not name.startswith("user."):
        raise foreign_refusal(name)
    return dataset.store.get_xattr(path, name)


def foreign_names(dataset: Dataset, path: str) -> list[str]:
    """Return the names of a disk's own `user.*` attributes that pass through."""
    if dataset.in_cloud:
        return []
    return [
        name for name in dataset.store.list_xattrs(path) if name.startswith("user.") and not name.startswith(PREFIX)
    ]


# --- setting


def set_datafile_xattr(dataset: Dataset, datafile: Datafile, name: str, value: bytes, flags: int) -> None:
    """Set an attribute of a datafile; `flags` as for setxattr(2).

    :raise BadValue: for a value that cannot be taken
    :raise NotPermitted: for a name that is not to be set
    """
    if not name.startswith(PREFIX):
        set_foreign_xattr(dataset, datafile.path, name, value, flags)
        return
    change = datafile_change(name.removeprefix(PREFIX), value, datafile.metadata)
    _check_flags(flags, name, lambda: datafile_xattr(dataset, datafile, name))
    dataset.writing.describe(datafile.path, change)


def remove_datafile_xattr(dataset: Dataset, datafile: Datafile, name: str) -> None:
    """Remove an attribute of a datafile.

    :raise NoAttribute: where it is not set
    :raise NotPermitted: for a name that is not to be removed
    """
    if not name.startswith(PREFIX):
        remove_foreign_xattr(dataset, datafile.path, name)
        return
    change = removal_change(name.removeprefix(PREFIX), datafile.metadata)
    datafile_xattr(dataset, datafile, name)
    dataset.writing.describe(datafile.path, change)


def set_directory_xattr(scope: Scope, name: str, value: bytes, flags: int) -> None:
    """Set an attribute of a directory: the dataset's on its root, foreign ones on real folders."""
    dataset = scope.dataset
    if name.startswith(PREFIX):
        _check_root(scope, name)
        _check_own_record(dataset, name)
        change = dataset_change(name.removeprefix(PREFIX), value, _stored(dataset), revive_types=not dataset.in_cloud)
        _check_flags(flags, name, lambda: directory_xattr(scope, name))
        dataset.writing.describe_dataset(change)
    elif scope.is_view:
        raise Unsupported(f"{name}: a view keeps no attributes")
    else:
        set_foreign_xattr(dataset, scope.folder, name, value, flags)


def remove_directory_xattr(scope: Scope, name: str) -> None:
    """Remove an attribute of a directory, likewise."""
    dataset = scope.dataset
    if name.startswith(PREFIX):
        _check_root(scope, name)
        _check_own_record(dataset, name)
        change = removal_change(name.removeprefix(PREFIX), _stored(dataset))
        directory_xattr(scope, name)
        dataset.writing.describe_dataset(change)
    elif scope.is_view:
        raise NoAttribute(f"{name} is not set")
    else:
        remove_foreign_xattr(dataset, scope.folder, name)


def set_foreign_xattr(dataset: Dataset, path: str, name: str, value: bytes, flags: int) -> None:
    """Set an attribute that is not ours: `user.*` of a disk passes through.

    :raise Unsupported: where the store keeps none
    :raise NotPermitted: for one of Octue's, on what is no datafile
    """
    _check_foreign(dataset, name)
    dataset.writing.set_xattr(path, name, value, flags)


def remove_foreign_xattr(dataset: Dataset, path: str, name: str) -> None:
    """Remove one, likewise."""
    _check_foreign(dataset, name)
    dataset.writing.remove_xattr(path, name)


def _check_foreign(dataset: Dataset, name: str) -> None:
    if name.startswith(PREFIX):
        raise NotPermitted(f"{name}: only datafiles and the dataset's root have it")
    if dataset.in_cloud or not name.startswith("user."):
        raise Unsupported(f"{name}: attributes of this name cannot be kept here")


def _check_own_record(dataset: Dataset, name: str) -> None:
    dataset.check_writable()
    if dataset.keeper.stored.is_fixed:
        raise NotPermitted(f"{name}: the manifest says what the dataset is called and labelled; change it there")


def _check_root(scope: Scope, name: str) -> None:
    if not is_root(scope):
        raise NotPermitted(f"{name}: a folder has no metadata of its own; set it on files, or on the dataset's root")


def _check_flags(flags: int, name: str, get: Callable[[], bytes]) -> None:
    """Do what setxattr(2) says of XATTR_CREATE and XATTR_REPLACE."""
    if not flags:
        return
    try:
        get()
    except NoAttribute:
        if flags & XATTR_REPLACE:
            raise
    else:
        if flags & XATTR_CREATE:
            raise AlreadyExists(f"{name} is set already")


def foreign_refusal(name: str) -> NoAttribute | Unsupported:
    """Return the error of who asks for an attribute that is not ours where none is kept."""
    if name.startswith(("security.", "trusted.")):
        return NoAttribute(f"{name} is not set")
    return Unsupported(f"{name}: attributes of this name cannot be kept here")
