"""Objects that are read: who fetches what, who waits for it, and what is done about failures."""

import itertools
import os
import random
import threading
from pathlib import Path

import pytest
from unit.object_world import (
    KIB,
    MIB,
    FakeRoom,
    Gate,
    Request,
    content,
    in_thread,
    info_of,
    source_of,
    world,
)

from octuefs.content.parts import Part
from octuefs.errors import ChecksumMismatch, Conflict, LocalFailure, StoreUnavailable
from octuefs.model.hashes import extend_crc32c
from octuefs.stores.descriptor import Descriptor

DATA = content(32 * MIB)


def ranges(requests: list[Request]) -> list[tuple[int, int]]:
    return [(it.start, it.end) for it in requests]


# --- single reads ----------------------------------------------------------------------------------------------------


def test_a_lone_small_read_is_one_request_of_just_these_bytes() -> None:
    at = world(source_of(DATA))
    assert at.object.read(9 * MIB, 4 * KIB, None) == DATA[9 * MIB : 9 * MIB + 4 * KIB]
    at.settle()
    assert at.source.requests == [Request(9 * MIB, 9 * MIB + 4 * KIB, background=False)]


def test_a_lone_read_of_odd_bytes_fetches_the_pages_they_are_in() -> None:
    at = world(source_of(DATA))
    assert at.object.read(5000, 10, None) == DATA[5000:5010]
    assert at.object.read(4096, 4096, None) == DATA[4096:8192]
    at.settle()
    assert ranges(at.source.requests) == [(4096, 8192)]


def test_the_end_of_an_object_is_where_its_size_says() -> None:
    data = content(MIB + 100)
    at = world(source_of(data))
    assert at.object.read(MIB, 4 * KIB, None) == data[MIB:]
    assert at.object.read(len(data), 10, None) == b""
    assert at.object.read(len(data) + 5, 10, 1 * MIB) == b""
    assert len(at.source.requests) == 1


def test_a_read_that_is_partly_at_hand_asks_for_the_rest_alone() -> None:
    at = world(source_of(DATA))
    at.object.read(64 * KIB, 64 * KIB, None)
    assert at.object.read(0, 256 * KIB, 0) == DATA[: 256 * KIB]
    at.settle()
    assert sorted(ranges(at.source.requests)) == [
        (0, 64 * KIB),
        (64 * KIB, 128 * KIB),
        (128 * KIB, 256 * KIB),
    ]


# --- many readers ----------------------------------------------------------------------------------------------------


def test_each_byte_is_fetched_once_however_many_read_it() -> None:
    source = source_of(DATA, piece=64 * KIB)
    gate = source.before = Gate()
    at = world(source)
    readers = [in_thread(lambda: at.object.read(0, MIB, None)) for _ in range(16)]
    gate.wait()
    gate.open.set()
    assert all(it.result() == DATA[:MIB] for it in readers)
    at.settle()
    assert ranges(source.requests) == [(0, MIB)]


def test_a_reader_has_its_bytes_as_soon_as_they_have_come_while_the_request_goes_on() -> None:
    source = source_of(DATA, piece=64 * KIB)
    gate = source.before = Gate(at=lambda request, at: at == 128 * KIB)
    at = world(source)
    all_of_it = in_thread(lambda: at.object.read(0, MIB, None))
    gate.wait()
    assert at.object.read(64 * KIB, 64 * KIB, None) == DATA[64 * KIB : 128 * KIB]
    assert not all_of_it.is_done
    waits = in_thread(lambda: at.object.read(192 * KIB, 64 * KIB, None))
    gate.open.set()
    assert all_of_it.result() == DATA[:MIB]
    assert waits.result() == DATA[192 * KIB : 256 * KIB]
    assert len(source.requests) == 1


def test_many_threads_read_all_over_an_object_and_each_byte_comes_once() -> None:
    data = content(6 * MIB + 123)
    source = source_of(data, piece=100_000)
    at = world(source)

    def read(seed: int) -> None:
        here = random.Random(seed)
        for _ in range(60):
            offset, size = here.randrange(len(data)), here.randrange(1, 300_000)
            ahead = here.choice([None, None, 0, MIB])
            assert at.object.read(offset, size, ahead) == data[offset : offset + size]

    readers = [in_thread(lambda seed=seed: read(seed)) for seed in range(8)]  # type: ignore[misc]
    for reader in readers:
        reader.result()
    at.settle()
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(sorted(source.served)))


# --- ahead -----------------------------------------------------------------------------------------------------------


