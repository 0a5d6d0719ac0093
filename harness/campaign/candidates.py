"""What a smaller scenario may be: on fewer ranks, of fewer steps, with plainer numbers.

Invariant: every candidate is a valid scenario of the same convention and system, and none is larger
than the one that it may stand for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product

import msgspec

from harness.errors import UsageError
from harness.scenario.bases import counts_in
from harness.scenario.layout import DEGREES
from harness.scenario.operands import Elements, View, at
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Ballast, Capture, Deny, ReduceScatter, Step, Straggle
from harness.scenario.topology import Placement, Topology


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
    everyone = range(len(scenario.steps))
    for name in scenario.families:
        others = [index for index in everyone if scenario.steps[index].family not in (None, name)]
        yield from _valid(scenario, scenario.topology, _without(scenario.steps, others))
    for kind in dict.fromkeys(type(step) for step in scenario.steps):
        alike = [index for index in everyone if type(scenario.steps[index]) is kind]
        yield from _valid(scenario, scenario.topology, _without(scenario.steps, alike))
    size = len(scenario.steps) // 2
    while size:
        for start in reversed(range(0, len(scenario.steps), size)):
            yield from _valid(scenario, scenario.topology, _without(scenario.steps, range(start, start + size)))
        size //= 2


def _without(steps: tuple[Step, ...], dropped: Collection[int]) -> tuple[Step, ...]:
    """The other steps; with an allocation go those that use its buffer, with a capture those on its graph."""
    left_out = [step for index, step in enumerate(steps) if index in dropped]
    gone = {step.allocates for step in left_out}
    graphs = {step.graph for step in left_out if isinstance(step, Capture)}
    return tuple(
        step
        for index, step in enumerate(steps)
        if index not in dropped and not gone & step.buffers and step.graph not in graphs
    )


def fewer_ranks(scenario: Scenario) -> Iterator[Scenario]:
    """The same ranks on one node or two; then every layout of the same convention with fewer ranks, smallest first, on
    as many nodes as it takes: processes on nccl start anew wherever nodes change. Of layouts that differ only in
    families of which the program knows nothing, one."""
    used = len(set(scenario.topology.node_of))
    for nodes in range(1, min(used, 3)):
        fewer = msgspec.structs.replace(scenario.topology, placement=_on(nodes, scenario.world))
        yield from _valid(scenario, fewer, scenario.steps)
    known: set[object] = set()
    for world in range(2, scenario.world):
        for widths in widths_of(scenario.topology.convention, world):
            topology = _layout(scenario.topology, widths, world, min(used, 2))
            if topology is None:
                continue
            key = world, tuple(topology.families.get(name) for name in scenario.families)
            if key not in known:
                known.add(key)
                choices = _choices(scenario.world, world)
                smaller = (tuple(_for_ranks(step, kept) for step in scenario.steps) for kept in choices)
                for steps in dict.fromkeys(smaller):
                    yield from _valid(scenario, topology, steps)


def _on(nodes: int, world: int) -> Placement | None:
    """Ranks in order on so many nodes; those of one node have no placement."""
    return None if nodes == 1 else Placement(nodes, -(-world // nodes))


def _choices(whole: int, world: int) -> list[tuple[int, ...]]:
    """Which `world` ranks of `whole` may stand for all: the first, ranks spread evenly, the last, and all but one of
    the first with the last."""
    first, last = tuple(range(world)), tuple(range(whole - world, whole))
    spread = tuple(rank * whole // world for rank in range(world))
    return list(dict.fromkeys((first, spread, last, (*first[:-1], whole - 1))))


def widths_of(convention: str, world: int) -> Iterator[dict[str, int]]:
    """Widths of a convention's degrees with which there may be a layout of `world` ranks."""
    names = DEGREES.get(convention, ())
    spanning = names[:2] if convention == "sglang" else tuple(name for name in names if name != "dcp")
    inside = names[len(spanning) :]
    for multiplied in _products(world, len(spanning)):
        widths = dict(zip(spanning, multiplied, strict=True))
        whole = widths["tp"] if convention == "sglang" else world
        for divided in product(_divisors(whole), repeat=len(inside)):
            yield widths | dict(zip(inside, divided, strict=True))


