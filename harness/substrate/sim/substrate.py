"""The simulation of one rank: arena, device, pools and communicators over the shared memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch

from harness.ipc.memory import SharedMemory
from harness.scenario.layouts.groups import GroupId, GroupIds, ids_of
from harness.scenario.schedule import Schedule
from harness.substrate.base import Substrate
from harness.substrate.communicator import Communicator
from harness.substrate.pool import Pool
from harness.substrate.segment import Segment
from harness.substrate.sim.communicator import EVIDENCE, SimCommunicator
from harness.substrate.sim.device import SimDevice
from harness.substrate.sim.memory import Arena, SimPool
from harness.substrate.sim.schedules.turn import in_turn
from harness.substrate.sim.schedules.witness import Witness
from harness.substrate.sim.views import Views
from harness.trace.accesses import How
from harness.trace.events import Event


class SimSubstrate(Substrate):
    """A rank without a GPU. Nodes are simulated: a group that spans two NVLink domains has no windows."""

    name = "sim"
    compares_always = True

    def __init__(self, rank: int, shared: SharedMemory, evidence: frozenset[str] = frozenset()) -> None:
        super().__init__(rank, shared, evidence)
        start, size = shared.arena(rank)
        self.device: SimDevice = SimDevice(range(shared.base + start, shared.base + start + size))
        self.arena, self.views = Arena(shared, shared.arena(rank)), Views(shared)
        self.workspaces = Arena(shared, shared.workspaces(rank))
        self._witness: Witness | None = None
        """What sees this rank's accesses in a draw by a schedule."""

    def describe(self) -> dict[str, Any]:
        return {"path_evidence": EVIDENCE}

    @contextmanager
    def in_turns(
        self, schedule: Schedule, slots: dict[GroupId, int], record: Callable[[Event], None]
    ) -> Iterator[Callable[[Event], None]]:
        with in_turn(self.rank, self._shared, self.views, schedule, slots, record) as witness:
            self._witness, self.is_in_turns = witness, True
            try:
                yield witness.record
            finally:
                self._witness, self.is_in_turns = None, False

    def touched(self, how: How, *tensors: torch.Tensor) -> None:
        if self._witness is not None:
            for tensor in tensors:
                self._witness.touched(how, tensor)

    def _create(self, families: Sequence[GroupIds]) -> None:
        self.arena = Arena(self._shared, self._shared.arena(self.rank), self.is_falling)
        self.workspaces = Arena(self._shared, self._shared.workspaces(self.rank))
        self.views.forget()  # the draw before may not have come to its end
        for group in chain.from_iterable(ids_of(family, self.rank) for family in families):
            if group not in self.communicators:
                self.communicators[group] = self._communicator(group, generation=0)

    def _communicator(self, group: GroupId, generation: int) -> SimCommunicator:
        return SimCommunicator(
            self.recorder,
            self.device,
            self._rendezvous(group),
            group,
            generation,
            supports_windows=self._is_one_lsa_team(group.ranks),
            slot=self._slots[group],
            shared=self._shared,
            arena=self.arena,
            views=self.views,
            workspaces=self.workspaces,
        )

    def _replace(self, old: Sequence[Communicator], family: GroupIds) -> Sequence[Communicator]:
        for communicator in old:
            communicator.destroyed()
        new = [self._communicator(communicator.id, communicator.generation + 1) for communicator in old]
        for communicator in new:
            communicator.clear_pads()
        return new

    def end(self) -> None:
        self.record_leaks()
        self.recorder.stop()
        for pool in self.pools.values():
            for segment in list(pool.segments):
                segment.close_windows()
                pool.freed(segment.address)
                self.arena.give_back(segment.address)
        self.views.forget()

    def record_unmapped(self) -> None:
        for touched in self.views.touched():
            self.record(touched)

    def written(self, segment: Segment) -> list[tuple[int, int]]:
        base = self._shared.base
        parts = self._shared.written(segment.address - base, segment.size)
        return [(base + offset, size) for offset, size in parts]

    def make_pool(self, name: str) -> Pool:
        return SimPool(self.recorder, name, self.arena, self.device, self.denial)
