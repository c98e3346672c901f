"""What a mount asks a bucket for while programs read its files, through a server that counts: no more than is needed.

And what they get: the bytes of the version that was opened, whatever happens on the way.
"""

import errno
import os
import random
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from model.mounts import wait_until
from mount.fetched import (
    KIB,
    LONE_BYTES,
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
from mount.writing import fails_with

from support.drivers import over_each_driver
from support.gcs import Bucket
from support.mounting import mounted, run_octuefs
from support.strict_gcs import StrictGcs

pytestmark = over_each_driver

LARGE = content(1, 32 * MIB)
SMALL = content(2, 3 * KIB)


@pytest.fixture
def large(bucket: Bucket, strict_gcs: StrictGcs, tmp_path: Path) -> Iterator[Path]:
    """A mount with `large.bin`, of which nothing was read."""
    bucket.put("d/large.bin", LARGE)
    options = ("--cache-dir", tmp_path / "cache")
    with mounted(f"{bucket.url}/d", *options, environment=strict_gcs.environment) as mount_point:
        strict_gcs.forget_requests()
        yield mount_point


# --- no more than is needed


def test_listing_and_looking_and_hashing_fetch_no_content(
    bucket: Bucket, strict_gcs: StrictGcs, tmp_path: Path
) -> None:
    for number in range(12):
        labels = {"octue__labels": '{"_type": "set", "items": ["a"]}'}
        bucket.put(f"d/folder{number % 3}/f{number}.txt", SMALL, labels)
    options = ("--cache-dir", tmp_path / "cache")
    with mounted(f"{bucket.url}/d", *options, environment=strict_gcs.environment) as root:
        for command in ("ls -lR .", "find . -ls", "stat folder0/f0.txt", "du -a .", "getfattr -Rd .", "ls by-label/a"):
            subprocess.run(command.split(), cwd=root, check=True, capture_output=True, timeout=30)
        for name in (".hash", ".hashes", "folder1/.hash", "folder1/.octue", "by-label/a/folder1/.octue"):
            assert (root / name).read_bytes()
        assert os.getxattr(root / "folder0/f0.txt", "user.octue.hash")
        wait_for_rest(root)
        assert fetches(strict_gcs) == []


def test_a_lone_small_read_of_a_large_object_is_one_small_request(large: Path, strict_gcs: StrictGcs) -> None:
    with (large / "large.bin").open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), 4 * KIB, 11 * MIB) == LARGE[11 * MIB :][: 4 * KIB]
    wait_for_rest(large)
    (only,) = fetches(strict_gcs)
    assert only.size <= LONE_BYTES


def test_the_head_of_a_large_object_is_a_few_small_requests(large: Path, strict_gcs: StrictGcs) -> None:
    with (large / "large.bin").open("rb", buffering=0) as file:
        assert file.read(4 * KIB) == LARGE[: 4 * KIB]
    wait_for_rest(large)
    assert len(fetches(strict_gcs)) == 1
    assert fetched_bytes(strict_gcs) <= LONE_BYTES


def test_a_lone_small_file_is_one_request_and_nothing_else(
    bucket: Bucket, strict_gcs: StrictGcs, tmp_path: Path
) -> None:
    for number in range(10):
        bucket.put(f"d/f{number}", SMALL)
    with mounted(f"{bucket.url}/d", "--cache-dir", tmp_path / "cache", environment=strict_gcs.environment) as root:
        assert (root / "f4").read_bytes() == SMALL
        assert (root / "f4").read_bytes() == SMALL
        wait_for_rest(root)
        assert fetched_names(strict_gcs) == ["f4"]


def test_random_reads_of_a_cold_object_cost_no_more_than_reading_it_whole(large: Path, strict_gcs: StrictGcs) -> None:
    places = random.Random(7)
    count = 150
    with (large / "large.bin").open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for _ in range(count):
            offset = places.randrange(len(LARGE) - 4 * KIB)
            assert os.pread(file.fileno(), 4 * KIB, offset) == LARGE[offset : offset + 4 * KIB]
    wait_for_rest(large)
    assert len(fetches(strict_gcs)) <= 2 * count  # two pages may be in two pieces
    assert fetched_bytes(strict_gcs) <= len(LARGE)
    assert fetched_twice(strict_gcs) == []


