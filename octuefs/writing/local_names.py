"""Names in a local dataset: made, linked, renamed and removed, with the records of their metadata.

A rename of a file that has a record is announced in the journal before it is made, so that a crash in between loses
neither; what is announced counts where the file is found at its new name.
"""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from octuefs.datafile import NO_METADATA
from octuefs.errors import AlreadyExists, NotEmpty, NotFound, NotPermitted, OctuefsError
from octuefs.keeper import Keeper
from octuefs.model.changes import MetadataChange, first_record, over
from octuefs.model.paths import METADATA_NAME, is_temporary, name_of, parent_of
from octuefs.stored_metadata import LARGEST_FILE
from octuefs.stores.base import Kind, ObjectInfo
from octuefs.stores.writing import DiskFile, DiskStore
from octuefs.writing.base import NO_CHANGE, Caller
from octuefs.writing.documents import Documents
from octuefs.writing.local_facts import LocalFacts
from octuefs.writing.local_metadata import LocalMetadata
from octuefs.writing.local_open import OpenFiles
from octuefs.writing.pending_records import PendingRecord
from octuefs.writing.recent import RecentNames


class LocalNames:
    """Changes names. Any thread may call."""

    def __init__(
        self,
        store: DiskStore,
        keeper: Keeper,
        facts: LocalFacts,
        metadata: LocalMetadata,
        documents: Documents,
        recent: RecentNames,
        open_files: OpenFiles,
    ) -> None:
        self._store = store
        self._keeper = keeper
        self._facts = facts
        self._metadata = metadata
        self._documents = documents
        self._recent = recent
        self._open_files = open_files
        self._location = store.location

    def make_folder(self, path: str, mode: int, caller: Caller) -> None:
        """See `Writer`."""
        self.check(path, Kind.FOLDER)
        self._store.make_folder(path, mode)
        self.give(path, mode, caller)
        self._facts.changed(path)

    def remove_folder(self, path: str) -> None:
        """See `Writer`."""
        with suppress(OctuefsError):  # a `.octue` that holds nothing any more is no reason to stay
            self._documents.flush(path)
        try:
            self._store.remove_folder(path)
        except NotEmpty:
            if not self._sweep(path):
                raise
            self._store.remove_folder(path)
        self._documents.forget(path)
        self._facts.removed(path)

    def make_link(self, path: str, target: str, caller: Caller) -> None:
        """See `Writer`."""
        self.check(path)
        self._store.make_link(path, target)
        self.give(path, 0, caller)
        info = self._store.stat(path)
        self._facts.made(info, self._metadata.first(path, info, NO_CHANGE))

    def make_special(self, path: str, mode: int, device: int, caller: Caller) -> None:
        """See `Writer`."""
        self.check(path)
        self._store.make_special(path, mode, device)
        self.give(path, mode, caller)
        self._facts.made(self._store.stat(path), None)

    def link(self, old: str, new: str) -> None:
        """See `Writer`."""
        self.check(new)
        self._store.link(old, new)
        info = self._store.stat(new)
        self._facts.made(info, self._metadata.first(new, info, NO_CHANGE, self._facts.record_at(old)))
        self._facts.changed(old)

    def remove(self, path: str) -> None:
        """See `Writer`."""
        if name_of(path) == METADATA_NAME:
            self._metadata.remove_document(parent_of(path))
            return
        record = self._facts.record_at(path)
        gone = {path: PendingRecord(replaces=True)} if record is not None else {}
        if gone:  # or a file that is made there after a crash would have it
            self._documents.announce(gone)
        try:
            self._store.remove(path)
        except BaseException:
            self._documents.withdraw(gone)
            raise
        self._open_files.removed(path)
        if record is not None:
            self._recent.remember(path, record, removed=True)
            self._documents.replace(gone)
        self._facts.removed(path)

    def rename(self, old: str, new: str, *, replace: bool = True, change: MetadataChange = NO_CHANGE) -> None:
        """See `Writer`."""
        if old == new:
            if change:
                self._metadata.describe(old, change)
            return
        if METADATA_NAME in (name_of(old), name_of(new)):
            self._rename_document(old, new, replace=replace)
            return
        before = self._store.stat(old)
        self.check(new, before.kind)
        if before.kind is Kind.FOLDER:
            self._rename_folder(old, new, replace=replace)
            return
        try:
            target = self._store.stat(new)
        except NotFound:
            target = None
        if target is not None and target.version == before.version:  # two names of one file: nothing happens
            self._store.rename(old, new, replace=replace)
            if change:
                self._metadata.describe(new, change)
            return
        self._rename_file(before, new, target is not None, replace=replace, change=change)

    def _rename_file(
        self, before: ObjectInfo, new: str, is_over: bool, *, replace: bool, change: MetadataChange
    ) -> None:
        old = before.path
        source, target = self._facts.record_at(old), self._facts.record_at(new)
        beneath = target
        if beneath is None and not is_over:
            beneath = self._metadata.recent(new)
        record = over(source or NO_METADATA, beneath) if beneath is not None else source
        if change:
            record = change.apply(record or NO_METADATA)
        if record is not None:
            record = first_record(record, self._metadata.new_id(new)) if record != NO_METADATA else None
        moves: dict[str, PendingRecord] = {}
        if source is not None:
            moves[old] = PendingRecord(replaces=True)
        if record is not None or target is not None:
            moves[new] = PendingRecord(inode=before.inode, replaces=True, record=record)
        if moves:
            self._documents.announce(moves)
        try:
            self._store.rename(old, new, replace=replace)
        except BaseException:
            self._documents.withdraw(moves)
            raise
        self._documents.replace(moves)
        self._open_files.renamed(old, new)
        if source is not None:
            self._recent.remember(old, source)
        self._facts.renamed(before, self._store.stat(new), record)

    def _rename_folder(self, old: str, new: str, *, replace: bool) -> None:
        for folder in (old, new):
            with suppress(OctuefsError):  # reported; what is pending follows the folder
                self._documents.flush_all(folder)
        self._store.rename(old, new, replace=replace)
        self._documents.forget(new)
        self._documents.moved_folder(old, new)
        self._open_files.renamed(old, new)
        self._facts.folder_moved(old, new)

    def _rename_document(self, old: str, new: str, *, replace: bool) -> None:
        """Rename to `.octue`, as if it was written, or from it, as if it was removed."""
        from_document, to_document = name_of(old) == METADATA_NAME, name_of(new) == METADATA_NAME
        if from_document:
            self._documents.flush(parent_of(old))
        if not to_document:
            self.check(new)
            self._store.rename(old, new, replace=replace)
            self._facts.look(old, new)
            return
        if not replace:
            with suppress(NotFound):
                self._store.stat(new)
                raise AlreadyExists(f"{self._location.of(new)}: File exists")
        self._metadata.store_document(parent_of(new), self._store.read_small(old, LARGEST_FILE))
        self.remove(old)

    def check(self, path: str, kind: Kind = Kind.FILE) -> None:
        """Refuse names that the dataset would not show again.

        :raise NotPermitted: always with the reason
        """
        reason = ""
        admits = self._keeper.stored.admits_folder if kind is Kind.FOLDER else self._keeper.stored.admits
        if name_of(path) == METADATA_NAME or is_temporary(path):
            reason = "this name is for metadata alone"
        elif not self._keeper.recursive and (kind is Kind.FOLDER or "/" in path):
            reason = "the dataset is mounted without its folders (--no-recursive)"
        elif not admits(path):
            reason = "the dataset's record in .octue names its files, and this is none of them; add it there first"
        if reason:
            raise NotPermitted(f"{self._location.of(path)}: {reason}")

    def give(self, path: str, mode: int, caller: Caller, file: DiskFile | None = None) -> None:
        """Let what root's daemon has made belong to the caller; in a setgid folder the group is the folder's."""
        if os.geteuid() != 0 or (caller.uid == 0 and caller.gid == os.getegid()):
            return
        parent = self._facts.entry(parent_of(path))
        info = getattr(parent, "info", None) or self._store.stat(parent_of(path))
        gid = -1 if info.mode & stat.S_ISGID else caller.gid
        if file is not None:
            file.set_owner(caller.uid, gid)
        else:
            self._store.set_owner(path, caller.uid, gid)
        if mode & (stat.S_ISUID | stat.S_ISGID) and not stat.S_ISDIR(mode):  # which a change of owner takes away
            self._store.set_mode(path, mode)

    def _sweep(self, folder: str) -> bool:
        """Remove the temporary files of ours that a crash left in a folder; say whether nothing else is in it."""
        found = list(self._store.scan(folder, recursive=False))
        paths = [it.path for it in found if isinstance(it, ObjectInfo) and is_temporary(it.path)]
        if not found or len(paths) < len(found):
            return False
        self.sweep(paths)
        return True

    def sweep(self, paths: Sequence[str]) -> None:
        """Remove temporary files of ours that a crash left; those of a mount at work stay, for it has the lock."""
        for path in paths:
            with suppress(OctuefsError), self._store.locked(parent_of(path)):
                self._store.remove(path)
