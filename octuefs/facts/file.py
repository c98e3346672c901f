"""The facts of one source on disk: a SQLite file with a snapshot, and what has changed since by path.

Losing it costs a listing, never correctness: one that is damaged or of another make is made anew. Each method is one
transaction, so whoever is killed leaves what stood before; several mounts of a source may use one file.

An older word of an object never replaces a newer one. Objects have generations, and what is gone keeps the generation
that it had, as a tombstone.
"""

import json
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pyroaring import BitMap

from octuefs.facts.described import describe_again, described
from octuefs.facts.pack import Bucket, Pack
from octuefs.facts.snapshot import Rows, Snapshot
from octuefs.facts.templates import Templates
from octuefs.model.hashes import extend_crc32c
from octuefs.stores.base import ObjectInfo

_VERSION = 2
"""Grows with each change of what stands in the file."""
_MAKE = f"octuefs facts {_VERSION} {sys.byteorder}"
_KEPT_SECONDS = 90 * 86400.0
"""How long a file is kept that nobody opens."""
_LOCKED_SECONDS = 5.0
"""How long to wait for another mount that is writing."""
_UNUSABLE = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR}
"""What SQLite says of a file that is damaged, or none of ours."""

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS folders (number INTEGER PRIMARY KEY, path TEXT NOT NULL, marker TEXT, pack BLOB NOT NULL,
    crc32c INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS rows (kind TEXT, key TEXT, value TEXT, bitmap BLOB NOT NULL,
    crc32c INTEGER NOT NULL, PRIMARY KEY (kind, key, value)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS changes (number INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL, kind TEXT NOT NULL,
    generation INTEGER NOT NULL, metageneration INTEGER NOT NULL, text TEXT, UNIQUE (path, kind));
"""


class Known(NamedTuple):
    """What is known of a path: what stands there, or, without `info`, what stood there before it went.

    `kind` is "folder" for the object of a folder, "file" for any other.
    """

    path: str
    kind: Literal["file", "folder"]
    generation: int
    metageneration: int
    info: ObjectInfo | None


class Besides(NamedTuple):
    """What is known of the dataset besides its objects; values that JSON can hold."""

    record: Any
    """The stored record of the dataset itself, None for none."""
    skipped: dict[str, str]
    problems: dict[str, list[str]]


class Remembered(NamedTuple):
    """All that the file tells."""

    snapshot: Snapshot
    changes: list[Known]
    besides: Besides


class FactsFile:
    """One file of facts. Any thread may call."""

    def __init__(self, path: Path) -> None:
        """Open or make the file at `path`; a damaged one, or one of another make, is made anew.

        :raise OSError: where it cannot be made
        :raise sqlite3.Error: where it cannot be used for now: it is locked, or the disk is full
        """
        self._path = path
        self._lock = threading.Lock()  # guards the connection, for one transaction at a time; taken before no other
        try:
            self._connection = self._connect()
        except sqlite3.DatabaseError as error:
            if _code(error) not in _UNUSABLE:
                raise
            self._remove()
            self._connection = self._connect()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=_LOCKED_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            os.chmod(self._path, 0o600)
            os.utime(self._path)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.executescript(_TABLES)
            connection.execute("INSERT OR IGNORE INTO facts VALUES ('make', ?)", (_MAKE,))
            make = connection.execute("SELECT value FROM facts WHERE name = 'make'").fetchone()[0]
            connection.execute("SELECT number, path, kind, generation, metageneration, text FROM changes LIMIT 0")
            if make != _MAKE:
                raise _another_make()
        except BaseException:
            connection.close()
            raise
        return connection

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)

    def make_anew(self) -> None:
        """Drop the file, which is damaged, and begin another.

        :raise OSError: where it cannot be made
        :raise sqlite3.Error: where it cannot be used
        """
        with self._lock:
            self._connection.close()
            self._remove()
            self._connection = self._connect()

    # --- reading

    def read(self, bucket_of: Callable[[Templates], Bucket]) -> Remembered | None:
        """Return what stands in the file, None where no snapshot does. `bucket_of` makes the bucket of its packs.

        :raise ValueError: where it is damaged
        :raise sqlite3.Error: where it is damaged or cannot be read
        """
        with self._transaction("DEFERRED") as connection:
            facts = dict(connection.execute("SELECT name, value FROM facts"))
            if "templates" not in facts:
                return None
            bucket = bucket_of(Templates.of_texts(json.loads(facts["templates"])))
            packs, markers = [], {}
            for path, marker, data, crc32c in connection.execute(
                "SELECT path, marker, pack, crc32c FROM folders ORDER BY number"
            ):
                _prove(data, crc32c)
                packs.append(Pack.of_bytes(bucket, path, data))
                if marker is not None:
                    markers[path] = describe_again(path, marker, bucket)
            shadowed = facts.get("shadowed")
            snapshot = Snapshot(
                packs,
                markers,
                Pack.of_bytes(bucket, "", shadowed) if shadowed is not None else None,
                _read_rows(connection.execute("SELECT kind, key, value, bitmap, crc32c FROM rows")),
                int(facts["total_bytes"]),
            )
            if snapshot.count != facts["count"]:
                raise ValueError("its folders do not add up")
            changes = [
                Known(path, kind, generation, metageneration, describe_again(path, text, bucket) if text else None)
                for path, kind, generation, metageneration, text in connection.execute(
                    "SELECT path, kind, generation, metageneration, text FROM changes ORDER BY number"
                )
            ]
            return Remembered(snapshot, changes, _read_besides(facts))

    # --- writing

    def replace(self, snapshot: Snapshot, besides: Besides, known: Callable[[str, str], Known | None]) -> None:
        """Let a snapshot stand instead of what there is.

        Changes by other mounts stay where they are newer than what it has, which `known` tells of a path and a kind.

        :raise sqlite3.Error: where it cannot be written; what stood there before does still
        """
        bucket = snapshot.packs[0].bucket
        with self._transaction("IMMEDIATE") as connection:
            newer = [
                number
                for number, path, kind, generation, metageneration, stands in connection.execute(
                    "SELECT number, path, kind, generation, metageneration, text IS NOT NULL FROM changes"
                )
                if not _is_in(known(path, kind), generation, metageneration, stands=stands)
            ]
            connection.execute("CREATE TEMP TABLE IF NOT EXISTS newer (number INTEGER PRIMARY KEY)")
            connection.execute("DELETE FROM newer")
            connection.executemany("INSERT INTO newer VALUES (?)", [(number,) for number in newer])
            connection.execute("DELETE FROM changes WHERE number NOT IN (SELECT number FROM newer)")
            connection.execute("DELETE FROM folders")
            connection.execute("DELETE FROM rows")
            connection.executemany(
                "INSERT INTO folders VALUES (?, ?, ?, ?, ?)",
                (
                    (number, it.folder, described(marker) if marker is not None else None, data, extend_crc32c(0, data))
                    for number, it in enumerate(snapshot.packs)
                    for marker, data in [(snapshot.markers.get(it.folder), it.to_bytes())]
                ),
            )
            connection.executemany(
                "INSERT INTO rows VALUES (?, ?, ?, ?, ?)",
                ((*place, data, extend_crc32c(0, data)) for *place, data in _rows_to_write(snapshot.rows)),
            )
            shadowed = snapshot.shadowed
            facts = {
                "templates": json.dumps(bucket.templates.texts()),
                "total_bytes": str(snapshot.total_bytes),
                "count": snapshot.count,
                "shadowed": shadowed.to_bytes() if shadowed is not None else None,
            }
            connection.execute("DELETE FROM facts WHERE name = 'shadowed'")
            _write_facts(connection, facts)
            _write_besides(connection, besides)
        with self._lock:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def note(self, changes: Sequence[Known], besides: Besides) -> int:
        """Note what has become known of paths; return how many changes there are since the snapshot.

        :raise sqlite3.Error: where it cannot be written; nothing of it is then
        """
        with self._transaction("IMMEDIATE") as connection:
            for change in changes:
                present = connection.execute(
                    "SELECT generation, metageneration, text IS NOT NULL FROM changes WHERE path = ? AND kind = ?",
                    (change.path, change.kind),
                ).fetchone()
                if present is None or _replaces(change, present):
                    text = described(change.info) if change.info is not None else None
                    connection.execute(
                        "INSERT OR REPLACE INTO changes (path, kind, generation, metageneration, text)"
                        " VALUES (?, ?, ?, ?, ?)",
                        (change.path, change.kind, change.generation, change.metageneration, text),
                    )
            _write_besides(connection, besides)
            count: int = connection.execute("SELECT count(*) FROM changes").fetchone()[0]
            return count

    def set_behind(self, *, behind: bool) -> None:
        """Note that somebody writes into the bucket who may be killed before that is noted here, or that nobody does.

        :raise sqlite3.Error: where it cannot be written
        """
        with self._transaction("IMMEDIATE") as connection:
            if behind:
                _write_facts(connection, {"behind": 1})
            else:
                connection.execute("DELETE FROM facts WHERE name = 'behind'")

    def is_behind(self) -> bool:
        """Say whether that was noted last.

        :raise sqlite3.Error: where it cannot be read
        """
        with self._transaction("DEFERRED") as connection:
            return connection.execute("SELECT 1 FROM facts WHERE name = 'behind'").fetchone() is not None

    def forget(self) -> None:
        """Let nothing be remembered.

        :raise sqlite3.Error: where it cannot be written
        """
        with self._transaction("IMMEDIATE") as connection:
            for table in ("folders", "rows", "changes", "facts"):
                connection.execute(f"DELETE FROM {table}")
            connection.execute("INSERT INTO facts VALUES ('make', ?)", (_MAKE,))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute(f"BEGIN {kind}")
            try:
                yield self._connection
            except BaseException:
                self._connection.rollback()
                raise
            self._connection.commit()


def remove_unused(folder: Path) -> None:
    """Remove the files of facts that no mount has opened for long."""
    oldest = time.time() - _KEPT_SECONDS
    for path in folder.glob("*.sqlite"):
        with suppress(OSError):
            if path.stat().st_mtime < oldest:
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{path}{suffix}").unlink(missing_ok=True)


def is_damage(error: Exception) -> bool:
    """Say whether a failure of `read` means that the file is damaged."""
    return isinstance(error, ValueError | KeyError | TypeError) or _code(error) in _UNUSABLE


def _code(error: Exception) -> int:
    """Return SQLite's own number of a failure, 0 for what has none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _another_make() -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError("it is of another make")
    error.sqlite_errorcode = sqlite3.SQLITE_NOTADB
    return error


def _replaces(change: Known, present: tuple[int, int, int]) -> bool:
    """Say whether a change is newer than what is noted of its path: (generation, metageneration, whether it stands)."""
    generation, metageneration, stands = present
    if change.generation != generation:
        return change.generation > generation
    return bool(stands) and (change.info is None or change.metageneration >= metageneration)


def _is_in(known: Known | None, generation: int, metageneration: int, *, stands: bool) -> bool:
    """Say whether what is known of a path is no older than a change, of what stands there or of what went."""
    if known is None:
        return not stands
    if stands:
        return (known.generation, known.metageneration) >= (generation, metageneration)
    return known.generation > generation


def _rows_to_write(rows: Rows) -> Iterator[tuple[str, str, str, bytes]]:
    for label, bitmap in rows.labels.items():
        yield "label", label, "", bitmap.serialize()
    for extension, bitmap in rows.extensions.items():
        yield "extension", extension, "", bitmap.serialize()
    for day, bitmap in rows.dates.items():
        yield "date", day.isoformat(), "", bitmap.serialize()
    for key, table in rows.tags.items():
        for value, bitmap in table.items():
            yield "tag", key, value, bitmap.serialize()


def _prove(data: bytes, crc32c: int) -> None:
    if extend_crc32c(0, data) != crc32c:
        raise ValueError("its bytes have changed")


def _read_rows(found: Iterable[tuple[str, str, str, bytes, int]]) -> Rows:
    rows = Rows()
    for kind, key, value, data, crc32c in found:
        _prove(data, crc32c)
        bitmap = BitMap.deserialize(data)
        match kind:
            case "label":
                rows.labels[key] = bitmap
            case "extension":
                rows.extensions[key] = bitmap
            case "date":
                rows.dates[date.fromisoformat(key)] = bitmap
            case "tag":
                rows.tags.setdefault(key, {})[value] = bitmap
    return rows


def _write_facts(connection: sqlite3.Connection, facts: dict[str, Any]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO facts VALUES (?, ?)", [it for it in facts.items() if it[1] is not None]
    )


def _write_besides(connection: sqlite3.Connection, besides: Besides) -> None:
    _write_facts(connection, {name: json.dumps(value) for name, value in besides._asdict().items()})


def _read_besides(facts: dict[str, Any]) -> Besides:
    return Besides(**{name: json.loads(facts[name]) for name in Besides._fields})
