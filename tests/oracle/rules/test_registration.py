"""Registration: ranks of a group that differ in what they register are found; one that ended has no say."""

from __future__ import annotations

import msgspec
import pytest

from harness.oracle.case import Case
from harness.oracle.judge import judge
from harness.oracle.rules.registration import double
from harness.scenario.operands import GUARD, View
from harness.scenario.steps import (
    AllGather,
    Allocate,
    Deny,
    ProgramError,
    ReduceScatter,
    Release,
    Steady,
    Step,
    Straggle,
    Trim,
)
from harness.scenario.topology import Topology
from harness.trace.draw import Draw, Fate, Version
from harness.trace.events import Began, CommCreated, Entered, Registered, SegmentAllocated
from harness.trace.trace import Trace
from harness.world.world import World
from tests.tools.scenes import CROSSED, TURNED, findings, first, rules, scenario, unsaid

GATHER = (Allocate("a", "tp", 256), AllGather("tp", View("a"), 100))
MEBIBYTE = (1 << 20) // 4 - GUARD
"""Elements of a float32 buffer that fills half of a segment for small blocks."""


def on_nccl(draw: Draw, version: Version | None) -> Draw:
    """The draw as one of that NCCL; None for the simulation."""
    return msgspec.structs.replace(draw, nccl=version)


def with_window(draw: Draw, rank: int, size: int) -> Draw:
    """The draw as it would be, had a rank registered so many bytes of each segment."""
    events = (
        msgspec.structs.replace(event, size=size) if isinstance(event, Registered) else event
        for event in draw.traces[rank].events
    )
    traces = [*draw.traces]
    traces[rank] = msgspec.structs.replace(traces[rank], events=tuple(events))
    return msgspec.structs.replace(draw, traces=tuple(traces))


# registration-skew: the number of registrations


def test_a_rank_that_registers_alone_is_registration_skew(ranks: World) -> None:
    """The hang comes with it: a registration waits for every rank."""
    found = findings(ranks, scenario(*GATHER, pool="RegistersAlone"))
    assert rules(found) == ["registration-skew", "unregistered", "hang"]
    assert (found[0].step, found[0].ranks) == (0, (0, 1))
    assert "the ranks of tp[0,1] entered different numbers of registrations: rank 0: 1, rank 1: 0" in str(found[0])
    assert "Rank 0 entered its first registration at step 0 (allocate); rank 1 never did" in str(found[0])


def test_ranks_that_register_together_are_silent(ranks: World) -> None:
    assert findings(ranks, scenario(*GATHER)) == []


def test_a_rank_that_was_refused_its_segment_is_registration_skew(ranks: World) -> None:
    """The hang comes with it."""
    found = findings(ranks, scenario(Deny(1), *GATHER, pool="per-group"))
    assert rules(found) == ["registration-skew", "hang"]
    assert "Rank 0 entered its first registration at step 1 (allocate); rank 1 never did" in str(found[0])


def test_ranks_that_were_all_refused_their_segment_are_silent(ranks: World) -> None:
    assert judge(ranks.run(scenario(Deny(0), Deny(1), *GATHER, pool="per-group"))) == []


# registration-skew: their order

TWO_GROUPS = (
    Allocate("a", "tp", 256),
    Allocate("b", "cp", 256),
    AllGather("cp", View("b"), 100),
)


def test_two_communicators_registered_in_opposite_order_are_registration_skew(ranks: World) -> None:
    """The hang comes with it: each rank waits for the other in another registration."""
    found = findings(ranks, scenario(*TWO_GROUPS, topology=TURNED, pool="OppositeOrder"))
    assert rules(found) == ["registration-skew", "hang"]
    assert found[0].step == 1
    assert "rank 0: 2, rank 1: 1. Rank 0 entered its second registration at step 1 (allocate)" in str(found[0])


def test_a_hang_of_two_registrations_says_which_each_rank_stood_in(ranks: World) -> None:
    hang = first(findings(ranks, scenario(*TWO_GROUPS, topology=TURNED, pool="OppositeOrder")), "hang")
    stands = "step 1 (allocate)"
    assert unsaid(hang, "rank 0 ", stands, "register of tp[0,1]", "rank 1 ", stands, "register of cp[1,0]") == []


