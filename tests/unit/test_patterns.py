"""How a file is read: streams told from single reads, and when the whole is worth having."""

import random
from collections.abc import Callable

import pytest

from octuefs.content.patterns import Bargain, Streams

KIB, MIB = 1 << 10, 1 << 20
MOST = 64 * MIB


def test_a_first_read_is_a_single_one() -> None:
    assert Streams(MOST).note(0, 128 * KIB) is None


def test_reading_in_order_has_more_and_more_fetched_up_to_the_most() -> None:
    streams = Streams(MOST)
    ahead = [streams.note(at * 128 * KIB, 128 * KIB) for at in range(400)]
    assert ahead[0] is None
    assert ahead[1] == 4 * 256 * KIB
    grown = [it for it in ahead[1:] if it is not None]
    assert len(grown) == 399
    assert grown == sorted(grown)
    assert grown[-1] == MOST


def test_reads_that_the_kernel_sends_out_of_order_are_in_order() -> None:
    here = random.Random(1)
    offsets = [at * 128 * KIB for at in range(400)]
    for at in range(0, 400, 2):
        if here.random() < 0.5:
            offsets[at : at + 2] = reversed(offsets[at : at + 2])
    streams = Streams(MOST)
    ahead = [streams.note(offset, 128 * KIB) for offset in offsets]
    assert None not in ahead[1:]
    assert ahead[-1] == MOST


@pytest.mark.parametrize("size", [4 * KIB, 128 * KIB, MIB])
def test_eight_streams_side_by_side_are_told_apart(size: int) -> None:
    streams = Streams(MOST)
    here = random.Random(2)
    for turn in range(20):
        order = list(range(8))
        here.shuffle(order)
        for stream in order:
            ahead = streams.note(stream * 1024 * MIB + turn * size, size)
            assert (ahead is None) == (turn == 0)
            assert ahead is None or ahead <= 4 * (turn + 1) * size, "each has its own length"


def test_a_ninth_stream_takes_the_place_of_the_one_that_was_read_longest_ago() -> None:
    streams = Streams(MOST)
    for stream in range(9):
        streams.note(stream * 100 * MIB, 4 * KIB)
    assert streams.note(8 * 100 * MIB + 4 * KIB, 4 * KIB) is not None
    assert streams.note(1 * 100 * MIB + 4 * KIB, 4 * KIB) is not None
    assert streams.note(4 * KIB, 4 * KIB) is None


def test_random_reads_continue_nothing() -> None:
    here = random.Random(3)
    streams = Streams(MOST)
    ahead = [streams.note(here.randrange(64 * 1024) * 4 * MIB, 4 * KIB) for _ in range(1000)]
    assert sum(it is not None for it in ahead) < 10
    assert max(it or 0 for it in ahead) <= 256 * KIB


@pytest.mark.parametrize("size", [4 * KIB, 128 * KIB])
def test_reading_backwards_never_has_much_fetched_of_what_comes_after(size: int) -> None:
    streams = Streams(MOST)
    ahead = [streams.note(100 * MIB - at * size, size) or 0 for at in range(500)]
    assert max(ahead) <= 2 * MIB


def test_without_reading_ahead_no_bytes_are_worth_having() -> None:
    streams = Streams(0)
    assert streams.note(0, 4 * KIB) is None
    assert streams.note(4 * KIB, 4 * KIB) == 0


# --- renting and buying ----------------------------------------------------------------------------------------------


def test_a_few_single_pieces_buy_nothing_however_long_they_take() -> None:
    bargain = Bargain()
    assert not bargain.buys
    for _ in range(4):
        bargain.missed(1000.0)
    assert not bargain.buys
    bargain.missed(0.001)
    assert bargain.buys


def test_as_much_is_spent_on_the_whole_as_on_pieces_and_no_more() -> None:
    bargain = Bargain()
    for _ in range(10):
        bargain.missed(0.03)
    bargain.bought(0.29)
    assert bargain.buys
    bargain.bought(0.02)
    assert not bargain.buys
    bargain.missed(0.03)
    assert bargain.buys


def test_pieces_grow_with_misses_to_a_bound() -> None:
    bargain = Bargain()
    sizes = []
    for _ in range(200):
        sizes.append(bargain.piece_bytes())
        bargain.missed(0.03)
    assert sizes[:8] == [4 * KIB] * 8
    assert sizes[8:16] == [8 * KIB] * 8
    assert sizes == sorted(sizes)
    assert sizes[-1] == 256 * KIB


LINKS: dict[str, tuple[float, float]] = {
    "near": (0.0003, 1500e6),
    "far": (0.03, 400e6),
    "far and thin": (0.1, 20e6),
    "very far": (0.3, 100e6),
}


def spent(size: int, reads: int, latency: float, speed: float, pick: Callable[[int], int]) -> tuple[float, float]:
    """Read pieces of 4 KiB, one after the other; return the seconds spent on pieces, and on the whole."""
    bargain, here = Bargain(), set[int]()
    rented = bought = 0.0
    next_bought = 0
    for _ in range(reads):
        offset = pick(size)
        if offset // (8 * MIB) < next_bought or offset in here:
            continue
        piece = bargain.piece_bytes()
        first = offset - offset % piece
        here.update(range(first, first + piece, 4 * KIB))
        took = latency + piece / speed
        rented += took
        bargain.missed(took)
        while bargain.buys and next_bought * 8 * MIB < size:
            took = (latency + 8 * MIB / (speed / 8)) / 8  # eight at a time share the way
            bought += took
            bargain.bought(took)
            next_bought += 1
    return rented, bought


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("size", [16 * MIB, 256 * MIB, 4096 * MIB])
@pytest.mark.parametrize("reads", [1, 5, 30, 100, 1000, 10000])
def test_it_never_costs_much_more_than_twice_the_better_of_pieces_only_and_all_at_once(
    link: str, size: int, reads: int
) -> None:
    latency, speed = LINKS[link]
    here = random.Random(reads)
    rented, bought = spent(size, reads, latency, speed, lambda size: here.randrange(size // (4 * KIB)) * 4 * KIB)
    pieces_only = min(reads, size // (4 * KIB)) * (latency + 4 * KIB / speed)
    one_more = latency / 8 + 8 * MIB / speed  # what is bought comes in pieces of its own
    all_at_once = one_more * size / (8 * MIB)
    free = 4 * latency
    assert rented + bought <= 3 * min(pieces_only, all_at_once) + one_more + free, "pieces grow, which costs as well"
