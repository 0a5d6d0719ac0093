"""Ownership: each rule is broken by a planted fault, and silent where the fault is left out."""

from __future__ import annotations

import pytest

from harness.oracle.case import Case
from harness.oracle.judge import judge as judge_draw
from harness.oracle.rules.ownership import judge
from harness.scenario.layouts.groups import GroupId
from harness.scenario.operands import GUARD, View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Ballast, Recreate, ReduceScatter, Release, Step, Trim
from harness.scenario.system import System
from harness.scenario.topology import Placement, Topology
from harness.trace.draw import Draw
from harness.trace.events import (
    Began,
    CommCreated,
    CommDestroyed,
    Dropped,
    Operand,
    Placed,
    Ran,
    Registered,
    SegmentAllocated,
)
from harness.trace.trace import Trace
from harness.world.world import World
from tests.tools.calls import gathered
from tests.tools.scenes import APART, PAIR, SQUARE, TURNED, findings, first, rules, scenario

GATHER = (Allocate("a", "tp", 256), AllGather("tp", View("a"), 100))
MEBIBYTE = (1 << 20) // 4 - GUARD
"""Elements of a float32 buffer that fills half of a segment for small blocks."""

# wrong-owner

OTHER_GROUPS_POOL = (Allocate("a", "tp", 256), Allocate("b", "cp", 256), AllGather("cp", View("b"), 100))
WRONG_SITE = (Allocate("a", "tp", 256), Allocate("b", "cp", 256), AllGather("cp", View("a"), 100))
RIGHT_SITE = (*WRONG_SITE[:2], AllGather("cp", View("b"), 100))
CACHED_BLOCK = (Allocate("a", "tp", 256), Release("a"), Allocate("b", "cp", 256), AllGather("cp", View("b"), 100))
REUSED_ADDRESS = (
    Allocate("a", "tp", 256),
    Release("a"),
    Trim(),
    Allocate("b", "cp", 256),
    AllGather("tp", View("b"), 100),
)


def test_a_window_of_the_first_group_does_not_serve_another(ranks: World) -> None:
    found = findings(ranks, scenario(*OTHER_GROUPS_POOL, topology=SQUARE, pool="FirstGroupOnly"))
    assert rules(found) == ["wrong-owner"]
    assert (found[0].step, found[0].ranks) == (2, (0, 2))
    assert "step 2 (all_gather) on cp[0,2]: output 'b' of rank 0" in str(found[0])
    assert "registered with tp[0,1,2,3] at step 1 (allocate); cp[0,2] has no window over it" in str(found[0])
    assert "legacy path" in str(found[0])


def equal_ranks(shares: dict[str, str] | None) -> Topology:
    families = {"tp": ((0, 1),), "ep": ((0, 1),)}
    return Topology("equal", "explicit", families_given=families, shares=shares)


BOTH = (Allocate("a", "tp", 256), Allocate("b", "ep", 256), AllGather("ep", View("b"), 100))


def test_a_window_of_another_communicator_over_the_same_ranks_is_no_owner(ranks: World) -> None:
    found = findings(ranks, scenario(*BOTH, topology=equal_ranks({}), pool="KeyedByRanks"))
    assert (rules(found), found[0].step, found[0].ranks) == (["wrong-owner"], 2, (0, 1))
    assert "step 2 (all_gather) on ep[0,1]: output 'b' of rank 0" in str(found[0])
    assert "registered with tp[0,1] at step 0 (allocate); ep[0,1] has no window over it" in str(found[0])


@pytest.mark.parametrize(("shares", "pool"), [({}, "Sound"), ({"ep": "tp"}, "KeyedByRanks"), (None, "KeyedByRanks")])
def test_a_communicator_of_ones_own_or_a_shared_one_is_an_owner(
    ranks: World, shares: dict[str, str] | None, pool: str
) -> None:
    assert findings(ranks, scenario(*BOTH, topology=equal_ranks(shares), pool=pool)) == []


