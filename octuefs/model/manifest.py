"""Manifests: several datasets, each under a name, in the JSON of the SDK (`octue.resources.manifest`).

Bytes enter `parse_manifest`, and a `Manifest` with absolute paths leaves; `manifest_text` goes the other way. A path
may be a signed URL, which is a credential: no message, and no `repr`, shows one.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from octuefs.errors import BadValue
from octuefs.model.fields import parse_id
from octuefs.model.listed_files import FileEntry, absolute_path, is_cloud, is_url
from octuefs.model.paths import METADATA_NAME, parse_location, problem_with_path
from octuefs.model.values import MAX_DEPTH, TooDeep, check_depth, shown, stored_form

MANIFEST_NAME = ".octue-manifest.json"
"""The name, in the root of a mounted manifest, of the manifest itself."""

_LEVELS_ABOVE_FIELDS = 5
"""A datafile's field lies in its dictionary, in `files`, in the dataset's, in `datasets`, in the manifest."""
_DATASET_FIELDS = ("id", "name", "tags", "labels")
_DATAFILE_FIELDS = ("id", "timestamp", "tags", "labels")


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """A dataset of a manifest: where it is (an absolute local path, gs://bucket/path, or an http(s) URL).

    `files` are those that make it up, None for all in and below `path`, or in it alone where not `recursive`. `given`
    are those of the raw JSON fields id, name, tags and labels that stand beside them. Both are told of a local dataset
    only, as the SDK has it.
    """

    path: str = field(repr=False)
    files: tuple[FileEntry, ...] | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    recursive: bool = True


@dataclass(frozen=True, slots=True)
class Manifest:
    """The datasets by name, in the order written; the ID in its canonical form, None where there is none."""

    id: str | None
    name: str | None
    datasets: Mapping[str, DatasetEntry]


# --- reading


class _Object(dict[str, Any]):
    """A JSON object that remembers a key which it was given twice."""

    repeated: str | None = None


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    made = _Object()
    for key, value in pairs:
        if key in made:
            made.repeated = key
        made[key] = value
    return made


def parse_manifest(data: bytes, base: str) -> Manifest:
    """Read a manifest that stands in the folder `base`, which relative paths are relative to.

    `base` is an absolute local path, gs://bucket/path or the http(s) URL of a folder.

    :raise BadValue: in one line, for what is no manifest and for every path and name that cannot be used
    """
    content = _load(data)
    datasets = content.get("datasets")
    if not isinstance(datasets, _Object):
        raise BadValue('the manifest has no "datasets"; write {"datasets": {"<name>": "<path>", ...}}')
    if datasets.repeated is not None:
        raise BadValue(f"two sources of one name: the manifest names {datasets.repeated!r} twice; rename one of them")
    try:
        manifest_id = parse_id(content.get("id"))
    except BadValue as error:
        raise BadValue(f"the manifest's id: {error}") from None
    name = content.get("name")
    if name is not None and not isinstance(name, str):
        raise BadValue(f"the manifest's name: {shown(name)} is no text")
    return Manifest(manifest_id, name, {key: _parse_dataset(key, value, base) for key, value in datasets.items()})


def describes_one_dataset(data: bytes) -> bool:
    """Say whether a text is the JSON object of one (shared) dataset, and no manifest."""
    try:
        content = _load(data)
    except BadValue:
        return False
    return "datasets" not in content and ("files" in content or "path" in content)


def _load(data: bytes) -> _Object:
    try:
        content = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_object)
        check_depth(content, MAX_DEPTH + _LEVELS_ABOVE_FIELDS)
    except UnicodeDecodeError as error:
        raise BadValue(f"the manifest is not UTF-8 (at byte {error.start})") from None
    except (RecursionError, TooDeep):
        raise BadValue("the manifest is nested too deeply") from None
    except ValueError as error:
        raise BadValue(f"the manifest is not JSON ({error})") from None
    if not isinstance(content, _Object):
        raise BadValue("the manifest is no JSON object")
    return content


def check_dataset_name(name: str) -> None:
    """Refuse a dataset's name that cannot be that of a folder in the mount.

    :raise BadValue: with the reason
    """
    if name == "":
        raise BadValue("a dataset's name is empty; it is to be the name of a folder")
    problem = "it has a slash" if "/" in name else problem_with_path(name)
    if problem is None and name == METADATA_NAME:
        problem = "this name is for metadata alone"
    if problem is not None:
        raise BadValue(f"{shown(name)} cannot be the name of a dataset's folder: {problem}; rename the dataset")


def _parse_dataset(name: str, value: Any, base: str) -> DatasetEntry:
    check_dataset_name(name)
    try:
        if isinstance(value, str):
            return DatasetEntry(_dataset_path(value, base))
        if not isinstance(value, dict):
            raise BadValue("it is neither a path nor an object with `path` and `files`")
        return _parse_object(value, base)
    except BadValue as error:
        raise BadValue(f"dataset {shown(name)}: {error}") from None


def _dataset_path(text: str, base: str) -> str:
    path = absolute_path(text, base)
    return path if is_url(path) else str(parse_location(path))


def _parse_object(value: Mapping[str, Any], base: str) -> DatasetEntry:
    path, files = value.get("path"), value.get("files")
    if not path and not files:
        raise BadValue("it has neither `path` nor `files`")
    if path and not isinstance(path, str):
        raise BadValue("its `path` is no text")
    where = _dataset_path(path, base) if path else base
    entries = tuple(_parse_file(file, base) for file in _items(files)) if files else None
    if is_cloud(where):
        return DatasetEntry(where, entries or None)
    recursive = bool(entries or value.get("recursive", True))
    return DatasetEntry(where, entries or None, _fields(value, _DATASET_FIELDS), recursive)


def _items(files: Any) -> Sequence[Any]:
    """Return the members of a list, or of a set as the SDK's encoder writes it."""
    if isinstance(files, dict) and files.get("_type") == "set":
        files = files.get("items")
    if not isinstance(files, list):
        raise BadValue("its `files` are no list")
    return files


def _parse_file(value: Any, base: str) -> FileEntry:
    if isinstance(value, str):
        return FileEntry(absolute_path(value, base))
    if not isinstance(value, dict):
        raise BadValue("one of its `files` is neither a path nor an object with `path`")
    # Where the SDK writes a datafile's dictionary, these two stand in place of `path`.
    path = value.get("path") or value.get("cloud_path") or value.get("local_path")
    if not isinstance(path, str):
        raise BadValue("one of its `files` is an object without a `path` that is text")
    return FileEntry(absolute_path(path, base), _fields(value, _DATAFILE_FIELDS))


def _fields(value: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: value[name] for name in names if value.get(name) is not None}


# --- writing


def dataset_dictionary(
    path: str,
    files: Iterable[str],
    *,
    id: str,
    name: str | None,
    tags: Mapping[str, Any],
    labels: Iterable[str],
) -> dict[str, Any]:
    """Return a dataset of just these files (paths or URLs, sorted here) as the SDK puts it into a manifest."""
    return {
        "id": id,
        "name": name,
        "tags": stored_form(tags),
        "labels": sorted(labels),
        "path": path,
        "files": sorted(files),
    }


def manifest_text(id: str, name: str | None, datasets: Mapping[str, str | Mapping[str, Any]]) -> str:
    """Return a manifest as the SDK serialises it: each dataset by its path, or as a `dataset_dictionary`."""
    content = {"id": id, "name": name, "datasets": stored_form(datasets)}
    return json.dumps(content, sort_keys=True, indent=4)
