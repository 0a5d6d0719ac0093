"""Calls made of two: halves that lie where the whole lay, and an all-reduce of a reduce-scatter and an all-gather."""

from __future__ import annotations

import pytest

from harness.scenario.bases import CollectiveStep
from harness.scenario.operands import View, at
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    AllGather,
    Allocate,
    AllReduce,
    AllToAll,
    Broadcast,
    Capture,
    Collective,
    EndCapture,
    Prepare,
    Reduce,
    ReduceScatter,
    SendReceive,
    Steady,
    Step,
)
from harness.scenario.topology import Topology
from harness.strategies.batches import sample
from harness.strategies.programs import scenarios
from harness.studies.agree.transformations.calls import compose_all_reduces, split_calls
from harness.studies.agree.transformations.catalogue import Transformation

PAIR = Topology("pair", "explicit", families_given={"tp": ((1, 0),), "uneven": ((0, 1), (2,))})
BUFFERS: tuple[Step, ...] = (Allocate("a", "tp", 64), Allocate("b", "tp", 64))
A, B = View("a"), View("b")


def made(call: Collective, transformation: Transformation) -> list[Step]:
    """The steps in place of a call."""
    variant = transformation(Scenario(PAIR, (*BUFFERS, call)))
    assert variant is not None
    assert variant.steps == (0, 1, 2, 2)
    return [*variant.scenario.steps[2:]]


@pytest.mark.parametrize(
    ("call", "second"),
    [
        (AllGather("tp", A, 8), AllGather("tp", View("a", 8), 4)),
        (AllGather("tp", View("a", 3), 8, B), AllGather("tp", View("a", 11), 4, View("b", 4))),
        (ReduceScatter("tp", A, 8), ReduceScatter("tp", View("a", 8), 4)),
        (ReduceScatter("tp", A, 8, B), ReduceScatter("tp", View("a", 8), 4, View("b", 4))),
        (AllReduce("tp", A, 8, B), AllReduce("tp", View("a", 4), 4, View("b", 4))),
        (AllToAll("tp", A, 8, B), AllToAll("tp", View("a", 8), 4, View("b", 8))),
        (Broadcast("tp", A, 8, 1, B), Broadcast("tp", View("a", 4), 4, 1, View("b", (4, 0, 0)))),
        (Reduce("tp", A, 8, 1, B), Reduce("tp", View("a", 4), 4, 1, View("b", (4, 0, 0)))),
        (SendReceive("tp", A, 8, B), SendReceive("tp", View("a", 4), 4, View("b", 4))),
    ],
    ids=lambda each: each.kind,
)
def test_the_second_half_begins_where_the_first_ends(call: Collective, second: Collective) -> None:
    first, found = made(call, split_calls)
    assert isinstance(first, CollectiveStep)
    assert (first.count, first.views, found) == (4, call.views, second)


def test_halves_fill_what_the_whole_filled() -> None:
    halved = 0
    for scenario in sample(scenarios(8), 60):
        if (variant := split_calls(scenario)) is None:
            continue
        for index, step in enumerate(scenario.steps):
            halves = [variant.scenario.steps[at] for at, drawn in enumerate(variant.steps) if drawn == index]
            if len(halves) == 1:
                assert halves == [step]
                continue
            halved += 1
            assert isinstance(step, CollectiveStep)
            for group, _ in scenario.acting(step):
                for rank in group:
                    whole = [
                        (view.buffer, at(view.offset, rank), at(view.offset, rank) + reach)
                        for view, reach in zip(step.views, step.reach(group, rank), strict=True)
                    ]
                    parts = [
                        [
                            (view.buffer, at(view.offset, rank), at(view.offset, rank) + reach)
                            for view, reach in zip(half.views, half.reach(group, rank), strict=True)
                        ]
                        for half in halves
                        if isinstance(half, CollectiveStep)
                    ]
                    for (buffer, start, end), one, other in zip(whole, *parts, strict=True):
                        assert (one[0], one[1], other[2]) == (buffer, start, end)
                        assert one[2] == other[1]
    assert halved


@pytest.mark.parametrize("call", [AllGather("tp", A, 7), AllGather("tp", A, 0), AllGather("tp", A, (2, 4, 2))])
def test_an_odd_or_unequal_count_is_not_split(call: Collective) -> None:
    assert split_calls(Scenario(PAIR, (*BUFFERS, call))) is None


@pytest.mark.parametrize(("place", "output"), [(B, View("a", (14, 10, 10))), (None, None)])
def test_an_all_reduce_is_a_reduce_scatter_and_an_all_gather(place: View | None, output: View | None) -> None:
    call = AllReduce("tp", View("a", 10), 8, place, "max", "kernel", True)
    assert made(call, compose_all_reduces) == [
        ReduceScatter("tp", place or View("a", 10), 4, output, "max", "kernel", True),
        AllGather("tp", View("a", 10), 4, None, "kernel", True),
    ]


@pytest.mark.parametrize(
    "call",
    [
        AllReduce("tp", A, 7),
        AllReduce("tp", A, 0),
        AllReduce("uneven", View("c"), 8),
        AllReduce("uneven", View("c"), 8, groups=((2,),)),
        AllGather("tp", A, 8),
    ],
)
def test_what_cannot_be_composed_stays(call: Collective) -> None:
    steps = (*BUFFERS, Allocate("c", "uneven", 64), call)
    assert compose_all_reduces(Scenario(PAIR, steps)) is None


@pytest.mark.parametrize("transformation", [split_calls, compose_all_reduces])
def test_calls_of_graphs_and_of_steady_state_stay(transformation: Transformation) -> None:
    call = AllReduce("tp", A, 8)
    assert transformation(Scenario(PAIR, (*BUFFERS, call))) is not None
    assert transformation(Scenario(PAIR, (*BUFFERS, Prepare("g"), Capture("g"), call, EndCapture("g")))) is None
    assert transformation(Scenario(PAIR, (*BUFFERS, call, call, Steady(), call))) is None
