"""Validity of streams: which a step may name, and what a capture may not touch."""

from __future__ import annotations

import pytest

from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    STREAMS,
    AllGather,
    Allocate,
    Capture,
    EndCapture,
    Prepare,
    ProgramError,
    ReduceScatter,
    Release,
)
from harness.scenario.topology import Topology

PAIR = Topology("pair", "sglang", {"tp": 2})
A = View("a")


@pytest.mark.parametrize("stream", [-1, STREAMS])
@pytest.mark.parametrize("kind", [Allocate, AllGather, ReduceScatter])
def test_a_stream_that_is_none_is_refused_with_the_step(kind: type, stream: int) -> None:
    steps = {
        Allocate: Allocate("a", "tp", 64, stream=stream),
        AllGather: AllGather("tp", A, 1, stream=stream),
        ReduceScatter: ReduceScatter("tp", A, 1, stream=stream),
    }
    reason = rf"\({steps[kind].kind}\): stream {stream} is not one of the {STREAMS} that programs may use$"
    with pytest.raises(ProgramError, match=reason):
        Scenario(PAIR, (Allocate("a", "tp", 64), steps[kind])[kind is Allocate :])


def test_a_stream_inside_a_graph_is_refused_and_after_it_is_not() -> None:
    graph = (Allocate("a", "tp", 64), Prepare("g"), Capture("g"))
    call = AllGather("tp", A, 1, stream=1)
    with pytest.raises(ProgramError, match=r"graph 'g' is prepared or captured on a stream of its own, not on 1$"):
        Scenario(PAIR, (*graph, call, EndCapture("g")))
    assert Scenario(PAIR, (*graph, EndCapture("g"), call))


def test_a_buffer_from_outside_is_not_released_in_a_capture() -> None:
    """Its block might wait for other streams, and those cannot be looked at in a capture."""
    graph = (Allocate("a", "tp", 64, stream=1), Prepare("g"), Capture("g"))
    with pytest.raises(ProgramError, match=r"'a' was allocated before the capture of graph 'g' began$"):
        Scenario(PAIR, (*graph, Release("a"), EndCapture("g")))
    assert Scenario(PAIR, (*graph, Allocate("b", "tp", 64), Release("b"), EndCapture("g"), Release("a")))
