"""Staged files: a sparse file, its checksum, and what an uploader may rely on meanwhile."""

import errno
import os
import random
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octuefs.content import pieces
from octuefs.content.staging import StagedFile
from octuefs.errors import AlreadyExists, ChecksumMismatch, LocalFailure, NotFound, StoreUnavailable


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "staged"


@pytest.fixture
def file(path: Path) -> Iterator[StagedFile]:
    file = StagedFile(path)
    yield file
    file.close()


def whole(file: StagedFile) -> bytes:
    return file.read(file.first, file.size)


def crc(data: bytes) -> int:
    return int(google_crc32c.value(data))


def test_it_is_private_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        StagedFile(path).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_new_one_replaces_none_and_an_existing_one_must_exist(path: Path, tmp_path: Path, file: StagedFile) -> None:
    with pytest.raises(AlreadyExists, match="staged"):
        StagedFile(path)
    with pytest.raises(NotFound, match="gone"):
        StagedFile(tmp_path / "gone", existing=True)


def test_an_existing_one_has_its_bytes_and_no_checksum_until_computed(path: Path, file: StagedFile) -> None:
    file.write(0, b"abcdef")
    again = StagedFile(path, existing=True)
    assert (again.size, again.crc32c, again.written_in_order) == (6, None, 0)
    assert again.compute_crc32c() == again.crc32c == crc(b"abcdef")
    again.close()
    tail = StagedFile(path, first=4, existing=True)
    assert (tail.size, whole(tail), tail.compute_crc32c()) == (6, b"ef", crc(b"ef"))
    tail.close()
    none = StagedFile(path, first=9, existing=True)
    assert (none.size, whole(none), none.crc32c) == (9, b"", 0)
    none.close()


def test_what_is_written_in_order_has_its_checksum_at_once(file: StagedFile) -> None:
    assert file.crc32c == 0
    assert file.write(0, b"abc") == 3
    assert file.write(3, b"def") == 3
    assert file.write(6, b"") == 0
    assert (file.size, file.crc32c, file.written_in_order) == (6, crc(b"abcdef"), 6)
    assert file.read(2, 100) == b"cdef"
    assert file.read(6, 100) == file.read(100, 1) == b""
    assert file.body()(1, 2) == b"bc"


def test_a_gap_is_zeros_and_the_checksum_waits_until_it_is_filled(file: StagedFile) -> None:
    file.write(0, b"abc")
    file.write(5, b"fg")
    assert (file.size, file.crc32c, file.written_in_order, file.rewrites) == (7, None, 3, 0)
    assert whole(file) == b"abc\0\0fg"
    file.write(3, b"defg")
    assert (file.crc32c, file.written_in_order) == (crc(b"abcdefg"), 7)


