"""The simulation of one rank: arena, pools, streams and communicators over the shared memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from harness.ipc.memory import SharedMemory
from harness.scenario.layout import Group, Partition, group_of
from harness.substrate.base import Graph, Substrate
from harness.substrate.pool import Pool
from harness.substrate.sim.communicator import EVIDENCE, SimCommunicator
from harness.substrate.sim.memory import Arena, SimPool, tensor_at


class SimGraph:
    """Device work in the order of its capture."""

    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []

    def replay(self) -> None:
        for work in self.work:
            work()


class SimSubstrate(Substrate):
    """A rank without a GPU. Nodes are simulated: a group that spans two has no windows."""

    name = "sim"
    device = torch.device("cpu")
    device_barrier = True

    def __init__(self, rank: int, shared: SharedMemory, evidence: frozenset[str] = frozenset()) -> None:
        super().__init__(rank, evidence)
        self.shared = shared
        self.arena = Arena(shared, rank)
        self.current_stream = 0
        self._graph: SimGraph | None = None
        self._node_of: Sequence[int] = ()
        self._slots: dict[Group, int] = {}

    def describe(self) -> dict[str, Any]:
        return {"path_evidence": EVIDENCE}

    def begin(self, partitions: Sequence[Partition], node_of: Sequence[int], slots: dict[Group, int]) -> None:
        self._node_of, self._slots = node_of, slots
        self.arena = Arena(self.shared, self.rank)
        self.communicators.clear()
        for partition in partitions:
            group = group_of(partition, self.rank)
            if group not in self.communicators:
                self.communicators[group] = self._communicator(group, generation=0)

    def _communicator(self, group: Group, generation: int) -> SimCommunicator:
        one_node = len({self._node_of[rank] for rank in group}) == 1
        return SimCommunicator(self, group, generation, one_node, self._slots[group])

    def recreate(self, partition: Partition) -> None:
        group = group_of(partition, self.rank)
        old = self.communicators[group]
        old.entered("recreate")
        old.barrier()
        old.destroyed()
        self.communicators[group] = self._communicator(group, old.generation + 1)

    def end(self) -> None:
        self.record_leaks()
        self.record = lambda event: None
        for pool in self.pools.values():
            for segment in list(pool.segments):
                for window in list(segment.windows):
                    window.communicator.deregister(window)
                pool.freed(segment.address)
                self.arena.give_back(segment.address)

    def make_pool(self, name: str) -> Pool:
        return SimPool(self, name)

    @contextmanager
    def stream(self, index: int) -> Iterator[None]:
        before, self.current_stream = self.current_stream, index
        try:
            yield
        finally:
            self.current_stream = before

    def record_stream(self, tensor: torch.Tensor) -> None:
        """Nothing: what is enqueued here is done at once."""

    @contextmanager
    def capture(self) -> Iterator[Graph]:
        self._graph = graph = SimGraph()
        try:
            yield graph
        finally:
            self._graph = None

    @property
    def is_capturing(self) -> bool:
        return self._graph is not None

    def enqueue(self, work: Callable[[], None]) -> None:
        """Run a piece of device work, or record it while a capture is under way."""
        if self._graph is None:
            work()
        else:
            self._graph.work.append(work)

    def view(self, address: int, size: int) -> torch.Tensor:
        return tensor_at(address, size, torch.uint8)

    def synchronize(self) -> None:
        pass
