"""What is written as `.octue` in a cloud dataset: records of files, which stand with their objects, and of datasets.

The text itself is not stored. A file's record becomes its object's metadata, or waits in the journal for the file to
come; a dataset's own record is the object `.octue` of its folder, in the form that the SDK reads: no `_type` in it.
"""

import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

import google_crc32c

from octuefs.datafile import NO_METADATA, Datafile
from octuefs.entries import Other
from octuefs.errors import BadValue, Conflict, NotFound, OctuefsError
from octuefs.model.changes import MetadataChange, difference, first_record, merge
from octuefs.model.metadata import (
    DatafileMetadata,
    DatasetMetadata,
    OctueDocument,
    datafile_record,
    dataset_record,
    decode_dataset_record,
    decode_octue,
    encode_custom_metadata,
)
from octuefs.model.paths import METADATA_NAME, derived_id, join, name_of, parent_of, problem_with_path, temporary_name
from octuefs.model.values import load_json
from octuefs.report import Report
from octuefs.stored_metadata import LARGEST_FILE, StoredMetadata
from octuefs.stores.base import ObjectInfo
from octuefs.stores.writing import ObjectProperties, ObjectStore, Precondition
from octuefs.writing.cloud_facts import CloudFacts, condition_of
from octuefs.writing.cloud_metadata import ATTEMPTS, CloudMetadata
from octuefs.writing.journal import Journal
from octuefs.writing.ordering import PathLocks, failures_of
from octuefs.writing.properties import checked
from octuefs.writing.recent import RecentNames
from octuefs.writing.sessions import DISPLACED

_WAITING = "waiting"
_CONTENT_TYPE = "text/plain"
"""As the SDK stores it."""

Content = dict[str, Any]
"""What a `.octue` object holds; {} where there is none."""