@pytest.mark.parametrize("pool", ["per-group", "deferred"])
def test_pools_that_ship_keep_communicators_over_the_same_ranks_apart(ranks: World, pool: str) -> None:
    right = Scenario(equal_ranks({}), BOTH, System(pool))
    assert judge_draw(ranks.run(right)) == []


def test_to_recreate_one_of_two_communicators_leaves_the_other(ranks: World) -> None:
    steps = (*BOTH[:2], Recreate("tp"), BOTH[2])
    assert findings(ranks, scenario(*steps, topology=equal_ranks({}))) == []


def test_windows_of_every_group_serve_every_group(ranks: World) -> None:
    assert findings(ranks, scenario(*OTHER_GROUPS_POOL, topology=SQUARE)) == []


def test_a_buffer_of_one_group_in_a_collective_of_another_is_wrong_owner(ranks: World) -> None:
    found = findings(ranks, scenario(*WRONG_SITE, topology=SQUARE))
    assert rules(found) == ["wrong-owner"]
    assert "registered with tp[0,1,2,3] at step 0 (allocate); cp[0,2] has no window over it" in str(found[0])


def test_a_buffer_of_the_group_that_uses_it_is_owned(ranks: World) -> None:
    assert findings(ranks, scenario(*RIGHT_SITE, topology=SQUARE)) == []


def test_a_kernel_does_not_run_on_a_buffer_of_another_group(ranks: World) -> None:
    steps = (*WRONG_SITE[:2], AllGather("cp", View("a"), 100, via="kernel"))
    found = findings(ranks, scenario(*steps, topology=SQUARE))
    assert rules(found) == ["wrong-owner"]
    assert "legacy path" in str(found[0])


def test_a_cached_block_handed_to_another_group_names_who_held_it_before(ranks: World) -> None:
    found = findings(ranks, scenario(*CACHED_BLOCK, topology=SQUARE, pool="shared-at-alloc"))
    assert rules(found) == ["wrong-owner"]
    assert "registered with tp[0,1,2,3] at step 0 (allocate)" in str(found[0])
    assert "'a' held this memory from step 0 (allocate) to step 1 (release)" in str(found[0])


def test_a_pool_for_each_group_hands_no_block_to_another(ranks: World) -> None:
    assert findings(ranks, scenario(*CACHED_BLOCK, topology=SQUARE, pool="per-group")) == []


def test_memory_that_another_group_registered_since_is_wrong_owner(ranks: World) -> None:
    """The window of tp went with another segment; what lies at its address now was cp's from the start."""
    found = findings(ranks, scenario(*REUSED_ADDRESS, topology=TURNED))
    assert rules(found) == ["wrong-owner"]
    assert "registered with cp[1,0] at step 3 (allocate)" in str(found[0])


# unregistered


def test_a_segment_that_nobody_registered_is_unregistered(ranks: World) -> None:
    found = findings(ranks, scenario(*GATHER, pool="NeverRegisters"))
    assert rules(found) == ["unregistered"]
    assert (found[0].step, found[0].ranks) == (1, (0, 1))
    assert "on tp[0,1]: output 'a' of rank 0 lies in a segment over which tp[0,1] finds no window" in str(found[0])


def test_memory_outside_every_pool_is_unregistered(ranks: World) -> None:
    found = findings(ranks, scenario(*GATHER, pool="OutsideThePool"))
    assert rules(found) == ["unregistered"]
    assert (
        "lies outside every segment of the pools, so that neither tp[0,1] nor any other communicator has a window"
        in str(found[0])
    )


def test_a_buffer_in_a_window_of_its_group_is_owned(ranks: World) -> None:
    assert findings(ranks, scenario(*GATHER)) == []


def test_memory_that_was_not_meant_for_a_window_may_lie_in_none(ranks: World) -> None:
    assert findings(ranks, scenario(Allocate("a", "tp", 256, role="plain"), AllGather("tp", View("a"), 100))) == []


def scatter(source: str, output: str) -> tuple[Step, ...]:
    """A reduce-scatter between buffers of these roles."""
    return (
        Allocate("whole", "tp", 256, role=source),  # type: ignore[arg-type]
        Allocate("part", "tp", 128, role=output),  # type: ignore[arg-type]
        ReduceScatter("tp", View("whole"), 100, View("part")),
    )


