"""Results that do not stay: the finding names the call that lost its result, and the one that took it if that is
known."""

from __future__ import annotations

import pytest
from msgspec import structs

from harness.oracle.findings import Finding
from harness.oracle.judge import judge
from harness.scenario.operands import View
from harness.scenario.steps import (
    AllGather,
    Allocate,
    Capture,
    EndCapture,
    Prepare,
    Recreate,
    ReduceScatter,
    Release,
    Replay,
    Step,
    Trim,
)
from harness.trace.damage import Lost
from harness.trace.events import Called, Mismatch, Ran
from harness.trace.trace import Trace
from harness.world.world import World
from tests.tools.scenes import findings, rules, scenario

RESULTS = "harness.system.planted.results"
A, B, C = (Allocate(name, "tp", 256) for name in "abc")
MINE = Allocate("mine", "tp", 256, role="plain")


def gather(buffer: str, source: View | None = None) -> AllGather:
    return AllGather("tp", View(buffer), 100, source, via="kernel")


def scatter(buffer: str, output: View | None = None) -> ReduceScatter:
    return ReduceScatter("tp", View(buffer), 100, output, via="kernel")


def found(ranks: World, kernels: str, *steps: Step) -> list[Finding]:
    return findings(ranks, scenario(*steps, kernels=kernels))


def lost(ranks: World, kernels: str, *steps: Step) -> list[str]:
    return [str(each) for each in found(ranks, kernels, *steps) if each.rule == "result-overwritten"]


# a result in a buffer


def test_a_write_that_lags_behind_its_call_is_found_with_both_calls(ranks: World) -> None:
    first, *_ = found(ranks, f"{RESULTS}:ClearsLate", A, B, gather("a"), gather("b"))
    assert (first.rule, first.step, first.ranks) == ("result-overwritten", 3, (0,))
    text = str(first)
    assert "step 2 (all_gather) on tp[0,1]: output 'a' on rank 0 was lost: 97 of 200 elements changed" in text
    assert "the first at index 100: from " in text
    assert text.endswith("while step 3 (all_gather) on tp[0,1] ran, which has no operand there.")


@pytest.mark.parametrize(("kernels", "rank"), [("InEarlierOutput", 0), ("InPeersEarlierOutput", 1)])
def test_a_store_into_an_earlier_result_is_found_on_the_rank_that_lost_it(
    ranks: World, kernels: str, rank: int
) -> None:
    (text,) = lost(ranks, f"tests.tools.strays:{kernels}", A, B, gather("a"), gather("b"))
    assert f"output 'a' on rank {rank} was lost: 1 of 200 elements changed" in text


def test_a_store_into_an_earlier_source_is_found(ranks: World) -> None:
    draw = ranks.run(scenario(A, B, MINE, gather("a", View("mine")), gather("b")))
    (called, _) = (event for event in draw.traces[0].events if isinstance(event, Called))
    event = Lost("mine", 1, 100, 2, "1", "2", 3, "source", 3, "call", called.source.address + 8)
    (finding,) = judge(with_event(draw, 4, event))
    assert str(finding).startswith(
        "result-overwritten: step 3 (all_gather) on tp[0,1]: source 'mine' on rank 0 was lost: 1 of 100 elements "
        "changed after that call, the first at index 2: from 1 to 2, while step 4 (all_gather) on tp[0,1] ran"
    )


def with_event(draw, step: int, *more):  # type: ignore[no-untyped-def]
    """The draw, with more events of rank 0 behind the call of a step."""
    events = list(draw.traces[0].events)
    place = next(index for index, (at, event) in enumerate(draw.traces[0].steps()) if at == step and type(event) is Ran)
    events[place + 1 : place + 1] = more
    return structs.replace(draw, traces=(Trace(0, tuple(events)), *draw.traces[1:]))


TIMES = {
    "between": "between step 2 (all_gather) and step 5 (all_gather), and the program wrote nothing there; in between "
    "ran step 3 (all_gather) on tp[0,1], step 4 (all_gather) on tp[0,1].",
    "by": "in between ran step 3 (all_gather) on tp[0,1], step 4 (all_gather) on tp[0,1], step 5 (all_gather) on "
    "tp[0,1].",
}


@pytest.mark.parametrize("when", TIMES)
def test_a_loss_that_was_seen_late_names_the_calls_since_the_last_look(ranks: World, when: str) -> None:
    """As on GPUs, where no look is taken around every call."""
    draw = ranks.run(scenario(A, B, gather("a"), gather("b"), gather("b"), gather("b")))
    address = next(event.output.address for event in draw.traces[0].events if isinstance(event, Called))
    event = Lost("a", 1, 200, 0, "1", "2", 2, "output", 2, when, address)  # type: ignore[arg-type]
    (finding,) = judge(with_event(draw, 5, event))
    assert TIMES[when] in str(finding)


@pytest.mark.parametrize(("wrong", "broken"), [(False, ["result-overwritten"]), (True, ["wrong-data"])])
def test_a_loss_in_the_output_of_a_later_call_that_was_wrong_is_that_calls(
    ranks: World, wrong: bool, broken: list[str]
) -> None:
    """A peer that does not wait writes there before this rank comes."""
    draw = ranks.run(scenario(A, gather("a"), gather("a")))
    address = next(event.output.address for event in draw.traces[0].events if isinstance(event, Called))
    event = Lost("a", 1, 200, 0, "1", "2", 1, "output", 1, "between", address)
    mismatch = [Mismatch("a", 1, 200, 0, 0, "1 (0x1)", "2 (0x2)")] * wrong
    assert rules(judge(with_event(draw, 2, event, *mismatch))) == broken


# a result that was returned


def test_a_scratch_that_is_returned_twice_is_found_with_both_calls(ranks: World) -> None:
    first, *_ = found(ranks, f"{RESULTS}:ReturnsItsScratch", A, B, scatter("a"), gather("b"))
    assert (first.rule, first.step, first.ranks) == ("result-overwritten", 3, (0,))
    text = str(first)
    assert "step 2 (reduce_scatter) on tp[0,1]: the tensor that the plug-in returned on rank 0 was lost: 100" in text
    assert text.endswith("as step 3 (all_gather) on tp[0,1] returned the same memory.")


def test_a_scratch_that_is_returned_once_breaks_nothing(ranks: World) -> None:
    assert found(ranks, f"{RESULTS}:ReturnsItsScratch", A, scatter("a"), Release("a")) == []


# what the program does itself

TWO = (A, B, gather("a"), scatter("b", View("a", 20)))
GRAPH = (
    *(Prepare("g"), C, AllGather("tp", View("c"), 100), Capture("g"), AllGather("tp", View("c"), 100)),
    *(ReduceScatter("tp", View("c"), 50), EndCapture("g"), Replay("g"), Replay("g")),
    *(AllGather("tp", View("c"), 70), Replay("g"), Release("c")),
)


@pytest.mark.parametrize("kernels", ["SoundKernels", f"{RESULTS}:SoundResults"])
@pytest.mark.parametrize(
    "steps",
    [
        (*TWO, gather("a"), gather("a"), scatter("a"), scatter("a"), gather("b", View("a", 50))),
        (*TWO, Release("a"), C, gather("c"), Trim(), scatter("b")),
        (*TWO, Recreate("tp"), C, gather("c"), Release("a"), Release("b"), Trim()),
        (*TWO, *GRAPH, gather("a")),
    ],
    ids=["the same buffers", "released", "re-created", "replayed"],
)
def test_what_the_program_writes_itself_is_no_loss(ranks: World, kernels: str, steps: tuple[Step, ...]) -> None:
    assert found(ranks, kernels, *steps) == []
