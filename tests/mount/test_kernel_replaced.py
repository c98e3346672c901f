"""Files that are replaced while programs have them open: the old handle has the old bytes, a new one the new."""

import errno
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount.datasets import crc32c
from mount.kernel_mounts import TRANSPORTS, Native, eventually, native, replace

OLD, NEW = b"old " * 20_000, b"newer " * 30_000


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replaced") / "dataset"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module", params=TRANSPORTS)
def mount(source: Path, request: pytest.FixtureRequest) -> Iterator[Native]:
    with native(source, io_uring=request.param) as it:
        yield it


@pytest.fixture
def name(request: pytest.FixtureRequest, mount: Native, source: Path) -> str:
    """A file of the test's own with `OLD` in it."""
    name = f"{request.node.originalname}.bin"
    (source / name).write_bytes(OLD)
    eventually(lambda: (mount / name).read_bytes() == OLD)
    return name


def all_known(mount: Native, names: list[str]) -> bool:
    """Say whether the kernel knows these names by heart."""
    for name in names:
        (mount / name).stat()
    with mount.asked() as asked:
        for name in names:
            (mount / name).stat()
    return asked == {}


def test_replaced_through_the_mount_each_handle_keeps_its_own(mount: Native, name: str) -> None:
    path = mount / name
    with path.open("rb", buffering=0) as old:
        replace(path, NEW)
        with path.open("rb", buffering=0) as new:
            assert (old.read(), new.read()) == (OLD, NEW)
            assert os.fstat(old.fileno()).st_size == len(OLD)
            assert os.fstat(new.fileno()).st_size == path.stat().st_size == len(NEW)
            assert os.fstat(old.fileno()).st_ino != os.fstat(new.fileno()).st_ino == path.stat().st_ino


def test_replaced_in_the_source_each_handle_keeps_its_own(mount: Native, source: Path, name: str) -> None:
    path = mount / name
    with path.open("rb", buffering=0) as old:
        assert old.read(3) == OLD[:3]
        replace(source / name, NEW)
        # No waiting: what is opened is the new one, or still the old one, and never neither.
        assert path.read_bytes() in (OLD, NEW)
        eventually(lambda: path.read_bytes() == NEW)
        assert os.pread(old.fileno(), len(OLD) + 1, 0) == OLD
        assert os.fstat(old.fileno()).st_size == len(OLD)
        assert path.stat().st_size == len(NEW)


def test_replaced_again_and_again_while_old_ones_stay_open(mount: Native, source: Path, name: str) -> None:
    path = mount / name
    opened = []
    try:
        for number in range(12):
            data = f"version {number} ".encode() * 3000
            replace((source if number % 2 else mount.root) / name, data)
            eventually(lambda data=data: path.read_bytes() == data)
            opened.append((path.open("rb", buffering=0), data))
            for file, content in opened:
                assert os.pread(file.fileno(), 1 << 20, 0) == content
    finally:
        for file, _ in opened:
            file.close()
    assert path.read_bytes() == data
    assert os.getxattr(path, "user.octue.hash").decode() == crc32c(data)


def test_what_is_written_to_a_replaced_file_does_not_reach_the_new_one(mount: Native, source: Path, name: str) -> None:
    path = mount / name
    with path.open("r+b", buffering=0) as old:
        replace(source / name, NEW)
        eventually(lambda: path.read_bytes() == NEW)
        old.write(b"into nowhere")
        os.fsync(old.fileno())
        assert os.pread(old.fileno(), 12, 0) == b"into nowhere"
        assert path.read_bytes() == NEW
    assert path.read_bytes() == NEW
    assert (source / name).read_bytes() == NEW
    eventually(lambda: os.getxattr(path, "user.octue.hash").decode() == crc32c(NEW))


def test_what_was_replaced_in_the_source_can_be_opened_at_once(mount: Native, source: Path, name: str) -> None:
    for number in range(100):
        replace(source / name, OLD * (number % 2) + NEW)
        assert set((mount / name).read_bytes()) <= set(OLD + NEW)


