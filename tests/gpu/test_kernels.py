"""The built-in kernels on a GPU, on sizes and addresses that programs do not have: bit for bit, on new random data.

Two ranks share a GPU where there is one. A case takes up to 12 GiB a rank.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import judge
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.world.world import World
from tests.tools.large_calls import CASES, SMALL

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(280)]
PAIR = Topology("pair", "sglang", {"tp": 2})


@pytest.fixture(scope="module")
def pair() -> Iterator[World]:
    with World(2, "nccl", deadline=240) as world:
        yield world


@pytest.mark.parametrize("case", CASES | SMALL)
def test_a_call_is_right_to_the_last_bit(pair: World, case: str) -> None:
    steps = Allocate("a", "tp", 64), AllGather("tp", View("a"), 32, via="kernel")
    draw = pair.run(Scenario(PAIR, steps, System(f"tests.tools.large_calls:{case}")))
    assert [str(finding) for finding in judge(draw)] == []
