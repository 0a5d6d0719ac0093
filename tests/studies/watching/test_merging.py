"""One order out of several: it agrees with all of them where they agree, and has everything once."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from harness.studies.watching.merging import merged


@given(st.lists(st.integers(0, 9), unique=True), st.lists(st.sets(st.integers(0, 9)), min_size=1, max_size=4))
def test_orders_that_agree_are_kept(order: list[int], kept: list[set[int]]) -> None:
    lines = [[thing for thing in order if thing in each] for each in kept]
    numbers = merged(lines)
    assert sorted(numbers.values()) == [*range(len(set().union(*lines)))]
    assert all(numbers[one] < numbers[other] for line in lines for one, other in pairwise(line))


@given(st.lists(st.permutations(range(5)), min_size=1, max_size=4))
def test_orders_that_do_not_agree_have_everything_once(lines: list[list[int]]) -> None:
    assert sorted(merged(lines)) == [0, 1, 2, 3, 4]
    assert sorted(merged(lines).values()) == [0, 1, 2, 3, 4]


def test_what_two_ranks_did_in_opposite_order_follows_the_lower_rank() -> None:
    assert merged([["a", "b"], ["b", "a"]]) == {"a": 0, "b": 1}


def test_nothing_has_no_order() -> None:
    assert merged([[], []]) == {}
