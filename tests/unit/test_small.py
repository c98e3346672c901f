"""Small objects: fetched whole and once, proven, and kept."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.object_world import MIB, FakeSource, Gate, Request, content, in_thread, source_of

from octuefs.content.blockcache import BlockCache
from octuefs.content.small import SmallObjects
from octuefs.errors import ChecksumMismatch, Conflict, StoreUnavailable
from octuefs.stores.traffic import Traffic


@pytest.fixture
def traffic() -> Traffic:
    return Traffic()


@pytest.fixture
def cache(tmp_path: Path, traffic: Traffic) -> Iterator[BlockCache]:
    it = BlockCache(tmp_path, traffic)
    it.bound(100 * MIB)
    yield it
    it.close()


def get(small: SmallObjects, source: FakeSource) -> bytes:
    return small.get(source.key or "", source, source.facts)


def test_an_object_is_fetched_once_by_one_request(traffic: Traffic) -> None:
    small, source = SmallObjects(None, traffic, MIB), source_of(content(5000))
    assert get(small, source) == get(small, source) == source.data
    assert source.requests == [Request(0, 5000, background=False)]
    assert small.held(source.key or "") == source.data
    assert small.total_bytes == 5000


def test_many_who_want_it_at_the_same_time_have_it_by_one_request(traffic: Traffic) -> None:
    small, source = SmallObjects(None, traffic, MIB), source_of(content(5000))
    gate = source.before = Gate()
    readers = [in_thread(lambda: get(small, source)) for _ in range(8)]
    gate.wait()
    gate.open.set()
    assert all(it.result() == source.data for it in readers)
    assert len(source.requests) == 1


def test_what_is_kept_on_the_disk_is_not_fetched_by_the_next_mount(traffic: Traffic, cache: BlockCache) -> None:
    source = source_of(content(5000))
    get(SmallObjects(cache, traffic, MIB), source)
    cache.settle()
    assert get(SmallObjects(cache, traffic, MIB), source) == source.data
    assert len(source.requests) == 1
    assert traffic.figures()["cache_hit_bytes"] == 5000
    assert traffic.figures()["cache_misses"] == 1


def test_memory_holds_what_was_used_last_within_its_bounds(traffic: Traffic) -> None:
    small = SmallObjects(None, traffic, 12_000)
    a, b, c = (source_of(content(5000, seed), f"{seed}") for seed in range(3))
    get(small, a)
    get(small, b)
    get(small, a)
    get(small, c)
    assert small.total_bytes <= 12_000
    assert [small.held(it.key or "") is not None for it in (a, b, c)] == [True, False, True]


def test_an_object_that_memory_cannot_hold_is_read_all_the_same(traffic: Traffic) -> None:
    small, source = SmallObjects(None, traffic, 100), source_of(content(5000))
    assert get(small, source) == source.data
    assert small.total_bytes == 0


def test_bytes_that_are_not_the_promised_ones_are_neither_served_nor_kept(traffic: Traffic, cache: BlockCache) -> None:
    small, source = SmallObjects(cache, traffic, MIB), source_of(content(5000), crc32c=5)
    with pytest.raises(ChecksumMismatch):
        get(small, source)
    cache.settle()
    assert small.held(source.key or "") is None
    assert not cache.has(source.key or "")


def test_all_who_wait_are_told_of_a_failure_and_the_next_one_asks_again(traffic: Traffic) -> None:
    small, source = SmallObjects(None, traffic, MIB), source_of(content(5000))
    gate = source.before = Gate()
    readers = [in_thread(lambda: get(small, source)) for _ in range(3)]
    gate.wait()
    gate.fail(Conflict("replaced"))
    for reader in readers:
        with pytest.raises(Conflict):
            reader.result()
    source.before = lambda request, at: None
    assert get(small, source) == source.data


def test_who_waits_for_what_is_fetched_ahead_does_not_fail_with_it(traffic: Traffic) -> None:
    small, source = SmallObjects(None, traffic, MIB), source_of(content(5000))
    gate = source.before = Gate(at=lambda request, at: request.background)
    ahead = in_thread(lambda: small.fetch_ahead(source.key or "", source, source.facts))
    gate.wait()
    reader = in_thread(lambda: get(small, source))
    assert not reader.is_done
    gate.fail(StoreUnavailable("not now"))
    with pytest.raises(StoreUnavailable):
        ahead.result()
    assert reader.result() == source.data


def test_an_error_that_is_none_of_ours_leaves_nobody_waiting(traffic: Traffic) -> None:
    small, source = SmallObjects(None, traffic, MIB), source_of(content(5000))
    reached, go_on = threading.Event(), threading.Event()

    def fail(request: Request, at: int) -> None:
        reached.set()
        assert go_on.wait(20)
        raise MemoryError

    source.before = fail
    first = in_thread(lambda: get(small, source))
    assert reached.wait(20)
    second = in_thread(lambda: get(small, source))
    go_on.set()
    with pytest.raises(MemoryError):
        first.result()
    with pytest.raises((StoreUnavailable, MemoryError)):
        second.result()


def test_what_is_here_or_on_its_way_is_not_fetched_ahead(traffic: Traffic) -> None:
    small, source = SmallObjects(None, traffic, MIB), source_of(content(5000))
    gate = source.before = Gate()
    reader = in_thread(lambda: get(small, source))
    gate.wait()
    assert not small.fetch_ahead(source.key or "", source, source.facts)
    gate.open.set()
    reader.result()
    assert not small.fetch_ahead(source.key or "", source, source.facts)
    assert len(source.requests) == 1


def test_fetching_ahead_leaves_its_place_to_others(traffic: Traffic) -> None:
    small, source = SmallObjects(None, traffic, MIB), source_of(content(5000))
    assert small.fetch_ahead(source.key or "", source, source.facts)
    assert source.requests == [Request(0, 5000, background=True)]
    assert get(small, source) == source.data
