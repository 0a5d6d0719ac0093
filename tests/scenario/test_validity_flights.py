"""What may be in flight together: what streams order, and no step that waits."""

from __future__ import annotations

import pytest

from harness.scenario.operands import View
from harness.scenario.steps import (
    AllGather,
    Allocate,
    AllToAll,
    Ballast,
    Capture,
    Deny,
    InFlight,
    Prepare,
    Recreate,
    Refuse,
    Release,
    Replay,
    Stall,
    Steady,
    Step,
    Straggle,
    Trim,
)
from tests.tools.refusals import accepted, refusal

A, B = Allocate("a", "tp", 64), Allocate("b", "tp", 64)
WAITS = "calls are in flight, which allows only allocate, release, collectives, straggle and stall"


def gather(buffer: str, stream: int = 0, **fields: object) -> AllGather:
    return AllGather("tp", View(buffer), 8, stream=stream, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "step",
    [
        Ballast("c", "tp", 0, 64),
        Capture("g"),
        Deny(0),
        Prepare("g"),
        Recreate("tp"),
        Refuse(0),
        Replay("g"),
        Steady(begins=False),
        Trim(),
    ],
    ids=lambda step: step.kind,
)
def test_a_step_that_waits_is_refused_in_flight(step: Step) -> None:
    assert refusal(InFlight(), step) == WAITS


@pytest.mark.parametrize(
    "step", [Allocate("c", "tp", 8), Release("a"), gather("a"), Straggle(0, 1), Stall(0, 1), InFlight(begins=False)]
)
def test_what_does_not_wait_is_accepted_in_flight(step: Step) -> None:
    assert accepted(A, InFlight(), step)


def test_flights_do_not_nest_and_may_follow_each_other() -> None:
    assert refusal(InFlight(), InFlight()) == "calls are in flight already"
    assert accepted(InFlight(), InFlight(begins=False), InFlight(), InFlight(begins=False), InFlight(begins=False))


def test_none_begins_while_a_graph_is_prepared() -> None:
    assert refusal(Prepare("g"), InFlight()) == "graph 'g' is prepared or captured, which waits for every call"


def test_a_buffer_on_two_streams_in_flight_is_refused() -> None:
    assert refusal(A, InFlight(), gather("a", 1), gather("a", 2)) == "'a' is on stream 1 in flight, and here on 2"
    assert accepted(A, InFlight(), gather("a", 1), InFlight(begins=False), gather("a", 2))


def test_a_buffer_that_came_in_flight_is_used_on_its_own_stream() -> None:
    assert refusal(InFlight(), A, gather("a", 1)) == "'a' is on stream 0 in flight, and here on 1"
    assert accepted(A, InFlight(), gather("a", 1))


def test_kernels_of_a_communicator_stay_on_one_stream_and_library_calls_need_not() -> None:
    kernels = gather("a", 1, via="kernel"), gather("b", 2, via="kernel")
    assert refusal(A, B, InFlight(), *kernels) == "tp[0, 1, 2, 3] has kernels in flight on stream 1, and here on 2"
    assert accepted(A, B, InFlight(), gather("a", 1), gather("b", 2))
    assert accepted(A, B, InFlight(), kernels[0], gather("b", 2))


def test_a_copy_is_not_made_in_flight() -> None:
    in_place = AllToAll("tp", View("a"), 4)
    assert refusal(A, InFlight(), in_place) == "all_to_all in place reads a copy, which is not made in flight"
    assert accepted(A, B, InFlight(), AllToAll("tp", View("a"), 4, View("b")))
