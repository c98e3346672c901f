"""What could not be stored, under `.octuefs/recovered/`: texts that were refused, and content that lost to another's.

Entries are named for their file and the time, and are read, put back or discarded by that name. Texts stand in the
journal; content stands with the files of a cloud dataset. Any thread may call.
"""

import base64
import itertools
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from octuefs.errors import NotFound
from octuefs.model.paths import NAME_MAX, name_of, path_bytes
from octuefs.stores.base import ByteSource
from octuefs.writing.journal import Journal

_TEXT = "text"
_LONGEST_TIME = 24
"""Bytes that the time, and a number where it is needed, add to a name."""


class FailedFile(Protocol):
    """Content that could not be stored."""

    @property
    def id(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def when(self) -> float: ...
    @property
    def reason(self) -> str: ...
    @property
    def size(self) -> int: ...


class FailedFiles(Protocol):
    """Those of a cloud dataset."""

    def recovered(self) -> Sequence[FailedFile]: ...
    def read_recovered(self, id: str, /) -> ByteSource: ...
    def put_back(self, id: str, /) -> None: ...
    def discard(self, id: str, /) -> None: ...


StoreText = Callable[[str, bytes], object]
"""`store_text(path, data)` takes a text as if it was written at its path just now."""


@dataclass(frozen=True, slots=True)
class RecoveredEntry:
    """Something that could not be stored: where it was meant for, since when (seconds), why, and how long it is."""

    name: str
    path: str
    when: float
    reason: str
    size: int
    id: str
    is_text: bool


class TextContent:
    """A ByteSource over bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, offset: int, size: int) -> bytes:
        """See `ByteSource`."""
        return self._data[offset : offset + size]

    def version(self) -> Hashable:
        """See `ByteSource`."""
        return hash(self._data)

    def identity(self) -> Hashable:
        """See `ByteSource`."""
        return hash(self._data)

    def info(self) -> None:
        """Tell nothing: no store has it."""

    def close(self) -> None:
        """See `ByteSource`."""


class Recovered:
    """What could not be stored of one dataset."""

    def __init__(self, journal: Journal, store_text: StoreText, files: FailedFiles | None = None) -> None:
        """`files` are those of a cloud dataset; on a disk there are none."""
        self._journal = journal
        self._store_text = store_text
        self._files = files
        self._lock = threading.Lock()  # guards _names
        self._names: dict[str, str] = {}
        """By ID, so that a name stays while others go."""

    def keep_text(self, path: str, data: bytes, reason: str) -> None:
        """Keep a text that could not be stored at `path`, durably; the same once more is kept once."""
        key = blake2b(path_bytes(path) + b"\0" + data, digest_size=16).hexdigest()
        text = base64.b64encode(data).decode()
        self._journal.put(_TEXT, key, {"path": path, "when": time.time(), "reason": reason, "text": text})
        self._journal.settle()

    def entries(self) -> list[RecoveredEntry]:
        """Return all that is kept, the oldest first."""
        found = [
            (row["when"], key, row["path"], row["reason"], _length(row["text"]), True)
            for key, row in self._journal.items(_TEXT).items()
        ]
        if self._files is not None:
            found += [(it.when, it.id, it.path, it.reason, it.size, False) for it in self._files.recovered()]
        found.sort(key=lambda it: it[:2])
        with self._lock:
            self._names = {id: name for id, name in self._names.items() if id in {it[1] for it in found}}
            for when, id, path, *_ in found:
                if id not in self._names:
                    self._names[id] = self._new_name(path, when)
            names = dict(self._names)
        return [
            RecoveredEntry(names[id], path, when, reason, size, id, is_text)
            for when, id, path, reason, size, is_text in found
        ]

    def _new_name(self, path: str, when: float) -> str:
        taken = set(self._names.values())
        base = path_bytes(name_of(path))[: NAME_MAX - _LONGEST_TIME].decode("utf-8", "surrogateescape")
        name = f"{base}.{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(when))}"
        if name not in taken:
            return name
        return next(it for number in itertools.count(2) if (it := f"{name}-{number}") not in taken)

    def entry(self, name: str) -> RecoveredEntry:
        """Return the entry of a name.

        :raise NotFound: where there is none
        """
        for entry in self.entries():
            if entry.name == name:
                return entry
        raise NotFound(f"{name}: nothing of this name is kept under recovered/")

    def open(self, name: str) -> ByteSource:
        """Open an entry for reading."""
        entry = self.entry(name)
        if not entry.is_text:
            assert self._files is not None, "content comes from there"
            return self._files.read_recovered(entry.id)
        return TextContent(self._text(entry))

    def _text(self, entry: RecoveredEntry) -> bytes:
        row = self._journal.items(_TEXT).get(entry.id)
        if row is None:
            raise NotFound(f"{entry.name}: it was discarded meanwhile")
        return base64.b64decode(row["text"])

    def restore(self, name: str) -> None:
        """Store an entry at its path as a new version, over what stands there now, and let go of it.

        :raise OctuefsError: where it cannot be stored this time either; it stays
        """
        entry = self.entry(name)
        if entry.is_text:
            self._store_text(entry.path, self._text(entry))
            self._discard(entry)
        elif self._files is not None:
            self._files.put_back(entry.id)

    def discard(self, name: str) -> None:
        """Let go of an entry for ever."""
        self._discard(self.entry(name))

    def _discard(self, entry: RecoveredEntry) -> None:
        if entry.is_text:
            self._journal.drop(_TEXT, entry.id)
            self._journal.settle()
        elif self._files is not None:
            self._files.discard(entry.id)


def _length(text: str) -> int:
    """Return how many bytes a text in base64 stands for."""
    return len(text) // 4 * 3 - text.count("=", -2)