def test_reading_in_order_is_fetched_by_a_bounded_number_of_requests_side_by_side() -> None:
    source = source_of(DATA)
    together = threading.Barrier(9)

    def meet(request: Request, at: int) -> None:
        if at == request.start and (request.start - 128 * KIB) // (4 * MIB) == 0:
            together.wait(20)

    source.before = meet
    at = world(source)
    in_front = in_thread(lambda: at.object.read(0, 128 * KIB, 4 * MIB))
    together.wait(20)  # eight for what comes, asked for at the same time
    assert in_front.result() == DATA[: 128 * KIB]
    source.before = lambda request, at: None
    for offset in range(128 * KIB, len(DATA), 128 * KIB):
        assert at.object.read(offset, 128 * KIB, 4 * MIB) == DATA[offset : offset + 128 * KIB]
    at.settle()
    assert source.served_bytes == len(DATA)
    assert source.most <= 10
    assert sum(it.background for it in source.requests) <= len(DATA) // (512 * KIB) + 2
    assert at.counter("read_ahead_bytes") > 0


def test_what_is_fetched_ahead_and_read_is_counted_as_used_and_the_rest_as_wasted() -> None:
    at = world(source_of(DATA))
    at.object.read(0, 128 * KIB, 4 * MIB)
    at.settle()
    before = at.counter("read_ahead_bytes")
    assert before == 4 * MIB
    assert at.object.read(128 * KIB, MIB, 0)
    assert at.counter("read_ahead_used_bytes") == MIB
    part = at.object.close()
    assert part is not None
    assert at.counter("read_ahead_wasted_bytes") == before - MIB


def test_bytes_whose_turn_has_not_come_are_fetched_by_who_needs_them() -> None:
    source = source_of(DATA)
    gate = source.before = Gate(at=lambda request, at: request.background)
    at = world(source, workers=1)
    first = in_thread(lambda: at.object.read(0, 128 * KIB, 16 * MIB))
    gate.wait()  # the one worker is held up with the first piece of 2 MiB
    assert first.result() == DATA[: 128 * KIB]
    offset = 7 * MIB
    assert at.object.read(offset, 64 * KIB, None) == DATA[offset : offset + 64 * KIB]
    mine = [it for it in source.requests if not it.background]
    assert ranges(mine) == [(0, 128 * KIB), (offset, offset + 64 * KIB)], "just what was asked for"
    gate.open.set()
    assert at.object.read(0, len(DATA), 0) == DATA
    at.settle()
    assert source.served_bytes == len(DATA)


def test_nothing_more_is_fetched_ahead_once_nobody_has_it_open() -> None:
    source = source_of(DATA)
    gate = source.before = Gate(at=lambda request, at: request.background and at == request.start)
    at = world(source, workers=2)
    at.object.read(0, 128 * KIB, 16 * MIB)
    gate.wait(2)
    at.object.rest()
    gate.open.set()
    at.settle()
    assert source.served_bytes == 128 * KIB + 2 * MIB, "of each request that was under way a piece came"
    assert at.object.close() is not None


def test_it_is_read_again_after_a_rest_with_what_had_come() -> None:
    at = world(source_of(DATA))
    at.object.read(0, MIB, None)
    at.object.rest()
    at.object.wake()
    assert at.object.read(0, 2 * MIB, 0) == DATA[: 2 * MIB]
    assert at.source.served_bytes == 2 * MIB


def test_reading_goes_on_when_the_workers_have_ended() -> None:
    at = world(source_of(DATA))
    at.settle()
    assert at.object.read(0, MIB, 8 * MIB) == DATA[:MIB]
    assert at.object.read(MIB, MIB, 8 * MIB) == DATA[MIB : 2 * MIB]
    assert at.object.close() is not None


# --- reading at once -------------------------------------------------------------------------------------------------


def test_only_what_is_at_hand_is_read_at_once() -> None:
    at = world(source_of(DATA))
    room = memoryview(bytearray(64 * KIB))
    assert at.object.read_now(0, room) is None, "nobody has read yet"
    at.object.read(0, 100 * KIB, None)
    assert at.object.read_now(0, room) == 64 * KIB
    assert bytes(room) == DATA[: 64 * KIB]
    assert at.object.read_now(64 * KIB, room) is None, "some of it"
    assert at.object.read_now(len(DATA), room) == 0
    at.object.read(len(DATA) - 10, 10, None)
    assert at.object.read_now(len(DATA) - 10, room) == 10
    assert bytes(room[:10]) == DATA[-10:]


