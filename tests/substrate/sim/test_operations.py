"""Every operation on the simulation: by library and by kernel, in place and not, and faults of each are found."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from harness import judge
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    AllGather,
    Allocate,
    AllReduce,
    AllToAll,
    Ballast,
    Broadcast,
    Capture,
    Collective,
    EndCapture,
    InFlight,
    Prepare,
    Reduce,
    ReduceScatter,
    Release,
    Replay,
    SendReceive,
    Step,
)
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.system.collectives import CollectiveContext, TritonCollectives
from harness.trace.draw import Draw
from harness.trace.events import Called, Ran
from harness.world.world import World

TP4 = Topology("tp4", "sglang", {"tp": 4})
TP4_DPA2 = Topology("tp4-dpa2", "sglang", {"tp": 4, "attn_dp": 2})
A, B = View("a"), View("b")
TABLE = ((1, 2, 3, 4), (0, 0, 9, 8), (7, 7, 7, 7), (0, 0, 0, 1))
PAST_STAGING = 70_000
"""Elements of float32 that pass through the simulation's scratch in several pieces."""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(4, "sim", deadline=20) as running:
        yield running


def window(name: str, elements: int, dtype: str = "float32", family: str = "tp") -> Allocate:
    return Allocate(name, family, elements, dtype)  # type: ignore[arg-type]


def plain(name: str, elements: int, dtype: str = "float32") -> Allocate:
    return Allocate(name, "tp", elements, dtype, "plain")  # type: ignore[arg-type]


def run(world: World, *steps: Step, topology: Topology = TP4, collectives: str = "triton") -> Draw:
    return world.run(Scenario(topology, steps, System(collectives=collectives)))


def rules(draw: Draw) -> list[str]:
    return [finding.rule for finding in judge(draw)]


def paths(draw: Draw) -> set[str]:
    return {event.path for trace in draw.traces for event in trace.events if isinstance(event, Ran)}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int32"])
@pytest.mark.parametrize("via", ["library", "kernel"])
@pytest.mark.parametrize("source", [None, View("b", 3)])
def test_all_reduce_is_exact(world: World, source: View | None, via: str, dtype: str) -> None:
    draw = run(
        world, window("a", 100, dtype), window("b", 100, dtype), AllReduce("tp", View("a", 5), 90, source, via=via)
    )  # type: ignore[arg-type]
    assert (rules(draw), paths(draw)) == (
        [],
        {"kernel" if via == "kernel" else "legacy" if dtype == "int32" else "symmetric"},
    )


@pytest.mark.parametrize("op", ["sum", "avg", "max"])
def test_all_reduce_on_the_legacy_path_is_exact(world: World, op: str) -> None:
    draw = run(world, plain("a", PAST_STAGING), AllReduce("tp", A, PAST_STAGING, op=op))  # type: ignore[arg-type]
    assert (rules(draw), paths(draw)) == ([], {"legacy"})


@pytest.mark.parametrize("call", [
    AllToAll("tp", A, 25, B),
    AllToAll("tp", A, 25),
    AllToAll("tp", A, 25, B, via="kernel"),
    AllToAll("tp", A, 25, via="kernel"),
    AllToAll("tp", A, (3, 0, 7, 1), B),
    AllToAll("tp", A, 0, B, TABLE),
    Broadcast("tp", A, 100, 2, B),
    Broadcast("tp", A, 100, 3),
    Broadcast("tp", A, 100, 2, B, "kernel"),
    Broadcast("tp", A, 100, 1, via="kernel"),
    Reduce("tp", A, 100, 3, B, "max"),
    Reduce("tp", A, 100, 1),
    SendReceive("tp", A, 100, B, 3),
    SendReceive("tp", A, 100, B, -1),
    AllGather("tp", A, (4, 0, 4, 4)),
    ReduceScatter("tp", A, (4, 0, 4, 4)),
], ids=str)  # fmt: skip
def test_operation_is_exact(world: World, call: Collective) -> None:
    draw = run(world, window("a", 100), plain("b", 100), call)
    assert (rules(draw), paths(draw)) == ([], {"kernel" if call.via == "kernel" else "legacy"})


