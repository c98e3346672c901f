"""An open file of a local folder as a driver uses it: read at once, lent, copied, and changed without a name."""

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from contract.places import Folder, Listed

from octuefs.errors import LocalFailure, NotPermitted, OctuefsError, Unsupported, to_errno
from octuefs.model.paths import LocalLocation
from octuefs.stores import descriptor
from octuefs.stores.base import DiskSource
from octuefs.stores.in_memory import lies_in_memory
from octuefs.stores.local import LocalStore
from octuefs.stores.local_file import LocalFile
from octuefs.stores.writing import DiskFile
from octuefs.writing.base import DiskOpenFile, Unnamed
from octuefs.writing.local_open import LocalOpenFile

DATA = bytes(range(256)) * 40


@pytest.fixture
def file(folder: Folder) -> Iterator[LocalFile]:
    folder.put("f", DATA)
    opened = folder.store.open_file("f", os.O_RDWR)
    yield opened
    opened.close()


def open_file(file: DiskFile) -> LocalOpenFile:
    return LocalOpenFile(file, "f", lambda _: None, lambda _: None, lambda _: None)


def read_now(source: DiskSource, offset: int, size: int) -> bytes | None:
    room = bytearray(size)
    number = source.read_now(offset, memoryview(room))
    return None if number is None else bytes(room[:number])


def test_what_a_folder_opens_is_a_source_of_a_disk(folder: Folder, file: LocalFile) -> None:
    assert isinstance(folder.store.open(folder.store.stat("f")), DiskSource)
    assert isinstance(open_file(file), DiskOpenFile)
    assert not isinstance(file, DiskOpenFile)
    assert isinstance(file, Unnamed)
    assert isinstance(open_file(file), Unnamed)


def test_a_listed_file_of_a_disk_is_one_too(folder: Folder) -> None:
    folder.put("f", DATA)
    place = Listed(folder)
    source = place.store.open(place.store.stat("f"))
    assert isinstance(source, DiskSource)
    assert not isinstance(source, Unnamed)
    assert source.read(250, 12) == DATA[250:262]
    assert read_now(source, 0, 10) in (DATA[:10], None)
    with source.lend() as fd:
        assert os.fstat(fd).st_size == len(DATA)
    source.close()
    place.close()


# --- reading


def test_bytes_at_hand_are_read_without_waiting(file: LocalFile) -> None:
    if read_now(file, 0, 1) is None:
        pytest.skip("this file system cannot say what is at hand")
    assert read_now(file, 250, 12) == DATA[250:262]
    assert read_now(file, len(DATA) - 3, 12) == DATA[-3:]
    assert read_now(file, len(DATA), 12) == b""


def test_bytes_that_are_not_at_hand_are_not_waited_for(folder: Folder, tmp_path: Path) -> None:
    folder.put("f", DATA)
    with open(folder.path / "f", "rb+") as cached:
        os.fsync(cached.fileno())
        os.posix_fadvise(cached.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    opened = folder.store.open_file("f", os.O_RDONLY)
    with suppress(OSError):
        assert read_now(opened, 0, len(DATA)) in (None, DATA)
    assert opened.read(0, len(DATA)) == DATA
    opened.close()


class Preadv:
    """preadv(2) that answers as it is told."""

    def __init__(self, *answers: int | OSError) -> None:
        self.answers = list(answers)

    def __call__(self, fd: int, buffers: list[memoryview], offset: int, flags: int) -> int:
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        buffers[0][:answer] = DATA[offset : offset + answer]
        return answer


def test_a_short_count_before_the_end_is_asked_for_the_rest(file: LocalFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "preadv", Preadv(4, 3, 0, 4, 6))
    assert read_now(file, 0, 10) == DATA[:7]
    assert read_now(file, 5, 10) == DATA[5:15]


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EOPNOTSUPP])
def test_where_some_of_it_is_not_at_hand_nothing_is(
    file: LocalFile, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "preadv", Preadv(4, OSError(number, "")))
    assert read_now(file, 0, 10) is None


