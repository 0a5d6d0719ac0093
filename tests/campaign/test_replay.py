"""Scenarios on another system than the one they were drawn for."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.campaign import seeds
from harness.campaign.replay import replay, smaller, with_system, with_systems
from harness.campaign.signatures import signature
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, ProgramError, Reduce, ReduceScatter
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.world.world import World
from tests.tools.campaigns import STUCK

PAIR = Topology("pair", "sglang", {"tp": 2})
SCENARIO = Scenario(
    PAIR,
    (
        Allocate("a", "tp", 8),
        AllGather("tp", View("a"), 4),
        AllGather("tp", View("a"), (3, 5)),
        ReduceScatter("tp", View("a"), 4, op="max"),
        ReduceScatter("tp", View("a"), 4),
        Reduce("tp", View("a"), 4),
    ),
)


def test_other_collectives_run_what_kernels_can_and_leave_the_rest_to_the_library() -> None:
    through = with_system(SCENARIO, collectives="tests.tools.planted:Kernel")
    assert [step.via for step in through.steps[1:]] == ["kernel"] * 4 + ["library"]
    assert through.system == System(collectives="tests.tools.planted:Kernel")


def test_the_plug_in_that_a_scenario_names_itself_changes_nothing() -> None:
    own = Scenario(PAIR, SCENARIO.steps, System("my:Pool", "my:Kernel"))
    assert with_system(own, pool="my:Pool", collectives="my:Kernel") == own


def test_with_the_library_no_kernel_is_left() -> None:
    own = Scenario(PAIR, SCENARIO.steps, System("my:Pool", "my:Kernel"))
    assert with_system(own, collectives="library").system == System("my:Pool")


def test_the_library_runs_all_of_them() -> None:
    through = with_system(with_system(SCENARIO, collectives="triton"), collectives="library")
    assert [step.via for step in through.steps[1:]] == ["library"] * 5


def test_the_library_goes_on_asking_for_copy_engines() -> None:
    asked = AllGather("tp", View("a"), 4, via="copy-engine")
    own = Scenario(PAIR, (SCENARIO.steps[0], asked), System("my:Pool", "my:Kernel"))
    for collectives, via in (("library", "copy-engine"), ("triton", "kernel")):
        assert [step.via for step in with_system(own, collectives=collectives).steps[1:]] == [via]


def test_another_pool_and_other_sites_leave_the_steps() -> None:
    changed = with_system(SCENARIO, pool="per-group", sites="implicit")
    assert (changed.steps, changed.system) == (SCENARIO.steps, System("per-group", sites="implicit"))


def test_draws_before_of_another_system_keep_it() -> None:
    mine, other = (Scenario(PAIR, SCENARIO.steps, System(pool)) for pool in ("my:Pool", "deferred"))
    assert with_systems([mine, other, mine], "my:Pool", None, None) == [mine, other, mine]
    pools = [each.system.pool for each in with_systems([mine, other, mine], "per-group", None, None)]
    assert pools == ["per-group", "deferred", "per-group"]


WRONG = Scenario(
    PAIR,
    (Allocate("a", "tp", 8), Allocate("b", "tp", 8), AllGather("tp", View("a"), 2, via="kernel")),
    System(collectives="harness.system.planted.kernels:LosesLastPeer"),
)


@pytest.mark.parametrize(("scenario", "rule"), [(WRONG, "wrong-data"), (STUCK, "hang")], ids=["of calls", "a hang"])
def test_a_rule_whose_symptom_names_a_place_is_made_smaller_and_signed(
    simulation: World, tmp_path: Path, scenario: Scenario, rule: str
) -> None:
    (run,) = replay(simulation, scenario)
    seed = seeds.Seed(seeds.SCHEMA, scenario, tuple(each for each in run.findings if each.rule == rule), {})
    found = smaller(simulation, seed, tmp_path, {}, 20)
    assert found is not None
    assert (found.finding.rule, len(found.scenario.steps) < len(scenario.steps)) == (rule, True)
    kept = seeds.load(found.seed_file)
    assert kept.signature == found.signature == signature(kept.findings, kept.scenario)


def test_implicit_sites_need_tp() -> None:
    alone = Scenario(Topology("cp only", "explicit", families_given={"cp": ((0, 1),)}), (Allocate("a", "cp", 8),))
    with pytest.raises(ProgramError, match="cp only"):
        with_system(alone, sites="implicit")


def test_another_system_leaves_the_ranks_on_which_addresses_fall() -> None:
    falling = Scenario(PAIR, SCENARIO.steps, falling=(1,))
    assert with_system(falling, pool="per-group").falls_on == (1,)
