"""Data: every planted kernel fault shows in the output or beside it, and a sound kernel shows nothing."""

from __future__ import annotations

import pytest
from msgspec import structs

from harness.oracle.judge import judge
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Recreate, ReduceScatter, Step, Straggle
from harness.scenario.topology import Topology
from harness.trace.draw import Fate
from harness.trace.events import Began, Changed, Differs, Event, Mismatch, Origin, Overwritten, Ran, Strayed
from harness.trace.raising import Raising
from harness.trace.trace import TEARDOWN, Trace
from harness.world.world import World
from tests.tools.scenes import PAIR, SQUARE, explicit, findings, rules, scenario

BLOCK = 1024
"""That of `tests.tools.planted.collectives`, which loads Triton without its interpreter if imported here."""


def gather(count: int, room: int = 1024) -> tuple[Step, ...]:
    """An all-gather by kernel of `count` elements into a buffer of `room`."""
    return (
        Allocate("a", "tp", room),
        Allocate("mine", "tp", max(256, count), role="plain"),
        AllGather("tp", View("a"), count, View("mine"), via="kernel"),
    )


def scatter(count: int, room: int = 256) -> tuple[Step, ...]:
    """A reduce-scatter of bfloat16 by kernel into a buffer of `room`."""
    return (
        Allocate("whole", "tp", 1024, dtype="bfloat16"),
        Allocate("part", "tp", room, dtype="bfloat16", role="plain"),
        ReduceScatter("tp", View("whole"), count, View("part"), via="kernel"),
    )


GATHER, SCATTER = gather(100), scatter(100)
LATE_AT_GATHER = (*GATHER[:2], Straggle(1, 400), GATHER[2])
LATE_AT_SCATTER = (*SCATTER[:2], Straggle(1, 400), SCATTER[2])


SOUND = [
    *((PAIR, steps) for steps in (GATHER, SCATTER, LATE_AT_GATHER, LATE_AT_SCATTER, gather(2 * BLOCK, 8 * BLOCK))),
    *((PAIR, steps) for steps in (gather(100, room=200), scatter(100, room=100))),
    *((SQUARE, steps) for steps in (GATHER, SCATTER, LATE_AT_GATHER, LATE_AT_SCATTER, gather(2 * BLOCK, 8 * BLOCK))),
]


@pytest.mark.parametrize(("topology", "steps"), SOUND)
def test_the_sound_kernels_are_silent(ranks: World, topology: Topology, steps: tuple[Step, ...]) -> None:
    assert findings(ranks, scenario(*steps, topology=topology)) == []


# wrong-data


def test_an_output_that_changed_after_its_call_is_wrong_on_that_rank(ranks: World) -> None:
    draw = ranks.run(scenario(*GATHER))
    late = [Changed("a", 3, 200, 120, "1 (0x1)", "2 (0x2)")]
    events = (more for event in draw.traces[1].events for more in (event, *(late if isinstance(event, Ran) else ())))
    (found,) = judge(structs.replace(draw, traces=(draw.traces[0], Trace(1, tuple(events)))))
    assert (found.rule, found.step, found.ranks) == ("wrong-data", 2, (1,))
    assert "output 'a' of rank 1 changed after the call had returned, in 3 of 200 elements" in str(found)
    assert "the first at index 120: from 1 (0x1) to 2 (0x2). A peer still wrote there" in str(found)


