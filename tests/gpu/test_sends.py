"""Sends of which one side is registered, in graphs: what `half-registered` says, as NCCL loses them."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import PropertyMock

import pytest

from harness import judge
from harness.machine import nccl
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    Allocate,
    AllToAll,
    Capture,
    Collective,
    EndCapture,
    Prepare,
    Release,
    Replay,
    SendReceive,
    Step,
)
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.world.world import World

SMALL, LARGE = 4096, 4097
"""fp32 elements of which a rank sends as many as NCCL stages, and one more."""
LATER = 20
"""Draws after a lost send."""
SEEN = (2, 32, 3)
"""The NCCL that was asked."""
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(240),
    pytest.mark.skipif((nccl.version() or SEEN) != SEEN, reason="other versions of NCCL were not asked"),
]
TOPOLOGY = Topology("tp2", "sglang", {"tp": 2})


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(2, "nccl", deadline=8) as made:
        yield made


def scenario(*steps: Step) -> Scenario:
    return Scenario(TOPOLOGY, steps, System("deferred"))


def captured(call: Collective, output: str, source: str) -> Scenario:
    """A graph of a large call, behind a small one that warms up, replayed once."""
    small = (
        *(Allocate(name, "tp", 2, role=role) for name, role in (("w", output), ("v", source))),  # type: ignore[arg-type]
        *(AllToAll("tp", View("w"), 1, View("v")), Release("w"), Release("v")),
    )
    return scenario(
        *(Prepare("g"), *small, Capture("g")),
        *(Allocate(name, "tp", 8494, role=role) for name, role in (("o", output), ("s", source))),  # type: ignore[arg-type]
        *(call, EndCapture("g"), Replay("g")),
    )


def even(count: int) -> Collective:
    return AllToAll("tp", View("o"), count, View("s"))


def ring(count: int) -> Collective:
    return SendReceive("tp", View("o"), count, View("s"), 1)


def rules(world: World, run: Scenario) -> list[str]:
    return [finding.rule for finding in judge(world.run(run))]


@pytest.mark.parametrize("call", [even, ring])
@pytest.mark.parametrize(("output", "source"), [("window", "plain"), ("plain", "window")])
def test_a_captured_send_of_which_one_side_is_registered_is_lost(
    world: World, output: str, source: str, call: object
) -> None:
    assert rules(world, captured(call(LARGE), output, source))[0] == "half-registered"  # type: ignore[operator]


@pytest.mark.parametrize("call", [even, ring])
@pytest.mark.parametrize(
    ("output", "source", "count"),
    [("window", "window", LARGE), ("plain", "plain", LARGE), ("window", "plain", SMALL), ("plain", "window", SMALL)],
)
def test_a_captured_send_whose_sides_are_alike_or_that_is_staged_arrives(
    world: World, output: str, source: str, count: int, call: object
) -> None:
    assert rules(world, captured(call(count), output, source)) == []  # type: ignore[operator]


def after_a_lost_send(world: World) -> set[str]:
    """What right draws break that follow one."""
    steps = Allocate("o", "tp", 8494), Allocate("s", "tp", 8494), even(LARGE)
    found: set[str] = set()
    for _ in range(4):
        assert rules(world, captured(even(LARGE), "window", "plain"))
        for _ in range(LATER):
            found |= {*rules(world, scenario(*steps))}
    return found


def test_right_draws_after_a_lost_send_are_right(world: World) -> None:
    assert after_a_lost_send(world) == set()


def test_they_are_not_on_ranks_that_are_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the test above can fail."""
    monkeypatch.setattr(World, "_keeps_connections", PropertyMock(return_value=False))
    assert after_a_lost_send(world)
