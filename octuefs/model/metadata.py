"""Records of metadata, and how they are stored: `.octue` files and custom metadata of objects (DESIGN 2.2, 2.3).

Bytes or a mapping enter, immutable records and a list of problems leave; and the other way round. Reading
never raises: what is malformed counts as absent, is told in `problems`, and stays in `unread` as it is stored,
so that writing the record again gives it back.

`unread` holds the stored JSON of unknown keys, and under a known field's name what is stored there where the
field's value does not say it: a bad value, or a timestamp stored as a number. It counts as long as the field
is absent or still what the number means; use `updated` to set fields, which drops it.
"""

import dataclasses
import json
import os.path
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from octuefs.errors import BadValue
from octuefs.model.fields import (
    NO_LABELS,
    NO_TAGS,
    check_tag_key,
    check_tags,
    labels_text,
    parse_id,
    parse_labels,
    parse_name,
    parse_sdk_version,
    parse_tags,
    parse_timestamp,
    tag_text,
    tags_text,
    timestamp_text,
)
from octuefs.model.hashes import hash_of_text
from octuefs.model.values import (
    MAX_DEPTH,
    BareText,
    TooDeep,
    check_depth,
    json_value,
    load_json,
    revive,
    sdk_repr,
    stored_form,
)

__all__ = [
    "SDK_VERSION",
    "BareText",
    "DatafileMetadata",
    "DatasetMetadata",
    "OctueDocument",
    "check_tag_key",
    "custom_metadata_patch",
    "datafile_metadata_hash",
    "datafile_record",
    "dataset_metadata_hash",
    "dataset_record",
    "decode_custom_metadata",
    "decode_dataset_record",
    "decode_octue",
    "encode_custom_metadata",
    "encode_octue",
    "extension_of",
    "labels_text",
    "parse_id",
    "parse_labels",
    "parse_tags",
    "parse_timestamp",
    "tag_text",
    "tags_text",
    "timestamp_text",
    "updated",
]

CUSTOM_PREFIX = "octue__"
"""What the names of Octue's custom metadata begin with."""

SDK_VERSION = "0.69.1"
"""The `sdk_version` of records that octuefs makes."""

_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class DatafileMetadata:
    """What is stored of one datafile. Labels are interned and empty collections shared: there may be millions."""

    id: str | None = None
    timestamp: datetime | None = None
    tags: Mapping[str, Any] = field(default_factory=lambda: NO_TAGS)
    labels: frozenset[str] = NO_LABELS
    sdk_version: str | None = None
    unread: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, slots=True)
class DatasetMetadata:
    """What is stored of a dataset itself; `files` are the paths of a dataset that names its files."""

    id: str | None = None
    name: str | None = None
    tags: Mapping[str, Any] = field(default_factory=lambda: NO_TAGS)
    labels: frozenset[str] = NO_LABELS
    files: tuple[str, ...] | None = None
    unread: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, slots=True)
class OctueDocument:
    """One `.octue` file: the records of a folder's files by basename, and the dataset's own in its root.

    `unread` holds the unknown top-level keys, and what `datafiles` and `dataset` hold that is no record.
    `order` is the stored order of the top-level keys.
    """

    datafiles: dict[str, DatafileMetadata] = field(default_factory=dict)
    dataset: DatasetMetadata | None = None
    unread: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    order: tuple[str, ...] = field(default=(), compare=False)


Record = TypeVar("Record", DatafileMetadata, DatasetMetadata)


def updated(record: Record, **fields: Any) -> Record:
    """Return a record with some fields set, and with what was unread of them forgotten."""
    unread = {key: value for key, value in record.unread.items() if key not in fields}
    return dataclasses.replace(record, **fields, unread=unread or _NOTHING)


def extension_of(name: str) -> str:
    """Return the extension of a file's name, case kept, without its dot; "" for none."""
    return os.path.splitext(name)[1][1:]


# --- reading


def _parse_files(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, list) and all(isinstance(path, str) for path in value):
        return tuple(value)
    raise BadValue("it is no list of paths")


Parsers = Mapping[str, Callable[[Any], Any]]

