"""Schedules, drawn for scenarios: priorities of the ranks, and a few switch points at which they change.

Invariant: they follow from the scenario and a number, so that the same draw gives the same schedules.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import msgspec
from hypothesis import strategies as st

from harness.scenario.scenario import Scenario
from harness.scenario.schedule import Schedule

CHANGES = (0, 0, 1, 2)
"""How many priorities change in a draw. Without any, the first ranks run as far as they can before the others."""
WITHIN = (30, 100, 300, 1000)
"""Switch points before which changes come: short programs have few."""


def scheduled(drawn: st.SearchStrategy[Scenario]) -> st.SearchStrategy[Scenario]:
    """The same scenarios, each by a schedule."""
    return st.builds(_with_number, drawn, st.integers(0, 255))


def by_schedules(scenario: Scenario, count: int) -> Iterator[Scenario]:
    """The scenario by so many schedules, or as it is for none."""
    if not count:
        yield scenario
    for number in range(count):
        yield _with_number(scenario, number)


def _with_number(scenario: Scenario, number: int) -> Scenario:
    return msgspec.structs.replace(scenario, schedule=_schedule(scenario, number))


def _schedule(scenario: Scenario, number: int) -> Schedule:
    chance = Random(f"{scenario.seed} {number}")
    order = chance.sample(range(scenario.world), scenario.world)
    last = chance.choice(WITHIN)
    changes = {chance.randint(1, last) for _ in range(chance.choice(CHANGES))}
    return Schedule(tuple(order), tuple(sorted(changes)))
