"""Extents against a plain set of numbers."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from octuefs.content.extents import Extents

SPAN = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted)
STEPS = st.lists(st.tuples(st.booleans(), SPAN), max_size=30)


@given(STEPS, SPAN)
def test_extents_hold_what_a_set_of_offsets_holds(steps: list[tuple[bool, list[int]]], asked: list[int]) -> None:
    extents, model = Extents(), set[int]()
    for adds, (start, end) in steps:
        if adds:
            extents.add(start, end)
            model |= set(range(start, end))
        else:
            extents.remove(start, end)
            model -= set(range(start, end))
    assert {it for start, end in extents for it in range(start, end)} == model
    assert extents.total == len(model)
    ranges = list(extents)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(ranges)), "joined, and in order"
    start, end = asked
    assert extents.covers(start, end) == (set(range(start, end)) <= model)
    gaps = list(extents.gaps(start, end))
    assert {it for low, high in gaps for it in range(low, high)} == set(range(start, end)) - model
    assert all(low < high for low, high in gaps)
