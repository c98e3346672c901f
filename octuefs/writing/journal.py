"""The journal: what must survive a crash of the daemon, in one SQLite file of its session.

Writers `put` and `drop` entries from any thread, which only queues them, and call `settle` where something must
be durable before they answer. Commits are grouped without handing them to another thread: the first caller of
`settle` commits all that is queued, those who come meanwhile wait for it, and one of them commits the rest. What
nobody settles is committed by a thread of the journal's own within about 50 ms, or at once after `hurry`.

One process has the file at a time (`sessions.py` holds a lock for that), so SQLite locks it once and needs no
shared memory. `read_rows` is for those who may only look, at a copy.
"""

import errno
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from octuefs.errors import LocalFailure, from_os_error

logger = logging.getLogger(__name__)

_LAZY_SECONDS = 0.05
"""How long an entry that nobody settles may wait, so that its neighbours come along."""
_RETRY_SECONDS = 1.0
"""How long the journal's own thread waits after a failure."""
_WAL_PAGES = 1000
"""The write-ahead log is copied into the file, and begun anew, whenever it has so many pages."""
_WAL_BYTES = 8 << 20
"""A log that one large commit made longer is cut to this."""
_DAMAGED = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR}
"""What SQLite says of a file that is damaged, is none of its own, or has other tables than ours."""
_ERRNOS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_BUSY: errno.EBUSY,
    sqlite3.SQLITE_LOCKED: errno.EBUSY,
}
_REMEDIES = {
    errno.ENOSPC: "free some space there",
    errno.EROFS: "make it writable, or set XDG_STATE_HOME elsewhere",
    errno.EACCES: "make it yours, or set XDG_STATE_HOME elsewhere",
    errno.EBUSY: "another process has it open",
}

_Place = tuple[str, str]
"""Kind and key of an entry."""
_Rows = dict[_Place, str]
"""The JSON of each entry."""


