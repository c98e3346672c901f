"""CRC32C of local files: computed in parallel, once per content, remembered over mounts.

`dataset.py` calls `Hasher.ensure` with datafiles whose hash it needs; worker threads read them in blocks
(google-crc32c lets go of the GIL) and each hash leaves through `publish`. A small SQLite file in the
user's cache folder remembers the hash of each (device, inode, size, mtime, ctime).
"""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from pathlib import Path

from octuefs.datafile import Datafile
from octuefs.errors import OctuefsError, StoreUnavailable
from octuefs.model.hashes import extend_crc32c
from octuefs.stores.base import ObjectInfo, Store

logger = logging.getLogger(__name__)

BLOCK_BYTES = 1 << 20
_PROGRESS_SECONDS = 0.2
_SMALL_BYTES = 256 << 10
"""Files up to this size are left to one worker: they are mostly Python's own work, and threads that hand the
interpreter's lock to and fro over them take three times as long as one alone."""
_FEW = 16
"""So many small files are hashed by the thread that asks, before another could begin."""
_LOCKED_SECONDS = 5.0
"""How long to wait for a cache file that another process has locked."""
_UNUSABLE = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR}
"""What SQLite says of a file that is damaged, is none of its own, or has other tables than ours."""
_SETTLED_NS = 100_000_000
"""A file changed this recently may change again within one tick of its timestamps."""
_COARSE_SETTLED_NS = 2_000_000_000
"""The same where the file system keeps whole seconds only."""

Version = tuple[int, int, int, int, int]
_Batch = list[tuple[Datafile, "Future[None]"]]


