"""Evidence from real NCCL: every kind tells the symmetric path from the legacy one, and finds what it is for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import judge
from harness.oracle.case import Case
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Ballast, ReduceScatter
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.strategies.batches import sample
from harness.strategies.placements import on_nodes
from harness.strategies.programs import scenarios
from harness.trace.draw import Draw
from harness.trace.events import Differs, Ran, Strayed
from harness.world.world import World

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(280)]

TP2 = Topology("tp2", "sglang", {"tp": 2})
TP4_DPA2 = Topology("tp4-dpa2", "sglang", {"tp": 4, "attn_dp": 2})
OWNED = (Allocate("a", "tp", 8192), AllGather("tp", View("a"), 4096), ReduceScatter("tp", View("a"), 4096))
CROSS_GROUP = (Allocate("a", "tp", 64), Allocate("b", "attn_tp", 64), AllGather("attn_tp", View("b"), 16))
SKEWED = Scenario(TP2, (Allocate("z", "tp", 16), Ballast("x", "tp", 1, 4096), *OWNED), System("per-group"))


def paths(draw: Draw) -> set[str]:
    return {use.ran.path for uses in Case(draw).calls.values() for use in uses if use.ran}


def facts(draw: Draw, kind: type) -> int:
    return sum(isinstance(event, kind) for trace in draw.traces for event in trace.events)


@pytest.fixture(scope="module", params=["forced", "calls", "profiler", "log"])
def of_path(request) -> Iterator[World]:
    with World(4, "nccl", deadline=60, evidence=(request.param,)) as world:
        yield world


def test_every_kind_sees_the_symmetric_path(of_path):
    draw = of_path.run(Scenario(TP2, OWNED))
    assert (judge(draw), paths(draw)) == ([], {"symmetric"})


def test_every_kind_sees_the_legacy_path_of_a_buffer_of_another_group(of_path):
    draw = of_path.run(Scenario(TP4_DPA2, CROSS_GROUP, System("shared-at-alloc")))
    assert ([finding.rule for finding in judge(draw)], paths(draw)) == (["wrong-owner"], {"legacy"})


@pytest.fixture(scope="module")
def checked() -> Iterator[World]:
    with World(2, "nccl", deadline=60, evidence=("check",)) as world:
        yield world


def test_the_debug_check_lets_a_right_program_pass(checked):
    draw = checked.run(Scenario(TP2, OWNED))
    assert (judge(draw), paths(draw)) == ([], {"symmetric"})


def test_the_debug_check_refuses_offsets_that_differ_and_the_next_draw_works(checked):
    draw = checked.run(SKEWED)
    assert "refused" in paths(draw)
    assert judge(draw)[0].rule == "offset-mismatch"
    assert judge(checked.run(Scenario(TP2, OWNED))) == []


@pytest.fixture(scope="module")
def crossed() -> Iterator[World]:
    with World(4, "nccl", deadline=60, evidence=("stamps", "differential")) as world:
        yield world


def test_stamps_and_the_other_path_are_silent_on_right_programs(crossed):
    drawn = sample(on_nodes(scenarios(4), 4, 1), 15, seed=3)
    assert [judge(crossed.run(scenario)) for scenario in drawn] == [[]] * 15


@pytest.mark.parametrize("size", [2, 3, 8])
def test_stamps_reach_peers_on_every_gpu(size):
    """Three ranks on two GPUs have a peer on their own and one on the other."""
    with World(size, "nccl", deadline=60, evidence=("stamps",)) as world:
        drawn = sample(on_nodes(scenarios(size), size, 1), 10, seed=5)
        draws = [world.run(scenario) for scenario in drawn]
    assert [judge(draw) for draw in draws] == [[]] * 10
    assert sum(facts(draw, Ran) for draw in draws) > 0


def test_stamps_and_the_other_path_find_offsets_that_differ(crossed):
    draw = crossed.run(SKEWED)
    assert (facts(draw, Strayed) > 0, facts(draw, Differs) > 0) == (True, True)
