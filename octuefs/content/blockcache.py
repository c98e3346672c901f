"""The cache of cloud objects on a local disk: whole ones as plain files, others as far as they were read.

`reading.py` asks, on any thread; what may wait for the disk's promise to keep something runs on a thread of this
module. A key stands for one generation of one object, so what is here never gets old; mounts, one after the other or at
the same time, share the folder. `cachefolder.py` names its files, and `catalog.py` says what is here.

The cache has a limit of bytes; what was used longest ago goes first. A disk that is full makes the limit smaller.
"""

import contextlib
import errno
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from octuefs.content.cachefolder import CacheFolder
from octuefs.content.catalog import Catalog, Row, boot_id, is_unusable, remove
from octuefs.content.parts import Part
from octuefs.errors import OctuefsError, from_os_error
from octuefs.model.hashes import extend_crc32c
from octuefs.stores.base import ObjectInfo
from octuefs.stores.descriptor import Descriptor
from octuefs.stores.traffic import Traffic

logger = logging.getLogger(__name__)

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What a disk says that takes no more."""
_STEP = 64
"""So many objects leave at once, so that nobody waits long for room."""
_SMALLER_BYTES = 64 << 20
"""By so much at least the limit falls where the disk is full."""
_WAITING_BYTES = 64 << 20
"""So many bytes of small objects may wait to be written; what comes besides is not kept."""
_TOGETHER_BYTES = 16 << 20
_GATHER_SECONDS, _QUIET_SECONDS = 2.0, 0.25
"""How long small objects wait for others, to be written together, and how long no other may come meanwhile."""
_TOUCH_SECONDS = 2.0


class BlockCache:
    """A cache folder."""

    def __init__(self, folder: Path, traffic: Traffic) -> None:
        """Use `folder`, of mode 0700; `bound` says for how many bytes.

        :raise OctuefsError: where it cannot be used
        """
        self.folder = folder
        self.limit = 0
        """How many bytes may be here."""
        self._traffic = traffic
        try:
            self._files = CacheFolder(folder)
            self._catalog = _opened_catalog(folder / "catalog.sqlite")
        except OSError as error:
            raise from_os_error(error, str(folder)) from error
        except sqlite3.Error as error:
            raise OctuefsError(f"{folder}: its catalog cannot be used: {error}") from error
        self._lock = threading.Lock()  # guards all that follows, for memory work alone
        self._known, self._objects, self._pinned = self._catalog.totals()
        """Bytes and objects of the rows, as far as is known here, and the bytes of these that are pinned."""
        self._growing = 0
        """Bytes in parts that are open here, which have no rows."""
        self._used: dict[str, float] = {}
        self._waiting: dict[str, tuple[bytes, int]] = {}
        self._waiting_bytes = 0
        self._arrived_at = 0.0
        self._hurry = threading.Event()
        self._complained = False
        self._evicting = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cache")
        self._touched_at = time.monotonic()
        self._thread.submit(self._sweep)

    def bound(self, limit: int) -> None:
        """Have at most `limit` bytes here, soon: what is more goes in the background."""
        self.limit = limit
        if self.total_bytes > limit:
            self._submit(self._evict, self.total_bytes - limit)

    # --- what is here

    @property
    def total_bytes(self) -> int:
        """How many bytes are here."""
        return self._known + self._growing

    @property
    def objects(self) -> int:
        """How many objects have a row."""
        return self._objects

    def has(self, key: str) -> bool:
        """Say whether an object is here whole, proven or not."""
        return self._files.has_whole(key)

    def whole(self, key: str, info: ObjectInfo) -> Descriptor | None:
        """Return the file of an object that is here whole, and was proven since this boot; else None."""
        file = self._files.open_whole(key)
        if file is None:
            return None
        try:
            with file.lend() as fd:
                facts = os.fstat(fd)
            row = self._row(key)
            if row is not None and row.proves(facts) and row.bytes == info.size:
                self.touch(key)
                return file
        except OctuefsError:
            pass
        file.close()
        return None

    def small(self, key: str, info: ObjectInfo) -> bytes | None:
        """Return all bytes of a small object that is here, proven; one that is damaged is dropped."""
        file = self._files.open_whole(key)
        if file is None:
            return None
        try:
            data = file.read(0, info.size + 1)
        except OctuefsError:
            data = b""
        finally:
            file.close()
        crc32c = info.crc32c
        if crc32c is None:
            row = self._row(key)
            crc32c = row.crc32c if row is not None else None
        if len(data) != info.size or extend_crc32c(0, data) != crc32c:
            self.drop(key, info.path)
            return None
        self.touch(key)
        return data

    def part(self, key: str, info: ObjectInfo) -> Part:
        """Return the part of an object, with what is here of it; this may read all of that, to prove it.

        :raise OctuefsError: where the folder cannot take one
        """
        whole = self._files.open_whole(key)
        if whole is not None:
            part = Part(whole, info.size, allowance=info.size)
            row = self._row(key)
            crc32c = info.crc32c if info.crc32c is not None or row is None else row.crc32c
            with whole.lend() as fd:
                facts = os.fstat(fd)
            if facts.st_size == info.size and crc32c is not None and part.prove(0, info.size, crc32c):
                part.extents.add(0, info.size)
                part.close_piece(0, info.size, crc32c)
                part.stamp = (facts.st_size, facts.st_mtime_ns)
                self._submit(self._note_whole, key, facts, crc32c)
                return part
            part.close()
            self.drop(key, info.path)
        return self._open_part(key, info)

    def _open_part(self, key: str, info: ObjectInfo) -> Part:
        allowance = info.size if info.size <= self.limit else self.limit // 2
        try:
            file, path = self._files.open_part(key)
        except OSError as error:
            raise from_os_error(error, str(self.folder)) from error
        part = Part(file, info.size, allowance=allowance, path=path)
        if path is not None:
            part.restore(self._files.take_map(path, info.size))
            kept = sum(end - start for start, (end, _) in part.kept.items())
            self._forget([key])
            with self._lock:
                part.counted = kept
                self._growing += kept
        return part

    # --- what comes

    def make_room(self, count: int, part: Part | None = None) -> bool:
        """Have room for so many more bytes; False where there is none to be had. Those of a part count from now on."""
        if self.total_bytes + count > self.limit:
            self._evict(self.total_bytes + count - self.limit)
        with self._lock:
            if self._known + self._growing + count > self.limit:
                return False
            if part is not None:
                part.counted += count
                self._growing += count
            return True

    def give_back(self, part: Part, count: int | None = None) -> None:
        """Have so many bytes of a part count no more, or all that did."""
        with self._lock:
            given = part.counted if count is None else min(count, part.counted)
            part.counted -= given
            self._growing -= given

    def shrink(self) -> None:
        """Have a smaller limit, as the disk is full."""
        with self._lock:
            self.limit = max(0, min(self.limit, self._known + self._growing) - max(_SMALLER_BYTES, self.limit // 20))
            excess = self._known + self._growing - self.limit
        logger.warning(
            "the disk of the cache, %s, is full; the cache has at most %d bytes now", self.folder, self.limit
        )
        self._evict(excess)

    def finish(self, key: str, part: Part, crc32c: int) -> bool:
        """Give a part that is complete, and proven, its place among the whole objects: on the disk for good first.

        Whoever has it open goes on reading it. This waits for the disk. False where it is not kept.
        """
        if part.path is None:
            return self.has(key)
        try:
            part.file.sync()
            self._files.make_whole(part.path, key)
            with part.file.lend() as fd:
                facts = os.fstat(fd)
        except (OSError, OctuefsError) as error:
            self._complain(error)
            return False
        part.path = None
        part.stamp = (facts.st_size, facts.st_mtime_ns)
        self.give_back(part)
        self._note_whole(key, facts, crc32c)
        self._trim()
        return True

    def keep(self, key: str, part: Part) -> None:
        """Keep what is here of an object whose part nobody reads any more, and close it. This waits for the disk."""
        if part.path is None:
            part.close()
            return
        self.give_back(part)
        pieces = {**part.pieces, **part.kept}
        total = sum(end - start for start, (end, _) in pieces.items())
        try:
            if not pieces:
                part.path.unlink(missing_ok=True)
                return
            part.file.sync(data_only=True)
            self._files.write_map(part.path, part.size, pieces)
            self._put({key: Row(total, False, False, None, None, None, None)})
        except (OSError, OctuefsError) as error:
            with contextlib.suppress(OSError):
                part.path.unlink(missing_ok=True)
            self._complain(error)
        finally:
            part.close()
        self._trim()

    def store(self, key: str, data: bytes, crc32c: int) -> None:
        """Keep a small object, proven, soon; nobody waits for it."""
        with self._lock:
            if key in self._waiting or self._waiting_bytes + len(data) > min(_WAITING_BYTES, self.limit):
                return
            self._waiting_bytes += len(data)
            self._waiting[key] = (data, crc32c)
            self._arrived_at = time.monotonic()
            due = len(self._waiting) == 1
        if due:
            self._submit(self._store_waiting)

    def _store_waiting(self) -> None:
        """Write the small objects that have come, all together; those who read go first."""
        self._gather()
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        taken: dict[str, bytes] = {}
        rows: dict[str, Row] = {}
        try:
            total = 0
            for key, (data, _) in waiting.items():
                if not self.has(key) and self.make_room(total + len(data)):
                    taken[key] = data
                    total += len(data)
            facts = self._files.store_small(taken)
            rows = {key: _row_of(facts[key], waiting[key][1]) for key in taken}
        except OSError as error:
            if error.errno in FULL:
                self.shrink()
            else:
                self._complain(error)
        finally:
            with self._lock:
                self._waiting_bytes -= sum(len(data) for data, _ in waiting.values())
            self._put(rows)

    def _gather(self) -> None:
        """Wait until no more small objects come, for a moment, or enough have, or somebody wants them kept."""
        until = time.monotonic() + _GATHER_SECONDS
        while not self._hurry.is_set() and self._waiting_bytes < _TOGETHER_BYTES:
            now = time.monotonic()
            quiet = self._arrived_at + _QUIET_SECONDS
            if now >= min(until, quiet):
                return
            self._hurry.wait(min(until, quiet) - now)

    def _note_whole(self, key: str, facts: os.stat_result, crc32c: int) -> None:
        self._put({key: _row_of(facts, crc32c)})

    # --- what is used, and what goes

    def touch(self, key: str) -> None:
        """Take note that an object is used."""
        with self._lock:
            self._used[key] = time.time()
            due = time.monotonic() - self._touched_at >= _TOUCH_SECONDS
            if due:
                self._touched_at = time.monotonic()
        if due:
            self._submit(self._write_touched)

    def _write_touched(self) -> None:
        with self._lock:
            used, self._used = self._used, {}
        if used:
            with self._noting_failures():
                self._note_found(self._catalog.touch(used))

    def _note_found(self, keys: list[str]) -> None:
        """Have rows for whole objects that were read and have none, as a catalog was lost: to be proven again."""
        rows = {}
        for key in keys:
            with contextlib.suppress(OSError):
                rows[key] = Row(os.stat(self._files.whole_path(key)).st_size, False, True, None, None, None, None)
        self._put(rows)

    def pin(self, keys: Iterable[str], *, pinned: bool) -> None:
        """Keep objects whatever comes, or no longer.

        :raise OctuefsError: where that cannot be written
        """
        self.settle()
        try:
            self._catalog.pin(keys, pinned=pinned)
        except sqlite3.Error as error:
            raise OctuefsError(f"{self.folder}: its catalog cannot be written: {error}") from error
        self._count_again()

    @property
    def room_for_pinned(self) -> int:
        """How many more bytes can be pinned."""
        return max(0, self.limit - self._pinned)

    def drop(self, key: str, path: str) -> None:
        """Remove a whole object that is damaged; `path` is for people."""
        logger.warning("what the cache has of %s is damaged; it is fetched again", path)
        self._traffic.count("cache_dropped")
        self._files.remove_whole(key)
        self._forget([key])

    def _trim(self) -> None:
        """Have no more than the limit, where there was no room and bytes came nevertheless."""
        if (excess := self.total_bytes - self.limit) > 0:
            self._evict(excess)

    def _evict(self, wanted: int) -> None:
        """Let the objects go that were used longest ago, of `wanted` bytes or more, if there are so many."""
        with self._evicting:
            self._write_touched()
            before = self._known
            self._count_again()
            wanted += self._known - before
            while wanted > 0:
                with self._noting_failures():
                    if found := self._catalog.oldest(wanted, _STEP):
                        for key, count in found:
                            self._files.remove(key)
                            wanted -= count
                            self._traffic.count("cache_evicted_bytes", count)
                        self._forget([key for key, _ in found])
                        continue
                return

    def _forget(self, keys: list[str]) -> None:
        with self._noting_failures():
            count, total = self._catalog.forget(keys)
            with self._lock:
                self._objects -= count
                self._known -= total

    def _put(self, rows: dict[str, Row]) -> None:
        if rows:
            with self._noting_failures():
                count, total = self._catalog.put(rows)
                with self._lock:
                    self._objects += count
                    self._known += total
                if self._catalog.was_changed():
                    self._count_again()

    def _count_again(self) -> None:
        """Count what is here; other mounts change it too."""
        with self._noting_failures():
            known, objects, pinned = self._catalog.totals()
            with self._lock:
                self._known, self._objects, self._pinned = known, objects, pinned

    def _row(self, key: str) -> Row | None:
        with self._noting_failures():
            return self._catalog.row(key)
        return None

    # --- in the background

    def _submit(self, function, *arguments) -> "Future[None] | None":  # type: ignore[no-untyped-def]
        with contextlib.suppress(RuntimeError):  # it is closed
            future: Future[None] = self._thread.submit(function, *arguments)
            return future
        return None

    def settle(self) -> None:
        """Return once all that was to be kept is, or could not be."""
        self._hurry.set()
        try:
            if (done := self._submit(self._write_touched)) is not None:
                done.result()
        finally:
            self._hurry.clear()

    def _sweep(self) -> None:
        """Remove what the catalog does not know: of mounts that were killed."""
        with self._noting_failures(), contextlib.suppress(OSError):
            self._files.sweep(self._catalog.keys(), lambda key: self._catalog.row(key) is None)

    @contextlib.contextmanager
    def _noting_failures(self) -> Iterator[None]:
        """Go on without the catalog where it cannot be used: something may be fetched again for that."""
        try:
            yield
        except sqlite3.Error as error:
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        """Say once that not all is kept."""
        if not self._complained:
            self._complained = True
            logger.warning("the cache %s does not keep all it should for now: %s", self.folder, error)

    def close(self) -> None:
        """Write what is to be kept, and close the catalog."""
        self.settle()
        self._thread.shutdown(wait=True)
        self._catalog.close()


def _opened_catalog(path: Path) -> Catalog:
    try:
        return Catalog(path)
    except sqlite3.DatabaseError as error:
        if not is_unusable(error):
            raise
    remove(path)
    return Catalog(path)


def _row_of(facts: os.stat_result, crc32c: int) -> Row:
    """Return the row of a whole object whose file was proven just now."""
    return Row(facts.st_size, False, True, crc32c, boot_id(), facts.st_ino, facts.st_mtime_ns)
