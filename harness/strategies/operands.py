"""The operands of drawn collectives: a buffer that is alive and serves, or a new one with room for what is drawn.

Invariant: without hazards a window buffer is used by its own groups alone, with equal sizes on the ranks of a group,
and not after its communicator was replaced.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from harness.scenario.alive import Alive
from harness.scenario.layouts.groups import GroupIds, Groups
from harness.scenario.operands import GUARD, ITEMSIZE, Elements, View, at, is_summed_exactly
from harness.scenario.steps import Allocate
from harness.scenario.topology import Topology
from harness.strategies.actions import Action

LARGEST_BYTES = 16 << 20
"""A collective's output or source, without what is added to its buffer."""
KERNEL_COUNT = 4097
"""Largest count drawn for kernels: the interpreter pays by the element."""


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


class Operands:
    """Chooses among the buffers that are alive, or makes new ones. An `Allocate` that it returns may be either."""

    def __init__(self, topology: Topology, alive: Alive) -> None:
        self._world, self._alive = topology.world, alive
        self._names = 0

    def buffers(self) -> list[Allocate]:
        """The live buffers that actions may use: not those of a graph, which nothing else may write, and no ballast."""
        live = ((buffer.allocation, buffer.graph) for buffer in self._alive.buffers.values())
        return [allocation for allocation, graph in live if isinstance(allocation, Allocate) and graph is None]

    def name(self) -> str:
        """A name that no buffer has had."""
        self._names += 1
        return f"b{self._names - 1}"

    def whole(self, action: Action, acting: Acting, is_reduced: bool = False) -> tuple[Allocate, Elements]:
        """The buffer that holds every rank's chunk, and how much each rank contributes."""
        own = [buffer for buffer in self._usable() if self._serves(buffer, acting, is_reduced)]
        if own and not action.is_fresh:
            chosen = own[action.buffer % len(own)]
            count = self._fitting(action, acting, chosen)
            if count is not None:
                return chosen, count
        count = self.drawn_count(action, acting)
        dtype = action.dtype if not is_reduced or is_summed_exactly(action.dtype) else "float32"
        needs = {rank: action.offset + at(count, rank) * size + action.slack for rank, size in acting.sizes.items()}
        return self.new(action, acting, needs, dtype), count

    def part(self, action: Action, acting: Acting, whole: Allocate, count: Elements) -> tuple[Allocate, View]:
        """The buffer and view of one chunk: ordinary memory, or a window of the same groups."""
        role = "plain" if action.part == "plain" else "window"
        needs = {rank: at(count, rank) + action.slack for rank in acting.ranks}
        for buffer in self._usable():
            is_alike = buffer.buffer != whole.buffer and (buffer.role, buffer.dtype) == (role, whole.dtype)
            if is_alike and self._is_held(buffer, acting) and self._has_room(buffer, needs):
                return buffer, View(buffer.buffer, action.slack)
        made = self.new(action, acting, needs, whole.dtype, role, is_roomy=False)
        return made, View(made.buffer, action.slack)

    def drawn_count(self, action: Action, acting: Acting) -> Elements:
        """One count for all ranks, or, spread over the groups that act, one for each group."""
        fits = LARGEST_BYTES // 4 // max(len(group.ranks) for group in acting.ids)
        count = min(action.count, fits, KERNEL_COUNT if action.via == "kernel" else action.count)
        each = {rank: count + place * action.spread for place, group in enumerate(acting.ids) for rank in group.ranks}
        return self._merged(each)

    def new(
        self,
        action: Action,
        acting: Acting,
        needs: Mapping[int, int],
        dtype: str,
        role: str = "window",
        is_roomy: bool = True,
    ) -> Allocate:
        """A new buffer for what each acting rank needs. If so drawn, a roomy one is filled up to a size-class
        boundary."""
        if is_roomy and action.room:
            # one element below, on, or above the boundary, the guard included
            filled = action.room // ITEMSIZE[dtype] - GUARD + action.buffer % 3 - 1
            needs = {rank: max(need, filled) for rank, need in needs.items()}
        if action.is_uneven and role == "window":
            needs = {rank: need + rank * (1 + action.spread) for rank, need in needs.items()}
        elements, name = self._merged(needs), self.name()
        return Allocate(name, acting.family, elements, dtype, role, "local", action.stream, acting.groups)  # type: ignore[arg-type]

    def _merged(self, each: Mapping[int, int]) -> Elements:
        """The number of all, or of each rank; ranks that do not act have none."""
        values = set(each.values())
        return values.pop() if len(values) == 1 else tuple(each.get(rank, 0) for rank in range(self._world))

    def _usable(self) -> list[Allocate]:
        """Those whose windows still hold."""
        return [buffer for buffer in self.buffers() if not self._alive.buffers[buffer.buffer].is_stale]

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

    def _fitting(self, action: Action, acting: Acting, whole: Allocate) -> Elements | None:
        """The drawn count, lowered to what an existing buffer holds in every group; None if nothing fits."""
        counts: dict[int, int] = {}
        for group, _ in acting.ids:
            room = min(at(whole.elements, rank) for rank in group) - action.offset
            fits = room // len(group)
            if fits < 1:
                return None
            wanted = min(action.count, KERNEL_COUNT) if action.via == "kernel" else action.count
            counts |= dict.fromkeys(group, min(fits, wanted))
        return self._merged(counts)