def test_two_communicators_registered_in_one_order_are_silent(ranks: World) -> None:
    assert findings(ranks, scenario(*TWO_GROUPS, topology=TURNED, pool="EveryGroup")) == []


SMALL_AND_LARGE = (Allocate("a", "tp", 256), Allocate("b", "tp", MEBIBYTE + 1), AllGather("tp", View("a"), 100))


def test_segments_of_other_sizes_in_another_order_are_registration_skew_before_nccl_2_30_7(ranks: World) -> None:
    """Mismatched segments and wrong data come with it."""
    found = judge(on_nccl(ranks.run(scenario(*SMALL_AND_LARGE, pool="ReversedOrder")), (2, 29, 7)))
    assert found[0].rule == "registration-skew"
    assert found[0].step == 1
    assert "the first registration of tp[0,1] differs in size: rank 0 2097152 bytes, rank 1 20971520 bytes" in str(
        found[0]
    )


def test_segments_in_another_order_hold_mismatched_buffers_whatever_the_nccl(ranks: World) -> None:
    assert rules(findings(ranks, scenario(*SMALL_AND_LARGE, pool="ReversedOrder")))[0] == "segment-mismatch"


def test_segments_of_other_sizes_in_one_order_are_silent(ranks: World) -> None:
    assert findings(ranks, scenario(*SMALL_AND_LARGE, pool="RegistersLate")) == []


# registration-skew: their sizes


UNEVEN = scenario(Allocate("a", "tp", (256, MEBIBYTE + 1)), AllGather("tp", View("a"), 100))


@pytest.mark.parametrize("version", [(2, 28, 9), (2, 29, 7), (2, 30, 6)])
def test_segments_of_different_sizes_are_registration_skew_before_nccl_2_30_7(ranks: World, version: Version) -> None:
    found = judge(on_nccl(ranks.run(UNEVEN), version))
    assert rules(found) == ["registration-skew"]
    assert "the first registration of tp[0,1] differs in size: rank 0 2097152 bytes, rank 1 20971520 bytes" in str(
        found[0]
    )


@pytest.mark.parametrize("version", [(2, 30, 7), (2, 32, 3), None])
def test_segments_of_different_sizes_are_silent_from_nccl_2_30_7_on(ranks: World, version: Version | None) -> None:
    draw = ranks.run(UNEVEN)
    assert len({window.size for trace in draw.traces for window in trace.events if isinstance(window, Registered)}) == 2
    assert judge(on_nccl(draw, version)) == []


def test_windows_of_different_sizes_over_equal_segments_are_silent(ranks: World) -> None:
    """Peers map the segment; the length of the window is a matter of the rank's own (2.28.9 and 2.29.7)."""
    draw = on_nccl(ranks.run(scenario(*GATHER)), (2, 28, 9))
    assert judge(draw) == judge(with_window(draw, rank=1, size=1 << 20)) == []


def test_uneven_buffers_in_segments_of_one_size_are_silent(ranks: World) -> None:
    assert findings(ranks, scenario(Allocate("a", "tp", (256, 512)), AllGather("tp", View("a"), 100))) == []


# registration-skew that another fault only makes it look like

PREVENTED_BY_CRASH = (
    Allocate("a", "tp", 256),
    Straggle(0, 400),
    Allocate("b", "tp", MEBIBYTE + 1),
    Allocate("c", "cp", 256),
)
PREVENTED_BY_HANG = (
    Allocate("whole", "tp", 256, dtype="bfloat16"),
    Allocate("part", "tp", 128, dtype="bfloat16"),
    ReduceScatter("tp", View("whole"), 100, View("part"), via="kernel"),
    Allocate("b", "tp", MEBIBYTE + 1),
)


def test_a_registration_that_a_crash_prevented_is_no_skew(ranks: World) -> None:
    """Rank 1 waits in tp[0,1] for rank 0, which then dies; rank 3 waits for rank 1 in cp[1,3]."""
    found = findings(ranks, scenario(*PREVENTED_BY_CRASH, topology=CROSSED, pool="Dies"))
    assert rules(found) == ["rank-crash"]


def test_a_hang_comes_before_the_registrations_that_it_prevented(ranks: World) -> None:
    """Rank 1 skips a barrier and goes on to a registration that rank 0, still in the barrier, cannot reach."""
    found = findings(ranks, scenario(*PREVENTED_BY_HANG, kernels="LeavesEarly"))
    assert found[0].rule == "hang"


