"""The cache on a disk: what it keeps, what it drops, and what it does where there is no room."""

import errno
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from unit.object_world import KIB, MIB, FakeSource, World, content, in_thread, source_of, world

from octuefs.content import blockcache, cachefolder, catalog
from octuefs.content.blockcache import BlockCache
from octuefs.content.objects import CloudObject
from octuefs.content.parts import Part
from octuefs.content.rooms import DiskRoom
from octuefs.errors import LocalFailure, OctuefsError
from octuefs.model.hashes import extend_crc32c
from octuefs.stores.descriptor import Descriptor
from octuefs.stores.traffic import Traffic

DATA = content(4 * MIB)
Caches = Callable[..., BlockCache]


@pytest.fixture
def caches(tmp_path: Path) -> Iterator[Caches]:
    """`caches(limit)` opens the cache folder, as one mount after the other does, or several at the same time."""
    opened = []

    def open_one(limit: int = 100 * MIB) -> BlockCache:
        folder = tmp_path / "cache"
        folder.mkdir(mode=0o700, exist_ok=True)
        opened.append(BlockCache(folder, Traffic()))
        opened[-1].bound(limit)
        opened[-1].settle()
        return opened[-1]

    yield open_one
    for it in opened:
        it.close()


def dropped(cache: BlockCache) -> int:
    value: int = cache._traffic.figures()["cache_dropped"]
    return value


def read_through(cache: BlockCache, source: FakeSource) -> World:
    """The object of a source, kept in a cache."""
    at = world(source)
    room = DiskRoom(cache, source.key or "", source.facts, lambda: 8 * MIB)
    at.object = CloudObject(source, source.facts, room=room, workers=at.workers, traffic=cache._traffic)
    return at


def fetch(cache: BlockCache, source: FakeSource) -> None:
    """Have the whole in the cache."""
    at = read_through(cache, source)
    assert at.object.fetch_all()
    end(cache, source, at)


def end(cache: BlockCache, source: FakeSource, at: World) -> None:
    """Close an object as the last of its readers does."""
    at.object.rest()
    at.settle()
    part = at.object.close()
    if part is not None:
        cache.keep(source.key or "", part)


def read_all(file: Descriptor | None, size: int = 8 * MIB) -> bytes | None:
    if file is None:
        return None
    try:
        return file.read(0, size)
    finally:
        file.close()


def file_of(cache: BlockCache, source: FakeSource) -> Path:
    key = source.key or ""
    return cache.folder / "objects" / key[:2] / key


def another_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (catalog, blockcache):
        monkeypatch.setattr(module, "boot_id", lambda: "another boot")


# --- from one mount to the next --------------------------------------------------------------------------------------


def test_a_whole_object_is_a_plain_file_for_the_next_mount(caches: Caches) -> None:
    source = source_of(DATA)
    first = caches()
    fetch(first, source)
    first.close()
    second = caches()
    assert second.has(source.key or "")
    assert read_all(second.whole(source.key or "", source.facts)) == DATA
    assert second.total_bytes == len(DATA)
    assert second.objects == 1
    assert os.stat(file_of(second, source)).st_mode & 0o077 == 0


def test_what_was_read_of_an_object_is_there_for_the_next_mount(caches: Caches) -> None:
    source = source_of(DATA)
    first = caches()
    at = read_through(first, source)
    at.object.read(MIB, MIB, 0)
    end(first, source, at)
    first.close()
    second = caches()
    assert second.total_bytes == MIB
    assert second.whole(source.key or "", source.facts) is None
    at = read_through(second, source)
    assert at.object.read(0, 3 * MIB, 0) == DATA[: 3 * MIB]
    end(second, source, at)
    assert source.served_bytes == 3 * MIB
    assert second.total_bytes == 3 * MIB


def test_pieces_of_two_mounts_make_a_whole_object(caches: Caches) -> None:
    source = source_of(DATA)
    for start in (0, 2 * MIB):
        cache = caches()
        at = read_through(cache, source)
        at.object.read(start, 2 * MIB, 0)
        end(cache, source, at)
        cache.close()
    cache = caches()
    at = read_through(cache, source)
    assert at.object.read(0, len(DATA), None) == DATA
    end(cache, source, at)
    assert read_all(cache.whole(source.key or "", source.facts)) == DATA
    assert source.served_bytes == len(DATA)


