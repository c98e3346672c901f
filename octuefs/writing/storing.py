"""When files of a cloud dataset are stored: by who closes or syncs them, or behind, and what becomes of failures.

A failure in front of somebody is raised, one behind is reported, and told to who next opens, flushes or syncs the
path. Either way what was written is kept; with `write_back` it is tried again as long as the failure may pass.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future
from contextlib import suppress

from octuefs.errors import NotFound, OctuefsError, StoreUnavailable, again
from octuefs.report import Report
from octuefs.writing.background import Background
from octuefs.writing.cloudfile import CloudFile, Incomplete
from octuefs.writing.filetable import FileTable
from octuefs.writing.journal import Journal
from octuefs.writing.leftovers import Leftovers
from octuefs.writing.unsettled import Unsettled
from octuefs.writing.uploads import TRANSIENT, Uploader

logger = logging.getLogger(__name__)

_UPLOADS = 16
"""Files that are stored at a time in the background."""
_BEHIND_SECONDS = 0.5
"""How long what is closed waits with write-back, so that uploads do not slow down a burst of closes."""
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
_LOOK_SECONDS = 10.0
_CLOSE_SECONDS = 5.0


class Storing:
    """Stores the files of a table."""

    def __init__(
        self,
        table: FileTable,
        uploader: Uploader,
        leftovers: Leftovers,
        journal: Journal,
        report: Report,
        look_again: Callable[[Iterable[str]], "Future[None]"],
        *,
        unsettled: Unsettled,
        write_back: bool,
        stopping: threading.Event,
    ) -> None:
        """`stopping` is set where nothing more is to be stored."""
        self._table = table
        self._uploader = uploader
        self._leftovers = leftovers
        self._journal = journal
        self._report = report
        self._look_again = look_again
        self._unsettled = unsettled
        self._write_back = write_back
        self._stopping = stopping
        self.background = Background("upload", _UPLOADS)
        self._lock = threading.Lock()  # guards all below, for memory work alone
        self._unreported: dict[str, OctuefsError] = {}
        self._tries: dict[CloudFile, int] = {}
        """How often storing a file behind has failed for the moment."""

    # --- by who waits for it

    def flush(self, file: CloudFile, *, durable: bool) -> None:
        """Store what was written to a file; with `write_back` only where it is to be `durable` in the bucket."""
        self.raise_unreported(file.path)
        if durable or not self._write_back:
            self.store(file)
        elif not (file.is_dirty or file.is_full):
            file.check()
        elif file.freeze(persistent=True):
            file.secure()
            file.tell()
            self.enqueue(file, delay=_BEHIND_SECONDS)

    def store(self, file: CloudFile) -> None:
        """Store what there is of a file, now.

        :raise OctuefsError: where that fails; it is kept under `recovered/`, or tried again with `write_back`
        """
        try:
            if file.freeze(persistent=self._write_back):
                self._journal.hurry()  # besides the request: what was closed is stored by the next mount after a crash
                self._deliver(file)
                file.check()  # what another thread gave up while this one waited to store it was not stored
        except Incomplete:
            raise
        except OctuefsError as error:
            if file.failure is not None:
                raise
            if isinstance(error, TRANSIENT) and file.is_persistent:
                self.enqueue(file, delay=_FIRST_PAUSE)
                raise
            raise self._give_up(file, error) from error
        finally:
            self._table.forget(file)  # it may have been closed meanwhile

    def release(self, file: CloudFile, *, writable: bool, flushed: bool) -> None:
        """Take note that a handle was closed. What was written since its flush is durable here when this returns.

        For an empty new file that never was `flushed` somebody waits: libfuse makes the file of a mknod(2) so.
        """
        if self._table.close(file, writable=writable) and not file.is_removed:
            try:
                if file.is_dirty and not flushed and file.base is None and file.info().size == 0:
                    self.flush(file, durable=False)
                elif file.is_dirty and file.freeze(persistent=self._write_back):
                    self.enqueue(file)
                    file.secure()
            except Incomplete:
                logger.debug("%s: each close said that not all of it was written", file.path)
            except OctuefsError as error:
                self._report.failure(f"{file.path}: what was written last is not safe yet: {error}")
            self._give_up_full(file)
        self._table.forget(file)

    def raise_unreported(self, path: str) -> None:
        """Raise, once, the failure of something that was stored behind."""
        if path in self._unreported and (error := self.forget_unreported(path)) is not None:
            raise again(error)

    def forget_unreported(self, path: str) -> OctuefsError | None:
        """Forget such a failure, and return it."""
        with self._lock:
            return self._unreported.pop(path, None)

    # --- behind

    def enqueue(self, file: CloudFile, *, delay: float = 0.0) -> None:
        """Have a file stored behind."""
        self.background.add(file, lambda: self._store_behind(file), delay=delay)

    def follow_up(self, file: CloudFile) -> None:
        """See to it that properties of a file that is closed, or is being stored, get to the bucket."""
        if file.is_pending and not file.is_dirty:
            if self._write_back:
                self._journal.settle()
            self.enqueue(file)

    def _store_behind(self, file: CloudFile) -> float | None:
        """Store a file in the background; return after how many seconds it is to be tried again."""
        try:
            self._deliver(file)
        except OctuefsError as error:
            if self._stopping.is_set():
                return None  # the next mount sees to it
            if isinstance(error, TRANSIENT) and file.is_persistent:
                return self._pause(file, error)
            self._give_up(file, error, behind=True)
        except Exception as error:
            logger.exception("unexpected failure while %s was stored", file.path)
            self._give_up(file, StoreUnavailable(f"{file.path}: it could not be stored: {error}"), behind=True)
        with self._lock:
            self._tries.pop(file, None)
        self._table.forget(file)
        return None

    def _deliver(self, file: CloudFile) -> None:
        self._unsettled.settle(file.path)
        if self._uploader.deliver(file):
            self._leftovers.clear_reason(file.path)

    def _pause(self, file: CloudFile, error: OctuefsError) -> float:
        with self._lock:
            tries = self._tries[file] = self._tries.get(file, 0) + 1
        if tries == 1:
            self._report.failure(f"{file.path}: it is kept and stored later: {error}")
        return min(_FIRST_PAUSE * 2.0 ** (tries - 1), _LONGEST_PAUSE)

    # --- failures

    def _give_up(self, file: CloudFile, error: OctuefsError, *, behind: bool = False) -> OctuefsError:
        """Keep under `recovered/` what cannot be stored, show what stands there, and return the failure in words.

        `behind`, where nobody waits for it, it is told before the store is asked what stands there by now.
        """
        with file.uploading:  # who renames or removes it finds it as it was, or withdrawn
            path = file.path
            kept = file.fail(error)
            worded = error
            if kept:
                text = f"{error}; what was written is kept under .octuefs/recovered/"
                # That the bucket is gone is no answer to a program that closes its file: it would seem to be that.
                worded = StoreUnavailable(text) if isinstance(error, NotFound) else again(error, text)
                if file.failure is not None:
                    file.failure = worded
            if behind:
                self._report.failure(str(worded))  # first: who finds what is kept finds the reason too
            self._leftovers.add(kept)
            if behind:
                with self._lock:
                    self._unreported[path] = worded
            withdrawn = not file.is_dirty and self.withdraw(file)
        if withdrawn:
            self.look(path)
        return worded

    def _give_up_full(self, file: CloudFile) -> None:
        """Do the same with what the staging disk was too full for, if it was."""
        if not file.is_full:
            return
        with file.uploading:
            path = file.path
            withdrawn = file.give_up_full() and self.withdraw(file)
        if withdrawn:
            self.look(path)

    def withdraw(self, file: CloudFile) -> bool:
        """Show the bucket's object in the place of what a file had that was given up; False where that is done.

        What is shown is what we know of it, and may be looked at again.
        """
        if not self._table.forget_failed(file):
            return False
        file.withdraw()
        later = self._table.get(file.path)
        if later is not None:  # it was made anew meanwhile, and what it told of itself may be withdrawn too
            later.stand_again()
        return True

    def look(self, path: str) -> None:
        """Have a path looked at again, so that who opens it next gets what stands there."""
        with suppress(OctuefsError, TimeoutError, CancelledError, RuntimeError):
            self._look_again([path]).result(_LOOK_SECONDS)

    # --- the end

    def drain(self, seconds: float | None) -> None:
        """Wait until nothing waits to be stored, at most `seconds`."""
        self.background.hurry()
        self.background.wait(seconds)

    def close(self) -> None:
        """Begin nothing more, and wait a little for what is under way."""
        self._stopping.set()
        self.background.close(_CLOSE_SECONDS)
