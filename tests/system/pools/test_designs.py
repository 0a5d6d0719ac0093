"""The pool designs of the bug report's history: what each is sound for, and what breaks it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.ipc.memory import SharedMemory
from harness.oracle.findings import Finding
from harness.oracle.judge import judge
from harness.scenario.layout import Group
from harness.scenario.operands import GUARD, Elements, View
from harness.scenario.steps import AllGather, Allocate, Deny, Recreate, ReduceScatter, Release, Step, Trim
from harness.scenario.topology import Placement, Topology
from harness.substrate.segment import Segment
from harness.substrate.sim.communicator import SimCommunicator
from harness.substrate.sim.substrate import SimSubstrate
from harness.system.context import ProcessGroup, RankContext
from harness.system.pools.built_in import BUILT_IN
from harness.system.pools.deferred import BITS, REFUSED, Deferred, GrowthDuringCapture, _digest, _disagreement
from harness.trace.draw import Draw
from harness.trace.events import Entered, Exhausted, Placed, Ran, Registered, SegmentAllocated, Skipped
from harness.world.world import World
from tests.tools.deferred_on_ranks import BLOCK
from tests.tools.one_rank import Rank
from tests.tools.scenes import SQUARE, explicit, findings, rules, scenario

SMALL = 256
HALF = (1 << 20) // 4 - GUARD
"""Elements of a buffer that fills half of a segment for small blocks."""
LARGE = 1 << 20
"""Elements of a buffer that needs a segment for large blocks."""
SMALL_SEGMENT, LARGE_SEGMENT = 2 << 20, 20 << 20
OWN_SEGMENT = 3 << 20
"""Elements of a buffer that gets a segment to itself."""
APART = explicit(Placement(nodes=2, gpus_per_node=2), tp=((0, 1, 2, 3),))
"""Four ranks on two nodes: their communicator supports no windows."""


@pytest.fixture(scope="module")
def ranks(simulation: World) -> World:
    return simulation


def found(ranks: World, pool: str, steps: Sequence[Step], topology: Topology = SQUARE) -> list[Finding]:
    return findings(ranks, scenario(*steps, topology=topology, pool=pool))


def run(ranks: World, *steps: Step, pool: str = "deferred", topology: Topology = SQUARE) -> Draw:
    return ranks.run(scenario(*steps, topology=topology, pool=pool))


def events(draw: Draw, kind: Any) -> list[list[Any]]:
    """The events of a kind on each rank."""
    return [[event for event in trace.events if isinstance(event, kind)] for trace in draw.traces]


def allocate(name: str, family: str, elements: Elements = SMALL) -> Allocate:
    return Allocate(name, family, elements)


def gather(name: str, family: str) -> AllGather:
    return AllGather(family, View(name), 64)


TWO_GROUPS = (
    allocate("t", "tp"),
    gather("t", "tp"),
    allocate("c", "cp"),
    gather("c", "cp"),
    ReduceScatter("tp", View("t"), 64, None),
)
RECREATED = (
    allocate("a", "tp"),
    gather("a", "tp"),
    Recreate("tp"),
    allocate("b", "tp"),
    gather("a", "tp"),
    gather("b", "tp"),
)
TRIMMED = (
    allocate("a", "tp"),
    gather("a", "tp"),
    Release("a"),
    Trim(),
    allocate("b", "tp"),
    gather("b", "tp"),
)
OTHER_GROUPS_SEGMENTS = (
    allocate("c", "cp", (SMALL, LARGE, SMALL, LARGE)),
    gather("c", "cp"),
    allocate("t", "tp"),
    gather("t", "tp"),
)
"""Equal sizes in each group: cp[0,2] takes a small segment and cp[1,3] a large one. Then tp comes."""
OTHER_GROUPS_OFFSETS = (
    allocate("c", "cp", (SMALL, 2 * SMALL, SMALL, 2 * SMALL)),
    allocate("t", "tp"),
    gather("c", "cp"),
    gather("t", "tp"),
)
"""Equal sizes in each group, in one segment, which they fill differently before tp comes."""
UNEVEN_SEGMENTS = (allocate("t", "tp", (SMALL, SMALL, LARGE, SMALL)), gather("t", "tp"))
"""Rank 2 needs a large segment where the others need a small one."""
UNEVEN_OFFSETS = (allocate("a", "tp", (SMALL, 2 * SMALL, SMALL, SMALL)), allocate("b", "tp"), gather("b", "tp"))
"""Rank 1's first buffer is longer, so that its second begins later."""
UNEVEN_FIT = (
    allocate("a", "tp", (SMALL, HALF, SMALL, SMALL)),
    allocate("b", "tp", HALF),
    allocate("c", "tp", HALF),
    allocate("d", "tp"),
    gather("d", "tp"),
)
"""Every rank has two segments; rank 1 has filled the first, and takes the last buffer from the second."""
UNEVEN_GROWTH = (
    allocate("a", "tp", (SMALL, HALF, SMALL, SMALL)),
    allocate("b", "tp", HALF),
    allocate("c", "tp"),
    gather("c", "tp"),
)
"""Rank 1 has filled its segment and grows alone."""
PROGRAMS = {
    "two groups": TWO_GROUPS,
    "recreated": RECREATED,
    "trimmed": TRIMMED,
    "segments of another group": OTHER_GROUPS_SEGMENTS,
    "offsets of another group": OTHER_GROUPS_OFFSETS,
    "uneven segments": UNEVEN_SEGMENTS,
    "uneven offsets": UNEVEN_OFFSETS,
    "uneven fit": UNEVEN_FIT,
    "uneven growth": UNEVEN_GROWTH,
}
UNEVEN = {
    "uneven segments": "registration 0 of tp[0,1,2,3] differs in size: rank 0 2097152 bytes, rank 1 2097152 bytes, "
    "rank 2 20971520 bytes",
    "uneven growth": "entered different numbers of registrations: rank 0: 1, rank 1: 2, rank 2: 1, rank 3: 1",
    "uneven offsets": "'b' lies at different offsets of the same window of tp[0,1,2,3]: "
    "rank 0 at byte 1536, rank 1 at byte 2560",
    "uneven fit": "'d' lies in different windows of tp[0,1,2,3]: rank 0 in window 0, rank 1 in window 1",
}
"""What uneven sizes do to pools whose ranks agree on nothing."""
UNEVEN_RULES = {
    "uneven segments": ["registration-skew"],
    "uneven growth": ["registration-skew", "hang"],
    "uneven offsets": ["offset-mismatch"],
    "uneven fit": ["segment-mismatch"],
}


