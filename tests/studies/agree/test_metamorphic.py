"""A scenario and its variants get one verdict, unless the system under test or the world rests on what differs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.campaign import seeds
from harness.oracle.judge import judge
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, AllReduce, ReduceScatter, Release, SendReceive, Step
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.strategies.batches import sample
from harness.studies.agree.comparison import Agreement, Comparison, Disagreement
from harness.studies.agree.metamorphic import FAULTS, Variants, subjects
from harness.studies.agree.transformations.catalogue import TRANSFORMATIONS
from harness.studies.faults.catalogue import FAULTS as CATALOGUE
from harness.trace.events import Deregistered, Event, Registered
from harness.world.world import World
from tests.tools.elsewhere import Elsewhere

POOLS, KERNELS = "harness.system.planted.pools", "harness.system.planted.kernels"
DEPENDENT = "tests.tools.planted.dependent"
HALVES = Topology("halves", "explicit", families_given={"tp": ((0, 1), (2, 3)), "dp": ((1, 2), (3, 0))})
PAIR = Topology("pair", "explicit", families_given={"tp": ((0, 1),), "dp": ((0, 1),)}, shares={})
DRAWS = 40
BLOCK = 1024
"""Elements of a whole block of the planted kernels. A half of it has a tail."""


@pytest.fixture(scope="module")
def ranks() -> Iterator[World]:
    with World(4, "sim") as world:
        yield world


class Plant(NamedTuple):
    """A system that rests on one thing that a transformation changes, and a program that is right as it is drawn."""

    system: System
    topology: Topology
    steps: tuple[Step, ...]


def gathered(via: Any, count: int = 128) -> tuple[Step, ...]:
    """One collective of two ranks, for which no step may be swapped and nothing composed."""
    return Allocate("a", "tp", 4 * count), AllGather("tp", View("a"), count, via=via)


PLANTS = {
    "renumber-ranks": Plant(System(collectives=f"{KERNELS}:OrdersByGlobalRank"), PAIR, gathered("kernel")),
    "rename-families": Plant(System(f"{DEPENDENT}:KnowsTp"), PAIR, gathered("library")),
    "swap-steps": Plant(
        System(collectives=f"{KERNELS}:BindsToTheFirstGroup"),
        HALVES,
        (
            *(Allocate("a", "dp", 512), Allocate("b", "tp", 512), Allocate("c", "tp", 512, role="plain")),
            ReduceScatter("tp", View("b"), 65, output=View("c"), via="kernel"),
            ReduceScatter("dp", View("a"), 65, groups=((1, 2),), via="kernel"),
        ),
    ),
    "split-calls": Plant(System(collectives=f"{KERNELS}:MissesTail"), PAIR, gathered("kernel", BLOCK)),
    "compose-all-reduces": Plant(
        System(collectives=f"{DEPENDENT}:ScattersZeros"),
        PAIR,
        (Allocate("a", "tp", 512), AllReduce("tp", View("a"), 128, via="kernel")),
    ),
}


def compare(world: Any, folder: Path, scenario: Scenario, *names: str) -> Agreement:
    """Every transformation of these, or of all, on a scenario in turn."""
    comparison = Comparison(Variants(world), folder)
    for name in names or TRANSFORMATIONS:
        one = Comparison(Variants(world), folder, facts=(name,)).run([scenario])
        comparison.agreement.found |= one.found
        comparison.agreement.compared[name] += one.compared[name]
        comparison.agreement.accounted = {
            reason: count + one.accounted[reason] for reason, count in comparison.agreement.accounted.items()
        }
    return comparison.agreement


# what rests on what differs


@pytest.fixture(scope="module", params=PLANTS)
def planted(request: pytest.FixtureRequest, ranks: World, tmp_path_factory: pytest.TempPathFactory) -> Any:
    plant = PLANTS[request.param]
    scenario = Scenario(plant.topology, plant.steps, plant.system)
    found = compare(ranks, tmp_path_factory.mktemp("planted"), scenario).found
    return request.param, found


def test_there_is_a_plant_for_every_transformation() -> None:
    assert PLANTS.keys() == TRANSFORMATIONS.keys()


def test_a_dependence_is_found_by_its_transformation_alone(planted: tuple[str, dict[str, Disagreement]]) -> None:
    assert [*planted[1]] == [planted[0]]


def test_what_is_found_shows_both_verdicts(planted: tuple[str, dict[str, Disagreement]]) -> None:
    name, found = planted
    assert found[name].differences
    assert all(each.first != each.second for each in found[name].differences)


def test_both_scenarios_are_kept_with_what_was_found_on_each(
    planted: tuple[str, dict[str, Disagreement]], ranks: World
) -> None:
    name, found = planted
    files = [Path(found[name].seed_file), Path(found[name].second_file)]
    kept = [seeds.load(file) for file in files]
    variant = TRANSFORMATIONS[name](kept[0].scenario)
    assert [file.name.startswith(f"disagree-{name}-") for file in files] == [True, True]
    assert variant is not None
    assert [each.scenario for each in kept] == [found[name].scenario, variant.scenario]
    for each in kept:
        assert [found.rule for found in each.findings] == [found.rule for found in judge(ranks.run(each.scenario))]


def test_what_is_found_is_shrunk(ranks: World, tmp_path: Path) -> None:
    system, steps = System(f"{DEPENDENT}:KnowsRankZero"), (Allocate("b", "dp", 64), Release("b"), *gathered("library"))
    found = compare(ranks, tmp_path, Scenario(PAIR, steps, system), "renumber-ranks").found["renumber-ranks"]
    assert [step.kind for step in found.scenario.steps] == ["allocate", "all_gather"]
    assert len([*tmp_path.iterdir()]) == 2


def test_a_world_that_sees_less_on_rank_0_is_found_by_other_rank_numbers(ranks: World, tmp_path: Path) -> None:
    def without_registrations(event: Event) -> list[Event]:
        return [] if isinstance(event, Registered | Deregistered) else [event]

    blind: Any = Elsewhere(ranks, without_registrations)
    topology = Topology("three", "explicit", families_given={"tp": ((0, 1), (2,))})
    found = compare(blind, tmp_path, Scenario(topology, gathered("library"))).found
    assert [*found] == ["renumber-ranks"]


# what does not


def test_right_and_faulty_systems_have_one_verdict_in_every_way(ranks: World, tmp_path: Path) -> None:
    drawn = sample(subjects(4, None, "mixed", by_address=False), DRAWS, seed=1)
    agreement = Comparison(Variants(ranks), tmp_path).run(drawn)
    assert (agreement.draws, agreement.found) == (DRAWS, {})
    assert min(agreement.compared.values()) > 0


def test_a_fault_that_rests_on_nothing_that_differs_has_one_verdict(ranks: World, tmp_path: Path) -> None:
    steps = (*gathered("library"), AllReduce("tp", View("a"), 128), Allocate("b", "dp", 512))
    steps = (*steps, ReduceScatter("dp", View("b"), 128), AllGather("tp", View("a"), 128))
    scenario = Scenario(HALVES, steps, System(f"{POOLS}:OutsideThePool"))
    agreement = compare(ranks, tmp_path, scenario)
    assert judge(ranks.run(scenario))
    assert (agreement.found, set(agreement.compared.values())) == ({}, {1})


def test_the_faults_that_are_drawn_are_in_the_catalogue() -> None:
    assert {*FAULTS} < {fault.id for fault in CATALOGUE}


# differences that are right

OVER: tuple[Step, ...] = (Allocate("a", "tp", 4096), AllGather("tp", View("a", 256), 1024))
"""Of an operand of 8192 bytes, the first 3000 or so in a window of 4096 bytes."""
HALF: tuple[Step, ...] = (
    Allocate("a", "tp", 8192),
    Allocate("b", "tp", 8192, role="plain"),
    SendReceive("tp", View("a"), 5000, View("b")),
)
"""Of 20,000 bytes, which NCCL does not stage, and halves that it does."""
CLAIMED: tuple[Step, ...] = (Allocate("a", "tp", 512), AllReduce("tp", View("a"), 128, op="avg", claim=True))


@pytest.mark.parametrize(
    ("name", "system", "steps", "reason"),
    [
        ("split-calls", System(f"{POOLS}:ShortWindow"), OVER, "window ends inside the operand"),
        (
            "compose-all-reduces",
            System(collectives=f"{KERNELS}:LosesLastPeer"),
            PLANTS["compose-all-reduces"].steps,
            "all-reduce by the library",
        ),
        ("split-calls", System(), HALF, "half of a send is staged"),
        ("compose-all-reduces", System(), CLAIMED, "average of an all-reduce"),
    ],
)
def test_a_difference_with_a_cause_has_its_reason(
    ranks: World, tmp_path: Path, name: str, system: System, steps: tuple[Step, ...], reason: str
) -> None:
    agreement = compare(ranks, tmp_path, Scenario(PAIR, steps, system), name)
    assert (agreement.found, [each for each, count in agreement.accounted.items() if count]) == ({}, [reason])


def test_a_verdict_that_does_not_repeat_is_accounted_for(ranks: World, tmp_path: Path) -> None:
    system = System(f"{DEPENDENT}:KnowsTp")
    steady, races = Scenario(PAIR, gathered("library")), Scenario(PAIR, gathered("library"), system)

    class Racing:
        """Breaks a rule in its second run alone."""

        runs = 0

        def run(self, scenario: Scenario) -> Any:
            self.runs += 1
            return ranks.run(scenario if self.runs == 2 else steady)

    agreement = compare(Racing(), tmp_path, races, "rename-families")
    assert (agreement.found, agreement.accounted["verdict that does not repeat"]) == ({}, 1)


def test_a_scenario_without_a_variant_counts_as_drawn_and_not_as_compared(ranks: World, tmp_path: Path) -> None:
    agreement = Comparison(Variants(ranks), tmp_path, facts=("swap-steps",)).run([Scenario(PAIR, gathered("library"))])
    assert (agreement.draws, agreement.compared["swap-steps"]) == (1, 0)


def test_transformations_take_turns(ranks: World, tmp_path: Path) -> None:
    scenarios = [Scenario(PAIR, gathered("library", 128), seed=seed) for seed in range(6)]
    compared = Comparison(Variants(ranks), tmp_path).run(scenarios).compared
    assert [compared[name] for name in ("renumber-ranks", "rename-families", "split-calls")] == [2, 2, 2]
