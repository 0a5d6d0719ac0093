"""The sound kernels are exact, and each planted one is a sound one with a fault of the catalogue."""

from __future__ import annotations

import inspect
import re

import pytest

from harness.scenario.operands import View
from harness.scenario.steps import AllGather, Allocate, ReduceScatter
from harness.studies.faults.catalogue import FAULTS
from harness.system.planted import kernels
from harness.system.planted.kernels import BLOCK, ChangesResult, SoundKernels
from harness.world.world import World
from tests.tools.scenes import SQUARE, findings, rules, scenario

PLANTED = [
    each
    for each in (*SoundKernels.__subclasses__(), *ChangesResult.__subclasses__())
    if each.__module__ == SoundKernels.__module__ and each is not ChangesResult
]
COUNTS = [1, BLOCK, BLOCK + 1]


def broken(ranks: World, kernel: str, count: int, dtype: str = "bfloat16") -> list[str]:
    """The rules that an all-gather and a reduce-scatter of `count` elements a rank break."""
    steps = (
        Allocate("a", "tp", 4 * count, dtype),  # type: ignore[arg-type]
        AllGather("tp", View("a"), count, via="kernel"),
        ReduceScatter("tp", View("a"), count, via="kernel"),
    )
    return rules(findings(ranks, scenario(*steps, topology=SQUARE, kernels=f"{kernels.__name__}:{kernel}")))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int32", "int8", "uint8"])
@pytest.mark.parametrize("count", COUNTS)
def test_the_sound_kernels_are_exact_on_both_sides_of_a_block(count: int, dtype: str, ranks: World) -> None:
    assert broken(ranks, "SoundKernels", count, dtype) == []


@pytest.mark.parametrize(
    ("kernel", "count"),
    [("LosesLastPeer", 1), ("MissesTail", BLOCK + 1), ("AddsInBfloat16", 7), ("Overruns", 7), ("Truncates", 7)],
)
def test_a_planted_kernel_breaks_a_rule(kernel: str, count: int, ranks: World) -> None:
    assert broken(ranks, kernel, count)


@pytest.mark.parametrize("kernel", ["AddsFloatsInBfloat16", "PassesThroughHalf", "LosesSign"])
def test_a_sum_of_fp32_that_loses_bits_or_its_sign_is_wrong(kernel: str, ranks: World) -> None:
    assert broken(ranks, kernel, 7, "float32") == ["wrong-data"]


def test_a_lost_sign_shows_in_integers_too(ranks: World) -> None:
    assert broken(ranks, "LosesSign", 7, "int32") == ["wrong-data"]


@pytest.mark.parametrize(("kernel", "dtype"), [("AddsFloatsInBfloat16", "bfloat16"), ("Truncates", "float16")])
def test_a_fault_of_one_type_does_not_show_in_another(kernel: str, dtype: str, ranks: World) -> None:
    assert broken(ranks, kernel, BLOCK + 1, dtype) == []


def test_a_missing_tail_does_not_show_where_there_is_none(ranks: World) -> None:
    assert broken(ranks, "MissesTail", BLOCK) == []


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_kernel_names_faults_of_the_catalogue(planted: type) -> None:
    named = re.findall(r"\b[FK]\d\d\b", inspect.getdoc(planted) or "")
    assert named
    assert {*named} <= {fault.id for fault in FAULTS}