def test_the_source_of_a_reduce_scatter_must_lie_in_a_window(ranks: World) -> None:
    found = findings(ranks, scenario(*scatter("window", "plain"), pool="OutsideThePool"))
    assert rules(found) == ["unregistered"]
    assert "step 2 (reduce_scatter) on tp[0,1]: source 'whole' of rank 0" in str(found[0])


def test_the_output_of_a_reduce_scatter_may_lie_anywhere(ranks: World) -> None:
    assert findings(ranks, scenario(*scatter("window", "plain"))) == []


def test_a_hang_that_one_ranks_missing_window_caused_is_explained_by_it(ranks: World) -> None:
    """Rank 0 has no window and takes the legacy path; rank 1 has one and waits on the symmetric path."""
    found = findings(ranks, scenario(*GATHER, pool="DeregistersAlone"))
    assert rules(found) == ["stale-window", "hang"]
    assert "output 'a' of rank 0" in str(found[0])


def test_a_buffer_behind_a_short_window_names_that_window(ranks: World) -> None:
    """The second buffer begins where the window over the segment's start has ended."""
    steps = (Allocate("a", "tp", 2048), Allocate("b", "tp", 256), AllGather("tp", View("b"), 100))
    found = findings(ranks, scenario(*steps, pool="ShortWindow"))
    assert rules(found) == ["unregistered"]
    said = (
        "output 'b' of rank 0 lies at byte 9728 of segment 1, which has 2097152 bytes, and tp[0,1] finds no window "
        "there: the one registered with tp[0,1] at step 0 (allocate) covers the first 4096 bytes; the call took"
    )
    assert said in str(found[0])


# partly-registered

LARGE = (Allocate("a", "tp", 2048), AllGather("tp", View("a"), 1024))
SMALL = (Allocate("a", "tp", 1024 - GUARD), AllGather("tp", View("a"), 440))


def test_a_buffer_that_reaches_past_its_window_is_partly_registered(ranks: World) -> None:
    found = findings(ranks, scenario(*LARGE, pool="ShortWindow"))
    assert rules(found) == ["partly-registered"]
    assert "output 'a' of rank 0 starts in the window of tp[0,1] but reaches 4608 bytes past its end" in str(found[0])


def test_a_buffer_that_fits_a_short_window_is_owned(ranks: World) -> None:
    assert findings(ranks, scenario(*SMALL, pool="ShortWindow")) == []


def test_a_buffer_in_a_window_of_its_whole_segment_is_owned(ranks: World) -> None:
    assert findings(ranks, scenario(*LARGE)) == []


# null-window


def test_a_null_window_taken_for_a_window_is_found(ranks: World) -> None:
    found = findings(ranks, scenario(*GATHER, topology=APART, pool="IgnoresNull"))
    assert rules(found) == ["null-window"]
    assert "registered with tp[0,1] at step 0 (allocate); that registration succeeded with a null window" in str(
        found[0]
    )


PARTS = Topology("parts", "sglang", {"tp": 2}, Placement(1, 2, nvlink_domain=1))
TRAYS = Topology("trays", "sglang", {"tp": 2}, Placement(2, 1, nvlink_domain=2))


@pytest.mark.parametrize(("topology", "span"), [(APART, "2 nodes"), (PARTS, "2 NVLink domains")])
def test_a_null_window_is_explained_by_what_its_group_spans(ranks: World, topology: Topology, span: str) -> None:
    (found, *_) = findings(ranks, scenario(*GATHER, topology=topology, pool="IgnoresNull"))
    assert f"succeeded with a null window, as tp[0,1] spans {span}, so there is none over it" in str(found)


@pytest.mark.parametrize(
    ("topology", "broken"),
    [(PARTS, ["null-window"]), (TRAYS, ["unregistered"]), (APART, []), (PAIR, [])],
    ids=["domain in a node", "domain over nodes", "nodes", "one node"],
)
def test_a_pool_that_trusts_host_names_fails_where_a_domain_is_no_node(
    ranks: World, topology: Topology, broken: list[str]
) -> None:
    assert rules(findings(ranks, scenario(*GATHER, topology=topology, pool="TrustsHostNames"))) == broken


