"""The metadata that a store keeps in `.octue` files: of the dataset, of its folders, and of files on a disk.

The keeper reads it as it finds the files changed; the tree asks for the records of datasets within a dataset. What
is wrong with a file is reported, never raised: a dataset with bad metadata still mounts.
"""

import json
import os
import posixpath
import threading
from collections.abc import Hashable, Iterable

from cachetools import LRUCache

from octuefs.errors import BadValue, NotFound, OctuefsError
from octuefs.model.metadata import DatasetMetadata, OctueDocument, decode_dataset_record, decode_octue
from octuefs.model.paths import METADATA_NAME, LocalLocation, join, name_of, parent_of
from octuefs.report import Report
from octuefs.stores.base import Store

LARGEST_FILE = 1 << 30
_REMEMBERED_RECORDS = 1024


class StoredMetadata:
    """What is stored beside the files of one dataset."""

    def __init__(self, store: Store, report: Report) -> None:
        self._store = store
        self._report = report
        self.dataset: DatasetMetadata | None = None
        """What is stored of the dataset itself, None where nothing is."""
        self.named: frozenset[str] | None = None
        """The paths of the only files that the dataset has, where its record names them; None for all."""
        self._named_folders: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        self._records: LRUCache[str, tuple[Hashable, DatasetMetadata | None]] = LRUCache(_REMEMBERED_RECORDS)

    def document(self, folder: str) -> OctueDocument:
        """Return what a folder's `.octue` file on a disk says."""
        path = join(folder, METADATA_NAME)
        try:
            document, problems = decode_octue(self._store.read_small(path, LARGEST_FILE))
        except OctuefsError as error:
            # Nothing there is no problem; a FIFO or a link to nothing is.
            missing = isinstance(error, NotFound) and not self._stands_at(path)
            document, problems = OctueDocument(), [] if missing else [f"its metadata cannot be read: {error}"]
        self._report.set_problems(path, problems)
        return document

    def read_dataset(self, *, present: bool) -> None:
        """Take in the dataset's own record; `present` says whether there is a `.octue` file at all."""
        if not present:
            self.dataset = None
        else:
            self.dataset = self._cloud_record("") if self._store.in_cloud else self.document("").dataset
        self._name_files(self.dataset.files if self.dataset is not None else None)

    def record_within(self, folder: str, version: Hashable) -> DatasetMetadata | None:
        """Return the record in a folder's own `.octue` object of this version: a dataset within a cloud dataset."""
        with self._lock:
            known = self._records.get(folder)
        if known is None or known[0] != version:
            known = (version, self._cloud_record(folder))
            with self._lock:
                self._records[folder] = known
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
            self._report.set_problems(f"{METADATA_NAME}: missing files", problems)

    def _name_files(self, files: tuple[str, ...] | None) -> None:
        """Take the list of files of a dataset's record; an empty one means none on a disk, all in the cloud."""
        if files is None or (not files and self._store.in_cloud):
            self.named, self._named_folders = None, frozenset()
            return
        places = {file: self._place_of(file) for file in files}
        self.named = frozenset(place for place in places.values() if place is not None)
        folders: set[str] = set()
        for place in self.named:
            while place := parent_of(place):
                folders.add(place)
        self._named_folders = frozenset(folders)
        outside = [
            f"it names a file outside of the dataset, which is not shown: {file}" for file in files if not places[file]
        ]
        self._report.set_problems(f"{METADATA_NAME}: files", outside)

    def _place_of(self, file: str) -> str | None:
        """Return the path in the dataset of a file as a record names it, None for one outside."""
        location = self._store.location
        if isinstance(location, LocalLocation):
            roots = {location.path, os.path.realpath(location.path)}
            place = os.path.normpath(os.path.join(location.path, file))
        else:
            roots = {location.of("")}
            place = file
        for root in roots:
            if place.startswith(root.rstrip("/") + "/"):
                rest = posixpath.normpath(place[len(root.rstrip("/")) + 1 :])
                return rest if rest not in (".", "..") and not rest.startswith("../") else None
        return None

    def _cloud_record(self, folder: str) -> DatasetMetadata | None:
        path = join(folder, METADATA_NAME)
        problems: list[str] = []
        record: DatasetMetadata | None = None
        try:
            content = json.loads(self._store.read_small(path, LARGEST_FILE))
            if not isinstance(content, dict):
                raise BadValue("it holds no JSON object")
            if content.get("dataset"):
                record, problems = decode_dataset_record(content["dataset"], revive_types=False)
        except NotFound:
            pass
        except (ValueError, RecursionError) as error:
            problems = [f"it is malformed and counts as no metadata: {error}"]
        except OctuefsError as error:
            problems = [f"the dataset's metadata cannot be read: {error}"]
        self._report.set_problems(path, problems)
        return record

    def _stands_at(self, path: str) -> bool:
        try:
            self._store.stat(path)
        except OctuefsError:
            return False
        return True
