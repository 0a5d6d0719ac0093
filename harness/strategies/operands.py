"""The operands of drawn collectives: a buffer that is alive and serves, or a new one with room for what is drawn.

Invariant: without hazards a window buffer is used by its own groups alone, with equal sizes on the ranks of a group,
and not after its communicator was replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from harness.scenario.alive import Alive
from harness.scenario.bases import STAGED_BYTES
from harness.scenario.layouts.groups import GroupIds, Groups
from harness.scenario.operands import GUARD, ITEMSIZE, Elements, View, at, is_summed_exactly
from harness.scenario.steps import Allocate
from harness.scenario.topology import Topology
from harness.strategies.actions import CHUNKED, FAR_APART, Action

LARGEST_BYTES = 16 << 20
"""A collective's output or source, without what is added to its buffer."""
KERNEL_COUNT, LARGE_KERNEL, LARGE_EDGE = 4097, 70_001, 16
"""Largest count drawn for kernels, since the interpreter pays by the element; and the largest of the few that are drawn
near such a power of two."""
LARGEST_KERNEL = 1 << 20
"""Bytes of the largest of these where the whole has no chunks; half as many where an element is one byte. One may have
an element more."""
FARTHEST = 4
"""How many groups of a family differ by `FAR_APART`."""


class Acting(NamedTuple):
    """The groups in which a step runs: `ids`. `groups` is what it says of them: None where all of the family act."""

    family: str
    groups: Groups | None
    ids: GroupIds

    @property
    def ranks(self) -> Iterator[int]:
        """The ranks that act."""
        return (rank for group in self.ids for rank in group.ranks)

    @property
    def sizes(self) -> dict[int, int]:
        """The size of each acting rank's group."""
        return {rank: len(group.ranks) for group in self.ids for rank in group.ranks}


class Shape(NamedTuple):
    """What a kind of collective needs of its operands. `needs`: for a count, the elements of the operand that is always
    given, on each rank that acts."""

    needs: Callable[[Elements], dict[int, int]]
    is_reduced: bool
    has_chunks: bool
    """Whether that operand has a chunk for every rank."""
    has_one_count: bool