def causes(found: list[Finding]) -> list[str]:
    """The rules broken, but for what peers that were reached at a wrong place make of the data."""
    return [rule for rule in rules(found) if rule not in ("out-of-bounds", "wrong-data")]


@pytest.mark.parametrize("pool", BUILT_IN)
def test_one_group_with_equal_sizes_is_owned_under_every_design(ranks: World, pool: str) -> None:
    assert found(ranks, pool, (*TWO_GROUPS[:2], TWO_GROUPS[4])) == []


# snapshot-once


def test_snapshot_once_gives_the_second_group_on_a_segment_no_window(ranks: World) -> None:
    (finding,) = found(ranks, "snapshot-once", TWO_GROUPS)
    assert (finding.rule, finding.step, finding.ranks) == ("wrong-owner", 3, (0, 2))
    assert "was registered with tp[0,1,2,3] at step 0 (allocate); cp[0,2] has no window over it" in str(finding)


def test_snapshot_once_registers_a_segment_with_one_communicator(ranks: World) -> None:
    made = events(run(ranks, *TWO_GROUPS, pool="snapshot-once"), Registered)
    assert [len(each) for each in made] == [1] * 4


def test_snapshot_once_takes_a_new_segment_at_an_old_address_for_registered(ranks: World) -> None:
    (finding,) = found(ranks, "snapshot-once", TRIMMED)
    assert (finding.rule, finding.step, finding.ranks) == ("stale-window", 5, (0, 1, 2, 3))
    assert "that window went at step 3 (trim)" in str(finding)


