"""Sessions: the folder in which one daemon keeps its journal and its staged files, and what dead ones have left.

A source has a folder (`places.writing_folder(describe_source(...))`), and in it a folder for each daemon that
writes to the source, named by a UUID:

    lock             held (flock) as long as its daemon lives; the kernel lets go of it when that dies
    journal.sqlite   see `journal.py`
    staged/<id>      bytes that wait to be stored; rows of the journal name them by their ID, a UUID

`open_session` takes over what dead daemons have left. The source's own `lock` is held meanwhile, so that no two
daemons take over the same, and nobody takes a session for dead that is just being made.
"""

import fcntl
import json
import os
import re
import shutil
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from octuefs.errors import LocalFailure, OctuefsError, from_os_error
from octuefs.model.paths import LocalLocation, Location
from octuefs.writing.journal import Journal, read_rows

DISPLACED = "displaced"
"""Kind of the entries that gave way to a later session's of the same kind and key: {kind, key, value}.

Their own keys sort by age, the oldest first.
"""
UNREADABLE = "unreadable"
"""What `dead_sessions` counts where a session cannot be read."""

_LOCK = "lock"
_JOURNAL = "journal.sqlite"
_STAGED = "staged"
_DONE = ".done"
"""What the name of a session ends with that holds nothing any more."""
_NAME = re.compile(r"[0-9a-f]{32}")
_PATIENCE = 10.0
"""Seconds to wait for another daemon that is opening or closing its session; that takes milliseconds."""


def describe_source(endpoint: str, location: Location) -> str:
    """Return the key of a source: its endpoint (`gcs_connect.endpoint_url`'s), bucket and path, or the real folder.

    Two ways to the same folder of a disk have one key, "" is the endpoint of a disk.
    """
    if isinstance(location, LocalLocation):
        return json.dumps(["local", os.path.realpath(location.path)])
    return json.dumps(["cloud", endpoint, location.bucket, location.prefix])


class Session:
    """One daemon's journal and staged files; made by `open_session`, and owned until `close`."""

    def __init__(self, folder: Path, lock: int) -> None:
        """Open the session in `folder`, whose lock is held; the descriptor belongs to the session from now on.

        :raise OctuefsError: where it cannot be used; the descriptor stays the caller's
        """
        self.folder = folder
        self.staged_folder = folder / _STAGED
        with _failures(folder):
            self.staged_folder.mkdir(mode=0o700, exist_ok=True)
        self.journal = Journal(folder / _JOURNAL)
        self.problems: list[str] = [self.journal.problem] if self.journal.problem else []
        """What was found damaged or could not be taken over, in words."""
        self._lock = lock

    def is_empty(self) -> bool:
        """Say whether nothing is left in it: no entry, no staged file, no damaged journal that is kept."""
        with _failures(self.folder):
            return not (self.journal.entries() or any(self.staged_folder.iterdir()) or self.strangers())

    def strangers(self) -> list[Path]:
        """Return what is in the folder besides a session's own files: damaged journals."""
        own = {_LOCK, _STAGED, _JOURNAL, f"{_JOURNAL}-wal", f"{_JOURNAL}-shm"}
        return [path for path in self.folder.iterdir() if path.name not in own]

    def close(self) -> None:
        """Commit the journal and let go of the session; an empty one goes.

        :raise LocalFailure: where the journal could not be committed
        """
        try:
            self.journal.close()
            with suppress(OctuefsError):  # one that stays is removed by the next `open_session`
                if self.is_empty():
                    with _locked(self.folder.parent), _failures(self.folder):
                        _remove(self.folder)
        finally:
            os.close(self._lock)

    def release(self) -> None:
        """Let go of the session and leave all that is in it."""
        try:
            self.journal.close()
        finally:
            os.close(self._lock)

    def take_in(self, other: "Session") -> None:
        """Move all that `other`, a later session, has into this one, and remove it.

        A crash at any moment leaves what the next `open_session` completes: entries are copied and durable before a
        file is moved, and files are before the other session goes. Where both have an entry, the later one stays
        and the earlier becomes one of kind DISPLACED.
        """
        age = f"{_made(other.folder):020d}-{other.folder.name}"
        mine = {(kind, key): value for kind, key, value in self.journal.entries()}
        for kind, key, value in other.journal.entries():
            earlier = mine.get((kind, key))
            if earlier is not None and earlier != value:
                record = {"kind": kind, "key": key, "value": earlier}
                self.journal.put(DISPLACED, f"{age}/{kind}/{key}", record)
            self.journal.put(kind, key, value)
        self.journal.settle()
        with _failures(other.folder):
            for path in other.staged_folder.iterdir():
                os.rename(path, self.staged_folder / path.name)
            for path in other.strangers():
                os.rename(path, self.folder / f"{other.folder.name}.{path.name}")
            _sync_folder(self.staged_folder)
            _sync_folder(self.folder)
            other.journal.close()
            _remove(other.folder)
        self.problems += other.problems


