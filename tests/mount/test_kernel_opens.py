"""Mounts whose opens the kernel answers itself: nobody is asked, and still nobody gets a mix or what is long past."""

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount.datasets import crc32c, set_hash
from mount.kernel_mounts import TRANSPORTS, Native, eventually, native, replace

from support.gcs import Bucket
from support.mounting import mounted, run_octuefs
from support.strict_gcs import StrictGcs

OLD, NEW = b"old " * 500_000, b"newer " * 500_000
ALREADY_READ = 100

PINNED = ("--read-only", "--opens", "kernel")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("opens") / "dataset"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.csv").write_text("1")
    return folder


@pytest.fixture(scope="module", params=TRANSPORTS)
def mount(source: Path, request: pytest.FixtureRequest) -> Iterator[Native]:
    with native(source, *PINNED, io_uring=request.param) as it:
        assert it.status()["opens"] == "kernel"
        yield it


@pytest.fixture
def name(request: pytest.FixtureRequest, mount: Native, source: Path) -> str:
    """A file of the test's own with `OLD` in it."""
    name = f"{request.node.originalname}.bin"
    replace(source / name, OLD)
    eventually(lambda: read_or_stale(mount / name) == OLD)
    return name


def read_or_stale(path: Path) -> bytes | None:
    """Read a file; None where it was replaced meanwhile, which who reads hears of where nobody hears of opens."""
    try:
        return path.read_bytes()
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        return None


def unseen(path: Path) -> int:
    """Open a file to read pieces that were not read before: nothing is read ahead, and its pages are let go."""
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return descriptor


def read_on(descriptor: int, expected: bytes) -> None:
    """Read all of a file by pieces: they are the expected, until it is said that the file is another by now."""
    for offset in range(0, len(expected), 300_000):
        end = min(offset + 5000, len(expected))
        while offset < end:
            try:
                piece = os.pread(descriptor, end - offset, offset)  # short before what is gone
            except OSError as error:
                if error.errno != errno.ESTALE:
                    raise
                return
            assert piece
            assert piece == expected[offset : offset + len(piece)]
            offset += len(piece)


def test_a_reader_of_a_file_that_was_replaced_gets_the_old_bytes_or_estale(
    mount: Native, source: Path, name: str
) -> None:
    descriptor = unseen(mount / name)
    try:
        assert os.pread(descriptor, ALREADY_READ, 0) == OLD[:ALREADY_READ]
        replace(source / name, NEW)
        read_on(descriptor, OLD)
        eventually(lambda: read_or_stale(mount / name) == NEW)
        read_on(descriptor, OLD)
    finally:
        os.close(descriptor)
    assert (mount / name).stat().st_size == len(NEW)
    assert os.getxattr(mount / name, "user.octue.hash").decode() == crc32c(NEW)


def test_a_file_that_grows_in_place_is_read_to_its_new_end(mount: Native, source: Path, name: str) -> None:
    data = OLD
    for number in range(5):
        with (source / name).open("ab") as file:
            file.write(b"more %d" % number)
        data += b"more %d" % number
        eventually(lambda data=data: read_or_stale(mount / name) == data)


def test_a_file_that_is_removed_is_gone_soon(mount: Native, source: Path, name: str) -> None:
    (source / name).unlink()
    eventually(lambda: not (mount / name).exists())
    eventually(lambda: name not in os.listdir(mount.root))


