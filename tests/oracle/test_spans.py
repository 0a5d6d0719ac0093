"""Spans: the right ones are found, whatever their lengths, and few others are looked at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.oracle.spans import Span, Spans

SPANS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda pair: (pair[0], pair[0] + pair[1])))


def spans(*each: Span) -> Spans[str]:
    found: Spans[str] = Spans()
    for span in each:
        found.put(span, str(span))
    return found


@given(SPANS, st.integers(0, 80), st.integers(0, 10))
def test_those_that_meet_a_range_are_found_and_no_others(each: list[Span], start: int, length: int) -> None:
    end = start + length
    met = {span: str(span) for span in each if span[0] < end and start < span[1]}
    assert dict(spans(*each).meeting(start, end)) == met


@given(SPANS, st.integers(0, 80))
def test_those_that_cover_an_address_are_found_and_no_others(each: list[Span], address: int) -> None:
    assert {span for span, _ in spans(*each).covering(address)} == {s for s in each if s[0] <= address < s[1]}


def test_a_span_has_one_thing() -> None:
    two = spans((0, 8))
    two.put((0, 8), "other")
    assert (two.get((0, 8)), [*two.covering(3)], two.get((0, 4))) == ("other", [((0, 8), "other")], None)


@given(SPANS.filter(bool))
def test_a_span_that_was_dropped_is_found_no_more(each: list[Span]) -> None:
    some = spans(*each)
    some.drop(each[0])
    assert {span for span, _ in some.meeting(0, 100)} == {s for s in each if s != each[0] and s[1] > 0}


def test_a_span_that_is_not_there_cannot_be_dropped() -> None:
    with pytest.raises(KeyError):
        spans((0, 8)).drop((0, 4))
