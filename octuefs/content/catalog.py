"""What is in a cache folder: a row for each object, in SQLite, which all mounts that share the folder write.

A row says how many bytes an object has there, when it was used last, and whether it is pinned; for a whole one also
its checksum and when it was proven: in which boot of the machine, and which file of what size and time. A file that is
as it was proven since this boot is not read again to be believed. Losing the catalog costs the cached bytes, no more.

Methods raise sqlite3.Error; `blockcache.py` calls and decides what that means.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_LOCKED_SECONDS = 5.0
_UNUSABLE = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR}
"""What SQLite says of a file that is damaged, is none of its own, or has other tables than ours."""
_TABLE = (
    "CREATE TABLE IF NOT EXISTS objects (key TEXT PRIMARY KEY, bytes INTEGER NOT NULL, used REAL NOT NULL,"
    " pinned INTEGER NOT NULL DEFAULT 0, whole INTEGER NOT NULL, crc32c INTEGER, boot TEXT, inode INTEGER,"
    " mtime_ns INTEGER) WITHOUT ROWID"
)
_COLUMNS = "bytes, pinned, whole, crc32c, boot, inode, mtime_ns"


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of one object. `crc32c` is that of all its bytes, None where only some are there."""

    bytes: int
    pinned: bool
    whole: bool
    crc32c: int | None
    boot: str | None
    inode: int | None
    mtime_ns: int | None

    def proves(self, facts: os.stat_result) -> bool:
        """Say whether a file is as it was when it was proven, in this boot of the machine."""
        found = (facts.st_size, facts.st_ino, facts.st_mtime_ns)
        return self.whole and self.boot == boot_id() and found == (self.bytes, self.inode, self.mtime_ns)


@cache
def boot_id() -> str:
    """Return what tells this boot of the machine from others; elsewhere than on Linux, this process."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"process {os.getpid()} {time.time()}"


class Catalog:
    """The rows of a cache folder. Any thread may call."""

    def __init__(self, path: Path) -> None:
        """Open the file at `path`, made where it is not there.

        :raise sqlite3.DatabaseError: where it is damaged: see `is_unusable`
        """
        self._lock = threading.Lock()
        self._connection = _connected(path)
        try:
            os.chmod(path, 0o600)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(_TABLE)
            self._connection.execute("CREATE INDEX IF NOT EXISTS by_use ON objects (pinned, used)")
            self._connection.execute(f"SELECT {_COLUMNS} FROM objects LIMIT 0")
            if self._connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                damaged = sqlite3.DatabaseError(f"{path} is damaged")
                damaged.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise damaged
            self._version = self._version_now()
            self._asking = threading.Lock()
            self._asked = _connected(path)  # of its own: who opens a file does not wait for what is being written
        except BaseException:
            self._connection.close()
            raise

    def row(self, key: str) -> Row | None:
        """Return what is known of an object."""
        with self._asking:
            found = self._asked.execute(f"SELECT {_COLUMNS} FROM objects WHERE key = ?", (key,)).fetchone()
        return Row(found[0], bool(found[1]), bool(found[2]), *found[3:]) if found is not None else None

    def put(self, rows: Mapping[str, Row]) -> tuple[int, int]:
        """Write what is known of objects, used just now; what is pinned stays so.

        Return how many objects, and bytes, there are more than before.
        """
        now = time.time()
        with self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            before = [
                count
                for key in rows
                for (count,) in self._connection.execute("SELECT bytes FROM objects WHERE key = ?", (key,))
            ]
            self._connection.executemany(
                "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
                " bytes = excluded.bytes, used = excluded.used, pinned = MAX(pinned, excluded.pinned),"
                " whole = excluded.whole, crc32c = excluded.crc32c, boot = excluded.boot, inode = excluded.inode,"
                " mtime_ns = excluded.mtime_ns",
                [
                    (key, it.bytes, now, it.pinned, it.whole, it.crc32c, it.boot, it.inode, it.mtime_ns)
                    for key, it in rows.items()
                ],
            )
        return len(rows) - len(before), sum(it.bytes for it in rows.values()) - sum(before)

    def touch(self, used: Mapping[str, float]) -> list[str]:
        """Write when objects were used last, in seconds since the epoch; return the keys that have no row."""
        with self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            return [
                key
                for key, when in used.items()
                if not self._connection.execute("UPDATE objects SET used = ? WHERE key = ?", (when, key)).rowcount
            ]

    def pin(self, keys: Iterable[str], *, pinned: bool) -> None:
        """Keep objects, or let them go as all others."""
        with self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("UPDATE objects SET pinned = ? WHERE key = ?", [(pinned, key) for key in keys])

    def forget(self, keys: Sequence[str]) -> tuple[int, int]:
        """Remove the rows of objects; return how many there were, and of how many bytes."""
        with self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            found = [
                count
                for key in keys
                for (count,) in self._connection.execute("DELETE FROM objects WHERE key = ? RETURNING bytes", (key,))
            ]
        return len(found), sum(found)

    def oldest(self, wanted: int, most: int) -> list[tuple[str, int]]:
        """Return (key, bytes) of the objects that were used longest ago, of `wanted` bytes or more, `most` at most."""
        found, total = [], 0
        with self._lock:
            for key, count in self._connection.execute(
                "SELECT key, bytes FROM objects WHERE pinned = 0 ORDER BY used LIMIT ?", (most,)
            ):
                if total >= wanted:
                    break
                found.append((key, count))
                total += count
        return found

    def totals(self) -> tuple[int, int, int]:
        """Return how many bytes and objects there are, and how many bytes of them are pinned."""
        with self._lock:
            found = self._connection.execute(
                "SELECT COALESCE(SUM(bytes), 0), COUNT(*), COALESCE(SUM(bytes * pinned), 0) FROM objects"
            ).fetchone()
        return found[0], found[1], found[2]

    def was_changed(self) -> bool:
        """Say whether others wrote since this was asked last."""
        with self._lock:
            before, self._version = self._version, self._version_now()
            return self._version != before

    def _version_now(self) -> int:
        found: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        return found

    def keys(self) -> set[str]:
        """Return the keys of all rows."""
        with self._lock:
            return {key for (key,) in self._connection.execute("SELECT key FROM objects")}

    def close(self) -> None:
        """Close the file."""
        with self._asking:
            self._asked.close()
        with self._lock:
            self._connection.close()


def _connected(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=_LOCKED_SECONDS, isolation_level=None, check_same_thread=False)


def is_unusable(error: sqlite3.Error) -> bool:
    """Say whether a file is damaged, or none of ours: it is to be made anew."""
    return (error.sqlite_errorcode or 0) & 0xFF in _UNUSABLE


def remove(path: Path) -> None:
    """Remove a catalog, with what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
