"""Requests as Linux 6.18 sent them, byte by byte, and what is read in them."""

import os
import struct
from typing import NamedTuple

import pytest

from octuefs.drivers.kernel import requests as r

# Each is a whole message: the header (40 bytes), and what follows it.
INIT = (
    "680000001a0000000200000000000000000000000000000000000000000000000000000000000000"
    "070000002d00000000000200fbffff73fd05000000000000000000000000000000000000000000000000000000000000"
    "00000000000000000000000000000000"
)
LOOKUP = "2f00000001000000120000000000000001000000000000000000000000000000f91f00000000000066ff2e74787400"
FORGET = "300000000200000020010000000000000600000000000000000000000000000000000000000000000300000000000000"
BATCH_FORGET = (
    "500000002a0000008001000000000000000000000000000000000000000000000000000000000000"
    "02000000000000000300000000000000120000000000000005000000000000000300000000000000"
)
GETATTR = (
    "3800000003000000040000000000000001000000000000000000000000000000f91f00000000000000000000000000000000000000000000"
)
GETATTR_OF_OPEN = (
    "3800000003000000220000000000000003000000000000000000000000000000f91f00000000000001000000000000004d00000000000000"
)
READLINK = "2800000005000000b80000000000000005000000000000000000000000000000f91f000000000000"
SYMLINK = (
    "3700000006000000b20000000000000001000000000000000000000000000000f91f0000000000006c006f7665722ffd20746865726500"
)
MKNOD = (
    "3a00000008000000c00000000000000001000000000000000000000000000000f91f000000000000"
    "80210000702c111112000000000000007000"
)
MKDIR = "32000000090000000c0000000000000001000000000000000000000000000000f91f000000000000e8010000120000006400"
UNLINK = "2d0000000a0000002c0100000000000002000000000000000000000000000000f91f0000000000006861726400"
RMDIR = "2a0000000b000000340100000000000001000000000000000000000000000000f91f0000000000006400"
RENAME = (
    "3b0000000c000000e40000000000000001000000000000000000000000000000f91f000000000000"
    "0200000000000000636f7079006e657720fc00"
)
RENAME2 = (
    "430000002d000000f60000000000000002000000000000000000000000000000f91f000000000000"
    "010000000000000001000000000000006e657720fc006261636b00"
)
LINK = "350000000d000000d20000000000000002000000000000000000000000000000f91f00000000000003000000000000006861726400"
OPEN = "300000000e0000006e0000000000000003000000000000000000000000000000f91f0000000000000080000000000000"
CREATE = (
    "3f00000023000000140000000000000001000000000000000000000000000000f91f000000000000"
    "c2800000a0810000120000000000000066ff2e74787400"
)
READ = (
    "500000000f000000780000000000000003000000000000000000000000000000f91f000000000000"
    "eb030000000000000000000000000000001000000000000000000000000000000080000000000000"
)
WRITE = (
    "5b000000100000001a0000000000000003000000000000000000000000000000f91f000000000000"
    "4d0000000000000003000000000000000b000000000000000000000000000000028000000000000068656c6c6f20776f"
    "726c64"
)
FLUSH = (
    "40000000190000003c0000000000000004000000000000000000000000000000f91f000000000000"
    "4d0000000000000000000000000000007654bc83bf1c7e21"
)
RELEASE = (
    "40000000120000003e00000000000000040000000000000000000000000000000000000000000000"
    "4d0000000000000002800000000000000000000000000000"
)
FSYNC = (
    "38000000140000001c0000000000000003000000000000000000000000000000f91f0000000000004d000000000000000000000000000000"
)
FDATASYNC = (
    "38000000140000001e0000000000000003000000000000000000000000000000f91f0000000000004d000000000000000100000000000000"
)
STATFS = "2800000011000000f80000000000000001000000000000000000000000000000f91f000000000000"
SETXATTR = (
    "3d00000015000000860000000000000003000000000000000000000000000000f91f000000000000"
    "0600000001000000757365722efe007600616c7565"
)
GETXATTR = (
    "37000000160000008e0000000000000003000000000000000000000000000000f91f0000000000008000000000000000757365722efe00"
)
GETXATTR_SIZE = (
    "3700000016000000a40000000000000003000000000000000000000000000000f91f0000000000000000000000000000757365722e7800"
)
LISTXATTR = "3000000017000000940000000000000003000000000000000000000000000000f91f0000000000000001000000000000"
LISTXATTR_SIZE = "3000000017000000aa0000000000000003000000000000000000000000000000f91f0000000000000000000000000000"
REMOVEXATTR = "2f000000180000009c0000000000000003000000000000000000000000000000f91f000000000000757365722efe00"
OPENDIR = "300000001b000000fc0000000000000001000000000000000000000000000000f91f0000000000000088010000000000"
READDIR = (
    "500000001c000000020100000000000001000000000000000000000000000000f91f000000000000"
    "e9030000000000000700000000000000008000000000000000000000000000000088010000000000"
)
READDIRPLUS = (
    "500000002c000000000100000000000001000000000000000000000000000000f91f000000000000"
    "e9030000000000000000000000000000008000000000000000000000000000000088010000000000"
)
RELEASEDIR = (
    "400000001d0000000401000000000000010000000000000000000000000000000000000000000000"
    "e90300000000000000880100000000000000000000000000"
)
FSYNCDIR = (
    "380000001e000000140100000000000002000000000000000000000000000000f91f000000000000ea030000000000000000000000000000"
)
FALLOCATE = (
    "480000002b000000260000000000000003000000000000000000000000000000f91f000000000000"
    "4d00000000000000001000000000000064000000000000000000000000000000"
)
LSEEK_DATA = (
    "400000002e000000280000000000000003000000000000000000000000000000f91f000000000000"
    "4d0000000000000002000000000000000300000000000000"
)
LSEEK_HOLE = (
    "400000002e0000002a0000000000000003000000000000000000000000000000f91f000000000000"
    "4d0000000000000002000000000000000400000000000000"
)
COPY_FILE_RANGE = (
    "600000002f0000003a0000000000000003000000000000000000000000000000f91f000000000000"
    "4d00000000000000010000000000000004000000000000004d0000000000000002000000000000000500000000000000"
    "0000000000000000"
)
FTRUNCATE = (
    "8000000004000000200000000000000003000000000000000000000000000000f91f000000000000"
    "48020000000000004d000000000000000c000000000000007654bc83bf1c7e2100000000000000000000000000000000"
    "00000000000000000000000000000000000000000000000000000000000000000000000000000000"
)
CHMOD = (
    "8000000004000000480000000000000003000000000000000000000000000000f91f000000000000"
    "010000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "00000000000000000000000000000000000000008081000000000000000000000000000000000000"
)
CHOWN = (
    "8000000004000000500000000000000003000000000000000000000000000000f91f000000000000"
    "060800000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "00000000000000000000000000000000000000000000000000000000e8030000d007000000000000"
)
TRUNCATE = (
    "80000000040000005a0000000000000003000000000000000000000000000000f91f000000000000"
    "0802000000000000000000000000000004000000000000007654bc83bf1c7e2100000000000000000000000000000000"
    "00000000000000000000000000000000000000000000000000000000000000000000000000000000"
)
UTIMES = (
    "8000000004000000600000000000000003000000000000000000000000000000f91f000000000000"
    "3000000000000000000000000000000000000000000000000000000000000000feffffffffffffff00f1536500000000"
    "00000000000000000065cd1d15cd5b07000000000000000000000000000000000000000000000000"
)
TOUCH = (
    "8000000004000000660000000000000003000000000000000000000000000000f91f000000000000"
    "b0010000000000000000000000000000000000000000000000000000000000006abc036b000000006abc036b00000000"
    "00000000000000007018710670187106000000000000000000000000000000000000000000000000"
)
INTERRUPT = "300000002400000007000000000000000000000000000000000000000000000000000000000000000600000000000000"


