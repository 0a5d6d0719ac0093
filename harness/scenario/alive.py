"""What is alive while a program runs: its buffers, its graphs, and the communicators that they rest on.

Invariant: the account follows from the steps alone, so it is the same on every rank. It refuses nothing; which step may
follow is for `harness.scenario.validity`, which looks at the account before the step.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from harness.scenario.bases import BaseStep, CollectiveStep
from harness.scenario.layouts.groups import GroupId, GroupIds
from harness.scenario.operands import View
from harness.scenario.steps import (
    Allocate,
    Allocation,
    Ballast,
    Capture,
    EndCapture,
    GraphStep,
    InFlight,
    Prepare,
    Recreate,
    Release,
    Step,
)
from harness.scenario.topology import Topology


@dataclass
class LiveBuffer:
    """A buffer that was allocated and not released."""

    allocation: Allocation
    groups: GroupIds
    """The groups for which it was allocated, each rank of which holds one."""
    graph: str | None = None
    """The graph in whose preparation or capture it was allocated."""
    is_stale: bool = False
    """Whether communicators of its groups were replaced since: no window of it holds any more."""

    @property
    def holders(self) -> frozenset[int]:
        """The ranks that hold it."""
        if self.allocation.rank is not None:
            return frozenset({self.allocation.rank})
        return frozenset(rank for group in self.groups for rank in group.ranks)


@dataclass
class Graph:
    """A graph that was prepared or captured."""

    name: str
    state: Literal["prepared", "capturing", "captured"] = "prepared"
    own: set[str] = field(default_factory=set)
    """Buffers allocated in its capture. Their memory stays with the graph when they are released."""
    used: set[str] = field(default_factory=set)
    """Buffers from outside that its collectives use."""
    groups: set[GroupId] = field(default_factory=set)
    """Groups whose communicators its collectives run on."""
    warmed: set[object] = field(default_factory=set)
    """The kernel calls of its warm-up, as `Alive.likeness` has them."""
    ended_by: Release | Recreate | None = None
    """The last step that took away what it needs, so that it cannot be replayed; None while it can."""


@dataclass
class Flight:
    """Calls that nothing has waited for yet."""

    buffers: dict[str, int] = field(default_factory=dict)
    """The stream on which each buffer was used, or allocated since they began."""
    groups: dict[GroupId, int] = field(default_factory=dict)
    """The stream on which each communicator has kernels."""

    def take(self, step: BaseStep, acting: GroupIds) -> None:
        """Note what an allocation or a call uses. `acting`: the groups in which it runs."""
        self.buffers |= dict.fromkeys(step.buffers, step.stream)
        if isinstance(step, CollectiveStep) and step.via == "kernel":
            self.groups |= dict.fromkeys(acting, step.stream)


class Alive:
    """The account of one program on one topology. Give it each step that has run, in order."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.buffers: dict[str, LiveBuffer] = {}
        """In the order of their allocation."""
        self.names: set[str] = set()
        """Every buffer so far, alive or released."""
        self.graphs: dict[str, Graph] = {}
        self.open: Graph | None = None
        """The graph that is being prepared or captured."""
        self.flight: Flight | None = None
        """The calls in flight, where the program does not wait for each."""

    @property
    def capturing(self) -> Graph | None:
        """The graph that is being captured."""
        return self.open if self.open is not None and self.open.state == "capturing" else None

    def take(self, step: Step) -> None:
        """Account for a step that has run."""
        if isinstance(step, Allocate | Ballast):
            self._allocated(step)
        elif isinstance(step, Release):
            self._released(step)
        elif isinstance(step, CollectiveStep):
            self._called(step)
        elif isinstance(step, Recreate):
            self._replaced(step)
        elif isinstance(step, InFlight):
            self.flight = Flight() if step.begins else None
        elif isinstance(step, GraphStep):
            self._on_graph(step)

    def _allocated(self, step: Allocation) -> None:
        self.names.add(step.buffer)
        acting = self.topology.acting(step.family, step.groups)
        self.buffers[step.buffer] = LiveBuffer(step, acting, None if self.open is None else self.open.name)
        if self.capturing is not None:
            self.capturing.own.add(step.buffer)
        if self.flight is not None:
            self.flight.take(step, acting)

    def _released(self, step: Release) -> None:
        del self.buffers[step.buffer]
        for graph in self.graphs.values():
            # a captured kernel keeps its addresses, and this memory may go to another buffer
            if step.buffer in graph.used:
                graph.ended_by = step

    def likeness(self, step: CollectiveStep) -> object:
        """A call without the names of its buffers: calls that are alike run the same compiled kernels."""
        dtype = self.buffers[step.whole.buffer].allocation.dtype
        views = {
            name: view and View("", view.offset) for name, view in (("source", step.source), ("output", step.output))
        }
        return dtype, msgspec.structs.replace(step, **views)

    def _called(self, step: CollectiveStep) -> None:
        if self.open is not None and self.open.state == "prepared" and step.via == "kernel":
            self.open.warmed.add(self.likeness(step))
        if (graph := self.capturing) is not None:
            graph.used |= step.buffers - graph.own
            graph.groups |= {*self.topology.acting(step.family, step.groups)}
        if self.flight is not None:
            self.flight.take(step, self.topology.acting(step.family, step.groups))

    def _replaced(self, step: Recreate) -> None:
        """Families may share communicators, so that what another family named may be concerned too."""
        replaced = {*self.topology.ids[step.family]}
        for buffer in self.buffers.values():
            buffer.is_stale |= not replaced.isdisjoint(buffer.groups)
        for graph in self.graphs.values():
            if not replaced.isdisjoint(graph.groups):
                graph.ended_by = step

    def _on_graph(self, step: GraphStep) -> None:
        if isinstance(step, Prepare | Capture):
            self.open = self.graphs.setdefault(step.graph, Graph(step.graph))
            self.open.state = "prepared" if isinstance(step, Prepare) else "capturing"
        elif isinstance(step, EndCapture):
            self.graphs[step.graph].state, self.open = "captured", None


def without(steps: tuple[Step, ...], dropped: Collection[int]) -> tuple[Step, ...]:
    """The steps that are left when those at `dropped` go, with all that cannot be without them.

    With an allocation go the steps on its buffer, with a capture those on its graph.
    """
    left_out = [steps[index] for index in dropped if index < len(steps)]
    buffers = {step.allocates for step in left_out}
    graphs = {step.graph for step in left_out if isinstance(step, Capture)}
    return tuple(
        step
        for index, step in enumerate(steps)
        if index not in dropped and buffers.isdisjoint(step.buffers) and step.graph not in graphs
    )
