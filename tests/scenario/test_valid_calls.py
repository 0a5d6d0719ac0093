"""Collectives that cannot run are refused with the reason, and their valid neighbours are not."""

from __future__ import annotations

import pytest

from harness.scenario.bases import Op, Via
from harness.scenario.operands import DType, View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    AllGather,
    Allocate,
    AllReduce,
    AllToAll,
    Ballast,
    Broadcast,
    ProgramError,
    Reduce,
    ReduceScatter,
    SendReceive,
    Step,
)
from harness.scenario.topology import Topology
from tests.tools.refusals import QUAD, accepted, refusal

TRIPLE = Topology(name="triple", convention="sglang", degrees={"tp": 3})
MIXED = Topology(
    name="mixed", convention="explicit", families_given={"odd": ((0, 1, 2), (3,)), "even": ((0, 1), (2, 3))}
)
A, B = View("a"), View("b")
WINDOW = Allocate("a", "tp", 64)
NO_TABLE = "counts is no table of 2 rows of 2 for the ranks [0, 1]"


def reduce(**fields: object) -> ReduceScatter:
    return ReduceScatter(**{"family": "tp", "source": A, "count": 4, **fields})  # type: ignore[arg-type]


def test_a_negative_count_is_refused_with_the_rank() -> None:
    assert refusal(WINDOW, reduce(count=(4, -1, 4, 4))) == "count -1 on rank 1 is negative"


def test_a_call_without_elements_is_accepted() -> None:
    assert accepted(WINDOW, reduce(count=0))


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (Reduce("tp", A, 4, via="kernel"), "reduce goes by the library alone"),
        (Reduce("tp", A, 4, via="copy-engine"), "reduce is not moved by copy engines"),
        (reduce(via="copy-engine"), "reduce_scatter is not moved by copy engines"),
        (
            AllGather("tp", A, (1, 2, 1, 1), via="copy-engine"),
            "ranks of tp[0, 1, 2, 3] differ in count, which copy engines do not move",
        ),
        (SendReceive("tp", A, 4, View("b"), via="kernel"), "send_receive goes by the library alone"),
        (AllReduce("tp", A, (4, 4, 4, 3)), "ranks of tp[0, 1, 2, 3] differ in count, which all_reduce does not take"),
        (Broadcast("tp", A, 4, 4), "root 4 is no index in tp[0, 1, 2, 3]"),
        (Reduce("attn_tp", A, 4, 2), "root 2 is no index in attn_tp[0, 1]"),
        (AllToAll("tp", A, 1, counts=((1,) * 4,) * 4), "count and counts say both what is sent"),
        (AllToAll("tp", A, (1, 1, 1, 2)), "all_to_all in place, and ranks of tp[0, 1, 2, 3] differ in count"),
        (
            AllToAll("attn_tp", A, 0, B, ((1,) * 4,) * 4),
            NO_TABLE,
        ),
        (
            AllToAll("attn_tp", A, 0, B, ((1, 1), (1,))),
            NO_TABLE,
        ),
        (AllToAll("attn_tp", A, 0, B, ((1, -1), (1, 1))), "counts has a negative number"),
        (AllToAll("tp", A, 17), "'a' holds 64 elements behind offset 0 on rank 0, needs 68"),
        (AllReduce("tp", A, 4, View("b", (0, 0, 0, 1))), "ranks of tp[0, 1, 2, 3] reach peers at different offsets"),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_an_operation_that_cannot_run_is_refused(step: Step, reason: str) -> None:
    assert refusal(WINDOW, Allocate("b", "tp", 64), step).startswith(reason)


def test_operations_beside_them_are_accepted() -> None:
    assert accepted(
        *(WINDOW, Allocate("b", "tp", 64), Broadcast("tp", A, 4, 3), Reduce("attn_tp", A, 4, 1)),
        *(
            AllToAll("attn_tp", A, 0, B, ((1, 0), (9, 30))),
            AllToAll("tp", A, 16),
            AllReduce("tp", A, 64, View("b")),
        ),
        SendReceive("tp", A, 64, View("b"), 7),
    )


def test_a_peer_addressed_view_at_different_offsets_in_a_group_is_refused() -> None:
    reason = refusal(WINDOW, AllGather("attn_tp", View("a", (0, 0, 8, 9)), 4))
    assert reason == "ranks of attn_tp[2, 3] reach peers at different offsets of their buffers"


def test_offsets_may_differ_between_groups_and_where_counts_do() -> None:
    Scenario(QUAD, (WINDOW, AllGather("attn_tp", View("a", (0, 0, 8, 8)), 4)))
    Scenario(QUAD, (WINDOW, AllGather("attn_tp", View("a", (0, 1, 8, 9)), (4, 5, 4, 5))))


@pytest.mark.parametrize("family", ["tp", "attn_tp"])
def test_counts_that_differ_in_a_group_are_accepted_for_kernels(family: str) -> None:
    assert accepted(WINDOW, AllGather(family, A, (4, 4, 4, 3), via="kernel"))


def test_counts_that_differ_between_groups_are_accepted() -> None:
    assert accepted(Allocate("a", "attn_tp", (8, 8, 6, 6)), AllGather("attn_tp", A, (4, 4, 3, 3)))