_DATAFILE_PARSERS: Parsers = {
    "id": parse_id,
    "timestamp": lambda stored: parse_timestamp(revive(stored)),
    "tags": parse_tags,
    "labels": lambda stored: parse_labels(revive(stored)),
    "sdk_version": parse_sdk_version,
}
_DATASET_PARSERS: Parsers = {
    "id": parse_id,
    "name": parse_name,
    "tags": parse_tags,
    "labels": lambda stored: parse_labels(revive(stored)),
    "files": _parse_files,
}
_PLAIN_DATASET_PARSERS: Parsers = {**_DATASET_PARSERS, "tags": check_tags}


_LEVELS_ABOVE_FIELDS = 3
"""A field's value lies in a record, in `datafiles`, in the document."""


def _read_fields(stored: Mapping[str, Any], parsers: Parsers, subject: str, problems: list[str]) -> dict[str, Any]:
    """Return the fields of a record, `unread` among them."""
    fields: dict[str, Any] = {}
    unread: dict[str, Any] = {}
    for key, value in stored.items():
        parser = parsers.get(key)
        if parser is None:
            unread[key] = value
            continue
        try:
            fields[key] = parser(value)
        except BadValue as error:
            problems.append(f"{subject}: {key}: {error}")
            unread[key] = value
        else:
            if (key == "timestamp" and isinstance(value, int | float)) or (key == "name" and value == ""):
                unread[key] = value
    fields["unread"] = unread or _NOTHING
    return fields


def decode_octue(data: bytes) -> tuple[OctueDocument, list[str]]:
    """Read a `.octue` file; whatever it holds, return what is sound of it, and the problems in words."""
    try:
        content = load_json(data.decode("utf-8"))
        if not isinstance(content, dict):
            raise BadValue("it holds no JSON object")
        check_depth(content, MAX_DEPTH + _LEVELS_ABOVE_FIELDS)
        return _decode_content(content)
    except UnicodeDecodeError as error:
        reason = f"it is not UTF-8 (at byte {error.start})"
    except BadValue as error:
        reason = str(error)
    return OctueDocument(), [f"malformed, it counts as no metadata: {reason}"]


def _decode_content(content: dict[str, Any]) -> tuple[OctueDocument, list[str]]:
    problems: list[str] = []
    unread = {key: value for key, value in content.items() if key not in ("datafiles", "dataset")}
    datafiles, leftover = _decode_datafiles(content.get("datafiles"), problems)
    if leftover is not None:
        unread["datafiles"] = leftover
    dataset = None
    if stored := content.get("dataset"):
        dataset, record_problems = _decode_dataset(stored, _DATASET_PARSERS)
        problems += record_problems
        if dataset is None:
            unread["dataset"] = stored
    return OctueDocument(datafiles, dataset, unread or _NOTHING, tuple(content)), problems


def _decode_datafiles(stored: Any, problems: list[str]) -> tuple[dict[str, DatafileMetadata], Any]:
    """Return the records, and what is there besides them (None for nothing)."""
    if not stored:
        if stored is not None and not isinstance(stored, dict):
            problems.append("datafiles: it is no object")
        return {}, None
    if not isinstance(stored, dict):
        problems.append("datafiles: it is no object")
        return {}, stored
    records: dict[str, DatafileMetadata] = {}
    leftover: dict[str, Any] = {}
    for name, record in stored.items():
        if isinstance(record, dict):
            fields = _read_fields(record, _DATAFILE_PARSERS, f"datafile {name!r}", problems)
            records[name] = DatafileMetadata(**fields)
            continue
        leftover[name] = record
        if record is not None:
            problems.append(f"datafile {name!r}: its record is no object")
    return records, leftover or None


def decode_dataset_record(obj: Any, *, revive_types: bool) -> tuple[DatasetMetadata | None, list[str]]:
    """Read a dataset's own record from parsed JSON; None where it is no object.

    Without `revive_types` the objects in tags that name a `_type` stay objects: the SDK reads the `.octue` of a
    cloud dataset so. Labels are read in both forms.
    """
    try:
        check_depth(obj, MAX_DEPTH + 1)
        return _decode_dataset(obj, _DATASET_PARSERS if revive_types else _PLAIN_DATASET_PARSERS)
    except TooDeep as error:
        return None, [f"dataset: {error}"]


