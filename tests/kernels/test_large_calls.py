"""The calls of tests/gpu/test_kernels.py on the simulation, in small: they are right, and would find a wrong kernel."""

from __future__ import annotations

import pytest
import torch

from harness import judge
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.substrate.bits import bits
from harness.world.world import World
from tests.tools.large_calls import KINDS, SMALL, Call, Case, LargeCall

PAIR = Topology("pair", "sglang", {"tp": 2})
STEPS = Allocate("a", "tp", 64), AllGather("tp", View("a"), 32)


@pytest.mark.parametrize("case", [name for name in SMALL if "bfloat16" in name and "unaligned" in name])
def test_calls_of_the_built_in_kernels_are_right(simulation: World, case: str) -> None:
    assert judge(simulation.run(Scenario(PAIR, STEPS, System(f"tests.tools.large_calls:{case}")))) == []


class Wrong(Call):
    """Changes the last bit of a result."""

    def make(self, output: torch.Tensor, source: torch.Tensor) -> None:
        super().make(output, source)
        bits(output)[-1:].bitwise_xor_(1)


def wrong(kind: str) -> type[LargeCall]:
    return type(kind, (LargeCall,), {"case": Case(kind, "bfloat16", 1000), "call": Wrong})


all_gather, all_to_all, broadcast, reduce_scatter, all_reduce = map(wrong, KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_one_wrong_bit_is_found(simulation: World, kind: str) -> None:
    (finding,) = judge(simulation.run(Scenario(PAIR, STEPS, System(f"{__name__}:{kind}"))))
    assert (finding.rule, "wrong elements on ranks {0: 1, 1: 1}" in str(finding)) == ("raised", True)
