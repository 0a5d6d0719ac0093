"""Memory beside outputs: a single wrong store is found wherever it lands, and the finding says where that is."""

from __future__ import annotations

import pytest
from msgspec import structs

from harness.oracle.judge import judge
from harness.scenario.bases import Via
from harness.scenario.operands import View
from harness.scenario.steps import AllGather, Allocate, Collective, InFlight, ReduceScatter, Release, Step
from harness.scenario.system import POOLS, System
from harness.strategies.batches import sample
from harness.strategies.programs import WITH_GRAPHS, scenarios
from harness.trace.events import Called, Mismatch, Ran, SourceChanged, Touched
from harness.trace.trace import Trace
from harness.world.world import World
from tests.tools.scenes import findings, first, rules, scenario

RULES_ON_MEMORY = ("overlapping-buffers", "out-of-bounds", "source-changed")
MINE = Allocate("mine", "tp", 256, role="plain")


def gather(buffer: str, offset: int = 512) -> AllGather:
    """100 elements of each rank, into the middle of a buffer."""
    return AllGather("tp", View(buffer, offset), 100, View("mine"), via="kernel")


ONE = (Allocate("b", "tp", 2048), MINE, gather("b"))
TWO = (*ONE, Allocate("a", "tp", 2048), gather("a"))
"""`a` lies behind `b`, which is live."""
FREED = (*ONE, Allocate("a", "tp", 4096), Release("b"), gather("a"))
"""`b` is free memory at the second call."""
AT_AN_END = (Allocate("a", "tp", 200), MINE, gather("a", 0))
"""The output reaches from one end of its buffer to the other."""


def found_with(ranks: World, kernels: str, *steps: Step) -> str:
    """The findings of a draw, as one text. With seed 0, the element that `ClearsEarlierOutput` clears is zero."""
    played = structs.replace(scenario(*steps, kernels=f"tests.tools.strays:{kernels}"), seed=1)
    return "\n".join(map(str, findings(ranks, played)))


# out-of-bounds

BESIDE = {
    "RightInFront": "at byte 2044 of 'a', 4 bytes in front of the start of the output",
    "InFront128": "at byte 1920 of 'a', 128 bytes in front of the start of the output",
    "InFront4096": "at byte 7168 of 'b', 4096 bytes in front of the start of the output",
    "RightBehind": "at byte 2848 of 'a', right behind the end of the output",
    "Behind128": "at byte 2976 of 'a', 128 bytes behind the end of the output",
    "Behind4096": "at byte 6944 of 'a', 4096 bytes behind the end of the output",
}


@pytest.mark.parametrize("kernels", BESIDE)
@pytest.mark.parametrize(("of", "rank"), [("", 0), ("Peers", 1)], ids=["own", "a peer's"])
def test_a_store_beside_an_output_is_found_where_it_landed(ranks: World, kernels: str, of: str, rank: int) -> None:
    found = found_with(ranks, of + kernels, *TWO)
    assert f"out-of-bounds: step 4 (all_gather) on tp[0,1]: on rank {rank} 4 bytes changed" in found
    assert f"that the call may not write, the first {BESIDE[kernels]}: from 0x" in found
    assert "the call took the kernel path" in found


OUTSIDE = {
    "RightInFront": "4 bytes in front of the start of 'a'",
    "InFront128": "128 bytes in front of the start of 'a'",
    "RightBehind": "right behind the end of 'a'",
    "Behind128": "in memory of segment 1 of pool '0-1' that nobody holds, 128 bytes behind the end of 'a'",
    "Behind4096": "in memory of segment 1 of pool '0-1' that nobody holds, 4096 bytes behind the end of 'a'",
    "InFreeMemory": "in memory of segment 1 of pool '0-1' that nobody holds, 1048576 bytes behind the end of 'a'",
}


@pytest.mark.parametrize("kernels", OUTSIDE)
def test_a_store_outside_a_buffer_is_found_where_it_landed(ranks: World, kernels: str) -> None:
    found = found_with(ranks, kernels, *AT_AN_END)
    assert f"on rank 0 4 bytes changed that the call may not write, the first {OUTSIDE[kernels]}: from 0x" in found


