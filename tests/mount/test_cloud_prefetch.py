"""Files that are fetched before they are opened, while a program walks through a folder or a view; and no others."""

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mount.fetched import KIB, MIB, content, fetched_names, fetches, is_content, traffic, wait_for_rest

from support.drivers import over_each_driver
from support.gcs import Bucket
from support.mounting import mounted
from support.strict_gcs import StrictGcs

pytestmark = over_each_driver

COUNT = 40
FILES = {f"f{number:03}.txt": content(100 + number, 3 * KIB) + b"\n" for number in range(COUNT)}
LABELS = {"octue__labels": '{"_type": "set", "items": ["a"]}'}


@pytest.fixture
def folder(bucket: Bucket, strict_gcs: StrictGcs, tmp_path: Path) -> Iterator[Path]:
    """A mount of `FILES`, of which every third has a label; none was read."""
    with ThreadPoolExecutor(8) as threads:
        list(
            threads.map(
                lambda it: bucket.put(f"d/{it[1]}", FILES[it[1]], None if it[0] % 3 else LABELS), enumerate(FILES)
            )
        )
    options = ("--cache-dir", tmp_path / "cache")
    with mounted(f"{bucket.url}/d", *options, environment=strict_gcs.environment) as mount_point:
        strict_gcs.forget_requests()
        yield mount_point


def once(names: list[str]) -> bool:
    """Say whether none is there twice."""
    return max(Counter(names).values()) == 1


@pytest.mark.parametrize("command", ["cat *", "grep -rc x .", "tar c . | cat", "for f in *; do md5sum < $f; done"])
def test_a_walk_through_a_folder_fetches_each_file_once(command: str, folder: Path, strict_gcs: StrictGcs) -> None:
    subprocess.run(command, shell=True, cwd=folder, capture_output=True, timeout=60, check=False)
    wait_for_rest(folder)
    assert sorted(fetched_names(strict_gcs)) == sorted(FILES)
    figures = traffic(folder)
    assert figures["prefetch_files"] >= COUNT // 2
    assert figures["prefetch_used_bytes"] > 0
    assert figures["prefetch_wasted_bytes"] == 0


def test_what_a_walk_reads_is_right(folder: Path) -> None:
    for _ in range(2):
        assert {name: (folder / name).read_bytes() for name in sorted(FILES)} == FILES


def test_files_ahead_of_a_walk_are_fetched_many_at_a_time(folder: Path, strict_gcs: StrictGcs) -> None:
    names = sorted(FILES)
    for name in names[:4]:
        assert (folder / name).read_bytes() == FILES[name]
    held = strict_gcs.hold(is_content, times=None)
    with ThreadPoolExecutor(1) as threads:
        rest = threads.submit(lambda: [(folder / name).read_bytes() for name in names[4:]])
        assert held.arrived.wait(20)
        held.release()
        assert rest.result(30) == [FILES[name] for name in names[4:]]
    assert once(fetched_names(strict_gcs))


def test_a_walk_that_stops_is_not_followed_further(folder: Path, strict_gcs: StrictGcs) -> None:
    names = sorted(FILES)
    for name in names[:3]:
        assert (folder / name).read_bytes() == FILES[name]
    wait_for_rest(folder)
    fetched = fetched_names(strict_gcs)
    assert once(fetched)
    assert len(fetched) <= 3 + 16 + 4
    assert sorted(fetched) == names[: len(fetched)]
    os.listdir(folder)
    (folder / names[-1]).stat()
    wait_for_rest(folder)
    assert fetched_names(strict_gcs) == fetched


def test_a_file_here_and_there_is_fetched_alone(folder: Path, strict_gcs: StrictGcs) -> None:
    names = sorted(FILES)
    for place in (30, 3, 20, 11, 38):
        assert (folder / names[place]).read_bytes() == FILES[names[place]]
        os.listdir(folder)
    wait_for_rest(folder)
    assert len(fetches(strict_gcs)) == 5


def test_opening_the_same_file_again_and_again_fetches_no_other(folder: Path, strict_gcs: StrictGcs) -> None:
    for _ in range(5):
        assert (folder / "f007.txt").read_bytes() == FILES["f007.txt"]
    wait_for_rest(folder)
    assert fetched_names(strict_gcs) == ["f007.txt"]


@pytest.mark.parametrize("view", ["by-label/a", "by-label/a/by-ext/txt", "order-by/-name"])
def test_a_walk_through_a_view_fetches_its_members_only(view: str, folder: Path, strict_gcs: StrictGcs) -> None:
    members = sorted(name for name in os.listdir(folder / view) if name != ".octue")
    wanted = {name[-len("f000.txt") :] for name in members}
    for name in members:
        assert (folder / view / name).read_bytes() == FILES[name[-len("f000.txt") :]]
    wait_for_rest(folder)
    assert sorted(fetched_names(strict_gcs)) == sorted(wanted)
    assert traffic(folder)["prefetch_files"] > 0


def test_two_walks_at_once_fetch_each_file_once(folder: Path, strict_gcs: StrictGcs) -> None:
    names = sorted(FILES)

    def walk(part: list[str]) -> bool:
        return all((folder / name).read_bytes() == FILES[name] for name in part)

    with ThreadPoolExecutor(3) as threads:
        assert all(threads.map(walk, (names, names, names[20:])))
    wait_for_rest(folder)
    assert sorted(fetched_names(strict_gcs)) == names


def test_a_walk_goes_on_into_the_folders_that_follow_and_passes_by_what_is_large(
    bucket: Bucket, strict_gcs: StrictGcs, tmp_path: Path
) -> None:
    large = content(9, 17 * MIB)
    files = {f"folder{number // 8}/f{number:02}": content(number, 2 * KIB) for number in range(24)}
    for name, data in files.items():
        bucket.put(f"d/{name}", data)
    bucket.put("d/folder1/f08-large.bin", large)
    options = ("--cache-dir", tmp_path / "cache")
    with mounted(f"{bucket.url}/d", *options, environment=strict_gcs.environment) as root:
        for name, data in files.items():
            assert (root / name).read_bytes() == data
        wait_for_rest(root)
        assert sorted(it.name.removeprefix("d/") for it in fetches(strict_gcs)) == sorted(files)
        assert traffic(root)["prefetch_files"] >= len(files) // 2


def test_without_a_disk_cache_a_walk_fetches_each_file_once(bucket: Bucket, strict_gcs: StrictGcs) -> None:
    for name, data in FILES.items():
        bucket.put(f"d/{name}", data)
    with mounted(f"{bucket.url}/d", "--cache-size", "0", environment=strict_gcs.environment) as root:
        for name in sorted(FILES):
            assert (root / name).read_bytes() == FILES[name]
        wait_for_rest(root)
        assert sorted(fetched_names(strict_gcs)) == sorted(FILES)
        assert traffic(root)["prefetch_files"] >= COUNT // 2


def test_what_is_replaced_before_it_is_opened_is_read_as_it_is_then_or_as_it_was(folder: Path, bucket: Bucket) -> None:
    names = sorted(FILES)
    for name in names[:4]:
        assert (folder / name).read_bytes() == FILES[name]
    new = content(77, 5 * KIB)
    bucket.put(f"d/{names[6]}", new)
    (folder / ".octuefs" / "refresh").write_text("now\n")
    for name in names[4:]:
        assert (folder / name).read_bytes() == (new if name == names[6] else FILES[name])
