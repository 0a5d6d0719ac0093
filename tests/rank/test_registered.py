"""Memory whose windows the program says: what is registered is what the step has, and a draw leaves nothing of it."""

from __future__ import annotations

import pytest

from harness.oracle.judge import judge
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Recreate, Release, Step, Trim
from harness.scenario.topology import Topology
from harness.trace.events import Leaked, Registered
from harness.world.world import World

PAIRS = ((0, 1), (2, 3))
FOUR = Topology("four", "explicit", families_given={"tp": PAIRS, "ep": PAIRS, "all": ((0, 1, 2, 3),)}, shares={})
GATHER = AllGather("tp", View("b"), 8)


def told(*names: str, **fields: object) -> Allocate:
    return Allocate("b", "all", 64, registered=(names,), **fields)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def world() -> World:
    with World(4, "sim") as world:
        yield world  # type: ignore[misc]


@pytest.mark.parametrize(
    ("steps", "rules"),
    [
        ((told("tp"), GATHER), []),
        ((told("ep", "tp"), GATHER), []),
        ((told("ep"), GATHER), ["wrong-owner"]),
        ((told(), GATHER), ["unregistered"]),
        ((told("tp", "tp"),), ["double-registration"]),
        ((told("tp", lead=(0, 64, 0, 64)), GATHER), ["offset-mismatch", "out-of-bounds", "wrong-data"]),
        ((told("tp"), Recreate("tp"), GATHER), ["stale-window"]),
        ((told("tp"), Release("b"), Trim()), ["freed-while-registered", "leak"]),
    ],
)
def test_a_program_has_the_windows_that_it_says(world: World, steps: tuple[Step, ...], rules: list[str]) -> None:
    findings = judge(world.run(Scenario(FOUR, steps)))
    assert sorted({finding.rule for finding in findings}) == sorted(rules)


def test_ranks_may_differ_in_what_they_register(world: World) -> None:
    lists = (("tp",), (), ("tp",), ("tp",))
    draw = world.run(Scenario(FOUR, (Allocate("b", "all", 64, registered=lists),)), hurried=True)
    made = [sum(isinstance(event, Registered) for event in trace.events) for trace in draw.traces]
    assert made[1] == 0
    assert [finding.rule for finding in judge(draw)] == ["registration-skew", "hang"]


def test_a_draw_leaves_no_window_and_no_segment(world: World) -> None:
    draw = world.run(Scenario(FOUR, (told("tp", "ep", "all"),)))
    assert not [event for trace in draw.traces for event in trace.events if isinstance(event, Leaked)]
