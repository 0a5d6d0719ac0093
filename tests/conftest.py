"""One simulated world for all tests of a process that need nothing special of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.world.world import World


@pytest.fixture(scope="session")
def simulation() -> Iterator[World]:
    """Four ranks; smaller scenarios take the first ones. It restarts its ranks by itself after a crash or hang."""
    with World(4, "sim") as world:
        yield world
