"""Reading the objects of cloud stores: what is shared by handles, what lasts, and what fails."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from unit.object_world import KIB, MIB, FakeSource, Gate, Request, content, in_thread, info_of, source_of

from octuefs.content.blockcache import BlockCache
from octuefs.content.readers import CachedFile, ObjectReader, SmallReader
from octuefs.content.reading import Reading
from octuefs.errors import Conflict
from octuefs.stores.base import ByteSource, as_disk, as_ready
from octuefs.stores.traffic import Traffic

Readings = Callable[..., Reading]


@pytest.fixture
def readings(tmp_path: Path) -> Iterator[Readings]:
    """`readings(cached=True)` is what a mount reads with; several share one cache folder."""
    opened = []

    def open_one(*, cached: bool = True, memory_limit: int = 64 * MIB) -> Reading:
        traffic = Traffic()
        cache = None
        if cached:
            cache = BlockCache(tmp_path, traffic)
            cache.bound(200 * MIB)
        opened.append(Reading(cache, traffic, read_ahead=8 * MIB, memory_limit=memory_limit))
        return opened[-1]

    yield open_one
    for it in opened:
        it.close()


class Gone:
    """Counts how often it is said that an object has gone."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def read_all(reader: ByteSource, size: int) -> bytes:
    return b"".join(reader.read(at, 128 * KIB) for at in range(0, size, 128 * KIB))


def refuse(request: Request, at: int) -> None:
    raise Conflict("replaced")


def test_opening_asks_for_nothing(readings: Readings) -> None:
    reading = readings()
    for size in (0, 5000, 4 * MIB):
        source = source_of(content(size))
        reading.open(source, Gone()).close()
        assert source.requests == []
        assert source.closed == 1


def test_what_is_no_object_of_a_cloud_store_is_read_as_it_is(readings: Readings) -> None:
    empty = source_of(b"")
    assert readings().open(empty, Gone()) is empty


def test_a_large_object_is_read_in_order_and_is_a_plain_file_then(readings: Readings) -> None:
    reading, source = readings(), source_of(content(6 * MIB))
    reader = reading.open(source, Gone())
    assert isinstance(reader, ObjectReader)
    assert read_all(reader, 6 * MIB) == source.data
    reader.close()
    reader.close()
    assert source.closed == 1
    assert source.served_bytes == 6 * MIB
    assert sum(it.background for it in source.requests) <= 14
    reading.close()
    again = readings().open(source, Gone())
    assert isinstance(again, CachedFile)
    assert as_disk(again) is not None
    assert again.read(MIB, 100) == source.data[MIB : MIB + 100]
    assert again.info() == source.facts
    again.close()


def test_what_was_read_of_an_object_lasts_over_the_mount(readings: Readings) -> None:
    source = source_of(content(6 * MIB))
    reading = readings()
    reader = reading.open(source, Gone())
    reader.read(2 * MIB, 100 * KIB)
    reader.close()
    reading.close()
    served = source.served_bytes
    reader = readings().open(source, Gone())
    assert reader.read(2 * MIB, 100 * KIB) == source.data[2 * MIB : 2 * MIB + 100 * KIB]
    assert source.served_bytes == served
    reader.close()


def test_an_object_that_is_reopened_at_once_has_what_was_fetched(readings: Readings) -> None:
    for cached in (True, False):
        reading, source = readings(cached=cached), source_of(content(6 * MIB))
        readers = [reading.open(source, Gone()) for _ in range(3)]
        readers[0].read(0, MIB)
        readers[0].close()
        assert readers[1].read(0, MIB) == source.data[:MIB]
        readers[1].close()
        readers[2].close()
        assert source.served_bytes == MIB
        if cached:
            again = reading.open(source, Gone())
            assert again.read(0, MIB) == source.data[:MIB]
            again.close()
            assert source.served_bytes == MIB


def test_many_objects_that_come_and_go_are_each_kept_and_read_right(readings: Readings) -> None:
    reading = readings()
    sources = [source_of(content(MIB + 5000, seed), f"{seed}") for seed in range(40)]
    for source in sources + sources[:8]:
        reader = reading.open(source, Gone())
        assert reader.read(MIB, 5000) == source.data[MIB:]
        reader.close()
    reading.close()
    reading = readings()
    for source in sources:
        reader = reading.open(source, Gone())
        assert reader.read(MIB, 5000) == source.data[MIB:]
        reader.close()
        assert source.served_bytes <= 8 * KIB


def test_handles_that_are_closed_after_the_mount_ended_hurt_nobody(readings: Readings) -> None:
    for cached in (True, False):
        reading, source = readings(cached=cached), source_of(content(2 * MIB))
        reader = reading.open(source, Gone())
        reader.read(0, 4096)
        reading.close()
        reader.close()
        assert source.closed == 1


def test_each_open_handle_tells_its_streams_apart(readings: Readings) -> None:
    reading, source = readings(), source_of(content(16 * MIB))
    ordered, single = reading.open(source, Gone()), reading.open(source, Gone())
    single.read(12 * MIB, 4096)
    for offset in range(0, MIB, 128 * KIB):
        assert ordered.read(offset, 128 * KIB) == source.data[offset : offset + 128 * KIB]
    assert single.read(14 * MIB, 4096) == source.data[14 * MIB : 14 * MIB + 4096]
    assert Request(12 * MIB, 12 * MIB + 4096, background=False) in source.requests
    assert Request(14 * MIB, 14 * MIB + 4096, background=False) in source.requests
    assert any(it.background for it in source.requests)
    ordered.close()
    single.close()


