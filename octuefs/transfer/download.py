"""A dataset out of a bucket into a local folder: what `cp -r` out of a mount of it makes, many requests at a time.

Each file is written under a temporary name in its folder and takes its place when its checksum is proven; what stands
there with the same bytes is left alone, and what has others is replaced. Nothing is ever removed, and no symbolic link
is followed: the local store opens every path beneath the folder.
"""

import os
import stat
import threading
import time
from contextlib import suppress

from octuefs.content.pieces import copy_pieces
from octuefs.datafile import NO_METADATA, Datafile
from octuefs.dataset import Dataset
from octuefs.entries import Folder, Other
from octuefs.errors import (
    AlreadyExists,
    ChecksumMismatch,
    IsADirectory,
    NotADirectory,
    NotFound,
    OctuefsError,
)
from octuefs.model.metadata import DatafileMetadata, decode_custom_metadata
from octuefs.model.paths import (
    METADATA_NAME,
    SIGNED_METADATA_NAME,
    join,
    name_of,
    parent_of,
    path_bytes,
    temporary_name,
)
from octuefs.stored_metadata import LARGEST_FILE
from octuefs.stores.base import Kind, ObjectInfo
from octuefs.stores.writing import DiskStore
from octuefs.transfer.jobs import LARGE_BYTES, PIECES_AT_ONCE, Job, Outcome, Progress, run_jobs, walk
from octuefs.transfer.records import check_no_record, local_text_for
from octuefs.writing.properties import MODE_KEY, permissions, stored_mtime

_LEFT_BEHIND_SECONDS = 30.0
"""A temporary file that nobody has written to for so long, and during this download, belongs to nobody."""


def download(dataset: Dataset, target: Dataset, disk: DiskStore, outcome: Outcome, progress: Progress) -> None:
    """Write a cloud dataset, with its metadata, into a folder; what came of it stands in `outcome`.

    :param target: the dataset that the folder is already
    :param disk: the same folder
    """
    _Download(dataset, target, disk, outcome, progress).run()


