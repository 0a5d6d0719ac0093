"""Candidates of as many steps on the same ranks, with plainer numbers.

Invariant: as in `harness.campaign.smaller.candidates`: each is a valid scenario of the same system, and none is larger.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import get_args

import msgspec

from harness.campaign.smaller.candidates import valid
from harness.campaign.smaller.layouts import fewer_falling
from harness.scenario.bases import CollectiveStep, Op
from harness.scenario.operands import DType, Elements, View, at
from harness.scenario.scenario import Scenario
from harness.scenario.schedule import Schedule
from harness.scenario.steps import (
    AllGather,
    Allocate,
    AllToAll,
    Ballast,
    Collective,
    Release,
    Stall,
    Step,
    Straggle,
    same_on_all,
)
from harness.scenario.topology import Topology

DTYPES: tuple[DType, ...] = (
    "float32",
    *sorted((dtype for dtype in get_args(DType) if dtype != "float32"), key=lambda dtype: (len(dtype), dtype)),
)
"""Plainest first, and none is longer as text than those behind it: the smallest case of a bug has the first that shows
it."""
OPS: tuple[Op, ...] = ("sum", "avg", "max", "min")


def plainer(scenario: Scenario) -> Iterator[Scenario]:
    """Each step with one thing made plain, and each buffer no larger than it need be."""
    if scenario.seed:
        yield msgspec.structs.replace(scenario, seed=0)
    for falling in fewer_falling(scenario.falls_on):
        yield msgspec.structs.replace(scenario, falling=falling)
    for schedule in _plainer_schedules(scenario.scheduled):
        yield msgspec.structs.replace(scenario, schedule=schedule)
    dtypes = [DTYPES.index(step.dtype) for step in scenario.steps if isinstance(step, Allocate)]
    plain: list[dict[str, object]] = [{"dtype": dtype} for dtype in DTYPES[: max(dtypes, default=0)]]
    plain.append({"stream": 0})
    for changes in plain:
        steps = tuple(_with(step, changes) for step in scenario.steps)
        yield from valid(scenario, scenario.topology, steps)
    if any(isinstance(step, Release) for step in scenario.steps):
        yield from _as_small_as_needed(scenario)
    for index, step in enumerate(scenario.steps):
        for plainer_step in _plain_steps(scenario, step):
            steps = (*scenario.steps[:index], plainer_step, *scenario.steps[index + 1 :])
            yield from valid(scenario, scenario.topology, steps)
    yield from _gathering(scenario)


def _as_small_as_needed(scenario: Scenario) -> Iterator[Scenario]:
    """Every buffer no larger than it need be, and none released: a smaller one may not need the place of another."""
    kept = (step for step in scenario.steps if not isinstance(step, Release))
    steps = (
        msgspec.structs.replace(step, elements=_needed(scenario, step)) if isinstance(step, Allocate) else step
        for step in kept
    )
    yield from valid(scenario, scenario.topology, tuple(steps))


def _gathering(scenario: Scenario) -> Iterator[Scenario]:
    """An all-gather of one element by the library in place of a call, in turn, of a buffer that is large enough."""
    for index, step in enumerate(scenario.steps):
        if isinstance(step, CollectiveStep) and not isinstance(step, AllGather):
            buffer, ranks = step.whole.buffer, max(len(group.ranks) for group in scenario.acting(step))
            plain: Step = AllGather(step.family, View(buffer), 1, groups=step.groups)
            steps = [*scenario.steps[:index], plain, *scenario.steps[index + 1 :]]
            for place, each in enumerate(steps):
                if isinstance(each, Allocate) and each.buffer == buffer and isinstance(each.elements, int):
                    steps[place] = msgspec.structs.replace(each, elements=max(each.elements, ranks))
            yield from valid(scenario, scenario.topology, tuple(steps))


def _plainer_schedules(schedule: Schedule | None) -> Iterator[Schedule]:
    """Ranks in rising order, no change, one change fewer, or one that comes in half the time."""
    if schedule is None:
        return
    order, changes = tuple(sorted(schedule.order)), schedule.changes
    if order != schedule.order:
        yield Schedule(order, changes)
    if changes:
        yield Schedule(schedule.order)
    for index, change in enumerate(changes):
        yield Schedule(schedule.order, changes[:index] + changes[index + 1 :])
        if change > 1 and change // 2 not in changes:
            yield Schedule(schedule.order, tuple(sorted({*changes[:index], change // 2, *changes[index + 1 :]})))


def _with(step: Step, changes: Mapping[str, object]) -> Step:
    """The step with those of the changes that it has a field for."""
    fields = step.__struct_fields__
    return msgspec.structs.replace(step, **{name: value for name, value in changes.items() if name in fields})


def _plain_steps(scenario: Scenario, step: Step) -> Iterator[Step]:
    """The step with one thing made plain, in turn."""
    if step.rank is not None:
        yield msgspec.structs.replace(step, rank=0)
    match step:
        case Straggle() | Stall():
            yield msgspec.structs.replace(step, milliseconds=step.milliseconds // 2)
        case Ballast():
            yield from (msgspec.structs.replace(step, size=size) for size in _fewer(step.size))
        case CollectiveStep():
            yield from _fewer_groups(step)
            yield from _plain_calls(step)
            if isinstance(step, AllToAll) and step.counts is not None:
                sent = dict.fromkeys(chain.from_iterable(step.counts))
                yield from (msgspec.structs.replace(step, counts=None, count=count) for count in sent)
        case Allocate():
            yield from _fewer_groups(step)
            for elements in (_needed(scenario, step), *_fewer(step.elements)):
                yield msgspec.structs.replace(step, elements=elements)
            yield msgspec.structs.replace(step, stream=0)
            yield from _fewer_registrations(step)


def _fewer_registrations(step: Allocate) -> Iterator[Step]:
    """Nothing in front of the buffer; what one rank registers, on all; then one registration fewer, on all."""
    yield msgspec.structs.replace(step, lead=0)
    lists = step.registered or ()
    if len(lists) > 1:
        yield from (msgspec.structs.replace(step, registered=(names,)) for names in dict.fromkeys(lists))
    for name in step.other_families:
        left = tuple(tuple(each for each in names if each != name) for names in lists)
        yield msgspec.structs.replace(step, registered=same_on_all(left))


def _fewer_groups(step: Allocate | Collective) -> Iterator[Step]:
    """Every group in place of some, or one fewer."""
    named = step.groups or ()
    if named:
        yield msgspec.structs.replace(step, groups=None)
    for index in range(len(named)):
        yield msgspec.structs.replace(step, groups=(*named[:index], *named[index + 1 :]))


def _plain_calls(step: Collective) -> Iterator[Step]:
    whole, part = ("source", "output") if step.whole_operand == "source" else ("output", "source")
    if step.part is not None and step.part.offset != 0:
        yield msgspec.structs.replace(step, **{part: View(step.part.buffer)})
    plain = {
        "count": 1,
        "via": "library",
        part: None,
        whole: View(step.whole.buffer),
        **({} if step.op in (None, "sum") else {"op": "sum"}),
        "root": 0,
        "shift": 1,
        "claim": False,
        "stream": 0,
    }
    for name, value in plain.items():
        if name in step.__struct_fields__:
            yield msgspec.structs.replace(step, **{name: value})
    yield from (msgspec.structs.replace(step, op=op) for op in OPS[1 : OPS.index(step.op or "sum")])
    yield from (msgspec.structs.replace(step, count=count) for count in _fewer(step.count))


def _fewer(elements: Elements) -> Iterator[Elements]:
    """Half of a number; where ranks differ, one rank's number halved."""
    if isinstance(elements, int):
        yield from [elements // 2] * (elements > 1)
        return
    for rank, number in enumerate(elements):
        if number > 1:
            yield (*elements[:rank], number // 2, *elements[rank + 1 :])


def _needed(scenario: Scenario, allocated: Allocate) -> Elements:
    """The elements that the steps on a buffer reach, the same on every rank."""
    calls = [step for step in scenario.steps if isinstance(step, CollectiveStep)]
    reached = (_reached(scenario.topology, call, allocated.buffer) for call in calls)
    needed = max([1, *reached])
    smallest = min(at(allocated.elements, rank) for group, _ in scenario.acting(allocated) for rank in group)
    return needed if needed <= smallest else allocated.elements


def _reached(topology: Topology, call: CollectiveStep, buffer: str) -> int:
    """Where the last element lies that a call reaches in a buffer, on any rank; 0 if it does not work on it."""
    ends = (
        at(view.offset, rank) + size
        for group, _ in topology.acting(call.family, call.groups)
        for rank in group
        for view, size in zip(call.views, call.reach(group, rank), strict=True)
        if view.buffer == buffer
    )
    return max(ends, default=0)
