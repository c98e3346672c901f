"""What a file of a cloud dataset is like now, and what the journal and the index are told of it.

Lock order of a file: `uploading` (held across requests, by who stores, gives up or moves it), `_staging` (held while
content is fetched or copied, by who writes), `_state` (memory, and writes to the staging disk), then the locks of the
index, the journal and streams. To tell what the file is like (`info`) takes no lock at all.
"""

import itertools
import stat
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octuefs.entries import Change
from octuefs.errors import OctuefsError, again
from octuefs.index import Index
from octuefs.model.changes import MetadataChange
from octuefs.model.paths import Location
from octuefs.stores.base import Kind, ObjectInfo
from octuefs.stores.writing import ObjectProperties, ObjectStore, Precondition
from octuefs.writing.appends import Appends
from octuefs.writing.background import Background
from octuefs.writing.cloud_facts import condition_of
from octuefs.writing.contents import Content
from octuefs.writing.filerows import FILE, Sum, row_of
from octuefs.writing.journal import Journal
from octuefs.writing.properties import (
    CONTENT_TYPE,
    MODE_KEY,
    guessed_type,
    permissions,
    stored_mtime,
    with_attributes,
    with_change,
)
from octuefs.writing.unsettled import Unsettled

_versions = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the files of one dataset have in common."""

    store: ObjectStore
    location: Location
    index: Index
    journal: Journal
    staged_folder: Path
    appends: Appends
    streams: Background
    classify: Callable[[ObjectInfo], Change]
    inode_of: Callable[[str], int]
    look_again: Callable[[Iterable[str]], "Future[None]"]
    unsettled: Unsettled
    stands: Callable[["FileState"], bool]
    """Says whether a file is the one of its path."""


class FileState:
    """One file, by whatever name it has now."""

    def __init__(
        self,
        around: Surroundings,
        path: str,
        base: ObjectInfo | None,
        *,
        custom: Mapping[str, str],
        fixed: Mapping[str, str],
    ) -> None:
        self._around = around
        self.number = next(_versions)
        self.uploading = threading.RLock()
        self._staging = threading.RLock()
        self._state = threading.RLock()
        # Changed under _state, read by anyone.
        self.path = path
        self.base = base
        """What the bucket has, None for nothing."""
        self.content: Content | None = None
        """The bytes as they are now, where they are staged."""
        self.custom = custom
        """The custom metadata as they are now; never changed in place."""
        self.failure: OctuefsError | None = None
        """Why there is no content to read or write any more."""
        self.is_removed = False
        self.is_held = False
        """True as long as the index is told by this file alone what stands at its path; it stays in the table then."""
        self._fixed = fixed if base is not None else {CONTENT_TYPE: guessed_type(path), **fixed}
        self._queue: list[Content] = []
        """What is frozen and not stored, the oldest first: what is being stored now, and the latest after it."""
        self._in_flight: Content | None = None
        self._sent: tuple[Sum, ...] = ()
        """What may stand in the bucket in the place of `base` by now: it was sent, and its answer is not known."""
        self._dirty = False
        self._properties_changed = False
        """True where the bytes are stored and the custom metadata are not as they are now."""
        self._stored_row: str | None = None
        """The row that says so in the journal."""
        self._full: OctuefsError | None = None
        """Why some of what was written is missing: the staging disk was full."""
        self._changed_ns = time.time_ns()
        self._version = next(_versions)
        self._inode = base.inode if base is not None else around.inode_of(path)
        # Counted by the table, under its lock.
        self.handles = 0
        self.writers = 0

    # --- what it is like

    @property
    def is_stored(self) -> bool:
        """True where the bucket has it as it is."""
        return self.base is not None and not (self._dirty or self._queue or self._properties_changed)

    @property
    def is_pending(self) -> bool:
        """True where something waits to be stored that nobody has open for writing."""
        return bool(self._queue) or self._properties_changed

    @property
    def is_persistent(self) -> bool:
        """True where storing it is tried again and again."""
        return all(content.persistent for content in self._queue)

    @property
    def is_full(self) -> bool:
        """True where something that was written is missing, as the staging disk was full."""
        return self._full is not None

    @property
    def is_dirty(self) -> bool:
        """True where something was written since the last close or sync, or the file is new."""
        return self._dirty

    def progress(self) -> tuple[int, int]:
        """Return how many bytes wait, and how many of them are sent."""
        content = next(iter(reversed(self._queue)), None) or (self.content if self._dirty else None)
        return (content.size - content.first, max(content.sent - content.first, 0)) if content else (0, 0)

    def info(self) -> ObjectInfo:
        """Describe the file as it is now."""
        if (stored := self._as_stored()) is not None:
            return stored._replace(links=0) if self.is_removed else stored
        base, content = self.base, self.content
        custom, owner = self.custom, self._around.store.ownership
        mtime_ns = stored_mtime(custom)
        known = content is not None and content.staged.crc32c is not None
        return ObjectInfo(
            path=self.path,
            kind=Kind.FILE,
            size=content.size if content is not None else base.size if base is not None else 0,
            mtime_ns=self._changed_ns if mtime_ns is None else mtime_ns,
            ctime_ns=self._changed_ns,
            mode=stat.S_IFREG | permissions(custom.get(MODE_KEY), owner.file_mode),
            uid=owner.uid,
            gid=owner.gid,
            inode=self._inode,
            links=0 if self.is_removed else 1,
            version=self._unstored_version,
            crc32c=content.crc32c() if content is not None and known else None,
            custom_metadata=custom,
            properties=self._fixed,
        )

    def version(self) -> tuple[Any, ...]:
        """Return the version of the file as it is now; one that is not stored has no generation."""
        stored = self._as_stored()
        if stored is None:
            return self._unstored_version
        return stored.version if isinstance(stored.version, tuple) else (stored.version,)

    @property
    def _unstored_version(self) -> tuple[int, int, int]:
        return (0, 0, self._version)

    def _as_stored(self) -> ObjectInfo | None:
        """Return the object where the file is as the bucket has it.

        That it is is asked first: a base that is looked up after that is no older.
        """
        if not self.is_stored or (self.is_removed and self.content is not None):
            return None
        return self.base

    def check(self) -> None:
        """Raise where the content was lost to a failure: what was written stands under `recovered/`."""
        if self.failure is not None:
            raise again(self.failure)

    def has_moved_on(self, base: ObjectInfo | None) -> bool:
        """Wait for what is being stored or renamed, and say whether another object has come in the place of `base`."""
        with self.uploading:
            return self.base is not base

    # --- what is stored along

    def change_metadata(self, change: MetadataChange) -> bool:
        """Change the metadata of a file that is not stored as it is; False where it is.

        :raise TooBig: where it is more than an object can have
        """
        with self._state:
            if self.is_stored or self.is_removed or self.failure is not None:
                return False
            location = self._around.location
            own_id = self._around.index.new_id(self.path, location)
            self._take_properties(with_change(self.custom, change, location.of(self.path), own_id))
        self.tell()
        return True

    def set_attributes(self, *, mode: int | None, mtime_ns: int | None) -> bool:
        """Set attributes of a file that is not stored as it is; False where it is."""
        with self._state:
            if self.is_stored or self.is_removed or self.failure is not None:
                return False
            self._take_properties(with_attributes(self.custom, mode=mode, mtime_ns=mtime_ns))
        self.tell()
        return True

    def _take_properties(self, custom: Mapping[str, str]) -> None:
        self.custom = custom
        self._touch()
        self._abandon(self.content)
        if not self.is_removed:
            self._put_rows()

    def _properties(self) -> ObjectProperties:
        return ObjectProperties(self.custom, self._fixed)

    def _condition(self) -> Precondition:
        return Precondition(generation=0) if self.base is None else condition_of(self.base)

    def _abandon(self, content: Content | None) -> None:
        """End the upload of a content that is being written; the next one begins with its close."""
        if content is not None and content.stream is not None:
            content.stream.abandon()
            content.stream = content.session = None
            content.may_stream = False

    def _touch(self) -> None:
        """Make it another version."""
        self._version = next(_versions)

    # --- what others are told

    def tell(self) -> None:
        """Let the index know what the file is like now."""
        with self._state:
            if self.is_removed or self.failure is not None or not self._around.stands(self):
                return
            self._around.index.publish([self._around.classify(self.info())])
            if self.is_stored:
                self._let_go()

    def _hold(self) -> None:
        """Let the index hear from nobody else what stands at the path."""
        self.is_held = True
        self._around.index.hold(self.path)

    def _let_go(self) -> None:
        """End that. A stored file may be forgotten from here on, so the index is told what it is like first."""
        if self.is_held:
            self._around.index.let_go(self.path)
            self.is_held = False

    def note_session(self, content: Content, session: str | None, offset: int) -> None:
        """Take note of a resumable upload: its URI (None: as before), and how far it is."""
        content.sent = offset
        if session is not None and (session != content.session or offset):
            with self._state:
                is_new = session != content.session
                content.session = session
                if content is self.content or content in self._queue:
                    self._put_row(content, "closed" if content.frozen else "open")
            if is_new:  # durable before anything is sent: should this process die, the next one ends the session
                with suppress(OctuefsError):  # who closes the file hears of a journal that cannot be written
                    self._around.journal.settle()

    def _put_rows(self) -> None:
        """Write down anew all that is not stored."""
        if self._dirty and self.content is not None:
            self._put_row(self.content, "open")
        for content in self._queue:
            self._put_row(content, "closed")
        if self._stored_row is not None:
            self._around.journal.put(FILE, self._stored_row, self._row(None, "stored"))

    def _put_row(self, content: Content, state: str) -> None:
        if not self.is_removed:
            self._around.journal.put(FILE, content.id, self._row(content, state))

    def _row(self, content: Content | None, state: str, reason: str = "") -> dict[str, Any]:
        return row_of(self.path, self.base, self._properties(), content, state, reason=reason, sent=self._sent)

    def _forget(self, contents: Iterable[Content]) -> None:
        for content in contents:
            self._drop_row(content.id)
            content.forget()

    def _drop_row(self, id: str) -> None:
        self._around.journal.drop(FILE, id)
        self._around.unsettled.note(self.path)