def test_a_computed_checksum_is_kept_until_the_next_change_and_grows_on(
    file: StagedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write(0, b"abc")
    file.truncate(2_000_000)
    file.write(1_500_000, b"x")
    content = whole(file)
    assert file.compute_crc32c() == crc(content)
    with monkeypatch.context() as patched:
        patched.setattr(StagedFile, "_read", None)  # nothing is read again
        assert file.compute_crc32c() == file.crc32c == crc(content)
    assert file.written_in_order == 2_000_000
    file.write(2_000_000, b"y")
    assert file.crc32c == crc(content + b"y")
    file.write(7, b"z")
    assert file.crc32c is None
    assert file.compute_crc32c() == crc(whole(file))


def test_a_write_behind_or_a_cut_counts_as_a_rewrite(file: StagedFile) -> None:
    file.write(0, b"abcdef")
    assert file.rewrites == 0
    file.write(2, b"X")
    assert (file.rewrites, file.written_in_order, file.crc32c) == (1, 0, None)
    file.write(6, b"g")
    assert (file.rewrites, file.written_in_order) == (1, 0)
    file.truncate(0)
    file.write(0, b"12")
    assert (file.written_in_order, file.crc32c) == (2, crc(b"12"))
    file.truncate(1)
    assert (file.rewrites, file.written_in_order, file.crc32c, whole(file)) == (2, 0, None, b"1")


def test_changes_tell_whether_an_upload_saw_one_state(file: StagedFile) -> None:
    seen = file.changes
    assert file.unchanged_since(seen)
    file.read(0, 1)
    file.write(0, b"")
    file.truncate(0)
    assert file.unchanged_since(seen)
    for change in (
        lambda: file.write(0, b"a"),
        lambda: file.write(0, b"a"),
        lambda: file.truncate(5),
        lambda: file.allocate(0, 9),
    ):
        seen = file.changes
        change()
        assert not file.unchanged_since(seen)
        assert file.unchanged_since(file.changes)


def test_a_change_under_way_is_no_state(file: StagedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    seen = []

    def slow(descriptor: int, data: bytes, offset: int) -> int:
        seen.append(file.changes)
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", slow)
    file.write(0, b"abc")
    assert not file.unchanged_since(seen[0])


def test_allocating_extends_with_zeros_and_changes_nothing_else(path: Path, file: StagedFile) -> None:
    file.write(0, b"abc")
    file.allocate(0, 2)
    assert (file.size, file.crc32c) == (3, crc(b"abc"))
    file.allocate(1, 99_999)
    assert (file.size, file.crc32c, file.written_in_order) == (100_000, None, 3)
    assert whole(file) == b"abc" + bytes(99_997)
    assert path.stat().st_blocks * 512 >= 100_000
    file.write(3, b"d" * 99_997)
    assert file.crc32c == crc(b"abc" + b"d" * 99_997)


def test_what_comes_after_the_first_bytes_has_the_whole_files_offsets(path: Path) -> None:
    first = 10_000_000
    file = StagedFile(path, first=first)
    assert (file.first, file.size, file.crc32c) == (first, first, 0)
    file.write(first, b"tail")
    assert (file.size, file.crc32c, file.read(first + 1, 9)) == (first + 4, crc(b"tail"), b"ail")
    assert path.stat().st_blocks * 512 < 100_000
    for wrong in (
        lambda: file.read(first - 1, 5),
        lambda: file.write(0, b"x"),
        lambda: file.truncate(first - 1),
        lambda: file.allocate(0, 1),
    ):
        with pytest.raises(ValueError, match=str(first)):
            wrong()
    file.truncate(first)
    assert (file.size, file.crc32c) == (first, 0)
    file.close()


# --- full disks


class FullDisk:
    """Takes so many bytes more, then none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        pwrite = os.pwrite

        def limited(descriptor: int, data: bytes, offset: int) -> int:
            if self.room <= 0:
                raise OSError(errno.ENOSPC, "full")
            taken = bytes(data)[: min(self.room, 3)]
            self.room -= len(taken)
            return pwrite(descriptor, taken, offset)

        monkeypatch.setattr(os, "pwrite", limited)


def test_short_writes_are_completed(file: StagedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    FullDisk(monkeypatch, 100)
    file.write(0, b"0123456789")
    assert (whole(file), file.crc32c) == (b"0123456789", crc(b"0123456789"))


def test_a_full_disk_is_enospc_and_nothing_half_written_counts(
    path: Path, file: StagedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write(0, b"abc")
    disk = FullDisk(monkeypatch, 5)
    with pytest.raises(LocalFailure, match=f"{path}: No space left") as failure:
        file.write(3, b"0123456789")
    assert failure.value.errno == errno.ENOSPC
    assert (file.size, whole(file), file.crc32c) == (3, b"abc", crc(b"abc"))
    file.truncate(10)
    assert whole(file) == b"abc" + bytes(7), "what was written by halves shows where a hole should be"
    disk.room = 100
    file.write(3, b"defghij")
    assert file.crc32c == crc(b"abcdefghij")


def test_a_failed_write_behind_leaves_no_stale_checksum(file: StagedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write(0, b"abcdefgh")
    FullDisk(monkeypatch, 3)
    with pytest.raises(LocalFailure):
        file.write(0, b"ABCDEFGH")
    assert whole(file) == b"ABCdefgh"
    assert file.crc32c is None
    assert file.compute_crc32c() == crc(b"ABCdefgh")


def test_a_failed_allocation_leaves_the_file_as_it_was(path: Path, file: StagedFile) -> None:
    file.write(0, b"abc")
    with pytest.raises(LocalFailure) as failure:
        file.allocate(0, 1 << 62)
    assert failure.value.errno in (errno.ENOSPC, errno.EFBIG)
    assert (file.size, file.crc32c, path.stat().st_size) == (3, crc(b"abc"), 3)


# --- the bytes that live elsewhere


BASE = random.Random(1).randbytes(100_000)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 7_000)


def read_base(offset: int, size: int) -> bytes:
    return BASE[offset : offset + size]


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("parallel", [1, 4])
def test_an_empty_file_gets_its_base_with_the_checksum(file: StagedFile, parallel: int) -> None:
    file.materialise(read_base, len(BASE), parallel, crc32c=crc(BASE))
    assert whole(file) == BASE
    assert (file.size, file.crc32c, file.written_in_order) == (len(BASE), crc(BASE), len(BASE))
    file.write(len(BASE), b"more")
    assert file.crc32c == crc(BASE + b"more")


def test_a_base_of_no_bytes_is_no_base(file: StagedFile) -> None:
    file.materialise(read_base, 0, crc32c=0)
    assert (file.first, file.size, file.crc32c) == (0, 0, 0)


@pytest.mark.usefixtures("small_pieces")
def test_a_tail_gets_what_goes_before_while_it_grows(path: Path) -> None:
    file = StagedFile(path, first=len(BASE))
    file.write(len(BASE), b"tail")

    def read(offset: int, size: int) -> bytes:
        if offset == 0:
            file.write(file.size, b" grows")
        return read_base(offset, size)

    file.materialise(read, len(BASE), crc32c=crc(BASE))
    assert file.first == 0
    assert whole(file) == BASE + b"tail grows"
    assert file.crc32c == crc(BASE + b"tail grows")
    file.write(0, b"!")
    assert file.compute_crc32c() == crc(b"!" + BASE[1:] + b"tail grows")
    file.close()


@pytest.mark.usefixtures("small_pieces")
def test_a_tail_out_of_order_gets_what_goes_before(path: Path) -> None:
    file = StagedFile(path, first=len(BASE))
    file.write(len(BASE), b"tail")
    file.write(len(BASE), b"T")
    file.materialise(read_base, len(BASE))
    assert file.crc32c is None
    assert file.compute_crc32c() == crc(BASE + b"Tail")
    file.close()


def _unavailable(offset: int, size: int) -> bytes:
    if offset > 50_000:
        raise StoreUnavailable("gone")
    return read_base(offset, size)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("parallel", [1, 4])
@pytest.mark.parametrize(
    ("read", "checksum", "expected"),
    [
        (_unavailable, None, StoreUnavailable),
        (lambda offset, size: read_base(offset, size)[:-1], None, ChecksumMismatch),
        (read_base, 5, ChecksumMismatch),
    ],
)
def test_a_failure_leaves_the_file_as_it_was(  # type: ignore[no-untyped-def]
    tmp_path: Path, read, checksum, expected, parallel: int
) -> None:
    file = StagedFile(tmp_path / "empty")
    with pytest.raises(expected):
        file.materialise(read, len(BASE), parallel, crc32c=checksum)
    assert (file.size, file.crc32c, (tmp_path / "empty").stat().st_size) == (0, 0, 0)
    file.materialise(read_base, len(BASE), parallel)
    assert whole(file) == BASE
    file.close()
    tail = StagedFile(tmp_path / "tail", first=len(BASE))
    tail.write(len(BASE), b"tail")
    with pytest.raises(expected):
        tail.materialise(read, len(BASE), parallel, crc32c=checksum)
    assert (tail.first, whole(tail), tail.crc32c) == (len(BASE), b"tail", crc(b"tail"))
    tail.close()


def test_a_base_fits_only_before_the_tail_or_into_an_empty_file(tmp_path: Path) -> None:
    tail = StagedFile(tmp_path / "tail", first=10)
    full = StagedFile(tmp_path / "full")
    full.write(0, b"x")
    for file, size in ((tail, 9), (tail, 0), (tail, 11), (full, 1), (full, 0)):
        with pytest.raises(ValueError, match="bytes to go before"):
            file.materialise(read_base, size)
    assert whole(full) == b"x"
    tail.close()
    full.close()


# --- against a plain array

_OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 40), st.binary(max_size=12)),
        st.tuples(st.just("append"), st.just(0), st.binary(max_size=12)),
        st.tuples(st.just("truncate"), st.integers(0, 40), st.just(b"")),
        st.tuples(st.just("allocate"), st.integers(0, 40), st.just(b"xxxxx")),
        st.tuples(st.just("compute"), st.just(0), st.just(b"")),
        st.tuples(st.just("materialise"), st.just(0), st.just(b"")),
    ),
    max_size=30,
)


@settings(max_examples=300, deadline=None)
@given(first=st.sampled_from([0, 5]), operations=_OPERATIONS)
def test_it_is_what_a_plain_array_would_be(
    tmp_path_factory: pytest.TempPathFactory, first: int, operations: list[tuple[str, int, bytes]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "array"
    path.unlink(missing_ok=True)
    file = StagedFile(path, first=first)
    array = bytearray(b"BASE!"[:first])
    try:
        for name, offset, data in operations:
            frontier, rewrites = file.written_in_order, file.rewrites
            before = bytes(array[:frontier])
            offset += file.first
            if name in ("write", "append"):
                at = offset if name == "write" else len(array)
                file.write(at, data)
                if data:
                    array.extend(bytes(max(0, at + len(data) - len(array))))
                    array[at : at + len(data)] = data
            elif name == "truncate":
                file.truncate(offset)
                del array[offset:]
                array.extend(bytes(offset - len(array)))
            elif name == "allocate":
                file.allocate(offset, len(data))
                array.extend(bytes(max(0, offset + len(data) - len(array))))
            elif name == "compute":
                assert file.compute_crc32c() == crc(bytes(array[file.first :]))
            elif file.first:
                file.materialise(lambda at, size: b"BASE!"[at : at + size], 5)
            assert file.size == len(array)
            assert whole(file) == array[file.first :]
            assert file.crc32c in (None, crc(bytes(array[file.first :])))
            assert file.changes % 2 == 0
            if file.rewrites == rewrites:
                assert file.written_in_order >= frontier
                assert array[:frontier] == before
    finally:
        file.close()
        file.unlink()


# --- threads


def test_a_checksum_under_writes_is_of_one_state(file: StagedFile) -> None:
    """The writer repeats one byte all over the file: a mixture is none of 256 checksums."""
    size = 3 << 20
    states = {crc(bytes([value]) * size) for value in range(256)}
    file.write(0, bytes(size))
    stop = threading.Event()

    def write() -> None:
        value = 0
        while not stop.is_set():
            value = (value + 1) % 256
            file.write(0, bytes([value]) * size)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(50):
            assert file.compute_crc32c() in states
    finally:
        stop.set()
        thread.join()


def test_an_uploader_reads_what_was_written_in_order_until_it_is_rewritten(file: StagedFile) -> None:
    """It sends as the file grows; where `rewrites` stays the same, what it has is the file."""
    content = random.Random(2).randbytes(4_000_000)
    sent = bytearray()
    rewrites = file.rewrites

    def upload() -> None:
        while file.rewrites == rewrites and len(sent) < len(content):
            if data := file.body()(len(sent), file.written_in_order - len(sent)):
                if file.rewrites != rewrites:
                    return
                sent.extend(data)

    thread = threading.Thread(target=upload)
    thread.start()
    for offset in range(0, len(content), 40_000):
        file.write(offset, content[offset : offset + 40_000])
    file.write(100, b"rewritten")
    thread.join(20)
    assert not thread.is_alive()
    assert sent == content[: len(sent)]


def test_closing_lets_calls_under_way_finish(path: Path, file: StagedFile) -> None:
    file.write(0, b"abc")
    entered, go_on = threading.Event(), threading.Event()
    read = StagedFile._read
    got = []

    class Slow(StagedFile):
        @staticmethod
        def _read(descriptor: int, offset: int, size: int) -> bytes:
            entered.set()
            assert go_on.wait(10)
            return read(descriptor, offset, size)

    slow = Slow(path, existing=True)
    thread = threading.Thread(target=lambda: got.append(slow.read(0, 3)))
    thread.start()
    assert entered.wait(10)
    slow.close()
    slow.close()
    with pytest.raises(ValueError, match="closed"):
        slow.read(0, 3)
    os.fstat(slow._descriptor)
    go_on.set()
    thread.join(10)
    assert got == [b"abc"]
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(slow._descriptor)


def test_a_reader_waits_for_no_write(file: StagedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write(0, b"abc")
    entered, go_on = threading.Event(), threading.Event()
    pwrite = os.pwrite

    def slow(descriptor: int, data: bytes, offset: int) -> int:
        entered.set()
        assert go_on.wait(10)
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", slow)
    thread = threading.Thread(target=file.write, args=(3, b"def"))
    thread.start()
    assert entered.wait(10)
    began = time.monotonic()
    assert (file.read(0, 9), file.size, file.written_in_order, file.crc32c) == (b"abc", 3, 3, crc(b"abc"))
    assert time.monotonic() - began < 5
    go_on.set()
    thread.join(10)
    assert file.crc32c == crc(b"abcdef")


# --- the disk


def test_syncing_makes_bytes_and_name_durable_and_the_name_once(
    path: Path, file: StagedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    for name in ("fdatasync", "fsync"):
        monkeypatch.setattr(os, name, lambda descriptor: synced.append(os.fstat(descriptor).st_ino), raising=False)
    file.sync()
    file.sync()
    assert synced == [path.stat().st_ino, path.parent.stat().st_ino, path.stat().st_ino]


def test_a_failed_sync_is_never_forgotten(file: StagedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail, raising=False)
        with pytest.raises(LocalFailure, match="Input/output"):
            file.sync()
    with pytest.raises(LocalFailure, match="Input/output"):
        file.sync()


def test_a_removed_file_goes_on_for_who_has_it_open(path: Path, file: StagedFile) -> None:
    file.write(0, b"abc")
    file.unlink()
    file.unlink()
    assert not path.exists()
    assert whole(file) == b"abc"
