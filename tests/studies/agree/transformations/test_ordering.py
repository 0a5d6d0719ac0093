"""Swapped steps: those that share no rank, and calls that share no buffer; nothing else moves."""

from __future__ import annotations

import pytest

from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    AllGather,
    Allocate,
    Capture,
    EndCapture,
    Prepare,
    Release,
    Steady,
    Step,
    Straggle,
    Trim,
)
from harness.scenario.topology import Topology
from harness.strategies.batches import sample
from harness.strategies.programs import scenarios
from harness.studies.agree.transformations.ordering import swap_steps

HALVES = Topology("halves", "explicit", families_given={"tp": ((0, 1), (2, 3)), "dp": ((0, 2), (1, 3))})
LOW, HIGH = ((0, 1),), ((2, 3),)
BOTH: tuple[Step, ...] = (Allocate("a", "tp", 64), Allocate("b", "dp", 64))
ON_A, ON_B = AllGather("tp", View("a"), 8), AllGather("dp", View("b"), 8)


def order(steps: tuple[Step, ...]) -> tuple[int, ...] | None:
    """Which step stands at each place of the variant."""
    variant = swap_steps(Scenario(HALVES, steps))
    return None if variant is None else variant.steps


@pytest.mark.parametrize(
    "steps",
    [
        (Allocate("a", "tp", 64, groups=LOW), Allocate("b", "tp", 64, groups=HIGH)),
        (Allocate("a", "tp", 64, groups=LOW), Straggle(2, 1)),
    ],
)
def test_steps_of_other_ranks_are_swapped(steps: tuple[Step, ...]) -> None:
    assert order(steps) == (1, 0)


def test_a_release_acts_on_the_ranks_that_hold_the_buffer() -> None:
    here, there = Allocate("a", "tp", 64, groups=LOW), Allocate("b", "tp", 64, groups=HIGH)
    straggle = Straggle(2, 1)
    assert order((here, Trim(), Release("a"), straggle)) == (0, 1, 3, 2)
    assert order((there, Trim(), Release("b"), straggle)) is None


def test_calls_on_other_buffers_are_swapped() -> None:
    assert order((*BOTH, ON_A, ON_B)) == (0, 1, 3, 2)


def test_no_step_moves_twice() -> None:
    more = (Allocate("c", "tp", 64), Trim(), ON_A, ON_B, AllGather("tp", View("c"), 8))
    assert order((*BOTH, *more)) == (0, 1, 2, 3, 5, 4, 6)


@pytest.mark.parametrize(
    "steps",
    [
        BOTH,
        (*BOTH, ON_A, AllGather("tp", View("a", 8), 8)),
        (BOTH[0], ON_A, BOTH[1]),
        (*BOTH, ON_A, Release("b"), Trim()),
        (*BOTH, ON_A, Trim(), ON_B),
    ],
    ids=["allocations", "one buffer", "a call and an allocation", "a call and a release", "a trim between"],
)
def test_what_may_depend_stays(steps: tuple[Step, ...]) -> None:
    assert order(steps) is None


def test_graphs_stay_as_they_are() -> None:
    calls = (*BOTH, ON_A, ON_B)
    captured = (Prepare("g"), *BOTH, Capture("g"), ON_A, ON_B, EndCapture("g"))
    assert order(captured) is None
    assert order(calls) is not None


def test_programs_with_steady_state_stay_as_they_are() -> None:
    stretch = (ON_A, ON_B)
    assert order((*BOTH, *stretch, *stretch)) is not None
    assert order((*BOTH, *stretch, *stretch, Steady(), *stretch)) is None


def test_each_rank_makes_the_same_steps_apart_from_calls_on_other_buffers() -> None:
    swapped = 0
    for scenario in sample(scenarios(8), 60):
        if (variant := swap_steps(scenario)) is None:
            continue
        swapped += 1
        assert sorted(variant.steps) == [*range(len(scenario.steps))]
        assert [scenario.steps[index] for index in variant.steps] == [*variant.scenario.steps]
        assert all(abs(place - index) <= 1 for place, index in enumerate(variant.steps))
    assert swapped
