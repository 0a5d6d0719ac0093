"""The system of the recorded nights: each of its three mistakes shows, and a program beside them is clean."""

from __future__ import annotations

import pytest

from harness import judge
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, ReduceScatter, Release, Step, Trim
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.world.world import World

THREE = Topology("three", "sglang", {"tp": 3})
SYSTEM = System("examples.night:Pool", "examples.night:Kernels")


def gathered(dtype: str) -> tuple[Step, ...]:
    return Allocate("a", "tp", 6, dtype), AllGather("tp", View("a"), 2, via="kernel")  # type: ignore[arg-type]


def scattered(op: str) -> tuple[Step, ...]:
    return Allocate("a", "tp", 6), ReduceScatter("tp", View("a"), 2, op=op, via="kernel")  # type: ignore[arg-type]


def freed(elements: int) -> tuple[Step, ...]:
    return Allocate("a", "tp", elements), Release("a"), Trim()


@pytest.mark.parametrize(
    ("steps", "rules"),
    [
        (gathered("bfloat16"), ["wrong-data"]),
        (gathered("float32"), []),
        (scattered("avg"), ["wrong-data"]),
        (scattered("sum"), []),
        (freed(2 << 20), ["freed-while-registered", "leak"]),
        (freed(8), []),
    ],
)
def test_each_mistake_shows_and_nothing_else(simulation: World, steps: tuple[Step, ...], rules: list[str]) -> None:
    found = judge(simulation.run(Scenario(THREE, steps, SYSTEM)))
    assert [*dict.fromkeys(finding.rule for finding in found)] == rules
