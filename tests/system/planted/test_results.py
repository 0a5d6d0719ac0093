"""The sound collectives in functional form are exact, and each planted class has a fault of the catalogue."""

from __future__ import annotations

import inspect
import re

import pytest

from harness.scenario.operands import View
from harness.scenario.steps import AllGather, Allocate, ReduceScatter
from harness.studies.faults.catalogue import FAULTS
from harness.system.planted.kernels import BLOCK
from harness.system.planted.results import ClearsLate, ReturnsItsScratch
from harness.world.world import World
from tests.tools.scenes import SQUARE, findings, rules, scenario

KERNELS = "harness.system.planted.results"


def broken(ranks: World, kernel: str, count: int, dtype: str) -> list[str]:
    """The rules that two all-gathers and a reduce-scatter of `count` elements a rank break."""
    steps = (
        Allocate("a", "tp", 4 * count, dtype),  # type: ignore[arg-type]
        Allocate("b", "tp", 4 * count, dtype),  # type: ignore[arg-type]
        AllGather("tp", View("a"), count, via="kernel"),
        AllGather("tp", View("b"), count, via="kernel"),
        ReduceScatter("tp", View("a"), count, via="kernel"),
    )
    return rules(findings(ranks, scenario(*steps, topology=SQUARE, kernels=f"{KERNELS}:{kernel}")))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32"])
@pytest.mark.parametrize("count", [1, BLOCK, BLOCK + 1])
def test_the_sound_ones_are_exact_on_both_sides_of_a_block(count: int, dtype: str, ranks: World) -> None:
    assert broken(ranks, "SoundResults", count, dtype) == []


@pytest.mark.parametrize("count", [1, BLOCK + 1])
@pytest.mark.parametrize("kernel", ["ReturnsItsScratch", "ClearsLate"])
def test_a_planted_one_loses_a_result(kernel: str, count: int, ranks: World) -> None:
    assert broken(ranks, kernel, count, "bfloat16")[0] == "result-overwritten"


@pytest.mark.parametrize("planted", [ClearsLate, ReturnsItsScratch])
def test_a_planted_one_names_a_fault_of_the_catalogue(planted: type) -> None:
    (named,) = re.findall(r"\bK\d\d\b", inspect.getdoc(planted) or "")
    assert named in {fault.id for fault in FAULTS}
