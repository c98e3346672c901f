"""One object of a cloud store as it is being read: what of it is at hand, what is on its way, and who waits for that.

All handles of one generation share one of these. A read that finds its bytes at hand takes them from the part
(`parts.py`); what is missing is fetched by the thread that asks, at once, or waited for where another has begun; what
will be asked for next is fetched by others (`patterns.py` says how much). Each range of bytes is received by one
request at a time, and can be read as far as it has come.

Lock order: `_changed` guards all that is known of the object, and is held for memory work alone; it is taken while
holding no other lock of the package, and no store is asked under it.
"""

import logging
import threading
import time
from concurrent.futures import Executor
from contextlib import suppress

from octuefs.content.extents import Extents
from octuefs.content.parts import Part
from octuefs.content.patterns import SMALLEST_PIECE_BYTES, Bargain
from octuefs.content.rooms import Room
from octuefs.content.transfers import Transfer, Transfers
from octuefs.errors import ChecksumMismatch, Conflict, LocalFailure, NotFound, OctuefsError, again
from octuefs.model.hashes import extend_crc32c
from octuefs.stores.base import ObjectInfo, StreamSource
from octuefs.stores.traffic import Traffic

logger = logging.getLogger(__name__)

_LARGEST_PIECE_BYTES = 8 << 20
_LEAST_PIECE_BYTES = 512 << 10
_PIECES_AHEAD = 8
"""What is fetched ahead is cut into so many requests, unless they get too large or too small."""
_FIRST_BOUGHT_BYTES = 1 << 20
"""The whole is bought in such pieces at first, and in larger ones then: never more at once than is here."""
_STEP_BYTES = 8 << 20
"""By so much at most a part is made smaller at once that has more than it may; a small one by an eighth."""


