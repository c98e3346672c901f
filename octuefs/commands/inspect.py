"""What the commands `info` and `ls` tell: facts of a dataset, of datafiles, and of paths in a mount."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from octuefs.datafile import Datafile
from octuefs.dataset import Dataset
from octuefs.errors import from_os_error
from octuefs.model.filters import Filter
from octuefs.model.hashes import hash_of_manifest
from octuefs.model.manifest import Manifest
from octuefs.model.metadata import timestamp_text
from octuefs.model.ordering import Ordering
from octuefs.model.paths import join, path_bytes
from octuefs.model.sizes import size_text
from octuefs.model.values import stored_form
from octuefs.mounts import Mount, check_alive, mount_above
from octuefs.report import printable
from octuefs.tree.queries import Satisfies
from octuefs.tree.scope import Scope
from octuefs.tree.xattrs import DATAFILE_NAMES, DIRECTORY_NAMES, PREFIX


def dataset_facts(dataset: Dataset, progress: Callable[[int], None]) -> dict[str, Any]:
    """Return what `octuefs info` says of a dataset; hashes its files, telling `progress` how many are done."""
    stored, index = dataset.metadata, dataset.index
    value = dataset.set_hash("", (), progress)
    with index.lock:
        return {
            "source": str(dataset.location),
            "name": dataset.name,
            "id": dataset.id,
            "labels": sorted(stored.labels) if stored else [],
            "tags": stored_form(stored.tags) if stored else {},
            "files": len(index.datafiles),
            "size_bytes": index.total_bytes,
            "hash": value,
            "metadata_hash": dataset.metadata_hash,
            "file_labels": {label: len(rows) for label, rows in sorted(index.by_label.items()) if rows},
            "file_tags": {
                key: sum(map(len, table.values())) for key, table in sorted(index.by_tag.items()) if any(table.values())
            },
            "extensions": {extension: len(rows) for extension, rows in sorted(index.by_extension.items()) if rows},
        }


def manifest_facts(
    manifest: Manifest, datasets: Mapping[str, Dataset], progress: Callable[[int], None]
) -> dict[str, Any]:
    """Return what `octuefs info` says of a manifest; hashes the files of its datasets."""
    hashes = {name: dataset.set_hash("", (), progress) for name, dataset in datasets.items()}
    return {
        "id": manifest.id,
        "name": manifest.name,
        "datasets": {
            name: {
                "source": str(dataset.location),
                "name": dataset.name,
                "files": len(dataset.index.datafiles),
                "size_bytes": dataset.index.total_bytes,
                "hash": hashes[name],
            }
            for name, dataset in datasets.items()
        },
        "files": sum(len(dataset.index.datafiles) for dataset in datasets.values()),
        "size_bytes": sum(dataset.index.total_bytes for dataset in datasets.values()),
        "hash": hash_of_manifest(hashes.items()),
    }


def manifest_text(facts: Mapping[str, Any]) -> str:
    """Return the facts of a manifest as lines: its own, then one for each dataset."""
    own = facts_text({name: value for name, value in facts.items() if name != "datasets" and value is not None})
    names = {name: printable(name) for name in facts["datasets"]}
    width = max(map(len, names.values()), default=0)
    lines = [
        f"  {names[name]:<{width}}  {it['hash']}  {it['files']:>9,} files  {size_text(it['size_bytes']):>10}"
        f"  {printable(it['source'])}"
        for name, it in facts["datasets"].items()
    ]
    return "\n".join([own, "datasets", *lines])


def facts_text(facts: dict[str, Any]) -> str:
    """Return facts as lines of name and value."""
    width = max(map(len, facts), default=0)
    return "\n".join(f"{name:<{width}}  {_value_text(name, value)}".rstrip() for name, value in facts.items())


def _value_text(name: str, value: Any) -> str:
    if name == "size_bytes" and isinstance(value, int):
        return f"{value} ({size_text(value)})"
    if isinstance(value, dict):
        return ", ".join(f"{key or '(none)'}: {item}" for key, item in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value)


def select_datafiles(dataset: Dataset, filters: Sequence[Filter], order: Ordering | None) -> Sequence[Datafile]:
    """Return the datafiles that satisfy all filters, in an order (default: by path)."""
    scope = Scope(dataset)
    if filters:
        scope = scope.narrow(Satisfies(tuple(filters)))
    if order is None:
        return sorted(scope.members(), key=lambda datafile: path_bytes(datafile.path))
    return [datafile for _, datafile in scope.ordered(order).shown_paths()]


def datafile_line(datafile: Datafile, name: str = "") -> str:
    """Return one line of `octuefs ls`: size in bytes, path, labels; `name` is the dataset's in its manifest."""
    labels = f"  [{' '.join(sorted(datafile.labels))}]" if datafile.labels else ""
    return f"{datafile.size:>14}  {printable(join(name, datafile.path))}{labels}"


def datafile_facts(dataset: Dataset, datafile: Datafile, name: str = "") -> dict[str, Any]:
    """Return a datafile's facts that cost nothing to tell; `name` is the dataset's in its manifest."""
    return {
        "path": join(name, datafile.path),
        "id": dataset.index.id_of(datafile),
        "size_bytes": datafile.size_bytes,
        "timestamp": timestamp_text(datafile.timestamp) if datafile.timestamp else None,
        "labels": sorted(datafile.labels),
        "tags": stored_form(datafile.tags),
    }


def _mount_of(path: str) -> Mount | None:
    """Return the mount of ours that a path lies in, checked to be alive."""
    mount = mount_above(os.path.abspath(path)) if "://" not in path else None
    if mount is None or not mount.is_ours:
        return None
    check_alive(mount)
    return mount


def mounted_hash(path: str) -> str | None:
    """Return the hash of a path in a mount of ours, or None where it is in none.

    :raise OctuefsError: where nothing stands there, or it cannot be hashed
    """
    if _mount_of(path) is None:
        return None
    try:
        return os.getxattr(path, f"{PREFIX}hash").decode()
    except OSError as error:
        raise from_os_error(error, path) from error


def mounted_attributes(path: str) -> dict[str, Any] | None:
    """Return every `user.octue.*` attribute of a path in a mount of ours, or None where it is in none.

    :raise OctuefsError: where nothing stands there
    """
    mount = _mount_of(path)
    if mount is None:
        return None
    try:
        os.lstat(path)
    except OSError as error:
        raise from_os_error(error, path) from error
    names = DIRECTORY_NAMES if os.path.isdir(path) else DATAFILE_NAMES
    facts = {"path": os.path.abspath(path), "mount": mount.mount_point, "source": mount.source}
    for name in names:
        try:
            value = os.getxattr(path, name)
        except OSError:
            continue
        facts[name.removeprefix(PREFIX)] = value.decode("utf-8", "replace")
    return facts