class Recorded(NamedTuple):
    """A message in parts, as the transports hand it on."""

    opcode: int
    node: int
    head: memoryview
    rest: memoryview


def parts(text: str) -> Recorded:
    message = memoryview(bytes.fromhex(text))
    length, opcode, _, node, _, _, _, _, _ = r.HEADER.unpack_from(message)
    assert length == len(message)
    start = r.HEADER.size + r.HEAD_BYTES.get(opcode, 0)
    return Recorded(opcode, node, message[r.HEADER.size : start], message[start:])


def test_the_header_says_what_is_asked_of_which_node_and_by_whom() -> None:
    assert r.HEADER.size == 40
    assert r.HEADER.unpack_from(bytes.fromhex(LOOKUP)) == (47, r.LOOKUP, 0x12, 1, 0, 0, 0x1FF9, 0, 0)


@pytest.mark.parametrize(
    ("opcode", "message"),
    [
        (r.LOOKUP, LOOKUP),
        (r.FORGET, FORGET),
        (r.GETATTR, GETATTR),
        (r.SETATTR, CHMOD),
        (r.READLINK, READLINK),
        (r.SYMLINK, SYMLINK),
        (r.MKNOD, MKNOD),
        (r.MKDIR, MKDIR),
        (r.UNLINK, UNLINK),
        (r.RMDIR, RMDIR),
        (r.RENAME, RENAME),
        (r.LINK, LINK),
        (r.OPEN, OPEN),
        (r.READ, READ),
        (r.WRITE, WRITE),
        (r.STATFS, STATFS),
        (r.RELEASE, RELEASE),
        (r.FSYNC, FSYNC),
        (r.SETXATTR, SETXATTR),
        (r.GETXATTR, GETXATTR),
        (r.LISTXATTR, LISTXATTR),
        (r.REMOVEXATTR, REMOVEXATTR),
        (r.FLUSH, FLUSH),
        (r.INIT, INIT),
        (r.OPENDIR, OPENDIR),
        (r.READDIR, READDIR),
        (r.RELEASEDIR, RELEASEDIR),
        (r.FSYNCDIR, FSYNCDIR),
        (r.CREATE, CREATE),
        (r.INTERRUPT, INTERRUPT),
        (r.BATCH_FORGET, BATCH_FORGET),
        (r.FALLOCATE, FALLOCATE),
        (r.READDIRPLUS, READDIRPLUS),
        (r.RENAME2, RENAME2),
        (r.LSEEK, LSEEK_DATA),
        (r.COPY_FILE_RANGE, COPY_FILE_RANGE),
    ],
)
def test_every_request_has_the_opcode_and_the_length_that_it_was_recorded_with(opcode: int, message: str) -> None:
    it = parts(message)
    assert it.opcode == opcode
    assert len(it.head) == r.HEAD_BYTES.get(opcode, 0)
    names_or_bytes = {
        *(r.LOOKUP, r.UNLINK, r.RMDIR, r.SYMLINK, r.MKNOD, r.MKDIR, r.RENAME, r.RENAME2, r.LINK, r.CREATE, r.WRITE),
        *(r.SETXATTR, r.GETXATTR, r.REMOVEXATTR, r.INIT, r.BATCH_FORGET),
    }
    assert bool(it.rest) == (opcode in names_or_bytes)


