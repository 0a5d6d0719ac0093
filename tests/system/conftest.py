"""One rank of the simulation in this process, and ranks as processes."""

from __future__ import annotations

import pytest

from harness.world.world import World
from tests.tools.one_rank import memory, rank

__all__ = ["memory", "rank"]


@pytest.fixture(scope="session")
def ranks(simulation: World) -> World:
    return simulation