@pytest.mark.parametrize("topology", [PARTS, TRAYS], ids=["domain in a node", "domain over nodes"])
@pytest.mark.parametrize("pool", ["deferred", "per-group"])
def test_pools_that_ship_ask_nccl_and_not_host_names(ranks: World, topology: Topology, pool: str) -> None:
    assert judge_draw(ranks.run(Scenario(topology, GATHER, System(pool)))) == []


def test_a_group_that_spans_nodes_and_registers_nothing_is_silent(ranks: World) -> None:
    assert findings(ranks, scenario(*GATHER, topology=APART)) == []


def test_registering_with_every_communicator_is_sound_on_one_node(ranks: World) -> None:
    assert findings(ranks, scenario(*GATHER, topology=PAIR, pool="IgnoresNull")) == []


# stale-window

RECREATED = (*GATHER, Recreate("tp"), Allocate("b", "tp", 256), AllGather("tp", View("a"), 100))
TRIMMED = (*GATHER, Release("a"), Trim(), Allocate("b", "tp", 256), AllGather("tp", View("b"), 100))


def test_a_window_does_not_survive_its_communicator(ranks: World) -> None:
    found = findings(ranks, scenario(*RECREATED, pool="RemembersSegments"))
    assert rules(found) == ["stale-window"]
    assert found[0].step == 4
    assert "was registered with tp[0,1] at step 0 (allocate); that window went at step 2 (recreate)" in str(found[0])
    assert "tp[0,1] has none over it now; the call took the legacy path" in str(found[0])


def test_a_buffer_used_before_the_new_communicator_registered_it_is_stale(ranks: World) -> None:
    found = findings(ranks, scenario(*GATHER, Recreate("tp"), AllGather("tp", View("a"), 100)))
    assert rules(found) == ["stale-window"]
    assert "that window went at step 2 (recreate)" in str(found[0])


def test_a_window_gone_with_its_communicator_is_stale_whoever_else_has_one() -> None:
    """As long as the segment is there, as in a draw that ended early: the group lost its window and did not give it
    back, so that the other group has not taken its place."""
    comms = CommCreated(0, (0, 1), 0, True), CommCreated(1, (1, 0), 0, True)
    allocated = Began(0), SegmentAllocated(2, "p", 0, 4096), Placed("a", 2, 0, 1088, GroupId((0, 1)))
    windows = Registered(3, 1, 2, 0, 4096, False), Registered(4, 0, 2, 0, 4096, False)
    replaced = Began(1), CommDestroyed(0), CommCreated(5, (0, 1), 1, True)
    called = Began(2), gathered(5, Operand("a", 0, 400), Operand("a", 0, 800)), Ran("legacy", "the log")
    events = (*comms, *allocated, *windows, *replaced, *called)
    steps = scenario(GATHER[0], Recreate("tp"), GATHER[1], topology=TURNED)
    case = Case(Draw(steps, (Trace(0, events), Trace(1, events)), (), 1.0, 1.0))
    assert [finding.rule for finding in judge(case)] == ["stale-window"] * 2


def test_a_window_of_a_communicator_that_was_destroyed_before_is_stale_and_says_so(ranks: World) -> None:
    late = (Allocate("b", "tp", 1 << 20), AllGather("tp", View("b"), 100))
    found = findings(ranks, scenario(*GATHER, Recreate("tp"), *late, pool="KeepsTheCommunicator"))
    assert (found[0].rule, found[0].step) == ("stale-window", 4)
    said = (
        "lies in memory that was registered with tp[0,1] at step 3 (allocate), by a communicator that had been "
        "destroyed at step 2 (recreate); the one that took its place has no window over it; the call took"
    )
    assert said in str(found[0])


def test_registering_with_the_new_communicator_owns_the_buffer_again(ranks: World) -> None:
    assert findings(ranks, scenario(*RECREATED)) == []


