"""Objects: a node stands for one version, so that who has it open never gets a mix of two."""

import errno
import os
from collections.abc import Iterator

import pytest
from mount.datasets import crc32c
from mount.kernel_mounts import Native, by_each_transport, eventually, native

from support.gcs import Bucket
from support.mounting import run_octuefs
from support.strict_gcs import StrictGcs

OLD, NEW = b"old " * 500_000, b"newer " * 500_000


@pytest.fixture
def mount(bucket: Bucket, strict_gcs: StrictGcs, io_uring: str) -> Iterator[Native]:
    bucket.put("d/a.bin", OLD)
    with native(f"{bucket.url}/d", io_uring=io_uring, environment=strict_gcs.environment) as it:
        assert (it / "a.bin").read_bytes() == OLD
        yield it


def old_or_stale(descriptor: int, size: int, offset: int, old: bytes) -> None:
    """Read of a version that may be gone from the bucket: its own bytes, or that it is gone."""
    try:
        data = os.pread(descriptor, size, offset)
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        return
    assert data == old[offset : offset + size]


@by_each_transport
def test_an_object_that_was_read_is_read_again_without_asking_the_bucket(mount: Native, strict_gcs: StrictGcs) -> None:
    strict_gcs.forget_requests()
    with (mount / "a.bin").open("rb", buffering=0) as file:
        with mount.asked() as asked:
            assert file.read() == OLD
        assert "read" not in asked
    assert strict_gcs.requests == []


@by_each_transport
def test_an_object_that_is_read_for_the_first_time_is_read_to_its_end(
    mount: Native, bucket: Bucket, strict_gcs: StrictGcs
) -> None:
    bucket.put("d/fresh.bin", NEW)
    assert run_octuefs("refresh", mount.root).returncode == 0
    with (mount / "fresh.bin").open("rb", buffering=0) as first:
        assert first.read(10) == NEW[:10]
        assert first.read() == NEW[10:]
        with (mount / "fresh.bin").open("rb", buffering=0) as second:  # whole by now, while the first is as it was
            assert second.read() == NEW
            assert os.pread(first.fileno(), 10, 0) == NEW[:10]


@by_each_transport
def test_an_object_that_is_overwritten_while_it_is_open_is_never_a_mix(mount: Native, bucket: Bucket) -> None:
    path = mount / "a.bin"
    with path.open("rb", buffering=0) as old:
        assert old.read(10) == OLD[:10]
        bucket.put("d/a.bin", NEW)
        assert run_octuefs("refresh", mount.root).returncode == 0
        eventually(lambda: path.stat().st_size == len(NEW))
        assert path.read_bytes() == NEW
        with path.open("rb", buffering=0) as new:
            assert new.read() == NEW
            for offset in range(0, len(OLD), 300_000):
                old_or_stale(old.fileno(), 5000, offset, OLD)
                assert os.pread(new.fileno(), 5000, offset) == NEW[offset : offset + 5000]
            assert os.fstat(new.fileno()).st_size == len(NEW)
    assert os.getxattr(path, "user.octue.hash").decode() == crc32c(NEW)


@by_each_transport
def test_a_writer_joins_readers_and_nobody_gets_a_mix(mount: Native, bucket: Bucket) -> None:
    path = mount / "a.bin"
    with path.open("rb", buffering=0) as reader:
        assert reader.read(10) == OLD[:10]
        with path.open("r+b", buffering=0) as writer:
            writer.write(b"written")
            assert os.pread(writer.fileno(), 10, 0) == b"written" + OLD[7:10]
            with path.open("rb", buffering=0) as late:
                assert os.pread(late.fileno(), 10, 0) == b"written" + OLD[7:10]
        assert path.read_bytes() == b"written" + OLD[7:]
        assert bucket.get("d/a.bin") == b"written" + OLD[7:]
        assert os.pread(reader.fileno(), 10, 0) in (OLD[:10], b"written" + OLD[7:10])
    assert path.read_bytes() == b"written" + OLD[7:]
    assert os.getxattr(path, "user.octue.hash").decode() == crc32c(b"written" + OLD[7:])


@by_each_transport
def test_an_object_that_is_renamed_or_removed_while_it_is_open_is_its_old_self_or_gone(mount: Native) -> None:
    path = mount / "a.bin"
    with path.open("rb", buffering=0) as reader:
        path.rename(mount / "moved.bin")
        assert reader.read(10) == OLD[:10]
        assert (mount / "moved.bin").read_bytes() == OLD
        (mount / "moved.bin").unlink()
        old_or_stale(reader.fileno(), 5000, 1_000_000, OLD)
        path.write_bytes(NEW)
        old_or_stale(reader.fileno(), 5000, 500_000, OLD)
    assert path.read_bytes() == NEW