ALONE: dict[Event, str] = {
    Mismatch("a", 1, 1, 0, 1, "1 (0x1)", "2 (0x2)"): "output 'a' of rank 1 is wrong in 1 of 1 element, the first",
    Mismatch("a", 1, 1, 0, 1, "1.0 (0x3c00)", "nan (0xffff)", untouched=1): (
        "or poison was copied over it; the call took"
    ),
    Mismatch("a", 1, 1, 0, 1, "1.0 (0x3c00)", "nan (0xffff)", had_poison=False): "found nan (0xffff); the call took",
    Mismatch("a", 1, 1, 0, 1, "nan (0x7d01)", "nan (0xffff)", untouched=1): (
        "not written, or poison was copied over it, or a conversion on the way gave the NaN other bits; the call took"
    ),
    Mismatch("a", 9, 9, 0, 1, "1 (0x1)", "2 (0x2)", Origin("input", (0,), shift=-1, matched=1, wrong=9)): (
        "The first of the 9 wrong elements from there on equals what rank 0 put in, 1 element before."
    ),
    Changed("a", 1, 1, 0, "1 (0x1)", "2 (0x2)"): "changed after the call had returned, in 1 of 1 element, the first",
    Differs("a", 1, 1, 0, "0x1", "0x2"): "left different bits in 1 of 1 element of 'a' on rank 1",
    Overwritten("a", "guard", 4, 1): "1 canary element of 'a' on rank 1, behind its end",
    Overwritten("a", "replay", 4, 1): "1 element of 'a' on rank 1 changed during step 2",
}


@pytest.mark.parametrize("seen", ALONE, ids=lambda event: type(event).__name__)
def test_one_element_is_no_elements(ranks: World, seen: Event) -> None:
    draw = ranks.run(scenario(*GATHER))
    events = (more for event in draw.traces[1].events for more in (event, *([seen] if isinstance(event, Ran) else [])))
    (found,) = judge(structs.replace(draw, traces=(draw.traces[0], Trace(1, tuple(events)))))
    assert ALONE[seen] in str(found)


OF_A_PEER = Changed("a", 3, 200, 120, "1 (0x1)", "2 (0x2)"), Mismatch("a", 3, 200, 120, 1, "1 (0x1)", "2 (0x2)")
BY_ITSELF: list[tuple[Event, str]] = [
    (Overwritten("a", "guard", 4, 7), "out-of-bounds"),
    (Strayed("a", 0, "00"), "wrong-data"),
]


@pytest.mark.parametrize(
    ("seen", "more"),
    [*((event, []) for event in OF_A_PEER), *((event, [rule]) for event, rule in BY_ITSELF)],
    ids=["changed", "mismatch", "overwritten", "strayed"],
)
def test_a_peer_that_raised_excuses_wrong_data_and_no_store_out_of_bounds(
    ranks: World, seen: Event, more: list[str]
) -> None:
    draw = ranks.run(scenario(*GATHER))
    one, other = (trace.events for trace in draw.traces)
    began = next(index for index, event in enumerate(one) if isinstance(event, Began) and event.step == 2)
    traces = Trace(0, one[: began + 1]), Trace(1, (*other[: 1 + [type(e) for e in other].index(Ran)], seen))
    fates = Fate(0, "raised", raising=Raising("collectives", "ValueError", "no")), Fate(1, "stopped")
    found = judge(structs.replace(draw, traces=traces, fates=fates))
    assert sorted(rules(found)) == sorted(["raised", *more])


def test_an_all_gather_that_loses_a_rank_is_wrong_on_that_rank(ranks: World) -> None:
    found = findings(ranks, scenario(*GATHER, kernels="LosesLastPeer"))
    assert rules(found) == ["wrong-data"]
    assert (found[0].step, found[0].ranks) == (2, (1,))
    assert "step 2 (all_gather) on tp[0,1]: output 'a' of rank 1 is wrong in 200 of 200 elements" in str(found[0])
    assert "the first at index 0, in rank 0's chunk" in str(found[0])
    assert "the call took the kernel path" in str(found[0])


def test_a_reduce_scatter_that_loses_a_rank_is_wrong(ranks: World) -> None:
    found = findings(ranks, scenario(*SCATTER, kernels="LosesLastPeer"))
    assert rules(found) == ["wrong-data"]
    assert "step 2 (reduce_scatter) on tp[0,1]: output 'part' of rank 0 is wrong in" in str(found[0])
    assert "in its own chunk" in str(found[0])


def with_origin(ranks: World, origin: Origin | None, had_poison: bool = True) -> str:
    """What is said of a wrong output of rank 0 whose values come from there."""
    draw = ranks.run(scenario(*SCATTER))
    wrong = Mismatch("part", 3, 100, 1, 0, "1 (0x1)", "2 (0x2)", origin, had_poison)
    events = (more for event in draw.traces[0].events for more in (event, *([wrong] if isinstance(event, Ran) else ())))
    (found,) = judge(structs.replace(draw, traces=(Trace(0, tuple(events)), draw.traces[1])))
    return found.explanation.partition("(the kernel under test).")[2].strip()