def test_readers_never_mix_while_a_file_is_replaced_all_the_time(mount: Native, source: Path, name: str) -> None:
    """Each version is of one letter, so that two in what was read from one handle would be seen.

    The kernel tries an open twice; where both meet a change, ESTALE is what is left to say.
    """
    path, ended = mount / name, threading.Event()
    failures: list[BaseException] = []
    replace(source / name, b"a" * 50_000)
    eventually(lambda: path.read_bytes() == b"a" * 50_000)

    def look() -> None:
        while not ended.is_set():
            try:
                with path.open("rb", buffering=0) as file:
                    data = file.read(25_000)
                    data += file.read(50_000)
                    assert len(set(data)) == 1
                    assert len(data) == os.fstat(file.fileno()).st_size == 50_000 + data[0] - ord("a")
            except BaseException as error:
                if not (isinstance(error, OSError) and error.errno == errno.ESTALE):
                    failures.append(error)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(60):
            letter = number % 20
            where = mount.root if number % 3 == 0 else source
            replace(where / name, bytes([ord("a") + letter]) * (50_000 + letter))
    finally:
        ended.set()
        for thread in threads:
            thread.join(30)
    assert failures == []
    last = bytes([ord("a") + 59 % 20]) * (50_000 + 59 % 20)
    eventually(lambda: path.read_bytes() == last)


def test_a_name_that_was_made_anew_while_the_old_one_is_open_leads_to_the_new(mount: Native, name: str) -> None:
    path = mount / name
    with path.open("r+b", buffering=0) as old:
        path.unlink()
        path.write_bytes(NEW)
        assert old.read() == OLD
        assert path.read_bytes() == NEW
        old.write(b"more")
        assert path.stat().st_size == len(NEW)
    assert path.read_bytes() == NEW


def test_exclusive_and_creating_opens_of_what_is_replaced_or_removed_in_the_source(
    mount: Native, source: Path, name: str
) -> None:
    path = mount / name
    for number in range(20):
        (source / name).unlink()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.write(descriptor, b"%d" % number)
        os.close(descriptor)
        assert path.read_bytes() == b"%d" % number
        with pytest.raises(FileExistsError):
            os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)


def test_a_name_that_was_moved_away_in_the_source_can_be_made_anew_at_once(
    mount: Native, source: Path, name: str
) -> None:
    for number in range(20):
        (mount / f"old-{number}-{name}").write_bytes(OLD)
    eventually(lambda: all_known(mount, [f"old-{number}-{name}" for number in range(20)]))
    for number in range(20):
        old, new = f"old-{number}-{name}", f"new-{number}-{name}"
        (source / old).rename(source / new)
        assert (mount / new).read_bytes() == OLD
        (mount / old).write_bytes(NEW)
        assert (source / new).read_bytes() == OLD
        assert (source / old).read_bytes() == NEW
        assert ((mount / new).read_bytes(), (mount / old).read_bytes()) == (OLD, NEW)


def test_one_of_two_names_that_was_removed_in_the_source_can_be_made_anew_at_once(
    mount: Native, source: Path, name: str
) -> None:
    other = f"{uuid.uuid4().hex}-{name}"
    (source / other).hardlink_to(source / name)
    eventually(lambda: (mount / other).read_bytes() == OLD)
    eventually(lambda: all_known(mount, [name, other]))
    (source / name).unlink()
    (mount / name).write_bytes(NEW)
    assert (source / other).read_bytes() == OLD
    assert ((mount / name).read_bytes(), (mount / other).read_bytes()) == (NEW, OLD)


def test_a_folder_that_is_replaced_in_the_source_leads_to_the_new_ones_files(
    mount: Native, source: Path, name: str
) -> None:
    folder = f"{name.removesuffix('.bin')}-{uuid.uuid4().hex}"
    (source / folder).mkdir()
    (source / folder / "a").write_bytes(OLD)
    eventually(lambda: (mount / folder / "a").read_bytes() == OLD)
    with (mount / folder / "a").open("rb", buffering=0) as old:
        (source / folder).rename(source / f"{folder}-before")
        (source / folder).mkdir()
        (source / folder / "a").write_bytes(NEW)
        eventually(lambda: (mount / folder / "a").read_bytes() == NEW)
        eventually(lambda: (mount / f"{folder}-before" / "a").read_bytes() == OLD)
        assert old.read() == OLD
        assert (mount / f"{folder}-before" / "a").stat().st_ino == os.fstat(old.fileno()).st_ino
