"""One simulated world for every test of the oracle; it restarts its ranks by itself after a crash or hang."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.world import World


@pytest.fixture(scope="session")
def ranks() -> Iterator[World]:
    """Four ranks; smaller scenarios take the first ones."""
    with World(4, "sim") as world:
        yield world
