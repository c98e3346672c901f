"""The disk cache of a mount: what it keeps over mounts and shares, what goes, and whatever becomes of its files.

Every byte that a program reads is compared; what is asked of the bucket is counted.
"""

import contextlib
import os
import random
import re
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from model.mounts import Mount, remountable, wait_until
from mount.fetched import (
    KIB,
    MIB,
    content,
    fetch_of,
    fetched_bytes,
    fetched_names,
    fetched_twice,
    fetches,
    is_content,
    traffic,
    wait_for_rest,
)
from mount.kernel_mounts import IS_ROOT, native, needs_passthrough, needs_root

from support.gcs import Bucket
from support.mounting import daemons_of, mounted
from support.strict_gcs import StrictGcs

LARGE, SMALL = content(11, 12 * MIB), content(12, 40 * KIB)
FILES = {"large.bin": LARGE, "small.bin": SMALL}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the cache."""
    return tmp_path / "cache"


@pytest.fixture
def mount(bucket: Bucket, strict_gcs: StrictGcs, folder: Path) -> Iterator[Mount]:
    """A mount with the cache, not made yet, of `FILES`."""
    for name, data in FILES.items():
        bucket.put(f"d/{name}", data)
    options = ("--cache-dir", str(folder))
    with remountable(f"{bucket.url}/d", *options, environment=strict_gcs.environment, now=False) as it:
        yield it


def read_past_kernel(path: Path) -> bytes:
    """Read a file whose pages the kernel has forgotten."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with path.open("rb") as file:
        return file.read()


def assert_right(root: Path) -> None:
    for name, data in FILES.items():
        assert read_past_kernel(root / name) == data


def wait_until_kept(mount: Mount, count: int = len(FILES)) -> None:
    """Return once so many objects are whole in the cache, with their rows."""
    wait_until(lambda: traffic(mount.point)["cache_objects"] >= count and len(whole_files(mount)) >= count)


def cache_of(mount: Mount) -> Path:
    return Path(mount.options[mount.options.index("--cache-dir") + 1])


def whole_files(mount: Mount) -> list[Path]:
    """Return the files of whole objects."""
    return sorted((cache_of(mount) / "objects").glob("??/*"))


def parts_of(mount: Mount) -> list[Path]:
    """Return the files of objects of which some is here."""
    return [path for path in (cache_of(mount) / "parts").iterdir() if path.suffix != ".map"]


def bytes_on_disk(cache: Path) -> int:
    """Return how much of the disk the content takes that a cache has."""
    files = (path for name in ("objects", "parts") for path in (cache / name).rglob("*") if path.suffix != ".map")
    return sum(path.stat().st_blocks * 512 for path in files if path.is_file())


# --- kept, and shared


def test_what_was_read_is_read_from_the_disk_by_the_next_mount(mount: Mount, strict_gcs: StrictGcs) -> None:
    mount.mount()
    assert_right(mount.point)
    mount.unmount()
    strict_gcs.forget_requests()
    mount.mount()
    assert_right(mount.point)
    assert fetches(strict_gcs) == []
    assert traffic(mount.point)["cache_hits"] >= 2


def test_what_was_read_of_an_object_is_not_fetched_again_by_the_next_mount(mount: Mount, strict_gcs: StrictGcs) -> None:
    def read_some() -> None:
        with (mount.point / "large.bin").open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            for offset in (0, 3 * MIB, 3 * MIB + 4 * KIB, 11 * MIB):
                assert os.pread(file.fileno(), 4 * KIB, offset) == LARGE[offset : offset + 4 * KIB]

    mount.mount()
    read_some()
    wait_for_rest(mount.point)
    mount.unmount()
    assert fetches(strict_gcs)
    strict_gcs.forget_requests()
    mount.mount()
    read_some()
    assert fetches(strict_gcs) == []
    assert_right(mount.point)
    assert fetched_twice(strict_gcs) == []
    assert fetched_bytes(strict_gcs) < len(LARGE) + len(SMALL)
    mount.unmount()
    strict_gcs.forget_requests()
    mount.mount()
    assert_right(mount.point)
    assert fetches(strict_gcs) == []


def test_two_mounts_share_what_one_of_them_fetched(mount: Mount, bucket: Bucket, strict_gcs: StrictGcs) -> None:
    mount.mount()
    with mounted(mount.source, *mount.options, environment=strict_gcs.environment) as other:
        assert_right(mount.point)
        wait_until_kept(mount)
        strict_gcs.forget_requests()
        assert_right(other)
        assert fetches(strict_gcs) == []


