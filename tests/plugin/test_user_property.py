"""A property test as a user of the plugin writes it: drawn scenarios, the `world` fixture, and `check`."""

from __future__ import annotations

from hypothesis import given, settings

from harness import Scenario, TestedWorld, scenarios


@settings(max_examples=25, deadline=None)
@given(scenario=scenarios(world=4))
def test_every_drawn_scenario_is_free_of_findings(world: TestedWorld, scenario: Scenario) -> None:
    world.check(scenario)
