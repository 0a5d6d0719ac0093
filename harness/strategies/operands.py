"""The operands of drawn collectives: a buffer that is alive and serves, or a new one with room for what is drawn.

Invariant: without hazards a window buffer is used by its own groups alone, with equal sizes on the ranks of a group,
and not after its communicator was replaced.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.scenario.alive import Alive
from harness.scenario.operands import GUARD, ITEMSIZE, Elements, View, at, is_summed_exactly
from harness.scenario.steps import Allocate
from harness.scenario.topology import Topology
from harness.strategies.actions import Action

LARGEST_BYTES = 16 << 20
"""A collective's output or source, without what is added to its buffer."""
KERNEL_COUNT = 4097
"""Largest count drawn for kernels: the interpreter pays by the element."""


class Operands:
    """Chooses among the buffers that are alive, or makes new ones. An `Allocate` that it returns may be either."""

    def __init__(self, topology: Topology, alive: Alive) -> None:
        self._topology, self._alive = topology, alive
        self._names = 0

    def buffers(self) -> list[Allocate]:
        """The live buffers that actions may use: not those of a graph, which nothing else may write, and no ballast."""
        live = ((buffer.allocation, buffer.graph) for buffer in self._alive.buffers.values())
        return [allocation for allocation, graph in live if isinstance(allocation, Allocate) and graph is None]

    def name(self) -> str:
        """A name that no buffer has had."""
        self._names += 1
        return f"b{self._names - 1}"

    def whole(self, action: Action, family: str, is_reduced: bool = False) -> tuple[Allocate, Elements]:
        """The buffer that holds every rank's chunk, and how much each rank contributes."""
        own = [buffer for buffer in self._usable() if self._serves(buffer, family, is_reduced)]
        if own and not action.is_fresh:
            chosen = own[action.buffer % len(own)]
            count = self._fitting(action, family, chosen)
            if count is not None:
                return chosen, count
        count = self.drawn_count(action, family)
        dtype = action.dtype if not is_reduced or is_summed_exactly(action.dtype) else "float32"
        ranks = range(self._topology.world)
        needs = [action.offset + at(count, rank) * self.size(family, rank) + action.slack for rank in ranks]
        return self.new(action, family, needs, dtype), count

    def part(self, action: Action, family: str, whole: Allocate, count: Elements) -> tuple[Allocate, View]:
        """The buffer and view of one chunk: ordinary memory, or a window of the same groups."""
        role = "plain" if action.part == "plain" else "window"
        needs = [at(count, rank) + action.slack for rank in range(self._topology.world)]
        for buffer in self._usable():
            is_alike = buffer.buffer != whole.buffer and (buffer.role, buffer.dtype) == (role, whole.dtype)
            has_room = all(at(buffer.elements, rank) >= need for rank, need in enumerate(needs))
            if is_alike and has_room and (role == "plain" or self._has_groups_of(buffer, family)):
                return buffer, View(buffer.buffer, action.slack)
        made = self.new(action, family, needs, whole.dtype, role, is_roomy=False)
        return made, View(made.buffer, action.slack)

    def drawn_count(self, action: Action, family: str) -> Elements:
        """One count for all ranks, or, spread over the groups of a family, one for each group."""
        groups = self._topology.families[family]
        fits = LARGEST_BYTES // 4 // max(len(group) for group in groups)
        count = min(action.count, fits, KERNEL_COUNT if action.via == "kernel" else action.count)
        if action.spread == 0 or len(groups) == 1:
            return count
        per_group = {rank: count + index * action.spread for index, group in enumerate(groups) for rank in group}
        return tuple(per_group[rank] for rank in range(self._topology.world))

    def size(self, family: str, rank: int) -> int:
        """Ranks of the group that `rank` is in."""
        return len(self._topology.group(family, rank))

    def new(
        self,
        action: Action,
        family: str,
        needs: Sequence[int],
        dtype: str,
        role: str = "window",
        is_roomy: bool = True,
    ) -> Allocate:
        """A new buffer for what each rank needs. If so drawn, a roomy one is filled up to a size-class boundary."""
        if is_roomy and action.room:
            # one element below, on, or above the boundary, the guard included
            filled = action.room // ITEMSIZE[dtype] - GUARD + action.buffer % 3 - 1
            needs = [max(need, filled) for need in needs]
        if action.is_uneven and role == "window":
            needs = [need + rank * (1 + action.spread) for rank, need in enumerate(needs)]
        elements = needs[0] if len(set(needs)) == 1 else tuple(needs)
        return Allocate(self.name(), family, elements, dtype, role, stream=action.stream)  # type: ignore[arg-type]

    def _usable(self) -> list[Allocate]:
        """Those whose windows still hold."""
        return [buffer for buffer in self.buffers() if not self._alive.buffers[buffer.buffer].is_stale]

    def _serves(self, buffer: Allocate, family: str, is_reduced: bool) -> bool:
        """Whether collectives of `family` may reach peers through a buffer."""
        is_exact = not is_reduced or is_summed_exactly(buffer.dtype)
        return buffer.role == "window" and is_exact and self._has_groups_of(buffer, family)

    def _has_groups_of(self, buffer: Allocate, family: str) -> bool:
        """Whether a buffer was asked for under a family with the same communicators, by whatever name."""
        return self._topology.ids[buffer.family] == self._topology.ids[family]

    def _fitting(self, action: Action, family: str, whole: Allocate) -> Elements | None:
        """The drawn count, lowered to what an existing buffer holds in every group; None if nothing fits."""
        counts: dict[int, int] = {}
        for group in self._topology.families[family]:
            room = min(at(whole.elements, rank) for rank in group) - action.offset
            fits = room // len(group)
            if fits < 1:
                return None
            wanted = min(action.count, KERNEL_COUNT) if action.via == "kernel" else action.count
            counts |= dict.fromkeys(group, min(fits, wanted))
        ordered = tuple(counts[rank] for rank in range(self._topology.world))
        return ordered[0] if len(set(ordered)) == 1 else ordered
