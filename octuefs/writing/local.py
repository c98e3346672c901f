"""The writer of a local dataset: bytes and names change in the source folder at once, metadata in its journal first.

Each change is made on the disk, then published, then answered; what inotify says of it later is no news to the index.
Records of metadata follow their files through `documents.py`. Nothing is handed to another thread on the way of plain
data: a file is made, written and closed by the thread that was asked to.
"""

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from octuefs.errors import AlreadyExists, NotFound, NotPermitted, OctuefsError
from octuefs.keeper import Keeper
from octuefs.model.changes import MetadataChange
from octuefs.model.metadata import DatafileMetadata, OctueDocument
from octuefs.model.paths import METADATA_NAME, name_of, parent_of
from octuefs.report import Report
from octuefs.stores.base import Kind, ObjectInfo
from octuefs.stores.writing import DiskFile, DiskStore, Times
from octuefs.writing.base import NO_CHANGE, Caller, Pending
from octuefs.writing.documents import Documents
from octuefs.writing.journal import Journal
from octuefs.writing.local_facts import LocalFacts
from octuefs.writing.local_metadata import LocalMetadata
from octuefs.writing.local_names import LocalNames
from octuefs.writing.local_open import LocalOpenFile, OpenFiles
from octuefs.writing.recent import RecentNames

_OPEN_FLAGS = os.O_ACCMODE | os.O_TRUNC | os.O_APPEND | os.O_SYNC | os.O_DSYNC
_ATTEMPTS = 20
"""How often a name that comes and goes is made or opened again."""


