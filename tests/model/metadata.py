"""What a mount must say of metadata: DESIGN 2.1, 3.1 and 3.2 as a table by path, without any code of octuefs."""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

REMEMBERED_SECONDS = 15.0
UNSURE_SECONDS = 2.0
"""Around that time it cannot be told from here whether a name is still remembered."""


@dataclass(frozen=True)
class Record:
    """The metadata of a datafile."""

    labels: frozenset[str] = frozenset()
    tags: Mapping[str, Any] = field(default_factory=dict)
    timestamp: str | None = None
    id: str | None = None
    """None where none is stored, or none is known."""

    @property
    def says_something(self) -> bool:
        return bool(self.labels or self.tags or self.timestamp)

    @property
    def facts(self) -> dict[str, Any]:
        """All but the ID."""
        return {"labels": sorted(self.labels), "tags": dict(self.tags), "timestamp": self.timestamp}

    def over(self, target: "Record") -> "Record":
        """What stands after a rename over `target`."""
        return Record(
            self.labels or target.labels,
            self.tags or target.tags,
            self.timestamp or target.timestamp,
            target.id or self.id,
        )

    def stored(self) -> dict[str, Any]:
        """The same as the SDK writes it into a `.octue`."""
        when = {"_type": "datetime", "value": self.timestamp} if self.timestamp else None
        record = {"timestamp": when, "tags": dict(self.tags), "labels": {"_type": "set", "items": sorted(self.labels)}}
        return {**record, **({"id": self.id} if self.id else {})}

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> "Record":
        """The opposite."""
        labels = stored.get("labels") or []
        when = stored.get("timestamp")
        return cls(
            frozenset(labels["items"] if isinstance(labels, dict) else labels),
            stored.get("tags") or {},
            when["value"] if when else None,
            stored.get("id"),
        )

    @classmethod
    def of_object(cls, custom: Mapping[str, str]) -> "Record":
        """What an object's custom metadata say."""
        return cls.read({key[7:]: json.loads(text) for key, text in custom.items() if key.startswith("octue__")})

    def custom(self) -> dict[str, str]:
        """The same as the SDK writes it into an object's custom metadata."""
        return {f"octue__{key}": json.dumps(value) for key, value in self.stored().items()}


NOTHING = Record()


class Metadata:
    """The records of a dataset: of files, of files that are to come, and of names just given up."""

    def __init__(self, look: Callable[[str], Record]) -> None:
        """`look` reads what the mount says of a path, for the moments in which two answers are right."""
        self._look = look
        self.files: dict[str, Record] = {}
        """Every file of the dataset is here."""
        self.waiting: dict[str, Record] = {}
        self._recent: dict[str, tuple[float, Record]] = {}

    def taken(self, path: str) -> Record:
        """What a name that is made now begins with."""
        when, recent = self._recent.pop(path, (0.0, NOTHING))
        if path in self.waiting:
            return self.waiting.pop(path)
        age = time.monotonic() - when
        if age > REMEMBERED_SECONDS + UNSURE_SECONDS:
            return NOTHING
        if age > REMEMBERED_SECONDS - UNSURE_SECONDS and recent.says_something:
            found = self._look(path)
            assert found.facts in (recent.facts, NOTHING.facts), (path, found, recent)
            return replace(found, id=None)
        return recent

    def _remember(self, path: str, record: Record) -> None:
        self._recent.pop(path, None)
        if record.says_something:
            self._recent[path] = (time.monotonic(), replace(record, id=None))

    # --- what is done through the mount

    def made(self, path: str) -> None:
        """A file is new."""
        self.files[path] = self.taken(path)

    def removed(self, path: str) -> None:
        self._remember(path, self.files.pop(path))

    def renamed(self, old: str, new: str) -> None:
        """A file has another name, over whatever file was there."""
        source = self.files.pop(old)
        target = self.files.pop(new) if new in self.files else self.taken(new)
        self.files[new] = source.over(target)
        self._remember(old, source)

    def folder_renamed(self, old: str, new: str) -> None:
        for table in (self.files, self.waiting):
            for path in [path for path in table if path.startswith(f"{old}/")]:
                table[new + path[len(old) :]] = table.pop(path)

    def document_written(self, folder: str, records: Mapping[str, Record], *, stored_ids_win: bool = True) -> None:
        """A `.octue` was written, through the mount or (where IDs do not win) underneath: it says all of its folder."""
        for path in [path for path in self.waiting if parent(path) == folder]:
            del self.waiting[path]
        for path, record in self.files.items():
            if parent(path) == folder:
                written = records.get(name(path), NOTHING)
                kept = record.id if stored_ids_win and name(path) in records else None
                self.files[path] = replace(written, id=kept or written.id)
        for basename, record in records.items():
            path = join(folder, basename)
            if path not in self.files:
                self.waiting[path] = record

    def in_folder(self, folder: str) -> dict[str, Record]:
        """What a folder's `.octue` must say, by basename."""
        return {
            name(path): record
            for table in (self.files, self.waiting)
            for path, record in table.items()
            if parent(path) == folder and record.says_something
        }

    # --- what is done underneath

    def left_underneath(self, path: str) -> None:
        """A file has gone from a disk; its record, which goes by name, has not."""
        record = self.files.pop(path)
        if record.says_something:
            self.waiting[path] = record

    def came_underneath(self, path: str) -> None:
        """A file has come to a disk, or another stands there now."""
        if path not in self.files:
            self.files[path] = self.waiting.pop(path, NOTHING)


def parent(path: str) -> str:
    return path.rpartition("/")[0]


def name(path: str) -> str:
    return path.rpartition("/")[2]


def join(folder: str, basename: str) -> str:
    return f"{folder}/{basename}" if folder and basename else folder or basename


def new_id() -> str:
    return str(uuid.uuid4())
