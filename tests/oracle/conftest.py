"""One simulated world for every test of the oracle; it restarts its ranks by itself after a crash or hang."""

from __future__ import annotations

import pytest

from harness.world.world import World


@pytest.fixture(scope="session")
def ranks(simulation: World) -> World:
    return simulation