@pytest.mark.parametrize(
    ("kernels", "rank"), [("InEarlierOutput", 0), ("InPeersEarlierOutput", 1), ("ClearsEarlierOutput", 0)]
)
@pytest.mark.parametrize(
    ("steps", "place"),
    [
        (TWO, "at byte 2048 of 'b', 9216 bytes in front of the start of the output"),
        (FREED, "in memory of segment 1 of pool '0-1' that nobody holds, 7168 bytes in front of the start of 'a'"),
    ],
    ids=["live", "released"],
)
def test_a_store_into_an_earlier_output_is_found(
    ranks: World, kernels: str, rank: int, steps: tuple[Step, ...], place: str
) -> None:
    found = found_with(ranks, kernels, *steps)
    assert f"on rank {rank} 4 bytes changed that the call may not write, the first {place}" in found


@pytest.mark.parametrize(("kernels", "rank"), [("InPeersFreeMemory", 1), ("ClearsBehind", 0)])
def test_a_store_far_off_or_of_zeros_is_found(ranks: World, kernels: str, rank: int) -> None:
    assert f"out-of-bounds: step 2 (all_gather) on tp[0,1]: on rank {rank} " in found_with(ranks, kernels, *ONE)


def test_a_store_after_the_call_is_found_by_a_later_look(ranks: World) -> None:
    found = found_with(ranks, "LateInPeersEarlierOutput", *TWO, gather("a"))
    assert "out-of-bounds: " in found
    assert "on rank 1 4 bytes changed" in found
    assert "at byte 2048 of 'b'" in found


def touched(ranks: World, *, wrong: bool, **fields: object) -> list[str]:
    """The rules that break where an element of `b`, the earlier output, changed on rank 1 at step 4."""
    draw = ranks.run(scenario(*TWO))
    events = list(draw.traces[1].events)
    calls = [index for index, event in enumerate(events) if isinstance(event, Ran)]
    start = next(event.output.address for event in events if isinstance(event, Called))
    event = Touched(**{"when": "call", "buffer": "b", "segment": 1, "address": start, "end": start + 4} | fields)  # type: ignore[arg-type]
    events.insert(calls[1] + 1, event)
    if wrong:
        events.insert(calls[0] + 1, Mismatch("b", 1, 200, 0, 0, "1 (0x1)", "2 (0x2)"))
    return rules(judge(structs.replace(draw, traces=(draw.traces[0], Trace(1, tuple(events))))))


CHANGE = {"changed": 4, "before": "00000001", "after": "00000002"}


def test_a_change_in_the_output_of_another_call_that_was_wrong_is_that_calls(ranks: World) -> None:
    """A peer that does not wait writes there before this rank comes, or after it has gone."""
    assert touched(ranks, wrong=True, **CHANGE) == ["wrong-data"]


def test_a_change_in_the_output_of_another_call_that_was_right_is_out_of_bounds(ranks: World) -> None:
    assert touched(ranks, wrong=False, **CHANGE) == ["out-of-bounds"]


@pytest.mark.parametrize(("count", "said"), [(4, "4 bytes"), (1, "1 byte")])
def test_a_change_between_two_calls_names_both_steps(ranks: World, count: int, said: str) -> None:
    draw = ranks.run(scenario(*TWO))
    event = Touched("between", "b", 1, 0, count, count, "00000001", "00000002")
    events = [
        more
        for each in draw.traces[1].events
        for more in (each, *([event] if each == draw.traces[1].events[-2] else []))
    ]
    (found,) = judge(structs.replace(draw, traces=(draw.traces[0], Trace(1, tuple(events)))))
    assert str(found).startswith(
        f"out-of-bounds: between step 4 (all_gather) and the end: on rank 1 {said} changed that no call"
    )


# source-changed

SCATTER = ReduceScatter("tp", View("b"), 100, View("mine"), via="kernel")
IN_PLACE = ReduceScatter("tp", View("b"), 100, via="kernel")


