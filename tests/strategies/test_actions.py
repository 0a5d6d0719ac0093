"""Drawn actions: every corner of counts, types and offsets turns up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import get_args

import pytest

from harness.scenario.bases import CollectiveStep, Op
from harness.scenario.operands import ITEMSIZE, at
from harness.scenario.steps import Allocate, Collective, ReduceScatter, Step
from tests.tools.drawn import MANY, harmless


def steps() -> Iterator[Step]:
    return (step for drawn in harmless() for step in drawn.steps)


def collectives() -> Iterator[Collective]:
    return (step for step in steps() if isinstance(step, CollectiveStep))


def seldom(found: Iterable[object], expected: Iterable[object], at_least: int = 10) -> list[object]:
    """What of `expected` turns up less than `at_least` times."""
    counts = Counter(found)
    return [value for value in expected if counts[value] < at_least]


RARE = {"float64", "int8", "uint8", "int64", "min"}
"""Programs may have them, and none that is drawn does."""


def test_every_dtype_but_rare_ones_is_drawn() -> None:
    assert not seldom((step.dtype for step in steps() if isinstance(step, Allocate)), {*ITEMSIZE} - RARE)


def test_every_reduction_but_rare_ones_is_drawn() -> None:
    assert not seldom((step.op for step in steps() if isinstance(step, ReduceScatter)), {*get_args(Op)} - RARE)


def test_offsets_of_both_operands_are_drawn() -> None:
    views = [(step.whole, step.part) for step in collectives()]
    assert sum(whole.offset > 0 for whole, _ in views) >= 20
    assert sum(part is not None and part.offset > 0 for _, part in views) >= 20


@pytest.mark.parametrize("count", [1, 127, 128, 129, 1023, 1025, 4097, 32769, 65537])
def test_counts_on_both_sides_of_the_block_sizes_are_drawn(count: int) -> None:
    drawn = (at(step.count, 0) for step in collectives())
    assert any(found == count for found in drawn)


def test_odd_and_even_counts_are_drawn() -> None:
    assert not seldom((at(step.count, 0) % 2 for step in collectives()), [0, 1], at_least=MANY // 4)