def test_init_offers_flags_of_both_words() -> None:
    assert r.init_request(parts(INIT).rest) == r.InitRequest(7, 45, 131072, 0x5FD_73FF_FFFB)


def test_init_of_a_kernel_before_7_36_has_one_word_of_flags() -> None:
    assert r.init_request(struct.pack("=IIII", 7, 31, 131072, 0x3FF_FFFB)) == r.InitRequest(7, 31, 131072, 0x3FF_FFFB)


# --- names


@pytest.mark.parametrize(
    ("message", "node", "name"), [(LOOKUP, 1, b"f\xff.txt"), (UNLINK, 2, b"hard"), (RMDIR, 1, b"d")]
)
def test_a_name_is_looked_up_and_removed_in_the_directory_of_the_header(message: str, node: int, name: bytes) -> None:
    it = parts(message)
    assert (it.node, os.fsencode(r.name_in(it.rest))) == (node, name)


def test_any_bytes_are_a_name_and_come_back_as_they_were() -> None:
    every = bytes(number for number in range(1, 256) if number != ord("/"))
    for name in (every, b"\xff\xfe", "é\u2028".encode(), b"\xed\xa0\x80"):
        assert r.name_in(name + b"\0").encode("utf-8", "surrogateescape") == name
        assert r.name_in(memoryview(name + b"\0")) == r.name_in(name + b"\0")