def test_two_mounts_that_read_one_object_at_once_read_it_rightly(mount: Mount, strict_gcs: StrictGcs) -> None:
    mount.mount()
    with mounted(mount.source, *mount.options, environment=strict_gcs.environment) as other:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(assert_right, [mount.point, other] * 2))
        assert fetched_bytes(strict_gcs) <= 2 * (len(LARGE) + len(SMALL))


def test_a_new_version_is_read_by_the_next_mount_and_the_old_one_is_not(mount: Mount, bucket: Bucket) -> None:
    mount.mount()
    assert_right(mount.point)
    mount.unmount()
    new = content(13, len(LARGE))
    bucket.put("d/large.bin", new)
    mount.mount()
    assert (mount.point / "large.bin").read_bytes() == new


def test_names_and_owners_of_cached_files_tell_nothing(mount: Mount) -> None:
    mount.mount()
    assert_right(mount.point)
    wait_until_kept(mount)
    cache = cache_of(mount)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    for path in cache.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
        assert re.fullmatch(r"objects|parts|[0-9a-f]{2}|[0-9a-f]{64}|catalog\.sqlite(-wal|-shm)?", path.name)


@needs_passthrough
def test_a_whole_object_is_passed_through_to_where_nobody_writes(
    bucket: Bucket, strict_gcs: StrictGcs, folder: Path
) -> None:
    bucket.put("d/a.bin", LARGE)
    options = ("--read-only", "--cache-dir", str(folder))
    with native(f"{bucket.url}/d", *options, environment=strict_gcs.environment) as mount:
        assert (mount / "a.bin").read_bytes() == LARGE

        def passes() -> bool:
            with (mount / "a.bin").open("rb", buffering=0) as file:
                assert file.read() == LARGE
                return mount.passed_through == 1

        wait_until(passes)
    assert fetched_twice(strict_gcs) == []


# --- as large as it may be


def test_what_goes_while_it_is_read_is_read_rightly(bucket: Bucket, strict_gcs: StrictGcs, folder: Path) -> None:
    files = {f"f{number}.bin": content(20 + number, 4 * MIB) for number in range(6)}
    files |= {f"s{number}.bin": content(40 + number, 300 * KIB) for number in range(8)}
    for name, data in files.items():
        bucket.put(f"d/{name}", data)
    options = ("--cache-dir", str(folder), "--cache-size", "8M")
    with mounted(f"{bucket.url}/d", *options, environment=strict_gcs.environment) as root:

        def read_many(seed: int) -> None:
            order = random.Random(seed)
            for _ in range(10):
                name = order.choice(sorted(files))
                if order.random() < 0.7:
                    assert read_past_kernel(root / name) == files[name]
                    continue
                with (root / name).open("rb", buffering=0) as file:
                    for _ in range(10):
                        offset = order.randrange(len(files[name]))
                        assert os.pread(file.fileno(), 5000, offset) == files[name][offset : offset + 5000]

        with ThreadPoolExecutor(6) as threads:
            list(threads.map(read_many, range(6)))
        wait_for_rest(root)
        assert traffic(root)["cache_evicted_bytes"] > 0
        wait_until(lambda: bytes_on_disk(folder) <= 8 * MIB)
        assert traffic(root)["cache_bytes"] <= 8 * MIB
    assert bytes_on_disk(folder) <= 8 * MIB


def test_a_cache_that_is_full_holds_what_was_read_last(bucket: Bucket, strict_gcs: StrictGcs, folder: Path) -> None:
    files = {f"f{number}.bin": content(20 + number, 3 * MIB) for number in range(6)}
    for name, data in files.items():
        bucket.put(f"d/{name}", data)
    options = ("--cache-dir", str(folder), "--cache-size", "8M")
    with mounted(f"{bucket.url}/d", *options, environment=strict_gcs.environment) as root:
        for name, data in files.items():
            assert (root / name).read_bytes() == data
            wait_for_rest(root)
        (pid,) = daemons_of(root)
        wait_until(lambda: open_bytes(pid, folder) == 0)  # what nobody has open takes no room but by its name
        strict_gcs.forget_requests()
        assert read_past_kernel(root / "f5.bin") == files["f5.bin"]
        assert fetches(strict_gcs) == []
        assert read_past_kernel(root / "f0.bin") == files["f0.bin"]
        assert set(fetched_names(strict_gcs)) == {"f0.bin"}