class HashCache:
    """Hashes by version of a local file, kept in SQLite. Losing it costs time only, never correctness."""

    def __init__(self, path: Path) -> None:
        """Open or make the file at `path`; a damaged one is made anew.

        :raise OSError: where its folder cannot be made
        :raise sqlite3.Error: where it cannot be used for now: it is locked, or the disk is full
        """
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._complained = False
        try:
            self._connection = self._connect(path)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF not in _UNUSABLE:
                raise
            for suffix in ("", "-wal", "-shm"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
            self._connection = self._connect(path)

    @staticmethod
    def _connect(path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=_LOCKED_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            os.chmod(path, 0o600)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS hashes (device INTEGER, inode INTEGER, size INTEGER, mtime_ns INTEGER,"
                " ctime_ns INTEGER, crc32c INTEGER NOT NULL, PRIMARY KEY (device, inode)) WITHOUT ROWID"
            )
            connection.execute("SELECT device, inode, size, mtime_ns, ctime_ns, crc32c FROM hashes LIMIT 0")
        except BaseException:
            connection.close()
            raise
        return connection

    def get(self, versions: Iterable[Version]) -> dict[Version, int]:
        """Return the known hashes among `versions`."""
        query = (
            "SELECT crc32c FROM hashes WHERE device = ? AND inode = ? AND size = ? AND mtime_ns = ? AND ctime_ns = ?"
        )
        found = {}
        try:
            with self._lock:
                for version in versions:
                    row = self._connection.execute(query, _signed(version)).fetchone()
                    if row is not None:
                        found[version] = row[0]
        except sqlite3.Error as error:
            self._complain(error)
        return found

    def put(self, hashes: Sequence[tuple[Version, int]]) -> None:
        """Remember hashes; one file has one row, that of its latest version."""
        try:
            with self._lock, self._connection:  # which commits, or rolls back
                self._connection.execute("BEGIN")
                self._connection.executemany(
                    "INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?, ?)",
                    [(*_signed(version), crc32c) for version, crc32c in hashes],
                )
        except sqlite3.Error as error:
            self._complain(error)

    def _complain(self, error: sqlite3.Error) -> None:
        """Say once that hashes are computed again because the file cannot be used: full, locked or damaged."""
        if not self._complained:
            self._complained = True
            logger.warning("hashes are not remembered for now: %s", error)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()


class Hasher:
    """Computes hashes on all cores, each content once even when several threads ask for it."""

    def __init__(self, store: Store, publish: Callable[[Datafile, int], None], cache: HashCache | None = None) -> None:
        self._store = store
        self._publish = publish
        self._cache = cache
        self._pool = ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 1), thread_name_prefix="hash")
        self._small = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hash-small")
        self._lock = threading.Lock()
        self._in_flight: dict[Datafile, Future[None]] = {}
        self._stopping = False
        self.computed = 0
        """How many files have been read to hash them."""
        self.remembered = 0
        """How many hashes were known from before."""

    def ensure(
        self, datafiles: Iterable[Datafile], progress: Callable[[int], None] | None = None
    ) -> list[OctuefsError]:
        """Publish the hash of each of `datafiles` that has none; return what could not be read.

        `progress` is told, from this thread, how many of them are done.
        """
        missing = [datafile for datafile in datafiles if datafile.crc32c is None]
        if not missing:
            return []
        missing = self._recall(missing)
        began = time.time_ns()
        mine: _Batch = []
        futures = []
        waiting: set[Future[None]] = set()  # for what others hash, and for our own jobs, not for each file of theirs
        with self._lock:
            for datafile in missing:
                future = self._in_flight.get(datafile)
                if future is None:
                    future = self._in_flight[datafile] = Future()
                    mine.append((datafile, future))
                else:
                    waiting.add(future)
                futures.append(future)
        waiting |= self._start(mine)
        while waiting:
            # A future that is cancelled but was never begun is done, which wait() does not see.
            waiting = {future for future in wait(waiting, _PROGRESS_SECONDS).not_done if not future.done()}
            if progress is not None:
                progress(sum(future.done() for future in futures))
        failures: list[OctuefsError] = []
        for datafile, future in zip(missing, futures, strict=True):
            try:
                future.result()
            except CancelledError:
                failures.append(_ended(datafile))
            except OctuefsError as error:
                failures.append(error)
        self._remember([datafile for datafile, _ in mine], began)
        return failures

    def _start(self, batch: _Batch) -> "set[Future[None]]":
        """Begin to hash, and return the jobs to wait for; a few small files are hashed on return."""
        jobs = set()
        small = [pair for pair in batch if pair[0].size <= _SMALL_BYTES]
        try:
            for pair in batch:
                if pair[0].size > _SMALL_BYTES:
                    jobs.add(self._pool.submit(self._hash_batch, [pair]))
            if len(small) > _FEW:
                jobs.add(self._small.submit(self._hash_batch, small))
            else:
                self._hash_batch(small)
        except RuntimeError:  # the workers were stopped
            for _, future in batch:
                future.cancel()
        return jobs

    def _hash_batch(self, batch: _Batch) -> None:
        for datafile, future in batch:
            if not future.set_running_or_notify_cancel():
                continue
            try:
                self._hash(datafile)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(None)
            finally:
                with self._lock:
                    self._in_flight.pop(datafile, None)

    def _recall(self, datafiles: list[Datafile]) -> list[Datafile]:
        """Publish what the cache knows and return the rest."""
        if self._cache is None:
            return datafiles
        found = self._cache.get(version for datafile in datafiles if (version := _version(datafile.content)))
        rest = []
        for datafile in datafiles:
            version = _version(datafile.content)
            if version in found:
                self._publish(datafile, found[version])
                self.remembered += 1
            else:
                rest.append(datafile)
        return rest

    def _remember(self, datafiles: list[Datafile], began: int) -> None:
        """Keep the hashes of files that had settled when their reading `began`."""
        if self._cache is None:
            return
        rows = [
            (version, datafile.crc32c)
            for datafile in datafiles
            if datafile.crc32c is not None and (version := _version(datafile.content)) and _settled(version, began)
        ]
        if rows:
            self._cache.put(rows)

    def _hash(self, datafile: Datafile) -> None:
        """Read one file and publish its hash, unless it is no longer the version that the index has.

        :raise OctuefsError: where it cannot be read
        """
        source = self._store.open(datafile.info)
        try:
            crc32c = offset = 0
            while offset < datafile.size and (block := source.read(offset, min(BLOCK_BYTES, datafile.size - offset))):
                if self._stopping:
                    raise _ended(datafile)
                crc32c = extend_crc32c(crc32c, block)
                offset += len(block)
            unchanged = datafile.content is not None and source.version() == datafile.content.version
        finally:
            source.close()
        with self._lock:
            self.computed += 1
        if unchanged:
            self._publish(datafile, crc32c)

    def close(self) -> None:
        """Stop the workers; who waits for a hash that will not come is told."""
        self._stopping = True
        for pool in (self._pool, self._small):
            pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for future in self._in_flight.values():
                future.cancel()


def _ended(datafile: Datafile) -> StoreUnavailable:
    return StoreUnavailable(f"{datafile.path}: not hashed, for the mount has ended")


def _version(content: ObjectInfo | None) -> Version | None:
    version = content.content_version if content is not None else None
    return version if isinstance(version, tuple) and len(version) == 5 else None


def _signed(version: Version) -> tuple[int, ...]:
    """SQLite's integers have 63 bits and a sign; inode and device numbers may use all 64."""
    return tuple(number - (1 << 64) if number >= 1 << 63 else number for number in version)


def _settled(version: Version, now: int) -> bool:
    """Say whether a later change is certain to show in the timestamps."""
    mtime_ns, ctime_ns = version[3], version[4]
    coarse = mtime_ns % 1_000_000_000 == 0 and ctime_ns % 1_000_000_000 == 0
    return now - max(mtime_ns, ctime_ns) > (_COARSE_SETTLED_NS if coarse else _SETTLED_NS)
