"""A world of one rank in this process, at the start of a draw."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.ipc.memory import SharedMemory
from harness.substrate.sim.substrate import SimSubstrate
from tests.tools.one_rank import Rank


@pytest.fixture(scope="session")
def shared() -> Iterator[SharedMemory]:
    memory = SharedMemory.create(1)
    yield memory
    memory.close()


@pytest.fixture
def alone(shared: SharedMemory) -> Rank:
    """Its one communicator has number 0 and group (0,)."""
    shared.reset()
    rank = Rank(SimSubstrate(0, shared), shared)
    rank.substrate.start_recording(rank.events.append)
    rank.substrate.begin([((0,),)], [0], {(0,): 0})
    return rank