def test_a_file_in_memory_is_at_hand_though_its_file_system_cannot_say_so() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as in_memory:
        path = os.path.join(in_memory, "f")
        Path(path).write_bytes(DATA)
        assert lies_in_memory(os.stat(path).st_dev)
        file = LocalStore(LocalLocation(in_memory)).open_file("f", os.O_RDONLY)
        try:
            assert read_now(file, 10, 100) == DATA[10:110]
            assert read_now(file, len(DATA) - 5, 100) == DATA[-5:]
        finally:
            file.close()


def test_where_the_system_cannot_read_without_waiting_it_does_not(
    file: LocalFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptor, "_RWF_NOWAIT", 0)
    assert read_now(file, 0, 10) is None


def test_a_failure_of_the_disk_is_one_of_ours(file: LocalFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "preadv", Preadv(OSError(errno.EIO, "")))
    with pytest.raises(LocalFailure):
        read_now(file, 0, 10)


# --- lending


def test_a_lent_descriptor_stays_open_though_the_file_is_closed_meanwhile(file: LocalFile) -> None:
    with file.lend() as fd:
        file.close()
        assert os.pread(fd, 4, 0) == DATA[:4]
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    with pytest.raises(OctuefsError) as failure, file.lend():
        pass
    assert to_errno(failure.value) == errno.EBADF


def test_what_was_written_through_a_lent_descriptor_is_told_with_the_flush(folder: Folder, file: LocalFile) -> None:
    told = []
    opened = LocalOpenFile(file, "f", lambda it: told.append(it.info().size), lambda _: None, lambda _: None)
    with opened.lend() as fd:
        os.pwrite(fd, b"more", len(DATA))
    opened.flush()
    assert told == []
    opened.mark_written()
    opened.flush()
    opened.flush()
    assert told == [len(DATA) + 4]


@pytest.mark.skipif(os.geteuid() != 0, reason="the system does it for others")
def test_setuid_goes_when_somebody_writes_through_the_descriptor(folder: Folder) -> None:
    folder.put("f", DATA)
    (folder.path / "f").chmod(0o4755)
    opened = open_file(folder.store.open_file("f", os.O_RDWR))
    opened.mark_written()
    assert stat.S_IMODE((folder.path / "f").stat().st_mode) == 0o755
    opened.close()


# --- copying


def test_bytes_are_copied_from_one_file_to_another(folder: Folder, file: LocalFile) -> None:
    target = open_file(folder.store.open_file("g", os.O_RDWR | os.O_CREAT, 0o4755))
    (folder.path / "g").chmod(0o4755)
    assert target.copy_from(file, 10, 100, 300) == 300
    assert (folder.path / "g").read_bytes() == bytes(100) + DATA[10:310]
    assert target.dirty
    assert stat.S_IMODE((folder.path / "g").stat().st_mode) == 0o755
    assert target.copy_from(file, len(DATA), 0, 10) == 0
    target.close()


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP])
def test_what_the_system_does_not_copy_is_to_be_read_and_written(
    file: LocalFile, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    with pytest.raises(Unsupported) as failure:
        file.copy_from(file, 0, 0, 10)
    assert to_errno(failure.value) == errno.EOPNOTSUPP


# --- without a name


def test_a_file_without_a_name_has_its_mode_and_times_changed(folder: Folder, file: LocalFile) -> None:
    os.unlink(folder.path / "f")
    opened = open_file(file)
    opened.set_mode(0o640)
    opened.set_times((None, 5_000_000_007))
    opened.set_times((6_000_000_007, None))
    info = opened.info()
    assert (stat.S_IMODE(info.mode), info.mtime_ns, info.links) == (0o640, 5_000_000_007, 0)
    with file.lend() as fd:
        assert os.fstat(fd).st_atime_ns == 6_000_000_007


def test_a_file_without_a_name_has_its_owner_changed(folder: Folder, file: LocalFile) -> None:
    os.unlink(folder.path / "f")
    opened = open_file(file)
    if os.geteuid() == 0:
        opened.set_owner(1234, -1)
        assert opened.info().uid == 1234
    else:
        with pytest.raises(NotPermitted):
            opened.set_owner(1234, -1)


def test_who_asked_is_told_that_the_file_is_closed(file: LocalFile) -> None:
    told: list[str] = []
    opened = open_file(file)
    opened.when_closed(lambda: told.append("closed"))
    opened.flush()
    assert told == []
    opened.close()
    assert told == ["closed"]