def test_a_small_object_is_kept_soon_and_found_by_the_next_mount(caches: Caches) -> None:
    data = content(5000)
    source = source_of(data)
    first = caches()
    first.store(source.key or "", data, extend_crc32c(0, data))
    first.settle()
    assert first.small(source.key or "", source.facts) == data
    first.close()
    second = caches()
    assert second.small(source.key or "", source.facts) == data
    assert second.total_bytes == 5000


def test_a_small_object_that_comes_again_while_it_waits_counts_once(caches: Caches) -> None:
    cache = caches()
    hold = threading.Event()
    cache._thread.submit(hold.wait)
    for _ in range(3):
        cache.store("a" * 64, bytes(1000), 1)
    hold.set()
    cache.settle()
    assert cache._waiting_bytes == 0
    assert cache.objects == 1


def test_another_generation_is_another_object(caches: Caches) -> None:
    cache = caches()
    fetch(cache, source_of(DATA))
    other = source_of(content(len(DATA), seed=2))
    assert cache.whole(other.key or "", other.facts) is None


def test_after_a_boot_a_whole_object_is_proven_once_more_and_then_believed(
    caches: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(DATA)
    first = caches()
    fetch(first, source)
    first.close()
    another_boot(monkeypatch)
    second = caches()
    assert second.whole(source.key or "", source.facts) is None
    part = second.part(source.key or "", source.facts)
    assert part.is_complete
    assert part.read(0, len(DATA)) == DATA
    second.settle()
    second.keep(source.key or "", part)
    assert read_all(second.whole(source.key or "", source.facts)) == DATA
    assert second.total_bytes == len(DATA), "and counts once"
    assert second.objects == 1


@pytest.mark.parametrize("crc32c", [-1, None])
def test_without_a_catalog_a_whole_object_is_believed_if_the_store_knows_its_checksum(
    caches: Caches, expected_logs: Callable[[str], None], crc32c: int | None
) -> None:
    source = source_of(DATA, crc32c=crc32c)
    first = caches()
    fetch(first, source)
    first.close()
    (first.folder / "catalog.sqlite").unlink()
    second = caches()
    part = second.part(source.key or "", source.facts)
    assert part.is_complete == (crc32c is not None)
    if crc32c is None:
        expected_logs("is damaged; it is fetched again")
    second.keep(source.key or "", part)


# --- damage ----------------------------------------------------------------------------------------------------------


def flip(file: Path) -> None:
    with file.open("r+b") as it:
        it.seek(file.stat().st_size // 2)
        byte = it.read(1)
        it.seek(-1, 1)
        it.write(bytes([byte[0] ^ 1]))


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def lengthen(file: Path) -> None:
    os.truncate(file, file.stat().st_size + 10)


@pytest.mark.parametrize("damage", [flip, cut, lengthen])
@pytest.mark.parametrize("boots", [False, True])
@pytest.mark.expected_logs("is damaged; it is fetched again")
def test_a_damaged_whole_file_is_dropped_counted_and_never_served(
    caches: Caches, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None], boots: bool
) -> None:
    source = source_of(DATA)
    cache = caches()
    fetch(cache, source)
    damage(file_of(cache, source))
    if boots:
        another_boot(monkeypatch)
    assert cache.whole(source.key or "", source.facts) is None
    at = read_through(cache, source)
    assert at.object.read(0, len(DATA), 0) == DATA
    end(cache, source, at)
    assert dropped(cache) == 1
    assert source.served_bytes == 2 * len(DATA)
    assert read_all(cache.whole(source.key or "", source.facts)) == DATA


@pytest.mark.parametrize("damage", [flip, cut, lengthen])
@pytest.mark.expected_logs("is damaged; it is fetched again")
def test_a_damaged_small_file_is_dropped_counted_and_never_served(
    caches: Caches, damage: Callable[[Path], None]
) -> None:
    data = content(5000)
    source = source_of(data)
    cache = caches()
    cache.store(source.key or "", data, extend_crc32c(0, data))
    cache.settle()
    damage(file_of(cache, source))
    assert cache.small(source.key or "", source.facts) is None
    assert dropped(cache) == 1
    assert not cache.has(source.key or "")
    assert cache.total_bytes == 0


@pytest.mark.parametrize("damage", [flip, cut])
@pytest.mark.expected_logs("is damaged; it is fetched again")
def test_a_damaged_part_is_fetched_again_where_it_is_damaged(caches: Caches, damage: Callable[[Path], None]) -> None:
    source = source_of(DATA)
    cache = caches()
    at = read_through(cache, source)
    for start in (0, MIB, 2 * MIB):
        at.object.read(start, MIB, 0)
    end(cache, source, at)
    damage(cache.folder / "parts" / (source.key or ""))
    at = read_through(cache, source)
    assert at.object.read(0, 3 * MIB, 0) == DATA[: 3 * MIB]
    end(cache, source, at)
    assert dropped(cache) in (1, 2)
    assert source.served_bytes == (3 + dropped(cache)) * MIB
    assert cache.total_bytes == 3 * MIB


@pytest.mark.parametrize(
    "content_of_map",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"size": 4194304, "pieces": 5}',
        b'{"size": 4194304, "pieces": [[0, 10]]}',
        b'{"size": 4194304, "pieces": [[0, "x", 1]]}',
        b'{"size": 4194304, "pieces": [[-5, 10, 1]]}',
        b'{"size": 4194304, "pieces": [[10, 10, 1]]}',
        b'{"size": 4194304, "pieces": [[0, 10, 1], [5, 20, 1]]}',
        b'{"size": 4194304, "pieces": [[0, 4194305, 1]]}',
        b'{"size": 7, "pieces": [[0, 5, 1]]}',
        b'{"size": 4194304, "pieces": [[0, 10, 1]',
    ],
)
def test_a_map_that_makes_no_sense_tells_nothing(caches: Caches, content_of_map: bytes) -> None:
    source = source_of(DATA)
    cache = caches()
    at = read_through(cache, source)
    at.object.read(0, MIB, 0)
    end(cache, source, at)
    path = cache.folder / "parts" / f"{source.key}.map"
    assert json.loads(path.read_text())["pieces"] == [[0, MIB, extend_crc32c(0, DATA[:MIB])]]
    path.write_bytes(content_of_map)
    at = read_through(cache, source)
    assert at.object.read(0, MIB, 0) == DATA[:MIB]
    end(cache, source, at)
    assert source.served_bytes == 2 * MIB
    assert cache.total_bytes == MIB


