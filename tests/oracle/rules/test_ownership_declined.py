"""Ownership where the policy declines a buffer: silent where every rank does, a fault of the policy where one does."""

from __future__ import annotations

import pytest

from harness.oracle.judge import examine
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, ReduceScatter, Step
from harness.trace.events import Placed, Ran
from harness.world.world import World
from tests.tools.scenes import SQUARE, findings, first, rules, unsaid
from tests.tools.scenes import scenario as scene

WANTED, DECLINED = 256, 257
"""Elements of a buffer that `DeclinesOddSizes` wants, and of one that it does not."""


def scenario(*steps: Step, pool: str) -> Scenario:
    return scene(*steps, pool=f"tests.tools.planted.declines:{pool}")


def gather(elements: int, **how: object) -> tuple[Step, ...]:
    return (Allocate("a", "tp", elements), AllGather("tp", View("a"), 100, **how))  # type: ignore[arg-type]


# every rank declines


@pytest.mark.parametrize("via", ["library", "kernel"])
def test_a_buffer_that_every_rank_declined_breaks_no_rule(ranks: World, via: str) -> None:
    assert findings(ranks, scenario(*gather(DECLINED, via=via), pool="DeclinesOddSizes")) == []


def test_a_declined_buffer_lies_outside_the_pools_and_the_trace_says_so(ranks: World) -> None:
    draw = ranks.run(scenario(*gather(DECLINED), *[Allocate("b", "tp", WANTED)], pool="DeclinesOddSizes"))
    for trace in draw.traces:
        placed = [event for event in trace.events if isinstance(event, Placed)]
        assert [(event.buffer, event.is_declined, event.segment == -1) for event in placed] == [
            ("a", True, True),
            ("b", False, False),
        ]
        assert [event.path for event in trace.events if isinstance(event, Ran)] == ["legacy"]


def test_a_draw_all_of_whose_buffers_were_declined_is_vacuous(ranks: World) -> None:
    vacuous = [
        examine(ranks.run(scenario(*gather(elements), pool="DeclinesOddSizes"))).is_vacuous
        for elements in (DECLINED, WANTED)
    ]
    assert vacuous == [True, False]


def test_the_claim_on_a_declined_buffer_is_slow_path(ranks: World) -> None:
    found = findings(ranks, scenario(*gather(DECLINED, claim=True), pool="DeclinesOddSizes"))
    assert rules(found) == ["slow-path"]
    said = "claims the symmetric path, which a call on memory that the pool policy declined never takes"
    assert unsaid(found[0], "step 1 (all_gather) on tp[0,1]", said, "legacy path") == []


def test_the_claim_on_a_buffer_that_was_wanted_is_silent(ranks: World) -> None:
    assert findings(ranks, scenario(*gather(WANTED, claim=True), pool="DeclinesOddSizes")) == []


def test_groups_of_a_family_may_decide_apart(ranks: World) -> None:
    """`cp` has two groups, whose ranks need different sizes."""
    steps = Allocate("a", "cp", (256, 257, 256, 257)), AllGather("cp", View("a"), 100)
    played = scene(*steps, topology=SQUARE, pool="tests.tools.planted.declines:DeclinesOddSizes")
    assert findings(ranks, played) == []


# one rank declines

ALONE = (*gather(WANTED), Allocate("b", "tp", DECLINED))
CALLS = {
    "all-gather": AllGather("tp", View("b"), 100),
    "reduce-scatter": ReduceScatter("tp", View("b"), 100),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_rank_that_declines_alone_holds_its_buffer_in_no_window(ranks: World, call: Step) -> None:
    """The pool has grown before, so that nothing is registered; the ranks then take different paths, and hang."""
    found = findings(ranks, scenario(*ALONE, call, pool="DeclinesOddSizesAlone"))
    assert rules(found) == ["unregistered", "hang"]
    assert (found[0].step, found[0].ranks) == (3, (1,))
    said = "The pool policy declined 'b' at step 2 (allocate) on rank 1 and not on rank 0 of tp[0,1]."
    assert unsaid(found[0], "'b' of rank 1 lies in ordinary memory, in a window of no communicator.", said) == []
    assert unsaid(first(found, "hang"), said) == []


def test_a_rank_that_declines_alone_leaves_its_peers_waiting_in_a_registration(ranks: World) -> None:
    found = findings(ranks, scenario(*gather(DECLINED), pool="DeclinesOddSizesAlone"))
    assert rules(found)[0] == "registration-skew"
    said = "The pool policy declined 'a' at step 0 (allocate) on rank 1 and not on rank 0 of tp[0,1]."
    assert unsaid(found[0], "rank 1 never did.", said) == []
    assert unsaid(first(found, "hang"), said) == []


def test_a_skew_for_another_reason_says_nothing_of_buffers_that_every_rank_declined(ranks: World) -> None:
    steps = Allocate("a", "tp", DECLINED), Allocate("b", "tp", WANTED)
    found = findings(ranks, scenario(*steps, pool="DeclinesOddAndRegistersAlone"))
    assert rules(found)[0] == "registration-skew"
    assert "declined" not in str(found[0])


# what is no answer


def test_a_policy_that_raises_when_it_is_asked_is_found(ranks: World) -> None:
    found = findings(ranks, scenario(*gather(WANTED), pool="RaisesWhenAsked"))
    assert rules(found) == ["raised"]
    assert (
        unsaid(found[0], "ValueError: cannot tell for 1024 bytes in wants (declines.py:", "on rank 1 at step 0") == []
    )
