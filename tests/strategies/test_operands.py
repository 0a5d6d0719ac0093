"""Operands of drawn collectives: sizes at the boundaries, and windows that their own groups alone use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from harness.scenario.bases import CollectiveStep
from harness.scenario.operands import GUARD, ITEMSIZE, at
from harness.scenario.steps import Allocate, Collective, Step
from harness.scenario.topology import Topology
from harness.strategies.builder import Builder
from tests.tools.drawn import MANY, act, harmless, stale_uses

PAIR = Topology(name="pair", convention="vllm", degrees={"tp": 2})


def steps() -> Iterator[Step]:
    return (step for drawn in harmless() for step in drawn.steps)


def collectives() -> Iterator[Collective]:
    return (step for step in steps() if isinstance(step, CollectiveStep))


def test_counts_that_differ_between_groups_are_drawn() -> None:
    assert sum(isinstance(step.count, tuple) and len(set(step.count)) > 1 for step in collectives()) >= 20


@pytest.mark.parametrize("boundary", [512, 1 << 20, 2 << 20, 10 << 20, 20 << 20])
@pytest.mark.parametrize("side", [-1, 0, 1])
def test_buffers_on_both_sides_of_the_size_classes_are_drawn(boundary: int, side: int) -> None:
    wanted = {boundary + side * size for size in ITEMSIZE.values()}
    sizes = ((at(step.elements, 0) + GUARD) * ITEMSIZE[step.dtype] for step in steps() if isinstance(step, Allocate))
    assert any(size in wanted for size in sizes)


def test_buffers_are_used_more_than_once() -> None:
    uses = [Counter(s.whole.buffer for s in drawn.steps if isinstance(s, CollectiveStep)) for drawn in harmless()]
    assert sum(max(count.values()) > 1 for count in uses) >= MANY // 10


def test_window_buffer_is_used_only_by_the_groups_it_was_allocated_for() -> None:
    for drawn in harmless():
        partitions = drawn.topology.families
        owner = {s.buffer: partitions[s.family] for s in drawn.steps if isinstance(s, Allocate) and s.role == "window"}
        for step in drawn.steps:
            if isinstance(step, CollectiveStep):
                assert owner[step.whole.buffer] == partitions[step.family]


def test_window_buffer_is_not_used_after_its_communicator_was_replaced() -> None:
    for drawn in harmless():
        assert not stale_uses(drawn.topology, drawn.steps)


def test_window_buffer_is_no_part_of_a_call_after_its_communicator_was_replaced() -> None:
    allocate, recreate = act("allocate", count=8), act("recreate")
    gather = act("all_gather", is_fresh=True, count=8, part="window")
    assert not stale_uses(PAIR, Builder(PAIR, 16).build([allocate, recreate], gather))