class CloudDocuments:
    """Takes `.octue` files and changes of datasets' own metadata. Any thread may call."""

    def __init__(
        self,
        store: ObjectStore,
        facts: CloudFacts,
        metadata: CloudMetadata,
        stored: StoredMetadata,
        journal: Journal,
        report: Report,
        *,
        paths: PathLocks,
        executor: Executor,
        keep_text: Callable[[str, bytes, str], object],
        recent: RecentNames,
    ) -> None:
        """`keep_text` takes (path, text, reason) of what could not be stored."""
        self._store = store
        self._facts = facts
        self._metadata = metadata
        self._stored = stored
        self._journal = journal
        self._report = report
        self._paths = paths
        self._executor = executor
        self._keep_text = keep_text
        self._recent = recent
        self._lock = threading.Lock()  # guards _waiting, for memory work alone
        self._waiting: dict[str, dict[str, DatafileMetadata]] = {}
        for path, record in journal.items(_WAITING).items():
            self._waiting.setdefault(parent_of(path), {})[name_of(path)] = _read_record(name_of(path), record)

    # --- records of files that are not there yet

    def keep_displaced(self) -> None:
        """Keep under `recovered/` the records that waited in earlier sessions for names for which others wait now.

        Of two mounts of one dataset that ended in a crash the later one's record counts.
        """
        for key, row in self._journal.items(DISPLACED).items():
            if row["kind"] != _WAITING:
                continue
            path = str(row["key"])
            text = json.dumps({"datafiles": {name_of(path): row["value"]}}, indent=4).encode()
            reason = "two mounts kept metadata for this file, which is to come; this one is the earlier"
            self._keep_text(f"{path}{METADATA_NAME}", text, reason)
            self._report.failure(f"{path}: {reason}; it is kept under .octuefs/recovered/")
            self._journal.drop(DISPLACED, key)

    def waiting(self, folder: str) -> Mapping[str, DatafileMetadata]:
        """Return the records that wait for files of a folder, by name."""
        with self._lock:
            return dict(self._waiting.get(folder, {}))

    def waiting_at(self, path: str) -> DatafileMetadata | None:
        """Return the record that waits for a file."""
        with self._lock:
            return self._waiting.get(parent_of(path), {}).get(name_of(path))

    def waiting_ids(self, folder: str) -> set[str]:
        """Return the IDs that records which wait for files of a folder have."""
        with self._lock:
            return {record.id for record in self._waiting.get(folder, {}).values() if record.id is not None}

    @property
    def waiting_count(self) -> int:
        """How many records wait for their files."""
        with self._lock:
            return sum(map(len, self._waiting.values()))

    def arrived(self, path: str) -> None:
        """Let go of the record that waited for a file, which has it now."""
        self._wait_for(parent_of(path), {name_of(path): None})

    def _wait_for(self, folder: str, records: Mapping[str, DatafileMetadata | None]) -> None:
        with self._lock:
            waiting = self._waiting.setdefault(folder, {})
            for name, record in records.items():
                if record is not None:
                    waiting[name] = record
                    self._journal.put(_WAITING, join(folder, name), datafile_record(record))
                elif waiting.pop(name, None) is not None:
                    self._journal.drop(_WAITING, join(folder, name))
            if not waiting:
                del self._waiting[folder]

    def moved_folder(self, old: str, new: str) -> None:
        """Let records that wait in a folder, or below, wait where the folder is now."""
        with self._lock:
            moved = {
                folder: dict(records)
                for folder, records in self._waiting.items()
                if folder == old or folder.startswith(f"{old}/")
            }
        for folder, records in moved.items():
            self._wait_for(new + folder[len(old) :], records)
            self._wait_for(folder, dict.fromkeys(records))

    def store_records(self, folder: str, records: Mapping[str, DatafileMetadata]) -> None:
        """Let records wait for files of a folder; a file that has come meanwhile is described."""
        for name, record in records.items():
            path = join(folder, name)
            checked(encode_custom_metadata(self._metadata.completed(path, record)), path)
        came = {name for name in records if isinstance(self._facts.index.entry(join(folder, name)), Datafile)}
        self._wait_for(folder, {name: record for name, record in records.items() if name not in came})
        for name in came:
            self._metadata.describe(join(folder, name), difference(NO_METADATA, records[name]))
        self._journal.settle()
        self._document_changed(folder)

    # --- a folder's `.octue`

    def store_document(self, folder: str, data: bytes) -> None:
        """Take the text of a folder's `.octue`; see `Writer`."""
        path = join(folder, METADATA_NAME)
        if not data.strip():
            raise BadValue(f"{path}: it is empty; remove it if its metadata are to go")
        try:
            self._facts.folder(folder)
            document = _read(path, data)
            self._check(folder, document)
            self._store_document(folder, document)
        except OctuefsError as error:
            self._keep_text(path, data, str(error))
            raise

    def _check(self, folder: str, document: OctueDocument) -> None:
        """Refuse, before anything is changed, what could not be stored."""
        for name, record in document.datafiles.items():
            path = join(folder, name)
            problem = "it has a slash" if "/" in name else problem_with_path(name)
            if problem:
                raise BadValue(f"{join(folder, METADATA_NAME)}: {name!r} is no name of a file: {problem}")
            checked(encode_custom_metadata(self._metadata.completed(path, record)), path)

    def _store_document(self, folder: str, document: OctueDocument) -> None:
        self._put_dataset_record(folder, document)
        present = {name_of(it.path): it for it in self._facts.children(folder) if isinstance(it, Datafile)}
        waiting = {name: record for name, record in document.datafiles.items() if name not in present}
        dropped = self.waiting(folder).keys() - waiting.keys()
        self._wait_for(folder, {**dict.fromkeys(dropped), **waiting})
        self._journal.settle()
        # The file is replaced as on a disk: whom it does not name any more has no metadata.
        named = document.datafiles
        self._replace_all({it.path: named.get(name) for name, it in present.items() if _differs(it, named.get(name))})
        self._recent.written(join(folder, name) for name in named)
        self._document_changed(folder)

    def remove_document(self, folder: str) -> None:
        """Remove a folder's `.octue`: the metadata of its files, and the dataset's."""
        self._facts.folder(folder)
        self._wait_for(folder, dict.fromkeys(self.waiting(folder)))
        self._journal.settle()
        described = [it for it in self._facts.children(folder) if isinstance(it, Datafile) and _differs(it, None)]
        self._replace_all({it.path: None for it in described})
        if isinstance(self._facts.index.entry(join(folder, METADATA_NAME)), Other):
            self._change_object(folder, lambda content: {})
        self._document_changed(folder)

    def _document_changed(self, folder: str) -> None:
        """Let the index have a new version, by which a folder's `.octue` is made anew: nothing ever has this name."""
        self._facts.publish(removed=[join(folder, temporary_name())])

    def _replace_all(self, records: Mapping[str, DatafileMetadata | None]) -> None:
        ids = {record.id for record in records.values() if record is not None and record.id is not None}

        def replace_one(path: str) -> None:
            try:
                self._metadata.replace_record(path, records[path], ids)
            except NotFound:
                if (record := records[path]) is not None:  # it went away meanwhile
                    self._wait_for(parent_of(path), {name_of(path): record})

        failures = failures_of(self._executor, replace_one, records)
        for path, error in failures.items():
            self._report.failure(f"{path}: its metadata could not be stored: {error}")
        for error in failures.values():
            raise error
        self._journal.settle()

    # --- a dataset's own record

    def describe_dataset(self, change: MetadataChange) -> None:
        """Change the dataset's own metadata.

        :raise Conflict: where another changed the same field
        """
        base = self._stored.dataset or DatasetMetadata()
        own_id = derived_id(str(self._facts.location))

        def changed(content: Content) -> Content:
            theirs = _dataset_of(content)
            new = merge(base, change, theirs or DatasetMetadata())
            return content if new == (theirs or DatasetMetadata()) else with_dataset(content, first_record(new, own_id))

        if change:
            self._change_object("", changed)

    def _put_dataset_record(self, folder: str, document: OctueDocument) -> None:
        """Let a document's dataset record, and what we do not know of it, be what the `.octue` object holds."""
        unknown = {key: value for key, value in document.unread.items() if key != "datafiles"}
        record = document.dataset

        def replaced(content: Content) -> Content:
            if record is None:
                return dict(unknown)
            present = _dataset_of(content)
            # A list of files that came along names those of another place.
            new = replace(record, files=present.files if present is not None else None)
            if present is not None and present.id and present.id != record.id:
                if record.id:
                    self._report.failure(
                        f"{folder or 'the dataset'}: its stored ID {present.id} is kept; {record.id} was written for it"
                    )
                new = replace(new, id=present.id)
            return with_dataset(unknown, new)

        if record is not None or unknown or isinstance(self._facts.index.entry(join(folder, METADATA_NAME)), Other):
            self._change_object(folder, replaced)

    def _change_object(self, folder: str, change: Callable[[Content], Content]) -> None:
        """Read a `.octue` object, change what it holds, and store or remove it, whatever others do meanwhile."""
        path = join(folder, METADATA_NAME)
        with self._paths.hold(path):
            for _ in range(ATTEMPTS):
                info, present, malformed = self._read_object(path)
                content = change(present)
                if content == present and not malformed:
                    break
                try:
                    info = self._write_object(path, info, content)
                    break
                except Conflict:
                    continue
            else:
                raise Conflict(f"{path}: it keeps changing; nothing was changed, try again")
            if not folder:
                self._stored.dataset = _dataset_of(content)
            if info is not None:
                self._facts.publish(info)
            elif self._facts.index.entry(path) is not None:
                self._facts.publish(removed=[path])

    def _read_object(self, path: str) -> tuple[ObjectInfo | None, Content, bool]:
        """Return a `.octue` object, what it holds, and whether that is malformed (its text is kept then)."""
        for last in (False, True):
            try:
                info = self._store.stat(path)
                if info.size > LARGEST_FILE:
                    raise BadValue(f"{path}: {info.size} bytes; it is not changed")
                data = self._store.open(info).read(0, info.size)
            except NotFound:
                return None, {}, False
            except Conflict:  # replaced in between
                if last:
                    raise
                continue
            try:
                content = load_json(data.decode())
            except (BadValue, UnicodeDecodeError) as error:
                content, reason = None, str(error)
            else:
                reason = "it holds no JSON object"
            if not isinstance(content, dict):
                self._keep_text(path, data, f"it was replaced, because it was malformed: {reason}")
                return info, {}, True
            return info, content, False
        raise AssertionError

    def _write_object(self, path: str, present: ObjectInfo | None, content: Content) -> ObjectInfo | None:
        """Store or remove it if `present` still stands.

        :raise Conflict: where another version stands that is not what we stored
        """
        if not content:
            if present is not None:
                with self._facts.leaving(path):
                    with suppress(NotFound):
                        self._store.delete(path, condition_of(present))
                    self._facts.publish(removed=[path])
            return None
        data = json.dumps(content).encode()
        checksum = int(google_crc32c.value(data))
        if present is None:
            properties, condition = ObjectProperties({}, {"contentType": _CONTENT_TYPE}), Precondition(0)
        else:
            properties = ObjectProperties(present.custom_metadata or {}, present.properties)
            condition = condition_of(present)
        try:
            return self._store.upload(
                path, lambda offset, size: data[offset : offset + size], len(data), checksum, properties, condition
            )
        except Conflict:
            try:
                stands = self._store.stat(path)
            except NotFound:
                raise Conflict(f"{path}: it was removed meanwhile") from None
            if (stands.crc32c, stands.size) != (checksum, len(data)):
                raise
            return stands  # our own doing, its answer was lost


