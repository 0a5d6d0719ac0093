"""Draws by a schedule: a function of the scenario, and without one nothing of the interpreter is replaced."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec
import pytest

from harness.oracle.findings import Finding
from harness.oracle.judge import judge
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.schedule import Schedule
from harness.scenario.steps import AllGather, Allocate, InFlight, Step, Straggle
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.trace.accesses import ORDERING
from harness.trace.draw import Draw
from harness.world.world import World
from tests.tools.draws import PAIR, QUAD, REFUSED, SOUND, states

KERNELS, ORDER = "harness.system.planted.kernels", "harness.system.planted.order"
GATHER = (Allocate("a", "tp", 256), AllGather("tp", View("a"), 100, via="kernel"))
TURNS = [Schedule((0, 1)), Schedule((1, 0)), Schedule((1, 0), (2, 11, 40))]


@pytest.fixture(scope="module")
def ranks() -> Iterator[World]:
    with World(4, "sim") as world:
        yield world


def played(*steps: Step, kernels: str = "triton", topology: Topology = PAIR, schedule: Schedule = TURNS[0]) -> Scenario:
    return Scenario(topology, steps or SOUND, System("per-group", kernels), schedule=schedule)


def seen(draw: Draw) -> list[str]:
    return [str(trace.events) for trace in draw.traces]


def rules(draw: Draw) -> list[str]:
    return [finding.rule for finding in judge(draw)]


@pytest.mark.parametrize(
    ("kernels", "rule"),
    [
        (f"{KERNELS}:NoFirstBarrier", "race"),
        (f"{ORDER}:NoLastBarrier", "race"),
        (f"{ORDER}:SharesFlags", "race"),
        (f"{ORDER}:RelaxedSignals", "race"),
    ],
)
def test_a_race_comes_again_in_a_hundred_runs_of_a_hundred(ranks: World, kernels: str, rule: str) -> None:
    scenario = played(*GATHER, kernels=kernels)
    first = ranks.run(scenario)
    assert rules(first)[0] == rule
    assert all(seen(ranks.run(scenario)) == seen(first) for _ in range(100))


@pytest.mark.parametrize("kernels", [f"{KERNELS}:OneSlotBarrier", f"{ORDER}:OneParitySlot"])
def test_a_hang_of_a_race_comes_again_on_new_ranks(ranks: World, kernels: str) -> None:
    for _ in range(10):
        draw = ranks.run(played(*GATHER, kernels=kernels))
        assert (rules(draw), states(draw)) == (["hang"], ["hung", "hung"])


def test_a_hang_in_kernels_is_decided_long_before_the_deadline(ranks: World) -> None:
    began = time.monotonic()
    draw = ranks.run(played(*GATHER, kernels=f"{KERNELS}:OneSlotBarrier"))
    assert rules(draw) == ["hang"]
    assert time.monotonic() - began < ranks.deadline / 4


@pytest.mark.parametrize("schedule", TURNS)
def test_the_same_schedule_gives_the_same_trace(ranks: World, schedule: Schedule) -> None:
    scenario = played(schedule=schedule)
    first = ranks.run(scenario)
    assert rules(first) == []
    assert all(seen(ranks.run(scenario)) == seen(first) for _ in range(5))


def test_another_schedule_gives_another_trace(ranks: World) -> None:
    assert len({str(seen(ranks.run(played(schedule=schedule)))) for schedule in TURNS}) == len(TURNS)


def test_four_ranks_in_groups_that_overlap_are_silent(ranks: World) -> None:
    wide, narrow = (AllGather(family, View("a"), 50, via="kernel") for family in ("tp", "attn_cp"))
    steps = (GATHER[0], wide, Allocate("b", "attn_cp", 256), msgspec.structs.replace(narrow, output=View("b")), wide)
    scenario = played(*steps, topology=QUAD, schedule=Schedule((2, 0, 3, 1), (4, 30)))
    assert rules(ranks.run(scenario)) == []


def test_calls_in_flight_are_silent(ranks: World) -> None:
    flight = (InFlight(begins=True), GATHER[1], AllGather("tp", View("a"), 50), GATHER[1], InFlight(begins=False))
    for schedule in TURNS:
        assert rules(ranks.run(played(GATHER[0], *flight, schedule=schedule))) == []


def test_a_deadlock_on_the_host_is_the_hang_that_it_is_without_a_schedule(ranks: World) -> None:
    by_schedule = ranks.run(Scenario(PAIR, REFUSED, System("per-group"), schedule=TURNS[0]))
    without = ranks.run(Scenario(PAIR, REFUSED, System("per-group")))
    assert rules(by_schedule) == rules(without)
    assert isinstance(judge(by_schedule)[0], Finding)


def test_a_rank_that_raises_lets_the_others_go_on(ranks: World) -> None:
    steps = (*GATHER, Allocate("b", "tp", 256))
    scenario = Scenario(PAIR, steps, System("tests.tools.planted.raises:Raises"), schedule=TURNS[0])
    assert "raised" in rules(ranks.run(scenario))


def test_a_rank_that_dies_ends_the_draw(ranks: World) -> None:
    steps = (*GATHER, Allocate("b", "tp", 256))
    scenario = Scenario(PAIR, steps, System("tests.tools.planted:Dies"), schedule=TURNS[0])
    assert "rank-crash" in rules(ranks.run(scenario))


def test_a_pause_changes_nothing_by_a_schedule(ranks: World) -> None:
    scenario = played(GATHER[0], Straggle(1, 30), GATHER[1])
    first = ranks.run(scenario)
    assert seen(ranks.run(scenario)) == seen(first)


def test_without_a_schedule_no_rank_is_watched(ranks: World) -> None:
    ranks.run(played(*GATHER))
    draw = ranks.run(msgspec.structs.replace(played(*GATHER), schedule=msgspec.UNSET))
    assert not any(isinstance(event, ORDERING) for trace in draw.traces for event in trace.events)
    assert ranks.call("tests.tools.hooked:hooks") == [[]] * ranks.size
