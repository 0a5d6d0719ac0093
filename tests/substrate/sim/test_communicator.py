"""Simulated communicators: windows are found, hidden and gone by NCCL's rules, on one rank and in programs."""

from __future__ import annotations

import pytest

from harness.ipc.memory import STAGING_BYTES
from harness.oracle.judge import judge
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    AllGather,
    Allocate,
    Ballast,
    Collective,
    Deny,
    Recreate,
    ReduceScatter,
    Step,
    Straggle,
)
from harness.scenario.system import System
from harness.scenario.topology import Placement, Topology
from harness.substrate.segment import Segment
from harness.trace.draw import Draw
from harness.trace.events import Mismatch, Ran, Registered
from harness.world.world import World
from tests.tools.one_rank import Rank

BASE = 1 << 20
PAIR = Topology(
    name="pair",
    convention="explicit",
    families_given={"ring": ((0, 1),), "back": ((1, 0),), "alone": ((0,), (1,))},
)
APART = Topology(
    name="apart",
    convention="explicit",
    families_given={"all": ((0, 1, 2),), "near": ((0, 1), (2,))},
    placement=Placement(2, 2),
)
A, B, P = View("a"), View("b"), View("p")


# on one rank


def test_peers_are_addressed_by_the_offset_given_here(rank: Rank) -> None:
    comm = rank.communicator()
    segment = Segment(0, "pool", rank.memory.base + 512, 4096)
    whole = comm.register(segment)
    assert whole is not None
    assert comm.peer_pointers(whole, 24) == [segment.address + 24]


def test_peers_of_a_part_are_addressed_by_its_own_offset_in_their_segments(rank: Rank) -> None:
    comm = rank.communicator()
    segment = Segment(0, "pool", rank.memory.base + 512, 3 * 4096)
    part = comm.register(segment, offset=4096)
    assert part is not None
    assert comm.peer_pointers(part, 24) == [segment.address + 4096 + 24]


# programs on several ranks


def run(ranks: World, *steps: Step, topology: Topology = PAIR, pool: str = "per-group") -> Draw:
    return ranks.run(Scenario(topology, steps, System(pool)))


def paths(draw: Draw) -> list[str]:
    """The path of each collective, which every rank must have taken alike."""
    taken = {tuple(event.path for event in trace.events if isinstance(event, Ran)) for trace in draw.traces}
    assert len(taken) == 1
    return [*taken.pop()]


def rules(draw: Draw) -> set[str]:
    return {finding.rule for finding in judge(draw)}


def wrong_on(draw: Draw) -> list[int]:
    """Ranks that found wrong bytes in an output."""
    return [trace.rank for trace in draw.traces if any(isinstance(event, Mismatch) for event in trace.events)]


def gather(family: str = "ring", view: View = A, count: int = 32, source: View | None = None) -> AllGather:
    return AllGather(family, view, count, source)


def reduce(op: str = "sum", view: View = A, output: View | None = None) -> ReduceScatter:
    return ReduceScatter("ring", view, 32, output, op)  # type: ignore[arg-type]


WINDOW = Allocate("a", "ring", 64)


@pytest.mark.parametrize(
    ("dtype", "call", "path"),
    [
        ("float32", gather(), "symmetric"),
        ("int32", gather(), "symmetric"),
        ("float8_e4m3fn", gather(), "symmetric"),
        ("float32", reduce(), "symmetric"),
        ("bfloat16", reduce(), "symmetric"),
        ("float16", reduce("avg"), "symmetric"),
        ("float32", reduce("max"), "legacy"),
        ("int32", reduce(), "legacy"),
        ("float32", gather("alone"), "copy"),
    ],
    ids=lambda value: getattr(value, "kind", value),
)
def test_owned_buffer_takes_the_symmetric_path_where_the_call_is_eligible(
    dtype: str, call: Collective, path: str, ranks: World
) -> None:
    draw = run(ranks, Allocate("a", "ring", 64, dtype), call)  # type: ignore[arg-type]
    assert (paths(draw), wrong_on(draw)) == ([path], [])