@pytest.mark.parametrize("call", [
    AllToAll("tp", A, PAST_STAGING, B),
    Broadcast("tp", A, 4 * PAST_STAGING, 1, B),
    SendReceive("tp", A, 4 * PAST_STAGING, B),
    AllGather("tp", A, (PAST_STAGING, 1, 7, PAST_STAGING)),
], ids=lambda call: call.kind)  # fmt: skip
def test_large_moves_go_in_pieces(world: World, call: Collective) -> None:
    assert rules(run(world, plain("a", 4 * PAST_STAGING), plain("b", 4 * PAST_STAGING), call)) == []


@pytest.mark.parametrize("via", ["library", "kernel"])
@pytest.mark.parametrize("kind", [AllGather, AllReduce, Broadcast, ReduceScatter])
def test_nothing_is_wrong_with_a_call_without_elements(world: World, kind: type[Collective], via: str) -> None:
    draw = run(world, window("a", 0), kind("tp", A, 0, via=via))  # type: ignore[call-arg]
    assert (rules(draw), paths(draw)) == ([], {"copy"})


def test_an_idle_rank_has_a_buffer_without_elements(world: World) -> None:
    draw = run(
        world, window("a", 8), Allocate("b", "tp", (2, 0, 2, 2), role="plain"), AllGather("tp", A, (2, 0, 2, 2), B)
    )
    assert rules(draw) == []


@pytest.mark.parametrize("source", [None, View("b")])
def test_all_reduce_needs_both_operands_in_its_windows(world: World, source: View | None) -> None:
    steps = window("a", 64, family="attn_tp"), window("b", 64), AllReduce("tp", A, 64, source)
    draw = run(world, *steps, topology=TP4_DPA2)
    assert (rules(draw), paths(draw)) == (["wrong-owner"], {"legacy"})
    called = next(event for event in draw.traces[0].events if isinstance(event, Called))
    assert called.meant == ("source", "output")


def test_a_source_of_another_group_is_found_too(world: World) -> None:
    steps = window("a", 64), window("b", 64, family="attn_tp"), AllReduce("tp", A, 64, B)
    (finding,) = judge(run(world, *steps, topology=TP4_DPA2))
    assert (finding.rule, "source 'b'" in finding.explanation) == ("wrong-owner", True)


def test_calls_in_a_graph_are_exact(world: World) -> None:
    steps = (
        *(Prepare("g"), window("a", 64), AllReduce("tp", A, 64), Release("a")),
        *(Capture("g"), window("c", 64), AllReduce("tp", View("c"), 64), EndCapture("g"), Replay("g"), Replay("g")),
    )
    assert rules(run(world, *steps)) == []