def _decode_dataset(stored: Any, parsers: Parsers) -> tuple[DatasetMetadata | None, list[str]]:
    if not isinstance(stored, Mapping):
        return None, ["dataset: its record is no object"]
    problems: list[str] = []
    return DatasetMetadata(**_read_fields(stored, parsers, "dataset", problems)), problems


def decode_custom_metadata(custom: Mapping[str, str]) -> tuple[DatafileMetadata | None, list[str]]:
    """Read the metadata of a datafile from an object's custom metadata; None where there is none of Octue's.

    Fields count without their prefix where the prefixed key is missing; a bad one of those is not kept in
    `unread`, because it is not ours to write.
    """
    stored: dict[str, Any] = {}
    foreign = set()
    for key in _UNPREFIXED:
        if key in custom and CUSTOM_PREFIX + key not in custom:
            stored[key] = _custom_value(key, custom[key])
            foreign.add(key)
    for key, text in custom.items():
        if key.startswith(CUSTOM_PREFIX):
            name = key.removeprefix(CUSTOM_PREFIX)
            stored[name] = _custom_value(name, text)
    if not stored:
        return None, []
    problems: list[str] = []
    fields = _read_fields(stored, _DATAFILE_PARSERS, "custom metadata", problems)
    if foreign & fields["unread"].keys():
        fields["unread"] = {key: value for key, value in fields["unread"].items() if key not in foreign} or _NOTHING
    return DatafileMetadata(**fields), problems


_UNPREFIXED = ("id", "timestamp", "tags", "labels")
_TEXT_FIELDS = frozenset({"id", "labels", "sdk_version"})
"""Fields whose bare text may happen to be JSON: the label `2024`, an ID of digits."""


def _custom_value(name: str, text: str) -> Any:
    try:
        value = json_value(text)
    except BadValue:
        return BareText(text)
    if name in _TEXT_FIELDS and isinstance(value, int | float):
        return BareText(text)
    return value


# --- writing


