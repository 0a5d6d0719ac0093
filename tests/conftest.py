"""One simulated world for all tests of a process that need nothing special of it, and one zygote for all others.

Files that take long come first, so that no worker of `--dist loadfile` is left with one at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.world.platform import choose
from harness.world.world import World
from harness.world.zygote import SHARED

LONG = (
    "studies/faults/test_proof.py",
    "cli/test_studies.py",
    "plugin/test_killed_runs.py",
    "plugin/test_workers.py",
    "plugin/test_properties.py",
    "test_interrupts.py",
    "cli/nights/test_killed.py",
    "examples/test_fleets.py",
    "world/test_world.py",
    "rank/state/test_fingerprint.py",
    "cli/test_bisection.py",
    "cli/test_main.py",
    "cli/test_fuzz.py",
    "oracle/rules/test_memory.py",
    "oracle/rules/test_fate.py",
    "cli/test_agree.py",
    "substrate/test_uneven_collectives.py",
    "campaign/smaller/test_shrinking.py",
    "studies/agree/test_comparison.py",
    "world/test_launcher.py",
    "plugin/test_hooks.py",
    "world/test_ranks.py",
    "campaign/test_campaign.py",
)
"""Files of 8 seconds and more, in the order of what they took."""
PLACES = {Path(__file__).parent / name: place for place, name in enumerate(LONG)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: PLACES.get(item.path, len(PLACES)))


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