def cut_short(draw: Draw, rank: int) -> Draw:
    """The draw as if the rank had been stopped inside its first registration, by another's crash."""
    events = draw.traces[rank].events
    inside = next(i for i, event in enumerate(events) if isinstance(event, Entered) and event.call == "register")
    traces = [Trace(rank, events[: inside + 1]) if trace.rank == rank else trace for trace in draw.traces]
    fates = (Fate(0, "stopped"), Fate(1, "stopped"), Fate(2, "crashed", "killed by signal 11 (SIGSEGV)"))
    return msgspec.structs.replace(draw, traces=tuple(traces), fates=(*fates, Fate(3, "stopped")))


def test_a_rank_stopped_inside_a_registration_that_its_peer_completed_is_no_skew(ranks: World) -> None:
    draw = ranks.run(scenario(*GATHER, topology=CROSSED))
    assert rules(judge(cut_short(draw, rank=1))) == ["rank-crash"]


def test_a_registration_that_a_rank_went_past_before_it_crashed_is_skew(ranks: World) -> None:
    """As NCCL has it where a registration's messages meet those of a collective."""
    draw = ranks.run(scenario(*GATHER, pool="RegistersAlone"))
    fates = Fate(0, "stopped"), Fate(1, "crashed", "failed with ncclInternalError")
    assert rules(judge(msgspec.structs.replace(draw, fates=fates))) == [
        "registration-skew",
        "unregistered",
        "rank-crash",
    ]


def test_next_to_a_crash_a_rank_that_was_stopped_on_its_way_hides_no_other(ranks: World) -> None:
    """Rank 0 registers, rank 1 had not come so far, rank 2 had gone past."""
    three = Topology("three", "sglang", {"tp": 3})
    steps = Allocate("a", "tp", 300), AllGather("tp", View("a"), 100)
    draw = ranks.run(scenario(*steps, topology=three, pool="RegistersAlone"))
    late = msgspec.structs.replace(draw.traces[1], events=draw.traces[1].events[:1])
    fates = Fate(0, "stopped"), Fate(1, "stopped"), Fate(2, "crashed", "killed by signal 11 (SIGSEGV)")
    found = judge(msgspec.structs.replace(draw, traces=(draw.traces[0], late, draw.traces[2]), fates=fates))
    assert (found[0].rule, found[0].ranks) == ("registration-skew", (0, 2))


# oversized-window

TWO_SEGMENTS = (Allocate("a", "tp", 256), Allocate("b", "tp", 1 << 20), AllGather("tp", View("b"), 100))


def test_a_window_that_reaches_past_its_segment_is_oversized_and_doubles_no_other(ranks: World) -> None:
    found = findings(ranks, scenario(*TWO_SEGMENTS, pool="LongWindow"))
    assert rules(found) == ["oversized-window"]
    assert [(each.step, each.ranks) for each in found] == [(0, (0,)), (1, (0,))]
    segment = "reaches 2097152 bytes past the end of its segment 1, which has 2097152 bytes"
    assert (
        unsaid(found[0], "registered with tp[0,1] at step 0 (allocate)", segment, "into segment 3 of pool '0-1'") == []
    )


def test_a_window_as_long_as_its_segment_is_silent(ranks: World) -> None:
    assert findings(ranks, scenario(*TWO_SEGMENTS)) == []


def test_windows_that_overlap_inside_their_segments_are_double_beside_a_long_one() -> None:
    allocated = SegmentAllocated(1, "p", 0, 4096), SegmentAllocated(2, "p", 4096, 4096)
    windows = Registered(3, 0, 1, 0, 8192, False), Registered(4, 0, 2, 4096, 4096, False)
    trace = Trace(0, (CommCreated(0, (0, 1), 0, True), Began(0), *allocated, *windows))
    case = Case(Draw(scenario(*GATHER), (trace,), (), 1.0, 1.0))
    assert [*double(case, case.histories[0])] == []
    again = Registered(5, 0, 1, 4000, 4096, False)
    case = Case(Draw(scenario(*GATHER), (Trace(0, (*trace.events, again)),), (), 1.0, 1.0))
    assert [finding.rule for finding in double(case, case.histories[0])] == ["double-registration"]


# double-registration