@pytest.mark.parametrize(("found", "untouched", "is_by_chance"), [("255 (0xff)", 1, True), ("255 (0xff)", 3, False)])
def test_a_wrong_sum_of_few_bits_may_look_like_poison_by_chance(
    ranks: World, found: str, untouched: int, is_by_chance: bool
) -> None:
    draw = ranks.run(scenario(*SCATTER))
    wrong = Mismatch("part", 3, 100, 1, 0, "1 (0x01)", found, untouched=untouched)
    events = (more for event in draw.traces[0].events for more in (event, *([wrong] if isinstance(event, Ran) else [])))
    (said,) = judge(structs.replace(draw, traces=(Trace(0, tuple(events)), draw.traces[1])))
    assert "before the call: it was not written, or poison was taken for an input" in str(said)
    assert (", or the wrong result has these bits by chance" in str(said)) is is_by_chance


def test_zeros_where_no_poison_was_are_zeros_and_no_more(ranks: World) -> None:
    assert with_origin(ranks, Origin("zeros", matched=1, wrong=1), had_poison=False) == "That element is zero."


SAID = {
    None: "",
    Origin("zeros", (1,), 0, matched=1, wrong=1): (
        "That element is zero, and zeros were written there; rank 1 had put in zero there at step 0 (allocate)."
    ),
    Origin("zeros", matched=1, wrong=1): "That element is zero, and zeros were written there.",
    Origin("zeros", matched=2, wrong=3): (
        "The first 2 of the 3 wrong elements from there on are zero, and zeros were written there."
    ),
    Origin("input", (1,), matched=3, wrong=3): "The 3 wrong elements from there on equal what rank 1 put in.",
    Origin("input", (1,), 0, -2, 3, 3): (
        "The 3 wrong elements from there on equal what rank 1 had put in at step 0 (allocate), 2 elements before."
    ),
    Origin("result", (1,), -1, 50, 3, 3): (
        "The 3 wrong elements from there on equal the result for rank 1, 50 elements further on."
    ),
    Origin("without", (0, 1), matched=3, wrong=3): (
        "The 3 wrong elements from there on equal the sum without ranks 0, 1."
    ),
    Origin("twice", (1,), matched=3, wrong=3): (
        "The 3 wrong elements from there on equal the sum with rank 1 counted twice."
    ),
    Origin("mixed", (1,), 0, matched=3, wrong=3): (
        "The 3 wrong elements from there on equal the sum with what rank 1 had put in at step 0 (allocate)."
    ),
    Origin(
        "mixed", (1,), 2, matched=1, wrong=1
    ): "That element equals the sum with what rank 1 later puts in at the end.",
}


@pytest.mark.parametrize("origin", SAID)
def test_a_wrong_output_says_where_its_values_come_from(ranks: World, origin: Origin | None) -> None:
    if origin is not None and origin.step == 2:
        origin = structs.replace(origin, step=TEARDOWN)
        assert with_origin(ranks, origin) == SAID[structs.replace(origin, step=2)]
    else:
        assert with_origin(ranks, origin) == SAID[origin]


def test_a_sum_that_lacks_a_rank_says_which(ranks: World) -> None:
    found = findings(ranks, scenario(*SCATTER, topology=SQUARE, kernels="LosesLastPeer"))
    assert "wrong elements from there on equal the sum without rank 3." in str(found[0])


def test_a_source_that_a_peer_filled_again_says_at_which_step(ranks: World) -> None:
    found = findings(ranks, scenario(*SCATTER, SCATTER[2], kernels="NoLastBarrier"))
    assert "equal the sum with what rank 0 later puts in at step 3 (reduce_scatter)." in str(found[0])


