"""Files of a disk that the kernel reads and writes by itself: all who open one share it, and the index hears of it."""

import fcntl
import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount.datasets import crc32c
from mount.kernel_mounts import TRANSPORTS, Native, eventually, native, needs_passthrough

pytestmark = needs_passthrough

SIZE = 300_000
OLD = bytes(range(256)) * (SIZE // 256)


@pytest.fixture(scope="module", params=TRANSPORTS)
def mount(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Native]:
    folder = tmp_path_factory.mktemp("passthrough") / "dataset"
    folder.mkdir()
    with native(folder, io_uring=request.param) as it:
        assert it.status()["passthrough"] == "yes"
        yield it


@pytest.fixture
def source(mount: Native, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that is mounted."""
    (where,) = {line.split(" - ")[1].split()[1] for line in _mounts() if f" {mount.root} " in line}
    return Path(where)


def _mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()


@pytest.fixture
def name(request: pytest.FixtureRequest, mount: Native, source: Path) -> Iterator[str]:
    """A file of the test's own with `OLD` in it; all that was passed through to is let go at the end."""
    name = f"{request.node.originalname}.bin"
    (source / name).write_bytes(OLD)
    eventually(lambda: (mount / name).stat().st_size == len(OLD))
    yield name
    eventually(lambda: mount.passed_through == 0)


def assert_known(mount: Native, name: str, data: bytes) -> None:
    """A file's content, size and hash are at once what they should be, and so is what the index makes of them."""
    path = mount / name
    assert path.stat().st_size == len(data)
    assert path.read_bytes() == data
    assert os.getxattr(path, "user.octue.hash").decode() == crc32c(data)
    assert f"{crc32c(data)}  {name}\n" in (mount / ".hashes").read_text()
    assert name in os.listdir(mount / "filter" / f"size_bytes__equals={len(data)}")


def test_a_file_is_passed_through_for_as_long_as_it_is_open(mount: Native, name: str) -> None:
    with (mount / name).open("rb") as first:
        assert mount.passed_through == 1
        with (mount / name).open("rb") as second:
            assert mount.passed_through == 1
            assert first.read() == second.read() == OLD
        assert mount.passed_through == 1
    eventually(lambda: mount.passed_through == 0)


def test_no_read_and_no_write_of_what_is_passed_through_is_asked_for(mount: Native, name: str) -> None:
    with (mount / name).open("r+b", buffering=0) as file:
        with mount.asked() as asked:
            for number in range(20):
                assert os.pread(file.fileno(), 1000, number * 7000) == OLD[number * 7000 :][:1000]
                os.pwrite(file.fileno(), OLD[number * 7000 :][:1000], number * 7000)
        # A write asks whether there are privileges to take away, once for as long as the attributes are known.
        assert set(asked) <= {"getattr", "getxattr"}
        assert sum(asked.values()) <= 4


def test_readers_and_writers_of_one_file_share_it(mount: Native, name: str) -> None:
    path = mount / name
    with (
        path.open("rb", buffering=0) as reader,
        path.open("r+b", buffering=0) as both,
        path.open("ab", buffering=0) as appender,
        path.open("rb", buffering=0) as late,
    ):
        assert mount.passed_through == 1
        both.seek(5)
        both.write(b"HELLO")
        appender.write(b"at the end")
        for file in (reader, both, late):
            assert os.pread(file.fileno(), 10, 0) == OLD[:5] + b"HELLO"
            assert os.pread(file.fileno(), 100, len(OLD)) == b"at the end"
            assert os.fstat(file.fileno()).st_size == len(OLD) + 10
        assert path.stat().st_size == len(OLD) + 10
    assert_known(mount, name, OLD[:5] + b"HELLO" + OLD[10:] + b"at the end")


def test_truncating_while_it_is_read_shows_to_the_reader(mount: Native, name: str) -> None:
    path = mount / name
    with path.open("rb", buffering=0) as reader:
        assert os.pread(reader.fileno(), 3, 0) == OLD[:3]
        with path.open("wb", buffering=0) as writer:
            assert os.fstat(reader.fileno()).st_size == 0
            assert os.pread(reader.fileno(), 3, 0) == b""
            writer.write(b"new")
            assert os.pread(reader.fileno(), 10, 0) == b"new"
            assert os.fstat(reader.fileno()).st_size == 3
    assert_known(mount, name, b"new")


def test_a_new_file_is_known_with_its_bytes_right_after_its_close(mount: Native, name: str) -> None:
    for number in range(5):
        data = os.urandom(10_000 + number)
        new = f"new-{number}-{name}"
        (mount / new).write_bytes(data)
        assert_known(mount, new, data)


def test_each_close_of_a_writer_tells_size_time_and_hash(mount: Native, name: str) -> None:
    path = mount / name
    before = path.stat().st_mtime_ns
    data = OLD
    for number in range(5):
        with path.open("r+b", buffering=0) as file:
            file.seek(number * 50)
            file.write(b"#" * 50)
        data = b"#" * 50 * (number + 1) + OLD[50 * (number + 1) :]
        assert_known(mount, name, data)
        assert path.stat().st_mtime_ns > before
        before = path.stat().st_mtime_ns


def test_fsync_of_a_writer_makes_the_index_know_what_it_wrote(mount: Native, name: str) -> None:
    with (mount / name).open("r+b", buffering=0) as file:
        file.write(b"other")
        os.fsync(file.fileno())
        assert os.getxattr(mount / name, "user.octue.hash").decode() == crc32c(b"other" + OLD[5:])


def test_ftruncate_and_fallocate_of_what_is_passed_through_show_at_once(mount: Native, name: str) -> None:
    path = mount / name
    with path.open("r+b", buffering=0) as writer, path.open("rb", buffering=0) as reader:
        os.ftruncate(writer.fileno(), 10)
        assert os.pread(reader.fileno(), 100, 0) == OLD[:10]
        assert path.stat().st_size == 10
        os.posix_fallocate(writer.fileno(), 0, 20)
        assert os.pread(reader.fileno(), 100, 0) == OLD[:10] + bytes(10)
        assert os.fstat(reader.fileno()).st_size == path.stat().st_size == 20
    assert_known(mount, name, OLD[:10] + bytes(10))


def test_an_open_past_the_page_cache_joins_and_leaves_those_that_are_passed_through(mount: Native, name: str) -> None:
    path = mount / name
    with path.open("rb", buffering=0) as reader:
        assert reader.read(10) == OLD[:10]
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
        try:
            room = mmap.mmap(-1, 4096)
            assert os.preadv(descriptor, [room], 4096) == 4096
            assert room[:] == OLD[4096:8192]
        finally:
            os.close(descriptor)
        assert reader.read(10) == OLD[10:20]
        with path.open("rb", buffering=0) as late:
            assert late.read(10) == OLD[:10]


def test_a_writer_past_the_page_cache_and_a_reader_see_each_others_bytes(mount: Native, name: str) -> None:
    path = mount / name
    with path.open("rb", buffering=0) as reader:
        assert reader.read(10) == OLD[:10]
        descriptor = os.open(path, os.O_RDWR | os.O_DIRECT)
        try:
            room = mmap.mmap(-1, 4096)
            room[:] = b"d" * 4096
            assert os.pwritev(descriptor, [room], 0) == 4096
        finally:
            os.close(descriptor)
        assert os.pread(reader.fileno(), 4096, 0) == b"d" * 4096
    assert_known(mount, name, b"d" * 4096 + OLD[4096:])


def test_a_mapping_shows_what_others_write_and_others_see_what_is_written_to_it(mount: Native, name: str) -> None:
    path = mount / name
    with path.open("r+b", buffering=0) as file, path.open("r+b", buffering=0) as other:
        shared = mmap.mmap(file.fileno(), 0)
        private = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        assert shared[:] == private[:] == OLD
        other.write(b"written")
        assert shared[:7] == b"written"
        shared[100:103] = b"map"
        assert os.pread(other.fileno(), 3, 100) == b"map"
        private[0:3] = b"own"
        assert os.pread(other.fileno(), 7, 0) == b"written"
        private.close()
        shared.flush()
        shared.close()
    expected = b"written" + OLD[7:100] + b"map" + OLD[103:]
    eventually(lambda: os.getxattr(path, "user.octue.hash").decode() == crc32c(expected))
    assert_known(mount, name, expected)


def test_a_mapping_stays_true_after_its_file_was_closed_and_the_name_removed(mount: Native, name: str) -> None:
    with (mount / name).open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    (mount / name).unlink()
    (mount / name).write_bytes(b"another")
    assert mapped[:] == OLD
    assert_known(mount, name, b"another")
    mapped.close()


def test_a_file_that_was_unlinked_while_open_can_be_used_as_before(mount: Native, name: str) -> None:
    path = mount / name
    with path.open("r+b", buffering=0) as file:
        path.unlink()
        assert not path.exists()
        assert os.fstat(file.fileno()).st_size == len(OLD)
        assert os.fstat(file.fileno()).st_nlink == 0
        assert file.read(5) == OLD[:5]
        file.write(b"abc")
        assert os.pread(file.fileno(), 10, 0) == OLD[:5] + b"abc" + OLD[8:10]
        os.fchmod(file.fileno(), 0o600)
        assert os.fstat(file.fileno()).st_mode & 0o777 == 0o600
        os.ftruncate(file.fileno(), 7)
        assert os.fstat(file.fileno()).st_size == 7
        os.utime(file.fileno(), ns=(1, 10**18))
        assert os.fstat(file.fileno()).st_mtime_ns == 10**18
        os.fsync(file.fileno())
        assert os.pread(file.fileno(), 100, 0) == OLD[:5] + b"ab"
    assert name not in (mount / ".hashes").read_text()


def test_locks_hold_between_those_that_have_it_open(mount: Native, name: str) -> None:
    with (mount / name).open("rb") as one, (mount / name).open("rb") as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(one, fcntl.LOCK_UN)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_many_files_and_many_threads_open_and_close_and_nothing_is_left(mount: Native, name: str) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(20):
                path = mount / f"{(number + turn) % 4}-{name}"
                with path.open("a+b", buffering=0) as file:
                    file.write(b"x" * 100)
                    os.pread(file.fileno(), 10, 0)
                with path.open("rb") as file:
                    assert file.read(10) == b"x" * 10
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for number in range(4):
        assert_known(mount, f"{number}-{name}", b"x" * 100 * 40)