def _read(path: str, data: bytes) -> OctueDocument:
    if len(data) > LARGEST_FILE:
        raise BadValue(f"{path}: {len(data)} bytes are too many")
    document, problems = decode_octue(data)
    if problems:
        raise BadValue(f"{path}: it was not taken: {'; '.join(problems[:5])}")
    return document


def _read_record(name: str, record: Mapping[str, Any]) -> DatafileMetadata:
    document, _ = decode_octue(json.dumps({"datafiles": {name: record}}).encode())
    return document.datafiles[name]


def _differs(datafile: Datafile, record: DatafileMetadata | None) -> bool:
    """Say whether a file is to get another record; one that is without metadata gets no removal of it."""
    return record is not None or datafile.metadata != NO_METADATA


def _dataset_of(content: Content) -> DatasetMetadata | None:
    stored = content.get("dataset")
    return decode_dataset_record(stored, revive_types=False)[0] if stored else None


def with_dataset(content: Content, record: DatasetMetadata) -> Content:
    return {**content, "dataset": dataset_record(replace(record, tags=_plain(record.tags)))}


def _plain(value: Any) -> Any:
    """Return a value without what JSON lacks: the SDK reads the `.octue` of a cloud dataset without its decoder."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return [_plain(item) for item in sorted(value, key=lambda item: (type(item).__name__, repr(item)))]
    return value.isoformat() if isinstance(value, datetime) else value
