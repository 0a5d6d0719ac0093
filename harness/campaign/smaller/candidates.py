"""Candidates: the scenarios that may stand for a failing one, of fewer steps or on fewer ranks.

Invariant: every candidate is a valid scenario of the same system, and none is larger than what it may stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from harness.campaign.smaller.layouts import (
    falling_on,
    layouts_like,
    parts_of,
    plainer_places,
    restricted,
    stand_ins,
)
from harness.errors import UsageError
from harness.scenario.alive import without
from harness.scenario.layouts.groups import Group, Groups
from harness.scenario.operands import Elements, View
from harness.scenario.scenario import Scenario
from harness.scenario.schedule import Schedule
from harness.scenario.steps import (
    Allocate,
    AllToAll,
    Broadcast,
    Reduce,
    Step,
    same_on_all,
)
from harness.scenario.topology import Topology


def until(scenario: Scenario, step: int) -> Iterator[Scenario]:
    """Nothing after the step at which it fails."""
    if step + 1 < len(scenario.steps):
        yield from valid(scenario, scenario.topology, scenario.steps[: step + 1])


def valid(
    scenario: Scenario,
    topology: Topology,
    steps: tuple[Step, ...],
    falling: Group | None = None,
    schedule: Schedule | None = None,
) -> Iterator[Scenario]:
    """The scenario with another topology, program, ranks of falling addresses and schedule, if there is such a one and
    it does anything."""
    if not steps:
        return
    falling = scenario.falls_on if falling is None else falling
    schedule = scenario.scheduled if schedule is None else schedule
    try:
        candidate = Scenario(
            topology, steps, scenario.system, scenario.seed, falling, msgspec.UNSET if schedule is None else schedule
        )
    except UsageError:
        return
    if candidate != scenario:
        yield candidate


def fewer_steps(scenario: Scenario) -> Iterator[Scenario]:
    """Fewer steps: those of one family alone, no step of some kind, then without halves, quarters, at last one at a
    time; the end of the program before its start."""
    for dropped in _dropped(scenario):
        yield from valid(scenario, scenario.topology, without(scenario.steps, dropped))


def _dropped(scenario: Scenario) -> Iterator[Sequence[int]]:
    """Which steps to leave out, those that leave most out first."""
    steps = scenario.steps
    for name in scenario.families:
        yield [index for index, step in enumerate(steps) if step.family not in (None, name)]
    for kind in dict.fromkeys(step.kind for step in steps):
        yield [index for index, step in enumerate(steps) if step.kind == kind]
    size = len(steps) // 2
    while size:
        yield from (range(start, start + size) for start in reversed(range(0, len(steps), size)))
        size //= 2


def fewer_ranks(scenario: Scenario) -> Iterator[Scenario]:
    """The same ranks in plainer places; then every layout of the same convention with fewer ranks, smallest first, on
    as many nodes as it takes; then parts of this layout, as families that are given.

    Nodes change rarely from one to the next: processes on nccl start again wherever they do.
    """
    used = len(set(scenario.topology.node_of))
    for placement in plainer_places(scenario.topology, used):
        fewer = msgspec.structs.replace(scenario.topology, placement=placement)
        yield from valid(scenario, fewer, scenario.steps)
    known: set[object] = set()
    for topology in _distinct_layouts(scenario, min(used, 2), known):
        kept = stand_ins(scenario.world, topology.world)
        named = ((ranks, names) for ranks in kept for names in (_same_place, _everyone))
        programs = (
            (_program(scenario, topology, *each), falling_on(scenario.falls_on, each[0]), _schedule(scenario, each[0]))
            for each in named
        )
        for steps, falling, schedule in dict.fromkeys(programs):
            yield from valid(scenario, topology, steps, falling, schedule)
    for topology, ranks in parts_of(scenario.topology, scenario.families):
        if _as_named(topology, scenario.families) not in known:
            program = _program(scenario, topology, ranks, _same_ranks)
            falling, schedule = falling_on(scenario.falls_on, ranks), _schedule(scenario, ranks)
            for candidate in valid(scenario, topology, program, falling, schedule):
                if candidate not in known:  # without one rank or another is often the same
                    known.add(candidate)
                    yield candidate


def _schedule(scenario: Scenario, kept: Sequence[int]) -> Schedule | None:
    """The schedule for the ranks kept, if there is one."""
    return scenario.scheduled.on(kept) if scenario.scheduled is not None else None


Names = Callable[[Topology, Topology, str, Sequence[int], Groups], Groups | None]
"""What a step of another topology names in place of groups that it names in a topology, in a family, if of its ranks
only some are kept. None: every group. Empty: it has none there."""


def _same_place(old: Topology, new: Topology, family: str, kept: Sequence[int], groups: Groups) -> Groups:
    """The groups at the same places among all of the family; they wrap around."""
    here = new.families.get(family, ())
    places = (old.families[family].index(group) % len(here) for group in groups if here)
    return tuple(here[place] for place in dict.fromkeys(places))


def _everyone(old: Topology, new: Topology, family: str, kept: Sequence[int], groups: Groups) -> None:
    return None


def _same_ranks(old: Topology, new: Topology, family: str, kept: Sequence[int], groups: Groups) -> Groups:
    """What is left of each group."""
    left = (restricted(group, kept) for group in groups)
    return tuple(dict.fromkeys(group for group in left if group in new.families.get(family, ())))


def _program(scenario: Scenario, topology: Topology, kept: Sequence[int], names: Names) -> tuple[Step, ...]:
    """The steps on another topology, of whose ranks those kept stand for its own. What has no group left goes."""
    steps = [for_ranks(step, kept) for step in scenario.steps]
    for index, step in enumerate(steps):
        if step.family is not None and step.groups is not None:
            groups = names(scenario.topology, topology, step.family, kept, step.groups)
            steps[index] = msgspec.structs.replace(step, groups=groups)
        steps[index] = _for_groups(steps[index], topology)
    return without(tuple(steps), [index for index, step in enumerate(steps) if step.groups == ()])


def _distinct_layouts(scenario: Scenario, nodes: int, known: set[object]) -> Iterator[Topology]:
    """Layouts of fewer ranks. Of those that differ only in families that the program does not name, one; none that is
    known, and those that come are known."""
    for world in range(2, scenario.world):
        for topology in layouts_like(scenario.topology, world, nodes):
            key = _as_named(topology, scenario.families)
            if key not in known:
                known.add(key)
                yield topology


def _as_named(topology: Topology, families: Sequence[str]) -> object:
    """What a layout is to a program that names these families: their groups, and which share communicators."""
    ids = [topology.ids.get(name) for name in families]
    return topology.world, tuple(map(topology.families.get, families)), tuple(map(ids.index, ids))


def for_ranks(step: Step, kept: Sequence[int]) -> Step:
    """The step for the ranks kept, in their new order: counts given for each are theirs, and other ranks wrap around.
    Its groups stay."""
    fields = msgspec.structs.asdict(step)
    changes: dict[str, object] = {name: _pick(fields[name], kept) for name in step.per_rank}
    for name, value in fields.items():
        if isinstance(value, View):
            changes[name] = View(value.buffer, _pick(value.offset, kept))
    if isinstance(step, Allocate) and step.registered is not None:
        changes["registered"] = same_on_all(tuple(step.registered_on(rank) for rank in kept))
    if step.rank is not None:
        changes["rank"] = kept.index(step.rank) if step.rank in kept else step.rank % len(kept)
    return msgspec.structs.replace(step, **changes)


def _for_groups(step: Step, topology: Topology) -> Step:
    """The step with a root and a table of counts for groups of another topology."""
    sizes = [len(group) for group in topology.families.get(step.family or "", ())]
    if sizes and isinstance(step, Broadcast | Reduce):
        return msgspec.structs.replace(step, root=step.root % min(sizes))
    if sizes and isinstance(step, AllToAll) and step.counts is not None:
        return msgspec.structs.replace(step, counts=tuple(row[: sizes[0]] for row in step.counts[: sizes[0]]))
    return step


def _pick(value: Elements, kept: Sequence[int]) -> Elements:
    """What is given for each rank, for the ranks kept."""
    if isinstance(value, int):
        return value
    picked = tuple(value[rank] for rank in kept)
    return picked[0] if len(set(picked)) == 1 else picked
