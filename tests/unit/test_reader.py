"""SequentialReader over a source that counts what it is asked for."""

import random
import threading
from collections.abc import Hashable

import pytest

from octuefs.content.reader import FIRST_PIECE_BYTES, LARGEST_PIECE_BYTES, WHOLE_BYTES, SequentialReader
from octuefs.errors import ChecksumMismatch, Conflict, StoreUnavailable
from octuefs.model.hashes import extend_crc32c
from octuefs.stores.base import Kind, ObjectInfo

BLOCK = 128 << 10
"""What the kernel asks for at once."""


class Source:
    """Bytes in memory; notes each fetch, and may hold it up, falsify it or fail."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.fetches: list[tuple[int, int]] = []
        self.error: Exception | None = None
        self.gate: threading.Event | None = None
        self.began = threading.Event()
        self.closed = False

    def read(self, offset: int, size: int) -> bytes:
        self.fetches.append((offset, size))
        self.began.set()
        if self.gate is not None:
            assert self.gate.wait(10)
        if self.error is not None:
            raise self.error
        return self.data[offset : offset + size]

    def version(self) -> Hashable:
        return 7

    def close(self) -> None:
        self.closed = True


def info_of(data: bytes) -> ObjectInfo:
    return ObjectInfo(
        path="a.bin",
        kind=Kind.FILE,
        size=len(data),
        mtime_ns=0,
        ctime_ns=0,
        mode=0o100644,
        uid=0,
        gid=0,
        inode=1,
        links=1,
        version=7,
        crc32c=extend_crc32c(0, data),
    )


def reader_over(data: bytes, gone: list[bool] | None = None) -> tuple[SequentialReader, Source]:
    source = Source(data)
    return SequentialReader(source, info_of(data), lambda: (gone if gone is not None else []).append(True)), source


SMALL = random.Random(1).randbytes(300_000)
LARGE = random.Random(2).randbytes(5 * WHOLE_BYTES + 12_345)


def test_a_small_object_is_fetched_once_however_it_is_read() -> None:
    reader, source = reader_over(SMALL)
    assert reader.read(250_000, 10) == SMALL[250_000:250_010]
    assert reader.read(0, 1) == SMALL[:1]
    assert b"".join(reader.read(offset, 7_000) for offset in range(0, len(SMALL), 7_000)) == SMALL
    assert source.fetches == [(0, len(SMALL))]


def test_reads_at_and_beyond_the_end_are_short_or_empty_and_fetch_nothing_more() -> None:
    reader, source = reader_over(SMALL)
    assert reader.read(len(SMALL) - 5, 100) == SMALL[-5:]
    assert reader.read(len(SMALL), 100) == b""
    assert reader.read(len(SMALL) + 1_000_000, 100) == b""
    assert reader.read(3, 0) == b""
    assert len(source.fetches) == 1


def test_an_empty_object_is_read_without_a_fetch() -> None:
    reader, source = reader_over(b"")
    assert reader.read(0, 100) == b""
    assert source.fetches == []


def test_reading_in_order_fetches_pieces_that_grow_to_a_limit_and_never_overlap() -> None:
    data = bytes(40 << 20)
    reader, source = reader_over(data)
    assert sum(len(reader.read(offset, BLOCK)) for offset in range(0, len(data), BLOCK)) == len(data)
    sizes = [size for _, size in source.fetches]
    assert sizes[:3] == [FIRST_PIECE_BYTES, 2 * FIRST_PIECE_BYTES, 4 * FIRST_PIECE_BYTES]
    assert max(sizes) == LARGEST_PIECE_BYTES
    assert sum(sizes) == len(data)
    assert [offset for offset, _ in source.fetches] == [sum(sizes[:number]) for number in range(len(sizes))]


def test_reading_at_random_places_fetches_no_more_than_was_asked_for() -> None:
    reader, source = reader_over(LARGE)
    # Each starts outside of what the one before it covered.
    asked = [(1 + (number * 7 % 20) * 2 * BLOCK, 1_000 + 999 * number) for number in range(20)]
    for offset, size in asked:
        assert reader.read(offset, size) == LARGE[offset : offset + size]
    assert all(size <= BLOCK for _, size in source.fetches)


def test_a_read_across_two_pieces_is_put_together() -> None:
    reader, _ = reader_over(LARGE)
    reader.read(0, BLOCK)
    start = FIRST_PIECE_BYTES - 100
    assert reader.read(start, 1_000) == LARGE[start : start + 1_000]


def test_parallel_readers_of_the_same_piece_share_one_fetch() -> None:
    reader, source = reader_over(LARGE)
    source.gate = threading.Event()
    results: dict[int, bytes] = {}

    def read(number: int) -> None:
        results[number] = reader.read(number * 1000, 1000)

    first = threading.Thread(target=read, args=(0,))
    first.start()
    assert source.began.wait(10)
    others = [threading.Thread(target=read, args=(number,)) for number in range(1, 8)]
    for thread in others:
        thread.start()
    source.gate.set()
    for thread in (first, *others):
        thread.join(10)
    assert results == {number: LARGE[number * 1000 : number * 1000 + 1000] for number in range(8)}
    assert source.fetches == [(0, FIRST_PIECE_BYTES)]


def test_many_threads_that_read_everywhere_at_once_each_get_their_own_bytes() -> None:
    reader, _ = reader_over(LARGE)
    wrong: list[tuple[int, int]] = []

    def read(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(100):
            offset, size = chance.randrange(len(LARGE)), chance.randrange(1, BLOCK)
            if reader.read(offset, size) != LARGE[offset : offset + size]:
                wrong.append((offset, size))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


def test_bytes_of_a_small_object_with_a_wrong_checksum_are_refused() -> None:
    reader, source = reader_over(SMALL)
    source.data = SMALL[:-1] + bytes([SMALL[-1] ^ 1])
    with pytest.raises(ChecksumMismatch, match=r"a\.bin"):
        reader.read(0, 10)


def test_a_failure_reaches_all_who_wait_and_is_not_remembered() -> None:
    reader, source = reader_over(SMALL)
    source.gate = threading.Event()
    source.error = StoreUnavailable("no")
    failures: list[Exception] = []

    def read() -> None:
        try:
            reader.read(0, 10)
        except StoreUnavailable as error:
            failures.append(error)

    first = threading.Thread(target=read)
    first.start()
    assert source.began.wait(10)
    second = threading.Thread(target=read)
    second.start()
    source.gate.set()
    first.join(10)
    second.join(10)
    assert len(failures) == 2
    source.error = None
    assert reader.read(0, 10) == SMALL[:10]


def test_a_version_that_is_gone_is_told_to_the_dataset() -> None:
    gone: list[bool] = []
    reader, source = reader_over(LARGE, gone)
    assert reader.read(0, 10) == LARGE[:10]
    assert gone == []
    source.error = Conflict("replaced")
    with pytest.raises(Conflict):
        reader.read(2 * WHOLE_BYTES, 10)
    assert gone == [True]


def test_any_other_failure_is_not_taken_for_a_version_that_is_gone() -> None:
    gone: list[bool] = []
    reader, source = reader_over(LARGE, gone)
    source.error = StoreUnavailable("no")
    with pytest.raises(StoreUnavailable):
        reader.read(0, 10)
    assert gone == []


def test_nothing_of_a_large_object_stays_in_memory_once_it_was_read_to_its_end() -> None:
    reader, source = reader_over(LARGE)
    blocks = list(range(0, len(LARGE), BLOCK))
    blocks[-2:] = reversed(blocks[-2:])  # as the kernel may ask for them
    for offset in blocks:
        assert reader.read(offset, BLOCK) == LARGE[offset : offset + BLOCK]
    assert sum(size for _, size in source.fetches) == len(LARGE)
    assert reader._piece.stop == 0
    assert reader.read(len(LARGE) - 100, 1_000) == LARGE[-100:]
    assert source.fetches[-1] == (len(LARGE) - 100, 100)


def test_the_version_is_that_of_the_source_and_closing_closes_it() -> None:
    reader, source = reader_over(SMALL)
    assert reader.version() == 7
    reader.close()
    assert source.closed