@pytest.mark.parametrize("damage", [cut, flip, lambda path: path.write_bytes(b"nothing of the kind" * 999)])
def test_a_damaged_catalog_is_made_anew_and_what_can_be_proven_stays(
    caches: Caches, damage: Callable[[Path], None]
) -> None:
    sources = [source_of(content(1000 + number), f"{number}.dat") for number in range(150)]
    first = caches()
    for source in sources:
        first.store(source.key or "", source.data, source.facts.crc32c or 0)
    first.close()
    path = first.folder / "catalog.sqlite"
    assert not Path(f"{path}-wal").exists()
    damage(path)
    second = caches()
    assert [second.small(it.key or "", it.facts) for it in sources] == [it.data for it in sources]
    fetch(second, source_of(DATA))
    assert second.has(source_of(DATA).key or "")


def test_a_folder_that_cannot_be_used_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(OctuefsError, match="cache"):
        BlockCache(tmp_path / "cache", Traffic())


@pytest.mark.expected_logs("cannot be kept in the cache|does not keep all")
def test_a_folder_that_goes_away_fails_no_read(caches: Caches, tmp_path: Path) -> None:
    source = source_of(DATA)
    cache = caches()
    cache.settle()
    shutil.rmtree(tmp_path / "cache")
    at = read_through(cache, source)
    assert at.object.read(0, len(DATA), 0) == DATA
    end(cache, source, at)
    cache.store("a" * 64, b"abc", 1)
    cache.settle()
    (tmp_path / "cache" / "parts").mkdir(parents=True)


# --- two mounts at the same time -------------------------------------------------------------------------------------


def test_two_mounts_read_one_object_and_only_one_of_them_keeps_it(caches: Caches) -> None:
    one, other = caches(), caches()
    source, same = source_of(DATA), source_of(DATA)
    first, second = read_through(one, source), read_through(other, same)
    first.object.read(0, MIB, 0)
    second.object.read(0, MIB, 0)
    reads = [in_thread(lambda at=at: at.object.read(0, len(DATA), 0)) for at in (first, second)]  # type: ignore[misc]
    assert [it.result() for it in reads] == [DATA, DATA]
    end(other, same, second)
    end(one, source, first)
    assert read_all(one.whole(source.key or "", source.facts)) == DATA
    assert read_all(other.whole(source.key or "", source.facts)) == DATA
    assert os.listdir(one.folder / "parts") == []


