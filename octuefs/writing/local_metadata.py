"""Metadata of a local dataset, as its writer changes it: single records, and whole `.octue` files that are written.

A change is in the index and in the journal when its call returns; `documents.py` writes it into the file. The index's
lock is held from looking a record up until its successor is published and queued, so that none is lost between two.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from octuefs.datafile import NO_METADATA, Datafile
from octuefs.entries import DatafileSeen, FolderGone, Other
from octuefs.errors import BadValue, LocalFailure, NotFound, NotPermitted, OctuefsError
from octuefs.keeper import Keeper
from octuefs.model.changes import MetadataChange, copied, difference, first_record
from octuefs.model.metadata import (
    DatafileMetadata,
    DatasetMetadata,
    OctueDocument,
    Record,
    decode_octue,
    encode_octue,
    updated,
)
from octuefs.model.paths import METADATA_NAME, derived_id, join, parent_of
from octuefs.report import Report
from octuefs.stored_metadata import LARGEST_FILE
from octuefs.stores.base import ObjectInfo
from octuefs.writing.documents import Documents
from octuefs.writing.journal import Journal
from octuefs.writing.local_facts import LocalFacts, with_metadata
from octuefs.writing.pending_records import PendingRecord
from octuefs.writing.recent import RecentNames, without_anothers_id


class LocalMetadata:
    """Changes metadata. Any thread may call."""

    def __init__(
        self,
        keeper: Keeper,
        facts: LocalFacts,
        journal: Journal,
        documents: Documents,
        report: Report,
        recent: RecentNames,
        keep_text: Callable[[str, bytes, str], object],
    ) -> None:
        """`keep_text` takes (path, text, reason) of what could not be stored."""
        self._stored = keeper.stored
        self._location = keeper.location
        self._facts = facts
        self._index = keeper.index
        self._journal = journal
        self._documents = documents
        self._report = report
        self._recent = recent
        self._keep_text = keep_text

    def first(
        self, path: str, info: ObjectInfo, change: MetadataChange, like: DatafileMetadata | None = None
    ) -> DatafileMetadata | None:
        """Return the metadata that a new name begins with, and queue what is not stored yet.

        It takes the record that waits for it, else that of the file that it is another name of (`like`), else what
        the name had until a moment ago.
        """
        recent = self.recent(path)
        record = self._facts.record_at(path)
        is_pending = self._documents.state(path) != "clean"
        if record is not None and change:
            own_id = self.new_id(path)
            self._documents.add(path, change, info.inode, own_id)
            return first_record(change.apply(record), own_id)
        wanted = record
        if record is None:
            beginning = copied(like) if like is not None else recent or NO_METADATA
            wanted = change.apply(beginning) if change else beginning
            wanted = first_record(wanted, self.new_id(path)) if wanted != NO_METADATA else None
        if is_pending or wanted is not record:  # what was pending was meant for no file, and is for this one now
            self._documents.replace({path: PendingRecord(inode=info.inode, replaces=True, record=wanted)})
        return wanted

    def recent(self, path: str) -> DatafileMetadata | None:
        """Return what a name had that is made anew, once."""
        recent = self._recent.take(path)
        return without_anothers_id(recent, path, self._index) if recent is not None else None

    def new_id(self, path: str) -> str:
        """Return the ID that a first record of a file gets."""
        return self._index.new_id(path, self._location)

    def describe(self, path: str, change: MetadataChange) -> None:
        """See `Writer`."""
        with self._index.lock:
            known = self._index.entry(path)
            if known is None:
                raise NotFound(f"{self._location.of(path)}: No such file or directory")
            if not isinstance(known, Datafile):
                raise NotPermitted(f"{self._location.of(path)}: it is no datafile, so it has no metadata")
            wanted = change.apply(known.metadata)
            if not difference(known.metadata, wanted):
                return
            own_id = known.metadata.id or self.new_id(path)
            before = self._documents.add(path, change, known.info.inode, own_id)
            new = with_metadata(known, first_record(wanted, own_id))
            self._index.publish([DatafileSeen(new)])

        def undo() -> None:
            self._documents.undo(path, before)
            if self._index.entry(path) is new:
                self._index.publish([DatafileSeen(known)])

        self._make_durable(path, undo)

    def describe_dataset(self, change: MetadataChange) -> None:
        """See `Writer`."""
        with self._index.lock:
            known = self._stored.dataset
            present = known or DatasetMetadata()
            wanted = change.apply(present)
            if not difference(present, wanted):
                return
            own_id = derived_id(str(self._location))
            before = self._documents.add("", change, 0, own_id)
            self._stored.dataset = first_record(wanted, own_id)
            self._index.publish([FolderGone("")])  # changes nothing but the version, for what is derived from it

        def undo() -> None:
            self._documents.undo("", before)
            self._stored.dataset = known

        self._make_durable("", undo)

    def _make_durable(self, path: str, undo: Callable[[], None]) -> None:
        """Return once a change that was queued is on the disk, in the journal or in the file itself.

        :raise LocalFailure: where it can be in neither; it is undone then
        """
        try:
            self._journal.settle()
        except LocalFailure:
            with suppress(OctuefsError):
                self._documents.flush(parent_of(path))
            if self._documents.state(path) == "clean":
                return
            with self._index.lock:
                undo()
            raise

    # --- records of files that come later

    def waiting(self, folder: str) -> Mapping[str, DatafileMetadata]:
        """See `Writer`."""
        records = self._facts.records(folder)
        return {name: record for name, record in records.items() if self._index.entry(join(folder, name)) is None}

    def store_records(self, folder: str, records: Mapping[str, DatafileMetadata]) -> None:
        """See `Writer`."""
        paths = {join(folder, name): record for name, record in records.items()}
        self._documents.replace(
            {
                path: PendingRecord(replaces=True, record=first_record(record, self.new_id(path)))
                for path, record in paths.items()
                if self._index.entry(path) is None
            }
        )
        try:
            self._journal.settle()
        except LocalFailure:
            self._documents.flush(folder)

    # --- whole files

    def store_document(self, folder: str, data: bytes) -> None:
        """See `Writer`."""
        path = join(folder, METADATA_NAME)
        try:
            document = _read(path, data)
            self._documents.rewrite(folder, lambda present: self._completed(folder, document, present, data))
        except OctuefsError as error:
            self._keep_text(path, data, str(error))
            raise
        self._recent.written(join(folder, name) for name in document.datafiles)
        self._facts.look(path)

    def remove_document(self, folder: str) -> None:
        """See `Writer`."""
        path = join(folder, METADATA_NAME)
        if not (isinstance(self._index.entry(path), Other) or self._documents.has(folder)):
            raise NotFound(f"{self._location.of(path)}: No such file or directory")
        self._documents.rewrite(folder, lambda present: None)
        self._facts.look(path)

    def _completed(self, folder: str, document: OctueDocument, present: OctueDocument, data: bytes) -> bytes:
        """Return the text of a written document with the IDs that are stored: as it was written where it has them."""
        records = {
            name: self._with_stored_id(join(folder, name), record, present.datafiles.get(name))
            for name, record in document.datafiles.items()
        }
        taken = {record.id for record in records.values() if record.id}
        for name, record in records.items():
            own_id = record.id or self._index.new_id(join(folder, name), self._location, taken)
            taken.add(own_id)
            records[name] = first_record(record, own_id)
        dataset = document.dataset
        if dataset is not None:
            dataset = self._with_stored_id(folder, dataset, present.dataset)
            dataset = first_record(dataset, derived_id(self._location.of(folder)))
        new = replace(document, datafiles=records, dataset=dataset)
        return data if new == document else encode_octue(new)

    def _with_stored_id(self, path: str, record: Record, stored: Record | None) -> Record:
        if stored is None or not stored.id or stored.id == record.id:
            return record
        if record.id:
            full_path = self._location.of(path)
            self._report.failure(f"{full_path}: its stored ID {stored.id} is kept; {record.id} was written for it")
        return updated(record, id=stored.id)


def _read(path: str, data: bytes) -> OctueDocument:
    """Return the document that somebody wrote.

    :raise BadValue: where anything of it could not be read again
    """
    if not data.strip():
        raise BadValue(f"{path}: it is empty; remove it if its metadata are to go")
    if len(data) > LARGEST_FILE:
        raise BadValue(f"{path}: {len(data)} bytes are too many")
    document, problems = decode_octue(data)
    problems += [
        f"{name!r} is no name of a file" for name in document.datafiles if "/" in name or name in ("", ".", "..")
    ]
    if problems:
        raise BadValue(f"{path}: it was not taken: {'; '.join(problems[:5])}")
    return document
