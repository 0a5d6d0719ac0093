"""Candidates: the scenarios that may stand for a failing one, on fewer ranks, of fewer steps, with plainer numbers.

Invariant: every candidate is a valid scenario of the same system, and none is larger than what it may stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from harness.campaign.layouts import layouts_like, on_nodes, parts_of, restricted, stand_ins
from harness.errors import UsageError
from harness.scenario.alive import without
from harness.scenario.bases import CollectiveStep
from harness.scenario.layouts.groups import Groups
from harness.scenario.operands import Elements, View, at
from harness.scenario.placement import Placement
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Allocate, Ballast, Collective, Step, Straggle, same_on_all
from harness.scenario.topology import Topology


def until(scenario: Scenario, step: int) -> Iterator[Scenario]:
    """Nothing after the step at which it fails."""
    if step + 1 < len(scenario.steps):
        yield from _valid(scenario, scenario.topology, scenario.steps[: step + 1])


def _valid(scenario: Scenario, topology: Topology, steps: tuple[Step, ...]) -> Iterator[Scenario]:
    """The scenario with another topology and program, if there is such a one and it does anything."""
    if not steps:
        return
    try:
        candidate = Scenario(topology, steps, scenario.system, scenario.seed)
    except UsageError:
        return
    if candidate != scenario:
        yield candidate


def fewer_steps(scenario: Scenario) -> Iterator[Scenario]:
    """Fewer steps: those of one family alone, no step of some kind, then without halves, quarters, at last one at a
    time; the end of the program before its start."""
    for dropped in _dropped(scenario):
        yield from _valid(scenario, scenario.topology, without(scenario.steps, dropped))


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
    for placement in _plainer_places(scenario.topology, used):
        fewer = msgspec.structs.replace(scenario.topology, placement=placement)
        yield from _valid(scenario, fewer, scenario.steps)
    known: set[object] = set()
    for topology in _distinct_layouts(scenario, min(used, 2), known):
        kept = stand_ins(scenario.world, topology.world)
        programs = (_program(scenario, topology, ranks, names) for ranks in kept for names in (_same_place, _everyone))
        for steps in dict.fromkeys(programs):
            yield from _valid(scenario, topology, steps)
    for topology, ranks in parts_of(scenario.topology, scenario.families):
        if _as_named(topology, scenario.families) not in known:
            program = _program(scenario, topology, ranks, _same_ranks)
            for candidate in _valid(scenario, topology, program):
                if candidate not in known:  # without one rank or another is often the same
                    known.add(candidate)
                    yield candidate


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
    steps = [_for_ranks(step, kept) for step in scenario.steps]
    for index, step in enumerate(steps):
        if step.family is not None and step.groups is not None:
            groups = names(scenario.topology, topology, step.family, kept, step.groups)
            steps[index] = msgspec.structs.replace(step, groups=groups)
    return without(tuple(steps), [index for index, step in enumerate(steps) if step.groups == ()])


def _plainer_places(topology: Topology, used: int) -> Iterator[Placement | None]:
    """For the same ranks: the nodes that it uses as NVLink domains, then one node, or two, with domains like its own,
    then processes that see all GPUs."""
    placement, world = topology.placement, topology.world
    if placement is not None and topology.has_own_domains:
        yield msgspec.structs.replace(placement, nvlink_domain=None, nvlink_domains=None, mnnvl=True)
    yield from (on_nodes(nodes, world, topology) for nodes in range(1, min(used, 3)))
    if placement is not None and placement.peers_hidden:
        yield msgspec.structs.replace(placement, peers_hidden=False)


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


def _for_ranks(step: Step, kept: Sequence[int]) -> Step:
    """The step for fewer ranks: counts given for each are those of the ranks kept, and ranks wrap around."""
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


def _pick(value: Elements, kept: Sequence[int]) -> Elements:
    """What is given for each rank, for the ranks kept."""
    if isinstance(value, int):
        return value
    picked = tuple(value[rank] for rank in kept)
    return picked[0] if len(set(picked)) == 1 else picked


def plainer(scenario: Scenario) -> Iterator[Scenario]:
    """Each step with one thing made plain, and each buffer no larger than it need be."""
    if scenario.seed:
        yield Scenario(scenario.topology, scenario.steps, scenario.system)
    for changes in ({"dtype": "float32"}, {"stream": 0}):
        steps = tuple(_with(step, changes) for step in scenario.steps)
        yield from _valid(scenario, scenario.topology, steps)
    for index, step in enumerate(scenario.steps):
        for plain in _plain_steps(scenario, step):
            steps = (*scenario.steps[:index], plain, *scenario.steps[index + 1 :])
            yield from _valid(scenario, scenario.topology, steps)


def _with(step: Step, changes: Mapping[str, object]) -> Step:
    """The step with those of the changes that it has a field for."""
    fields = step.__struct_fields__
    return msgspec.structs.replace(step, **{name: value for name, value in changes.items() if name in fields})


def _plain_steps(scenario: Scenario, step: Step) -> Iterator[Step]:
    """The step with one thing made plain, in turn."""
    if step.rank is not None:
        yield msgspec.structs.replace(step, rank=0)
    match step:
        case Straggle():
            yield msgspec.structs.replace(step, milliseconds=step.milliseconds // 2)
        case Ballast():
            yield from (msgspec.structs.replace(step, size=size) for size in _fewer(step.size))
        case CollectiveStep():
            yield from _fewer_groups(step)
            yield from _plain_calls(step)
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
        "op": "sum",
        "claim": False,
        "stream": 0,
    }
    for name, value in plain.items():
        if name in step.__struct_fields__:
            yield msgspec.structs.replace(step, **{name: value})
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