def test_a_part_that_somebody_has_open_is_his_until_he_closes_it(caches: Caches) -> None:
    one, other = caches(), caches()
    source = source_of(DATA)
    key = source.key or ""
    mine, theirs = one.part(key, source.facts), other.part(key, source.facts)
    assert mine.path is not None
    assert theirs.path is None
    other.keep(key, theirs)
    assert (one.folder / "parts" / key).exists()
    one.keep(key, mine)
    again = other.part(key, source.facts)
    assert again.path is not None
    other.keep(key, again)


def test_objects_of_one_mount_are_found_by_another_that_runs_already(caches: Caches) -> None:
    one, other = caches(), caches()
    source = source_of(DATA)
    fetch(one, source)
    assert read_all(other.whole(source.key or "", source.facts)) == DATA


def test_a_part_that_is_read_does_not_lose_its_file_when_others_make_room(caches: Caches) -> None:
    one, other = caches(), caches()
    source = source_of(DATA)
    at = read_through(one, source)
    at.object.read(0, MIB, 0)
    end(one, source, at)
    at = read_through(one, source)
    at.object.read(0, 4096, None)
    other._files.remove(source.key or "")  # it had found the row before
    assert (one.folder / "parts" / (source.key or "")).exists()
    assert at.object.fetch_all()
    end(one, source, at)
    assert one.has(source.key or "")


# --- the limit -------------------------------------------------------------------------------------------------------


def put(cache: BlockCache, *names: str, size: int = MIB) -> list[FakeSource]:
    """Keep small objects, one after the other."""
    sources = [source_of(content(size, seed=ord(name[0])), name) for name in names]
    for source in sources:
        cache.store(source.key or "", source.data, source.facts.crc32c or 0)
        cache.settle()
    return sources


def here(cache: BlockCache, sources: list[FakeSource]) -> list[bool]:
    return [cache.has(it.key or "") for it in sources]


def test_what_was_used_longest_ago_leaves_first(caches: Caches) -> None:
    cache = caches(4 * MIB)
    sources = put(cache, "a", "b", "c", "d")
    assert here(cache, sources) == [True] * 4
    assert cache.small(sources[0].key or "", sources[0].facts)
    more = put(cache, "e", "f")
    assert here(cache, sources) == [True, False, False, True]
    assert here(cache, more) == [True, True]
    assert cache.total_bytes == 4 * MIB
    assert cache._traffic.figures()["cache_evicted_bytes"] == 2 * MIB


def test_what_is_pinned_stays_until_it_is_pinned_no_more(caches: Caches) -> None:
    cache = caches(4 * MIB)
    sources = put(cache, "a", "b", "c", "d")
    cache.pin([sources[0].key or ""], pinned=True)
    assert cache.room_for_pinned == 3 * MIB
    put(cache, "e", "f", "g", "h")
    assert here(cache, sources) == [True, False, False, False]
    cache.pin([sources[0].key or ""], pinned=False)
    put(cache, "i", "j", "k", "l")
    assert here(cache, sources) == [False] * 4


def test_where_all_is_pinned_nothing_more_is_kept_and_it_is_read_all_the_same(caches: Caches) -> None:
    cache = caches(4 * MIB)
    sources = put(cache, "a", "b", "c", "d")
    cache.pin([it.key or "" for it in sources], pinned=True)
    assert not any(here(cache, put(cache, "e")))
    source = source_of(content(8 * MIB))
    at = read_through(cache, source)
    assert at.object.read(0, 8 * MIB, 0) == source.data
    end(cache, source, at)
    assert here(cache, sources) == [True] * 4
    assert cache.total_bytes <= 4 * MIB


