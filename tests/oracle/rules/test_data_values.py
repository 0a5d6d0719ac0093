"""Values: each kind that an engine may lose shows in an output, and a right system shows nothing."""

from __future__ import annotations

import pytest

from harness.scenario.bases import Op, Via
from harness.scenario.operands import DType, View
from harness.scenario.steps import (
    AllGather,
    Allocate,
    AllReduce,
    Capture,
    EndCapture,
    Prepare,
    ReduceScatter,
    Release,
    Replay,
    Step,
)
from harness.scenario.topology import Topology
from harness.world.world import World
from tests.tools.scenes import PAIR, SQUARE, explicit, findings, rules, scenario

THREE = explicit(tp=((0, 1, 2),))
FLOATS: list[DType] = ["float32", "bfloat16", "float16"]
INTEGERS: list[DType] = ["int8", "uint8", "int32", "int64"]
EVERY: list[DType] = [*FLOATS, *INTEGERS, "float64"]


def gather(dtype: DType, via: Via = "kernel", count: int = 400) -> tuple[Step, ...]:
    return Allocate("a", "tp", 4 * count, dtype), AllGather("tp", View("a"), count, via=via)


def reduce(dtype: DType, op: Op = "sum", via: Via = "kernel", count: int = 200) -> tuple[Step, ...]:
    return Allocate("a", "tp", 6 * count, dtype), ReduceScatter("tp", View("a"), count, op=op, via=via)


def broken(ranks: World, kernel: str, *steps: Step, topology: Topology = PAIR) -> list[str]:
    return rules(findings(ranks, scenario(*steps, topology=topology, kernels=f"tests.tools.scrubs:{kernel}")))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kernel", ["NoNaN", "OneNaN", "Saturates", "NoMinusZero", "NoSubnormals"])
def test_a_gather_that_loses_a_kind_of_values_is_wrong(ranks: World, kernel: str, dtype: DType) -> None:
    assert broken(ranks, kernel, *gather(dtype)) == ["wrong-data"]
    assert broken(ranks, kernel, *reduce(dtype)) == []


@pytest.mark.parametrize(
    ("kernel", "dtype", "op"),
    [
        ("SumsNoSubnormals", "float32", "sum"),
        ("SumsNoSubnormals", "bfloat16", "avg"),
        ("OverflowsHalf", "float16", "sum"),
        ("AveragesNoMinusZero", "bfloat16", "avg"),
        ("AveragesNoMinusZero", "float16", "avg"),
    ],
)
def test_a_reduction_that_loses_a_kind_of_values_is_wrong(ranks: World, kernel: str, dtype: DType, op: Op) -> None:
    assert broken(ranks, kernel, *reduce(dtype, op), topology=SQUARE) == ["wrong-data"]
    assert broken(ranks, kernel, *gather(dtype), topology=SQUARE) == []


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_sign_of_a_sum_of_zeros_is_nobodys_fault(ranks: World, dtype: DType) -> None:
    """It depends on where a kernel begins to add."""
    assert broken(ranks, "AveragesNoMinusZero", *reduce(dtype, "sum"), topology=SQUARE) == []


# right systems


@pytest.mark.parametrize("op", ["sum", "max", "min"])
@pytest.mark.parametrize("dtype", EVERY)
def test_the_library_reduces_every_type(ranks: World, dtype: DType, op: Op) -> None:
    for topology in (PAIR, THREE):
        assert findings(ranks, scenario(*reduce(dtype, op, "library"), topology=topology)) == []


@pytest.mark.parametrize("via", ["library", "kernel"])
@pytest.mark.parametrize("dtype", EVERY)
def test_every_type_is_gathered(ranks: World, dtype: DType, via: Via) -> None:
    assert findings(ranks, scenario(*gather(dtype, via))) == []


# averages over groups whose size is no power of two


