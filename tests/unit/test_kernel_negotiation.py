"""What kernels of six years offer, and what we take of it."""

import mmap
import struct

import pytest

from octuefs.drivers.kernel.negotiation import ALWAYS, Feature, agree, init_reply
from octuefs.drivers.kernel.requests import InitRequest

LINUX_5_4 = InitRequest(7, 31, 131072, 0x03FF_FFFB)
"""As fs/fuse/inode.c has it: all up to EXPLICIT_INVAL_DATA."""
LINUX_5_15 = InitRequest(7, 34, 131072, 0x33FF_FFFB)
"""Besides: HANDLE_KILLPRIV_V2, SETXATTR_EXT."""
LINUX_6_8 = InitRequest(7, 39, 131072, 0x1D_73FF_FFFB)
"""Besides: INIT_EXT and a second word, SECURITY_CTX to DIRECT_IO_ALLOW_MMAP; no passthrough."""
LINUX_6_18 = InitRequest(7, 45, 131072, 0x5FD_73FF_FFFB)
"""As recorded; FUSE over io_uring is switched off."""
LINUX_6_18_URING = LINUX_6_18._replace(flags=LINUX_6_18.flags | Feature.OVER_IO_URING)
KERNELS = [LINUX_5_4, LINUX_5_15, LINUX_6_8, LINUX_6_18, LINUX_6_18_URING]

EVERYTHING = Feature(sum(Feature))

# How the kernel reads the answer, struct fuse_init_out.
ANSWER = struct.Struct("=IIIIHHIIHHIIH22x")
MAJOR, MINOR, READAHEAD, FLAGS, BACKGROUND, CONGESTED, WRITE, GRANULARITY, PAGES, ALIGN, FLAGS2, DEPTH, LIMIT = range(
    13
)


@pytest.mark.parametrize("offer", KERNELS)
@pytest.mark.parametrize("wanted", [Feature(0), EVERYTHING])
def test_nothing_is_taken_that_is_not_offered(offer: InitRequest, wanted: Feature) -> None:
    answer = ANSWER.unpack(init_reply(agree(offer, wanted, stack_depth=2)))
    taken = answer[FLAGS] | answer[FLAGS2] << 32
    assert taken & ~offer.flags == 0
    assert taken & ~int(ALWAYS | wanted) == 0


@pytest.mark.parametrize("offer", KERNELS)
def test_what_every_mount_takes_is_taken_wherever_it_is_offered(offer: InitRequest) -> None:
    features = agree(offer, Feature(0)).features
    assert features == Feature(offer.flags & ALWAYS)
    for feature in (Feature.ASYNC_READ, Feature.READDIRPLUS_AUTO, Feature.PARALLEL_DIROPS, Feature.MAX_PAGES):
        assert features & feature


@pytest.mark.parametrize("offer", KERNELS)
def test_what_was_not_wanted_is_left(offer: InitRequest) -> None:
    session = agree(offer, Feature.NO_OPENDIR_SUPPORT)
    assert session.has(Feature.NO_OPENDIR_SUPPORT)
    for feature in (Feature.NO_OPEN_SUPPORT, Feature.WRITEBACK_CACHE, Feature.PASSTHROUGH, Feature.OVER_IO_URING):
        assert not session.has(feature)


@pytest.mark.parametrize(("offer", "minor"), [(LINUX_5_4, 31), (LINUX_5_15, 34), (LINUX_6_8, 39), (LINUX_6_18, 45)])
def test_the_lower_of_both_protocols_is_spoken(offer: InitRequest, minor: int) -> None:
    answer = ANSWER.unpack(init_reply(agree(offer, Feature(0))))
    assert (answer[MAJOR], answer[MINOR]) == (7, minor)
    assert agree(offer._replace(minor=99), Feature(0)).minor == 45


@pytest.mark.parametrize(("offer", "killed"), [(LINUX_5_4, False), (LINUX_5_15, True), (LINUX_6_18, True)])
def test_set_id_bits_are_taken_away_by_us_from_linux_5_12_on(offer: InitRequest, killed: bool) -> None:
    assert agree(offer, Feature(0)).has(Feature.HANDLE_KILLPRIV_V2) is killed


@pytest.mark.parametrize("offer", [LINUX_5_4, LINUX_5_15])
def test_a_kernel_without_a_second_word_gets_none(offer: InitRequest) -> None:
    answer = ANSWER.unpack(init_reply(agree(offer, EVERYTHING, stack_depth=2)))
    assert (answer[FLAGS2], answer[DEPTH]) == (0, 0)
    assert not answer[FLAGS] & Feature.INIT_EXT


def test_flags_of_the_second_word_without_init_ext_are_not_believed() -> None:
    odd = LINUX_6_18_URING._replace(flags=LINUX_6_18_URING.flags & ~Feature.INIT_EXT)
    session = agree(odd, EVERYTHING, stack_depth=2)
    assert not session.has(Feature.PASSTHROUGH)
    assert not session.has(Feature.OVER_IO_URING)


