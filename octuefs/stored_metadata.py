"""The metadata that a store keeps in `.octue` files: of the dataset, of its folders, and of files on a disk.

The keeper reads it as it finds the files changed; the tree asks for the records of datasets within a dataset. What
is wrong with a file is reported: a dataset with bad metadata still mounts.
"""

import json
import os
import posixpath
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from cachetools import LRUCache

from octuefs.errors import BadValue, Conflict, LocalFailure, NotFound, OctuefsError, StoreUnavailable, TimedOut
from octuefs.model.listed_files import absolute_path, is_url
from octuefs.model.metadata import DatasetMetadata, OctueDocument, decode_dataset_record, decode_octue
from octuefs.model.paths import METADATA_NAME, LocalLocation, UrlLocation, join, name_of, parent_of
from octuefs.report import Report
from octuefs.stores.base import Store

LARGEST_FILE = 1 << 30
_REMEMBERED_RECORDS = 1024
_REMEMBERED_DOCUMENTS = 8
_REMEMBERED_TEXTS = 64
_FOR_NOW = (StoreUnavailable, TimedOut, Conflict, LocalFailure)
"""Failures that may pass: they do not mean that there is no metadata."""

_NOTHING = OctueDocument()


class StoredMetadata:
    """What is stored beside the files of one dataset."""

    def __init__(
        self,
        store: Store,
        report: Report,
        *,
        fixed: DatasetMetadata | None = None,
        given: DatasetMetadata | None = None,
    ) -> None:
        """`fixed` is the dataset's record instead of what is stored; of `given` counts what is not stored."""
        self._store = store
        self._report = report
        self._given = given
        self.is_fixed = False
        """True where the record is not the stored one, but was given in its place."""
        self.dataset: DatasetMetadata | None = given
        """What is stored of the dataset itself, None where nothing is."""
        self.raw_record: Any = None
        """The stored record of the dataset in a bucket as JSON has it, None for none."""
        self.named: frozenset[str] | None = None
        """The paths of the only files that the dataset has, where its record names them; None for all."""
        self._named_folders: frozenset[str] = frozenset()
        self.named_paths: tuple[str, ...] = ()
        """All files that the record names, each an absolute local path, a gs:// path or a URL."""
        self.outside: tuple[str, ...] = ()
        """Those of them that lie outside of the dataset, which a store of one folder cannot show."""
        self.overlay: Callable[[str, OctueDocument], OctueDocument] = lambda _, document: document
        """Adds to what a folder's file on a disk says what a writer has not written into it yet."""
        self._lock = threading.Lock()
        self._records: LRUCache[str, tuple[Hashable, DatasetMetadata | None]] = LRUCache(_REMEMBERED_RECORDS)
        self._texts: LRUCache[str, tuple[Hashable, bytes]] = LRUCache(_REMEMBERED_TEXTS)
        self._documents: LRUCache[str, tuple[Hashable, OctueDocument]] = LRUCache(_REMEMBERED_DOCUMENTS)
        if fixed is not None:
            self.fix(fixed)

    def fix(self, record: DatasetMetadata | None, problems: Sequence[str] = ()) -> None:
        """Take `record` for the dataset's own, whatever is stored; where it names files, they are all that there are.

        `problems` say in words what is wrong with it.
        """
        self.is_fixed = True
        self._name_files(record.files if record is not None else None)
        self.outside = ()
        self.dataset = replace(record, files=None) if record is not None else None
        self._report.set_problems("the dataset's given metadata", problems)

    def document(self, folder: str, version: Hashable = None) -> OctueDocument:
        """Return what a folder's `.octue` file on a disk says; remembered by its version, where that is given.

        :raise OctuefsError: where it could not be read this time, but may be the next
        """
        with self._lock:
            known = self._documents.get(folder)
        if known is not None and version is not None and known[0] == version:
            return self.overlay(folder, known[1])
        path = join(folder, METADATA_NAME)
        try:
            document, problems = decode_octue(self._store.read_small(path, LARGEST_FILE))
        except _FOR_NOW as error:
            self._report.failure(f"{path}: its metadata could not be read: {error}")
            raise
        except OctuefsError as error:
            # Nothing there is no problem; a FIFO or a link to nothing is.
            missing = isinstance(error, NotFound) and not self._stands_at(path)
            document, problems = OctueDocument(), [] if missing else [f"its metadata cannot be read: {error}"]
        self._report.set_problems(path, problems)
        with self._lock:
            self._documents[folder] = (version, document)
        return self.overlay(folder, document)

    def has_pending(self, folder: str) -> bool:
        """Say whether a writer has anything that is not written into a folder's file yet."""
        return self.overlay(folder, _NOTHING) is not _NOTHING

    def read_dataset(self, *, present: bool) -> bool:
        """Take in the dataset's own record and return True; `present` says whether there is a `.octue` at all.

        Where it could not be read this time, what was known stays, and False is returned.
        """
        if self.is_fixed:
            return True
        try:
            if not present:
                self.raw_record = None
                stored = self.overlay("", OctueDocument()).dataset
            else:
                stored = self._root_record() if self._store.in_cloud else self.document("").dataset
        except OctuefsError:
            return False
        self.dataset = self._completed(stored)
        self._name_files(self.dataset.files if self.dataset is not None else None)
        return True

    def restore(self, raw_record: Any) -> None:
        """Take in the dataset's own record as it was read from a bucket another time: what `raw_record` was then."""
        self.raw_record = raw_record
        record = decode_dataset_record(raw_record, revive_types=False)[0] if raw_record else None
        self.dataset = self._completed(record)
        self._name_files(self.dataset.files if self.dataset is not None else None)

    def _completed(self, stored: DatasetMetadata | None) -> DatasetMetadata | None:
        """Return the stored record with what it lacks of the given one.

        Who writes a record (the SDK, and octuefs) writes tags and labels even where there are none.
        """
        if stored is None or self._given is None:
            return stored or self._given
        return replace(stored, id=stored.id or self._given.id, name=stored.name or self._given.name)

    def record_within(self, folder: str, version: Hashable) -> DatasetMetadata | None:
        """Return the record in a folder's own `.octue` object of this version: a dataset within a cloud dataset.

        :raise OctuefsError: where it could not be read this time
        """
        with self._lock:
            known = self._records.get(folder)
        if known is None or known[0] != version:
            known = (version, self._cloud_record(folder))
            with self._lock:
                self._records[folder] = known
        return known[1]

    def text_within(self, folder: str, version: Hashable) -> bytes:
        """Return a `.octue` object as it is stored, of this version.

        :raise OctuefsError: where it cannot be read
        """
        with self._lock:
            known = self._texts.get(folder)
        if known is None or known[0] != version:
            known = (version, self._store.read_small(join(folder, METADATA_NAME), LARGEST_FILE))
            with self._lock:
                self._texts[folder] = known
        return known[1]

    def admits(self, path: str) -> bool:
        """Say whether a file belongs to the dataset, or is the metadata of files that do."""
        if self.named is None or path in self.named:
            return True
        return name_of(path) == METADATA_NAME and self.admits_folder(parent_of(path))

    def admits_folder(self, path: str) -> bool:
        """Say whether a folder leads to files of the dataset."""
        return self.named is None or not path or path in self._named_folders

    def note_missing(self, present: Iterable[str]) -> None:
        """Report the files that the dataset's record names and that are not among those `present`."""
        if self.named is not None:
            missing = sorted(self.named.difference(present))
            problems = [f"it names a file that is not there: {path}" for path in missing]
            subject = "files of the manifest" if self.is_fixed else METADATA_NAME
            self._report.set_problems(f"{subject}: missing", problems)

    def _name_files(self, files: tuple[str, ...] | None) -> None:
        """Take the list of files of a dataset's record; an empty one means none on a disk, all in the cloud."""
        if files is None or (not files and self._store.in_cloud):
            self.named, self._named_folders, self.named_paths, self.outside = None, frozenset(), (), ()
            self._report.set_problems(f"{METADATA_NAME}: files", [])
            return
        full_paths = {file: self._full_path(file) for file in files}
        places = {file: self._place_of(full_paths[file]) for file in files}
        self.named = frozenset(place for place in places.values() if place is not None)
        folders: set[str] = set()
        for place in self.named:
            while place := parent_of(place):
                folders.add(place)
        self._named_folders = frozenset(folders)
        self.named_paths = tuple(full_paths.values())
        self.outside = tuple(full_paths[file] for file in files if places[file] is None)

    def note_outside(self) -> None:
        """Report the files that the dataset's record names and that a store of one folder does not show."""
        problems = [
            "it names a file outside of the dataset, which shows when it is mounted again:"
            f" {UrlLocation(path) if is_url(path) else path}"
            for path in self.outside
        ]
        self._report.set_problems(f"{METADATA_NAME}: files", problems)

    def _full_path(self, file: str) -> str:
        """Return a file as a record names it by its whole path; what is none stands as it is."""
        try:
            return absolute_path(file, str(self._store.location))
        except BadValue:
            return file

    def _place_of(self, full_path: str) -> str | None:
        """Return the path in the dataset of a file by its whole path, None for one outside."""
        location = self._store.location
        roots = {str(location)}
        if isinstance(location, LocalLocation):
            roots.add(os.path.realpath(location.path))
        for root in roots:
            if full_path.startswith(root.rstrip("/") + "/"):
                rest = posixpath.normpath(full_path[len(root.rstrip("/")) + 1 :])
                return rest if rest not in (".", "..") and not rest.startswith("../") else None
        return None

    def _root_record(self) -> DatasetMetadata | None:
        record, self.raw_record = self._read_cloud_record("")
        return record

    def _cloud_record(self, folder: str) -> DatasetMetadata | None:
        return self._read_cloud_record(folder)[0]

    def _read_cloud_record(self, folder: str) -> tuple[DatasetMetadata | None, Any]:
        """Return the record in a folder's `.octue` object, and the JSON that it was read from."""
        path = join(folder, METADATA_NAME)
        problems: list[str] = []
        record: DatasetMetadata | None = None
        raw: Any = None
        try:
            content = json.loads(self._store.read_small(path, LARGEST_FILE))
            if not isinstance(content, dict):
                raise BadValue("it holds no JSON object")
            if content.get("dataset"):
                raw = content["dataset"]
                record, problems = decode_dataset_record(raw, revive_types=False)
        except NotFound:
            pass
        except _FOR_NOW as error:
            self._report.failure(f"{path}: the dataset's metadata could not be read: {error}")
            raise
        except (ValueError, RecursionError) as error:
            problems = [f"it is malformed and counts as no metadata: {error}"]
        except OctuefsError as error:
            problems = [f"the dataset's metadata cannot be read: {error}"]
        self._report.set_problems(path, problems)
        return record, raw

    def _stands_at(self, path: str) -> bool:
        try:
            self._store.stat(path)
        except OctuefsError:
            return False
        return True