@pytest.mark.parametrize("dtype", [*FLOATS, "float64"])
def test_an_average_by_the_library_is_right_within_its_bound(ranks: World, dtype: DType) -> None:
    assert findings(ranks, scenario(*reduce(dtype, "avg", "library"), topology=THREE)) == []


@pytest.mark.parametrize("dtype", FLOATS)
def test_an_average_by_a_kernel_is_right_within_its_bound(ranks: World, dtype: DType) -> None:
    for kernels in ("triton", "tests.tools.planted:SoundKernels"):
        assert findings(ranks, scenario(*reduce(dtype, "avg"), topology=THREE, kernels=kernels)) == []


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_wrong_divisor_is_wrong_data(ranks: World, dtype: DType) -> None:
    assert broken(ranks, "DividesByOneMore", *reduce(dtype, "avg"), topology=THREE) == ["wrong-data"]


def test_an_average_of_fp32_in_bfloat16_is_wrong_data(ranks: World) -> None:
    assert broken(ranks, "AveragesInBfloat16", *reduce("float32", "avg"), topology=THREE) == ["wrong-data"]


def test_a_captured_average_is_right_within_its_bound(ranks: World) -> None:
    memory, call = reduce("bfloat16", "avg", "library")
    graph = Prepare("g"), Capture("g"), call, EndCapture("g"), Replay("g"), Replay("g")
    assert findings(ranks, scenario(memory, *graph, topology=THREE)) == []


def test_ranks_that_hold_different_averages_of_one_all_reduce_are_named(ranks: World) -> None:
    steps = (
        Allocate("a", "tp", 900),
        Allocate("b", "tp", 900),
        AllReduce("tp", View("a"), 800, View("b"), "avg", "kernel"),
    )
    assert findings(ranks, scenario(*steps, topology=THREE)) == []
    found = findings(ranks, scenario(*steps, topology=THREE, kernels="tests.tools.scrubs:OwnOrder"))
    assert rules(found) == ["wrong-data"]
    assert "ranks 1, 2 hold other bits than rank 0. Each lies within the bound of an average" in str(found[0])


def test_another_result_in_a_second_run_of_an_average_is_named(ranks: World) -> None:
    steps = (
        Allocate("a", "tp", 900),
        Allocate("b", "tp", 900),
        AllReduce("tp", View("a"), 800, View("b"), "avg", "kernel"),
    )
    found = findings(ranks, scenario(*steps, topology=THREE, kernels="tests.tools.scrubs:OtherOrderEachTime"))
    assert rules(found) == ["wrong-data"]
    assert all("the call and a second run of it left different bits in" in str(each) for each in found)


@pytest.mark.parametrize("kernels", ["", "tests.tools.scrubs:OtherOrderEachTime"], ids=["right", "another each time"])
@pytest.mark.parametrize("in_place", [True, False])
def test_a_second_run_leaves_the_first_result_for_what_comes_after(ranks: World, kernels: str, in_place: bool) -> None:
    call = AllReduce("tp", View("a"), 800, None if in_place else View("b"), "avg", "kernel" if kernels else "library")
    steps = Allocate("a", "tp", 900), Allocate("b", "tp", 900), call, Release("a"), Release("b")
    found = findings(ranks, scenario(*steps, topology=THREE, kernels=kernels or "triton"))
    assert {each.rule for each in found} == ({"wrong-data"} if kernels else set())


def test_a_wrong_average_is_said_once_and_not_as_different_bits(ranks: World) -> None:
    steps = (
        Allocate("a", "tp", 900),
        Allocate("b", "tp", 900),
        AllReduce("tp", View("a"), 800, View("b"), "avg", "kernel"),
    )
    found = findings(ranks, scenario(*steps, topology=THREE, kernels="tests.tools.scrubs:WrongOnOneRank"))
    assert [(each.rule, each.ranks) for each in found] == [("wrong-data", (1,))]
    assert "is wrong in 1 of 800 elements" in str(found[0])