def test_a_link_is_made_with_its_name_and_its_target() -> None:
    assert r.two_names_in(parts(SYMLINK).rest) == ("l", "over/\udcfd there")


def test_a_target_may_hold_spaces_and_slashes() -> None:
    assert r.two_names_in(b"name\0a b/c\0") == ("name", "a b/c")


def test_mknod_tells_mode_and_device() -> None:
    it = parts(MKNOD)
    mode, device, name = r.mknod_request(it.head, it.rest)
    assert (oct(mode), device, name) == (oct(0o20600), os.makedev(300, 70000), "p")


def test_mkdir_tells_the_mode_with_the_umask_applied() -> None:
    it = parts(MKDIR)
    assert r.mkdir_request(it.head, it.rest) == (0o750, "d")


def test_create_tells_flags_mode_and_name() -> None:
    it = parts(CREATE)
    assert r.create_request(it.head, it.rest) == r.Create(
        os.O_RDWR | os.O_CREAT | os.O_EXCL | 0o100000, 0o100640, "f\udcff.txt"
    )


def test_rename_has_no_flags_and_renameat2_its_own() -> None:
    plain, special = parts(RENAME), parts(RENAME2)
    assert r.rename_request(plain.head, plain.rest) == r.Rename(2, 0, "copy", "new \udcfc")
    assert r.rename2_request(special.head, special.rest) == r.Rename(1, 1, "new \udcfc", "back")
    assert (plain.node, special.node) == (1, 2)


def test_link_names_the_file_and_its_new_name_in_the_directory_of_the_header() -> None:
    it = parts(LINK)
    assert (it.node, *r.link_request(it.head, it.rest)) == (2, 3, "hard")


# --- attributes


def test_attributes_are_asked_of_a_path_or_of_an_open_file() -> None:
    assert r.GETATTR_IN.unpack_from(parts(GETATTR).head) == (0, 0, 0)
    assert r.GETATTR_IN.unpack_from(parts(GETATTR_OF_OPEN).head) == (r.GETATTR_FH, 0, 77)


NOTHING_SET = r.SetAttributes(None, None, None, None, None, None, None, False)


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        (CHMOD, {"mode": 0o100600}),
        (CHOWN, {"uid": 1000, "gid": 2000, "kills_suidgid": True}),
        (TRUNCATE, {"size": 4}),
        (FTRUNCATE, {"size": 12, "handle": 77}),
        (UTIMES, {"atime": -1_500_000_000, "mtime": 1_700_000_000_123_456_789}),
        (TOUCH, {"atime": r.NOW, "mtime": r.NOW}),
    ],
)
def test_what_is_not_set_stays_as_it_is(message: str, changes: dict[str, int]) -> None:
    assert r.set_attributes(parts(message).head) == NOTHING_SET._replace(**changes)  # type: ignore[arg-type]


def test_zero_can_be_set_and_one_time_alone() -> None:
    valid = r.SET_UID | r.SET_SIZE | r.SET_ATIME
    head = struct.pack("=IIQQQqqqIIIIIIII", valid, 0, 5, 0, 0, 0, 9, 0, 0, 9, 0, 0o777, 0, 0, 7, 0)
    assert r.set_attributes(head) == NOTHING_SET._replace(uid=0, size=0, atime=0)


