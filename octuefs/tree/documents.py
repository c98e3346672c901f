"""The `.octue` files that programs have open for writing: texts in memory, stored as a whole once they are complete.

All handles of one file share its text. It is stored when a descriptor is closed after a change (FLUSH), or synced;
what is malformed is refused then, and the next change may mend it.
"""

import os
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress

from octuefs.errors import BadValue, OctuefsError, TooBig, Unsupported
from octuefs.stored_metadata import LARGEST_FILE

Changed = Callable[[], None]


class Document:
    """One such file. `store` takes a new text."""

    def __init__(self, store: Callable[[bytes], object]) -> None:
        self._store = store
        self._condition = threading.Condition()  # guards what follows; held for memory work alone
        self._text = bytearray()
        self._dirty = False
        self._storing = False
        self._failure: BadValue | None = None

    @property
    def pending(self) -> bool:
        """True while it holds what is not stored."""
        return self._dirty

    @property
    def size(self) -> int:
        """The length of the text in bytes."""
        return len(self._text)

    def begin(self, text: bytes) -> None:
        """Begin with a text that is stored."""
        with self._condition:
            self._text[:] = text

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`."""
        with self._condition:
            return bytes(self._text[offset : offset + size])

    def write(self, offset: int | None, data: bytes) -> int:
        """Write at `offset`, or at the end."""
        with self._condition:
            offset = len(self._text) if offset is None else offset
            self._lengthen(offset, offset + len(data))
            self._text[offset : offset + len(data)] = data
            self._dirty = True
            return len(data)

    def truncate(self, length: int) -> None:
        """Cut or extend to `length` bytes."""
        with self._condition:
            if length != len(self._text):
                self._lengthen(length, length)
                del self._text[length:]
                self._dirty = True

    def _lengthen(self, length: int, limit: int) -> None:
        if limit > LARGEST_FILE:
            raise TooBig(f"a metadata file has at most {LARGEST_FILE} bytes")
        if length > len(self._text):
            self._text.extend(bytes(length - len(self._text)))

    def flush(self) -> None:
        """Store the text if it was changed since it last was.

        An empty one is none yet: a shell closes a copy of its descriptor before anything is written. What was refused
        is not stored again, and fails again, until it is changed.
        """
        with self._condition:
            while self._storing:
                self._condition.wait()
            if not self._text:
                return
            if not self._dirty:
                if self._failure is not None:
                    raise self._failure
                return
            text = bytes(self._text)
            self._storing = True
        failure: BadValue | None = None
        settled = False
        try:
            self._store(text)
            settled = True
        except BadValue as error:
            failure, settled = error, True
            raise
        finally:
            with self._condition:
                self._storing = False
                self._failure = failure
                self._dirty = not settled or self._text != text
                self._condition.notify_all()


class Documents:
    """Those of one mount, by any key that tells one from another."""

    def __init__(self, changed: Changed) -> None:
        """`changed` is called where a name may have come or gone."""
        self._changed = changed
        self._lock = threading.Lock()
        self._open: dict[Hashable, tuple[Document, int]] = {}

    def find(self, key: Hashable) -> Document | None:
        """Return the document that is open under a key."""
        found = self._open.get(key)
        return found[0] if found is not None else None

    def open(
        self, key: Hashable, flags: int, present: Callable[[], bytes], store: Callable[[bytes], object]
    ) -> "DocumentFile":
        """Open a document as open(2) does; `present` gives its stored text, `store` takes a new one."""
        text = b"" if flags & os.O_TRUNC else None
        while True:
            with self._lock:
                document, handles = self._open.get(key, (None, 0))
                if document is None and text is not None:
                    document = Document(store)
                    document.begin(text)
                if document is not None:
                    self._open[key] = (document, handles + 1)
                    break
            text = present()  # without the lock: it may take a request
        if flags & os.O_TRUNC:
            document.truncate(0)
        if not handles:
            self._changed()
        return DocumentFile(document, lambda: self._release(key), appends=bool(flags & os.O_APPEND))

    def _release(self, key: Hashable) -> None:
        with self._lock:
            document, handles = self._open[key]
            if handles > 1:
                self._open[key] = (document, handles - 1)
                return
            del self._open[key]
        self._changed()


class DocumentFile:
    """An `OpenFile` of a document."""

    def __init__(self, document: Document, release: Callable[[], None], *, appends: bool) -> None:
        self._document = document
        self._release = release
        self._appends = appends
        self._when_closed: list[Callable[[], object]] = []

    def read(self, offset: int, size: int) -> bytes:
        """See `ByteSource`."""
        return self._document.read(offset, size)

    def version(self) -> Hashable:
        """See `ByteSource`."""
        return hash(self._document.read(0, self._document.size))

    def identity(self) -> Hashable:
        """See `ByteSource`."""
        return self._document

    def info(self) -> None:
        """Tell nothing: the node does."""

    def write(self, offset: int, data: bytes) -> int:
        """See `OpenFile`."""
        return self._document.write(None if self._appends else offset, data)

    def truncate(self, length: int) -> None:
        """See `OpenFile`."""
        self._document.truncate(length)

    def allocate(self, mode: int, offset: int, length: int) -> None:
        """Take room in memory; nothing but the plain mode is known here."""
        if mode:
            raise Unsupported("a metadata file has no holes")
        if offset + length > self._document.size:
            self._document.truncate(offset + length)

    def flush(self) -> None:
        """See `OpenFile`."""
        self._document.flush()

    def sync(self, *, data_only: bool = False) -> None:
        """See `OpenFile`."""
        self._document.flush()

    def when_closed(self, callback: Callable[[], object]) -> None:
        """See `OpenFile`."""
        self._when_closed.append(callback)

    def close(self) -> None:
        """Store what came after the last flush, as far as it can be, and let go."""
        with suppress(OctuefsError):  # nobody is told of it any more; the writer keeps and reports it
            if self._document.pending:
                self._document.flush()
        self._release()
        for callback in self._when_closed:
            callback()
