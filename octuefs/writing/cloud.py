"""The writer of a cloud dataset: names here, content in `cloudfiles.py`, metadata and `.octue` in `cloud_*.py`.

Every change is a request to the bucket on condition of the version that was seen, and published to the index before
it returns. Readers and getattr never wait for one. Any thread may call.
"""

import os
import stat
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from octuefs.datafile import NO_METADATA, Datafile
from octuefs.entries import Folder
from octuefs.errors import (
    AlreadyExists,
    BadValue,
    Conflict,
    IsADirectory,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
    OctuefsError,
    Unsupported,
)
from octuefs.keeper import Keeper
from octuefs.model.changes import MetadataChange
from octuefs.model.metadata import DatafileMetadata, encode_custom_metadata
from octuefs.model.paths import METADATA_NAME, is_temporary, name_of, parent_of
from octuefs.report import Report
from octuefs.stores.base import ObjectInfo, Ownership
from octuefs.stores.writing import ObjectProperties, ObjectStore, Precondition, Times
from octuefs.writing.base import NO_CHANGE, Caller, OpenFile, Pending
from octuefs.writing.cloud_documents import CloudDocuments
from octuefs.writing.cloud_facts import CloudFacts, generation_of, latest
from octuefs.writing.cloud_metadata import CloudMetadata
from octuefs.writing.cloudfiles import CloudFiles
from octuefs.writing.folder_renames import FolderRenames
from octuefs.writing.journal import Journal
from octuefs.writing.moves import Moves
from octuefs.writing.ordering import PathLocks, failures_of
from octuefs.writing.properties import checked, is_to_be_stored
from octuefs.writing.recent import RecentNames, without_anothers_id
from octuefs.writing.recovered import Recovered
from octuefs.writing.renames import Renames
from octuefs.writing.sessions import DISPLACED

_THREADS = 16
"""Requests that one change of many objects has under way at once."""

_REPEATED = ("text", "part")
"""Kinds of entries of which those that have one key say the same."""


