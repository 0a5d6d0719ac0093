"""Validity: every program that cannot run is refused with its step and the reason, and its valid neighbour is not."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from harness.scenario.operands import GUARD, View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    AllGather,
    Allocate,
    Ballast,
    Deny,
    ProgramError,
    Recreate,
    ReduceScatter,
    Release,
    Step,
    Straggle,
    Trim,
)
from harness.scenario.topology import Topology
from harness.scenario.validity import MAX_BYTES, MAX_STRAGGLE_MS
from harness.strategies.programs import HAZARDS, scenarios

Steps = tuple[Step, ...]

QUAD = Topology(name="quad", convention="sglang", degrees={"tp": 4, "attn_dp": 2})
TRIPLE = Topology(name="triple", convention="sglang", degrees={"tp": 3})
MIXED = Topology(
    name="mixed", convention="explicit", families_given={"odd": ((0, 1, 2), (3,)), "even": ((0, 1), (2, 3))}
)
A = View("a")
WINDOW = Allocate("a", "tp", 64)
PLAIN = Allocate("p", "tp", 64, role="plain")
LARGEST = MAX_BYTES // 4 - GUARD


def refusal(*steps: Step, topology: Topology = QUAD) -> str:
    """The sentence with which a program is refused; the last step must be the offender."""
    with pytest.raises(ProgramError) as error:
        Scenario(topology, steps)
    opening = f"step {len(steps) - 1} ({steps[-1].kind}): "
    assert str(error.value).startswith(opening)
    return str(error.value).removeprefix(opening)


def accepted(*steps: Step, topology: Topology = QUAD) -> bool:
    return bool(Scenario(topology, steps).steps)


def reduce(**fields: object) -> ReduceScatter:
    return ReduceScatter(**{"family": "tp", "source": A, "count": 4, **fields})  # type: ignore[arg-type]


# families and ranks


@pytest.mark.parametrize(
    "step",
    [
        Allocate("a", "ep", 64),
        AllGather("ep", A, 4),
        reduce(family="ep"),
        Ballast("b", "ep", 0, 512),
        Recreate("ep"),
    ],
    ids=lambda step: step.kind,
)
def test_unknown_family_is_refused_with_the_known_ones(step: Step) -> None:
    assert refusal(step, topology=MIXED) == "family 'ep' is not one of odd, even"


@pytest.mark.parametrize("rank", [-1, 4])
@pytest.mark.parametrize("kind", ["ballast", "straggle", "deny"])
def test_rank_outside_the_world_is_refused(kind: str, rank: int) -> None:
    step = {"ballast": Ballast("b", "tp", rank, 512), "straggle": Straggle(rank, 1), "deny": Deny(rank)}[kind]
    assert refusal(step) == f"rank {rank} is not in a world of 4"


@pytest.mark.parametrize("rank", [0, 3])
def test_first_and_last_rank_are_in_the_world(rank: int) -> None:
    assert accepted(Ballast("b", "tp", rank, 512), Straggle(rank, 1), Deny(rank))


@pytest.mark.parametrize("milliseconds", [-1, MAX_STRAGGLE_MS + 1])
def test_pause_out_of_bounds_is_refused(milliseconds: int) -> None:
    assert refusal(Straggle(0, milliseconds)) == f"{milliseconds} ms is not between 0 and {MAX_STRAGGLE_MS}"


@pytest.mark.parametrize("milliseconds", [0, MAX_STRAGGLE_MS])
def test_pause_at_its_bounds_is_accepted(milliseconds: int) -> None:
    assert accepted(Straggle(0, milliseconds))


# buffers: named once, alive when used, of a size between the bounds


@pytest.mark.parametrize(
    "step",
    [
        Release("x"),
        AllGather("tp", View("x"), 4),
        AllGather("tp", A, 4, View("x")),
        reduce(source=View("x")),
        reduce(output=View("x")),
    ],
    ids=["release", "output", "source", "reduced source", "reduced output"],
)
def test_buffer_that_was_never_allocated_is_refused_by_name(step: Step) -> None:
    assert refusal(WINDOW, step) == "buffer 'x' was never allocated"


@pytest.mark.parametrize(
    "step",
    [Release("p"), AllGather("tp", A, 4, View("p")), reduce(output=View("p")), reduce(source=View("p"))],
    ids=["release", "source", "reduced output", "reduced source"],
)
def test_released_buffer_is_refused_by_name(step: Step) -> None:
    assert refusal(WINDOW, PLAIN, Release("p"), step) == "buffer 'p' was released"


@pytest.mark.parametrize("between", [(), (Release("a"),)], ids=["alive", "released"])
@pytest.mark.parametrize("step", [WINDOW, Ballast("a", "tp", 0, 512)], ids=lambda step: step.kind)
def test_name_of_an_earlier_buffer_is_refused(step: Step, between: Steps) -> None:
    assert refusal(WINDOW, *between, step) == "buffer 'a' was allocated before"


@pytest.mark.parametrize("elements", [0, -5, (8, 8, 0, 8)])
def test_buffer_without_elements_is_refused_with_the_rank(elements: int | tuple[int, ...]) -> None:
    count, rank = (0, 2) if isinstance(elements, tuple) else (elements, 0)
    assert refusal(Allocate("a", "tp", elements)) == f"elements {count} on rank {rank} is not positive"


@pytest.mark.parametrize("elements", [LARGEST + 1, (8, 8, LARGEST + 1, 8)])
def test_buffer_above_the_limit_is_refused_with_its_bytes(elements: int | tuple[int, ...]) -> None:
    sentence = f"buffer 'a' of {MAX_BYTES + 4} bytes is not between 1 and {MAX_BYTES}"
    assert refusal(Allocate("a", "tp", elements)) == sentence


@pytest.mark.parametrize("size", [0, -1, MAX_BYTES + 1])
def test_ballast_out_of_bounds_is_refused_with_its_bytes(size: int) -> None:
    assert refusal(Ballast("b", "tp", 0, size)) == f"buffer 'b' of {size} bytes is not between 1 and {MAX_BYTES}"


@pytest.mark.parametrize("step", [Allocate("a", "tp", LARGEST), Ballast("a", "tp", 0, MAX_BYTES)])
def test_buffer_at_the_limit_is_accepted(step: Step) -> None:
    assert accepted(step)


# counts


@pytest.mark.parametrize("length", [0, 3, 5])
def test_counts_for_another_number_of_ranks_are_refused(length: int) -> None:
    assert refusal(Allocate("a", "tp", (8,) * length)) == f"elements lists {length} ranks in a world of 4"
    assert refusal(WINDOW, AllGather("tp", A, (8,) * length)) == f"count lists {length} ranks in a world of 4"


@pytest.mark.parametrize(("count", "rank"), [(0, 0), (-1, 0), ((4, 0, 4, 4), 1)])
def test_collective_over_nothing_is_refused_with_the_rank(count: int | tuple[int, ...], rank: int) -> None:
    offered = count[rank] if isinstance(count, tuple) else count
    assert refusal(WINDOW, reduce(count=count)) == f"count {offered} on rank {rank} is not positive"


def test_a_peer_addressed_view_at_different_offsets_in_a_group_is_refused() -> None:
    said = refusal(WINDOW, AllGather("attn_tp", View("a", (0, 0, 8, 9)), 4))
    assert said == "ranks of attn_tp[2, 3] reach peers at different offsets of their buffers"


def test_offsets_may_differ_between_groups_and_where_counts_do() -> None:
    Scenario(QUAD, (WINDOW, AllGather("attn_tp", View("a", (0, 0, 8, 8)), 4)))
    Scenario(QUAD, (WINDOW, AllGather("attn_tp", View("a", (0, 1, 8, 9)), (4, 5, 4, 5))))


def test_a_global_buffer_of_different_sizes_in_a_group_is_refused() -> None:
    said = refusal(Allocate("a", "attn_tp", (4, 4, 4, 5), site="global"))
    assert said == "ranks of attn_tp[2, 3] differ in elements of a global buffer"


@pytest.mark.parametrize(
    ("family", "count", "group"),
    [("tp", (4, 4, 4, 3), "tp[0, 1, 2, 3]"), ("attn_tp", (4, 4, 4, 3), "attn_tp[2, 3]")],
)
def test_counts_that_differ_in_a_group_are_refused_for_kernels(family: str, count: tuple[int, ...], group: str) -> None:
    said = refusal(WINDOW, AllGather(family, A, count, via="kernel"))
    assert said == f"ranks of {group} differ in count, which kernels do not take"


def test_counts_that_differ_between_groups_are_accepted() -> None:
    assert accepted(Allocate("a", "attn_tp", (8, 8, 6, 6)), AllGather("attn_tp", A, (4, 4, 3, 3)))


# operands: large enough on every rank, apart, and of one dtype


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


# what is reduced exactly


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("op", ["sum", "avg", "max"])
def test_reduction_of_eight_bit_floats_is_refused(dtype: str, op: str) -> None:
    sentence = f"{dtype} is not reduced exactly in every order; use it in all_gather"
    assert refusal(Allocate("a", "tp", 64, dtype), reduce(op=op)) == sentence  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "int32"])
def test_dtype_with_limits_on_its_reductions_is_gathered(dtype: str) -> None:
    assert accepted(Allocate("a", "tp", 64, dtype), AllGather("tp", A, 4))  # type: ignore[arg-type]


def test_average_of_integers_is_refused() -> None:
    assert refusal(Allocate("a", "tp", 64, "int32"), reduce(op="avg")) == "avg of int32 is not exact"


@pytest.mark.parametrize("op", ["sum", "max"])
def test_integers_are_summed_and_compared(op: str) -> None:
    assert accepted(Allocate("a", "tp", 64, "int32"), reduce(op=op))


@pytest.mark.parametrize(("topology", "family"), [(TRIPLE, "tp"), (MIXED, "odd")], ids=["three", "three and one"])
def test_average_over_a_group_of_no_power_of_two_is_refused_with_its_size(topology: Topology, family: str) -> None:
    steps = Allocate("a", family, 64), reduce(family=family, op="avg")
    assert refusal(*steps, topology=topology) == "avg over a group of 3 is not exact; the size must be a power of two"


@pytest.mark.parametrize("family", ["tp", "attn_tp", "pp"])
def test_average_over_groups_of_four_two_and_one_is_accepted(family: str) -> None:
    assert accepted(WINDOW, reduce(family=family, op="avg"))


def test_maximum_through_a_kernel_is_refused() -> None:
    assert refusal(WINDOW, reduce(op="max", via="kernel")) == "kernels reduce with sum or avg, not max"


def test_maximum_through_the_library_is_accepted() -> None:
    assert accepted(WINDOW, reduce(op="max"))


# groups of different width in one family


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


# programs as a whole


def test_first_of_several_offenders_is_named() -> None:
    with pytest.raises(ProgramError, match=r"^step 1 \(straggle\): rank 9 "):
        Scenario(QUAD, (Trim(), Straggle(9, 1), Deny(9)))


@pytest.mark.parametrize(
    "steps",
    [
        (Allocate("a", "tp", 64, "float64"),),  # type: ignore[arg-type]
        (Allocate("a", "tp", 64, role="pinned"),),  # type: ignore[arg-type]
        (WINDOW, reduce(op="min")),
        (WINDOW, reduce(via="nvls")),
        (WINDOW, AllGather("tp", A, 1.5)),  # type: ignore[arg-type]
    ],
    ids=["dtype", "role", "op", "via", "count"],
)
def test_value_that_no_field_knows_is_refused_with_its_step(steps: Steps) -> None:
    with pytest.raises(ProgramError, match=rf"^step {len(steps) - 1} \({steps[-1].kind}\): "):
        Scenario(QUAD, steps)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=scenarios(world=8, hazards=HAZARDS), data=st.data())
def test_program_without_one_of_its_allocations_is_refused_where_it_is_first_missed(
    drawn: Scenario, data: st.DataObject
) -> None:
    allocations = [step for step in drawn.steps if isinstance(step, Allocate)]
    lost = data.draw(st.sampled_from(allocations))
    rest = tuple(step for step in drawn.steps if step is not lost)
    users = [index for index, step in enumerate(rest) if lost.buffer in buffers(step)]
    assume(users)
    with pytest.raises(ProgramError, match=rf"^step {users[0]} \(\w+\): buffer '{lost.buffer}' was never allocated$"):
        Scenario(drawn.topology, rest)


def buffers(step: Step) -> set[str]:
    """Names of the buffers that a step uses."""
    match step:
        case Release():
            return {step.buffer}
        case AllGather() | ReduceScatter():
            return {view.buffer for view in (step.source, step.output) if view is not None}
    return set()
