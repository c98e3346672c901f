"""Hasher and HashCache over real files."""

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from octuefs.content import hashing
from octuefs.content.hashing import HashCache, Hasher
from octuefs.datafile import Datafile
from octuefs.errors import NotFound, OctuefsError, StoreUnavailable
from octuefs.model.hashes import encode_crc32c, extend_crc32c
from octuefs.model.paths import LocalLocation
from octuefs.stores.base import ByteSource, ObjectInfo
from octuefs.stores.local import LocalStore


class CountingStore(LocalStore):
    """A local store that notes what is opened, and can hold it up until several are."""

    def __init__(self, location: LocalLocation) -> None:
        super().__init__(location)
        self.opened: list[str] = []
        self.together: threading.Barrier | None = None

    def open(self, info: ObjectInfo) -> ByteSource:  # type: ignore[override]
        self.opened.append(info.path)
        if self.together is not None:
            self.together.wait(10)
        return super().open(info)


class Place:
    """A folder with a store over it; hashes are published into the datafiles themselves."""

    def __init__(self, folder: Path, cache: HashCache | None = None) -> None:
        self.location = LocalLocation(str(folder))
        self.folder = folder
        self.store = CountingStore(self.location)
        self.hasher = Hasher(self.store, self._publish, cache)

    @staticmethod
    def _publish(datafile: Datafile, crc32c: int) -> None:
        datafile.crc32c = crc32c

    def datafile(self, name: str) -> Datafile:
        info = self.store.stat(name)
        return Datafile(info, self.location, content=info)

    def close(self) -> None:
        self.hasher.close()
        self.store.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.bin").write_bytes(bytes([number]) * (number * 700_000))
        # Old enough to be remembered.
        os.utime(folder / f"{number}.bin", (1_700_000_000, 1_700_000_000.5))
    return folder


@pytest.fixture
def place(folder: Path) -> Iterator[Place]:
    place = Place(folder)
    yield place
    place.close()


@pytest.fixture
def cache_file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "hashes.sqlite"


def settle(folder: Path) -> None:
    """Let the files' ctime, which nobody can set, grow as old as it must be to be remembered."""
    newest = max(path.stat().st_ctime for path in folder.iterdir())
    deadline = time.monotonic() + 10
    while time.time() < newest + 0.15:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_every_hash_is_that_of_the_bytes(place: Place) -> None:
    datafiles = [place.datafile(f"{number}.bin") for number in range(6)]
    assert place.hasher.ensure(datafiles) == []
    for datafile in datafiles:
        data = (place.folder / datafile.path).read_bytes()
        assert datafile.hash_value == encode_crc32c(extend_crc32c(0, data))
    assert datafiles[0].hash_value == "AAAAAA=="
    assert place.hasher.computed == 6


def test_files_are_hashed_in_parallel(place: Place) -> None:
    # Each opening waits for another one: were they one after the other, the barrier would break.
    place.store.together = threading.Barrier(2)
    assert place.hasher.ensure([place.datafile(f"{number}.bin") for number in range(6)]) == []


def test_two_who_ask_at_once_have_the_file_read_once(place: Place) -> None:
    datafile = place.datafile("5.bin")
    place.store.together = threading.Barrier(2)
    first = threading.Thread(target=place.hasher.ensure, args=([datafile],))
    second = threading.Thread(target=place.hasher.ensure, args=([datafile],))
    first.start()
    deadline = time.monotonic() + 10
    while not place.store.opened:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    second.start()
    while not (place.store.together.n_waiting and second.is_alive()):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    place.store.together.wait(10)
    first.join(10)
    second.join(10)
    assert place.store.opened == ["5.bin"]
    assert datafile.crc32c is not None


def test_a_known_hash_is_not_computed_again(place: Place) -> None:
    datafile = place.datafile("3.bin")
    for _ in range(3):
        assert place.hasher.ensure([datafile]) == []
    assert place.store.opened == ["3.bin"]


def test_a_file_that_cannot_be_read_is_told_and_the_others_are_hashed(place: Place) -> None:
    datafiles = [place.datafile(f"{number}.bin") for number in range(3)]
    (place.folder / "1.bin").unlink()
    (failure,) = place.hasher.ensure(datafiles)
    assert isinstance(failure, NotFound)
    assert "1.bin" in str(failure)
    assert [datafile.crc32c is None for datafile in datafiles] == [False, True, False]


def test_a_file_that_changed_since_it_was_listed_gets_no_hash(place: Place) -> None:
    datafile = place.datafile("3.bin")
    (place.folder / "3.bin").write_bytes(b"other")
    assert place.hasher.ensure([datafile]) == []
    assert datafile.crc32c is None


