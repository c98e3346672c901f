"""How content gets into the bucket: in one request, by a resumable upload, or appended to what is there.

`CloudFile` says what is to be stored (an `Upload`), `deliver` stores it and tells the file how that went. The thread
that calls waits for the requests; the only lock held meanwhile is the file's `uploading`, which nobody needs who
reads, writes or asks for attributes.
"""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from octuefs.errors import ChecksumMismatch, Conflict, NotFound, StoreUnavailable, TimedOut
from octuefs.stores.base import Kind, ObjectInfo
from octuefs.stores.writing import Body, ObjectProperties, ObjectStore, Precondition, UploadState
from octuefs.writing.cloud_facts import condition_of
from octuefs.writing.contents import Content
from octuefs.writing.properties import patch_between

SMALL_BYTES = 8 << 20
"""Up to this size an object is stored in one request."""

_TRIES = 5
"""Tries to go on with a resumable upload without getting any further."""
_FIRST_PAUSE = 0.5
_NEW_SESSIONS = 3
"""How often an upload begins anew because its session has gone."""
_CONFLICTS = 4
"""How often a version that stands there is made the base of an upload, because it can be."""

TRANSIENT = (StoreUnavailable, TimedOut)

Note = Callable[[str | None, int], None]
"""Is told the URI of a session (None: none any more) and how far it is."""


@dataclass(frozen=True, slots=True)
class Upload:
    """What is to stand at a path instead of `base` (None: nothing stands there).

    Where `bytes_stand` the object has the bytes already, and only its custom metadata are to be others.
    """

    path: str
    content: Content | None
    size: int
    crc32c: int
    properties: ObjectProperties
    base: ObjectInfo | None
    bytes_stand: bool = False

    @property
    def condition(self) -> Precondition:
        """The version that must stand there still."""
        return Precondition(generation=0) if self.base is None else condition_of(self.base)

    def has_same_bytes(self, info: ObjectInfo) -> bool:
        """Say whether an object has the bytes that are to be stored."""
        return info.kind is Kind.FILE and info.size == self.size and info.crc32c == self.crc32c

    def is_done_by(self, info: ObjectInfo) -> bool:
        """Say whether an object is what was to be stored."""
        return self.has_same_bytes(info) and dict(info.custom_metadata or {}) == dict(self.properties.custom_metadata)


class Deliverable(Protocol):
    """A file of which something is to be stored."""

    uploading: threading.RLock

    def next_upload(self) -> Upload | None:
        """Return what is to be stored next; None for nothing."""
        ...

    def reconciled(self, upload: Upload, found: ObjectInfo | None, error: Conflict) -> Upload:
        """Return the upload that takes in what was found to stand there instead of its base.

        :raise Conflict: where it cannot
        """
        ...

    def stored(self, upload: Upload, info: ObjectInfo) -> None:
        """Take note that it is done."""
        ...

    def note_session(self, content: Content, session: str | None, offset: int) -> None:
        """Take note of a resumable upload: its URI, and how far it is."""
        ...


class Appender(Protocol):
    """What stores a content whose beginning an object has already (`appends.py`)."""

    def append(self, upload: Upload) -> ObjectInfo:
        """Store it."""
        ...


