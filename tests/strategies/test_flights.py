"""Calls in flight as they are drawn: several at a time, on streams, with buffers that turn over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise

from harness.scenario.bases import CollectiveStep
from harness.scenario.scenario import Scenario
from harness.scenario.steps import STREAMS, Allocate, InFlight, Release, Stall, Step, Straggle
from harness.strategies.batches import sample
from harness.strategies.programs import scenarios
from tests.tools.drawn import MANY, harmless


@cache
def on_streams() -> list[Scenario]:
    return sample(scenarios(8, streams=STREAMS), MANY // 3, seed=2)


def flights(drawn: list[Scenario]) -> Iterator[list[Step]]:
    """The steps of each flight."""
    for scenario in drawn:
        steps: list[Step] | None = None
        for step in scenario.steps:
            if isinstance(step, InFlight):
                if steps is not None:
                    yield steps
                steps = [] if step.begins else None
            elif steps is not None:
                steps.append(step)
        if steps is not None:
            yield steps


def late(steps: list[Step]) -> bool:
    """Whether a rank is late between two calls."""
    kinds = ["late" if isinstance(step, Straggle) else "call" for step in steps if not isinstance(step, Allocate)]
    return "late" in kinds[1:-1]


def calls(steps: list[Step]) -> list[CollectiveStep]:
    return [step for step in steps if isinstance(step, CollectiveStep)]


def test_flights_of_two_to_ten_calls_are_drawn() -> None:
    sizes = [len(calls(steps)) for steps in flights(harmless())]
    assert sum(2 <= size <= 10 for size in sizes) >= MANY // 8
    assert sum(size >= 4 for size in sizes) >= MANY // 20


def test_calls_of_several_communicators_and_by_kernels_are_in_flight_together() -> None:
    drawn = [calls(steps) for steps in flights(harmless())]
    assert sum(len({call.family for call in steps}) > 1 for steps in drawn) >= 20
    assert sum({call.via for call in steps} == {"library", "kernel"} for steps in drawn) >= 20


def test_kernel_calls_of_one_family_are_queued_with_a_late_rank_in_their_midst() -> None:
    drawn = [steps for steps in flights(sample(scenarios(8, via="kernel"), MANY // 3, seed=4)) if late(steps)]
    most = [max(Counter(call.family for call in calls(steps)).values()) for steps in drawn]
    assert sum(size >= 2 for size in most) >= 5
    assert max(most) >= 6


def test_several_streams_are_in_flight() -> None:
    drawn = [calls(steps) for steps in flights(on_streams())]
    assert sum(len({call.stream for call in steps}) > 1 for steps in drawn) >= 10


def test_kernels_of_two_families_make_the_same_call_on_two_streams_at_once() -> None:
    drawn = [calls(steps) for steps in flights(sample(scenarios(8, streams=STREAMS, via="kernel"), MANY, seed=4))]
    alike = [
        sum((one.kind, one.count) == (next_.kind, next_.count) and one.stream != next_.stream for one, next_ in pairs)
        for pairs in ([*pairwise(steps)] for steps in drawn)
    ]
    assert sum(number > 0 for number in alike) >= 5


def test_buffers_are_released_before_their_calls_are_waited_for() -> None:
    drawn = [*flights(harmless())]
    assert sum(any(isinstance(step, Release) for step in steps) for steps in drawn) >= MANY // 20


def test_streams_are_stalled() -> None:
    assert sum(isinstance(step, Stall) for drawn in harmless() for step in drawn.steps) >= MANY // 20


def test_addresses_fall_on_some_ranks_in_some_draws_without_steady_state() -> None:
    falling = [drawn for drawn in harmless() if drawn.falls_on]
    assert MANY // 25 <= len(falling) <= MANY // 5
    assert not any(step.kind == "steady" for drawn in falling for step in drawn.steps)
    assert not any(drawn.falls_on for drawn in sample(scenarios(8, falling=False), 60))


def test_a_share_of_layouts_is_on_two_nodes() -> None:
    assert sum(len({*drawn.topology.node_of}) > 1 for drawn in harmless()) >= MANY // 15