@pytest.mark.parametrize("steps", [GATHER, SCATTER])
def test_a_tail_that_is_missed_is_wrong_at_its_index(ranks: World, steps: tuple[Step, ...]) -> None:
    found = findings(ranks, scenario(*steps, kernels="MissesTail"))
    assert rules(found) == ["wrong-data"]
    assert "the first at index 99, " in str(found[0])


def test_a_count_of_whole_blocks_has_no_tail_to_miss(ranks: World) -> None:
    assert findings(ranks, scenario(*gather(2 * BLOCK, 8 * BLOCK), kernels="MissesTail")) == []


def test_an_all_gather_that_does_not_wait_for_a_late_rank_is_wrong_on_it(ranks: World) -> None:
    """Rank 0 has written before rank 1 prepares its output."""
    found = findings(ranks, scenario(*LATE_AT_GATHER, kernels="NoFirstBarrier"))
    assert rules(found) == ["wrong-data"]
    assert found[0].ranks == (1,)
    assert "the first at index 0, in rank 0's chunk" in str(found[0])


def test_a_reduce_scatter_that_does_not_wait_for_a_late_rank_is_wrong_on_its_peer(ranks: World) -> None:
    """Rank 0 has read before rank 1 fills its source."""
    found = findings(ranks, scenario(*LATE_AT_SCATTER, kernels="NoFirstBarrier"))
    assert rules(found) == ["wrong-data"]
    assert found[0].ranks == (0,)


def test_an_all_gather_that_returns_before_a_late_rank_wrote_is_wrong_on_its_peer(ranks: World) -> None:
    """Rank 1 is late between the barrier and its stores; rank 0 no longer waits for them."""
    found = findings(ranks, scenario(*GATHER, kernels="NoLastBarrier"))
    assert rules(found) == ["wrong-data"]
    assert found[0].ranks == (0,)
    assert "the first at index 100, in rank 1's chunk" in str(found[0])


def test_an_all_gather_that_waits_for_late_stores_is_silent(ranks: World) -> None:
    assert findings(ranks, scenario(*GATHER, kernels="Dawdles")) == []


def test_a_source_filled_again_before_a_late_rank_read_it_is_wrong_on_that_rank(ranks: World) -> None:
    """Rank 1 is late between the barrier and its loads; rank 0 no longer waits for them."""
    found = findings(ranks, scenario(*SCATTER, SCATTER[2], kernels="NoLastBarrier"))
    assert rules(found) == ["wrong-data"]
    assert (found[0].step, found[0].ranks) == (2, (1,))


def test_a_source_filled_again_after_a_late_rank_read_it_is_silent(ranks: World) -> None:
    assert findings(ranks, scenario(*SCATTER, SCATTER[2], kernels="Dawdles")) == []