class Uploader:
    """Stores what files want to have stored."""

    def __init__(self, store: ObjectStore, stopping: threading.Event) -> None:
        """`stopping` is set where pauses between tries are to end."""
        self._store = store
        self._stopping = stopping
        self.appender: Appender | None = None

    def deliver(self, file: Deliverable) -> bool:
        """Store all that is to be stored of a file; False where that was nothing.

        :raise Conflict: where another version stands there
        :raise OctuefsError: where it cannot be stored; the file still has it
        """
        delivered = False
        with file.uploading:
            while (upload := file.next_upload()) is not None:
                info, upload = self._store_upload(file, upload)
                file.stored(upload, info)
                delivered = True
        return delivered

    def _store_upload(self, file: Deliverable, upload: Upload) -> tuple[ObjectInfo, Upload]:
        """Store one version, over what stands there where that is its base or can become it."""
        for attempt in range(_CONFLICTS):
            try:
                return self._send(file, upload), upload
            except Conflict as error:
                found = self._stat(upload.path)
                if found is not None and upload.is_done_by(found):
                    return found, upload  # the answer to an earlier try was lost
                if attempt == _CONFLICTS - 1:
                    raise
                upload = file.reconciled(upload, found, error)
        raise AssertionError

    def _send(self, file: Deliverable, upload: Upload) -> ObjectInfo:
        content, base = upload.content, upload.base
        if content is None or upload.bytes_stand:
            assert base is not None, "an object that is not there has no metadata to change"
            patch = patch_between(base.custom_metadata or {}, upload.properties.custom_metadata)
            return self._store.patch(upload.path, patch, upload.condition) if patch else base
        if content.first:
            assert self.appender is not None, "tails are staged only where they can be appended"
            return self.appender.append(upload)

        def note(session: str | None, offset: int) -> None:
            file.note_session(content, session, offset)

        stream, content.stream = content.stream, None
        begun = stream.finish() if stream is not None else None
        body = content.staged.body()
        if begun is not None:
            session, offset = begun
            info = self._send_rest(upload.path, session, body, offset, upload.size, upload, note)
            return proven(info, upload.size, upload.crc32c)
        return self.put(upload.path, body, upload.size, upload.crc32c, upload.properties, upload.condition, note)

    def put(
        self,
        path: str,
        body: Body,
        size: int,
        crc32c: int,
        properties: ObjectProperties,
        condition: Precondition,
        note: Note,
    ) -> ObjectInfo:
        """Store an object in one request, a large one so that it can be gone on with after a failure."""
        if size <= SMALL_BYTES:
            return proven(self._store.upload(path, body, size, crc32c, properties, condition), size, crc32c)
        session = self._store.begin_upload(path, properties, condition)
        begin = _Beginning(properties, condition)
        return proven(self._send_rest(path, session, body, 0, size, begin, note), size, crc32c)

    def _send_rest(
        self, path: str, session: str, body: Body, offset: int, size: int, begin: "Upload | _Beginning", note: Note
    ) -> ObjectInfo:
        """Send what is left of a resumable upload in one request, and go on after failures."""
        note(session, offset)
        failures = sessions = 0

        def watched(start: int, length: int) -> bytes:
            note(None, start)
            return body(start, length)

        while True:
            try:
                state = self._store.send(path, session, watched, offset, size, total=size)
                if state.done is None and state.offset <= offset:
                    failures += 1
            except NotFound:
                sessions += 1
                if sessions > _NEW_SESSIONS:
                    raise StoreUnavailable(f"{path}: the store forgets its uploads again and again") from None
                session = self._store.begin_upload(path, begin.properties, begin.condition)
                state = UploadState(0)
                note(session, 0)
            except TRANSIENT:
                failures += 1
                if failures >= _TRIES or self._stopping.wait(random.uniform(0, _FIRST_PAUSE * 2**failures)):
                    raise
                state = self._ask(path, session, offset)
            if state.done is not None:
                return state.done
            if failures >= _TRIES:
                raise StoreUnavailable(f"{path}: the upload does not get any further")
            if state.offset > offset:
                failures = 0
            offset = state.offset

    def _ask(self, path: str, session: str, offset: int) -> UploadState:
        """Return how far an upload is, after a failure; what it was where that cannot be told (or it is gone)."""
        try:
            return self._store.upload_state(path, session)
        except (NotFound, *TRANSIENT):
            return UploadState(offset)

    def _stat(self, path: str) -> ObjectInfo | None:
        try:
            return self._store.stat(path)
        except NotFound:
            return None


@dataclass(frozen=True, slots=True)
class _Beginning:
    properties: ObjectProperties
    condition: Precondition


def proven(info: ObjectInfo, size: int, crc32c: int) -> ObjectInfo:
    """Return what was stored if it is what was sent.

    :raise ChecksumMismatch: where it is not
    """
    if info.size != size or (info.crc32c is not None and info.crc32c != crc32c):
        raise ChecksumMismatch(f"{info.path}: what the store has now is not what was sent")
    return info