def test_snapshot_once_takes_a_new_communicator_for_registered(ranks: World) -> None:
    assert [(f.rule, f.step) for f in found(ranks, "snapshot-once", RECREATED)] == [
        ("stale-window", 4),
        ("stale-window", 5),
    ]


# shared-at-exit


@pytest.mark.parametrize("name", ["two groups", "trimmed"])
def test_shared_at_exit_is_sound_where_sizes_are_equal(ranks: World, name: str) -> None:
    assert found(ranks, "shared-at-exit", PROGRAMS[name]) == []


def test_shared_at_exit_registers_a_segment_with_every_group(ranks: World) -> None:
    draw = run(ranks, *TWO_GROUPS, pool="shared-at-exit")
    groups = [[trace.comms()[event.comm].group for event in each] for trace, each in registered(draw)]
    assert groups == [[(0, 1, 2, 3), cp] for cp in ((0, 2), (1, 3), (0, 2), (1, 3))]


def registered(draw: Draw) -> list[tuple[Any, list[Registered]]]:
    """Each rank's trace with its registrations."""
    return list(zip(draw.traces, events(draw, Registered), strict=True))


def test_shared_at_exit_lets_a_new_communicator_inherit_the_index_of_the_old(ranks: World) -> None:
    broken = found(ranks, "shared-at-exit", RECREATED)
    assert [(f.rule, f.step) for f in broken] == [("stale-window", 4), ("stale-window", 5)]
    assert "that window went at step 2 (recreate) and tp[0,1,2,3] has none over it now" in str(broken[0])


def test_shared_at_exit_registers_what_other_groups_grew_by(ranks: World) -> None:
    """No group differs in itself. For tp, ranks 1 and 3 have two segments to register, and ranks 0 and 2 one."""
    broken = found(ranks, "shared-at-exit", OTHER_GROUPS_SEGMENTS)
    assert rules(broken) == ["registration-skew", "hang"]
    assert "of tp[0,1,2,3] entered different numbers of registrations: rank 0: 1, rank 1: 2, rank 2: 1, rank 3: 2" in (
        str(broken[0])
    )


def test_shared_at_exit_puts_buffers_where_other_groups_left_room(ranks: World) -> None:
    broken = found(ranks, "shared-at-exit", OTHER_GROUPS_OFFSETS)
    assert (causes(broken), broken[0].step) == (["offset-mismatch"], 3)
    assert "rank 0 at byte 1536, rank 1 at byte 2560, rank 2 at byte 1536, rank 3 at byte 2560" in str(broken[0])


@pytest.mark.parametrize("name", UNEVEN)
@pytest.mark.parametrize("pool", ["snapshot-once", "shared-at-alloc", "shared-at-exit", "per-group"])
def test_uneven_sizes_in_a_group_break_pools_whose_ranks_agree_on_nothing(ranks: World, pool: str, name: str) -> None:
    broken = found(ranks, pool, PROGRAMS[name])
    assert causes(broken) == UNEVEN_RULES[name]
    assert UNEVEN[name] in str(broken[0])


# per-group


@pytest.mark.parametrize(
    "name", ["two groups", "recreated", "trimmed", "segments of another group", "offsets of another group"]
)
def test_per_group_is_sound_where_the_ranks_of_a_group_ask_for_equal_sizes(ranks: World, name: str) -> None:
    assert found(ranks, "per-group", PROGRAMS[name]) == []


def test_per_group_hangs_where_one_rank_is_refused_memory(ranks: World) -> None:
    broken = found(ranks, "per-group", (Deny(1), allocate("a", "tp"), gather("a", "tp")))
    assert rules(broken) == ["registration-skew", "hang"]


