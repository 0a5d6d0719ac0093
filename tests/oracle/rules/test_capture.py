"""Graphs: what a graph writes stays its own, and nothing is registered in its capture."""

from __future__ import annotations

import pytest

from harness.oracle.findings import Finding
from harness.oracle.judge import judge
from harness.scenario.operands import View
from harness.scenario.steps import (
    AllGather,
    Allocate,
    Capture,
    EndCapture,
    Prepare,
    ReduceScatter,
    Release,
    Replay,
    Step,
    Trim,
)
from harness.trace.events import Placed
from harness.world.world import World
from tests.tools.scenes import CROSSED, findings, first, rules, scenario, unsaid

WARM = (Allocate("w", "tp", 256), AllGather("tp", View("w"), 64), Release("w"))
BODY = (Allocate("t", "tp", 256), AllGather("tp", View("t"), 64), Release("t"))
GRAPH = (Prepare("g"), *WARM, Capture("g"), *BODY, EndCapture("g"))
EAGER = (Allocate("u", "tp", 256), AllGather("tp", View("u"), 64))
TAKEN = (Prepare("h"), *EAGER, Capture("h"), EndCapture("h"))
"""On the stream that captures graphs, where a block that another graph let go is free."""
AWARE = ["deferred", "per-group", "Sound"]
SHARES_WITH_GRAPHS = "harness.system.planted.pools:SharesWithGraphs"
UNAWARE = ["snapshot-once", "shared-at-alloc", "shared-at-exit", "per-unique-id", SHARES_WITH_GRAPHS]


def found_in(ranks: World, *steps: Step, pool: str = "deferred") -> list[Finding]:
    return findings(ranks, scenario(*steps, topology=CROSSED, pool=pool))


@pytest.mark.parametrize("pool", AWARE)
@pytest.mark.parametrize("after", [(), TAKEN, EAGER, (Trim(),)], ids=["nothing", "another graph", "a buffer", "a trim"])
def test_pools_that_know_graphs_are_silent(ranks: World, pool: str, after: tuple[Step, ...]) -> None:
    assert found_in(ranks, *GRAPH, *after, Replay("g"), Replay("g"), pool=pool) == []


def test_a_graph_may_hold_several_calls_over_several_groups(ranks: World) -> None:
    steps = (Allocate("a", "cp", 64), Allocate("x", "tp", 9, "bfloat16", "plain"), Allocate("y", "tp", 64, "bfloat16"))
    calls = AllGather("cp", View("a", 3), 9), ReduceScatter("tp", View("y"), 9, View("x"), "max"), GRAPH[2]
    body = (Allocate("w", "tp", 256), AllGather("tp", View("w"), 64))
    graph = (*steps, Prepare("g"), *body, Release("w"), Capture("g"), *calls[:2], *BODY, EndCapture("g"))
    assert found_in(ranks, *graph, Replay("g"), Replay("g")) == []


@pytest.mark.parametrize("pool", UNAWARE)
def test_a_block_that_a_graph_writes_is_given_to_somebody_else(ranks: World, pool: str) -> None:
    found = found_in(ranks, *GRAPH, *TAKEN, Replay("g"), pool=pool)
    assert rules(found)[0] == "captured-reuse"
    claims = "graph 'g' writes at step 14 (replay)", "step 6 (all_gather) on tp[0,1]", "output 't' of rank 0"
    after = "released at step 7 (release)", "'u' has held this memory since step 10 (allocate)", "its contents changed"
    assert unsaid(found[0], *claims, *after) == []


def test_a_graph_that_uses_its_own_memory_again_is_silent(ranks: World) -> None:
    """Its second buffer holds the memory of its first when it is replayed, as it did when it was captured."""
    again = (*BODY, Allocate("again", "tp", 256), AllGather("tp", View("again"), 64))
    graph = (Prepare("g"), *WARM, Capture("g"), *again, EndCapture("g"))
    draw = ranks.run(scenario(*graph, Replay("g"), topology=CROSSED, pool="deferred"))
    first, second = (e for e in draw.traces[0].events if isinstance(e, Placed) and e.buffer in ("t", "again"))
    assert first.address == second.address
    assert judge(draw) == []


@pytest.mark.parametrize("pool", UNAWARE)
def test_a_block_of_another_stream_is_not_taken(ranks: World, pool: str) -> None:
    """By PyTorch's rules: a block that was freed stays with its stream."""
    assert "captured-reuse" not in rules(found_in(ranks, *GRAPH, *EAGER, Replay("g"), pool=pool))


@pytest.mark.parametrize("pool", UNAWARE)
def test_a_block_that_nobody_took_is_no_reuse(ranks: World, pool: str) -> None:
    assert found_in(ranks, *GRAPH, Replay("g"), pool=pool) == []


def test_a_segment_that_went_before_the_replay_is_reuse(ranks: World) -> None:
    found = first(found_in(ranks, *GRAPH, Trim(), Replay("g"), pool=UNAWARE[-1]), "captured-reuse")
    assert unsaid(found, "output 't' of rank 0", "its segment", "was freed at step 9 (trim)") == []


def test_a_registration_in_a_capture_is_found(ranks: World) -> None:
    found = found_in(ranks, *GRAPH[4:], pool="per-group")
    assert rules(found) == ["registered-in-capture"]
    assert unsaid(found[0], "with tp[0,1] at step 1 (allocate)", "graph 'g' that began at step 0 (capture)") == []
