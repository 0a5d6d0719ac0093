"""Renamed families: names change round, and nothing else does."""

from __future__ import annotations

from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Recreate, Step
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.strategies.batches import sample
from harness.strategies.programs import scenarios
from harness.studies.agree.transformations.renaming import ALONE, rename_families
from harness.studies.agree.transformations.variant import Variant

THREE = Topology(
    "three",
    "explicit",
    families_given={"tp": ((0, 1),), "dp": ((0,), (1,)), "ep": ((0, 1),)},
    shares={"ep": "tp"},
)
STEPS: tuple[Step, ...] = (
    Allocate("a", "tp", 64, registered=(("tp", "dp"),)),
    AllGather("tp", View("a"), 8),
    Recreate("dp"),
)


def renamed(scenario: Scenario) -> Variant:
    variant = rename_families(scenario)
    assert variant is not None
    return variant


def test_each_family_gets_the_name_of_another() -> None:
    families = renamed(Scenario(THREE, STEPS)).scenario.topology.families
    assert families == {"dp": THREE.families["tp"], "ep": THREE.families["dp"], "tp": THREE.families["ep"]}
    assert [*families] == ["dp", "ep", "tp"]


def test_steps_and_their_registrations_name_the_same_groups() -> None:
    steps = renamed(Scenario(THREE, STEPS)).scenario.steps
    assert [step.family for step in steps] == ["dp", "dp", "ep"]
    assert steps[0].other_families == ("dp", "ep")


def test_families_share_communicators_as_before() -> None:
    for scenario in [Scenario(THREE, STEPS), *sample(scenarios(8), 40)]:
        before, after = scenario.topology.ids, renamed(scenario).scenario.topology.ids
        assert [*after.values()] == [*before.values()]
        assert renamed(scenario).scenario.groups == scenario.groups


def test_tp_keeps_its_name_where_implicit_sites_ask_for_it() -> None:
    variant = renamed(Scenario(THREE, STEPS, System(sites="implicit"))).scenario
    assert variant.topology.families == {"tp": ((0, 1),), "ep": ((0,), (1,)), "dp": ((0, 1),)}


def test_a_family_without_another_gets_a_new_name() -> None:
    one = Topology("one", "explicit", families_given={"tp": ((0, 1),)})
    variant = renamed(Scenario(one, (Allocate("a", "tp", 64),)))
    assert [*variant.scenario.topology.families] == [ALONE]
    assert [*renamed(variant.scenario).scenario.topology.families] != [ALONE]


def test_there_is_no_variant_where_no_name_is_free() -> None:
    one = Topology("one", "explicit", families_given={"tp": ((0, 1),)})
    assert rename_families(Scenario(one, (Allocate("a", "tp", 64),), System(sites="implicit"))) is None