def test_a_small_object_comes_whole_with_its_first_read(readings: Readings) -> None:
    reading, source = readings(), source_of(content(5000))
    reader = reading.open(source, Gone())
    assert isinstance(reader, SmallReader)
    ready = as_ready(reader)
    assert ready is not None
    room = memoryview(bytearray(10_000))
    assert ready.read_now(0, room) is None
    assert reader.read(4990, 100) == source.data[4990:]
    assert ready.read_now(0, room) == 5000
    assert bytes(room[:5000]) == source.data
    assert reader.read(6000, 10) == b""
    assert len(source.requests) == 1
    reader.close()


@pytest.mark.parametrize("size", [5000, 4 * MIB])
def test_an_object_that_has_gone_is_told_before_the_read_fails(readings: Readings, size: int) -> None:
    reading, source, gone = readings(), source_of(content(size)), Gone()
    source.before = refuse
    reader = reading.open(source, gone)
    with pytest.raises(Conflict):
        reader.read(0, 4096)
    assert gone.times == 1
    reader.close()


def test_what_is_at_hand_of_an_object_that_has_gone_is_read_on(readings: Readings) -> None:
    reading, source, gone = readings(), source_of(content(4 * MIB)), Gone()
    reader = reading.open(source, gone)
    reader.read(0, 64 * KIB)
    source.before = refuse
    with pytest.raises(Conflict):
        reader.read(2 * MIB, 4096)
    assert reader.read(0, 64 * KIB) == source.data[: 64 * KIB]
    reader.close()


@pytest.mark.parametrize("size", [5000, 2 * MIB])
def test_objects_whose_version_nobody_knows_are_never_taken_for_one_another(readings: Readings, size: int) -> None:
    reading = readings()
    for seed in range(20):
        data = content(size, seed)
        source = FakeSource(data, info_of(data, crc32c=None))
        reader = reading.open(source, Gone())
        assert reader.read(0, size) == data
        reader.close()
        del source, reader
    assert reading.cache is not None
    reading.cache.settle()
    assert not list(reading.cache.folder.glob("objects/*/*"))


def test_without_a_disk_many_objects_share_what_memory_there_is(readings: Readings) -> None:
    reading = readings(cached=False, memory_limit=32 * MIB)
    sources = [source_of(content(12 * MIB, seed), f"{seed}") for seed in range(4)]
    readers = [reading.open(it, Gone()) for it in sources]
    for offset in range(0, 12 * MIB, MIB):
        for reader, source in zip(readers, sources, strict=True):
            assert reader.read(offset, MIB) == source.data[offset : offset + MIB]
    held = 0
    for reader in readers:
        assert isinstance(reader, ObjectReader)
        part = reader._object.close()
        assert part is not None
        held += part.extents.total
        part.close()
    assert held <= 32 * MIB // 4 + 4 * MIB


# --- on purpose ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5000, 4 * MIB])
def test_what_is_fetched_on_purpose_is_on_the_disk_and_can_be_pinned(readings: Readings, size: int) -> None:
    reading, source = readings(), source_of(content(size))
    key = reading.fetch(source)
    assert key == source.key
    assert reading.cache is not None
    reading.pin([key or ""], pinned=True)
    assert reading.cache.has(key or "")
    assert reading.cache.room_for_pinned == 200 * MIB - size
    asked = len(source.requests)
    assert reading.fetch(source) == key
    assert not reading.fetch_ahead(source)
    assert len(source.requests) == asked


def test_without_a_disk_nothing_is_fetched_on_purpose(readings: Readings) -> None:
    source = source_of(content(5000))
    assert readings(cached=False).fetch(source) is None
    assert source.requests == []


@pytest.mark.parametrize("size", [5000, 4 * MIB])
def test_what_is_fetched_ahead_is_not_fetched_again_when_it_is_opened(readings: Readings, size: int) -> None:
    reading, source = readings(), source_of(content(size))
    assert reading.fetch_ahead(source)
    assert reading.traffic.figures()["prefetch_bytes"] == size
    reader = reading.open(source, Gone())
    assert read_all(reader, size) == source.data
    reader.close()
    assert source.served_bytes == size
    assert reading.traffic.figures()["prefetch_used_bytes"] == size


def test_who_reads_while_it_is_fetched_ahead_fetches_nothing_twice(readings: Readings) -> None:
    reading, source = readings(), source_of(content(4 * MIB))
    gate = source.before = Gate(at=lambda request, at: at == request.start)
    ahead = in_thread(lambda: reading.fetch_ahead(source))
    gate.wait()
    reader = reading.open(source, Gone())
    reads = in_thread(lambda: read_all(reader, 4 * MIB))
    gate.open.set()
    assert reads.result() == source.data
    assert ahead.result() is True
    reader.close()
    assert source.served_bytes == 4 * MIB
