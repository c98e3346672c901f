"""The `.octue` files of a local dataset: changes of metadata are journaled at once, and written in bursts.

Writers add what is to be done to a record; readers get it through `overlay` from then on. Once a folder has been
quiet for a moment its file is read afresh, changed and replaced, under the folder's lock, so that two mounts, each
changing fields of its own, lose nothing. A thread of our own does that, or who needs it at once (`flush`).

`_changed` guards the memory below it, is held for memory work alone, and no other lock is taken while it is held but
the journal's.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from octuefs.errors import LocalFailure, NotADirectory, NotFound, OctuefsError
from octuefs.model.changes import MetadataChange
from octuefs.model.metadata import OctueDocument, decode_octue, encode_octue
from octuefs.model.paths import METADATA_NAME, join
from octuefs.report import Report, printable
from octuefs.stored_metadata import LARGEST_FILE
from octuefs.stores.writing import DiskStore
from octuefs.writing.background import Background
from octuefs.writing.journal import Journal
from octuefs.writing.pending_records import KIND, OTHERWISE, PendingRecord, is_malformed, merged, place_of, take_up
from octuefs.writing.sessions import DISPLACED

logger = logging.getLogger(__name__)

_QUIET_SECONDS = 0.3
_LONGEST_SECONDS = 10.0
"""A folder whose metadata never stop changing is written after this."""
_RETRY_SECONDS = 5.0

Compose = Callable[[OctueDocument], bytes | None]
"""Given what a folder's file says, with what is pending: returns its new text, None for no file."""


@dataclass(slots=True)
class _Folder:
    """What is pending in a folder, by basename, and since when (monotonic seconds)."""

    first: float
    last: float
    pending: dict[str, PendingRecord] = field(default_factory=dict)
    failure: str = ""