class CloudObject:
    """One generation of an object."""

    def __init__(
        self,
        source: StreamSource,
        info: ObjectInfo,
        *,
        room: Room,
        workers: Executor,
        traffic: Traffic,
    ) -> None:
        self.info = info
        self._source = source
        self._room = room
        self._workers = workers
        self._traffic = traffic
        self._opening = threading.Lock()  # held while the part is opened, by who reads first
        self._changed = threading.Condition(threading.Lock())
        self._part: Part | None = None
        self._transfers = Transfers()
        self._waiting = 0
        self._bargain = Bargain()
        self._failure: OctuefsError | None = None
        """Why no more bytes can be had."""
        self._is_idle = False
        self._completing = threading.Lock()  # held by who proves the whole, over the disk's work; before _changed
        self._is_kept = False
        """True where the whole is in the disk cache."""
        self._unread = Extents()
        """Bytes that were fetched ahead and not read yet."""
        self._given_up: list[Part] = []

    # --- reading

    def read(self, offset: int, size: int, ahead: int | None) -> bytes:
        """Return the bytes at `offset`, `size` of them at most; fewer only at the end of the object.

        :param ahead: how many bytes after them are to be fetched too; None where they are single ones
        :raise Conflict: where they are not at hand, and the generation is gone
        """
        end = min(offset + size, self.info.size)
        if offset >= end:
            return b""
        self._ready()
        if ahead:
            self.fetch_ahead(end, ahead)
        began, rented = 0.0, False
        found: list[bytes] = []
        while offset < end:
            data = self._at_hand(offset, end)
            if data is None:
                began = began or time.monotonic()
                data = self._get_some(offset, end, single=ahead is None)
                rented |= ahead is None and data is not None
            if data:
                found.append(data)
                offset += len(data)
        if rented:
            self._missed(time.monotonic() - began)
        return found[0] if len(found) == 1 else b"".join(found)

    def _at_hand(self, offset: int, end: int) -> bytes | None:
        """Return the bytes from `offset` on that are at hand; None where the first is not."""
        with self._changed:
            part = self._have_part()
            gap = next(part.extents.gaps(offset, end), None)
            if gap is not None:
                end = gap[0]
            if offset >= end:
                return None
            discards = part.discards
            self._note_used(offset, end)
        data = part.read(offset, end - offset)
        if len(data) < end - offset or not part.is_intact():  # somebody cut the file, or wrote to it
            self._traffic.count("cache_dropped")
            self._exchange(part, LocalFailure(f"{self.info.path}: what was fetched of it was damaged since"))
            return None
        with self._changed:
            return data if self._part is part and part.discards == discards else None

    def _get_some(self, offset: int, end: int, *, single: bool) -> bytes | None:
        """Do what brings bytes nearer that are not at hand: prove, fetch, or wait for some of them.

        Return those that were fetched here: another reader's may have taken their room by now.
        """
        with self._changed:
            part = self._have_part()
            gap = next(part.extents.gaps(offset, end), None)
            if gap is None:
                return None
            kept = part.kept_in(*gap)
            mine = None
            if not kept:
                if self._failure is not None:
                    raise again(self._failure)
                present = self._transfers.bringing(gap[0])
                if present is not None and present.running:
                    present.ahead = False
                    self._wait(present)
                    if present.error is not None:
                        raise again(present.error)
                    return None
                if present is not None:
                    mine = self._transfers.cut(present, *gap)
                else:
                    mine = self._transfers.begin(*(self._single(*gap) if single else gap))
                mine.running = True
        if mine is None:
            self._prove(part, kept)
            return None
        first = mine.start
        received = b"".join(self._fetch(mine, keeps=True))
        return received[offset - first : end - first] if first <= offset else b""  # bytes came before it, meanwhile

    def read_now(self, offset: int, room: memoryview) -> int | None:
        """Read what fits into `room`, if all of it is at hand and nobody need wait for it; see `ReadySource`."""
        end = min(offset + len(room), self.info.size)
        if offset >= end:
            return 0
        with self._changed:
            part = self._part
            if part is None or not part.extents.covers(offset, end):
                return None
            discards = part.discards
        count = part.read_now(offset, room[: end - offset])
        if not part.is_intact():
            return None
        with self._changed:
            if count != end - offset or self._part is not part or part.discards != discards:
                return None
            self._note_used(offset, end)
        return count

    def fetch_ahead(self, offset: int, size: int) -> None:
        """Have up to `size` bytes from `offset` on fetched by others, but for those that are here or on their way."""
        end = min(offset + size, self.info.size)
        piece = min(max(size // _PIECES_AHEAD, _LEAST_PIECE_BYTES), _LARGEST_PIECE_BYTES)
        begun: list[Transfer] = []
        with self._changed:
            part = self._part
            if part is None or self._failure is not None:
                return
            end = min(end, offset + part.allowance // 2)
            if part.extents.covers(offset, end):
                return
            for start, stop in self._transfers.missing(part, offset, end):
                for at in range(start, stop, piece):
                    if stop - at >= piece or stop < end or stop == self.info.size:  # what is left out grows
                        begun.append(self._transfers.begin(at, min(at + piece, stop), ahead=True))
        self._submit(begun)

    def fetch_all(self) -> bool:
        """Fetch what is missing, in this thread and others; False where it cannot be kept whole.

        :raise OctuefsError: where it cannot be fetched
        """
        part = self._ready()
        if part.allowance < self.info.size:
            return False
        at = 0
        while at < self.info.size:
            step = min(_LARGEST_PIECE_BYTES, self.info.size - at)
            self.read(at, step, _LARGEST_PIECE_BYTES * _PIECES_AHEAD)
            at += step
        self._complete(self._have_part())
        return self._is_kept

    @property
    def is_complete(self) -> bool:
        """True where all bytes are at hand."""
        part = self._part
        return part is not None and part.is_complete

    @property
    def is_kept(self) -> bool:
        """True where the whole is in the disk cache, from where others read it."""
        return self._is_kept

    # --- what is missing

    def _ready(self) -> Part:
        """Return the part, opened by the first who asks."""
        part = self._part
        if part is None:
            with self._opening:
                if self._part is None:
                    opened = self._room.open()
                    with self._changed:
                        self._part = opened
            part = self._have_part()
        return part

    def _have_part(self) -> Part:
        assert self._part is not None, "opened by the first who read"
        return self._part

    def _single(self, start: int, end: int) -> tuple[int, int]:
        """Return the bytes to fetch for some that continue nothing: whole pages, and more of them after many misses."""
        size = max(self._bargain.piece_bytes(), SMALLEST_PIECE_BYTES)
        low, high = start - start % size, min(end + -end % size, self.info.size)
        for first, last in self._transfers.missing(self._have_part(), low, high):
            if first <= start < last:
                return first, last
        return start, end

    def _wait(self, transfer: Transfer) -> None:
        """Wait until more of a transfer has come, or it has ended; under `_changed`, which is let go meanwhile."""
        arrived = transfer.arrived
        self._waiting += 1
        try:
            while transfer.arrived == arrived and transfer in self._transfers:
                self._changed.wait()
        finally:
            self._waiting -= 1

    # --- fetching

    def _submit(self, transfers: list[Transfer]) -> None:
        """Have others fetch."""
        for transfer in transfers:
            with suppress(RuntimeError):  # the mount ends
                self._workers.submit(self._fetch_unless_begun, transfer)

    def _fetch_unless_begun(self, transfer: Transfer) -> None:
        with self._changed:
            if transfer.running or transfer not in self._transfers:
                return
            if self._is_idle:
                self._transfers.end(transfer)
                return
            transfer.running = True
        began = time.monotonic()
        failed = False
        try:
            self._fetch(transfer)
        except OctuefsError:  # who asks for these bytes asks again
            failed = True
        with self._changed:
            self._bargain.bought((time.monotonic() - began) / self._bargain.at_once)
        if not failed:  # or this would go on and on; the next miss buys again
            self._buy()

    def _fetch(self, transfer: Transfer, *, keeps: bool = False) -> list[bytes]:
        """Receive the bytes of a transfer into the part; return them too, where the caller `keeps` them.

        :raise OctuefsError: where they cannot be had
        """
        part = self._have_part()
        first = at = transfer.start
        crc32c = 0
        background = transfer.ahead
        received: list[bytes] = []
        try:
            for data in self._source.stream(at, transfer.end, background=background):
                taken_by = self._take(part, at, data)
                if taken_by is not part:
                    part, first, crc32c = taken_by, at, 0
                crc32c = extend_crc32c(crc32c, data)
                at += len(data)
                if keeps:
                    received.append(data)
                with self._changed:
                    part.extents.add(at - len(data), at)
                    transfer.arrived = at
                    if transfer.ahead:
                        self._note_ahead(at - len(data), at)
                    if self._waiting:
                        self._changed.notify_all()
                    if (self._is_idle and transfer.ahead) or self._part is not part:
                        break
        except OctuefsError as error:
            if not background:  # who waits for one of those asks again, with more patience of the store's
                transfer.error = error
            if isinstance(error, Conflict | NotFound):
                self._failure = error
            raise
        finally:
            with self._changed:
                self._transfers.end(transfer)
                part.close_piece(first, at, crc32c)
                self._changed.notify_all()
            self._complete_soon(part)
        return received

    def _take(self, part: Part, at: int, data: bytes) -> Part:
        """Write bytes that came to the part, and return it: another one, in memory, where its disk takes no more."""
        while True:
            counted = self._make_room(part, len(data))
            try:
                part.write(at, data)
                return part
            except LocalFailure as error:
                self._room.give_back(part, counted)
                if not self._room.relieve(part, error):
                    part = self._exchange(part, error)

    def _make_room(self, part: Part, count: int) -> int:
        """Have room for bytes that came; return how many count: none where all that could leave is on its way still."""
        while part.extents.total + count > part.allowance or not self._room.make(part, count):
            with self._changed:
                freed = part.discard_oldest(max(min(_STEP_BYTES, part.allowance // 8), count))
            self._room.give_back(part, freed)
            if not freed:
                return 0
        return count

    def _exchange(self, part: Part, error: OctuefsError) -> Part:
        """Go on with a part in memory, as no disk takes what comes; what the other had is fetched again if need be.

        :raise OctuefsError: the `error`, where there is no room in memory either
        """
        with self._changed:
            freed = 0
            if self._part is part:
                if self._given_up:
                    raise error
                self._given_up.append(part)
                self._part = self._room.in_memory(self.info.size)
                freed = part.discard_all()
                self._changed.notify_all()
            taken_by = self._have_part()
        self._room.give_back(part, freed)
        return taken_by

    def _note_ahead(self, start: int, end: int) -> None:
        """Count bytes that came before anybody asked for them; under `_changed`."""
        self._unread.add(start, end)
        self._traffic.count("read_ahead_bytes", end - start)

    def _note_used(self, start: int, end: int) -> None:
        """Count those of them that are read; under `_changed`."""
        if before := self._unread.total:
            self._unread.remove(start, end)
            if used := before - self._unread.total:
                self._traffic.count("read_ahead_used_bytes", used)

    def _prove(self, part: Part, kept: list[int]) -> None:
        """Prove pieces of an earlier time, and have them count, or be fetched again."""
        for start in kept:
            with self._changed:
                piece = part.kept.get(start)
            if piece is None:
                continue
            end, crc32c = piece
            proven = part.prove(start, end, crc32c)
            with self._changed:
                if part.kept.pop(start, None) is None:
                    continue  # another thread was faster
                if proven:
                    part.extents.add(start, end)
                    part.close_piece(start, end, crc32c)
            if not proven:
                self._room.give_back(part, end - start)
                self._traffic.count("cache_dropped")
                logger.warning("some of what the cache has of %s is damaged; it is fetched again", self.info.path)
        self._complete_soon(part)

    def _complete_soon(self, part: Part) -> None:
        """Have the whole proven and kept by another thread, where all of it is at hand."""
        with self._changed:
            if self._part is not part or not part.is_complete or self._transfers:
                return
        with suppress(RuntimeError):  # the mount ends; `close` does it
            self._workers.submit(self._complete, part)

    def _complete(self, part: Part) -> None:
        """Prove the whole, now that all of it is at hand, and have it kept; once."""
        with self._completing:
            if not self._is_kept:
                self._prove_whole(part)

    def _prove_whole(self, part: Part) -> None:
        with self._changed:
            while self._transfers and self._part is part and part.is_complete:
                self._changed.wait()  # their last pieces have come, and are about to get their checksums
            if self._part is not part or not part.is_complete:
                return
            crc32c = part.crc32c()
        if crc32c is None:
            crc32c = part.checksum(0, self.info.size)
        if crc32c is None or self.info.crc32c not in (None, crc32c):
            error = ChecksumMismatch(f"{self.info.path}: the bytes that arrived do not have the object's checksum")
            logger.warning("%s", error)
            with self._changed:
                self._failure = error
                freed = part.discard_all()
                self._changed.notify_all()
            self._room.give_back(part, freed)
            self._traffic.count("cache_dropped")
            return
        self._is_kept = self._room.completed(part, crc32c)

    # --- renting and buying

    def _missed(self, seconds: float) -> None:
        with self._changed:
            self._bargain.missed(seconds)
        self._buy()

    def _buy(self) -> None:
        """Have more of the whole fetched, where so much time went into single pieces that it pays."""
        with self._changed:
            part = self._part
            if not self._bargain.buys or part is None or self._is_idle or part.allowance < self.info.size:
                return
            if self._failure is not None:
                return
            under_way = sum(transfer.ahead for transfer in self._transfers)
            piece = min(max(part.extents.total // _PIECES_AHEAD, _FIRST_BOUGHT_BYTES), _LARGEST_PIECE_BYTES)
            begun: list[Transfer] = []
            for start, end in self._transfers.missing(part, 0, self.info.size):
                for at in range(start, end, piece):
                    if under_way + len(begun) >= self._bargain.at_once:
                        break
                    begun.append(self._transfers.begin(at, min(at + piece, end), ahead=True))
        self._submit(begun)

    # --- the end

    def rest(self) -> None:
        """Fetch nothing ahead any more: nobody has it open."""
        with self._changed:
            self._is_idle = True

    def wake(self) -> None:
        """Be read again: what came damaged before may come whole now."""
        with self._changed:
            if self._is_idle and isinstance(self._failure, ChecksumMismatch):
                self._failure = None
            self._is_idle = False

    def close(self) -> Part | None:
        """Give the part to the caller once nothing is on its way any more; nobody reads after this."""
        with self._changed:
            self._is_idle = True
            self._transfers.drop_waiting()
            while self._transfers:
                self._changed.wait()
            part = self._part
        if part is not None and part.is_complete:
            self._complete(part)  # unless that was done; another thread may be at it
        with self._changed:
            part, self._part = self._part, None
            if self._unread.total:
                self._traffic.count("read_ahead_wasted_bytes", self._unread.total)
            self._unread = Extents()
        for given_up in self._given_up:
            self._room.give_back(given_up, given_up.extents.total)
            given_up.remove()
        return part