class CloudWriter:
    """A `Writer` for a prefix in a bucket."""

    def __init__(
        self,
        store: ObjectStore,
        keeper: Keeper,
        files: CloudFiles,
        journal: Journal,
        report: Report,
        recent: RecentNames,
        *,
        compose: bool = True,
    ) -> None:
        """`compose` lets a rename join one object to keep its headers; journal and files stay open."""
        self._store = store
        self._files = files
        self._journal = journal
        self._report = report
        self._recent = recent
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="cloud-writer")
        self._paths = PathLocks()
        self._facts = facts = CloudFacts(store, keeper)
        self.recovered = Recovered(journal, self._store_text, files.failed)
        """What could not be stored."""
        self._metadata = CloudMetadata(store, facts, files, self._paths, report)
        self._documents = CloudDocuments(
            store,
            facts,
            self._metadata,
            keeper.stored,
            journal,
            report,
            paths=self._paths,
            executor=self._executor,
            keep_text=self.recovered.keep_text,
            recent=recent,
        )
        moves = Moves(store, facts, report, compose=compose)
        self._renames = Renames(
            facts,
            files,
            self._metadata,
            self._documents,
            moves,
            FolderRenames(store, facts, moves, journal, report, self._executor),
            journal,
            report,
            paths=self._paths,
            recent=recent,
        )

    def restore(self) -> None:
        """Go on with what a crash interrupted; once, when the dataset is loaded and before anybody writes."""
        self._documents.keep_displaced()
        self._renames.resume()
        for key, row in self._journal.items(DISPLACED).items():
            if row["kind"] in _REPEATED:
                self._journal.drop(DISPLACED, key)
        self._files.restore()

    # --- open files

    def open(self, info: ObjectInfo, flags: int) -> OpenFile:
        """See `Writer`."""
        return self._files.open(info, flags)

    def create(self, path: str, flags: int, mode: int, caller: Caller, change: MetadataChange = NO_CHANGE) -> OpenFile:
        """See `Writer`."""
        self._check_name(path)
        with self._paths.hold(path):
            entry = self._facts.index.entry(path)
            if entry is None:
                return self._make(path, flags, mode, change)
        if flags & os.O_EXCL:
            raise AlreadyExists(f"{path}: exists already")
        if isinstance(entry, Folder):
            raise IsADirectory(f"{path}: is a folder")
        file = self._files.open(entry.info, flags)
        try:
            self._metadata.describe(path, change)
        except BaseException:
            file.close()
            raise
        return file

    def _make(self, path: str, flags: int, mode: int, change: MetadataChange) -> OpenFile:
        self._facts.folder(parent_of(path))
        waiting = self._documents.waiting_at(path)
        recent = self._recent.find(path) or NO_METADATA
        known = waiting or without_anothers_id(recent, path, self._facts.index)
        besides = self._documents.waiting_ids(parent_of(path))
        metadata = self._metadata.completed(path, change.apply(known), besides=besides)
        described = metadata != NO_METADATA
        custom = checked(encode_custom_metadata(metadata) if described else {}, path)
        file = self._files.create(
            path,
            flags,
            ObjectProperties(custom),
            mode=stat.S_IMODE(mode),
            metadata=metadata if described else None,
        )
        self._recent.take(path)
        if waiting is not None:
            self._documents.arrived(path)
        return file

    def current(self, info: ObjectInfo) -> ObjectInfo:
        """See `Writer`."""
        return self._files.current(info)

    def truncate(self, path: str, length: int) -> None:
        """See `Writer`."""
        entry = self._facts.entry(path)
        if isinstance(entry, Folder):
            raise IsADirectory(f"{path}: is a folder")
        file = self._files.open(entry.info, os.O_WRONLY | (0 if length else os.O_TRUNC))
        try:
            if length:
                file.truncate(length)
            file.flush()
        finally:
            file.close()

    # --- names

    def make_folder(self, path: str, mode: int, caller: Caller) -> None:
        """See `Writer`."""
        self._check_name(path, is_folder=True)
        with self._paths.hold(path):
            if self._facts.index.entry(path) is not None:
                raise AlreadyExists(f"{path}: exists already")
            self._facts.folder(parent_of(path))
            marker = self._store.make_marker(path)
            self._facts.publish(marker)
        if is_to_be_stored(mode, stat.S_IMODE(marker.mode), Ownership().dir_mode):
            try:
                self._metadata.set_mode(path, mode)
            except OctuefsError as error:
                self._report.failure(f"{path}: the folder was made, but its mode could not be stored: {error}")

    def remove_folder(self, path: str) -> None:
        """See `Writer`."""
        if not path:
            raise NotPermitted("the dataset's own folder cannot be removed through its mount")
        with self._paths.hold_folders(path), self._facts.leaving(path):
            folder = self._facts.entry(path)
            if not isinstance(folder, Folder):
                raise NotADirectory(f"{path}: is no folder")
            if self._documents.waiting(path):
                raise NotEmpty(f"{path}: its {METADATA_NAME} holds metadata of files that are to come")
            if not self._facts.is_empty(folder):
                self._facts.look_again(path)
                raise NotEmpty(f"{path}: the folder is not empty")
            self._store.delete_marker(path)
            self._facts.publish_markers_gone([path])

    def remove(self, path: str) -> None:
        """See `Writer`; a version that another stored meanwhile, and nobody here has seen, stays.

        :raise Conflict: where there is one
        """
        with self._paths.hold(path), self._files.at_rest(path) as at_rest, self._facts.leaving(path):
            entry = self._facts.entry(path)
            if isinstance(entry, Folder):
                raise IsADirectory(f"{path}: is a folder")
            stored = latest(at_rest.get(path, entry.info), entry.info)
            metadata = self._files.metadata(path)
            if metadata is None:
                metadata = entry.metadata if isinstance(entry, Datafile) else NO_METADATA
            if stored is not None and generation_of(stored):
                with suppress(Conflict):  # what was opened is gone already
                    self._files.keep_open(path)
                self._files.settle(path)
                try:
                    with suppress(NotFound):  # our own doing, its answer was lost; or somebody else's
                        self._store.delete(path, Precondition(generation_of(stored)))
                except Conflict:
                    raise self._facts.conflict(path, "removed") from None
            self._files.removed(path)
            self._facts.publish(removed=[path])
            self._recent.remember(path, metadata, removed=True)

    def rename(self, old: str, new: str, *, replace: bool = True, change: MetadataChange = NO_CHANGE) -> None:
        """See `Writer`."""
        self._check_name(new)
        if old == new:
            self._facts.entry(old)
            self._metadata.describe(old, change)
        else:
            self._renames.rename(old, new, replace=replace, change=change)

    def _check_name(self, path: str, *, is_folder: bool = False) -> None:
        self._facts.check_name(path, is_folder=is_folder)
        if "\r" in path or "\n" in path:
            raise BadValue(f"{path}: a name in a bucket can have no line break")
        if is_temporary(path):
            raise NotPermitted(f"{path}: octuefs makes and removes objects of such names itself")

    # --- what a bucket cannot hold

    def make_link(self, path: str, target: str, caller: Caller) -> None:
        """Refuse."""
        raise Unsupported(f"{path}: a bucket has no symbolic links")

    def make_special(self, path: str, mode: int, device: int, caller: Caller) -> None:
        """Refuse."""
        raise Unsupported(f"{path}: a bucket holds regular files alone, no FIFOs, sockets or devices")

    def link(self, old: str, new: str) -> None:
        """Refuse."""
        raise Unsupported(f"{new}: a bucket has no hard links; copy {old} instead")

    def set_owner(self, path: str, uid: int, gid: int) -> None:
        """See `Writer`: there is one owner."""
        self._facts.entry(path)
        ownership = self._store.ownership
        if uid not in (-1, ownership.uid) or gid not in (-1, ownership.gid):
            raise NotPermitted(f"{path}: a bucket keeps no owners; files belong to who mounted it")

    def set_xattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        """Refuse."""
        raise Unsupported(f"{path}: objects have no attributes but octue's own; {name} is not kept")

    def remove_xattr(self, path: str, name: str) -> None:
        """Refuse."""
        raise Unsupported(f"{path}: objects have no attributes but octue's own; {name} is not kept")

    # --- attributes and metadata

    def set_mode(self, path: str, mode: int) -> None:
        """See `Writer`."""
        self._metadata.set_mode(path, mode)

    def set_times(self, path: str, times: Times) -> None:
        """See `Writer`."""
        self._metadata.set_times(path, times)

    def describe(self, path: str, change: MetadataChange) -> None:
        """See `Writer`."""
        self._metadata.describe(path, change)

    def describe_dataset(self, change: MetadataChange) -> None:
        """See `Writer`."""
        self._documents.describe_dataset(change)

    def store_document(self, folder: str, data: bytes) -> None:
        """See `Writer`."""
        self._documents.store_document(folder, data)

    def remove_document(self, folder: str) -> None:
        """See `Writer`."""
        self._documents.remove_document(folder)

    def write_document(self, folder: str) -> None:
        """See `Writer`: it is made of what the bucket has, whenever it is read."""

    def waiting(self, folder: str) -> Mapping[str, DatafileMetadata]:
        """See `Writer`."""
        return self._documents.waiting(folder)

    def store_records(self, folder: str, records: Mapping[str, DatafileMetadata]) -> None:
        """See `Writer`."""
        self._documents.store_records(folder, records)

    def keep_text(self, path: str, data: bytes, reason: str) -> None:
        """See `Writer`."""
        self.recovered.keep_text(path, data, reason)

    def _store_text(self, path: str, data: bytes) -> None:
        if name_of(path) != METADATA_NAME:
            raise Unsupported(f"{path}: read it, and write it where it is to be")
        self._documents.store_document(parent_of(path), data)

    # --- what is under way

    def sync_state(self, path: str) -> str:
        """See `Writer`."""
        return self._files.sync_state(path)

    def sync_folder(self, path: str) -> None:
        """See `Writer`; names and metadata are durable anyway, so it is about files that were closed."""
        self._journal.settle()
        waiting = [it for it, *_ in self._files.pending() if not path or it == path or it.startswith(f"{path}/")]
        for error in failures_of(self._executor, self._files.store_now, waiting).values():
            raise error

    def pending(self) -> Sequence[Pending]:
        """See `Writer`."""
        return [Pending(*it) for it in self._files.pending()]

    def status(self) -> Mapping[str, Any]:
        """See `Writer`."""
        pending = self.pending()
        return {
            "pending_files": len(pending),
            "pending_bytes": sum(it.size for it in pending),
            "sent_bytes": sum(it.sent for it in pending),
            "waiting_metadata": self._documents.waiting_count,
            "interrupted_renames": self._renames.interrupted,
            "recovered": len(self.recovered.entries()),
        }

    def drain(self, seconds: float | None = None) -> int:
        """See `Writer`."""
        return self._files.drain(seconds)

    def close(self) -> None:
        """See `Writer`; the journal stays open."""
        self._files.close()
        self._executor.shutdown(wait=False, cancel_futures=True)