@pytest.mark.parametrize(
    ("call", "path"),
    [
        (gather(view=A, source=P), "symmetric"),
        (gather(view=P, source=A), "legacy"),
        (reduce(view=A, output=P), "symmetric"),
        (reduce(view=P, output=A), "legacy"),
    ],
    ids=["gather into it", "gather from it", "reduce from it", "reduce into it"],
)
def test_window_over_the_operand_that_peers_address_decides_the_path(call: Collective, path: str, ranks: World) -> None:
    draw = run(ranks, WINDOW, Allocate("p", "ring", 64, role="plain"), call)
    assert (paths(draw), wrong_on(draw)) == ([path], [])


def test_window_counts_for_its_own_communicator_alone_though_the_ranks_are_the_same(ranks: World) -> None:
    draw = run(ranks, WINDOW, gather("ring"), gather("back"))
    assert (paths(draw), wrong_on(draw)) == (["symmetric", "legacy"], [])


@pytest.mark.parametrize("kind", ["all_gather", "reduce_scatter"])
@pytest.mark.parametrize(("owner", "path"), [("back", "symmetric"), ("ring", "legacy")])
def test_chunks_lie_in_group_order_where_that_is_not_rank_order(kind: str, owner: str, path: str, ranks: World) -> None:
    call = gather("back") if kind == "all_gather" else ReduceScatter("back", A, 32)
    draw = run(ranks, Allocate("a", owner, 64), call)
    assert (paths(draw), wrong_on(draw)) == ([path], [])


def test_only_the_start_address_is_looked_up(ranks: World) -> None:
    draw = run(ranks, Allocate("a", "ring", 4096), gather(count=2048), pool="tests.tools.planted:ShortWindow")
    assert (paths(draw), rules(draw)) == (["symmetric"], {"partly-registered"})


def test_overlapping_window_hides_the_larger_one_from_a_call(ranks: World) -> None:
    before, filler, behind = Allocate("a", "ring", 64), Allocate("f", "ring", 2048), Allocate("b", "ring", 64)
    pool = "tests.tools.windows:Overlapping"
    draw = run(ranks, before, filler, behind, gather(view=A), gather(view=B), pool=pool)
    assert paths(draw) == ["symmetric", "legacy"]


def test_windows_go_when_their_communicator_is_replaced(ranks: World) -> None:
    draw = run(ranks, WINDOW, gather(), Recreate("ring"), gather())
    assert (paths(draw), rules(draw)) == (["symmetric", "legacy"], {"stale-window"})


def test_windows_stay_when_another_communicator_is_replaced(ranks: World) -> None:
    draw = run(ranks, WINDOW, gather(), gather("back"), Recreate("back"), gather())
    assert paths(draw) == ["symmetric", "legacy", "symmetric"]


def test_replaced_communicator_takes_new_windows(ranks: World) -> None:
    draw = run(ranks, WINDOW, Recreate("ring"), Allocate("b", "ring", 64), gather(), gather(view=B))
    assert (paths(draw), rules(draw)) == (["symmetric", "symmetric"], set())


# simulated nodes


@pytest.mark.parametrize(("family", "path"), [("all", "legacy"), ("near", "symmetric")])
def test_group_that_spans_nodes_has_no_windows(family: str, path: str, ranks: World) -> None:
    draw = run(ranks, Allocate("a", family, 96), gather(family), topology=APART)
    first = [event.path for event in draw.traces[0].events if isinstance(event, Ran)]
    assert (first, rules(draw)) == ([path], set())


def test_registration_across_nodes_succeeds_on_every_rank_with_a_null_window(ranks: World) -> None:
    draw = run(ranks, Allocate("a", "all", 96), gather("all"), topology=APART, pool="tests.tools.planted:IgnoresNull")
    nulls = [[event.is_null for event in trace.events if isinstance(event, Registered)] for trace in draw.traces]
    assert (nulls, paths(draw), rules(draw)) == ([[True]] * 3, ["legacy"], {"null-window"})