def test_a_file_that_is_read_in_order_is_fetched_once_by_several_requests_at_a_time(
    large: Path, strict_gcs: StrictGcs
) -> None:
    held = strict_gcs.hold(lambda request: is_content(request) and fetch_of(request).start >= MIB, times=None)
    with ThreadPoolExecutor(1) as threads:
        whole = threads.submit((large / "large.bin").read_bytes)
        try:
            wait_until(lambda: sum(fetch.start >= MIB for fetch in fetches(strict_gcs)) >= 4)
            assert traffic(large)["in_flight"] >= 4
        finally:
            held.release()
        assert whole.result(30) == LARGE
    wait_for_rest(large)
    assert fetched_bytes(strict_gcs) == len(LARGE)
    assert fetched_twice(strict_gcs) == []
    assert len(fetches(strict_gcs)) <= 40


def test_two_streams_in_one_file_are_told_apart(large: Path, strict_gcs: StrictGcs) -> None:
    half = len(LARGE) // 2
    with (large / "large.bin").open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # the kernel reads nothing ahead
        for offset in range(0, half, 128 * KIB):
            for start in (offset, half + offset):
                assert os.pread(file.fileno(), 128 * KIB, start) == LARGE[start : start + 128 * KIB]
    assert fetched_bytes(strict_gcs) <= len(LARGE)
    assert fetched_twice(strict_gcs) == []
    assert len(fetches(strict_gcs)) <= 100  # of 256 reads


def test_many_readers_of_one_cold_object_fetch_it_once(large: Path, strict_gcs: StrictGcs) -> None:
    with ThreadPoolExecutor(6) as threads:
        for data in threads.map(lambda _: (large / "large.bin").read_bytes(), range(6)):
            assert data == LARGE
    assert fetched_bytes(strict_gcs) == len(LARGE)
    assert fetched_twice(strict_gcs) == []


# --- which version


def test_what_is_replaced_between_blocks_is_stale_and_never_new(
    large: Path, bucket: Bucket, strict_gcs: StrictGcs
) -> None:
    new = content(3, len(LARGE) + 5)
    with (large / "large.bin").open("rb", buffering=0) as old:
        os.posix_fadvise(old.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert os.pread(old.fileno(), 4 * KIB, 20 * MIB) == LARGE[20 * MIB :][: 4 * KIB]
        bucket.put("d/large.bin", new)
        with fails_with(errno.ESTALE):
            os.pread(old.fileno(), 4 * KIB, 5 * MIB)
        # What was read of the old one is still served, now that the new one is known.
        assert (large / "large.bin").read_bytes() == new
        assert os.pread(old.fileno(), 4 * KIB, 20 * MIB) == LARGE[20 * MIB :][: 4 * KIB]
        with fails_with(errno.ESTALE):
            os.pread(old.fileno(), 4 * KIB, 6 * MIB)


def test_new_bytes_are_read_at_once_after_a_refresh(large: Path, bucket: Bucket) -> None:
    path = large / "large.bin"
    with path.open("rb", buffering=0) as old:
        assert old.read(4 * KIB) == LARGE[: 4 * KIB]
        new = content(4, 5 * MIB)
        bucket.put("d/large.bin", new)
        assert run_octuefs("refresh", large).returncode == 0
        wait_until(lambda: path.stat().st_size == len(new))
        assert path.read_bytes() == new
        assert os.pread(old.fileno(), 4 * KIB, 0) == LARGE[: 4 * KIB]


def test_an_object_that_was_removed_is_stale_where_it_was_not_read(large: Path, bucket: Bucket) -> None:
    with (large / "large.bin").open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert os.pread(file.fileno(), 4 * KIB, MIB) == LARGE[MIB:][: 4 * KIB]
        bucket.delete("d/large.bin")
        with fails_with(errno.ESTALE):
            os.pread(file.fileno(), 4 * KIB, 9 * MIB)
        assert os.pread(file.fileno(), 4 * KIB, MIB) == LARGE[MIB:][: 4 * KIB]
