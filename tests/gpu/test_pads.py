"""Signal pads and barriers on the device, which need a GPU for each rank."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import judge
from harness.machine import gpus
from harness.oracle.case import Case
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Recreate, ReduceScatter
from harness.scenario.topology import Topology
from harness.world.world import World

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(120)]
PAIR = Topology("pair", "sglang", {"tp": 2})
CALLS = (
    Allocate("a", "tp", 2048, "bfloat16"),
    AllGather("tp", View("a"), 1000, via="kernel"),
    ReduceScatter("tp", View("a"), 1000, via="kernel"),
)
AGAIN = (Recreate("tp"), Allocate("b", "tp", 64), AllGather("tp", View("b"), 32, via="kernel"))


@pytest.fixture(scope="module")
def apart() -> Iterator[World]:
    if len(gpus.inventory()) < 2:
        pytest.skip("two ranks need a GPU each, and fewer than two are visible")
    with World(2, "nccl", deadline=60) as world:
        yield world


def test_a_communicator_has_pads_when_a_kernel_asks_and_again_when_it_is_created_anew(apart):
    for _ in range(2):
        draw = apart.run(Scenario(PAIR, (*CALLS, *AGAIN)))
        paths = [use.ran.path for uses in Case(draw).calls.values() for use in uses if use.ran]
        assert (judge(draw), paths) == ([], ["kernel"] * 6)