def test_an_address_used_again_is_not_registered_again(ranks: World) -> None:
    found = findings(ranks, scenario(*TRIMMED, pool="RemembersAddresses"))
    assert rules(found) == ["stale-window"]
    assert found[0].step == 5
    assert "was registered with tp[0,1] at step 0 (allocate); that window went at step 3 (trim)" in str(found[0])


def test_a_segment_gets_the_address_of_a_freed_one_of_its_size_whatever_was_freed_before(ranks: World) -> None:
    """An index by address and size finds another segment there. First fit alone would put the small one first."""
    both = Allocate("large", "tp", 1 << 20), Allocate("small", "tp", 256), Release("large"), Release("small"), Trim()
    again = Allocate("again", "tp", 256), AllGather("tp", View("again"), 100)
    assert rules(findings(ranks, scenario(*both, *again, pool="RemembersPieces"))) == ["stale-window"]
    assert findings(ranks, scenario(*both, *again)) == []


def test_a_window_over_a_freed_segment_is_stale_when_the_address_is_used_again(ranks: World) -> None:
    """The cause comes first: the segment was freed under the window. The leak of that window comes with it."""
    found = findings(ranks, scenario(*TRIMMED, pool="ForgetsToDeregister"))
    assert rules(found)[:2] == ["freed-while-registered", "stale-window"]
    stale = first(found, "stale-window")
    assert stale.step == 5
    found_in = "is found in a window registered with tp[0,1] at step 0 (allocate)"
    assert f"{found_in}, whose segment was freed at step 3 (trim)" in str(stale)


def test_a_segment_at_an_address_used_again_is_owned_once_registered(ranks: World) -> None:
    assert findings(ranks, scenario(*TRIMMED)) == []


# offset-mismatch

SHIFTED = (
    Allocate("a", "tp", 256),
    Ballast("shift", "tp", rank=1, size=1000),
    Allocate("b", "tp", 256),
    AllGather("tp", View("b"), 100),
)


def test_a_buffer_at_other_offsets_on_other_ranks_is_an_offset_mismatch(ranks: World) -> None:
    """Wrong data and overrun guards come with it: peers are reached at the local offset."""
    found = findings(ranks, scenario(*SHIFTED))
    assert found[0].rule == "offset-mismatch"
    assert (found[0].step, found[0].ranks) == (3, (0, 1))
    assert (
        "'b' lies at different offsets of the same window of tp[0,1]: rank 0 at byte 2560, rank 1 at byte 4096"
        in str(found[0])
    )


def test_an_offset_mismatch_names_the_allocation_of_one_rank_alone(ranks: World) -> None:
    (found,) = (each for each in findings(ranks, scenario(*SHIFTED)) if each.rule == "offset-mismatch")
    said = (
        "The ranks' requests to that pool, canaries included, first differ at step 1 (ballast): rank 0 did nothing "
        "there, rank 1 allocated 'shift' of 1144 bytes."
    )
    assert said in str(found)


def test_an_offset_mismatch_names_sizes_that_differ(ranks: World) -> None:
    steps = (Allocate("a", "tp", (256, 1024)), *SHIFTED[2:])
    found = first(findings(ranks, scenario(*steps)), "offset-mismatch")
    assert "at step 0 (allocate): rank 0 allocated 'a' of 1600 bytes, rank 1 allocated 'a' of 4672 bytes." in str(found)


def test_an_offset_mismatch_names_a_release_that_one_rank_alone_made() -> None:
    """A rank may skip a step; here its trace lacks the release."""
    comm = CommCreated(0, (0, 1), 0, True)
    begin = comm, Began(0), SegmentAllocated(1, "p", 0, 8192), Registered(2, 0, 1, 0, 8192, False)
    placed = Placed("a", 1, 0, 1024, GroupId((0, 1))), Began(1)
    traces = tuple(
        Trace(rank, (*begin, *placed, *events, Began(2), Placed("b", 1, at, 1024), Began(3), gathered(0, own, own)))
        for rank, (events, at) in enumerate([((Dropped("a"),), 0), ((), 1024)])
        for own in [Operand("b", at, 800)]
    )
    steps = GATHER[0], Release("a"), Allocate("b", "tp", 256), AllGather("tp", View("b"), 100)
    (found,) = judge(Case(Draw(scenario(*steps), traces, (), 1.0, 1.0)))
    assert "first differ at step 1 (release): rank 0 released 'a' of 1024 bytes, rank 1 did nothing there." in str(
        found
    )


