"""One simulated world for all tests of a process that need nothing special of it, and one zygote for all others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.world.platform import choose
from harness.world.world import World
from harness.world.zygote import SHARED


@pytest.fixture(scope="session", autouse=True)
def zygote() -> Iterator[None]:
    """Starting one imports torch and Triton; the first simulation starts it, and the next ones find it."""
    platform = choose("sim", 1)
    with SHARED.keep(platform.environment, platform.preload):
        yield


@pytest.fixture(scope="session")
def simulation() -> Iterator[World]:
    """Four ranks; smaller scenarios take the first ones. It restarts its ranks by itself after a crash or hang."""
    with World(4, "sim") as world:
        yield world