@pytest.mark.parametrize(
    ("elements", "collective", "reason"),
    [
        ((16, 16, 15, 16), AllGather("tp", A, 4), "'a' holds 15 elements behind offset 0 on rank 2, needs 16"),
        ((16, 16, 16, 15), reduce(), "'a' holds 15 elements behind offset 0 on rank 3, needs 16"),
        (16, AllGather("tp", View("a", 1), 4), "'a' holds 15 elements behind offset 1 on rank 0, needs 16"),
        (16, AllGather("tp", View("a", -1), 4), "'a' holds 17 elements behind offset -1 on rank 0, needs 16"),
        (16, reduce(source=View("a", 99)), "'a' holds 0 elements behind offset 99 on rank 0, needs 16"),
        (16, reduce(count=5), "'a' holds 16 elements behind offset 0 on rank 0, needs 20"),
    ],
    ids=["one rank", "last rank", "offset", "offset before the start", "offset past the end", "count"],
)
def test_chunks_that_do_not_fit_are_refused_with_the_rank_and_the_arithmetic(
    elements: int | tuple[int, ...], collective: Step, reason: str
) -> None:
    assert refusal(Allocate("a", "tp", elements), collective) == reason


@pytest.mark.parametrize(
    "collective",
    [AllGather("tp", A, 4, View("p", 1)), reduce(output=View("p", 1))],
    ids=lambda step: step.kind,
)
def test_chunk_that_does_not_fit_is_refused_with_the_rank_and_the_arithmetic(collective: Step) -> None:
    narrow = Allocate("p", "tp", (5, 4, 5, 5), role="plain")
    assert refusal(WINDOW, narrow, collective) == "'p' holds 3 elements behind offset 1 on rank 1, needs 4"


def test_operands_that_just_fit_are_accepted() -> None:
    whole, part = Allocate("a", "tp", 17), Allocate("p", "tp", 5, role="plain")
    assert accepted(whole, part, AllGather("tp", View("a", 1), 4, View("p", 1)))


@pytest.mark.parametrize(
    "collective",
    [AllGather("tp", A, 4, View("a", 32)), reduce(output=View("a", 32))],
    ids=lambda step: step.kind,
)
def test_two_operands_in_one_buffer_are_refused(collective: Step) -> None:
    assert refusal(WINDOW, collective) == "both operands lie in 'a'; leave one out to run in place"


@pytest.mark.parametrize(
    "collective", [AllGather("tp", A, 4, View("p")), reduce(output=View("p"))], ids=lambda step: step.kind
)
def test_operands_of_two_dtypes_are_refused_with_both(collective: Step) -> None:
    half = Allocate("p", "tp", 64, "float16", "plain")
    assert refusal(WINDOW, half, collective) == "'a' is float32 and 'p' is float16"


def test_a_collective_over_memory_that_one_rank_holds_alone_is_refused() -> None:
    with pytest.raises(ProgramError, match=r"^step 1 \(all_gather\): "):
        Scenario(QUAD, (Ballast("b", "tp", 0, 512), AllGather("tp", View("b"), 4)))


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("op", ["sum", "avg", "max"])
def test_reduction_of_eight_bit_floats_is_refused(dtype: str, op: str) -> None:
    sentence = f"{dtype} is not reduced exactly in every order; use it in all_gather"
    assert refusal(Allocate("a", "tp", 64, dtype), reduce(op=op)) == sentence  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "int32", "uint8", "float64"])
def test_dtype_with_limits_on_its_reductions_is_gathered(dtype: str) -> None:
    assert accepted(Allocate("a", "tp", 64, dtype), AllGather("tp", A, 4))  # type: ignore[arg-type]


INTEGERS: list[DType] = ["int8", "uint8", "int32", "int64"]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_average_of_integers_is_refused(dtype: DType) -> None:
    assert refusal(Allocate("a", "tp", 64, dtype), reduce(op="avg")) == f"avg of {dtype} is not exact"


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("op", ["sum", "max", "min"])
def test_integers_are_summed_and_compared(op: Op, dtype: DType) -> None:
    assert accepted(Allocate("a", "tp", 64, dtype), reduce(op=op))


@pytest.mark.parametrize(("topology", "family"), [(TRIPLE, "tp"), (MIXED, "odd")], ids=["three", "three and one"])
@pytest.mark.parametrize("via", ["library", "kernel"])
def test_average_over_a_group_of_no_power_of_two_is_accepted(topology: Topology, family: str, via: Via) -> None:
    steps = Allocate("a", family, 64), reduce(family=family, op="avg", via=via)
    assert accepted(*steps, topology=topology)


@pytest.mark.parametrize("family", ["tp", "attn_tp", "pp"])
def test_average_over_groups_of_four_two_and_one_is_accepted(family: str) -> None:
    assert accepted(WINDOW, reduce(family=family, op="avg"))


@pytest.mark.parametrize("via", ["library", "kernel"])
@pytest.mark.parametrize("op", ["max", "min"])
def test_an_extreme_is_accepted(op: Op, via: str) -> None:
    assert accepted(WINDOW, reduce(op=op, via=via))


@pytest.mark.parametrize("dtype", ["float64", "int64"])
@pytest.mark.parametrize("via", ["library", "kernel"])
def test_eight_bytes_are_reduced(dtype: DType, via: str) -> None:
    assert accepted(Allocate("a", "tp", 64, dtype), reduce(via=via))


def test_each_rank_needs_a_chunk_for_every_rank_of_its_own_group() -> None:
    assert accepted(Allocate("a", "odd", (12, 12, 12, 4)), AllGather("odd", A, 4), topology=MIXED)


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ((12, 12, 11, 4), "'a' holds 11 elements behind offset 0 on rank 2, needs 12"),
        ((12, 12, 12, 3), "'a' holds 3 elements behind offset 0 on rank 3, needs 4"),
    ],
)
def test_room_for_a_narrower_group_is_refused_in_a_wider_one(elements: tuple[int, ...], reason: str) -> None:
    assert refusal(Allocate("a", "odd", elements), AllGather("odd", A, 4), topology=MIXED) == reason