def test_what_another_pool_holds_shifts_no_buffer_of_this_one(ranks: World) -> None:
    """The ballast lies in the pool of cp."""
    other = Allocate("c", "cp", 256), Ballast("other", "cp", rank=1, size=1000)
    steps = (*other, Allocate("a", "tp", (256, 1024)), *SHIFTED[2:])
    found = first(findings(ranks, scenario(*steps, topology=TURNED)), "offset-mismatch")
    assert "first differ at step 2 (allocate)" in str(found)


def test_a_buffer_at_one_offset_on_every_rank_is_owned(ranks: World) -> None:
    assert findings(ranks, scenario(SHIFTED[0], *SHIFTED[2:])) == []


AFTER_A_KERNEL = (
    Allocate("a", "tp", 256),
    AllGather("tp", View("a"), 100, via="kernel"),
    Release("a"),
    Allocate("b", "tp", 256),
    AllGather("tp", View("b"), 100),
)


def test_the_place_of_a_buffer_does_not_hang_on_when_a_rank_collects_garbage(ranks: World) -> None:
    assert findings(ranks, scenario(*AFTER_A_KERNEL, pool="CollectsGarbage")) == []


# segment-mismatch

TWO_HALF_SEGMENTS = (
    Allocate("first", "tp", MEBIBYTE),
    Allocate("second", "tp", MEBIBYTE),
    Allocate("third", "tp", MEBIBYTE),
    Release("first"),
)
FILLED = (
    *TWO_HALF_SEGMENTS,
    Ballast("fill", "tp", rank=1, size=(1 << 20) - GUARD),
    Allocate("b", "tp", 256),
    AllGather("tp", View("b"), 100),
)
TWO_SEGMENTS = (
    Allocate("a", "tp", 2 * MEBIBYTE // 3),
    Allocate("b", "tp", MEBIBYTE),
    Allocate("c", "tp", MEBIBYTE),
    AllGather("tp", View("a"), 100),
)


def test_a_buffer_in_other_segments_on_other_ranks_is_a_segment_mismatch(ranks: World) -> None:
    """Wrong data comes with it: rank 1 writes to window 1 of rank 0, whose output lies in window 0."""
    found = findings(ranks, scenario(*FILLED))
    assert found[0].rule == "segment-mismatch"
    assert (found[0].step, found[0].ranks) == (6, (0, 1))
    assert "'b' lies in different windows of tp[0,1]: rank 0 in window 0, rank 1 in window 1" in str(found[0])


def test_a_segment_mismatch_of_ranks_that_asked_alike_says_so(ranks: World) -> None:
    found = first(findings(ranks, scenario(*TWO_SEGMENTS, pool="ReversedOrder")), "segment-mismatch")
    assert str(found).endswith("the ranks' allocations and releases in that pool agree in step, buffer and size.")


def test_a_buffer_in_one_segment_on_every_rank_is_owned(ranks: World) -> None:
    assert findings(ranks, scenario(*FILLED[:4], *FILLED[5:])) == []


def test_segments_registered_in_another_order_are_a_segment_mismatch(ranks: World) -> None:
    """Wrong data comes with it. The sizes agree, so that the order shows only in where the buffer lies."""
    found = findings(ranks, scenario(*TWO_SEGMENTS, pool="ReversedOrder"))
    assert found[0].rule == "segment-mismatch"
    assert "'a' lies in different windows of tp[0,1]: rank 0 in window 0, rank 1 in window 1" in str(found[0])


def test_segments_registered_late_but_in_one_order_are_owned(ranks: World) -> None:
    assert findings(ranks, scenario(*TWO_SEGMENTS, pool="RegistersLate")) == []
