"""Why a draw tested nothing: each reason, by a draw that has it, and none where something was tested."""

from __future__ import annotations

import msgspec
import pytest

from harness.oracle.case import Case
from harness.oracle.coverage.vacuity import ADVICE, reason
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate
from harness.trace.events import Called, Ran, Skipped
from harness.world.world import World
from tests.tools.scenes import APART, explicit, scenario

WINDOW = Allocate("a", "tp", 256)
CALL = AllGather("tp", View("a"), 100)
ALONE = explicit(tp=((0,), (1,)))

DRAWN: dict[str, Scenario] = {
    "": scenario(WINDOW, CALL),
    "not owned": scenario(WINDOW, CALL, pool="NeverRegisters"),
    "declined": scenario(Allocate("a", "tp", 257), CALL, pool="tests.tools.planted.declines:DeclinesOddSizes"),
    "no windows": scenario(WINDOW, CALL, topology=APART),
    "plain memory": scenario(Allocate("a", "tp", 256, role="plain"), CALL),
    "uneven calls": scenario(WINDOW, AllGather("tp", View("a"), (100, 50))),
    "groups of one rank": scenario(WINDOW, CALL, topology=ALONE),
    "no collective": scenario(WINDOW),
    "equal by mistake": scenario(WINDOW, CALL, Allocate("u", "tp", (64, 64))),
}


@pytest.mark.parametrize("why", DRAWN)
def test_a_draw_that_tested_nothing_says_why(ranks: World, why: str) -> None:
    assert reason(Case(ranks.run(DRAWN[why]))) == why


def test_a_call_that_did_not_return_on_every_rank_is_one_that_did_not_return(ranks: World) -> None:
    draw = ranks.run(scenario(WINDOW, CALL))
    events = tuple(event for event in draw.traces[1].events if not isinstance(event, Ran))
    traces = draw.traces[0], msgspec.structs.replace(draw.traces[1], events=events)
    assert reason(Case(msgspec.structs.replace(draw, traces=traces))) == "not returned"


def test_calls_that_were_skipped_for_want_of_memory_say_so(ranks: World) -> None:
    draw = ranks.run(scenario(WINDOW, CALL))
    traces = tuple(
        msgspec.structs.replace(
            trace,
            events=tuple(
                Skipped("a") if isinstance(event, Called) else event
                for event in trace.events
                if not isinstance(event, Ran)
            ),
        )
        for trace in draw.traces
    )
    assert reason(Case(msgspec.structs.replace(draw, traces=traces))) == "no memory"


def test_the_call_that_came_nearest_to_testing_gives_the_reason(ranks: World) -> None:
    plain = Allocate("p", "tp", 256, role="plain")
    both = scenario(WINDOW, plain, AllGather("tp", View("p"), 100), CALL, pool="NeverRegisters")
    assert reason(Case(ranks.run(both))) == "not owned"


def test_one_call_that_tested_something_is_enough(ranks: World) -> None:
    plain = Allocate("p", "tp", 256, role="plain")
    assert reason(Case(ranks.run(scenario(WINDOW, plain, AllGather("tp", View("p"), 100), CALL)))) == ""


def test_every_reason_says_what_to_change() -> None:
    assert all(advice.count(";") == 1 or "; see" in advice for advice in ADVICE.values())
