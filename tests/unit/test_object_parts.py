"""Parts: some of an object's bytes in a local file, with the checksum of each piece."""

import os
from pathlib import Path

import pytest
from unit.object_world import KIB, MIB, content

from octuefs.content.parts import Part, memory_part
from octuefs.model.hashes import extend_crc32c
from octuefs.stores.descriptor import Descriptor

DATA = content(MIB)


@pytest.fixture
def part(tmp_path: Path) -> Part:
    fd = os.open(tmp_path / "part", os.O_RDWR | os.O_CREAT, 0o600)
    return Part(Descriptor(fd, "part"), MIB, allowance=MIB, path=tmp_path / "part")


def fill(part: Part, *spans: tuple[int, int]) -> None:
    for start, end in spans:
        part.write(start, DATA[start:end])
        part.extents.add(start, end)
        part.close_piece(start, end, extend_crc32c(0, DATA[start:end]))


def test_the_checksum_of_the_whole_follows_from_those_of_pieces_in_any_order(part: Part) -> None:
    fill(part, (300 * KIB, MIB), (0, 100 * KIB))
    assert part.crc32c() is None
    assert not part.is_complete
    fill(part, (100 * KIB, 300 * KIB))
    assert part.is_complete
    assert part.crc32c() == extend_crc32c(0, DATA) == part.checksum(0, MIB)


def test_a_piece_of_no_bytes_is_none(part: Part) -> None:
    part.close_piece(5, 5, 0)
    assert part.pieces == {}


def test_a_piece_is_proven_by_its_bytes(part: Part) -> None:
    part.write(0, DATA[: 100 * KIB])
    right = extend_crc32c(0, DATA[: 100 * KIB])
    assert part.prove(0, 100 * KIB, right)
    assert not part.prove(0, 100 * KIB, right ^ 1)
    assert not part.prove(0, 100 * KIB + 1, right), "the file ends before"
    part.close()
    assert not part.prove(0, 100 * KIB, right), "it cannot be read"


def test_kept_pieces_are_found_by_any_of_their_bytes(part: Part) -> None:
    part.restore({0: (10, 1), 20: (30, 2)})
    assert part.kept_in(10, 20) == []
    assert part.kept_in(9, 20) == [0]
    assert part.kept_in(0, 21) == [0, 20]
    assert part.kept_in(29, 40) == [20]


def test_what_came_first_leaves_first_and_its_room_is_the_disks_again(part: Part) -> None:
    fill(part, (512 * KIB, 768 * KIB), (0, 256 * KIB), (256 * KIB, 512 * KIB))
    with part.file.lend() as fd:
        before = os.fstat(fd).st_blocks
    assert part.discard_oldest(300 * KIB) == 512 * KIB
    assert list(part.extents) == [(256 * KIB, 512 * KIB)]
    assert part.discards == 1
    with part.file.lend() as fd:
        assert os.fstat(fd).st_blocks < before
    assert part.discard_oldest(MIB) == 256 * KIB
    assert part.discard_oldest(MIB) == 0


def test_letting_go_of_everything_leaves_nothing_to_believe(part: Part) -> None:
    fill(part, (0, MIB))
    part.restore({0: (10, 1)})
    assert part.discard_all() == MIB + 10
    assert (part.extents.total, part.pieces, part.kept) == (0, {}, {})
    assert part.discards == 1


def test_a_part_that_is_removed_leaves_no_file(part: Part, tmp_path: Path) -> None:
    part.remove()
    assert os.listdir(tmp_path) == []


def test_a_part_in_memory_is_read_at_once() -> None:
    part = memory_part(MIB, MIB)
    part.write(MIB - 4, b"abcd")
    room = memoryview(bytearray(4))
    assert part.read_now(MIB - 4, room) == 4
    assert bytes(room) == b"abcd"
    assert part.path is None
    part.remove()