class Journal:
    """Entries by kind and key, each a JSON object, kept in an SQLite file. Any thread may call."""

    def __init__(self, path: Path) -> None:
        """Open or make the file at `path`, mode 0600.

        A damaged one is moved aside as `<name>.broken-<time>`, and `problem` says so.

        :raise LocalFailure: where it cannot be used: no space, no permission, another process has it
        """
        self.path = path
        self.problem: str | None = None
        """What was wrong with the file when it was opened, in words."""
        try:
            self._connection, self._rows = self._open()
        except _Damaged as damage:
            aside = self._move_aside()
            self.problem = (
                f"the journal {path} was damaged ({damage}); it is kept as {aside.name}, "
                "and changes that only it knew are not taken up again"
            )
            logger.warning("%s", self.problem)
            try:
                self._connection, self._rows = self._open()
            except _Damaged as again:
                raise LocalFailure(f"the journal {path} cannot be used: {again}") from again
        # All below is guarded by _changed, which is never held while the disk is asked; the connection belongs to
        # whoever has set _committing. _rows is what will stand in the file once _queue (None: no entry) is in it.
        self._changed = threading.Condition(threading.Lock())
        self._queue: dict[_Place, str | None] = {}
        self._queued = 0
        self._durable = 0
        self._committing = False
        self._commits = 0
        """How many have ended."""
        self._failure: LocalFailure | None = None
        self._failed = 0
        self._closed = False
        self._wake = threading.Event()
        self._soon = threading.Event()
        """Ends the pause in which neighbours may come along."""
        self._stopping = False
        self._thread = threading.Thread(target=self._commit_lazily, name="journal", daemon=True)
        self._thread.start()

    # --- entries

    def put(self, kind: str, key: str, value: Mapping[str, Any]) -> None:
        """Queue an entry in the place of the one of this kind and key; `value` is copied."""
        self._enqueue((kind, key), json.dumps(dict(value)))

    def drop(self, kind: str, key: str) -> None:
        """Queue the removal of an entry; none there is no failure."""
        self._enqueue((kind, key), None)

    def items(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the entries of a kind by key, what is queued included."""
        with self._changed:
            found = [(key, text) for (of, key), text in self._rows.items() if of == kind]
        return {key: json.loads(text) for key, text in found}

    def entries(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Return (kind, key, value) of all entries, what is queued included."""
        with self._changed:
            found = list(self._rows.items())
        return [(kind, key, json.loads(text)) for (kind, key), text in found]

    def _enqueue(self, place: _Place, text: str | None) -> None:
        with self._changed:
            if self._closed:
                raise LocalFailure(f"the journal {self.path} is closed; nothing can be changed any more")
            if self._rows.get(place) == text:
                return  # it is so already, or will be with the next commit
            if text is None:
                del self._rows[place]
            else:
                self._rows[place] = text
            self._queue[place] = text
            self._queued += 1
            if not self._wake.is_set():
                self._wake.set()

    # --- commits

    @property
    def position(self) -> int:
        """How many changes were queued so far: `is_durable` says whether they are committed."""
        return self._queued

    def is_durable(self, position: int) -> bool:
        """Say whether all that was queued up to a position would be there after a crash."""
        return self._durable >= position

    def hurry(self) -> None:
        """Have what is queued committed now, without waiting for it."""
        self._soon.set()

    def settle(self) -> None:
        """Return when everything queued before the call is durable.

        :raise LocalFailure: where it could not be, with the errno of the reason (ENOSPC, EIO); it stays queued and
            is tried again with the next commit
        """
        with self._changed:
            target = self._queued
            earlier = self._commits + self._committing  # one under way may meet a disk as it was before this call
        while True:
            with self._changed:
                if self._durable >= target:
                    return
                if self._committing:
                    self._changed.wait()
                    if self._commits > earlier:
                        self._raise_failure_of(target)
                    continue
                if self._connection is None:
                    raise LocalFailure(f"the journal {self.path} is closed; its last changes are not in it")
                self._committing = True
                batch, self._queue = self._queue, {}
                number = self._queued
            failure: LocalFailure | None = LocalFailure(f"the journal {self.path} was interrupted")
            try:
                failure = self._commit(batch)
            finally:
                with self._changed:
                    self._committing = False
                    self._commits += 1
                    self._failure = failure
                    if failure is None:
                        self._durable = number
                    else:
                        self._failed = number
                        self._queue = batch | self._queue  # the newer change of an entry wins
                    self._changed.notify_all()
            with self._changed:
                self._raise_failure_of(target)

    def _raise_failure_of(self, target: int) -> None:
        """Raise the latest failure, if the attempt that ended in it was at `target` too."""
        if self._durable < target <= self._failed and self._failure is not None:
            raise _failure(str(self._failure), self._failure.errno)  # one of its own for each thread

    def _commit(self, batch: Mapping[_Place, str | None]) -> LocalFailure | None:
        connection = self._connection
        assert connection is not None
        puts = [(kind, json.dumps(key), text) for (kind, key), text in batch.items() if text is not None]
        drops = [(kind, json.dumps(key)) for (kind, key), text in batch.items() if text is None]
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", puts)
            connection.executemany("DELETE FROM entries WHERE kind = ? AND key = ?", drops)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            failure = _of_sqlite(error, self.path)
            try:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            except sqlite3.Error as second:
                logger.debug("%s: no rollback: %s", self.path, second)
            return failure
        return None

    def _commit_lazily(self) -> None:
        pause = _LAZY_SECONDS
        while True:
            self._wake.wait()
            self._wake.clear()  # first: what is set from here on, by `close` for one, must not be lost
            self._soon.wait(pause)
            if self._stopping:
                return
            self._soon.clear()
            try:
                self.settle()
                pause = _LAZY_SECONDS
            except LocalFailure as error:
                if pause == _LAZY_SECONDS:
                    logger.warning("%s; what was to be written is kept in memory and tried again", error)
                pause = _RETRY_SECONDS
                self._wake.set()

    def close(self) -> None:
        """Commit what is queued and close the file.

        :raise LocalFailure: where it could not be committed; the file is closed all the same
        """
        with self._changed:
            self._closed = True
        self._stopping = True
        self._soon.set()
        self._wake.set()
        self._thread.join()
        try:
            self.settle()
        finally:
            with self._changed:
                while self._committing:
                    self._changed.wait()
                connection, self._connection = self._connection, None
            if connection is not None:
                try:
                    connection.close()
                except sqlite3.Error as error:  # what is committed is in the log, if not in the file
                    logger.warning("%s", _of_sqlite(error, self.path))

    # --- the file

    def _open(self) -> tuple[sqlite3.Connection | None, _Rows]:
        """Open the file and read it.

        :raise _Damaged: where it is no journal
        :raise LocalFailure: where it cannot be used
        """
        try:
            # SQLite gives its files the mode of the first one, and makes that by the umask.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise from_os_error(error, f"the journal {self.path}") from error
        connection = None
        try:
            connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA wal_autocheckpoint={_WAL_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit={_WAL_BYTES}")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS entries (kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,"
                " PRIMARY KEY (kind, key)) WITHOUT ROWID"
            )
            return connection, _read(connection)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, sqlite3.Error):
                if _code(error) in _DAMAGED:
                    raise _Damaged(str(error)) from error
                raise _of_sqlite(error, self.path) from error
            raise

    def _move_aside(self) -> Path:
        aside = self.path.with_name(f"{self.path.name}.broken-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        try:
            for suffix in ("-wal", ""):  # the log first: alone it is nothing, the file alone is a journal
                if os.path.lexists(f"{self.path}{suffix}"):
                    os.rename(f"{self.path}{suffix}", f"{aside}{suffix}")
        except OSError as error:
            raise from_os_error(error, f"the damaged journal {self.path}") from error
        return aside


def read_rows(path: Path) -> list[tuple[str, str]]:
    """Return (kind, key) of the entries in a private copy of a journal and its log; opening it changes the copy.

    :raise LocalFailure: where it cannot be read or is damaged
    """
    connection = None
    try:
        connection = sqlite3.connect(path, timeout=0, isolation_level=None)
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'entries'").fetchone() is None:
            return []  # its process ended before it was made
        return list(_read(connection))
    except _Damaged as damage:
        raise LocalFailure(f"the journal {path} is damaged: {damage}") from damage
    except sqlite3.Error as error:
        raise _of_sqlite(error, path) from error
    finally:
        if connection is not None:
            connection.close()


class _Damaged(Exception):
    """The file is no journal; the text says why."""


def _read(connection: sqlite3.Connection) -> _Rows:
    """Read all of the file, so that damage shows now and not when an entry is needed."""
    rows = {}
    for kind, key, text in connection.execute("SELECT kind, key, value FROM entries ORDER BY kind, key"):
        try:
            name, value = json.loads(key), json.loads(text)
        except (TypeError, ValueError) as error:
            raise _Damaged(f"an entry is no JSON: {error}") from error
        if not isinstance(name, str) or not isinstance(value, dict):
            raise _Damaged("an entry is no object")
        rows[kind, name] = text
    return rows


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary code; what Python itself finds wrong, undecodable text, has none."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)) & 0xFF


def _of_sqlite(error: sqlite3.Error, path: Path) -> LocalFailure:
    number = _ERRNOS.get(_code(error), errno.EIO)
    if number == errno.EIO and _is_full(path):
        number = errno.ENOSPC  # SQLite tells of a full disk only where a write of content met it
    reason = os.strerror(number) if number != errno.EIO else str(error)
    return _failure("; ".join(filter(None, (f"the journal {path}: {reason}", _REMEDIES.get(number)))), number)


def _is_full(path: Path) -> bool:
    try:
        return os.statvfs(path).f_bavail == 0
    except OSError:
        return False


def _failure(text: str, number: int) -> LocalFailure:
    failure = LocalFailure(text)
    failure.errno = number
    return failure