@pytest.mark.parametrize(
    ("step", "source", "where"),
    [
        (gather("b"), "mine", "1 of 100 elements that are not output, the first at index 99"),
        (SCATTER, "b", "1 of 200 elements that are not output, the first at index 199"),
        (IN_PLACE, "b", "1 of 200 elements that are not output, the first at index 100"),
    ],
    ids=["gather", "scatter", "in place"],
)
def test_a_store_into_the_source_is_found(ranks: World, step: Collective, source: str, where: str) -> None:
    found = found_with(ranks, "InSource", ONE[0], MINE, step)
    place = f"step 2 ({step.kind}) on tp[0,1]: source '{source}' of rank 0 changed in {where}: from "
    assert found.startswith(f"source-changed: {place}")
    assert "; the call took the kernel path" in found


def test_memory_that_went_to_another_buffer_in_flight_is_named(ranks: World) -> None:
    flight = (
        InFlight(),
        Allocate("b1", "tp", 2),
        ReduceScatter("tp", View("b1"), 1),
        Release("b1"),
        Allocate("b2", "tp", 2, stream=1),
        ReduceScatter("tp", View("b2"), 1, stream=1),
    )
    found = findings(ranks, scenario(*flight, pool="harness.system.planted.places:AllocatesOnOneStream"))
    assert {each.rule for each in found} <= {"source-changed", "wrong-data"}
    assert found
    assert all(str(each).endswith("In flight, step 4 (allocate) gave that memory to 'b2'.") for each in found)
    assert findings(ranks, scenario(*flight)) == []


@pytest.mark.parametrize("step", [AllGather("tp", View("b"), 100, via="kernel"), IN_PLACE], ids=lambda step: step.kind)
def test_a_source_that_is_output_may_change(ranks: World, step: Collective) -> None:
    assert findings(ranks, scenario(ONE[0], step)) == []


def test_a_source_that_is_overwritten_whole_is_found(ranks: World) -> None:
    draw = ranks.run(scenario(*ONE, kernels="tests.tools.strays:WholeSource"))
    assert [event.elements for event in draw.traces[0].events if isinstance(event, SourceChanged)] == [100]


# clean draws


@pytest.mark.parametrize("via", ["library", "kernel"])
@pytest.mark.parametrize("pool", POOLS)
def test_drawn_programs_with_graphs_break_no_rule_on_memory(ranks: World, pool: str, via: Via) -> None:
    """Fifteen draws of each pool by each way. Some pools break rules of their own; a graph that writes what another
    buffer has by then is `captured-reuse` first."""
    drawn = scenarios(4, system=System(pool), via=via, graphs=True, max_steps=WITH_GRAPHS, falling=False)
    verdicts = [judge(ranks.run(scenario)) for scenario in sample(drawn, 15, seed=3)]
    own = ["captured-reuse" in {each.rule for each in findings} for findings in verdicts]
    found = [each for findings, is_own in zip(verdicts, own, strict=True) if not is_own for each in findings]
    assert not all(own)
    assert [str(each) for each in found if each.rule in RULES_ON_MEMORY] == []


# overlapping-buffers


def test_a_pool_that_hands_out_live_memory_is_found_before_what_that_breaks(ranks: World) -> None:
    steps = (Allocate("b", "tp", 256), MINE, gather("b", 0), Allocate("a", "tp", 256), gather("a", 0), gather("b", 0))
    found = findings(ranks, scenario(*steps, pool="HandsOutTwice"))
    assert (found[0].rule, found[0].step, found[0].ranks) == ("overlapping-buffers", 3, (0,))
    assert "byte 0 of 'a' is byte 512 of 'b', in segment 1 of pool '0-1'" in str(found[0])


def test_memory_that_is_handed_out_again_after_a_release_overlaps_nothing(ranks: World) -> None:
    assert findings(ranks, scenario(*ONE, Release("b"), Allocate("a", "tp", 2048), gather("a"))) == []


def test_a_step_with_a_finding_of_its_own_is_named_in_it(ranks: World) -> None:
    draw = ranks.run(scenario(*TWO, kernels="tests.tools.strays:Behind128"))
    assert first(judge(draw), "out-of-bounds").step == 2
