"""Drawn schedules: the same scenario gives the same ones, and they differ."""

from __future__ import annotations

from harness.strategies.batches import sample
from harness.strategies.programs import scenarios
from harness.strategies.schedules import by_schedules, scheduled
from tests.tools.draws import scenario


def test_a_scenario_gives_the_same_schedules_again() -> None:
    assert [*by_schedules(scenario(), 5)] == [*by_schedules(scenario(), 5)]


def test_its_schedules_differ() -> None:
    assert len({each.scheduled for each in by_schedules(scenario(), 20)}) > 5


def test_none_are_made_unless_asked_for() -> None:
    assert [*by_schedules(scenario(), 0)] == [scenario()]


def test_drawn_scenarios_have_one_each() -> None:
    assert all(drawn.scheduled is not None for drawn in sample(scheduled(scenarios(4)), 20))