def test_the_name_of_an_attribute_ends_before_its_value_which_may_hold_zero_bytes() -> None:
    it = parts(SETXATTR)
    assert r.setxattr_request(it.head, it.rest) == ("user.\udcfe", b"v\0alue", os.XATTR_CREATE)


def test_an_attribute_may_be_set_to_nothing() -> None:
    assert r.setxattr_request(struct.pack("=II", 0, 0), b"user.a\0") == ("user.a", b"", 0)


@pytest.mark.parametrize(
    ("message", "size"), [(GETXATTR, 128), (GETXATTR_SIZE, 0), (LISTXATTR, 256), (LISTXATTR_SIZE, 0)]
)
def test_attributes_are_wanted_whole_or_their_size_alone(message: str, size: int) -> None:
    assert r.wanted_size(parts(message).head) == size


def test_attributes_are_asked_for_and_removed_by_name() -> None:
    assert r.name_in(parts(GETXATTR).rest) == "user.\udcfe"
    assert r.name_in(parts(REMOVEXATTR).rest) == "user.\udcfe"


# --- open files


def test_opens_tell_the_flags_of_open() -> None:
    assert r.OPEN_IN.unpack_from(parts(OPEN).head) == (os.O_RDONLY | 0o100000, 0)
    directory, _ = r.OPEN_IN.unpack_from(parts(OPENDIR).head)
    assert directory & os.O_DIRECTORY


def test_a_read_tells_handle_offset_and_size() -> None:
    assert r.READ_IN.unpack_from(parts(READ).head)[:3] == (1003, 0, 4096)


def test_listings_are_read_like_files_from_the_position_of_the_last_name() -> None:
    assert r.READ_IN.unpack_from(parts(READDIR).head)[:3] == (1001, 7, 32768)
    assert r.READ_IN.unpack_from(parts(READDIRPLUS).head)[:3] == (1001, 0, 32768)


def test_a_write_tells_handle_offset_and_size_and_its_bytes_follow() -> None:
    it = parts(WRITE)
    assert r.WRITE_IN.unpack_from(it.head)[:3] == (77, 3, 11)
    assert bytes(it.rest) == b"hello world"


@pytest.mark.parametrize(("message", "handle"), [(FLUSH, 77), (RELEASE, 77), (RELEASEDIR, 1001)])
def test_what_ends_an_open_begins_with_its_handle(message: str, handle: int) -> None:
    assert r.handle_in(parts(message).head) == handle


def test_fsync_says_whether_the_data_alone_count() -> None:
    assert r.fsync_request(parts(FSYNC).head) == (77, False)
    assert r.fsync_request(parts(FDATASYNC).head) == (77, True)
    assert r.fsync_request(parts(FSYNCDIR).head) == (1002, False)


def test_fallocate_tells_handle_offset_length_and_mode() -> None:
    assert r.fallocate_request(parts(FALLOCATE).head) == (77, 4096, 100, 0)


def test_lseek_asks_for_data_or_for_a_hole() -> None:
    assert r.lseek_request(parts(LSEEK_DATA).head) == (77, 2, os.SEEK_DATA)
    assert r.lseek_request(parts(LSEEK_HOLE).head) == (77, 2, os.SEEK_HOLE)


def test_a_copy_has_a_file_on_either_side() -> None:
    it = parts(COPY_FILE_RANGE)
    assert (it.node, r.copy_request(it.head)) == (3, r.Copy(77, 1, 4, 77, 2, 5))


# --- what is not answered


def test_what_is_forgotten_comes_with_the_number_of_look_ups() -> None:
    it = parts(FORGET)
    assert r.forgotten(it.opcode, it.node, it.head, it.rest) == [(6, 3)]


def test_several_are_forgotten_at_once() -> None:
    it = parts(BATCH_FORGET)
    assert r.forgotten(it.opcode, it.node, it.head, it.rest) == [(3, 18), (5, 3)]


def test_an_interrupt_names_the_request_that_was_given_up() -> None:
    assert r.interrupted(parts(INTERRUPT).head) == 6