# deferred


@pytest.mark.parametrize("name", PROGRAMS)
def test_deferred_is_sound_in_all_of_these(ranks: World, name: str) -> None:
    assert found(ranks, "deferred", PROGRAMS[name]) == []


@pytest.mark.parametrize("name", UNEVEN)
def test_deferred_lays_uneven_sizes_at_equal_offsets(ranks: World, name: str) -> None:
    draw = run(ranks, *PROGRAMS[name])
    places = [offsets(*each) for each in zip(events(draw, SegmentAllocated), events(draw, Placed), strict=True)]
    assert places == [places[0]] * 4


def offsets(segments: list[SegmentAllocated], placed: list[Placed]) -> list[tuple[int, int]]:
    """For each buffer, which of the rank's segments it lies in, and where."""
    order = [segment.segment for segment in segments]
    base = {segment.segment: segment.address for segment in segments}
    return [(order.index(buffer.segment), buffer.address - base[buffer.segment]) for buffer in placed]


def growths(draw: Draw) -> list[int]:
    return [len(each) for each in events(draw, SegmentAllocated)]


def exchanges(draw: Draw) -> list[int]:
    return [sum(event.call == "exchange" for event in each) for each in events(draw, Entered)]


def test_deferred_exchanges_nothing_on_leaving_an_unchanged_pool(ranks: World) -> None:
    draw = run(ranks, *(allocate(name, "tp") for name in "abcdef"))
    assert (growths(draw), exchanges(draw)) == ([1] * 4, [1] * 4)


def test_deferred_exchanges_once_for_each_growth(ranks: World) -> None:
    steps = allocate("a", "tp"), allocate("b", "tp", LARGE), allocate("c", "tp"), allocate("d", "tp", LARGE)
    draw = run(ranks, *steps, allocate("e", "cp"), allocate("f", "cp"))
    assert (growths(draw), exchanges(draw)) == ([3] * 4, [3] * 4)


def test_deferred_exchanges_once_with_a_new_communicator(ranks: World) -> None:
    draw = run(ranks, *RECREATED)
    assert (growths(draw), exchanges(draw)) == ([1] * 4, [2] * 4)


def test_deferred_gives_segments_windows_of_the_new_communicator(ranks: World) -> None:
    draw = run(ranks, allocate("a", "tp"), allocate("b", "tp", LARGE), Recreate("tp"), allocate("c", "tp"))
    windows = [
        [(trace.comms()[event.comm].generation, event.size) for event in each] for trace, each in registered(draw)
    ]
    again = [(generation, size) for generation in (0, 1) for size in (SMALL_SEGMENT, LARGE_SEGMENT)]
    assert windows == [again] * 4


def test_deferred_registers_nothing_where_the_communicator_supports_no_windows(ranks: World) -> None:
    draw = run(ranks, allocate("a", "tp"), gather("a", "tp"), topology=APART)
    assert (judge(draw), events(draw, Registered), exchanges(draw)) == ([], [[]] * 4, [1] * 4)


# deferred: one rank is refused memory

REFUSAL = (
    allocate("kept", "tp"),
    Deny(1),
    allocate("lost", "tp", LARGE),
    gather("lost", "tp"),
    allocate("next", "tp", LARGE),
    gather("next", "tp"),
    gather("kept", "tp"),
)


def test_deferred_breaks_no_rule_where_one_rank_is_refused_memory(ranks: World) -> None:
    assert judge(run(ranks, *REFUSAL)) == []


def test_deferred_tells_every_rank_of_the_group_that_one_was_refused_memory(ranks: World) -> None:
    assert events(run(ranks, *REFUSAL), Exhausted) == [[Exhausted("lost", LARGE)]] * 4


def test_deferred_lets_every_rank_skip_the_collective_of_a_buffer_that_one_has_not(ranks: World) -> None:
    draw = run(ranks, *REFUSAL)
    skipped = [[step for step, event in trace.steps() if isinstance(event, Skipped)] for trace in draw.traces]
    ran = [[step for step, event in trace.steps() if isinstance(event, Ran)] for trace in draw.traces]
    assert (skipped, ran) == ([[3]] * 4, [[5, 6]] * 4)


