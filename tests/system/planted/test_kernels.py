"""The sound kernels are exact, and each planted one is a sound one with a fault of the catalogue."""

from __future__ import annotations

import inspect
import re

import pytest

from harness.scenario.operands import View
from harness.scenario.steps import AllGather, Allocate, ReduceScatter
from harness.studies.faults.catalogue import FAULTS
from harness.system.planted import kernels
from harness.system.planted.kernels import BLOCK, SoundKernels
from harness.world.world import World
from tests.tools.scenes import SQUARE, findings, rules, scenario

PLANTED = [each for each in SoundKernels.__subclasses__() if each.__module__ == SoundKernels.__module__]
COUNTS = [1, BLOCK, BLOCK + 1]


def broken(ranks: World, kernel: str, count: int, dtype: str = "bfloat16") -> list[str]:
    """The rules that an all-gather and a reduce-scatter of `count` elements a rank break."""
    steps = (
        Allocate("a", "tp", 4 * count, dtype),  # type: ignore[arg-type]
        AllGather("tp", View("a"), count, via="kernel"),
        ReduceScatter("tp", View("a"), count, via="kernel"),
    )
    return rules(findings(ranks, scenario(*steps, topology=SQUARE, kernels=f"{kernels.__name__}:{kernel}")))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32"])
@pytest.mark.parametrize("count", COUNTS)
def test_the_sound_kernels_are_exact_on_both_sides_of_a_block(count: int, dtype: str, ranks: World) -> None:
    assert broken(ranks, "SoundKernels", count, dtype) == []


@pytest.mark.parametrize(
    ("kernel", "count"),
    [("LosesLastPeer", 1), ("MissesTail", BLOCK + 1), ("AddsInBfloat16", 7), ("Overruns", 7)],
)
def test_a_planted_kernel_breaks_a_rule(kernel: str, count: int, ranks: World) -> None:
    assert broken(ranks, kernel, count)


def test_a_missing_tail_does_not_show_where_there_is_none(ranks: World) -> None:
    assert broken(ranks, "MissesTail", BLOCK) == []


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_kernel_names_faults_of_the_catalogue(planted: type) -> None:
    named = re.findall(r"\b[FK]\d\d\b", inspect.getdoc(planted) or "")
    assert named
    assert {*named} <= {fault.id for fault in FAULTS}