def test_large_objects_keep_within_the_limit_while_they_are_read(caches: Caches) -> None:
    cache = caches(8 * MIB)
    source = source_of(content(32 * MIB))
    at = read_through(cache, source)
    for offset in range(0, 32 * MIB, MIB):
        assert at.object.read(offset, MIB, 2 * MIB) == source.data[offset : offset + MIB]
        used = sum(it.stat().st_blocks * 512 for it in (cache.folder / "parts").iterdir())
        assert used <= 8 * MIB
        assert cache.total_bytes <= 8 * MIB
    end(cache, source, at)
    assert 0 < cache.total_bytes <= 8 * MIB
    assert cache._growing == 0


def test_books_are_even_after_many_objects_came_and_went(caches: Caches) -> None:
    cache = caches(10 * MIB)
    for number in range(12):
        source = source_of(content(3 * MIB, seed=number), f"{number}")
        at = read_through(cache, source)
        at.object.read(0, (3 if number % 2 else 1) * MIB, 0)
        end(cache, source, at)
    on_disk = [it for it in cache.folder.glob("*/**/*") if it.is_file() and it.suffix != ".map"]
    assert cache._growing == 0
    assert cache.total_bytes == sum(it.stat().st_blocks * 512 for it in on_disk) <= 10 * MIB
    assert cache.objects == len(on_disk)


def test_a_file_that_leaves_is_read_to_its_end_by_who_has_it_open(caches: Caches) -> None:
    cache = caches(4 * MIB)
    source = source_of(content(3 * MIB))
    fetch(cache, source)
    file = cache.whole(source.key or "", source.facts)
    assert file is not None
    put(cache, "b", "c", "d")
    assert not cache.has(source.key or "")
    assert read_all(file) == source.data


def test_a_part_that_is_open_does_not_leave(caches: Caches) -> None:
    cache = caches(4 * MIB)
    source = source_of(content(3 * MIB))
    at = read_through(cache, source)
    at.object.read(0, 2 * MIB, 0)
    put(cache, "b", "c", "d", "e")
    assert at.object.read_now(0, memoryview(bytearray(4096))) == 4096
    at.object.read(2 * MIB, MIB, 0)
    end(cache, source, at)
    assert read_all(cache.whole(source.key or "", source.facts)) == source.data


# --- full disks ------------------------------------------------------------------------------------------------------


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "")