def open_bytes(pid: int, folder: Path) -> int:
    """Return how much of the disk the files take that a process has open below a folder, be their names gone."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(entry).startswith((str(folder / "objects"), str(folder / "parts"))):
                facts = entry.stat()
                found[facts.st_ino] = facts.st_blocks * 512
    return sum(found.values())


def test_two_mounts_that_share_a_cache_fill_it_together(bucket: Bucket, strict_gcs: StrictGcs, folder: Path) -> None:
    files = {f"f{number}.bin": content(20 + number, 3 * MIB) for number in range(6)}
    for name, data in files.items():
        bucket.put(f"d/{name}", data)
    options = ("--cache-dir", str(folder), "--cache-size", "8M")
    source, environment = f"{bucket.url}/d", strict_gcs.environment
    with (
        mounted(source, *options, environment=environment) as one,
        mounted(source, *options, environment=environment) as other,
    ):
        for number, (name, data) in enumerate(files.items()):
            root = (one, other)[number % 2]
            assert (root / name).read_bytes() == data
            wait_until(lambda root=root: not traffic(root)["in_flight"] and bytes_on_disk(folder) <= 8 * MIB)
        assert read_past_kernel(other / "f4.bin") == files["f4.bin"]  # which the other one fetched


def test_an_object_larger_than_the_cache_is_read(bucket: Bucket, strict_gcs: StrictGcs, folder: Path) -> None:
    bucket.put("d/large.bin", LARGE)
    options = ("--cache-dir", str(folder), "--cache-size", "4M")
    with mounted(f"{bucket.url}/d", *options, environment=strict_gcs.environment) as root:
        assert (root / "large.bin").read_bytes() == LARGE
        assert read_past_kernel(root / "large.bin") == LARGE
        with (root / "large.bin").open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            for offset in random.Random(3).sample(range(len(LARGE)), 60):
                assert os.pread(file.fileno(), 5000, offset) == LARGE[offset : offset + 5000]
        assert bytes_on_disk(folder) <= 4 * MIB


def test_without_a_cache_all_is_read_and_nothing_is_kept(bucket: Bucket, strict_gcs: StrictGcs, tmp_path: Path) -> None:
    for name, data in FILES.items():
        bucket.put(f"d/{name}", data)
    environment = {**strict_gcs.environment, "XDG_CACHE_HOME": str(tmp_path / "caches")}
    with mounted(f"{bucket.url}/d", "--cache-size", "0", "--memory-limit", "32M", environment=environment) as root:
        assert_right(root)
        assert_right(root)
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(assert_right, [root] * 4))
        assert not list((tmp_path / "caches").rglob("objects"))


# --- damage

Damage = Callable[[Path], object]


def flip(path: Path) -> None:
    """Change a byte in the middle."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        before = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([before[0] ^ 0x40]))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


DAMAGES = (flip, cut, empty, lengthen)
DAMAGED = {
    f"{damage.__name__}-{size}.bin": (damage, content(80 + number, size))
    for number, damage in enumerate(DAMAGES)
    for size in (40 * KIB, 2 * MIB)
}
"""Files, each with the damage that its copy in the cache gets."""


@pytest.fixture
def damaged(mount: Mount, bucket: Bucket) -> Callable[[], None]:
    """A mount of `DAMAGED` and no others, all of which were read; the call does the damage."""
    for name in FILES:
        bucket.delete(f"d/{name}")
    for name, (_, data) in DAMAGED.items():
        bucket.put(f"d/{name}", data)
    mount.mount()
    assert_damaged_is_right(mount)
    wait_until_kept(mount, len(DAMAGED))

    def damage_all() -> None:
        kinds = {data: damage for damage, data in DAMAGED.values()}
        for path in whole_files(mount):
            kinds[path.read_bytes()](path)

    return damage_all


def assert_damaged_is_right(mount: Mount) -> None:
    for name, (_, data) in DAMAGED.items():
        assert read_past_kernel(mount.point / name) == data


def test_cached_files_that_are_damaged_between_mounts_are_dropped_and_fetched_again(
    damaged: Callable[[], None], mount: Mount, strict_gcs: StrictGcs
) -> None:
    mount.unmount()
    damaged()
    strict_gcs.forget_requests()
    mount.mount()
    assert_damaged_is_right(mount)
    assert traffic(mount.point)["cache_dropped"] == len(DAMAGED)
    assert fetched_bytes(strict_gcs) == sum(len(data) for _, data in DAMAGED.values())
    wait_until_kept(mount, len(DAMAGED))
    mount.unmount()
    strict_gcs.forget_requests()
    mount.mount()
    assert_damaged_is_right(mount)
    assert fetches(strict_gcs) == []