class LocalWriter:
    """A `Writer` for a local folder."""

    def __init__(
        self,
        store: DiskStore,
        keeper: Keeper,
        journal: Journal,
        report: Report,
        recent: RecentNames,
        keep_text: Callable[[str, bytes, str], object],
    ) -> None:
        """Take up what the journal has; to be made before `keeper` loads.

        `keep_text` takes (path, text, reason) of what is to be found under `recovered/`.
        """
        self._store = store
        self._keeper = keeper
        self._journal = journal
        self._keep_text = keep_text
        self._open_files = OpenFiles()
        self._documents = Documents(store, journal, report, keep_text)
        self._facts = LocalFacts(store, keeper, self._documents)
        self._metadata = LocalMetadata(keeper, self._facts, journal, self._documents, report, recent, keep_text)
        self._names = LocalNames(store, keeper, self._facts, self._metadata, self._documents, recent, self._open_files)
        self._documents.written = self._facts.document_written
        keeper.stored.overlay = self._documents.overlay
        if self._documents.has(""):  # where there is no `.octue` yet, the keeper reads none
            keeper.stored.dataset = self._documents.overlay("", OctueDocument()).dataset

    # --- open files

    def open(self, info: ObjectInfo, flags: int) -> LocalOpenFile:
        """See `Writer`; a link that leads to a file inside opens that file."""
        path = info.path
        if info.kind is Kind.SYMLINK:
            target = self._store.follow_link(path)
            if target.info is not None:
                path = target.info.path
        elif name_of(path) == METADATA_NAME:
            self.write_document(parent_of(path))
        file = self._handle(self._store.open_file(path, flags & _OPEN_FLAGS), path)
        if flags & os.O_TRUNC:
            file.dirty = True
            file.flush()
        return file

    def create(
        self, path: str, flags: int, mode: int, caller: Caller, change: MetadataChange = NO_CHANGE
    ) -> LocalOpenFile:
        """See `Writer`."""
        self._names.check(path)
        file, made = self._open_or_make(path, flags & _OPEN_FLAGS, flags, mode)
        try:
            if made:
                try:
                    self._names.give(path, mode, caller, file)
                    info = file.info()
                    self._facts.made(info, self._metadata.first(path, info, change))
                except BaseException:
                    with suppress(OctuefsError):
                        self._store.remove(path)
                    raise
            else:
                self._facts.changed(path)
                if change:
                    self.describe(path, change)
        except BaseException:
            file.close()
            raise
        return self._handle(file, path)

    def _open_or_make(self, path: str, open_flags: int, flags: int, mode: int) -> tuple[DiskFile, bool]:
        """Return the open file and whether it was made."""
        for _ in range(_ATTEMPTS):
            try:
                made = os.O_CREAT | os.O_EXCL
                return self._store.open_file(path, open_flags & ~os.O_TRUNC | made, stat.S_IMODE(mode)), True
            except AlreadyExists:
                if flags & os.O_EXCL:
                    raise
            with suppress(NotFound):
                return self._store.open_file(path, open_flags), False
        raise NotFound(f"{self._store.location.of(path)}: it keeps coming and going")

    def _handle(self, file: DiskFile, path: str) -> LocalOpenFile:
        handle = LocalOpenFile(file, path, self._was_written, self._was_synced, self._open_files.discard)
        self._open_files.add(handle)
        return handle

    def _was_written(self, handle: LocalOpenFile) -> None:
        """Publish what an open file is now, if it still stands at its path."""
        info = handle.info()
        if info.links == 0:
            return
        if not self._facts.written(info):  # moved by another program, or a `.octue`
            self._facts.look(handle.path)
        if self._documents.state(handle.path) != "clean":
            self._journal.settle()  # the metadata that it was made with

    def _was_synced(self, path: str) -> None:
        if self._documents.state(path) != "clean":
            self._documents.flush(parent_of(path))

    # --- attributes

    def current(self, info: ObjectInfo) -> ObjectInfo:
        """See `Writer`."""
        if name_of(info.path) == METADATA_NAME:
            self.write_document(parent_of(info.path))
        try:
            now = self._store.stat(info.path)
        except OctuefsError:
            self._keeper.notice(info.path, None)
            raise
        if now.version != info.version and not any(it.dirty for it in self._open_files.at(info.path)):
            self._keeper.notice(info.path, now.version)
        return now

    def truncate(self, path: str, length: int) -> None:
        """See `Writer`."""
        self._store.truncate(path, length)
        self._facts.changed(path)

    def set_mode(self, path: str, mode: int) -> None:
        """See `Writer`."""
        self._store.set_mode(path, mode)
        self._facts.changed(path)

    def set_owner(self, path: str, uid: int, gid: int) -> None:
        """See `Writer`."""
        try:
            self._store.set_owner(path, uid, gid)
        except NotPermitted:
            info = self._store.stat(path)
            if uid not in (-1, info.uid) or gid not in (-1, info.gid):
                raise
        self._facts.changed(path)

    def set_times(self, path: str, times: Times) -> None:
        """See `Writer`."""
        self._store.set_times(path, times)
        self._facts.changed(path)

    def set_xattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        """See `Writer`."""
        self._store.set_xattr(path, name, value, flags)
        self._facts.changed(path)

    def remove_xattr(self, path: str, name: str) -> None:
        """See `Writer`."""
        self._store.remove_xattr(path, name)
        self._facts.changed(path)

    # --- names

    def make_folder(self, path: str, mode: int, caller: Caller) -> None:
        """See `Writer`."""
        self._names.make_folder(path, mode, caller)

    def remove_folder(self, path: str) -> None:
        """See `Writer`."""
        self._names.remove_folder(path)

    def make_link(self, path: str, target: str, caller: Caller) -> None:
        """See `Writer`."""
        self._names.make_link(path, target, caller)

    def make_special(self, path: str, mode: int, device: int, caller: Caller) -> None:
        """See `Writer`."""
        self._names.make_special(path, mode, device, caller)

    def link(self, old: str, new: str) -> None:
        """See `Writer`."""
        self._names.link(old, new)

    def remove(self, path: str) -> None:
        """See `Writer`."""
        self._names.remove(path)

    def rename(self, old: str, new: str, *, replace: bool = True, change: MetadataChange = NO_CHANGE) -> None:
        """See `Writer`."""
        self._names.rename(old, new, replace=replace, change=change)

    def sweep(self, paths: Sequence[str]) -> None:
        """Remove temporary files of ours that a crash left (`Keeper.leftovers`)."""
        self._names.sweep(paths)

    # --- metadata

    def describe(self, path: str, change: MetadataChange) -> None:
        """See `Writer`."""
        self._metadata.describe(path, change)

    def describe_dataset(self, change: MetadataChange) -> None:
        """See `Writer`."""
        self._metadata.describe_dataset(change)

    def store_document(self, folder: str, data: bytes) -> None:
        """See `Writer`."""
        self._metadata.store_document(folder, data)

    def remove_document(self, folder: str) -> None:
        """See `Writer`."""
        self._metadata.remove_document(folder)

    def waiting(self, folder: str) -> Mapping[str, DatafileMetadata]:
        """See `Writer`."""
        return self._metadata.waiting(folder)

    def store_records(self, folder: str, records: Mapping[str, DatafileMetadata]) -> None:
        """See `Writer`."""
        self._metadata.store_records(folder, records)

    def keep_text(self, path: str, data: bytes, reason: str) -> None:
        """See `Writer`."""
        self._keep_text(path, data, reason)

    # --- what is pending

    def sync_state(self, path: str) -> str:
        """See `Writer`: data are in the source at once, so it is the metadata that may be pending."""
        return self._documents.state(path)

    def sync_folder(self, path: str) -> None:
        """See `Writer`."""
        self._documents.flush(path)
        self._store.sync_folder(path)

    def status(self) -> Mapping[str, Any]:
        """See `Writer`."""
        return {"pending_metadata": self._documents.count(), "failed": self._documents.failures()}

    def pending(self) -> Sequence[Pending]:
        """See `Writer`: content is in the source at once."""
        return ()

    def drain(self, seconds: float | None = None) -> int:
        """See `Writer`."""
        return self._documents.drain(seconds)

    def close(self) -> None:
        """See `Writer`; the journal stays open."""
        self._documents.close()

    def write_document(self, folder: str) -> None:
        """See `Writer`."""
        with suppress(OctuefsError):  # reported; it shows as it is
            self._documents.flush(folder)
