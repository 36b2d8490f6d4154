"""Which bytes of a file are there: the ranges behave like a set of integers, whatever is done to them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autodl_lib.worker.files.byte_ranges import ByteRanges

SIZE = 40
Span = tuple[int, int]

offsets = st.integers(0, SIZE)
spans = st.tuples(offsets, offsets)
"""Half of them are empty or the wrong way round, which stands for no bytes at all."""
changes = st.lists(st.tuples(st.sampled_from(["add", "remove"]), spans), max_size=25)


def model_of(steps: list[tuple[str, Span]]) -> set[int]:
    """Do the same to a set of integers."""
    model: set[int] = set()
    for verb, (start, end) in steps:
        if verb == "add":
            model |= set(range(start, end))
        else:
            model -= set(range(start, end))
    return model


def made_by(steps: list[tuple[str, Span]]) -> ByteRanges:
    """Do the steps."""
    made = ByteRanges()
    for verb, span in steps:
        change: Callable[[int, int], None] = made.add if verb == "add" else made.remove
        change(*span)
    return made


def offsets_in(ranges: list[Span] | tuple[Span, ...]) -> list[int]:
    """Return every offset that ranges hold, as often as they hold it."""
    return [offset for start, end in ranges for offset in range(start, end)]


@given(steps=changes)
@example(steps=[("add", (0, 10)), ("remove", (5, 5))])
@example(steps=[("add", (0, 10)), ("remove", (7, 3))])
def test_the_set_holds_what_was_put_in_and_not_taken_out(steps: list[tuple[str, Span]]) -> None:
    made, model = made_by(steps), model_of(steps)
    assert offsets_in(made.ranges()) == sorted(model)
    assert made.total() == len(model)


@given(steps=changes)
@example(steps=[("add", (0, 10)), ("remove", (5, 5))])
@example(steps=[("add", (0, 5)), ("add", (10, 15)), ("add", (5, 10))])
def test_ranges_are_ascending_and_not_empty_and_apart_from_each_other(steps: list[tuple[str, Span]]) -> None:
    ranges = made_by(steps).ranges()
    assert all(start < end for start, end in ranges)
    assert all(before[1] < after[0] for before, after in pairwise(ranges))


@given(steps=changes, span=spans)
@example(steps=[("add", (0, 5)), ("add", (6, 10))], span=(0, 10))
def test_a_range_is_covered_when_all_its_bytes_are_there(steps: list[tuple[str, Span]], span: Span) -> None:
    assert made_by(steps).covers(*span) == (set(range(*span)) <= model_of(steps))


@given(steps=changes, span=spans)
def test_what_is_missing_is_the_rest_of_the_range_in_as_few_pieces_as_can_be(
    steps: list[tuple[str, Span]], span: Span
) -> None:
    missing = made_by(steps).missing(*span)
    assert offsets_in(missing) == sorted(set(range(*span)) - model_of(steps))
    assert all(start < end for start, end in missing)
    assert all(before[1] < after[0] for before, after in pairwise(missing))


@given(steps=changes, span=spans)
def test_looking_changes_nothing(steps: list[tuple[str, Span]], span: Span) -> None:
    made = made_by(steps)
    before = made.ranges()
    made.covers(*span)
    made.missing(*span).append((0, SIZE))
    assert made.ranges() == before


@given(given_ranges=st.lists(spans, max_size=10))
def test_a_set_is_made_of_any_ranges_in_any_order(given_ranges: list[Span]) -> None:
    assert offsets_in(ByteRanges(given_ranges).ranges()) == sorted({*offsets_in(given_ranges)})


@given(steps=changes)
def test_a_copy_is_the_same_set_and_lives_alone(steps: list[tuple[str, Span]]) -> None:
    made = made_by(steps)
    before = made.ranges()
    copy = ByteRanges(before)
    assert copy.ranges() == before
    copy.add(0, SIZE + 1)
    assert made.ranges() == before


@pytest.mark.parametrize("middle", [(5, 5), (5, 3), (0, 0), (10, 10)])
def test_taking_nothing_out_does_not_cut_a_range_in_two(middle: Span) -> None:
    made = ByteRanges([(0, 10)])
    made.remove(*middle)
    assert made.ranges() == ((0, 10),)
    assert made.covers(0, 10)


def test_offsets_of_the_largest_files_are_exact() -> None:
    end = 2**63 - 1
    made = ByteRanges([(0, end - 1)])
    assert not made.covers(0, end)
    assert made.missing(0, end) == [(end - 1, end)]
    made.add(end - 1, end)
    assert made.ranges() == ((0, end),)
    assert made.total() == end