def test_progress_counts_up_to_the_number_of_files(place: Place) -> None:
    seen: list[int] = []
    place.hasher.ensure([place.datafile(f"{number}.bin") for number in range(4)], seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 4


def test_a_second_hasher_remembers_what_the_first_computed(folder: Path, cache_file: Path) -> None:
    settle(folder)
    hashes = []
    for expected in (6, 0):
        cache = HashCache(cache_file)
        place = Place(folder, cache)
        datafiles = [place.datafile(f"{number}.bin") for number in range(6)]
        place.hasher.ensure(datafiles)
        hashes.append([datafile.hash_value for datafile in datafiles])
        assert len(place.store.opened) == expected
        place.close()
        cache.close()
    assert hashes[0] == hashes[1]


def test_a_file_changed_just_now_is_not_remembered(folder: Path, cache_file: Path) -> None:
    cache = HashCache(cache_file)
    place = Place(folder, cache)
    later = time.time() + 60  # as if it had changed while it was read
    (folder / "now.bin").write_bytes(b"1")
    os.utime(folder / "now.bin", (later, later))
    datafile = place.datafile("now.bin")
    place.hasher.ensure([datafile])
    assert datafile.crc32c is not None
    assert cache.get([datafile.info.version]) == {}  # type: ignore[list-item]
    place.close()
    cache.close()


def test_a_file_that_had_not_settled_when_reading_began_is_not_remembered(
    folder: Path, cache_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = HashCache(cache_file)
    place = Place(folder, cache)
    datafile = place.datafile("1.bin")
    changed = os.stat(folder / "1.bin").st_ctime_ns
    # Reading takes long.
    monkeypatch.setattr(time, "time_ns", lambda: changed + (10**12 if place.store.opened else 1))
    place.hasher.ensure([datafile])
    assert datafile.crc32c is not None
    assert cache.get([datafile.info.version]) == {}  # type: ignore[list-item]
    place.close()
    cache.close()


def test_a_hash_is_of_one_version_only(cache_file: Path) -> None:
    cache = HashCache(cache_file)
    version = (1, 2, 3, 4, 5)
    cache.put([(version, 99)])
    assert cache.get([version]) == {version: 99}
    for position in range(5):
        other = tuple(number + (index == position) for index, number in enumerate(version))
        assert cache.get([other]) == {}  # type: ignore[list-item]
    cache.close()


def test_a_file_has_one_row_that_of_its_latest_version(cache_file: Path) -> None:
    cache = HashCache(cache_file)
    cache.put([((1, 2, 3, 4, 5), 99)])
    cache.put([((1, 2, 3, 40, 50), 77)])
    assert cache.get([(1, 2, 3, 4, 5), (1, 2, 3, 40, 50)]) == {(1, 2, 3, 40, 50): 77}
    cache.close()


def test_device_and_inode_numbers_of_64_bits_are_remembered(cache_file: Path) -> None:
    cache = HashCache(cache_file)
    version = ((1 << 64) - 1, 1 << 63, 3, 4, 5)
    cache.put([(version, 0xFFFFFFFF)])
    assert cache.get([version]) == {version: 0xFFFFFFFF}
    cache.close()


class BlockedStore(CountingStore):
    """Holds up the opening of files above 256 KiB until it is let go."""

    def __init__(self, location: LocalLocation) -> None:
        super().__init__(location)
        self.go = threading.Event()

    def open(self, info: ObjectInfo) -> ByteSource:  # type: ignore[override]
        source = super().open(info)
        assert info.size < 256 << 10 or self.go.wait(10)
        return source


@pytest.fixture
def blocked(folder: Path) -> Iterator[tuple[Place, BlockedStore, list[OctuefsError], threading.Thread]]:
    """A place whose workers all stand still over large files, more of them waiting behind, and who asked for them."""
    place = Place(folder)
    place.store.close()
    store = place.store = BlockedStore(place.location)
    place.hasher = Hasher(store, place._publish)
    workers = place.hasher._pool._max_workers
    for number in range(workers + 3):
        (folder / f"large{number}").write_bytes(bytes(300_000))
    datafiles = [place.datafile(f"large{number}") for number in range(workers + 3)]
    failures: list[OctuefsError] = []
    asking = threading.Thread(target=lambda: failures.extend(place.hasher.ensure(datafiles)))
    asking.start()
    deadline = time.monotonic() + 10
    while len(store.opened) < workers:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    yield place, store, failures, asking
    store.go.set()
    asking.join(10)
    place.close()


@pytest.mark.parametrize("count", [1, 40])
def test_small_files_do_not_wait_behind_large_ones(
    blocked: tuple[Place, BlockedStore, list[OctuefsError], threading.Thread], count: int
) -> None:
    place, store, _, _ = blocked
    for number in range(count):
        (place.folder / f"small{number}").write_bytes(b"1")
    datafiles = [place.datafile(f"small{number}") for number in range(count)]
    assert place.hasher.ensure(datafiles) == []
    assert all(datafile.crc32c is not None for datafile in datafiles)
    assert not store.go.is_set()


def test_all_who_wait_are_told_that_the_mount_has_ended(
    blocked: tuple[Place, BlockedStore, list[OctuefsError], threading.Thread],
) -> None:
    place, store, failures, asking = blocked
    waiting = len(store.opened) + 2
    others: list[OctuefsError] = []
    another = threading.Thread(
        target=lambda: others.extend(place.hasher.ensure([place.datafile(f"large{waiting}"), place.datafile("5.bin")]))
    )
    another.start()
    deadline = time.monotonic() + 10
    while len(place.hasher._in_flight) < waiting + 2:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    place.hasher.close()
    store.go.set()
    for thread in (asking, another):
        thread.join(10)
        assert not thread.is_alive()
    assert len(failures) == waiting + 1
    assert len(others) == 2
    for failure in (*failures, *others):
        assert isinstance(failure, StoreUnavailable)
        assert "the mount has ended" in str(failure)


@pytest.mark.parametrize("name", ["5.bin", "small"])
def test_who_asks_after_the_end_is_told_so(place: Place, name: str) -> None:
    (place.folder / "small").write_bytes(b"1")
    datafile = place.datafile(name)
    place.hasher.close()
    for _ in range(2):
        (failure,) = place.hasher.ensure([datafile])
        assert isinstance(failure, StoreUnavailable)
        assert "the mount has ended" in str(failure)


@pytest.mark.parametrize("damage", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_cache_file_is_made_anew(cache_file: Path, damage: bytes) -> None:
    cache_file.parent.mkdir()
    cache_file.write_bytes(damage)
    cache = HashCache(cache_file)
    cache.put([((1, 2, 3, 4, 5), 99)])
    cache.close()
    again = HashCache(cache_file)
    assert again.get([(1, 2, 3, 4, 5)]) == {(1, 2, 3, 4, 5): 99}
    again.close()


def test_a_cache_file_with_another_table_of_the_same_name_is_made_anew(cache_file: Path) -> None:
    cache_file.parent.mkdir()
    foreign = sqlite3.connect(cache_file)
    foreign.execute("CREATE TABLE hashes (something TEXT)")
    foreign.commit()
    foreign.close()
    cache = HashCache(cache_file)
    cache.put([((1, 2, 3, 4, 5), 99)])
    assert cache.get([(1, 2, 3, 4, 5)]) == {(1, 2, 3, 4, 5): 99}
    cache.close()


def test_a_cache_file_that_another_process_has_locked_is_left_alone(
    cache_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "_LOCKED_SECONDS", 0.01)
    cache_file.parent.mkdir()
    other = sqlite3.connect(cache_file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        HashCache(cache_file)
    assert os.stat(cache_file).st_nlink == 1
    other.execute("CREATE TABLE other (x)")
    other.execute("COMMIT")
    other.close()
    HashCache(cache_file).close()
    again = sqlite3.connect(cache_file)
    assert again.execute("SELECT count(*) FROM other").fetchone() == (0,)
    again.close()


@pytest.mark.expected_logs("hashes are not remembered")
def test_a_cache_that_breaks_while_in_use_costs_time_only(folder: Path, cache_file: Path) -> None:
    settle(folder)
    cache = HashCache(cache_file)
    cache.put([((1, 2, 3, 4, 5), 99)])
    for suffix in ("", "-wal", "-shm"):
        path = Path(f"{cache_file}{suffix}")
        if path.exists():
            path.write_bytes(b"\xff" * 8192)
    place = Place(folder, cache)
    datafiles = [place.datafile(f"{number}.bin") for number in range(6)]
    assert place.hasher.ensure(datafiles) == []
    assert all(datafile.crc32c is not None for datafile in datafiles)
    place.close()
    cache.close()


def test_the_cache_file_is_private(cache_file: Path) -> None:
    HashCache(cache_file).close()
    assert stat.S_IMODE(cache_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache_file.parent.stat().st_mode) == 0o700


def test_two_processes_may_use_the_cache_at_once(cache_file: Path) -> None:
    first, second = HashCache(cache_file), HashCache(cache_file)
    first.put([((1, 1, 3, 4, 5), 11)])
    second.put([((1, 2, 3, 4, 5), 22)])
    versions = [(1, 1, 3, 4, 5), (1, 2, 3, 4, 5)]
    assert first.get(versions) == second.get(versions) == dict(zip(versions, (11, 22), strict=True))
    first.close()
    second.close()