class Documents:
    """What is to be written into `.octue` files. Any thread may call."""

    def __init__(
        self, store: DiskStore, journal: Journal, report: Report, keep_text: Callable[[str, bytes, str], object]
    ) -> None:
        """Take up what the journal has; `keep_text` takes (path, text, reason) of what had to make room."""
        self._store = store
        self._location = store.location
        self._journal = journal
        self._report = report
        self._keep_text = keep_text
        self.written: Callable[[str, OctueDocument, Collection[str]], object] = lambda *_: None
        """Called with folder, new document and names after a file was written, and before the names' changes end."""
        self._changed = threading.Condition()
        self._folders: dict[str, _Folder] = {}
        self._busy: set[str] = set()
        self._background = Background("metadata", 1)
        left, displaced = take_up(journal, store)
        with self._changed:
            for path, pending in left.items():
                self._set(path, pending)
            for key in displaced:
                journal.drop(DISPLACED, key)

    # --- what is to be done

    def add(self, path: str, change: MetadataChange, inode: int, own_id: str) -> PendingRecord | None:
        """Queue a change of a file's record ("" is the dataset), and return what was pending before, for `undo`.

        `own_id` is the ID that a first record gets.

        :raise NotPermitted: where it cannot be made after what is pending
        """
        folder, name = place_of(path)
        with self._changed:
            before = self._pending(folder).get(name)
            if before is None:
                self._set(path, PendingRecord(change, inode, own_id=own_id))
            else:
                self._set(path, before.then(change, inode, own_id))
            return before

    def undo(self, path: str, before: PendingRecord | None) -> None:
        """Let what was pending before count again."""
        with self._changed:
            self._set(path, before)

    def replace(self, records: Mapping[str, PendingRecord]) -> None:
        """Queue other records, by path."""
        with self._changed:
            for path, pending in records.items():
                self._set(path, pending)

    def announce(self, records: Mapping[str, PendingRecord]) -> None:
        """Make durable what `replace` will queue once files are renamed; until then it counts after a crash alone.

        :raise LocalFailure: where it cannot be; nothing is announced then
        """
        with self._changed:
            for path, pending in records.items():
                folder, name = place_of(path)
                before = self._pending(folder).get(name)
                otherwise = before.to_json() if before is not None else None
                self._journal.put(KIND, path, {**pending.to_json(), OTHERWISE: otherwise})
        try:
            self._journal.settle()
        except LocalFailure:
            self.withdraw(records)
            raise

    def withdraw(self, paths: Collection[str]) -> None:
        """Take back what was announced."""
        with self._changed:
            for path in paths:
                folder, name = place_of(path)
                self._set(path, self._pending(folder).get(name))

    def moved_folder(self, old: str, new: str) -> None:
        """Let what is pending in a folder and below it follow it to its new name."""
        with self._changed:
            for folder in self._folders_below(old):
                for name, pending in list(self._folders[folder].pending.items()):
                    self._set(join(folder, name), None)
                    self._set(join(new + folder[len(old) :], name), pending)

    def forget(self, folder: str) -> None:
        """Drop what is pending in a folder that is gone, and below it."""
        with self._changed:
            for below in self._folders_below(folder):
                self._drop(below, dict(self._folders[below].pending))

    def _set(self, path: str, pending: PendingRecord | None) -> None:
        """Let `pending` be what counts of a record, in memory and in the journal."""
        folder, name = place_of(path)
        if pending is None:
            self._journal.drop(KIND, path)
            if folder in self._folders:
                self._drop(folder, [name])
            return
        self._journal.put(KIND, path, pending.to_json())
        now = time.monotonic()
        state = self._folders.get(folder)
        if state is None:
            state = self._folders[folder] = _Folder(now, now)
            self._background.add(folder, lambda: self._flush_when_quiet(folder), delay=_QUIET_SECONDS)
        state.last = now
        state.pending[name] = pending

    def _drop(self, folder: str, names: Collection[str]) -> None:
        state = self._folders[folder]
        for name in names:
            if state.pending.pop(name, None) is not None:
                self._journal.drop(KIND, join(folder, name) if name else "")
        if not state.pending:
            del self._folders[folder]

    def _pending(self, folder: str) -> Mapping[str, PendingRecord]:
        state = self._folders.get(folder)
        return state.pending if state is not None else {}

    def _folders_below(self, top: str) -> list[str]:
        return [it for it in self._folders if not top or it == top or it.startswith(f"{top}/")]

    # --- what is known of it

    def overlay(self, folder: str, document: OctueDocument) -> OctueDocument:
        """Return what a folder's file says once all that is pending is written."""
        if folder not in self._folders:
            return document
        with self._changed:
            pending = dict(self._pending(folder))
        return merged(document, folder, pending, self._location)[0]

    def has(self, folder: str) -> bool:
        """Say whether anything is pending in a folder."""
        return folder in self._folders

    def count(self, below: str = "") -> int:
        """Return how many records are to be written."""
        with self._changed:
            return sum(len(self._folders[folder].pending) for folder in self._folders_below(below))

    def state(self, path: str) -> str:
        """Return `clean`, `pending` or `failed: why` of a file's record, "" being the dataset's."""
        if not self._folders:
            return "clean"
        folder, name = place_of(path)
        with self._changed:
            state = self._folders.get(folder)
            if state is None or name not in state.pending:
                return "clean"
            return f"failed: {state.failure}" if state.failure else "pending"

    def failures(self) -> dict[str, str]:
        """Return by folder why its file could not be written at the latest try."""
        with self._changed:
            return {folder: state.failure for folder, state in self._folders.items() if state.failure}

    # --- writing

    def flush(self, folder: str) -> None:
        """Write what is pending in a folder into its file.

        :raise OctuefsError: where that fails; it stays pending, is reported, and tried again later
        """
        if folder not in self._folders:
            return
        try:
            self._rewrite(folder, None)
        except (NotFound, NotADirectory) as error:
            if not folder:
                self._note(folder, error)
                raise
            logger.debug("%s has gone with what was to be written into it: %s", folder, error)
            self.forget(folder)
        except OctuefsError as error:
            self._note(folder, error)
            raise

    def flush_all(self, below: str = "") -> None:
        """Do that for a folder and all below it; the first failure is raised at the end."""
        failure: OctuefsError | None = None
        with self._changed:
            folders = self._folders_below(below)
        for folder in folders:
            try:
                self.flush(folder)
            except OctuefsError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def rewrite(self, folder: str, compose: Compose) -> None:
        """Replace a folder's file by what `compose` makes of it; nothing is pending then.

        :raise OctuefsError: where that fails; the file is as it was, and what was pending still is
        """
        self._rewrite(folder, compose)

    def drain(self, seconds: float | None) -> int:
        """Write all that is pending, trying for at most `seconds`; return how many records are left."""
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            try:
                self.flush_all()
            except OctuefsError as error:
                logger.debug("not all metadata could be written: %s", error)
            left = self.count()
            if not left or (end is not None and time.monotonic() >= end):
                return left
            time.sleep(_QUIET_SECONDS)

    def close(self) -> None:
        """Write what can be written; the rest stays in the journal."""
        self._background.close(_LONGEST_SECONDS)
        with suppress(OctuefsError):  # reported
            self.flush_all()

    def _rewrite(self, folder: str, compose: Compose | None) -> None:
        path = join(folder, METADATA_NAME)
        with self._exclusive(folder):
            with self._changed:
                taken = dict(self._pending(folder))
            text, present, problems = self._read(path)
            new, impossible = merged(present, folder, taken, self._location)
            for name, error in impossible.items():
                subject = join(folder, name) if name else str(self._location)
                self._report.failure(f"{subject}: a change of its metadata was given up: {error}")
            if compose is not None:
                data = compose(new)
            elif _is_same(present, new, taken):
                data = text
            else:
                data = encode_octue(new) if new.datafiles or new.unread or new.dataset is not None else None
            if data != text:
                if compose is None and text is not None and text.strip() and is_malformed(present, problems):
                    self._keep_text(path, text, f"it was replaced, because it was {problems[0]}")
                # Names that we make and take as we please are no change of the folder to who set its time.
                self._put(path, data, keeps_time=compose is None or (text is not None and data is not None))
            if compose is not None or problems:
                new, problems = decode_octue(data) if data is not None else (OctueDocument(), [])
                self._report.set_problems(path, problems)
            if compose is not None:  # what was pending went into what was composed, and may be there no more
                self._done(folder, taken)
            self.written(folder, new, taken)
            self._done(folder, taken)
        try:
            self._journal.settle()
        except LocalFailure as error:
            logger.debug("%s", error)  # it stays queued; doing the same once more would change nothing

    def _done(self, folder: str, taken: Mapping[str, PendingRecord]) -> None:
        """Forget what was written, but what has changed since."""
        with self._changed:
            state = self._folders.get(folder)
            if state is not None:
                state.failure = ""
                state.first = time.monotonic()
                self._drop(folder, [name for name, it in taken.items() if state.pending.get(name) is it])

    def _read(self, path: str) -> tuple[bytes | None, OctueDocument, list[str]]:
        try:
            text = self._store.read_small(path, LARGEST_FILE)
        except NotFound:
            return None, OctueDocument(), []
        return text, *decode_octue(text)

    def _put(self, path: str, data: bytes | None, *, keeps_time: bool) -> None:
        if data is not None:
            self._store.replace_file(path, data, keeps_time=keeps_time)
            return
        with suppress(NotFound):
            self._store.remove(path, keeps_time=keeps_time)

    @contextmanager
    def _exclusive(self, folder: str) -> Iterator[None]:
        """Let nobody else rewrite a folder's file: no thread of ours, and no other mount."""
        with self._changed:
            self._changed.wait_for(lambda: folder not in self._busy)
            self._busy.add(folder)
        try:
            with self._store.locked(folder):
                yield
        finally:
            with self._changed:
                self._busy.discard(folder)
                self._changed.notify_all()

    # --- in the background

    def _flush_when_quiet(self, folder: str) -> float | None:
        """Write a folder's file if its time has come; return when to ask again, None where nothing is pending."""
        with self._changed:
            state = self._folders.get(folder)
            if state is None:
                return None
            pause = min(state.last + _QUIET_SECONDS, state.first + _LONGEST_SECONDS) - time.monotonic()
        if pause > 0:
            return pause
        try:
            self.flush(folder)
        except OctuefsError:
            return _RETRY_SECONDS
        except Exception as error:
            self._note(folder, LocalFailure(str(error)))
            logger.exception("unexpected failure while the metadata of %s was written", printable(folder))
            return _RETRY_SECONDS
        return _QUIET_SECONDS if self.has(folder) else None

    def _note(self, folder: str, error: OctuefsError) -> None:
        """Remember, and report once, why a folder's file could not be written."""
        with self._changed:
            state = self._folders.get(folder)
            known = state is None or state.failure == str(error)
            if state is not None:
                state.failure = str(error)
        if not known:
            self._report.failure(
                f"{join(folder, METADATA_NAME)} could not be written, and will be tried again: {error}"
            )


def _is_same(present: OctueDocument, new: OctueDocument, names: Collection[str]) -> bool:
    """Say whether the records of these names are stored as they are to be."""
    if present.datafiles.keys() != new.datafiles.keys() or present.unread != new.unread:
        return False
    one, other = (
        encode_octue(OctueDocument({name: it.datafiles[name] for name in names if name in it.datafiles}, it.dataset))
        for it in (present, new)
    )
    return one == other
