"""The world of property tests: it judges on the system that the options name, and saves before it raises."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.statistics import collector, describe_statistics

from harness.campaign import seeds
from harness.errors import PluginError, UsageError
from harness.oracle.findings import Finding
from harness.plugin.tested_world import TestedWorld
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Allocate
from harness.scenario.system import Sites, System
from harness.scenario.topology import Topology
from harness.world.world import World
from tests.tools.campaigns import LEAKING, RIGHT, TWO

FAULTY = "tests.tools.planted:KeepsATensor"


class Raises:
    """A pool that takes nothing."""

    def __init__(self, context: object) -> None:
        raise RuntimeError("out of sorts")

    def use(self, group: object) -> None: ...

    def close(self) -> None: ...


def world_of(world: World, folder: Path, pool: str | None = None, sites: Sites | None = None) -> TestedWorld:
    return TestedWorld(world, pool, None, sites, folder)


def notes(raised: pytest.ExceptionInfo[BaseException]) -> str:
    return "\n".join(raised.value.__notes__)


def test_a_scenario_without_findings_gives_its_draw(simulation: World, tmp_path: Path) -> None:
    draw = world_of(simulation, tmp_path).check(RIGHT)
    assert (draw.is_clean, draw.scenario, [*tmp_path.iterdir()]) == (True, RIGHT, [])


def test_a_finding_is_raised_with_its_program_and_seed_file(simulation: World, tmp_path: Path) -> None:
    with pytest.raises(Finding) as raised:
        world_of(simulation, tmp_path).check(LEAKING)
    (kept,) = tmp_path.iterdir()
    assert seeds.load(kept).scenario == LEAKING
    assert [f"replay: symm replay {kept}" in notes(raised), "allocate buffer=b0" in notes(raised)] == [True, True]


def test_the_pool_of_the_options_takes_the_place_of_the_scenarios(simulation: World, tmp_path: Path) -> None:
    with pytest.raises(Finding):
        world_of(simulation, tmp_path, pool=FAULTY).check(RIGHT)
    assert [seeds.load(path).scenario.system for path in tmp_path.iterdir()] == [System(FAULTY)]


def test_the_sites_of_the_options_take_the_place_of_the_scenarios(simulation: World, tmp_path: Path) -> None:
    assert world_of(simulation, tmp_path, sites="implicit").check(RIGHT).scenario.system.sites == "implicit"


def test_running_judges_nothing(simulation: World, tmp_path: Path) -> None:
    assert world_of(simulation, tmp_path).run(LEAKING).scenario == LEAKING
    assert [*tmp_path.iterdir()] == []


def test_each_test_keeps_a_file_of_its_own(simulation: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_of(simulation, tmp_path)
    for test, scenario in (("one", LEAKING), ("two", Scenario(TWO, LEAKING.steps[:3], System(FAULTY)))):
        monkeypatch.setenv("PYTEST_CURRENT_TEST", test)
        with pytest.raises(Finding):
            world.check(scenario)
    assert len([*tmp_path.iterdir()]) == 2


def test_the_seed_file_of_a_finding_holds_the_scenario_that_it_lists(simulation: World, tmp_path: Path) -> None:
    """Also after a smaller one of the same rule."""
    world = world_of(simulation, tmp_path)
    for scenario in (Scenario(TWO, LEAKING.steps[:3], System(FAULTY)), LEAKING):
        with pytest.raises(Finding) as raised:
            world.check(scenario)
    (kept,) = tmp_path.iterdir()
    assert (seeds.load(kept).scenario, f"seed file: {kept}" in notes(raised)) == (LEAKING, True)


def test_what_the_system_raises_is_a_finding_that_is_kept(simulation: World, tmp_path: Path) -> None:
    with pytest.raises(Finding, match=r"^raised: .* RuntimeError: out of sorts in __init__") as raised:
        world_of(simulation, tmp_path, pool="tests.plugin.test_tested_world:Raises").check(RIGHT)
    (kept,) = tmp_path.iterdir()
    assert (f"seed file: {kept}" in notes(raised), seeds.load(kept).findings[0].rule) == (True, "raised")


def test_what_has_not_the_shape_of_a_plug_in_is_kept_and_names_its_program(simulation: World, tmp_path: Path) -> None:
    with pytest.raises(PluginError) as raised:
        world_of(simulation, tmp_path, pool="tests.tools.unruly:NoContext").check(RIGHT)
    (kept,) = tmp_path.iterdir()
    assert f"seed file: {kept}" in notes(raised)


def test_a_scenario_that_does_not_fit_is_refused(simulation: World, tmp_path: Path) -> None:
    five = Scenario(Topology("five", "sglang", {"tp": 5}), (Allocate("a", "tp", 8),))
    with pytest.raises(UsageError, match="5 ranks does not fit --symm-world=4"):
        world_of(simulation, tmp_path).check(five)


def test_hypothesis_counts_the_states_that_draws_reached(simulation: World, tmp_path: Path) -> None:
    counted: dict[str, list[str]] = {}

    @settings(max_examples=3, deadline=None, database=None, phases=[Phase.generate])
    @given(st.just(RIGHT))
    def checked(scenario: Scenario) -> None:
        world_of(simulation, tmp_path).check(scenario)

    with collector.with_value(lambda found: counted.update(described=[describe_statistics(found)])):
        checked()
    assert "group: width 2" in counted["described"][0]
    assert "path: all_gather library symmetric" in counted["described"][0]