def test_a_second_word_goes_out_with_init_ext() -> None:
    answer = ANSWER.unpack(init_reply(agree(LINUX_6_18_URING, Feature.PASSTHROUGH | Feature.OVER_IO_URING, 1)))
    assert answer[FLAGS] & Feature.INIT_EXT
    assert answer[FLAGS2] == (1 << 5) | (1 << 9)


@pytest.mark.parametrize("offer", KERNELS)
def test_reads_and_writes_are_of_1_mib(offer: InitRequest) -> None:
    answer = ANSWER.unpack(init_reply(agree(offer, Feature(0))))
    assert (answer[WRITE], answer[PAGES] * mmap.PAGESIZE) == (1 << 20, 1 << 20)


def test_reads_and_writes_are_of_128_kib_without_max_pages() -> None:
    answer = ANSWER.unpack(init_reply(agree(LINUX_6_18._replace(flags=0x73BF_FFFB), Feature(0))))
    assert (answer[WRITE], answer[PAGES] * mmap.PAGESIZE) == (128 << 10, 128 << 10)


@pytest.mark.parametrize(("offered", "taken"), [(131072, 131072), (0, 0), (16 << 20, 1 << 20)])
def test_the_kernel_reads_as_far_ahead_as_it_offers_up_to_1_mib(offered: int, taken: int) -> None:
    answer = ANSWER.unpack(init_reply(agree(LINUX_6_18._replace(max_readahead=offered), Feature(0))))
    assert answer[READAHEAD] == taken


@pytest.mark.parametrize("depth", [1, 2])
def test_passthrough_goes_with_its_depth_and_never_with_the_cache_for_writing(depth: int) -> None:
    session = agree(LINUX_6_18, Feature.PASSTHROUGH | Feature.WRITEBACK_CACHE, depth)
    assert session.has(Feature.PASSTHROUGH)
    assert not session.has(Feature.WRITEBACK_CACHE)
    assert ANSWER.unpack(init_reply(session))[DEPTH] == depth


def test_passthrough_without_a_depth_is_not_taken() -> None:
    session = agree(LINUX_6_18, Feature.PASSTHROUGH | Feature.WRITEBACK_CACHE, 0)
    assert not session.has(Feature.PASSTHROUGH)
    assert session.has(Feature.WRITEBACK_CACHE)


def test_where_passthrough_is_not_offered_there_is_no_depth_and_the_cache_for_writing_stays() -> None:
    session = agree(LINUX_6_8, Feature.PASSTHROUGH | Feature.WRITEBACK_CACHE, 2)
    assert session.has(Feature.WRITEBACK_CACHE)
    assert session.stack_depth == 0


@pytest.mark.parametrize(("minor", "knows"), [(31, False), (43, False), (44, True), (45, True), (46, True)])
def test_epochs_are_known_from_7_44_on(minor: int, knows: bool) -> None:
    assert agree(LINUX_6_18._replace(minor=minor), Feature(0)).knows_epochs is knows


def test_the_rest_of_the_answer_is_the_same_for_all() -> None:
    body = init_reply(agree(LINUX_6_18, Feature(0)))
    answer = ANSWER.unpack(body)
    assert len(body) == 64
    assert (answer[GRANULARITY], answer[ALIGN], answer[LIMIT]) == (1, 0, 0)
    assert 0 < answer[CONGESTED] <= answer[BACKGROUND]


@pytest.mark.parametrize(
    ("feature", "bit"),
    [
        *((Feature.ASYNC_READ, 0), (Feature.ATOMIC_O_TRUNC, 3), (Feature.BIG_WRITES, 5), (Feature.AUTO_INVAL_DATA, 12)),
        *((Feature.DO_READDIRPLUS, 13), (Feature.READDIRPLUS_AUTO, 14), (Feature.ASYNC_DIO, 15)),
        *((Feature.WRITEBACK_CACHE, 16), (Feature.NO_OPEN_SUPPORT, 17), (Feature.PARALLEL_DIROPS, 18)),
        *((Feature.HANDLE_KILLPRIV, 19), (Feature.MAX_PAGES, 22), (Feature.CACHE_SYMLINKS, 23)),
        *((Feature.NO_OPENDIR_SUPPORT, 24), (Feature.EXPLICIT_INVAL_DATA, 25), (Feature.HANDLE_KILLPRIV_V2, 28)),
        *((Feature.INIT_EXT, 30), (Feature.PASSTHROUGH, 37), (Feature.OVER_IO_URING, 41)),
    ],
)
def test_features_have_the_kernels_bits(feature: Feature, bit: int) -> None:
    assert feature == 1 << bit
