"""Graphs in programs: when one may be captured and replayed, and every program that no graph can run."""

from __future__ import annotations

import re
from contextlib import nullcontext
from typing import Any

import msgspec
import pytest

from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    AllGather,
    Allocate,
    Capture,
    EndCapture,
    Prepare,
    ProgramError,
    Recreate,
    Release,
    Replay,
    Step,
    Trim,
)
from harness.scenario.topology import Topology

QUAD = Topology(name="quad", convention="sglang", degrees={"tp": 4, "attn_dp": 2})
ALLOCATE, GATHER = Allocate("a", "tp", 64), AllGather("tp", View("a"), 4)


def scenario(*steps: Step, topology: Topology = QUAD, seed: int = 0) -> Scenario:
    return Scenario(topology, steps, seed=seed)


def captured(*body: Step, before: tuple[Step, ...] = ()) -> tuple[Step, ...]:
    """A program in which graph g is captured over `body`."""
    return (*before, Prepare("g"), Capture("g"), *body, EndCapture("g"))


KERNEL = AllGather("tp", View("a"), 4, via="kernel")
WARMED = (Prepare("g"), Allocate("w", "tp", 64), AllGather("tp", View("w"), 4, via="kernel"))
OUTSIDE = captured(GATHER, before=(ALLOCATE,))


@pytest.mark.parametrize("steps", [captured(ALLOCATE, GATHER), OUTSIDE, (*OUTSIDE, Replay("g"), Replay("g"))])
def test_a_graph_can_be_captured_and_replayed(steps: tuple[Step, ...]) -> None:
    assert scenario(*steps).steps == steps


NOT_A_GRAPH = {
    "a replay of nothing": ((ALLOCATE, Replay("g")), "step 1 (replay): graph 'g' was not captured"),
    "a replay in the capture": (captured(Replay("g")), "only allocate, release, collectives"),
    "a capture that never ends": (captured()[:2], "graph 'g' is prepared or captured, and its capture never ends"),
    "an end without a capture": ((Prepare("g"), EndCapture("g")), "graph 'g' is not being captured"),
    "two at a time": ((Prepare("g"), Prepare("h")), "one graph at a time"),
    "a second capture": ((*captured(), *captured()), "graph 'g' was prepared before"),
    "trim in the capture": (captured(Trim()), "step 2 (trim): graph 'g' is being captured"),
    "a kernel that is not warmed up": (captured(ALLOCATE, KERNEL), "the warm-up of graph 'g' has no kernel call like"),
    "a buffer that is gone": ((*OUTSIDE, Release("a"), Replay("g")), "did not allocate, was released"),
    "communicators that are gone": ((*OUTSIDE, Recreate("attn_tp"), Recreate("tp"), Replay("g")), "were replaced"),
}


@pytest.mark.parametrize("name", NOT_A_GRAPH)
def test_a_program_that_no_graph_can_run_is_refused(name: str) -> None:
    steps, reason = NOT_A_GRAPH[name]
    with pytest.raises(ProgramError, match=re.escape(reason)):
        scenario(*steps)


@pytest.mark.parametrize(
    ("changes", "is_alike"),
    [
        ({}, True),
        ({"count": 5}, False),
        ({"family": "attn_tp"}, False),
        ({"output": View("a", 3)}, False),
        ({"via": "library", "count": 5}, True),
    ],
)
def test_a_kernel_is_captured_where_a_call_like_it_was_warmed_up(changes: dict[str, Any], is_alike: bool) -> None:
    step = msgspec.structs.replace(KERNEL, **changes)
    steps = *WARMED, Capture("g"), msgspec.structs.replace(ALLOCATE, family=step.family), step, EndCapture("g")
    with nullcontext() if is_alike else pytest.raises(ProgramError, match="no kernel call like it"):
        scenario(*steps)


def test_a_warm_up_in_another_dtype_is_none() -> None:
    steps = *WARMED, Capture("g"), msgspec.structs.replace(ALLOCATE, dtype="int8"), KERNEL, EndCapture("g")
    with pytest.raises(ProgramError, match="no kernel call like it"):
        scenario(*steps)


def test_what_a_graph_allocated_may_be_released_before_its_replay() -> None:
    scenario(*captured(ALLOCATE, GATHER), Release("a"), Replay("g"))


def test_a_graph_outlives_communicators_that_it_does_not_use() -> None:
    scenario(*OUTSIDE, Recreate("attn_tp"), Replay("g"))
