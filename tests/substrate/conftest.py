"""One rank of the simulation in this process, and ranks as processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.ipc.memory import SharedMemory
from harness.substrate.sim.substrate import SimSubstrate
from harness.world.world import World
from tests.tools.one_rank import Rank


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


@pytest.fixture(scope="session")
def ranks(simulation: World) -> World:
    return simulation