def test_deferred_owns_what_comes_after_a_refusal_and_what_came_before(ranks: World) -> None:
    paths = events(run(ranks, *REFUSAL), Ran)
    assert [[event.path for event in each] for each in paths] == [["symmetric"] * 2] * 4


def test_deferred_goes_on_with_a_fresh_pool_after_a_refusal(ranks: World) -> None:
    draw = run(ranks, *REFUSAL)
    names = [[event.pool for event in each] for each in events(draw, SegmentAllocated)]
    old, new = "0-1-2-3#0", "0-1-2-3#1"
    assert names == [[old, new] if rank == 1 else [old, old, new] for rank in range(4)]


def test_deferred_goes_on_after_the_first_allocation_of_all_was_refused(ranks: World) -> None:
    steps = Deny(1), allocate("lost", "tp"), gather("lost", "tp"), allocate("next", "tp"), gather("next", "tp")
    draw = run(ranks, *steps)
    assert (judge(draw), [len(each) for each in events(draw, Ran)]) == ([], [1] * 4)


def test_deferred_goes_on_after_two_refusals(ranks: World) -> None:
    lost = Deny(1), allocate("lost", "tp"), Deny(3), allocate("lost too", "tp")
    draw = run(ranks, *lost, allocate("next", "tp"), gather("next", "tp"))
    exhausted = [[event.buffer for event in each] for each in events(draw, Exhausted)]
    assert (judge(draw), exhausted) == ([], [["lost", "lost too"]] * 4)


def test_deferred_leaves_a_group_alone_that_has_not_the_refused_rank(ranks: World) -> None:
    draw = run(ranks, Deny(1), allocate("c", "cp"), gather("c", "cp"))
    lost, ran = [len(each) for each in events(draw, Exhausted)], [len(each) for each in events(draw, Ran)]
    assert (judge(draw), lost, ran) == ([], [0, 1, 0, 1], [1, 0, 1, 0])


def test_deferred_tells_a_group_without_windows_that_one_rank_was_refused_memory(ranks: World) -> None:
    draw = run(ranks, Deny(1), allocate("lost", "tp"), gather("lost", "tp"), topology=APART)
    assert judge(draw) == []


# deferred: ranks grow by different segments

DIFFERENT = {
    "sizes": [[BLOCK], [BLOCK], [BLOCK], [4 << 20]],
    "numbers": [[BLOCK], [BLOCK, 4 << 20], [BLOCK], [BLOCK]],
    "orders": [[BLOCK, 4 << 20], [BLOCK, 4 << 20], [4 << 20, BLOCK], [BLOCK, 4 << 20]],
}


@pytest.fixture(scope="module")
def grown(ranks: World) -> dict[str, list[dict[str, Any]]]:
    """What each rank saw where ranks grew by different segments, and where they grew by the same."""
    sizes = {**DIFFERENT, "nothing": [[BLOCK, 4 << 20]] * 4}
    return {name: ranks.call("tests.tools.deferred_on_ranks:grow", each) for name, each in sizes.items()}


def of(grown: dict[str, list[dict[str, Any]]], name: str, fact: str) -> list[Any]:
    return [rank[fact] for rank in grown[name]]


@pytest.mark.parametrize("name", DIFFERENT)
def test_deferred_is_out_of_memory_on_every_rank_where_segments_differ(grown: Any, name: str) -> None:
    assert of(grown, name, "told") == ["the pool of tp[0,1,2,3] is given up: its ranks grew by different segments"] * 4


@pytest.mark.parametrize("name", DIFFERENT)
def test_deferred_registers_none_of_the_segments_that_differ(grown: Any, name: str) -> None:
    assert of(grown, name, "first") == [["exchange"]] * 4
    assert [any(owned) for owned in of(grown, name, "owned first")] == [False] * 4