def open_session(source_folder: Path) -> Session:
    """Return the session of this process, with all in it that dead ones have left.

    One that cannot be read is left as it is, and `problems` says so.

    :raise OctuefsError: where no session can be had, a full disk for one; nothing is lost then
    """
    with _locked(source_folder), _failures(source_folder):
        for path in source_folder.glob(f"*{_DONE}"):
            shutil.rmtree(path, ignore_errors=True)
        dead, problems = _take_dead(source_folder)
        try:
            session = dead[0] if dead else _new_session(source_folder)
            while len(dead) > 1:
                session.take_in(dead[1])
                dead.pop(1).release()
        except BaseException:
            _release(dead)
            raise
        session.problems += problems
        return session


def dead_sessions(source_folder: Path) -> Mapping[str, int]:
    """Count the entries that dead sessions have left, by kind, and write nothing.

    A session that cannot be read counts as UNREADABLE. Where another daemon is just taking them over, none is left.
    """
    counts: Counter[str] = Counter()
    try:
        lock = _try_lock(source_folder / _LOCK, exclusive=False)
    except OSError:
        return counts  # nobody ever wrote here, or we may not look
    if lock is None:
        return counts
    try:
        for folder in _folders(source_folder):
            try:
                mine = _try_lock(folder / _LOCK, exclusive=False)
            except OSError:
                continue  # its process ended before it was made
            if mine is None:
                continue
            try:
                counts.update(_kinds(folder))
            finally:
                os.close(mine)
    finally:
        os.close(lock)
    return counts


def _kinds(folder: Path) -> list[str]:
    """Return the kind of each entry of a session, read from a copy: to read its log SQLite would have to write."""
    try:
        with tempfile.TemporaryDirectory(prefix="octuefs-") as copy:
            for name in (_JOURNAL, f"{_JOURNAL}-wal"):
                if (folder / name).exists():
                    shutil.copyfile(folder / name, Path(copy, name))
            return [kind for kind, _ in read_rows(Path(copy, _JOURNAL))]
    except (OSError, OctuefsError):
        return [UNREADABLE]


# --- folders


def _folders(source_folder: Path) -> list[Path]:
    """Return the sessions of a source, living and dead, in the order they were made."""
    folders = [path for path in source_folder.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(folders, key=lambda folder: (_made(folder), folder.name))


def _made(folder: Path) -> int:
    """Return when a session was made, in nanoseconds: nothing is ever written to its lock."""
    try:
        return (folder / _LOCK).stat().st_mtime_ns
    except OSError:
        return 0


def _take_dead(source_folder: Path) -> tuple[list[Session], list[str]]:
    """Open the dead sessions that hold anything, remove the others, and say what cannot be read."""
    dead: list[Session] = []
    problems = []
    try:
        for folder in _folders(source_folder):
            try:
                session = _take(folder)
            except OctuefsError as error:
                problems.append(f"what an earlier mount left in {folder} is not taken up: {error}")
                continue
            if session is None:
                continue
            dead.append(session)
            if session.is_empty():
                session.journal.close()
                _remove(folder)
                dead.pop().release()
    except BaseException:
        _release(dead)
        raise
    return dead, problems


def _take(folder: Path) -> Session | None:
    """Open a session, unless its daemon lives.

    :raise OctuefsError: where it cannot be used
    """
    with _failures(folder):
        lock = _try_lock(folder / _LOCK, exclusive=True)
    if lock is None:
        return None
    try:
        return Session(folder, lock)
    except BaseException:
        os.close(lock)
        raise


def _release(sessions: list[Session]) -> None:
    """Let go of sessions on the way out with a failure, which is the one to tell of."""
    for session in sessions:
        with suppress(OctuefsError):
            session.release()


def _new_session(source_folder: Path) -> Session:
    folder = source_folder / uuid.uuid4().hex
    folder.mkdir(mode=0o700)
    session = _take(folder)
    assert session is not None  # the source's lock keeps the others out
    for durable in (folder, source_folder, source_folder.parent):
        _sync_folder(durable)
    return session


def _remove(folder: Path) -> None:
    """Remove a session whole: once it has the other name nobody takes its journal for one."""
    done = folder.with_name(folder.name + _DONE)
    os.rename(folder, done)
    _sync_folder(folder.parent)
    shutil.rmtree(done, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- locks


def _try_lock(path: Path, *, exclusive: bool) -> int | None:
    """Return a descriptor that holds the lock, None where another has it; a shared one makes no file."""
    flags = os.O_RDWR | os.O_CREAT if exclusive else os.O_RDONLY
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def _locked(source_folder: Path) -> Iterator[None]:
    """Hold the lock of a source.

    :raise LocalFailure: where another process keeps it
    """
    end = time.monotonic() + _PATIENCE
    with _failures(source_folder):
        while (lock := _try_lock(source_folder / _LOCK, exclusive=True)) is None:
            if time.monotonic() > end:
                raise LocalFailure(
                    f"another octuefs process has held {source_folder / _LOCK} for {_PATIENCE:.0f} s; "
                    "end it if it hangs, and try again"
                )
            time.sleep(0.02)
    try:
        yield
    finally:
        os.close(lock)


@contextmanager
def _failures(subject: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise from_os_error(error, f"what waits to be stored, in {subject}") from error