# --- renting and buying ----------------------------------------------------------------------------------------------


def test_many_misses_here_and_there_have_the_whole_fetched_in_the_background() -> None:
    source = source_of(DATA)
    here = random.Random(3)
    slow = threading.Event()

    def be_slow(request: Request, at: int) -> None:
        if not request.background:
            slow.wait(0.002)

    source.before = be_slow
    at = world(source)
    for _ in range(100):
        offset = here.randrange(len(DATA) // 4096) * 4096
        assert at.object.read(offset, 4096, None) == DATA[offset : offset + 4096]
    assert any(it.background for it in source.requests)
    assert sum(not it.background for it in source.requests) < 100
    at.settle()
    assert source.served_bytes <= len(DATA), "no byte came twice"


def test_a_few_misses_buy_nothing() -> None:
    at = world(source_of(DATA))
    for offset in (1, 9, 17, 25):
        at.object.read(offset * MIB, 4096, None)
    at.settle()
    assert ranges(at.source.requests) == [(it * MIB, it * MIB + 4096) for it in (1, 9, 17, 25)]


def test_no_more_is_bought_at_first_than_would_be_fetched_for_a_few_reads_in_order() -> None:
    source = source_of(content(64 * MIB))
    gate = source.before = Gate(at=lambda request, at: request.background and at == request.start)
    at = world(source)
    for offset in range(5):
        at.object.read((offset * 9 + 20) * MIB, 4096, None)
    gate.wait(2)  # of a store that is near
    assert all(it.end - it.start <= MIB for it in source.requests)
    assert len(source.requests) == 5 + 2
    at.object.rest()
    gate.open.set()
    at.settle()


def test_buying_that_fails_is_not_tried_again_and_again() -> None:
    source = source_of(DATA)

    def refuse(request: Request, at: int) -> None:
        if request.background:
            raise StoreUnavailable("not now")

    source.before = refuse
    at = world(source)
    for offset in range(5):
        at.object.read(offset * MIB, 4096, None)
    at.settle()
    assert 1 <= sum(it.background for it in source.requests) <= 8


def test_an_object_that_is_gone_is_not_bought() -> None:
    source = source_of(DATA)

    def refuse(request: Request, at: int) -> None:
        if request.start >= 4 * MIB:
            raise Conflict("replaced")

    source.before = refuse
    at = world(source)
    for offset in range(4):
        at.object.read(offset * MIB, 4096, None)
    with pytest.raises(Conflict):
        at.object.read(4 * MIB, 4096, None)
    assert at.object.read(0, 4096, None) == DATA[:4096]
    at.settle()
    assert len(source.requests) == 5


# --- failures --------------------------------------------------------------------------------------------------------


def test_a_failure_in_the_background_fails_nobody() -> None:
    source = source_of(DATA)
    gate = Gate(at=lambda request, at: request.background)
    source.before = gate
    at = world(source)
    at.object.read(0, 128 * KIB, MIB)
    gate.wait(2)
    reader = in_thread(lambda: at.object.read(128 * KIB, MIB, 0))
    gate.fail(StoreUnavailable("not now"))
    assert reader.result() == DATA[128 * KIB : MIB + 128 * KIB]
    at.settle()


def test_who_waits_for_bytes_that_another_reader_asked_for_is_told_of_the_failure_too() -> None:
    source = source_of(DATA)
    gate = source.before = Gate()
    at = world(source)
    readers = [in_thread(lambda: at.object.read(0, 4096, None)) for _ in range(2)]
    gate.wait()
    gate.fail(StoreUnavailable("not now"))
    for reader in readers:
        with pytest.raises(StoreUnavailable):
            reader.result()
    source.before = lambda request, at: None
    assert at.object.read(0, 4096, None) == DATA[:4096], "the next one tries again"


def test_bytes_at_hand_are_served_after_the_generation_has_gone() -> None:
    source = source_of(DATA)
    at = world(source)
    at.object.read(0, MIB, None)

    def refuse(request: Request, at: int) -> None:
        raise Conflict("replaced")

    source.before = refuse
    with pytest.raises(Conflict):
        at.object.read(MIB, 4096, None)
    assert at.object.read(0, MIB, 8 * MIB) == DATA[:MIB]
    asked = len(source.requests)
    with pytest.raises(Conflict):
        at.object.read(2 * MIB, 4096, 8 * MIB)
    at.settle()
    assert len(source.requests) == asked, "it is not asked for again"


def test_a_body_that_ends_early_leaves_what_came_and_the_rest_is_asked_for_again() -> None:
    source = source_of(DATA, piece=64 * KIB)

    def break_off(request: Request, at: int) -> None:
        if at >= 256 * KIB:
            raise StoreUnavailable("it broke off")

    source.before = break_off
    at = world(source)
    with pytest.raises(StoreUnavailable):
        at.object.read(0, MIB, 0)
    assert at.object.read(0, 256 * KIB, 0) == DATA[: 256 * KIB]
    source.before = lambda request, at: None
    assert at.object.read(0, MIB, 0) == DATA[:MIB]
    assert ranges(source.requests) == [(0, MIB), (256 * KIB, MIB)]


def test_an_error_that_is_none_of_ours_leaves_nobody_waiting() -> None:
    source = source_of(DATA)
    gate = Gate()

    def fail(request: Request, at: int) -> None:
        gate(request, at)
        raise MemoryError

    source.before = fail
    at = world(source)
    first = in_thread(lambda: at.object.read(0, 4096, None))
    gate.wait()
    second = in_thread(lambda: at.object.read(0, 4096, None))
    gate.open.set()
    with pytest.raises(MemoryError):
        first.result()
    with pytest.raises(MemoryError):
        second.result()
    assert at.object.close() is not None


# --- the whole -------------------------------------------------------------------------------------------------------


def test_the_whole_is_proven_and_kept_once_all_of_it_has_come() -> None:
    at = world(source_of(DATA))
    assert at.object.fetch_all()
    at.settle()
    assert at.object.is_complete
    assert [crc for _, crc in at.room.completed_parts] == [extend_crc32c(0, DATA)]
    assert at.source.served_bytes == len(DATA)


def test_the_whole_is_kept_also_where_readers_fetched_it_piece_by_piece() -> None:
    data = content(2 * MIB)
    at = world(source_of(data))
    for offset in random.Random(1).sample(range(0, len(data), 128 * KIB), 16):
        at.object.read(offset, 128 * KIB, 0)
    at.settle()
    assert [crc for _, crc in at.room.completed_parts] == [extend_crc32c(0, data)]


def test_a_piece_whose_request_has_not_quite_ended_makes_nothing_wrong_of_the_whole() -> None:
    data = content(2 * MIB)
    source = source_of(data)
    gate = source.before = Gate(at=lambda request, at: request.background and at == request.end)
    at = world(source)
    at.object.read(0, MIB, MIB)
    gate.wait(2)  # all bytes are at hand, and two requests have not ended
    assert at.object.read(0, 2 * MIB, 0) == data
    all_of_it = in_thread(at.object.fetch_all)
    gate.open.set()
    assert all_of_it.result()
    at.settle()
    assert len(at.room.completed_parts) == 1
    assert at.counter("cache_dropped") == 0


@pytest.mark.expected_logs("do not have the object's checksum")
def test_bytes_that_are_not_the_promised_ones_fail_and_nothing_of_them_is_kept() -> None:
    data = content(2 * MIB)
    at = world(source_of(data, crc32c=12345))

    def fetch() -> None:
        at.object.fetch_all()
        at.object.read(0, 4096, None)

    with pytest.raises(ChecksumMismatch):
        fetch()
    with pytest.raises(ChecksumMismatch):
        at.object.read(MIB, 4096, None)
    assert at.object.read_now(0, memoryview(bytearray(100))) is None
    assert not at.room.completed_parts
    assert at.counter("cache_dropped") == 1
    at.object.rest()
    at.object.wake()
    assert at.object.read(0, 4096, None) == data[:4096], "who opens it later tries again"
    part = at.object.close()
    assert part is not None
    assert part.extents.total == at.room.counted == 4096
    assert set(part.pieces) == {0}


def test_an_object_without_a_promised_checksum_is_kept_with_the_one_it_has() -> None:
    data = content(2 * MIB)
    at = world(source_of(data, crc32c=None))
    assert at.object.fetch_all()
    assert [crc for _, crc in at.room.completed_parts] == [extend_crc32c(0, data)]


# --- what is there from an earlier time ------------------------------------------------------------------------------


def test_pieces_of_an_earlier_time_are_proven_and_not_fetched_again() -> None:
    source = source_of(DATA)
    room = FakeRoom(len(DATA))
    room.kept = {0: (MIB, extend_crc32c(0, DATA[:MIB]))}
    room.open().write(0, DATA[:MIB])
    at = world(source, room)
    assert at.object.read(0, 2 * MIB, 0) == DATA[: 2 * MIB]
    assert ranges(source.requests) == [(MIB, 2 * MIB)]


def test_an_object_all_of_which_is_there_from_an_earlier_time_becomes_a_whole_one() -> None:
    data = content(2 * MIB)
    room = FakeRoom(len(data))
    room.kept = {it: (it + MIB, extend_crc32c(0, data[it : it + MIB])) for it in (0, MIB)}
    room.open().write(0, data)
    at = world(source_of(data), room)
    assert at.object.read(0, len(data), None) == data
    at.settle()
    assert len(room.completed_parts) == 1
    assert not at.source.requests


@pytest.mark.expected_logs("is damaged; it is fetched again")
def test_a_piece_of_an_earlier_time_that_is_damaged_is_dropped_counted_and_fetched() -> None:
    source = source_of(DATA)
    room = FakeRoom(len(DATA))
    room.kept = {0: (MIB, extend_crc32c(0, DATA[:MIB])), MIB: (2 * MIB, extend_crc32c(0, DATA[MIB : 2 * MIB]))}
    room.counted = 2 * MIB
    room.open().write(0, DATA[:MIB])  # the second one was cut off
    at = world(source, room)
    readers = [in_thread(lambda: at.object.read(0, 2 * MIB, 0)) for _ in range(4)]
    assert all(it.result() == DATA[: 2 * MIB] for it in readers)
    assert ranges(source.requests) == [(MIB, 2 * MIB)]
    assert at.counter("cache_dropped") == 1
    assert room.counted == 2 * MIB


# --- little room -----------------------------------------------------------------------------------------------------


def test_what_came_first_leaves_where_there_is_no_room() -> None:
    room = FakeRoom(len(DATA), allowance=4 * MIB)
    at = world(source_of(DATA), room)
    for offset in range(0, 16 * MIB, MIB):
        assert at.object.read(offset, MIB, 0) == DATA[offset : offset + MIB]
    part = room.open()
    assert part.extents.total <= 4 * MIB
    assert room.counted == part.extents.total, "what left does not count, what came does"
    assert at.object.read(0, MIB, 0) == DATA[:MIB]


def test_the_books_are_right_where_the_cache_says_no() -> None:
    room = FakeRoom(len(DATA), limit=4 * MIB)
    at = world(source_of(DATA), room)
    for offset in range(0, 16 * MIB, MIB):
        assert at.object.read(offset, MIB, 0) == DATA[offset : offset + MIB]
    assert room.open().extents.total == room.counted <= 4 * MIB
    assert room.most_counted <= 4 * MIB


def test_readers_never_get_zeros_or_others_bytes_while_pieces_leave_under_them() -> None:
    data = content(4 * MIB)
    room = FakeRoom(len(data), allowance=256 * KIB)
    source = source_of(data, piece=16 * KIB)
    at = world(source, room)
    into = threading.local()

    def read(seed: int) -> None:
        here = random.Random(seed)
        into.room = memoryview(bytearray(64 * KIB))
        for turn in range(100):
            size = here.choice([1, 4096, 64 * KIB])
            offset = here.randrange(len(data) - size)
            if turn % 3 == 0 and (count := at.object.read_now(offset, into.room[:size])) is not None:
                assert bytes(into.room[:count]) == data[offset : offset + size]
            ahead = here.choice([None, 0, 512 * KIB])
            assert at.object.read(offset, size, ahead) == data[offset : offset + size]

    readers = [in_thread(lambda seed=seed: read(seed)) for seed in range(12)]  # type: ignore[misc]
    for reader in readers:
        reader.result()
    at.settle()
    part = at.object.close()
    assert part is not None
    assert {it for start, (end, _) in part.pieces.items() for it in (start, end)}
    assert sum(end - start for start, (end, _) in part.pieces.items()) == part.extents.total


# --- disks that fail -------------------------------------------------------------------------------------------------


class FailingPart(Part):
    """A part on a disk that takes no more after some bytes."""

    def __init__(self, file: Path, size: int, takes: int, number: int = 28) -> None:
        fd = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        super().__init__(Descriptor(fd, str(file)), size, allowance=size, path=file)
        self.takes = takes
        self.number = number

    def write(self, offset: int, data: bytes) -> None:
        self.takes -= len(data)
        if self.takes < 0:
            error = LocalFailure("no room")
            error.errno = self.number
            raise error
        super().write(offset, data)


def test_a_full_disk_is_relieved_and_the_read_goes_on(tmp_path: Path) -> None:
    room = FakeRoom(len(DATA))
    part = room.part = FailingPart(tmp_path / "part", len(DATA), MIB)
    at = world(source_of(DATA), room)
    original = room.relieve

    def relieve(failed: Part, error: LocalFailure) -> bool:
        part.takes = 100 * MIB
        return original(failed, error)

    room.relieve = relieve  # type: ignore[method-assign]
    assert at.object.read(0, 4 * MIB, 0) == DATA[: 4 * MIB]
    assert room.relieved == 1
    assert part.extents.total == 4 * MIB


def test_a_disk_that_nothing_relieves_gives_way_to_memory_and_the_read_goes_on(tmp_path: Path) -> None:
    room = FakeRoom(len(DATA))
    room.relief = False
    first = room.part = FailingPart(tmp_path / "part", len(DATA), 2 * MIB)
    at = world(source_of(DATA), room)
    readers = [in_thread(lambda it=it: at.object.read(it * MIB, 4 * MIB, 8 * MIB)) for it in range(8)]  # type: ignore[misc]
    assert [it.result() for it in readers] == [DATA[it * MIB : (it + 4) * MIB] for it in range(8)]
    assert at.object.fetch_all()
    part = at.object.close()
    at.settle()
    assert room.counted == len(DATA), "what is given up does not count"
    assert part is not None
    assert part is not first
    assert part.path is None
    assert not (tmp_path / "part").exists(), "what is of no use leaves the disk"
    assert [crc for _, crc in room.completed_parts] == [extend_crc32c(0, DATA)]


def test_memory_that_runs_out_as_well_fails_the_read_and_is_not_tried_for_ever(tmp_path: Path) -> None:
    room = FakeRoom(len(DATA))
    room.relief = False
    room.part = FailingPart(tmp_path / "part", len(DATA), 0)
    room.in_memory = lambda size: FailingPart(tmp_path / "memory", size, 0)  # type: ignore[method-assign,assignment]
    at = world(source_of(DATA), room)
    with pytest.raises(LocalFailure):
        at.object.read(0, MIB, 0)
    assert at.object.close() is not None


def test_a_file_that_somebody_cuts_is_fetched_again(tmp_path: Path) -> None:
    room = FakeRoom(len(DATA))
    room.part = FailingPart(tmp_path / "part", len(DATA), 100 * MIB)
    at = world(source_of(DATA), room)
    at.object.read(0, 2 * MIB, 0)
    os.truncate(tmp_path / "part", MIB)
    assert at.object.read_now(MIB, memoryview(bytearray(4096))) is None
    assert at.object.read(0, 2 * MIB, 0) == DATA[: 2 * MIB]
    assert at.counter("cache_dropped") == 1


# --- the end ---------------------------------------------------------------------------------------------------------


def test_closing_waits_for_what_is_on_its_way_and_drops_what_has_not_begun() -> None:
    source = source_of(DATA)
    gate = source.before = Gate(at=lambda request, at: request.background and at == request.start)
    at = world(source, workers=1)
    at.object.read(0, 128 * KIB, 16 * MIB)
    gate.wait()
    at.object.rest()
    closing = in_thread(at.object.close)
    assert not closing.is_done
    gate.open.set()
    part = closing.result()
    at.settle()
    assert isinstance(part, Part)
    assert sum(it.background for it in source.requests) == 1
    assert part.read(0, 128 * KIB) == DATA[: 128 * KIB], "the file is open for who has it now"
    assert sum(end - start for start, (end, _) in part.pieces.items()) == part.extents.total


def test_closing_leaves_no_part_to_others_while_it_is_being_kept() -> None:
    data = content(2 * MIB)
    at = world(source_of(data))
    keeping, go_on = threading.Event(), threading.Event()

    def keep() -> None:
        keeping.set()
        assert go_on.wait(20)

    at.room.completing = keep
    at.object.read(0, len(data), 0)
    assert keeping.wait(20)
    closing = in_thread(at.object.close)
    assert not closing.is_done
    go_on.set()
    assert closing.result() is at.room.part
    assert len(at.room.completed_parts) == 1


def test_closing_keeps_the_whole_where_no_worker_came_to_that() -> None:
    data = content(2 * MIB)
    at = world(source_of(data))
    at.settle()  # the mount ends
    at.object.read(0, len(data), 0)
    at.object.close()
    assert len(at.room.completed_parts) == 1


def test_what_was_never_read_has_no_part() -> None:
    at = world(source_of(DATA))
    assert at.object.close() is None
    assert info_of(DATA).size == len(DATA)