def averaged(dtype: str, kernels: str) -> Scenario:
    """Averages of three ranks in this type."""
    whole = Allocate("a", "tp", 3 * 64, dtype=dtype)  # type: ignore[arg-type]
    calls = (ReduceScatter("tp", View("a"), 64, op="avg", via="kernel") for _ in range(2))
    return scenario(whole, *calls, topology=explicit(tp=((0, 1, 2),)), kernels=kernels)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_an_average_of_three_that_is_rounded_as_a_sum_first_is_wrong(ranks: World, dtype: str) -> None:
    assert rules(findings(ranks, averaged(dtype, "tests.tools.planted.collectives:RoundsTheSum"))) == ["wrong-data"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("kernels", ["SoundKernels", "triton"])
def test_an_average_of_three_that_is_rounded_once_is_right(ranks: World, dtype: str, kernels: str) -> None:
    assert findings(ranks, averaged(dtype, kernels)) == []


def test_partial_sums_in_bfloat16_are_wrong(ranks: World) -> None:
    found = findings(ranks, scenario(*SCATTER, topology=SQUARE, kernels="AddsInBfloat16"))
    assert rules(found) == ["wrong-data"]
    assert "on tp[0,1,2,3]: output 'part' of rank 0 is wrong in" in str(found[0])


# out-of-bounds


@pytest.mark.parametrize("steps", [gather(100, room=512), scatter(100, room=256)])
def test_stores_past_an_output_view_are_found_beside_it(ranks: World, steps: tuple[Step, ...]) -> None:
    found = findings(ranks, scenario(*steps, kernels="Overruns"))
    assert rules(found) == ["out-of-bounds"]
    assert found[0].step == 2
    assert "bytes changed that the call may not write, the first at byte " in str(found[0])
    assert "right behind the end of the output: from 0x" in str(found[0])


@pytest.mark.parametrize("steps", [gather(100, room=200), scatter(100, room=100)])
def test_stores_past_a_buffers_end_are_found_behind_it(ranks: World, steps: tuple[Step, ...]) -> None:
    found = findings(ranks, scenario(*steps, kernels="Overruns"))
    assert rules(found) == ["out-of-bounds"]
    assert "bytes changed that the call may not write, the first right behind the end of " in str(found[0])


def test_stores_past_a_buffers_end_are_found_once(ranks: World) -> None:
    """A canary that changed at step 2 did not change again at the steps that follow."""
    steps = (*gather(100, room=200), Allocate("b", "tp", 256), AllGather("tp", View("b"), 100))
    assert [finding.step for finding in findings(ranks, scenario(*steps, kernels="Overruns"))] == [2]


# out-of-bounds: signal pads

ON_PADS = (*GATHER, GATHER[2], *SCATTER)


def test_stores_past_a_signal_pad_are_found_on_its_owner_at_their_step(ranks: World) -> None:
    found = findings(ranks, scenario(*ON_PADS[:4], kernels="WritesBesidePads"))
    assert [(each.rule, each.step) for each in found] == [("out-of-bounds", 2), ("out-of-bounds", 3)]
    said = (
        "2 words beside rank 0's signal pad of tp[0,1] had changed by step 2 (all_gather), the first at word 2, which "
        "held 0x7070707. The pad has words 0 to 1, one for each rank of its group."
    )
    assert found[0].explanation == said


@pytest.mark.parametrize("kernels", ["OwnBarrier", "OwnCount"])
@pytest.mark.parametrize("topology", [PAIR, SQUARE])
def test_kernels_that_signal_on_their_pads_are_silent(ranks: World, kernels: str, topology: Topology) -> None:
    after = Allocate("d", "tp", 1024), AllGather("tp", View("d"), 100, View("mine"), via="kernel")
    steps = (*ON_PADS, Recreate("tp"), *after)
    assert findings(ranks, scenario(*steps, kernels=kernels, topology=topology)) == []


def test_a_hang_after_stores_beside_a_pad_names_the_pad(ranks: World) -> None:
    found = findings(ranks, scenario(*GATHER, kernels="WritesBesidePadsAndLeaves"))
    # a rank that leaves early may look at its output before its peer has written there
    assert [rule for rule in rules(found) if rule != "wrong-data"] == ["out-of-bounds", "hang"]
    assert "1 word beside rank 0's signal pad of tp[0,1] had changed by step 2 (all_gather)" in str(found[0])
    assert "the first at word -1, which held 0x7070707" in str(found[0])
    assert "Something wrote over or beside the signal pad of tp[0,1] on rank " in str(found[-1])
    assert str(found[-1]).endswith("before, so signals may be lost.")


def test_a_signal_that_was_written_over_is_found_where_ranks_wait_for_it(ranks: World) -> None:
    draw = ranks.run(scenario(*GATHER, kernels="LosesASignal"), hurried=True)
    found = judge(draw)
    assert rules(found) == ["out-of-bounds", "hang"]
    lost = "word 0 of rank 1's pad of the barrier of tp[0,1] had changed by step 2 (all_gather): rank 0 had signalled"
    assert f"{lost} there, and it holds 0x0" in str(found[0])
    assert "the pad of the barrier of tp[0,1] on rank 1 before, so signals may be lost." in str(found[-1])


def test_a_hang_without_a_store_beside_a_pad_says_nothing_of_pads(ranks: World) -> None:
    (found,) = findings(ranks, scenario(*SCATTER, kernels="LeavesEarly"))
    assert found.rule == "hang"
    assert "signals" not in str(found)