class Faulty(TritonCollectives):
    """All-reduce leaves a rank out, all-to-all sends chunk 0 to everybody, broadcast takes the wrong root."""

    def all_reduce(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        sources = context.peer_addresses(source)
        result = torch.empty_like(output)
        context.barrier()
        sources[-1] = sources[0]
        self._reduce(context, sources, result, 0, op)
        context.barrier()
        output.copy_(result)

    def all_to_all(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        count = source.numel() // context.size
        super().all_to_all(context, output, source[:count].repeat(context.size))

    def broadcast(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, root: int) -> None:
        super().broadcast(
            context, output, output.clone() if context.rank != root else source, (root + 1) % context.size
        )


class Old:
    """A plug-in of two methods."""

    def __init__(self) -> None:
        self.all_gather, self.reduce_scatter = TritonCollectives().all_gather, TritonCollectives().reduce_scatter


@pytest.mark.parametrize(("call", "said"), [
    (AllReduce("tp", A, 64, B, via="kernel"), "in what every rank gets"),
    (AllToAll("tp", A, 16, B, via="kernel"), "in rank 0's chunk"),
    (Broadcast("tp", A, 64, 2, B, "kernel"), "in rank 2's chunk"),
], ids=lambda value: getattr(value, "kind", ""))  # fmt: skip
def test_a_wrong_kernel_is_found_and_explained(world: World, call: Collective, said: str) -> None:
    findings = judge(run(world, window("a", 64), window("b", 64), call, collectives=f"{__name__}:Faulty"))
    assert [finding.rule for finding in findings] == ["wrong-data"]
    assert said in findings[0].explanation


def test_the_library_makes_the_calls_that_a_plug_in_has_not(world: World) -> None:
    steps = window("a", 64, "bfloat16"), AllReduce("tp", A, 64, via="kernel")
    draw = run(world, *steps, collectives=f"{__name__}:Old")
    assert (rules(draw), paths(draw)) == ([], {"symmetric"})


# by copy engines


@pytest.mark.parametrize(
    ("output", "path"), [(window("a", PAST_STAGING * 4), "copy engine"), (plain("a", PAST_STAGING * 4), "legacy")]
)
@pytest.mark.parametrize(
    "call",
    [
        AllGather("tp", A, PAST_STAGING, B, via="copy-engine"),
        AllGather("tp", A, PAST_STAGING, via="copy-engine"),
        AllToAll("tp", A, PAST_STAGING, B, via="copy-engine"),
        AllToAll("tp", A, PAST_STAGING, via="copy-engine"),
    ],
    ids=["gather", "gather in place", "all-to-all", "all-to-all in place"],
)
def test_copy_engines_move_a_call_whose_output_lies_in_a_window(
    call: Collective, output: Allocate, path: str, world: World
) -> None:
    draw = run(world, output, plain("b", PAST_STAGING * 4), call)
    assert judge(draw) == []
    assert {(event.path, type(event)) for trace in draw.traces for event in trace.events if isinstance(event, Ran)} == {
        (path, Ran)
    }


def test_copy_engines_reach_peers_through_the_output_of_an_all_to_all(world: World) -> None:
    """The library's other all-to-alls reach none, so that nobody has to own anything."""
    steps = window("a", 64), window("other", 64, family="attn_tp")
    found = {}
    for via in ("library", "copy-engine"):
        call = AllToAll("attn_tp", View("a"), 8, View("other"), via=via)  # type: ignore[arg-type]
        found[via] = [finding.rule for finding in judge(run(world, *steps, call, topology=TP4_DPA2))]
    assert found == {"library": [], "copy-engine": ["wrong-owner"]}


def test_copy_engines_write_where_the_peer_has_no_such_buffer_if_offsets_differ(world: World) -> None:
    steps = window("w", 256), Ballast("shift", "tp", rank=1, size=1000), window("a", 256), plain("b", 256)
    call = AllToAll("tp", A, 32, B, via="copy-engine")
    found = [finding.rule for finding in judge(run(world, *steps, call))]
    assert found == ["offset-mismatch", "out-of-bounds", "wrong-data"]


def test_copy_engines_move_calls_in_graphs_and_in_flight(world: World) -> None:
    call = AllToAll("tp", A, 8, B, via="copy-engine")
    flight = window("a", 64), plain("b", 64), InFlight(), call, call, InFlight(begins=False)
    again = window("c", 64), plain("d", 64), AllToAll("tp", View("c"), 8, View("d"), via="copy-engine")
    graph = Prepare("g"), *flight[:2], call, Release("a"), Release("b"), Capture("g"), *again, EndCapture("g")
    for steps in (flight, (*graph, Replay("g"))):
        draw = run(world, *steps)
        ran = [event.path for trace in draw.traces for event in trace.events if isinstance(event, Ran)]
        assert (judge(draw), {*ran}) == ([], {"copy engine"})
