"""Kernel calls in graphs: their Python runs once, and a replay launches again what it launched."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from harness.oracle.judge import judge
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.schedule import Schedule
from harness.scenario.steps import (
    AllGather,
    Allocate,
    Capture,
    EndCapture,
    InFlight,
    Prepare,
    ReduceScatter,
    Release,
    Replay,
    Step,
)
from harness.scenario.system import System
from harness.strategies.programs import WITH_GRAPHS, scenarios
from harness.trace.events import Ran
from harness.world.world import World
from tests.tools.drawn import sample
from tests.tools.scenes import findings, first, rules, scenario, unsaid

KERNELS = "tests.tools.in_graphs"
RIGHT = ("triton", f"{KERNELS}:Moves", "examples.protocols:Packets", f"{KERNELS}:Returns")


@pytest.fixture(scope="module")
def pair() -> Iterator[World]:
    with World(2, "sim", deadline=5) as world:
        yield world


def call(buffer: str, is_gather: bool = True) -> AllGather | ReduceScatter:
    if is_gather:
        return AllGather("tp", View(buffer), 32, via="kernel")
    return ReduceScatter("tp", View(buffer), 32, via="kernel")


def graph(name: str, is_gather: bool = True) -> tuple[Step, ...]:
    """A graph over one call, which is warmed up."""
    warm, own = f"{name}-warm", f"{name}-own"
    return (
        *(Prepare(name), Allocate(warm, "tp", 64), call(warm, is_gather), Release(warm)),
        *(Capture(name), Allocate(own, "tp", 64), call(own, is_gather), EndCapture(name)),
    )


EAGER = (Allocate("e", "tp", 64), call("e"), call("e", False))
PLAYED = (*graph("g"), Replay("g"), *graph("h", False), Replay("h"), *EAGER, Replay("g"), call("e"), Replay("h"))
"""Two graphs on one communicator, with eager calls between their replays."""


def paths(ranks: World, played: Scenario) -> list[str]:
    return [event.path for event in ranks.run(played).traces[0].events if isinstance(event, Ran)]


@pytest.mark.parametrize("kernels", RIGHT)
def test_replays_between_eager_calls_are_exact(pair: World, kernels: str) -> None:
    played = scenario(*PLAYED, pool="deferred", kernels=kernels)
    assert findings(pair, played) == []
    assert paths(pair, played) == ["kernel"] * 7


@pytest.mark.parametrize("kernels", ["triton", f"{KERNELS}:Returns"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_replays_are_exact_by_a_schedule(pair: World, kernels: str, order: tuple[int, ...]) -> None:
    played = scenario(*PLAYED, pool="deferred", kernels=kernels)
    assert findings(pair, msgspec.structs.replace(played, schedule=Schedule(order, (5, 40)))) == []


def test_the_library_makes_captured_calls_of_a_plug_in_that_says_nothing(pair: World) -> None:
    played = scenario(*graph("g"), Replay("g"), pool="deferred", kernels="tests.tools.unusual.collectives:Direct")
    assert (findings(pair, played), paths(pair, played)) == ([], ["kernel", "symmetric"])


def test_what_all_ranks_refuse_in_a_capture_the_library_runs(pair: World) -> None:
    played = scenario(*graph("g"), Replay("g"), pool="deferred", kernels=f"{KERNELS}:Refuses")
    assert (findings(pair, played), paths(pair, played)) == ([], ["symmetric", "symmetric"])


@pytest.mark.parametrize(
    ("kernels", "rule"),
    [
        ("CopiesItsEpoch", "wrong-data"),
        ("ReturnsOneScratch", "result-overwritten"),
    ],
)
def test_a_planted_fault_is_drawn(pair: World, kernels: str, rule: str) -> None:
    system = System(collectives=f"{KERNELS}:{kernels}")
    drawn = sample(scenarios(2, system=system, graphs=True, via="kernel", max_steps=WITH_GRAPHS), 90)
    verdicts = filter(None, (judge(pair.run(each)) for each in drawn))
    assert rules(next(found for found in verdicts if "(replay)" in str(found[0]))) == [rule]


@pytest.mark.parametrize("kernels", RIGHT)
def test_right_plug_ins_are_silent_on_drawn_graphs(pair: World, kernels: str) -> None:
    drawn = sample(scenarios(2, system=System(collectives=kernels), graphs=True, max_steps=WITH_GRAPHS), 24)
    assert [found for each in drawn if (found := judge(pair.run(each)))] == []


def test_a_result_that_a_replay_of_another_graph_changes_names_both(pair: World) -> None:
    steps = *graph("g"), *graph("h"), Replay("g"), Replay("h")
    found = findings(pair, scenario(*steps, pool="deferred", kernels=f"{KERNELS}:ReturnsOneScratch"))
    said = "step 16 (replay) of step 6 (all_gather)", "as step 17 (replay) returned the same memory"
    assert rules(found) == ["result-overwritten"]
    assert any(unsaid(finding, *said) == [] for finding in found)


# in flight, where such a plug-in runs later on the simulation, too


def flight(*body: Step) -> tuple[Step, ...]:
    return *EAGER[:1], Allocate("f", "tp", 64), InFlight(), *body, InFlight(begins=False)


def test_an_error_of_a_launch_that_runs_later_is_the_plug_ins(pair: World) -> None:
    steps = flight(call("e"), call("f"))
    raised = first(findings(pair, scenario(*steps, kernels=f"{KERNELS}:ReachesOutside")), "raised")
    assert unsaid(raised, "in_graphs:ReachesOutside' raised IndexError: index_copy_(): index 64", "(in_flight)") == []


def test_a_hang_of_a_launch_that_runs_later_names_the_call(pair: World) -> None:
    steps = flight(call("e"), call("f"))
    hang = first(findings(pair, scenario(*steps, kernels=f"{KERNELS}:LeavesEarly")), "hang")
    assert unsaid(hang, "rank 1 at step 5 (in_flight) in all_gather kernel of tp[0,1]") == []


def test_a_hang_in_a_replay_names_it(pair: World) -> None:
    found = findings(pair, scenario(*graph("g"), Replay("g"), pool="deferred", kernels=f"{KERNELS}:LeavesTheSecond"))
    assert unsaid(first(found, "hang"), "rank 1 at step 8 (replay) in replay of tp[0,1]") == []