@pytest.mark.parametrize("name", DIFFERENT)
def test_deferred_goes_on_with_a_fresh_pool_where_segments_differed(grown: Any, name: str) -> None:
    assert of(grown, name, "place") == [("0-1-2-3#1", 0)] * 4
    assert (of(grown, name, "then"), of(grown, name, "owned then")) == ([["exchange", "register"]] * 4, [True] * 4)


@pytest.mark.parametrize("name", DIFFERENT)
def test_deferred_closes_the_pool_that_was_given_up(grown: Any, name: str) -> None:
    assert of(grown, name, "left") == [0] * 4


def test_deferred_registers_segments_that_every_rank_grew_by_at_once(grown: Any) -> None:
    assert of(grown, "nothing", "told") == [""] * 4
    assert of(grown, "nothing", "first") == [["exchange", "register", "register"]] * 4
    assert of(grown, "nothing", "owned first") == [[True, True]] * 4


def test_deferred_keeps_the_pool_that_every_rank_grew_alike(grown: Any) -> None:
    assert (of(grown, "nothing", "place"), of(grown, "nothing", "then")) == ([("0-1-2-3#0", BLOCK)] * 4, [[]] * 4)


@pytest.mark.parametrize("other", [(), (2,), (2, 20, 2), (20, 2), (2, 21), (220,)])
def test_a_digest_tells_lists_apart(other: tuple[int, ...]) -> None:
    assert _digest([2, 20]) != _digest(other)


def test_two_digests_are_a_word_that_ranks_can_exchange_and_never_a_refusal() -> None:
    digests = [_digest(range(count)) for count in range(100)]
    assert all(0 <= digest < 1 << BITS for digest in digests)
    assert all(0 <= digest << BITS | digest < 1 << 63 for digest in digests)


# ranks whose addresses lie in different orders

TWO_FREE_SEGMENTS = (
    *(allocate("a", "tp", OWN_SEGMENT), allocate("b", "tp", OWN_SEGMENT), Release("a"), Release("b")),
    *(allocate("c", "tp", OWN_SEGMENT), gather("c", "tp")),
)
"""Two segments of a pool are free when a third buffer comes."""


def test_per_group_puts_a_buffer_in_different_windows_where_addresses_lie_in_different_orders(ranks: World) -> None:
    broken = found(ranks, "tests.tools.scattered:PerGroup", TWO_FREE_SEGMENTS)
    assert causes(broken) == ["segment-mismatch"]
    assert "rank 0 in window 0, rank 1 in window 1" in str(broken[0])


def test_deferred_takes_a_fresh_pool_where_addresses_lie_in_different_orders(ranks: World) -> None:
    draw = run(ranks, *TWO_FREE_SEGMENTS, pool="tests.tools.scattered:Deferred")
    assert judge(draw) == []
    assert [[segment.pool for segment in each] for each in events(draw, SegmentAllocated)] == [
        ["0-1-2-3#0", "0-1-2-3#0", "0-1-2-3#1"]
    ] * 4


def test_deferred_keeps_its_pool_where_segments_of_another_kind_lie_in_different_orders(ranks: World) -> None:
    """No block of the one can be taken for a block of the other."""
    steps = allocate("a", "tp", OWN_SEGMENT), allocate("b", "tp", 256), allocate("c", "tp", OWN_SEGMENT)
    draw = run(ranks, *steps[:2], Release("a"), steps[2], gather("c", "tp"), pool="tests.tools.scattered:Deferred")
    assert judge(draw) == []
    assert [{segment.pool for segment in each} for each in events(draw, SegmentAllocated)] == [{"0-1-2-3#0"}] * 4


def test_deferred_gives_former_pools_back_when_nothing_in_them_is_in_use(ranks: World) -> None:
    steps = [step for index in range(8) for step in again(index)]
    draw = run(ranks, *steps, pool="tests.tools.scattered:Deferred")
    assert judge(draw) == []
    assert max(trace.most_held for trace in draw.traces) <= 4 * (14 << 20)