# skew: the local offset is applied to every peer


SKEWED = WINDOW, Ballast("x", "ring", 1, 512), Allocate("b", "ring", 64)


@pytest.mark.parametrize("call", [gather(view=B), reduce(view=B)], ids=lambda call: call.kind)
def test_skewed_buffers_give_wrong_bytes_on_both_ranks(call: Collective, ranks: World) -> None:
    draw = run(ranks, *SKEWED, call)
    assert (paths(draw), wrong_on(draw)) == (["symmetric"], [0, 1])
    assert {"offset-mismatch", "wrong-data"} <= rules(draw)


@pytest.mark.parametrize("call", [gather(view=B), reduce(view=B)], ids=lambda call: call.kind)
def test_same_program_without_skew_is_right(call: Collective, ranks: World) -> None:
    draw = run(ranks, WINDOW, Allocate("x", "ring", 112), Allocate("b", "ring", 64), call)
    assert (paths(draw), rules(draw)) == (["symmetric"], set())


@pytest.mark.parametrize("call", [gather("back", view=B), reduce("max", view=B)], ids=["no window", "no kernel"])
def test_skew_does_not_show_on_the_legacy_path(call: Collective, ranks: World) -> None:
    draw = run(ranks, *SKEWED, call)
    assert (paths(draw), wrong_on(draw)) == (["legacy"], [])


# waiting


@pytest.mark.parametrize("late", [0, 1])
@pytest.mark.parametrize("family", ["ring", "back"])
@pytest.mark.parametrize("kind", ["all_gather", "reduce_scatter"])
def test_late_rank_changes_no_result(kind: str, family: str, late: int, ranks: World) -> None:
    again = gather(family) if kind == "all_gather" else ReduceScatter(family, A, 32)
    draw = run(ranks, WINDOW, again, Straggle(late, 30), again, Straggle(1 - late, 30), again)
    assert (draw.is_clean, wrong_on(draw)) == (True, [])


def test_ranks_that_take_different_paths_wait_for_each_other_for_ever(ranks: World) -> None:
    draw = run(ranks, WINDOW, gather(), pool="tests.tools.planted:DeregistersAlone")
    assert [fate.state for fate in draw.fates] == ["hung", "hung"]
    assert [trace.blocked_in.call for trace in draw.traces if trace.blocked_in] == ["all_gather", "all_gather"]


def test_rank_that_registers_alone_waits_for_ever(ranks: World) -> None:
    draw = run(ranks, Deny(1), WINDOW)
    assert draw.fates[0].state == "hung"
    assert [trace.blocked_in.call for trace in draw.traces if trace.blocked_in] == ["register"]


def test_draw_after_a_hang_is_clean(ranks: World) -> None:
    hung, after = run(ranks, Deny(1), WINDOW), run(ranks, WINDOW, gather())
    assert (hung.is_clean, after.is_clean, rules(after)) == (False, True, set())


# the legacy path moves data through staging memory, piece by piece


@pytest.mark.parametrize("kind", ["all_gather", "reduce_scatter"])
@pytest.mark.parametrize(
    ("excess", "in_place"), [(0, False), (1, False), (1, True)], ids=["full", "one more", "one more, in place"]
)
def test_legacy_path_is_right_on_both_sides_of_its_staging_memory(
    kind: str, excess: int, in_place: bool, ranks: World
) -> None:
    """int32 chunks of the staging memory's size for the all-gather, and of each rank's share of it otherwise."""
    count = STAGING_BYTES // 4 // (1 if kind == "all_gather" else 2) + excess
    whole = Allocate("a", "ring", 2 * count, "int32", "plain")
    part = Allocate("p", "ring", count, "int32", "plain")
    view = None if in_place else P
    call = gather(count=count, source=view) if kind == "all_gather" else ReduceScatter("ring", A, count, view)
    draw = run(ranks, whole, part, call)
    assert (paths(draw), wrong_on(draw)) == (["legacy"], [])