def _with_unread(fields: dict[str, Any], absent: Collection[str], unread: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON of a record: its fields in order, then the unknown keys.

    What is unread of a field stands in for it where the field is `absent`; without it an absent field whose
    JSON would be null is left out, but a timestamp, which the SDK always writes.
    """
    record = {}
    for key, value in fields.items():
        if key in unread and key in absent:
            record[key] = unread[key]
        elif value is not None or key == "timestamp":
            record[key] = value
    record.update((key, value) for key, value in unread.items() if key not in fields)
    return record


def datafile_record(metadata: DatafileMetadata) -> dict[str, Any]:
    """Return a datafile's record as the JSON of a `.octue` file."""
    fields = {
        "id": metadata.id,
        "timestamp": stored_form(metadata.timestamp),
        "tags": stored_form(metadata.tags),
        "labels": stored_form(metadata.labels),
        "sdk_version": metadata.sdk_version,
    }
    if not metadata.unread:
        return _with_unread(fields, (), _NOTHING)
    absent = {key for key in fields if not getattr(metadata, key)}
    if "timestamp" in metadata.unread and _means(metadata.unread["timestamp"], metadata.timestamp):
        absent.add("timestamp")
    return _with_unread(fields, absent, metadata.unread)


def _means(stored: Any, timestamp: datetime | None) -> bool:
    try:
        return parse_timestamp(stored) == timestamp
    except BadValue:
        return False


def dataset_record(metadata: DatasetMetadata) -> dict[str, Any]:
    """Return a dataset's record as the JSON of a `.octue` file, labels as a plain list.

    Values inside tags keep their `_type`; those of a cloud dataset were never revived and stay as they are.
    """
    fields = {
        "id": metadata.id,
        "name": metadata.name,
        "tags": stored_form(metadata.tags),
        "labels": sorted(metadata.labels),
    }
    absent = {key for key in fields if not getattr(metadata, key)}
    unread = dict(metadata.unread)
    if metadata.files is not None:
        unread.pop("files", None)
        unread["files"] = list(metadata.files)
    return _with_unread(fields, absent, unread)


def encode_octue(document: OctueDocument) -> bytes:
    """Return a document as the SDK would write it; one without anything in it is an empty object."""
    parts: dict[str, Any] = {
        "datafiles": {name: datafile_record(metadata) for name, metadata in document.datafiles.items()},
        "dataset": dataset_record(document.dataset) if document.dataset is not None else None,
    }
    for key, value in document.unread.items():
        if key == "datafiles" and isinstance(value, Mapping):
            parts[key] = {**value, **parts[key]}
        elif not parts.get(key):
            parts[key] = value
    order = dict.fromkeys((*document.order, *parts))
    known = ("datafiles", "dataset")
    content = {key: parts[key] for key in order if key in parts and (parts[key] or key not in known)}
    return (_indented(content) + "\n").encode("ascii")


def _indented(value: object) -> str:
    """Return what `json.dumps(value, indent=4)` does, in a third of the time: its fast encoder knows no indent."""
    text = json.dumps(value)
    try:
        return msgspec.json.format(text, indent=4)
    except msgspec.DecodeError:  # NaN and the like are no JSON, and halves of characters no text
        return json.dumps(value, indent=4)


def encode_custom_metadata(metadata: DatafileMetadata) -> dict[str, str]:
    """Return a datafile's metadata as custom metadata of an object: each value a JSON text on one line."""
    return {CUSTOM_PREFIX + key: _custom_text(value) for key, value in datafile_record(metadata).items()}


_EMPTY_FORMS = {"timestamp": None, "tags": {}, "labels": {"_type": "set", "items": []}}
"""What the SDK stores of fields without a value; an absent ID or version has none."""


def custom_metadata_patch(
    old_custom: Mapping[str, str], old: DatafileMetadata, new: DatafileMetadata
) -> dict[str, str | None]:
    """Return what to change in an object's custom metadata to make `new` of `old`; None removes a key.

    `old` is what `decode_custom_metadata` made of `old_custom`. Only what changed is sent, but a first record is sent
    as a whole, as the SDK does. A field that was cleared is stored in its empty form; a record with nothing at all
    in it removes every key of Octue's, as far as no key without the prefix would count instead.
    """
    before, after = datafile_record(old), datafile_record(new)
    present = {key.removeprefix(CUSTOM_PREFIX) for key in old_custom if key.startswith(CUSTOM_PREFIX)}
    foreign = {key for key in _UNPREFIXED if key in old_custom}
    if new == DatafileMetadata():
        removed = dict.fromkeys(present)
        emptied = {key: json.dumps(form) for key, form in _EMPTY_FORMS.items() if key in foreign}
        return _prefixed({**removed, **emptied})
    texts = {key: _custom_text(value) for key, value in after.items()}
    changed = {key for key in after if key not in before or texts[key] != _custom_text(before[key])}
    gone = present & (before.keys() - after.keys())
    if not changed and not gone:
        return {}
    if not present:
        changed |= after.keys() - foreign
    return _prefixed({**{key: text for key, text in texts.items() if key in changed}, **dict.fromkeys(gone)})


def _prefixed(custom: Mapping[str, str | None]) -> dict[str, str | None]:
    return {CUSTOM_PREFIX + key: text for key, text in custom.items()}


def _custom_text(value: Any) -> str:
    return str(value) if isinstance(value, BareText) else json.dumps(value)


# --- hashes


def _labels_repr(labels: Collection[str]) -> str:
    return "LabelSet({" + ", ".join(map(repr, sorted(labels))) + "})" if labels else "LabelSet()"


def datafile_metadata_hash(metadata: DatafileMetadata) -> str:
    """Return the hash of a datafile's metadata, the same in every zone."""
    return hash_of_text(
        f"[('labels', {_labels_repr(metadata.labels)}), ('tags', {sdk_repr(metadata.tags)}), "
        f"('timestamp', {sdk_repr(metadata.timestamp)})]"
    )


def dataset_metadata_hash(metadata: DatasetMetadata, name: str) -> str:
    """Return the hash of a dataset's metadata; `name` is the stored one, else the folder's."""
    return hash_of_text(
        f"[('labels', {_labels_repr(metadata.labels)}), ('name', {name!r}), ('tags', {sdk_repr(metadata.tags)})]"
    )