def again(index: int) -> tuple[Step, ...]:
    """Two buffers that take a segment each, come and go."""
    names = f"a{index}", f"b{index}"
    return (*(allocate(name, "tp", OWN_SEGMENT) for name in names), *(Release(name) for name in names))


def test_deferred_enters_no_agreement_where_memory_is_wanting_elsewhere(ranks: World) -> None:
    assert ranks.call("tests.tools.deferred_on_ranks:run_out_elsewhere") == [[]] * 4


def group(rank: int = 0, ranks: Group = (0, 4, 2)) -> ProcessGroup:
    substrate: Any = SimpleNamespace(rank=rank)
    return ProcessGroup(substrate, "tp", ranks)


def test_a_disagreement_names_the_ranks_that_were_refused_memory() -> None:
    said = _disagreement(group(), [7, REFUSED, REFUSED])
    assert said == "the pool of tp[0,4,2] is given up: memory was refused to rank 4 and rank 2"


def test_a_disagreement_without_a_refusal_is_one_on_segments() -> None:
    said = _disagreement(group(), [7, 7, 8])
    assert said == "the pool of tp[0,4,2] is given up: its ranks grew by different segments"


# deferred: capture


@pytest.fixture(scope="module")
def captured(ranks: World) -> list[dict[str, Any]]:
    return ranks.call("tests.tools.deferred_on_ranks:grow_in_capture")


def test_deferred_refuses_to_grow_during_capture(captured: list[dict[str, Any]]) -> None:
    said = "the pool of tp[0,1,2,3] had to grow while a graph was captured; let it grow once before the"
    assert [rank["told"].startswith(said) for rank in captured] == [True] * 4


def test_deferred_enters_no_collective_where_it_grew_during_capture(captured: list[dict[str, Any]]) -> None:
    assert [rank["captured"] for rank in captured] == [[]] * 4


def test_deferred_registers_what_grew_during_capture_at_the_next_use_outside(captured: list[dict[str, Any]]) -> None:
    assert [rank["eager"] for rank in captured] == [["exchange", "register"]] * 4


def test_deferred_serves_a_capture_from_a_pool_that_has_grown_before(captured: list[dict[str, Any]]) -> None:
    assert [(rank["again"], rank["owned"]) for rank in captured] == [([], [True, True])] * 4


# deferred: on one rank in this process


class Windowless(SimCommunicator):
    """Says that it supports windows, and gives none."""

    def _register(self, segment: Segment) -> object | None:
        return None


@pytest.fixture
def alone() -> Iterator[Rank]:
    memory = SharedMemory.create(1)
    rank = Rank(SimSubstrate(0, memory), memory)
    rank.substrate.begin([((0,),)], [0], {(0,): 0})
    yield rank
    memory.close()


def test_deferred_takes_no_null_window_from_a_communicator_that_supports_windows(alone: Rank) -> None:
    alone.substrate.communicators[0,] = alone.communicator(kind=Windowless)
    policy = Deferred(RankContext(alone.substrate, 1))
    with pytest.raises(RuntimeError, match="gave a null window"), policy.use(ProcessGroup(alone.substrate, "tp", (0,))):
        torch.empty(BLOCK)


def test_deferred_enters_no_collective_where_it_is_refused_memory_during_capture(alone: Rank) -> None:
    policy = Deferred(RankContext(alone.substrate, 1))
    alone.substrate.recorder.start(alone.events.append)
    alone.substrate.denial.is_due = True
    everyone = ProcessGroup(alone.substrate, "tp", (0,))
    with (
        alone.substrate.device.capture(),
        pytest.raises((torch.OutOfMemoryError, GrowthDuringCapture)),
        policy.use(everyone),
    ):
        torch.empty(BLOCK)
    assert [event.call for event in alone.events if isinstance(event, Entered)] == []
