"""Drawn calls: every operation, and every way in which the ranks of a group contribute to one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import get_args

import pytest

from harness.scenario.alive import Alive
from harness.scenario.bases import STAGED_BYTES, CollectiveStep, counts_in
from harness.scenario.operands import ITEMSIZE, at
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Allocate, AllReduce, AllToAll, Broadcast, Collective, Replay, Steady, Straggle
from harness.strategies.actions import COLLECTIVES, EDGES, FAR_APART
from harness.strategies.calls import KINDS
from harness.strategies.operands import LARGEST_BYTES
from harness.strategies.programs import scenarios
from tests.tools.drawn import MANY, harmless, sample

FAR = 4096


def calls() -> Iterator[tuple[Scenario, CollectiveStep]]:
    return ((drawn, step) for drawn in harmless() for step in drawn.steps if isinstance(step, CollectiveStep))


def shares() -> Iterator[tuple[CollectiveStep, tuple[int, ...]]]:
    """What the ranks of a group contribute, for each group of more than one rank."""
    for drawn, step in calls():
        for group, _ in drawn.acting(step):  # type: ignore[arg-type]
            if len(group) > 1:
                yield step, counts_in(step, group)


def test_every_operation_can_be_drawn() -> None:
    assert {*KINDS.values()} == {*get_args(Collective)}
    assert [*KINDS] == [*COLLECTIVES]


@pytest.mark.parametrize("kind", COLLECTIVES)
def test_every_operation_is_drawn(kind: str) -> None:
    assert sum(step.kind == kind for _, step in calls()) >= MANY // 20


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.has_kernels])
def test_every_operation_that_can_goes_through_kernels(kind: str) -> None:
    assert sum((step.kind, step.via) == (kind, "kernel") for _, step in calls()) >= 5


def test_some_ranks_have_nothing_and_some_less() -> None:
    found = [counts for _, counts in shares()]
    assert sum(0 in counts and any(counts) for counts in found) >= 20
    assert sum(len({*counts}) > 1 and 0 not in counts for counts in found) >= 20
    assert sum(not any(counts) for counts in found) >= 20


def test_ranks_differ_through_kernels_too() -> None:
    assert sum(step.via == "kernel" and len({*counts}) > 1 for step, counts in shares()) >= 10


def test_pairs_of_an_all_to_all_have_counts_of_their_own() -> None:
    found = [step.counts for _, step in calls() if isinstance(step, AllToAll) and step.counts]
    assert len(found) >= 5
    assert sum(len({count for row in counts for count in row}) > 2 for counts in found) >= 4
    assert all(max(map(max, counts)) <= LARGEST_BYTES for counts in found)


def test_kernels_reduce_more_than_half_a_mebibyte() -> None:
    sizes = [
        at(step.count, 0) * ITEMSIZE[drawn.allocations[step.whole.buffer].dtype]
        for drawn in sample(scenarios(4, via="kernel"), 2 * MANY)
        for step in drawn.steps
        if isinstance(step, AllReduce)
    ]
    assert sum(size > 1 << 19 for size in sizes) >= 2


CAPTURED = ("all_gather", "reduce_scatter", "all_reduce", "all_to_all", "broadcast")


@pytest.fixture(scope="module")
def with_graphs() -> list[Scenario]:
    return sample(scenarios(4, graphs=True), MANY)


@pytest.mark.parametrize("kind", CAPTURED)
@pytest.mark.parametrize("is_in_place", [True, False])
def test_graphs_hold_calls_of_every_kind(kind: str, is_in_place: bool, with_graphs: list[Scenario]) -> None:
    held = [step for drawn in with_graphs for step in captured(drawn) if step.kind == kind]
    found = [step for step in held if (step.part is None) == is_in_place]
    never = not is_in_place if kind in ("all_gather", "reduce_scatter") else is_in_place and kind == "all_to_all"
    assert not found if never else len(found) >= 5


def captured(drawn: Scenario) -> Iterator[CollectiveStep]:
    steps = (drawn.steps[index] for indices in drawn.captures.values() for index in indices)
    return (step for step in steps if isinstance(step, CollectiveStep))


def test_large_captured_all_to_alls_have_both_sides_in_windows(with_graphs: list[Scenario]) -> None:
    """NCCL loses others that a plug-in leaves to it (`half-registered`)."""
    found = [
        [drawn.allocations[view.buffer].role for view in step.views]
        for drawn in with_graphs
        for step in captured(drawn)
        if isinstance(step, AllToAll)
        and at(step.count, 0) * ITEMSIZE[drawn.allocations[step.whole.buffer].dtype] > STAGED_BYTES
    ]
    assert found
    assert all(roles == ["window", "window"] for roles in found)


def test_any_rank_may_be_late_for_the_replay_of_a_broadcast() -> None:
    late = set()
    for drawn in sample(scenarios(4, via="kernel", graphs=True), 2 * MANY):
        holding = {
            graph
            for graph, steps in drawn.captures.items()
            if any(isinstance(drawn.steps[index], Broadcast) for index in steps)
        }
        for one, other in pairwise(drawn.steps):
            if isinstance(one, Straggle) and isinstance(other, Replay) and other.graph in holding and drawn.world == 4:
                late.add(one.rank)
    assert late == {0, 1, 2, 3}


def test_graphs_run_after_others_were_captured_on_their_communicators(with_graphs: list[Scenario]) -> None:
    """State of the capture that a plug-in keeps a communicator is then that of the newer one."""
    assert sum(any(runs_older(drawn)) for drawn in with_graphs) >= 10


def runs_older(drawn: Scenario) -> Iterator[bool]:
    families = {
        graph: {step.family for step in drawn.steps[steps.start : steps.stop] if isinstance(step, CollectiveStep)}
        for graph, steps in drawn.captures.items()
    }
    for index, step in enumerate(drawn.steps):
        if isinstance(step, Replay):
            own = drawn.captures[step.graph]
            later = (graph for graph, steps in drawn.captures.items() if own.stop < steps.start and steps.stop < index)
            yield any(families[graph] & families[step.graph] for graph in later)


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("beside", [-1, 0, 1])
def test_sizes_beside_a_power_of_two_bytes_are_drawn(edge: int, beside: int) -> None:
    assert any(
        at(step.count, 0) == (1 << edge) // ITEMSIZE[drawn.allocations[step.whole.buffer].dtype] + beside
        for drawn, step in calls()
    )


def test_operands_of_a_quarter_mebibyte_and_more_are_drawn_and_few() -> None:
    sizes = [
        max(step.reach(group, group[0])) * ITEMSIZE[drawn.allocations[step.whole.buffer].dtype]
        for drawn, step in calls()
        for group, _ in drawn.acting(step)[:1]  # type: ignore[arg-type]
    ]
    assert 10 <= sum(size >= 1 << 18 for size in sizes) <= len(sizes) // 10
    assert any(size >= 1 << 20 for size in sizes)


def test_views_at_the_far_end_of_large_buffers_are_drawn() -> None:
    assert sum(at(step.whole.offset, 0) > FAR for _, step in calls()) >= MANY // 10


def test_groups_of_a_family_have_buffers_of_other_size_classes() -> None:
    allocations = (step for drawn in harmless() for step in drawn.steps if isinstance(step, Allocate))
    tables = (step.elements for step in allocations if isinstance(step.elements, tuple))
    assert sum(max(each) - min(count for count in each if count) >= FAR_APART for each in tables if any(each)) >= 10


def test_some_programs_are_long_with_many_live_buffers() -> None:
    lengths = [len(drawn.steps) for drawn in harmless()]
    assert sum(length >= 16 for length in lengths) >= MANY // 10
    assert max(lengths) <= 40
    assert sum(most_alive(drawn) > 10 for drawn in harmless()) >= MANY // 50


def most_alive(drawn: Scenario) -> int:
    alive, most = Alive(drawn.topology), 0
    for step in drawn.steps:
        alive.take(step)
        most = max(most, len(alive.buffers))
    return most


def test_steady_state_is_drawn() -> None:
    begins = Counter(step.begins for drawn in harmless() for step in drawn.steps if isinstance(step, Steady))
    assert min(begins[True], begins[False]) >= 20


def test_copy_engines_are_asked_for_in_a_share_of_the_calls_that_they_can_move() -> None:
    asked = Counter(step.kind for _, step in calls() if step.via == "copy-engine")
    could = Counter(step.kind for _, step in calls() if step.via != "kernel" and step.has_copies)
    assert asked.keys() == {"all_gather", "all_to_all"}
    assert all(0.02 <= asked[kind] / could[kind] <= 0.2 for kind in asked)
