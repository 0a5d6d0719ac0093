"""Swaps steps that do not depend on each other."""

from __future__ import annotations

from typing import NamedTuple

from harness.scenario.alive import Alive
from harness.scenario.bases import CollectiveStep
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Allocate, Ballast, Release, Steady, Step, Straggle
from harness.studies.agree.transformations.variant import Variant, rewritten

MOVABLE = Allocate | Release | CollectiveStep | Ballast | Straggle


class Place(NamedTuple):
    """A step with the ranks that act in it; none where it has to stay at its place."""

    step: Step
    ranks: frozenset[int]


def swap_steps(scenario: Scenario) -> Variant | None:
    """The scenario with neighbouring steps swapped, from its start on, each step once. None where no two may be.

    The verdict holds for two reasons. Steps that share no rank leave the program of every rank as it was. Two
    collectives that share no buffer touch no pool and no registration, and both orders are the same on all ranks.

    A step of a graph stays, because a graph is captured from its beginning to its end. A program with steady state
    stays, because its stretches have to repeat each other.
    """
    if any(isinstance(step, Steady) for step in scenario.steps):
        return None
    places, order = _places(scenario), list(range(len(scenario.steps)))
    index = 0
    while index + 1 < len(order):
        if _is_independent(places[index], places[index + 1]):
            order[index : index + 2] = index + 1, index
            index += 1
        index += 1
    return rewritten(scenario, [(index, scenario.steps[index]) for index in order])


def _places(scenario: Scenario) -> list[Place]:
    alive, places = Alive(scenario.topology), []
    for step in scenario.steps:
        is_movable = isinstance(step, MOVABLE) and alive.open is None
        places.append(Place(step, _acting(scenario, step, alive) if is_movable else frozenset()))
        alive.take(step)
    return places


def _acting(scenario: Scenario, step: Step, alive: Alive) -> frozenset[int]:
    if step.rank is not None:
        return frozenset({step.rank})
    if step.drops is not None:
        return alive.buffers[step.drops].holders
    return frozenset(rank for group in scenario.acting(step) for rank in group.ranks)


def _is_independent(first: Place, second: Place) -> bool:
    if not first.ranks or not second.ranks or first.step.buffers & second.step.buffers:
        return False
    are_calls = isinstance(first.step, CollectiveStep) and isinstance(second.step, CollectiveStep)
    return are_calls or first.ranks.isdisjoint(second.ranks)
