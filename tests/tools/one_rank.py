"""A simulated rank inside this process, for tests that need no peers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from harness.ipc.memory import SharedMemory
from harness.ipc.rendezvous import Rendezvous
from harness.scenario.layouts.groups import GroupId
from harness.substrate.pool import Pool
from harness.substrate.sim.communicator import SimCommunicator
from harness.substrate.sim.substrate import SimSubstrate
from harness.trace.events import Event


@dataclass
class Rank:
    """A rank of a world of one, and the events that it has recorded."""

    substrate: SimSubstrate
    memory: SharedMemory
    events: list[Event] = field(default_factory=list)

    def pool(self, name: str = "pool") -> Pool:
        return self.substrate.pool(name)

    def communicator(
        self, slot: int = 0, windows: bool = True, kind: type[SimCommunicator] = SimCommunicator
    ) -> SimCommunicator:
        """A communicator over this rank alone."""
        on = self.substrate
        rendezvous = Rendezvous(self.memory, slot, (0,), 0)
        return kind(
            *(on.recorder, on.device, rendezvous, GroupId((0,)), 0, windows),
            *(slot, self.memory, on.arena, on.views, on.workspaces),
        )


@pytest.fixture(scope="session")
def memory() -> Iterator[SharedMemory]:
    shared = SharedMemory.create(1)
    yield shared
    shared.close()


@pytest.fixture
def rank(memory: SharedMemory) -> Rank:
    """A rank at the start of a draw: nothing recorded, no pool, an empty arena."""
    memory.reset()
    rank = Rank(SimSubstrate(0, memory), memory)
    rank.substrate.start_recording(rank.events.append)
    return rank
