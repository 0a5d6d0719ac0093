"""Collectives that read the sources of their peers: these lie in windows, and are judged as owned or not."""

from __future__ import annotations

import pytest

from harness.oracle.judge import judge
from harness.scenario.operands import View
from harness.scenario.steps import AllGather, Allocate, Broadcast, Collective, Release, Step
from harness.scenario.system import System
from harness.strategies.batches import sample
from harness.strategies.programs import scenarios
from harness.strategies.schedules import scheduled
from harness.trace.events import Ran
from harness.world.world import World
from tests.tools.scenes import PAIR, TURNED, findings, first, rules, scenario, unsaid

PULLS, PUSHES = (f"tests.tools.unusual.collectives:{name}" for name in ("PullsSources", "Direct"))
GATHER = AllGather("tp", View("a"), 32, View("s", 3), via="kernel")


def gathered(family: str, role: str = "window") -> tuple[Step, ...]:
    """A gather on tp, whose source is a buffer of a family."""
    source = Allocate("s", family, 64, role=role)  # type: ignore[arg-type]
    return Allocate("a", "tp", 64), source, GATHER, Release("s"), Release("a")


def paths(ranks: World, *steps: Step) -> set[str]:
    draw = ranks.run(scenario(*steps, kernels=PULLS))
    return {event.path for trace in draw.traces for event in trace.events if isinstance(event, Ran)}


def test_a_source_in_a_window_of_the_group_is_read_by_its_peers(ranks: World) -> None:
    assert findings(ranks, scenario(*gathered("tp"), kernels=PULLS)) == []
    assert paths(ranks, *gathered("tp")) == {"kernel"}


ALONE = {
    "a broadcast": Broadcast("tp", View("a"), 32, source=View("s", 3), via="kernel"),
    "a gather of one rank's elements": AllGather("tp", View("a"), (32, 0), View("s", 3), via="kernel"),
}


def moved(call: Collective, family: str, role: str = "window") -> tuple[Step, ...]:
    allocations = Allocate("a", "tp", 64), Allocate("s", family, 64, role=role)  # type: ignore[arg-type]
    return *allocations, call, Release("s"), Release("a")


@pytest.mark.parametrize("call", ALONE.values(), ids=ALONE)
def test_a_rank_without_elements_reads_the_sources_of_its_peers(ranks: World, call: Collective) -> None:
    assert findings(ranks, scenario(*moved(call, "tp"), kernels=PULLS)) == []
    assert paths(ranks, *moved(call, "tp")) == {"kernel"}


@pytest.mark.parametrize("call", ALONE.values(), ids=ALONE)
def test_a_source_that_one_rank_has_is_judged_on_all(ranks: World, call: Collective) -> None:
    found = findings(ranks, scenario(*moved(call, "cp"), topology=TURNED, kernels=PULLS))
    assert rules(found) == ["wrong-owner"]
    assert unsaid(first(found, "wrong-owner"), "source 's'", "cp[1,0]") == []
    assert {each.ranks for each in found} == {(0, 1)}


@pytest.mark.parametrize("call", ALONE.values(), ids=ALONE)
def test_such_a_source_in_ordinary_memory_is_left_to_the_library_by_all(ranks: World, call: Collective) -> None:
    assert findings(ranks, scenario(*moved(call, "tp", "plain"), kernels=PULLS)) == []
    assert "kernel" not in paths(ranks, *moved(call, "tp", "plain"))


def test_a_broadcast_in_place_is_read_from_the_output_of_its_root(ranks: World) -> None:
    in_place = Allocate("a", "tp", 64), Broadcast("tp", View("a"), 32, root=1, via="kernel")
    assert findings(ranks, scenario(*in_place, kernels=PULLS)) == []
    assert paths(ranks, *in_place) == {"kernel"}


def test_a_call_without_elements_is_left_to_the_library(ranks: World) -> None:
    assert "kernel" not in paths(ranks, *moved(Broadcast("tp", View("a"), 0, source=View("s", 3), via="kernel"), "tp"))


def test_in_place_the_sources_are_chunks_of_the_outputs(ranks: World) -> None:
    in_place = Allocate("a", "tp", 64), AllGather("tp", View("a"), 32, via="kernel")
    assert findings(ranks, scenario(*in_place, kernels=PULLS)) == []
    assert paths(ranks, *in_place) == {"kernel"}


def test_a_source_in_a_window_of_another_group_breaks_wrong_owner(ranks: World) -> None:
    found = findings(ranks, scenario(*gathered("cp"), topology=TURNED, kernels=PULLS))
    assert rules(found) == ["wrong-owner"]
    assert unsaid(first(found, "wrong-owner"), "source 's'", "cp[1,0]") == []


def test_the_same_source_is_nothing_to_a_plug_in_that_does_not_pull(ranks: World) -> None:
    assert findings(ranks, scenario(*gathered("cp"), topology=TURNED, kernels=PUSHES)) == []


def test_a_source_in_ordinary_memory_is_left_to_the_library(ranks: World) -> None:
    assert findings(ranks, scenario(*gathered("tp", "plain"), topology=PAIR, kernels=PULLS)) == []
    assert paths(ranks, *gathered("tp", "plain")) == {"symmetric"}


def test_sources_are_drawn_in_windows() -> None:
    drawn = sample(scenarios(4, via="kernel", pulls=True), 40)
    roles = [
        next(each.role for each in played.steps if isinstance(each, Allocate) and each.buffer == step.source.buffer)
        for played in drawn
        for step in played.steps
        if isinstance(step, AllGather | Broadcast) and step.source is not None and step.via == "kernel"
    ]
    assert len(roles) > 10
    assert {*roles} == {"window"}


@pytest.mark.parametrize("is_scheduled", [False, True])
def test_a_right_gather_is_silent_in_draws(ranks: World, is_scheduled: bool) -> None:
    drawn = scenarios(4, system=System(collectives=PULLS), via="kernel", pulls=True)
    played = sample(scheduled(drawn) if is_scheduled else drawn, 12)
    assert [found for each in played if (found := judge(ranks.run(each)))] == []


def test_a_pool_that_registers_no_sources_is_found(ranks: World) -> None:
    system = System("harness.system.planted.pools:OutsideThePool", PULLS)
    drawn = sample(scenarios(4, system=system, via="kernel", pulls=True, falling=False), 40)
    found = (each for played in drawn for each in judge(ranks.run(played)))
    assert any(each.rule == "unregistered" and ": source '" in str(each) for each in found)