def test_cached_files_that_are_damaged_while_mounted_are_dropped_and_fetched_again(
    damaged: Callable[[], None], mount: Mount, strict_gcs: StrictGcs
) -> None:
    strict_gcs.forget_requests()
    damaged()
    assert_damaged_is_right(mount)
    large = sum(len(data) > MIB for _, data in DAMAGED.values())
    assert traffic(mount.point)["cache_dropped"] == large  # the small ones are in memory
    assert {fetch.name for fetch in fetches(strict_gcs)} == {
        f"d/{name}" for name, (_, data) in DAMAGED.items() if len(data) > MIB
    }


@pytest.mark.parametrize("damage", [cut, empty])
def test_a_cached_file_that_gets_shorter_while_it_is_open_is_read_rightly(damage: Damage, mount: Mount) -> None:
    mount.mount()
    assert_right(mount.point)
    wait_until_kept(mount)
    with (mount.point / "large.bin").open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), 4 * KIB, 0) == LARGE[: 4 * KIB]
        for path in whole_files(mount):
            damage(path)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert file.read() == LARGE
    assert_right(mount.point)


@pytest.mark.parametrize("damage", [cut, empty])
def test_a_part_that_gets_shorter_while_it_grows_is_read_rightly(
    damage: Damage, mount: Mount, strict_gcs: StrictGcs
) -> None:
    mount.mount()
    with (mount.point / "large.bin").open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert os.pread(file.fileno(), MIB, 0) == LARGE[:MIB]
        wait_for_rest(mount.point)
        (part,) = parts_of(mount)
        damage(part)
        assert os.pread(file.fileno(), 4 * KIB, 11 * MIB) == LARGE[11 * MIB :][: 4 * KIB]  # beyond its new end
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert file.read() == LARGE
    assert_right(mount.point)
    mount.unmount()
    mount.mount()
    assert_right(mount.point)


def test_cached_files_that_are_removed_are_fetched_again(mount: Mount) -> None:
    mount.mount()
    assert_right(mount.point)
    wait_until_kept(mount)
    for path in whole_files(mount):
        path.unlink()
    assert_right(mount.point)
    mount.unmount()
    for path in whole_files(mount):
        path.unlink()
    mount.mount()
    assert_right(mount.point)


@pytest.fixture
def part(mount: Mount) -> Path:
    """The file of an object of which some was read by a mount that has ended."""
    mount.mount()
    with (mount.point / "large.bin").open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for offset in (0, 2 * MIB, 7 * MIB):
            assert os.pread(file.fileno(), 128 * KIB, offset) == LARGE[offset : offset + 128 * KIB]
    wait_for_rest(mount.point)
    mount.unmount()
    (path,) = parts_of(mount)
    return path


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_part_that_is_damaged_between_mounts_is_fetched_again(damage: Damage, mount: Mount, part: Path) -> None:
    damage(part)
    mount.mount()
    assert_right(mount.point)
    assert_right(mount.point)


@pytest.mark.parametrize("text", [b"rubbish", b'{"size": 12582912, "pieces": [[0, 12582912, 1]]}'])
def test_a_map_of_a_part_that_says_nonsense_is_not_believed(text: bytes, mount: Mount, part: Path) -> None:
    Path(f"{part}.map").write_bytes(text)
    mount.mount()
    assert_right(mount.point)


def test_a_catalog_that_is_rubbish_is_made_anew(mount: Mount, strict_gcs: StrictGcs) -> None:
    mount.mount()
    assert_right(mount.point)
    wait_until_kept(mount)
    mount.unmount()
    (cache_of(mount) / "catalog.sqlite").write_bytes(b"rubbish" * 10_000)
    mount.mount()
    assert_right(mount.point)
    mount.unmount()
    strict_gcs.forget_requests()
    mount.mount()
    assert traffic(mount.point)["cache_objects"] == len(FILES)
    assert traffic(mount.point)["cache_bytes"] == len(LARGE) + len(SMALL)
    assert_right(mount.point)
    assert fetches(strict_gcs) == []


def test_a_catalog_that_becomes_rubbish_while_mounted_keeps_nobody_from_reading(mount: Mount) -> None:
    mount.mount()
    assert (mount.point / "small.bin").read_bytes() == SMALL
    for path in cache_of(mount).glob("catalog.sqlite*"):
        with path.open("r+b") as file:
            file.write(b"rubbish" * 10_000)
    assert_right(mount.point)
    assert_right(mount.point)
    mount.unmount()
    mount.mount()
    assert_right(mount.point)