def _products(number: int, factors: int) -> Iterator[tuple[int, ...]]:
    """Every way to write a number as so many factors, in their order."""
    if factors <= 1:
        yield from [(number,)] * factors
        return
    for first in _divisors(number):
        for others in _products(number // first, factors - 1):
            yield first, *others


def _divisors(number: int) -> list[int]:
    return [width for width in range(1, number + 1) if number % width == 0]


def _layout(like: Topology, widths: Mapping[str, int], world: int, nodes: int) -> Topology | None:
    """A layout of these widths, if there is one and it has `world` ranks."""
    degrees: dict[str, object] = {name: width for name, width in widths.items() if width != 1}
    if "order" in like.degrees:
        degrees["order"] = like.degrees["order"]
    try:
        return Topology(name="reduced", convention=like.convention, degrees=degrees, placement=_on(nodes, world))
    except UsageError:
        return None


def _for_ranks(step: Step, kept: Sequence[int]) -> Step:
    """The step for fewer ranks: sizes given for each are those of the ranks kept, and ranks wrap around."""
    fields = msgspec.structs.asdict(step)
    changes: dict[str, object] = {name: _pick(fields[name], kept) for name in step.per_rank}
    for name, value in fields.items():
        if isinstance(value, View):
            changes[name] = View(value.buffer, _pick(value.offset, kept))
    if step.rank is not None:
        changes["rank"] = step.rank % len(kept)
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
        for plain in _plain_steps(step):
            yield from _replaced(scenario, index, plain)
        if isinstance(step, Allocate):
            for elements in (_needed(scenario, step), *_fewer(step.elements)):
                yield from _replaced(scenario, index, msgspec.structs.replace(step, elements=elements))
            yield from _replaced(scenario, index, msgspec.structs.replace(step, stream=0))


def _with(step: Step, changes: Mapping[str, object]) -> Step:
    """The step with those of the changes that it has a place for."""
    fields = step.__struct_fields__
    return msgspec.structs.replace(step, **{name: value for name, value in changes.items() if name in fields})


def _replaced(scenario: Scenario, index: int, step: Step) -> Iterator[Scenario]:
    steps = (*scenario.steps[:index], step, *scenario.steps[index + 1 :])
    yield from _valid(scenario, scenario.topology, steps)


def _fewer(elements: Elements) -> Iterator[Elements]:
    """Half of a number; where ranks differ, one rank's number halved."""
    if isinstance(elements, int):
        yield from [elements // 2] * (elements > 1)
        return
    for rank, number in enumerate(elements):
        if number > 1:
            yield (*elements[:rank], number // 2, *elements[rank + 1 :])


def _plain_steps(step: Step) -> Iterator[Step]:
    if isinstance(step, Straggle | Deny | Ballast):
        yield msgspec.structs.replace(step, rank=0)
    if isinstance(step, Straggle):
        yield msgspec.structs.replace(step, milliseconds=step.milliseconds // 2)
    if isinstance(step, Ballast):
        yield from (msgspec.structs.replace(step, size=size) for size in _fewer(step.size))
    if not isinstance(step, AllGather | ReduceScatter):
        return
    part, whole = ("source", "output") if isinstance(step, AllGather) else ("output", "source")
    plain = {
        "count": 1,
        "via": "library",
        part: None,
        whole: View(step.whole.buffer),
        "op": "sum",
        "claim": False,
        "stream": 0,
    }
    if step.part is not None and step.part.offset != 0:
        yield msgspec.structs.replace(step, **{part: View(step.part.buffer)})
    for name, value in plain.items():
        if name in step.__struct_fields__:
            yield msgspec.structs.replace(step, **{name: value})
    yield from (msgspec.structs.replace(step, count=count) for count in _fewer(step.count))


def _needed(scenario: Scenario, allocated: Allocate) -> Elements:
    """The elements that the steps on a buffer reach, the same on every rank."""
    needed = 1
    for step in scenario.steps:
        if isinstance(step, AllGather | ReduceScatter):
            for rank in range(scenario.world):
                counts = counts_in(step, scenario.topology.group(step.family, rank))
                for view, size in ((step.whole, sum(counts)), (step.part, at(step.count, rank))):
                    if view is not None and view.buffer == allocated.buffer:
                        needed = max(needed, at(view.offset, rank) + size)
    smallest = min(at(allocated.elements, rank) for rank in range(scenario.world))
    return needed if needed <= smallest else allocated.elements
