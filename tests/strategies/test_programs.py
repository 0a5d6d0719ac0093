"""Drawn scenarios: they can be executed, reach every corner, are harmless unless asked, and shrink to little."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from random import Random

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.scenario.bases import CollectiveStep
from harness.scenario.hazards import hazards
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Collective, Step
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.scenario.validity import check
from harness.strategies.programs import HAZARDS, WITH_GRAPHS, programs, scenarios
from harness.strategies.topologies import layouts
from tests.tools.drawn import SETTINGS, WORLD, harmless, hazardous, sample

QUAD = Topology(name="quad", convention="sglang", degrees={"tp": 4, "attn_dp": 2})
MIXED = Topology(
    name="mixed", convention="explicit", families_given={"odd": ((0, 1, 2), (3,)), "even": ((0, 1), (2, 3))}
)
HARMLESS = {"allocate", "release", "all_gather", "reduce_scatter", "trim", "recreate", "straggle"}


def steps() -> Iterator[Step]:
    return (step for drawn in harmless() for step in drawn.steps)


def is_collective(step: Step) -> bool:
    return isinstance(step, CollectiveStep)


@SETTINGS
@given(data=st.data(), world=st.integers(1, 16))
def test_drawn_scenario_fits_the_world(data: st.DataObject, world: int) -> None:
    assert data.draw(scenarios(world)).world <= world


@SETTINGS
@given(topology=layouts(WORLD), data=st.data())
def test_program_drawn_for_a_topology_is_valid_on_it(topology: Topology, data: st.DataObject) -> None:
    check(topology, data.draw(programs(topology, hazards=HAZARDS)))


@SETTINGS
@given(data=st.data())
def test_program_drawn_for_groups_of_different_width_is_valid(data: st.DataObject) -> None:
    check(MIXED, data.draw(programs(MIXED, hazards=HAZARDS)))


@pytest.mark.parametrize("max_steps", [3, 4, 9, 16, 40])
def test_drawn_program_has_at_most_the_steps_asked_for(max_steps: int) -> None:
    @SETTINGS
    @given(drawn=programs(QUAD, hazards=HAZARDS, max_steps=max_steps))
    def fits(drawn: tuple[Step, ...]) -> None:
        assert len(drawn) <= max_steps

    fits()


@pytest.mark.parametrize("max_steps", [3, 16])
def test_drawn_program_has_a_collective(max_steps: int) -> None:
    @SETTINGS
    @given(drawn=programs(QUAD, hazards=HAZARDS, max_steps=max_steps))
    def has_one(drawn: tuple[Step, ...]) -> None:
        assert any(is_collective(step) for step in drawn)

    has_one()


def test_system_under_test_is_the_one_asked_for() -> None:
    system = System(pool="shared-at-alloc", collectives="package.module:Kernels")
    assert {drawn.system for drawn in sample(scenarios(2, system=system), 10)} == {system}


@pytest.mark.parametrize(("via", "paths"), [("library", {"library", "copy-engine"}), ("kernel", {"kernel"})])
def test_via_sends_every_collective_that_can_one_way(via: str, paths: set[str]) -> None:
    drawn = sample(scenarios(4, via=via), 40)  # type: ignore[arg-type]
    found = [step for scenario in drawn for step in scenario.steps if isinstance(step, CollectiveStep)]
    assert {step.via for step in found if step.has_kernels} == paths
    assert {step.via for step in found if not step.has_kernels} == {"library"}


def test_graphs_do_not_go_with_hazards() -> None:
    with pytest.raises(UsageError, match="programs with graphs have no hazards: deny, uneven"):
        sample(scenarios(4, hazards=("deny", "uneven"), graphs=True), 6)


def seldom(found: Iterable[object], expected: Iterable[object], at_least: int = 10) -> list[object]:
    """What of `expected` turns up less than `at_least` times."""
    counts = Counter(found)
    return [value for value in expected if counts[value] < at_least]


def test_every_harmless_kind_of_step_is_drawn() -> None:
    assert not seldom((step.kind for step in steps()), HARMLESS)


def test_every_hazardous_kind_of_step_is_drawn_when_asked_for() -> None:
    kinds = (step.kind for drawn in hazardous() for step in drawn.steps)
    assert not seldom(kinds, {*HARMLESS, "ballast", "deny", "refuse"}, at_least=6)


@pytest.mark.parametrize("kind", ["all_gather", "reduce_scatter"])
@pytest.mark.parametrize("via", ["library", "kernel"])
@pytest.mark.parametrize("part", ["in place", "plain", "window"])
def test_every_collective_is_drawn_on_every_path_with_every_part(kind: str, via: str, part: str) -> None:
    drawn = [
        (step.kind, step.via, part_of(step, scenario))
        for scenario in harmless()
        for step in scenario.steps
        if isinstance(step, CollectiveStep)
    ]
    assert drawn.count((kind, via, part)) >= 10


def part_of(step: Collective, scenario: Scenario) -> str:
    if step.part is None:
        return "in place"
    return next(s.role for s in scenario.steps if isinstance(s, Allocate) and s.buffer == step.part.buffer)


def test_two_families_with_different_groups_meet_in_one_program() -> None:
    assert sum(len({len(group) for group in wide(drawn)}) > 1 for drawn in harmless()) >= 20


def test_program_without_hazards_has_none() -> None:
    assert {hazard for drawn in harmless() for hazard in hazards(drawn.steps, drawn.topology)} == set()


@pytest.mark.parametrize("pulls", [False, True])
def test_programs_with_graphs_have_no_hazard_either(pulls: bool) -> None:
    """A broadcast in a graph has its source on one rank alone, and a window for it on all."""
    drawn = sample(scenarios(WORLD, max_steps=WITH_GRAPHS, graphs=True, pulls=pulls), 300)
    assert [scenario for scenario in drawn if hazards(scenario.steps, scenario.topology)] == []


@pytest.mark.parametrize("hazard", HAZARDS)
def test_hazard_turns_up_alone_when_asked_for_alone(hazard: str) -> None:
    drawn = sample(scenarios(WORLD, hazards=(hazard,)), 60)  # type: ignore[arg-type]
    found = [hazards(scenario.steps, scenario.topology) for scenario in drawn]
    assert {*found} == {frozenset(), frozenset({hazard})}


def smallest(condition: Callable[[Scenario], bool], luck: int) -> Scenario:
    patient = settings(SETTINGS, max_examples=2000, phases=[Phase.generate, Phase.shrink])
    return find(scenarios(WORLD), condition, settings=patient, random=Random(luck))


def wide(drawn: Scenario) -> list[tuple[int, ...]]:
    return [group.ranks for group in drawn.groups if len(group.ranks) > 1]


@pytest.mark.parametrize("luck", [0, 2])
def test_scenario_with_an_all_gather_shrinks_to_two_ranks_and_two_steps_in_float32(luck: int) -> None:
    least = smallest(lambda drawn: any(isinstance(step, AllGather) for step in drawn.steps), luck)
    dtypes = {step.dtype for step in least.steps if isinstance(step, Allocate)}
    assert (least.world, len(least.steps), dtypes) == (2, 2, {"float32"})


def test_scenario_with_two_groups_shrinks_to_four_ranks_at_most() -> None:
    assert smallest(lambda drawn: len(wide(drawn)) > 1, luck=0).world <= 4