# --- disks


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody write in a folder meanwhile."""
    if not IS_ROOT:
        folder.chmod(0o500)
        yield
        folder.chmod(0o700)
        return
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_cache_folder_that_becomes_read_only_keeps_nobody_from_reading(mount: Mount, bucket: Bucket) -> None:
    bucket.put("d/other.bin", LARGE[::-1])
    mount.mount()
    with (mount.point / "large.bin").open("rb", buffering=0) as file:
        assert file.read(MIB) == LARGE[:MIB]
        with contextlib.ExitStack() as stack:
            for folder in ("objects", "parts"):
                stack.enter_context(read_only(cache_of(mount) / folder))
            assert file.read() == LARGE[MIB:]
            assert_right(mount.point)
            assert read_past_kernel(mount.point / "other.bin") == LARGE[::-1]
            assert_right(mount.point)
    assert_right(mount.point)


@needs_root
def test_a_full_disk_makes_the_cache_smaller_and_keeps_nobody_from_reading(
    bucket: Bucket, strict_gcs: StrictGcs, tmp_path: Path
) -> None:
    files = {f"f{number}.bin": content(60 + number, 3 * MIB) for number in range(4)} | FILES
    for name, data in files.items():
        bucket.put(f"d/{name}", data)
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=True)
    try:
        options = ("--cache-dir", disk / "cache", "--cache-size", "1G")
        with mounted(f"{bucket.url}/d", *options, environment=strict_gcs.environment) as root:
            for _ in range(2):
                for name, data in files.items():
                    assert read_past_kernel(root / name) == data
            with ThreadPoolExecutor(4) as threads:
                for name, data in zip(files, threads.map(read_past_kernel, [root / it for it in files]), strict=True):
                    assert data == files[name]
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


# --- crashes


@pytest.mark.parametrize("cut_at", [2 * MIB, 7 * MIB])
def test_after_a_crash_while_it_was_fetching_the_next_mount_reads_rightly(
    cut_at: int, mount: Mount, strict_gcs: StrictGcs
) -> None:
    mount.mount()
    held = strict_gcs.hold(lambda request: is_content(request) and fetch_of(request).start >= cut_at, times=None)
    reader = threading.Thread(target=try_to_read, args=(mount.point / "large.bin",))
    reader.start()
    assert held.arrived.wait(20)
    mount.kill(mount.pid())
    reader.join(20)
    held.release()
    (left,) = parts_of(mount)
    mount.mount()
    wait_until(lambda: not left.exists())
    assert_right(mount.point)
    mount.unmount()
    strict_gcs.forget_requests()
    mount.mount()
    assert_right(mount.point)
    assert fetches(strict_gcs) == []


def try_to_read(path: Path) -> None:
    """Read a file, rightly or not at all."""
    with contextlib.suppress(OSError):
        assert read_past_kernel(path) == FILES[path.name]


def test_crashes_at_any_time_leave_no_wrong_bytes(mount: Mount) -> None:
    for number in range(5):
        mount.mount()
        pid = mount.pid()
        with ThreadPoolExecutor(2) as threads:
            readers = [threads.submit(try_to_read, mount.point / name) for name in FILES]
            wait_until(
                lambda readers=readers, enough=2 * MIB * number: (
                    traffic(mount.point)["received_bytes"] >= enough or all(it.done() for it in readers)
                )
            )
            mount.kill(pid)
            for reader in readers:
                reader.result(20)
    mount.mount()
    assert_right(mount.point)


# --- memory


def test_memory_stays_small_while_many_large_objects_are_read(bucket: Bucket, tmp_path: Path) -> None:
    data = content(8, 64 * MIB)
    names = [f"f{number}.bin" for number in range(8)]
    for name in names:
        bucket.put(f"d/{name}", data)
    options = ("--memory-limit", "64M", "--cache-dir", tmp_path / "cache")
    with mounted(f"{bucket.url}/d", *options, environment=bucket.environment) as root:
        (pid,) = daemons_of(root)
        before = peak_bytes(pid)

        def same(name: str) -> bool:
            with (root / name).open("rb", buffering=0) as file:
                return all(file.read(MIB) == data[at : at + MIB] for at in range(0, len(data), MIB))

        with ThreadPoolExecutor(len(names)) as threads:
            assert all(threads.map(same, names))
        assert peak_bytes(pid) - before < 128 * MIB


def peak_bytes(pid: int) -> int:
    """Return how much memory a process had at most so far."""
    found = re.search(r"^VmHWM:\s*(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * KIB