class Operands:
    """Chooses among the buffers that are alive, or makes new ones. An `Allocate` that it returns may be either."""

    def __init__(self, topology: Topology, alive: Alive, pulls: bool = False) -> None:
        """`pulls`: a kernel under test reads the sources of its peers."""
        self._world, self._alive, self.pulls = topology.world, alive, pulls
        self._names = 0

    def buffers(self) -> list[Allocate]:
        """The live buffers that actions may use: not those of a graph, which nothing else may write, and no ballast."""
        live = ((buffer.allocation, buffer.graph) for buffer in self._alive.buffers.values())
        return [allocation for allocation, graph in live if isinstance(allocation, Allocate) and graph is None]

    def name(self) -> str:
        """A name that no buffer has had."""
        self._names += 1
        name = f"b{self._names - 1}"
        return self.name() if name in self._alive.names else name

    def whole(self, action: Action, acting: Acting, shape: Shape) -> tuple[Allocate, View, Elements]:
        """The buffer and view of the operand that is always given, and how much each rank contributes."""
        own = [buffer for buffer in self._usable(action.stream) if self._serves(buffer, acting, shape.is_reduced)]
        if own and not action.is_fresh and not action.edge:  # such a size needs room
            chosen = own[action.buffer % len(own)]
            count = self._fitting(action, acting, chosen, shape)
            if count is not None:
                return chosen, View(chosen.buffer, self._offset(action, acting, chosen, shape.needs(count))), count
        dtype = action.dtype if not shape.is_reduced or is_summed_exactly(action.dtype) else "float32"
        count = self.shared(action, acting, self.drawn_count(action, acting, dtype), shape.has_one_count)
        wholes = shape.needs(count)
        needs = {rank: action.offset + whole + action.slack for rank, whole in wholes.items()}
        made = self.new(action, acting, needs, dtype)
        return made, View(made.buffer, self._offset(action, acting, made, wholes)), count

    def _offset(self, action: Action, acting: Acting, buffer: Allocate, wholes: Mapping[int, int]) -> int:
        """Where the whole begins: near the start of its buffer, or as far behind as all ranks have room."""
        if not action.is_far:
            return action.offset
        return max(action.offset, min(at(buffer.elements, rank) - wholes[rank] for rank in acting.ranks))

    def shared(self, action: Action, acting: Acting, count: Elements, has_one_count: bool = False) -> Elements:
        """What each rank contributes, of at most so much."""
        if action.share == "all-idle":
            return 0
        if action.share == "equal" or has_one_count:
            return count
        each = {}
        for group, _ in acting.ids:
            for place, rank in enumerate(group):
                most = at(count, rank)
                if action.share == "one-idle":
                    each[rank] = 0 if place == action.buffer % len(group) else most
                else:
                    each[rank] = max(0, most - place * (1 + action.slack))
        return self._merged(each)

    def part(
        self, action: Action, acting: Acting, whole: Allocate, lengths: Mapping[int, int], is_paired: bool = False
    ) -> tuple[Allocate, View]:
        """The buffer and view of the other operand: ordinary memory, or a window of the same groups. `is_paired`: the
        library makes sends and receives of it."""
        role = self.role(action, whole.dtype, lengths, is_paired)
        needs = {rank: length + action.slack for rank, length in lengths.items()}
        if role == "window":
            needs = _alike(needs, acting)
        for buffer in self._usable(action.stream):
            is_alike = buffer.buffer != whole.buffer and (buffer.role, buffer.dtype) == (role, whole.dtype)
            if is_alike and self._is_held(buffer, acting) and self._has_room(buffer, needs):
                return buffer, View(buffer.buffer, action.slack)
        made = self.new(action, acting, needs, whole.dtype, role, is_roomy=False)
        return made, View(made.buffer, action.slack)

    def role(self, action: Action, dtype: str, lengths: Mapping[int, int], is_paired: bool) -> str:
        """Where the other operand lies. NCCL wants both sides of large sends registered, or neither."""
        is_large = max(lengths.values()) * ITEMSIZE[dtype] > STAGED_BYTES
        is_pulled = self.pulls and action.via == "kernel"
        return "window" if action.part == "window" or is_pulled or (is_paired and is_large) else "plain"

    def drawn_count(self, action: Action, acting: Acting, dtype: str) -> Elements:
        """One count for all ranks, or, spread over the groups that act, one for each group."""
        fits = LARGEST_BYTES // ITEMSIZE[dtype] // max(len(group.ranks) for group in acting.ids)
        count = min(self._count(action, dtype), fits)
        spread = 0 if action.spread == FAR_APART else action.spread
        each = {rank: count + place * spread for place, group in enumerate(acting.ids) for rank in group.ranks}
        return self._merged(each)

    def _count(self, action: Action, dtype: str) -> int:
        """The count that is drawn: as it is, or one below, on or above a power of two in bytes."""
        near = (1 << action.edge) // ITEMSIZE[dtype] + action.buffer % 3 - 1
        count = near if action.edge else action.count
        if action.via == "kernel":
            large = LARGE_KERNEL if action.kind in CHUNKED else LARGEST_KERNEL // max(2, ITEMSIZE[dtype]) + 1
            return min(count, large if action.edge >= LARGE_EDGE else KERNEL_COUNT)
        return count

    def new(
        self,
        action: Action,
        acting: Acting,
        needs: Mapping[int, int],
        dtype: str,
        role: str = "window",
        is_roomy: bool = True,
    ) -> Allocate:
        """A new buffer for what each acting rank needs, in a window for the most that one of its group does. If so
        drawn, a roomy one is filled up to a size-class boundary."""
        if role == "window":
            needs = _alike(needs, acting)
        if is_roomy and action.room:
            # one element below, on, or above the boundary, the guard included
            filled = action.room // ITEMSIZE[dtype] - GUARD + action.buffer % 3 - 1
            needs = {rank: max(need, filled) for rank, need in needs.items()}
        if action.spread == FAR_APART and is_roomy:
            place = {rank: number for number, group in enumerate(acting.ids) for rank in group.ranks}
            needs = {rank: need + min(place[rank], FARTHEST) * FAR_APART for rank, need in needs.items()}
        if action.is_uneven and role == "window":
            needs = {rank: need + rank * (1 + action.spread % FAR_APART) for rank, need in needs.items()}
        elements, name = self._merged(needs), self.name()
        return Allocate(name, acting.family, elements, dtype, role, "local", action.stream, acting.groups)  # type: ignore[arg-type]

    def _merged(self, each: Mapping[int, int]) -> Elements:
        """The number of all, or of each rank; ranks that do not act have none."""
        values = set(each.values())
        return values.pop() if len(values) == 1 else tuple(each.get(rank, 0) for rank in range(self._world))

    def _usable(self, stream: int) -> list[Allocate]:
        """Those whose windows still hold, without what another stream has in flight."""
        flying = self._alive.flight.buffers if self._alive.flight else {}
        held = [buffer for buffer in self.buffers() if not self._alive.buffers[buffer.buffer].is_stale]
        return [buffer for buffer in held if flying.get(buffer.buffer, stream) == stream]

    def _serves(self, buffer: Allocate, acting: Acting, is_reduced: bool) -> bool:
        """Whether collectives of the groups that act may reach peers through a buffer."""
        is_exact = not is_reduced or is_summed_exactly(buffer.dtype)
        return buffer.role == "window" and is_exact and self._is_held(buffer, acting)

    def _is_held(self, buffer: Allocate, acting: Acting) -> bool:
        """Whether all ranks that act hold a buffer; one for windows, for groups with the same communicators, whatever
        the family's name."""
        live = self._alive.buffers[buffer.buffer]
        return live.holders.issuperset(acting.ranks) and (buffer.role == "plain" or {*acting.ids} <= {*live.groups})

    def _has_room(self, buffer: Allocate, needs: Mapping[int, int]) -> bool:
        return all(at(buffer.elements, rank) >= need for rank, need in needs.items())

    def _fitting(self, action: Action, acting: Acting, whole: Allocate, shape: Shape) -> Elements | None:
        """The drawn count, lowered to what an existing buffer holds in every group; None if nothing fits."""
        counts: dict[int, int] = {}
        for group, _ in acting.ids:
            room = min(at(whole.elements, rank) for rank in group) - action.offset
            fits = room // (len(group) if shape.has_chunks else 1)
            if fits < 1:
                return None
            counts |= dict.fromkeys(group, min(fits, self._count(action, whole.dtype)))
        return self.shared(action, acting, self._merged(counts), shape.has_one_count)


def _alike(needs: Mapping[int, int], acting: Acting) -> dict[int, int]:
    """For each rank what the largest of its group needs: windows of different sizes would be a hazard."""
    return {rank: max(map(needs.__getitem__, group)) for group, _ in acting.ids for rank in group}
