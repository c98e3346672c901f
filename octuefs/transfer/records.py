"""What the metadata of a local dataset is in a bucket, and the other way round. Pure: values in, values out.

A stored ID stays (DESIGN 3.2), and what a store holds besides is kept: foreign custom metadata, records of other files.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from octuefs.datafile import NO_METADATA
from octuefs.errors import BadValue
from octuefs.model.changes import first_record
from octuefs.model.metadata import (
    DatafileMetadata,
    DatasetMetadata,
    OctueDocument,
    custom_metadata_patch,
    decode_dataset_record,
    decode_octue,
    encode_octue,
)
from octuefs.model.paths import derived_id
from octuefs.model.values import load_json
from octuefs.writing.cloud_documents import with_dataset
from octuefs.writing.pending_records import is_malformed
from octuefs.writing.properties import checked, metadata_in, patched

_PATH = "path"
"""The key of a dataset's record under which the SDK writes where it lies."""


def custom_metadata_for(record: DatafileMetadata, present: Mapping[str, str], full_path: str) -> dict[str, str]:
    """Return the custom metadata of an object that is to have a file's record; without one they stay as they are.

    :raise TooBig: where it is more than an object can have
    """
    if record == NO_METADATA:
        return dict(present)
    old = metadata_in(present)
    new = first_record(replace(record, id=old.id or record.id), derived_id(full_path))
    return checked(patched(present, custom_metadata_patch(present, old, new)), full_path)


def read_document(path: str, text: bytes) -> OctueDocument:
    """Return what a local `.octue` holds.

    :raise BadValue: where it is malformed
    """
    document, problems = decode_octue(text)
    if is_malformed(document, problems):
        raise BadValue(f"{path}: {problems[0]}; mend it or move it away")
    return document


def cloud_object_for(document: OctueDocument, present: bytes | None, full_path: str) -> dict[str, Any] | None:
    """Return what the `.octue` object of a folder is to hold: the dataset's record, and keys that nobody knows.

    `present` is the text of the one that stands there, `full_path` the folder's gs:// path. None: nothing is to be
    stored, or what stands there says it already.
    """
    unknown = {key: value for key, value in document.unread.items() if key != "datafiles"}
    record = document.dataset
    if record is None and not unknown:
        return None
    stored = _content_of(present)
    content: dict[str, Any] = {**stored, **unknown}
    if record is not None:
        theirs = decode_dataset_record(stored.get("dataset"), revive_types=False)[0] if stored.get("dataset") else None
        content = with_dataset(content, _moved(record, theirs, full_path))
    return None if content == stored else content


def cloud_object_text(content: Mapping[str, Any]) -> bytes:
    """Return the text of a `.octue` object."""
    return json.dumps(content).encode()


def local_text_for(
    records: Mapping[str, DatafileMetadata], dataset: DatasetMetadata | None, present: bytes | None, full_path: str
) -> bytes | None:
    """Return the text of a folder's `.octue` file with the records of files and of the dataset in it.

    `present` is the text of the one that stands there, `full_path` the folder's local path. None: nothing is to be
    written, or what stands there says it already.

    :raise BadValue: where that one is malformed
    """
    if not records and dataset is None:
        return None
    stored = read_document(full_path, present) if present is not None and present.strip() else OctueDocument()
    datafiles = dict(stored.datafiles)
    for name, record in records.items():
        known = datafiles.get(name)
        datafiles[name] = replace(record, id=known.id or record.id) if known is not None else record
    own = stored.dataset if dataset is None else _moved(dataset, stored.dataset, full_path)
    text = encode_octue(replace(stored, datafiles=datafiles, dataset=own))
    return None if present == text else text


def check_no_record(path: str, text: bytes) -> None:
    """Raise where a `.octue` object of which no record was taken holds one.

    :raise BadValue: where it is malformed
    """
    try:
        content = load_json(text.decode())
    except (BadValue, UnicodeDecodeError) as error:
        raise BadValue(f"{path}: malformed, so its metadata were not taken: {error}") from None
    if not isinstance(content, dict) or content.get("dataset"):
        raise BadValue(f"{path}: the dataset's metadata in it could not be read; run the command again")


def _moved(record: DatasetMetadata, present: DatasetMetadata | None, full_path: str) -> DatasetMetadata:
    """Return a dataset's record for its new place: a list of files that came along names those of the old one."""
    unread = {**record.unread, _PATH: full_path} if _PATH in record.unread else record.unread
    own_id = (present.id if present is not None else None) or record.id
    return replace(record, id=own_id, files=present.files if present is not None else None, unread=unread)


def _content_of(text: bytes | None) -> dict[str, Any]:
    """Return what a `.octue` object holds; nothing where it is malformed."""
    if text is None:
        return {}
    try:
        content = load_json(text.decode())
    except (BadValue, UnicodeDecodeError):
        return {}
    return content if isinstance(content, dict) else {}
