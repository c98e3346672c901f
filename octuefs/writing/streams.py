"""The upload of a large file that goes on while the file is still being written in order.

Chunks grow, for the server may copy all it has for each of them. Nothing is committed here: the rest, with which the
object is complete, is sent when the file is closed or synced (`uploads.py`).
"""

import logging
import threading
from collections.abc import Callable

from octuefs.errors import NotFound, OctuefsError
from octuefs.stores.writing import ObjectProperties, ObjectStore, Precondition
from octuefs.writing.background import Background
from octuefs.writing.contents import Content

logger = logging.getLogger(__name__)

FIRST_CHUNK_BYTES = 8 << 20
_LARGEST_CHUNK_BYTES = 256 << 20
_GLANCE_SECONDS = 1.0


class Stream:
    """One resumable upload of a content that grows."""

    def __init__(
        self,
        store: ObjectStore,
        background: Background,
        content: Content,
        path: str,
        properties: ObjectProperties,
        condition: Precondition,
        note: Callable[[str | None, int], None],
    ) -> None:
        """`note` is told the session's URI, and how far it is."""
        self._store = store
        self._background = background
        self._content = content
        self._path = path
        self._properties = properties
        self._condition = condition
        self._note = note
        self._rewrites = content.staged.rewrites
        """As long as it is this number the bytes that were sent are still the file's."""
        self._changed = threading.Condition()
        # All below is guarded by _changed, which is never held across a request.
        self._session: str | None = None
        self._offset = 0
        self._chunk = FIRST_CHUNK_BYTES
        self._running = False
        self._ended = False
        self._abandoned = False
        self._failed = False
        self._error: OctuefsError | None = None

    def grown(self) -> None:
        """Send more where enough has been written; called after each write."""
        if self._running or self._content.staged.written_in_order - self._offset < self._chunk:
            return
        with self._changed:
            if self._running or self._ended or self._failed:
                return
            self._running = True
        if not self._background.add(self, self._send):
            self._end_step(None)

    def is_valid(self) -> bool:
        """Say whether what was sent is still what stands in the file."""
        return self._content.staged.rewrites == self._rewrites

    def abandon(self) -> None:
        """Give the upload up: it would not store what it is to store now."""
        with self._changed:
            self._ended = self._abandoned = True
            if self._running:
                return  # it ends with its request
        self._cancel()

    def finish(self) -> tuple[str, int] | None:
        """End sending and return the session and how far it is; None where there is nothing to go on with.

        :raise OctuefsError: where it could not be begun, after all tries, while this waited for it: more were in vain
        """
        with self._changed:
            if self._ended:
                return None
            self._ended = True
            begins = self._running and self._session is None
            while self._running and not self._background.closed:
                self._changed.wait(_GLANCE_SECONDS)
            session, offset = self._session, self._offset
        if begins and session is None and self._error is not None:
            raise self._error
        if not self.is_valid():
            self._cancel()
            return None
        if session is not None and self._failed:
            try:
                state = self._store.upload_state(self._path, session)
            except NotFound:
                return None
            except OctuefsError:
                return session, offset
            return session, state.offset
        return (session, offset) if session is not None else None

    def _send(self) -> None:
        """Send a chunk, and more as long as there is enough; in the background."""
        while True:
            offset: int | None = None
            try:
                if self._session is None:
                    self._session = self._store.begin_upload(self._path, self._properties, self._condition)
                    if not self._abandoned:
                        self._note(self._session, 0)
                start, end = self._offset, self._offset + self._chunk
                body = self._content.staged.body()
                offset = self._store.send(self._path, self._session, body, start, end, total=None).offset
                if not self._abandoned:
                    self._note(self._session, offset)
            except OctuefsError as error:
                self._error = error
                logger.debug("the upload of %s stopped while it was written: %s", self._path, error)
            finally:
                goes_on = self._end_step(offset)
            if not goes_on:
                return

    def _end_step(self, offset: int | None) -> bool:
        """Take note of how far it is, None after a failure, and say whether to go on."""
        with self._changed:
            if offset is None:
                self._failed = True
            else:
                self._offset = offset
                self._chunk = min(2 * self._chunk, _LARGEST_CHUNK_BYTES)
                enough = self._content.staged.written_in_order - offset >= self._chunk
                if enough and not self._ended:
                    return True
            self._running = False
            abandoned = self._abandoned
            self._changed.notify_all()
        if abandoned:
            self._cancel()
        return False

    def _cancel(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            cancel_in_background(self._store, self._background, session)


def cancel_in_background(store: ObjectStore, background: Background, session: str) -> None:
    """End a session that will not be gone on with; one that cannot be ended now dies after a week."""

    def cancel() -> None:
        try:
            store.cancel_upload(session)
        except OctuefsError as error:
            logger.debug("an upload could not be cancelled: %s", error)

    background.add(session, cancel)
