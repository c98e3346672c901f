"""Ranges of names: each name is listed once, whatever the names are and wherever the ranges are split."""

import random
from bisect import bisect_left
from collections.abc import Callable
from hashlib import md5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octuefs.stores.gcs_listing_points import between, common, successor
from octuefs.stores.gcs_listing_ranges import Range, Ranges

PREFIX = "data/"
WORKERS = 8

Answer = tuple[list[str], str | None]


class Pager:
    """A bucket that counts requests; a token is the number of the name to go on with."""

    def __init__(self, names: list[str], page_size: int) -> None:
        self.names = sorted(names, key=str.encode)
        self.page_size = page_size
        self.requests = 0

    def page(self, taken: Range) -> Answer:
        self.requests += 1
        start = 0 if taken.start is None else bisect_left(self.names, taken.start)
        end = len(self.names) if taken.asked_end is None else bisect_left(self.names, taken.asked_end)
        start = start if taken.token is None else int(taken.token)
        following = min(start + self.page_size, end)
        return self.names[start:following], str(following) if following < end else None


class Forgetful(Pager):
    """One that does not know offsets."""

    def page(self, taken: Range) -> Answer:
        return super().page(Range(None, None, None, token=taken.token))


class Hesitant(Pager):
    """One whose pages are shorter than they may be, at times empty, as Google's are where many objects were removed."""

    def page(self, taken: Range) -> Answer:
        names, token = super().page(taken)
        if self.requests % 3 or not names:
            return names, token
        kept = names[: self.requests % 2]
        start = bisect_left(self.names, names[0])
        return kept, str(start + len(kept))


def listed(pager: Pager, chance: random.Random) -> list[str]:
    """List all, the requests being answered in any order."""
    ranges = Ranges(PREFIX, pager.page_size)
    found: list[str] = []
    waiting: list[tuple[Range, Answer]] = []
    while True:
        while len(waiting) < WORKERS and (taken := ranges.take()) is not None:
            waiting.append((taken, pager.page(taken)))
        if not waiting:
            assert ranges.is_done
            return found
        taken, (names, token) = waiting.pop(chance.randrange(len(waiting)))
        found += names[ranges.put_back(taken, names, token)]


def most_requests(names: list[str], page_size: int) -> float:
    return 1.5 * -(-len(names) // page_size) + 16


ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
NAMES = st.sets(
    st.builds(
        lambda *parts: PREFIX + "".join(parts),
        st.sampled_from(["", "", "a/", "é", "\U0010ffff" * 3, "x" * 900]),
        ANY_TEXT
        | st.text("ab/", max_size=8)
        | st.integers(0, 3000).map(str)
        | st.text("\0\x7f\ud7ff\U0010ffff", max_size=4),
    ),
    max_size=150,
).map(list)


@given(NAMES, st.integers(1, 6), st.randoms(use_true_random=False), st.sampled_from([Pager, Forgetful, Hesitant]))
def test_each_name_is_listed_once_whatever_the_names(
    names: list[str], page_size: int, chance: random.Random, kind: type[Pager]
) -> None:
    pager = kind(names, page_size)
    assert sorted(listed(pager, chance)) == sorted(names)
    if kind is Pager:
        assert pager.requests <= most_requests(names, page_size)


@given(NAMES)
def test_what_fits_in_a_page_is_one_request(names: list[str]) -> None:
    pager = Pager(names, max(len(names), 1))
    assert len(listed(pager, random.Random(1))) == len(names)
    assert pager.requests == 1


def numbered(text: str, count: int) -> list[str]:
    return [PREFIX + text.format(number) for number in range(count)]


SHAPES: dict[str, Callable[[], list[str]]] = {
    "numbers with zeros before": lambda: numbered("img_{:08}.jpg", 20_000),
    "numbers": lambda: numbered("img_{}.jpg", 20_000),
    "hashes": lambda: [PREFIX + md5(str(number).encode()).hexdigest() for number in range(20_000)],
    "folders": lambda: [f"{PREFIX}{folder:03}/{number:04}.csv" for folder in range(20) for number in range(1000)],
    "words": lambda: [f"{PREFIX}{word}/{number:05}" for word in ("cats", "dogs", "horses") for number in range(6_600)],
    "one character in the middle of Unicode": lambda: [
        f"{PREFIX}å{chr(0x4E00 + number % 3000)}/{number}" for number in range(20_000)
    ],
    "names that differ at the end": lambda: numbered("x" * 1000 + "{:06}", 20_000),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_most_of_a_long_listing_is_asked_for_at_the_same_time(shape: str) -> None:
    names = SHAPES[shape]()
    pager = Pager(names, 100)
    ranges = Ranges(PREFIX, 100)
    found = rounds = 0
    while not ranges.is_done:
        rounds += 1
        taken = [it for _ in range(WORKERS) if (it := ranges.take()) is not None]
        for each in taken:
            page, token = pager.page(each)
            mine = ranges.put_back(each, page, token)
            found += mine.stop - mine.start
    assert found == len(names)
    assert rounds <= 200 / 4, f"{rounds} rounds of at most {WORKERS} requests for 200 pages"
    assert pager.requests <= most_requests(names, 100)


# --- points


@given(ANY_TEXT, ANY_TEXT | st.none())
def test_a_point_between_two_names_lies_between_them_and_can_be_sent(low: str, high: str | None) -> None:
    if high is not None:
        low, high = sorted((low, high))
    point = between(low, high) if low != high else None
    if point is not None:
        assert low.encode() < point.encode()
        assert high is None or point < high


@pytest.mark.parametrize(
    ("low", "high"),
    [("a", "b"), ("a", "c"), ("a", "aa"), ("ab", "ac"), ("x" * 1000 + "1", "x" * 1000 + "4"), ("a", None), ("é", "ü")],
)
def test_a_point_is_found_between_usual_names(low: str, high: str | None) -> None:
    point = between(low, high)
    if (low, high) == ("a", "aa"):
        assert point is None or low < point < "aa"
    else:
        assert point is not None


@given(ANY_TEXT, ANY_TEXT)
def test_a_successor_comes_after_all_that_begin_alike(text: str, rest: str) -> None:
    after = successor(text)
    if after is not None:
        assert (text + rest).encode() < after.encode()
    assert after is not None or not text or text[-1] >= "\U0010fffd"


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT)
def test_what_names_have_in_common_is_counted_in_characters(beginning: str, one: str, other: str) -> None:
    length = common(beginning + one, beginning + other)
    assert length >= len(beginning)
    assert (beginning + one)[:length] == (beginning + other)[:length]
    assert (beginning + one)[length : length + 1] != (beginning + other)[length : length + 1] or length == min(
        len(beginning + one), len(beginning + other)
    )