def test_texts_of_our_making_are_always_new_and_of_exact_size(mount: Native, source: Path, name: str) -> None:
    for number in range(5):
        data = b"%d" % number * 1000
        replace(source / name, data)
        eventually(lambda data=data: f"{crc32c(data)}  {name}" in (mount / ".hashes").read_text())
        for text in (".hash", ".hashes", "sub/.hash", ".octuefs/status", ".octuefs/errors"):
            with (mount / text).open("rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                content = file.read(1 << 20)
                assert len(content) == size, text
                assert file.read(10) == b""
    before = json.loads((mount / ".octuefs" / "status").read_bytes())["kernel"]["requests"]
    os.getxattr(mount / name, "user.octue.hash")
    after = json.loads((mount / ".octuefs" / "status").read_bytes())["kernel"]["requests"]
    assert after["getxattr"] == before.get("getxattr", 0) + 1


def test_a_hash_that_is_open_stays_what_it_was_and_opens_anew_as_what_it_is(
    mount: Native, source: Path, name: str
) -> None:
    with (mount / ".hashes").open("rb", buffering=0) as file:
        before = file.read()
        (source / "sub" / "a.csv").write_text("another")
        eventually(lambda: (mount / ".hashes").read_bytes() != before)
        assert os.pread(file.fileno(), 1 << 20, 0) == before
    (source / "sub" / "a.csv").write_text("1")
    eventually(lambda: (mount / "sub" / ".hash").read_text().strip() == crc32c(f"['{crc32c(b'1')}']".encode()))


def test_views_and_their_listings_follow(mount: Native, source: Path, name: str) -> None:
    view = mount / "by-ext" / "fresh"
    assert not view.exists()
    for number in range(3):
        (source / f"{number}.fresh").write_bytes(b"%d" % number)
        eventually(lambda number=number: len(os.listdir(view)) == number + 1)
        assert (view / f"{number}.fresh").read_bytes() == b"%d" % number
    for number in range(3):
        (source / f"{number}.fresh").unlink()
    eventually(lambda: "fresh" not in os.listdir(mount / "by-ext"))


def test_refresh_works_where_nothing_can_be_written(mount: Native, source: Path, name: str) -> None:
    (source / "refreshed.txt").write_text("x")
    assert run_octuefs("refresh", mount.root).returncode == 0
    assert (mount / "refreshed.txt").read_text() == "x"
    assert "refreshed.txt" in os.listdir(mount.root)
    (source / "refreshed.txt").unlink()


def test_nothing_can_be_written(mount: Native, name: str) -> None:
    for attempt in (
        lambda: (mount / name).open("r+b"),
        lambda: (mount / "new").open("wb"),
        lambda: (mount / name).unlink(),
        lambda: (mount / name).chmod(0o600),
        lambda: os.truncate(mount / name, 0),
        lambda: os.setxattr(mount / name, "user.octue.labels", b"a"),
    ):
        with pytest.raises(OSError, match="Read-only") as failure:
            attempt()
        assert failure.value.errno == errno.EROFS


@pytest.mark.parametrize("io_uring", TRANSPORTS)
def test_a_reader_of_an_object_that_was_overwritten_gets_the_old_bytes_or_estale(
    bucket: Bucket, strict_gcs: StrictGcs, io_uring: str
) -> None:
    old, new = b"o" * (6 << 20), b"n" * (6 << 20)
    bucket.put("d/big.bin", old)
    with native(f"{bucket.url}/d", *PINNED, io_uring=io_uring, environment=strict_gcs.environment) as mount:
        path = mount / "big.bin"
        descriptor = unseen(path)
        try:
            assert os.pread(descriptor, ALREADY_READ, 0) == old[:ALREADY_READ]
            bucket.put("d/big.bin", new)
            read_on(descriptor, old)
            assert run_octuefs("refresh", mount.root).returncode == 0
            eventually(lambda: read_or_stale(path) == new)
            read_on(descriptor, old)
        finally:
            os.close(descriptor)
        assert os.getxattr(path, "user.octue.hash").decode() == crc32c(new)
        assert (mount / ".hash").read_text().strip() == crc32c(str([crc32c(new)]).encode())


def test_an_object_that_was_overwritten_unknown_to_us_is_read_anew_after_one_estale(
    bucket: Bucket, strict_gcs: StrictGcs
) -> None:
    bucket.put("d/a.csv", b"old")
    with native(f"{bucket.url}/d", *PINNED, environment=strict_gcs.environment) as mount:
        assert (mount / "a.csv").stat().st_size == 3
        bucket.put("d/a.csv", b"newer")
        # The read that finds out makes the mount look again, and nobody has to say `refresh`.
        eventually(lambda: read_or_stale(mount / "a.csv") == b"newer")
        assert (mount / "a.csv").stat().st_size == 5


def test_a_dataset_out_of_reach_is_an_error_and_not_an_empty_folder(
    bucket: Bucket, strict_gcs: StrictGcs, source: Path
) -> None:
    bucket.put("d/a.csv", b"x")
    strict_gcs.fail(403, when=lambda request: request.bucket == bucket.name, times=None)
    sources = (f"far={bucket.url}/d", f"near={source}")
    with mounted(sources[0], "--driver", "kernel", *PINNED, sources[1], environment=strict_gcs.environment) as point:
        assert sorted(it for it in os.listdir(point) if not it.startswith(".")) == ["far", "near"]
        assert "sub" in os.listdir(point / "near")
        with pytest.raises(OSError, match=r".") as failure:
            os.listdir(point / "far")
        assert failure.value.errno != errno.ENOENT
        listed = subprocess.run(["ls", point / "far"], capture_output=True, text=True)
        assert listed.returncode != 0
        assert listed.stdout == ""


def test_the_whole_hash_is_that_of_all_files(mount: Native, source: Path) -> None:
    class Stored:
        def __init__(self, path: Path) -> None:
            self.hash = crc32c(path.read_bytes())

    def true() -> bool:
        files = [Stored(path) for path in source.rglob("*") if path.is_file()]
        return (mount / ".hash").read_text().strip() == set_hash(files)  # type: ignore[arg-type]

    eventually(true)
