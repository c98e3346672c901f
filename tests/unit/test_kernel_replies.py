"""Replies and notifications, compared with bytes laid out by hand from include/uapi/linux/fuse.h."""

import stat
import sys

import pytest

from octuefs.drivers.kernel import replies
from octuefs.stores.base import Space
from octuefs.tree.node import Attributes


def u32(*numbers: int) -> bytes:
    return b"".join((number % (1 << 32)).to_bytes(4, sys.byteorder) for number in numbers)


def u64(*numbers: int) -> bytes:
    return b"".join((number % (1 << 64)).to_bytes(8, sys.byteorder) for number in numbers)


A_FILE = Attributes(
    inode=(1 << 63) + 5,
    mode=stat.S_IFREG | 0o640,
    size=(1 << 40) + 3,
    mtime_ns=1_700_000_000_123_456_789,
    ctime_ns=1_700_000_001_000_000_001,
    uid=1000,
    gid=4_000_000_000,
    blocks=7,
    links=2,
    device=0x12345678,
)

ATTR = (
    u64((1 << 63) + 5, (1 << 40) + 3, 7)  # ino, size, blocks
    + u64(1_700_000_000, 1_700_000_000, 1_700_000_001)  # atime, mtime, ctime
    + u32(123_456_789, 123_456_789, 1)
    + u32(0o100640, 2, 1000, 4_000_000_000, 0x12345678, 1 << 20, 0)  # mode, nlink, uid, gid, rdev, blksize, flags
)
"""struct fuse_attr of it."""


def test_attributes_are_laid_out_as_the_kernel_has_them() -> None:
    assert len(ATTR) == 88
    assert replies.attributes(A_FILE, 1 << 20, (120, 500_000_000)) == u64(120) + u32(500_000_000, 0) + ATTR


def test_a_time_before_1970_has_positive_nanoseconds() -> None:
    before = Attributes(inode=1, mode=0, size=0, mtime_ns=-1_500_000_000, ctime_ns=-1, uid=0, gid=0, blocks=0)
    answer = replies.attributes(before, 4096, (0, 0))[16:]
    assert answer[24:48] == u64(-2, -2, -1)
    assert answer[48:60] == u32(500_000_000, 500_000_000, 999_999_999)


def test_an_entry_has_a_node_and_two_times_that_it_lasts() -> None:
    answer = replies.entry(9, A_FILE, 1 << 20, names=(60, 1), facts=(120, 2))
    assert answer == u64(9, 0, 60, 120) + u32(1, 2) + ATTR  # nodeid, generation, entry_valid, attr_valid, their ns
    assert len(answer) == 128


def test_a_name_that_is_not_there_has_node_0_for_a_while() -> None:
    answer = replies.no_entry((1, 500_000_000))
    assert answer == u64(0, 0, 1, 0) + u32(500_000_000, 0) + bytes(88)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, (0, 0)), (0.5, (0, 500_000_000)), (120.0, (120, 0)), (59.25, (59, 250_000_000))]
)
def test_a_validity_is_whole_seconds_and_nanoseconds(seconds: float, expected: tuple[int, int]) -> None:
    assert replies.validity(seconds) == expected


def test_an_open_answers_with_handle_flags_and_backing_file() -> None:
    assert replies.opened((1 << 63) + 1, replies.KEEP_CACHE) == u64((1 << 63) + 1) + u32(2, 0)
    assert replies.opened(3, replies.PASSTHROUGH, 7) == u64(3) + u32(128, 7)


def test_the_flags_of_opens_are_the_kernels() -> None:
    assert (replies.DIRECT_IO, replies.KEEP_CACHE, replies.CACHE_DIR, replies.NO_FLUSH) == (1, 2, 8, 32)
    assert (replies.PARALLEL_DIRECT_WRITES, replies.PASSTHROUGH) == (64, 128)


def test_numbers_alone_are_answered_in_8_bytes() -> None:
    assert replies.written(1 << 20) == u32(1 << 20, 0)
    assert replies.size(300) == u32(300, 0)
    assert replies.offset((1 << 40) + 1) == u64((1 << 40) + 1)


def test_space_is_counted_in_fragments_of_4_kib() -> None:
    answer = replies.space(Space(1 << 40, (1 << 30) + 4095, 1000, 500), 1 << 20)
    blocks = u64(1 << 28, 1 << 18, 1 << 18, 1000, 500)
    assert answer == blocks + u32(1 << 20, 255, 4096, 0) + bytes(24)  # bsize, namelen, frsize, padding, spare
    assert len(answer) == 80


# --- listings


@pytest.mark.parametrize("length", range(1, 18))
def test_a_listed_name_is_filled_up_to_8_bytes(length: int) -> None:
    name = b"\xff" * length
    answer = replies.listed(5, 12, stat.S_IFLNK | 0o777, name)
    assert answer == u64(5, 12) + u32(length, 10) + name + bytes(-length % 8)  # ino, off, namelen, type
    assert len(answer) % 8 == 0


@pytest.mark.parametrize(
    ("kind", "number"),
    [(stat.S_IFREG, 8), (stat.S_IFDIR, 4), (stat.S_IFLNK, 10), (stat.S_IFIFO, 1), (stat.S_IFSOCK, 12)],
)
def test_the_type_of_a_listed_name_is_that_of_d_type(kind: int, number: int) -> None:
    assert replies.listed(1, 1, kind | 0o7777, b"n")[20:24] == u32(number)


def test_a_listed_entry_is_its_entry_and_then_its_name() -> None:
    entry = replies.entry(9, A_FILE, 4096, (1, 0), (1, 0))
    answer = entry + replies.listed(A_FILE.inode, 3, A_FILE.mode, b"name")
    assert answer == entry + u64(A_FILE.inode, 3) + u32(4, 8) + b"name" + bytes(4)


def test_a_listed_name_that_is_not_looked_up_has_128_zero_bytes() -> None:
    assert bytes(128) == replies.NOTHING_LOOKED_UP


# --- notifications and headers


def test_the_header_of_an_answer_is_16_bytes() -> None:
    assert replies.HEADER.pack(16, -2, 1 << 63) == u32(16, -2) + u64(1 << 63)


def test_the_codes_of_notifications_are_the_kernels() -> None:
    assert (replies.INVAL_INODE, replies.INC_EPOCH) == (2, 8)


def test_a_node_is_forgotten_whole_from_an_offset_on_or_its_attributes_alone() -> None:
    assert replies.forget_inode(7) == u64(7, 0, 0)
    assert replies.forget_inode(7, 4096, 100) == u64(7, 4096, 100)
    assert replies.forget_inode(7, -1) == u64(7, -1, 0)