TWICE = (*GATHER, Allocate("b", "tp", 256))


def test_a_segment_registered_twice_with_one_communicator_is_double_registration(ranks: World) -> None:
    found = findings(ranks, scenario(*TWICE, pool="AlwaysRegisters"))
    assert rules(found) == ["double-registration"]
    assert (found[0].step, found[0].ranks) == (2, (0,))
    assert "rank 0: step 2 (allocate) registered segment" in str(found[0])
    assert "with tp[0,1] while its window from step 0 (allocate) was still live" in str(found[0])


def test_a_segment_registered_once_is_silent(ranks: World) -> None:
    assert findings(ranks, scenario(*TWICE)) == []


def test_a_segment_registered_with_two_communicators_is_silent(ranks: World) -> None:
    steps = (*TWO_GROUPS, Release("b"), Allocate("c", "cp", 256))
    assert findings(ranks, scenario(*steps, topology=TURNED, pool="EveryGroup")) == []


@pytest.mark.parametrize(("start", "found"), [(4096, []), (4095, ["double-registration"])], ids=["beside", "over"])
def test_two_windows_are_one_memory_twice_if_they_share_a_byte(start: int, found: list[str]) -> None:
    registered = Registered(2, 0, 1, 0, 4096, False), Registered(4, 0, 3, start, 4096, False)
    trace = Trace(0, (CommCreated(0, (0, 1), 0, True), Began(0), *registered))
    case = Case(Draw(scenario(*GATHER), (trace,), (), 1.0, 1.0))
    assert [finding.rule for finding in double(case, case.histories[0])] == found


# hot-path-growth


def layer(name: str) -> tuple[Step, ...]:
    return Allocate(name, "tp", 256), AllGather("tp", View(name), 100), Release(name)


SETTLED = (*layer("a"), *layer("b"))
IDLE = "harness.system.planted.pools:GivesBackWhenIdle"


def test_a_registration_in_steady_state_is_hot_path_growth(ranks: World) -> None:
    found = findings(ranks, scenario(*SETTLED, Steady(), *layer("c"), pool=IDLE))
    assert (rules(found), found[0].ranks) == (["hot-path-growth"], (0,))
    said = "rank 0 entered a registration with tp[0,1] at step 7 (allocate), in steady state since step 6"
    assert said in str(found[0])


def test_a_pool_that_need_not_grow_is_silent_in_steady_state(ranks: World) -> None:
    assert findings(ranks, scenario(*SETTLED, Steady(), *layer("c"))) == []


def test_a_registration_after_steady_state_is_none_of_its(ranks: World) -> None:
    steps = (*SETTLED, Steady(), *layer("c"), Steady(begins=False), Trim(), *layer("d"))
    assert findings(ranks, scenario(*steps)) == []


@pytest.mark.parametrize("before", [(), layer("a"), (*layer("a"), Trim(), *layer("b"))])
def test_steady_state_is_what_came_twice_before(before: tuple[Step, ...]) -> None:
    with pytest.raises(ProgramError, match="does not repeat the two stretches before it"):
        scenario(*before, Steady(), *layer("c"))


def test_steady_state_keeps_no_buffer_as_a_right_pool_might_grow_for_it() -> None:
    kept = [Allocate(name, "tp", 2_000_000) for name in "abc"]
    with pytest.raises(ProgramError, match="what follows keeps 'c', for which a pool may have to grow"):
        scenario(*kept[:2], Steady(), kept[2])


def test_a_registration_that_pairs_with_one_of_another_step_is_a_skew(ranks: World) -> None:
    """Rank 0 is refused `b`. Its registration of `c` pairs with rank 1's of `b`, in which rank 1 has room for `c`."""
    steps = (
        Allocate("a", "tp", (1 << 18) - GUARD - 1),
        Deny(0),
        Allocate("b", "tp", 2_600_000),
        Allocate("c", "tp", 1_000_000),
    )
    found = findings(ranks, scenario(*steps, pool="per-group"))
    assert (found[0].rule, found[0].step, found[0].ranks) == ("registration-skew", 2, (0, 1))
    assert "was made at different steps: rank 0 at step 3 (allocate), rank 1 at step 2 (allocate)" in str(found[0])
    assert "Rank 0 could not allocate 'b' at step 2 (allocate)." in str(found[0])
