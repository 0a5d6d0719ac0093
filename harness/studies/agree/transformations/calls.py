"""Makes a collective by two: of half the elements each, or a reduce-scatter and an all-gather for an all-reduce."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from harness.scenario.alive import Alive
from harness.scenario.bases import CollectiveStep
from harness.scenario.operands import View, at
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, AllReduce, Collective, ReduceScatter, Steady, Step
from harness.studies.agree.transformations.variant import Variant, rewritten

Halves = tuple[Step, Step]


def split_calls(scenario: Scenario) -> Variant | None:
    """The scenario with every collective of an even count split in two of half the count. None where there is none.

    The verdict holds, because ownership goes by the windows over an operand and the path by type and operation; both
    halves lie where the whole lay. The halves of a chunk for each rank lie one behind the other, so the second one
    begins behind all chunks of the first.

    A call stays whole where ranks differ in count. So does a call in a graph, or in a program with steady state.
    """
    return _in_two(scenario, _split)


def compose_all_reduces(scenario: Scenario) -> Variant | None:
    """The scenario with each all-reduce made by a reduce-scatter and an all-gather. None where there is none to make.

    The verdict holds, because ranks reach each other through source and output of an all-reduce, and so through the
    source of the reduce-scatter and the output of the all-gather. The reduce-scatter leaves each rank's chunk at its
    place in the output, and the all-gather runs in place.

    An all-reduce stays if its group has one rank, or a size that does not divide its count. With an integer, `max` or
    `min` the all-gather takes the symmetric path, and neither reduction does: a `claim` breaks a rule either way.
    """
    return _in_two(scenario, _composed)


def _in_two(scenario: Scenario, halves: Callable[[Scenario, Collective], Halves | None]) -> Variant | None:
    if any(isinstance(step, Steady) for step in scenario.steps):
        return None
    alive, found = Alive(scenario.topology), list[tuple[int, Step]]()
    for index, step in enumerate(scenario.steps):
        both = halves(scenario, step) if isinstance(step, CollectiveStep) and alive.open is None else None
        found += [(index, each) for each in both or (step,)]
        alive.take(step)
    return rewritten(scenario, found)


def _split(scenario: Scenario, step: Collective) -> Halves | None:
    if not isinstance(step.count, int) or step.count < 2 or step.count % 2:
        return None
    half = msgspec.structs.replace(step, count=step.count // 2)
    views = dict(_second_views(scenario, half))
    return half, msgspec.structs.replace(half, **views)


def _second_views(scenario: Scenario, half: Collective) -> Iterator[tuple[str, View]]:
    """The operands of the second half, by field: on each rank, one begins where that of the first half ends."""
    lengths = {rank: half.lengths(group, rank) for group, _ in scenario.acting(half) for rank in group}
    for role in ("source", "output"):
        if (view := getattr(half, role)) is not None:
            yield role, _behind(view, {rank: getattr(each, role) for rank, each in lengths.items()}, scenario.world)


def _composed(scenario: Scenario, step: Collective) -> Halves | None:
    sizes = {len(group.ranks) for group in scenario.acting(step)}
    size = min(sizes)
    if not isinstance(step, AllReduce) or not isinstance(step.count, int):
        return None
    if len(sizes) > 1 or size < 2 or not step.count or step.count % size:
        return None
    chunk, output = step.count // size, None
    if step.source is not None:
        starts = {rank: place * chunk for group, _ in scenario.acting(step) for place, rank in enumerate(group)}
        output = _behind(step.output, starts, scenario.world)
    scatter = ReduceScatter(
        step.family, step.source or step.output, chunk, output, step.op, step.via, step.claim, step.stream, step.groups
    )
    gather = AllGather(step.family, step.output, chunk, None, step.via, step.claim, step.stream, step.groups)
    return scatter, gather


def _behind(view: View, elements: dict[int, int], world: int) -> View:
    """The view so many elements on, on each rank that acts; on the others as on the first of these."""
    others = next(iter(elements.values()))
    offsets = tuple(at(view.offset, rank) + elements.get(rank, others) for rank in range(world))
    return View(view.buffer, offsets[0] if len({*offsets}) == 1 else offsets)