@pytest.mark.expected_logs("is full; the cache has at most")
def test_a_full_disk_makes_the_cache_smaller_and_the_read_goes_on(
    caches: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = caches(200 * MIB)
    sources = put(cache, "a", "b", "c")
    source = source_of(content(8 * MIB))
    at = read_through(cache, source)
    write, free = Part.write, 3 * MIB

    def write_if_room(part: Part, offset: int, data: bytes) -> None:
        nonlocal free
        if part.path is not None and free < len(data) and any(here(cache, sources)):
            error = LocalFailure("no room")
            error.errno = errno.ENOSPC
            raise error
        free -= len(data)
        write(part, offset, data)

    monkeypatch.setattr(Part, "write", write_if_room)
    assert at.object.read(0, 8 * MIB, 8 * MIB) == source.data
    end(cache, source, at)
    assert cache.limit < 200 * MIB
    assert here(cache, sources) == [False] * 3


@pytest.mark.expected_logs("is full; the cache has at most|is not kept in the cache|cannot be kept")
def test_a_disk_that_stays_full_fails_no_read(caches: Caches, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = caches(200 * MIB)
    write = Part.write

    def write_to_memory(part: Part, offset: int, data: bytes) -> None:
        if part.path is not None:
            error = LocalFailure("no room")
            error.errno = errno.ENOSPC
            raise error
        write(part, offset, data)

    monkeypatch.setattr(Part, "write", write_to_memory)
    source = source_of(content(8 * MIB))
    at = read_through(cache, source)
    readers = [in_thread(lambda: at.object.read(0, 8 * MIB, 8 * MIB)) for _ in range(3)]
    assert all(it.result() == source.data for it in readers)
    end(cache, source, at)
    assert cache._growing == 0
    assert os.listdir(cache.folder / "parts") == []


@pytest.mark.expected_logs("is not kept in the cache")
def test_a_disk_that_is_broken_makes_no_cache_smaller(caches: Caches, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = caches(200 * MIB)
    write = Part.write

    def write_to_memory(part: Part, offset: int, data: bytes) -> None:
        if part.path is not None:
            error = LocalFailure("broken")
            error.errno = errno.EIO
            raise error
        write(part, offset, data)

    monkeypatch.setattr(Part, "write", write_to_memory)
    source = source_of(DATA)
    at = read_through(cache, source)
    assert at.object.read(0, len(DATA), 0) == DATA
    end(cache, source, at)
    assert cache.limit == 200 * MIB


def test_a_cache_that_has_become_tiny_leaves_large_objects_to_memory(caches: Caches) -> None:
    cache = caches(MIB)
    source = source_of(DATA)
    at = read_through(cache, source)
    assert at.object.read(0, len(DATA), 0) == DATA
    assert os.listdir(cache.folder / "parts") == []
    end(cache, source, at)


@pytest.mark.expected_logs("is full; the cache has at most")
def test_a_small_object_that_finds_the_disk_full_makes_the_cache_smaller(
    caches: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = caches(200 * MIB)
    put(cache, "a")
    monkeypatch.setattr(cachefolder, "sync", no_space)
    assert here(cache, put(cache, "b")) == [False]
    assert cache.limit < 200 * MIB
    assert os.listdir(cache.folder / "parts") == []


@pytest.mark.expected_logs("does not keep all it should")
def test_what_cannot_be_synced_is_not_taken_for_kept(caches: Caches, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = caches()
    source = source_of(DATA)
    at = read_through(cache, source)
    monkeypatch.setattr(os, "fsync", no_space)
    monkeypatch.setattr(os, "fdatasync", no_space)
    assert not at.object.fetch_all()
    assert at.object.read(0, len(DATA), None) == DATA
    end(cache, source, at)
    assert not cache.has(source.key or "")
    assert os.listdir(cache.folder / "parts") == []
    assert cache.total_bytes == 0


# --- what killed mounts left -----------------------------------------------------------------------------------------


def test_what_a_killed_mount_left_is_swept(caches: Caches) -> None:
    first = caches()
    source = source_of(DATA)
    fetch(first, source)
    first.close()
    parts = first.folder / "parts"
    old = time.time() - 7200
    for path in (
        parts / ("1" * 64),
        parts / f"{'2' * 64}.77",
        parts / f"{'3' * 64}.map",
        first.folder / "objects" / (source.key or "")[:2] / ("4" * 64),
    ):
        path.write_bytes(b"left")
        os.utime(path, (old, old))
    young = parts / f"{'5' * 64}.77"
    young.write_bytes(b"somebody is about to name it")
    foreign = parts / "README"
    foreign.write_bytes(b"not ours")
    os.utime(foreign, (old, old))
    second = caches()
    second.settle()
    assert sorted(os.listdir(parts)) == sorted([young.name, foreign.name])
    assert read_all(second.whole(source.key or "", source.facts)) == DATA


def test_what_another_mount_has_open_is_not_swept(caches: Caches) -> None:
    one = caches()
    source = source_of(DATA)
    part = one.part(source.key or "", source.facts)
    caches().settle()
    assert part.path is not None
    assert part.path.exists()
    one.keep(source.key or "", part)


def test_what_another_mount_gives_back_during_a_sweep_is_not_swept(
    caches: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, source = caches(), source_of(DATA)
    at = read_through(one, source)
    at.object.read(0, MIB, 0)
    keys = catalog.Catalog.keys
    two = caches()

    def keys_and_then(it: catalog.Catalog) -> set[str]:
        found = keys(it)
        end(one, source, at)
        return found

    monkeypatch.setattr(catalog.Catalog, "keys", keys_and_then)
    two._sweep()
    assert (one.folder / "parts" / (source.key or "")).exists()


def test_a_part_of_a_killed_mount_begins_anew(caches: Caches) -> None:
    cache = caches()
    source = source_of(DATA)
    (cache.folder / "parts" / (source.key or "")).write_bytes(b"\0" * len(DATA))
    at = read_through(cache, source)
    assert at.object.read(0, MIB + 5 * KIB, 0) == DATA[: MIB + 5 * KIB]
    end(cache, source, at)
    assert source.served_bytes >= MIB


# --- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.expected_logs("does not keep all it should")
def test_a_closed_cache_answers_that_it_has_nothing(caches: Caches) -> None:
    cache = caches()
    source = source_of(DATA)
    fetch(cache, source)
    cache.close()
    assert cache.whole(source.key or "", source.facts) is None
    cache.store("a" * 64, b"abc", 1)
    cache.touch("a" * 64)
    cache.settle()