class _Download:
    def __init__(
        self, dataset: Dataset, target: Dataset, disk: DiskStore, outcome: Outcome, progress: Progress
    ) -> None:
        self._dataset = dataset
        self._target = target
        self._disk = disk
        self._outcome = outcome
        self._progress = progress
        self._lock = threading.Lock()  # guards _records
        self._records: dict[str, dict[str, DatafileMetadata]] = {}
        """By folder and name: what is to stand in `.octue` files, of files that are there with their bytes."""

    def run(self) -> None:
        """Do it."""
        leftovers = list(self._target.keeper.leftovers)
        jobs: list[Job] = []
        folders = [self._dataset.index.root]
        for entry in walk(self._dataset.index.root):
            if isinstance(entry, Folder):
                if SIGNED_METADATA_NAME not in entry.path:
                    folders.append(entry)
            elif (job := self._job_for(entry)) is not None:
                jobs.append(job)
        for path in self._dataset.index.shadowed:
            self._outcome.notes[path] = "a folder has the same name, and no disk can hold both"
        self._outcome.notes.update(self._dataset.keeper.report.skipped)
        wanted = {job.path for job in jobs}
        present = (it for it in walk(self._target.index.root) if not isinstance(it, Folder))
        here = {it.info.path for it in present if name_of(it.info.path) != METADATA_NAME}
        self._outcome.others = len(here - wanted)
        self._make_folders(folders)
        run_jobs(jobs, self._outcome, self._progress)
        run_jobs([self._document_job(folder.path) for folder in folders], self._outcome, self._progress)
        self._describe_folders(folders)
        self._sweep(leftovers)

    def _job_for(self, entry: Datafile | Other) -> Job | None:
        path = entry.info.path
        if isinstance(entry, Datafile):
            return Job(path, entry.size, lambda: self._fetch(entry.info, entry.metadata))
        if name_of(path) == METADATA_NAME or SIGNED_METADATA_NAME in path:
            return None
        # To a bucket `x.octue` is no datafile; to a disk it is one.
        record = decode_custom_metadata(entry.info.custom_metadata or {})[0] or NO_METADATA
        return Job(path, entry.info.size, lambda: self._fetch(entry.info, record))

    # --- folders

    def _make_folders(self, folders: list[Folder]) -> None:
        for folder in folders[1:]:
            try:
                self._disk.make_folder(folder.path, 0o777)
            except AlreadyExists:
                if self._disk.stat(folder.path).kind is not Kind.FOLDER:
                    error = NotADirectory(f"{folder.path}: a file or link stands where a folder is to be")
                    self._outcome.fail(f"{folder.path}/", error)
            except OctuefsError as error:
                self._outcome.fail(f"{folder.path}/", error)

    def _describe_folders(self, folders: list[Folder]) -> None:
        """Set the permissions and times that are stored of folders, when nothing is written into them any more."""
        for folder in reversed(folders[1:]):
            if folder.info is not None and f"{folder.path}/" not in self._outcome.failures:
                try:
                    self._take_attributes(folder.path, folder.info, None)
                except OctuefsError as error:
                    self._outcome.fail(f"{folder.path}/", error)

    # --- files

    def _fetch(self, info: ObjectInfo, record: DatafileMetadata) -> None:
        path = info.path
        present = self._present(path)
        if present is not None and self._has_same_bytes(present, info):
            self._take_attributes(path, info, present)
            self._progress.skipped(info.size)
            self._outcome.count_same()
        else:
            self._write(info, present)
            self._outcome.count_moved(info.size)
        if record != NO_METADATA:
            with self._lock:
                self._records.setdefault(parent_of(path), {})[name_of(path)] = record

    def _present(self, path: str) -> ObjectInfo | None:
        try:
            present = self._disk.stat(path)
        except NotFound:
            return None
        if present.kind is Kind.FOLDER:
            raise IsADirectory(f"{path}: a folder stands where the file is to be")
        return present

    def _has_same_bytes(self, present: ObjectInfo, info: ObjectInfo) -> bool:
        if present.kind is not Kind.FILE or present.size != info.size or info.crc32c is None:
            return False
        known = self._target.index.entry(info.path)
        if not isinstance(known, Datafile) or known.info.version != present.version:
            known = Datafile(present, self._target.location, NO_METADATA, present)
        return not self._target.hasher.ensure([known]) and known.crc32c == info.crc32c

    def _write(self, info: ObjectInfo, present: ObjectInfo | None) -> None:
        """Fetch an object under another name, prove it, and let it take its place.

        :raise ChecksumMismatch: where the bytes are not those that the store promises
        """
        temporary = join(parent_of(info.path), temporary_name())
        try:
            crc32c = self._copy(info, temporary)
            if info.crc32c is not None and crc32c != info.crc32c:
                raise ChecksumMismatch(f"{info.path}: the bytes that arrived do not have the object's checksum")
            self._take_attributes(temporary, info, present)
            self._outcome.check()
            self._disk.rename(temporary, info.path)
        except BaseException:
            with suppress(OctuefsError):
                self._disk.remove(temporary)
            raise

    def _copy(self, info: ObjectInfo, temporary: str) -> int:
        """Return the checksum of what was written."""
        source = self._dataset.store.open(info)
        try:
            file = self._disk.open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:

                def write(offset: int, data: bytes) -> None:
                    self._outcome.check()
                    file.write(offset, data)
                    self._progress.moved(len(data))

                parallel = PIECES_AT_ONCE if info.size > LARGE_BYTES else 1
                return copy_pieces(source.read, write, info.size, parallel)
            finally:
                file.close()
        finally:
            source.close()

    def _take_attributes(self, path: str, info: ObjectInfo, present: ObjectInfo | None) -> None:
        """Give a file or folder the permissions and mtime that are stored; without, those of what it replaces."""
        custom = info.custom_metadata or {}
        if custom.get(MODE_KEY):
            mode = permissions(custom[MODE_KEY], stat.S_IMODE(info.mode))
            if present is None or stat.S_IMODE(present.mode) != mode or present.path != path:
                self._disk.set_mode(path, mode)
        elif present is not None and present.kind is Kind.FILE and present.path != path:
            self._disk.set_mode(path, stat.S_IMODE(present.mode))
        mtime_ns = stored_mtime(custom)
        if mtime_ns is not None and (present is None or present.mtime_ns != mtime_ns or present.path != path):
            self._disk.set_times(path, (None, mtime_ns))

    # --- metadata

    def _document_job(self, folder: str) -> Job:
        return Job(join(folder, METADATA_NAME), 0, lambda: self._write_document(folder))

    def _write_document(self, folder: str) -> None:
        """Merge the records of a folder's files, and of the dataset in it, into its `.octue`."""
        found = self._records.get(folder, {})
        records = {name: found[name] for name in sorted(found, key=path_bytes)}  # the order in which buckets list
        dataset = self._dataset.record_in(folder)
        if dataset is None and self._dataset.stores_metadata_in(folder):
            check_no_record(join(folder, METADATA_NAME), self._dataset.stored_text_in(folder))
        if not records and dataset is None:
            return
        path = join(folder, METADATA_NAME)
        with self._disk.locked(folder):
            try:
                present = self._disk.read_small(path, LARGEST_FILE)
            except NotFound:
                present = None
            text = local_text_for(records, dataset, present, self._target.location.of(folder))
            if text is None:
                return
            self._disk.replace_file(path, text)
        self._outcome.count_described()

    # --- what was left behind

    def _sweep(self, leftovers: list[ObjectInfo]) -> None:
        """Remove what a download that was killed left behind: nobody has written to it since this one began."""
        for leftover in leftovers:
            with suppress(OctuefsError):
                now = self._disk.stat(leftover.path)
                age = time.time() - now.mtime_ns / 1_000_000_000
                if now.kind is Kind.FILE and now.version == leftover.version and age > _LEFT_BEHIND_SECONDS:
                    self._disk.remove(leftover.path)
