"""How often the native driver is asked: what the kernel knows already costs no request."""

import ctypes
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount.kernel_mounts import TRANSPORTS, Native, native

FILES = 100


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("requests") / "dataset"
    (folder / "sub").mkdir(parents=True)
    for number in range(FILES):
        (folder / "sub" / f"{number:03}.csv").write_text(str(number))
    return folder


@pytest.fixture(scope="module", params=TRANSPORTS)
def writable(source: Path, request: pytest.FixtureRequest) -> Iterator[Native]:
    with native(source, io_uring=request.param) as mount:
        yield mount


@pytest.fixture(scope="module", params=TRANSPORTS)
def read_only(source: Path, request: pytest.FixtureRequest) -> Iterator[Native]:
    with native(source, "--read-only", io_uring=request.param) as mount:
        yield mount


def test_a_long_listing_costs_no_look_up_and_no_attributes(source: Path) -> None:
    with native(source) as mount:
        (mount / "sub").stat()
        with mount.asked() as asked:
            lines = subprocess.run(["ls", "-l", mount / "sub"], capture_output=True, text=True, check=True).stdout
        assert len(lines.splitlines()) == FILES + 1
        # coreutils asks each file for an ACL or SELinux attribute, which only we can know nothing of.
        assert set(asked) - {"getxattr"} == {"opendir", "readdirplus"}
        assert asked["readdirplus"] <= 4


def test_a_name_that_was_looked_up_costs_nothing_again(writable: Native) -> None:
    file = writable / "sub" / "001.csv"
    file.stat()
    with writable.asked() as asked:
        for _ in range(10):
            file.stat()
    assert asked == {}


def test_a_name_that_is_not_there_is_asked_for_once_in_a_second_at_most(writable: Native) -> None:
    missing = writable / "sub" / "missing.csv"
    with writable.asked() as asked:
        for _ in range(50):
            assert not missing.exists()
    assert asked.get("lookup", 0) <= 10
    assert set(asked) <= {"lookup", "getattr"}


def test_a_listing_that_was_read_is_not_read_again(writable: Native) -> None:
    expected = sorted(os.listdir(writable / "sub"))
    with writable.asked() as asked:
        for _ in range(5):
            assert sorted(os.listdir(writable / "sub")) == expected
    assert asked["opendir"] == 5
    assert set(asked) <= {"opendir", "getattr"}


def test_a_file_that_is_read_again_is_opened_and_nothing_more(writable: Native) -> None:
    file = writable / "sub" / "002.csv"
    assert file.read_bytes() == b"2"
    with writable.asked() as asked:
        for _ in range(5):
            assert file.read_bytes() == b"2"
    assert asked.pop("open") == 5
    # The page cache is not trusted with the size of a file that others may write to, and that is asked for with each.
    assert set(asked) <= {"getattr"}
    assert asked.get("getattr", 0) <= 5


def test_reading_a_read_only_mount_of_small_files_again_costs_nothing(read_only: Native) -> None:
    assert read_only.status()["opens"] == "kernel"
    for path in (read_only / "sub").iterdir():
        path.read_bytes()
    with read_only.asked() as asked:
        for _ in range(2):
            for number in range(FILES):
                assert (read_only / "sub" / f"{number:03}.csv").read_text() == str(number)
    assert asked == {}


def test_a_first_read_of_a_file_whose_open_the_kernel_answers_is_one_request(source: Path) -> None:
    with native(source, "--read-only", "--opens", "kernel") as mount:
        os.listdir(mount / "sub")
        (mount / "sub" / "003.csv").stat()
        with mount.asked() as asked:
            assert (mount / "sub" / "003.csv").read_bytes() == b"3"
        assert asked == {"read": 1}


def test_a_listing_of_a_read_only_mount_that_was_read_costs_nothing(read_only: Native) -> None:
    expected = os.listdir(read_only / "sub")
    with read_only.asked() as asked:
        assert os.listdir(read_only / "sub") == expected
    assert asked == {}


def test_opens_that_the_daemon_answers_cost_one_request_each(source: Path) -> None:
    with native(source, "--read-only", "--opens", "daemon") as mount:
        assert mount.status()["opens"] == "daemon"
        file = mount / "sub" / "004.csv"
        assert file.read_bytes() == b"4"
        with mount.asked() as asked:
            for _ in range(5):
                assert file.read_bytes() == b"4"
        assert asked == {"open": 5}


def test_attributes_of_the_sdk_cost_one_request_each_and_names_none(writable: Native) -> None:
    file = writable / "sub" / "005.csv"
    file.stat()
    with writable.asked() as asked:
        for _ in range(3):
            os.getxattr(file, "user.octue.hash")
    assert asked == {"getxattr": 3}


_libc = ctypes.CDLL(None, use_errno=True)


def getxattr(file: Path, name: str, room: int) -> bytes | int:
    """Return an attribute of at most `room` bytes, or its length for a room of none, or -1; as getxattr(2)."""
    buffer = ctypes.create_string_buffer(room) if room else None
    length: int = _libc.getxattr(os.fsencode(file), name.encode(), buffer, room)
    return buffer.raw[:length] if buffer is not None and length >= 0 else length


def test_an_attribute_whose_length_was_asked_for_is_told_as_it_is_then(writable: Native) -> None:
    file = writable / "sub" / "004.csv"
    for name in ("user.octue.labels", "user.other"):
        os.setxattr(file, name, b"one")
        for value in (b"two", b"three"):
            before = os.getxattr(file, name)
            assert getxattr(file, name, 0) == len(before)
            os.setxattr(file, name, value)
            assert getxattr(file, name, 100) == value
        assert getxattr(file, name, 0) == 5
        os.removexattr(file, name)
        assert getxattr(file, name, 100) == -1


def test_an_attribute_is_asked_for_twice_and_told_the_same(writable: Native) -> None:
    first, second = writable / "sub" / "005.csv", writable / "sub" / "006.csv"
    os.setxattr(first, "user.octue.labels", b"one")
    os.setxattr(second, "user.octue.labels", b"another")
    for _ in range(3):
        assert getxattr(first, "user.octue.labels", 0) == 3
        assert getxattr(second, "user.octue.labels", 100) == b"another"
        assert getxattr(first, "user.octue.labels", 100) == b"one"
        assert getxattr(first, "user.octue.labels", 0) == 3
        assert getxattr(first, "user.octue.labels", 2) == -1
        assert ctypes.get_errno() == errno.ERANGE
