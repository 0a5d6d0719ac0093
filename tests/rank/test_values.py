"""Exact data: every legal order of summation gives the same bits, and an illegal one shows."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.rank.values import canary, gather_values, key, poison, reduce_result, reduce_values
from harness.scenario.operands import ITEMSIZE
from harness.substrate.bits import bits

CPU = torch.device("cpu")
GATHERED = [getattr(torch, name) for name in ITEMSIZE]
FLOATS = [torch.float32, torch.bfloat16, torch.float16]
REDUCED = [*product(FLOATS, ("sum", "avg", "max")), *product([torch.int32], ("sum", "max"))]
NARROW = [torch.bfloat16, torch.float16]
COUNT = 96
SIZES = range(1, 17)

dtypes = pytest.mark.parametrize("dtype", GATHERED, ids=str)
reductions = pytest.mark.parametrize(("dtype", "op"), REDUCED, ids=str)
narrow = pytest.mark.parametrize("dtype", NARROW, ids=str)


def keys(size: int, seed: int = 0, step: int = 0) -> list[int]:
    """Keys of a group's ranks, as a call makes them."""
    return [key(seed, step, rank) for rank in range(size)]


def sizes(op: str) -> list[int]:
    """Group sizes for which the harness uses an operation."""
    return [size for size in SIZES if op != "avg" or size & (size - 1) == 0]


def inputs(size: int, dtype: torch.dtype, op: str, wide: bool = False, seed: int = 0) -> torch.Tensor:
    return reduce_values(keys(size, seed), COUNT, dtype, op, wide, CPU)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(bits(one), bits(other))


def folded(data: st.DataObject, terms: list[torch.Tensor], op: str) -> torch.Tensor:
    """The terms combined two at a time in a drawn order, each result rounded to their dtype."""
    terms = [*terms]
    while len(terms) > 1:
        one = terms.pop(data.draw(st.integers(0, len(terms) - 1)))
        other = terms.pop(data.draw(st.integers(0, len(terms) - 1)))
        terms.append(torch.maximum(one, other) if op == "max" else one + other)
    return terms[0]


def in_sequence(rows: torch.Tensor, order: list[int], accumulator: torch.dtype) -> torch.Tensor:
    """The sum of the rows in an order, each partial sum in `accumulator`, rounded to the rows' dtype at the end."""
    total = torch.zeros(rows.shape[1], dtype=accumulator)
    for index in order:
        total = total + rows[index].to(accumulator)
    return total.to(rows.dtype)


# legal values


@dtypes
def test_gathered_values_are_never_poison(dtype: torch.dtype) -> None:
    values = gather_values(keys(16), 4096, dtype, CPU)
    poisoned = torch.empty_like(values)
    poison(poisoned)
    assert not (bits(values) == bits(poisoned)).any()


@pytest.mark.parametrize("dtype", [dtype for dtype in GATHERED if dtype.is_floating_point], ids=str)
def test_gathered_floats_are_finite(dtype: torch.dtype) -> None:
    assert gather_values(keys(16), 4096, dtype, CPU).to(torch.float64).isfinite().all()


@dtypes
def test_gathered_values_use_every_bit_but_the_one_that_keeps_them_finite(dtype: torch.dtype) -> None:
    values = bits(gather_values(keys(16), 4096, dtype, CPU)).long()
    seen = [bit for bit in range(8 * dtype.itemsize) if ((values >> bit) & 1).any()]
    assert seen == [bit for bit in range(8 * dtype.itemsize) if bit != 8 * dtype.itemsize - 2]


@dtypes
def test_poison_is_no_number_in_any_float(dtype: torch.dtype) -> None:
    poisoned = torch.zeros(8, dtype=dtype)
    poison(poisoned)
    assert poisoned.to(torch.float64).isnan().all() if dtype.is_floating_point else (poisoned == -1).all()


@pytest.mark.parametrize("wide", [False, True], ids=["plain", "wide"])
@reductions
def test_reduced_values_and_results_are_never_poison(dtype: torch.dtype, op: str, wide: bool) -> None:
    for size in sizes(op):
        rows = inputs(size, dtype, op, wide)
        poisoned = torch.empty_like(rows)
        poison(poisoned)
        assert not (bits(rows) == bits(poisoned)).any()
        assert not (bits(reduce_result(rows, op)) == bits(poisoned[0])).any()


@dtypes
def test_canary_is_never_poison(dtype: torch.dtype) -> None:
    region = torch.zeros(4096, dtype=dtype)
    pattern = canary(region, 1)
    poison(region)
    assert not (pattern == bits(region)).any()


# plain values: exact in every order


@reductions
@settings(deadline=None, max_examples=40)
@given(data=st.data(), seed=st.integers(0, 255))
def test_plain_values_reduce_to_the_same_bits_in_every_order_and_shape(
    dtype: torch.dtype, op: str, data: st.DataObject, seed: int
) -> None:
    size = data.draw(st.sampled_from(sizes(op)))
    rows = inputs(size, dtype, op, seed=seed)
    found = folded(data, [*rows], op)
    assert same_bits(found / size if op == "avg" else found, reduce_result(rows, op))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@settings(deadline=None, max_examples=40)
@given(data=st.data(), seed=st.integers(0, 255))
def test_plain_values_average_to_the_same_bits_where_each_is_scaled_first(
    dtype: torch.dtype, data: st.DataObject, seed: int
) -> None:
    size = data.draw(st.sampled_from(sizes("avg")))
    rows = inputs(size, dtype, "avg", seed=seed)
    assert same_bits(folded(data, [row / size for row in rows], "sum"), reduce_result(rows, "avg"))


@reductions
def test_plain_result_is_what_torch_computes_in_float64(dtype: torch.dtype, op: str) -> None:
    for size in sizes(op):
        rows = inputs(size, dtype, op)
        exact = rows.double()
        wanted = {"sum": exact.sum(dim=0), "avg": exact.mean(dim=0), "max": exact.amax(dim=0)}[op]
        assert torch.equal(reduce_result(rows, op).double(), wanted)


@reductions
def test_result_without_one_rank_differs(dtype: torch.dtype, op: str) -> None:
    for size in sizes(op)[1:]:
        rows = inputs(size, dtype, op)
        assert not torch.equal(reduce_result(rows[1:], op), reduce_result(rows, op))


# wide values: exact in fp32, and wrong as soon as a partial sum is rounded


@narrow
@settings(deadline=None, max_examples=60)
@given(data=st.data(), size=st.sampled_from(SIZES), seed=st.integers(0, 255))
def test_wide_values_sum_to_the_same_bits_in_float32_in_every_order(
    dtype: torch.dtype, data: st.DataObject, size: int, seed: int
) -> None:
    rows = inputs(size, dtype, "sum", wide=True, seed=seed)
    found = folded(data, [*rows.float()], "sum").to(dtype)
    assert same_bits(found, reduce_result(rows, "sum"))


@narrow
@settings(deadline=None, max_examples=60)
@given(data=st.data(), size=st.sampled_from(SIZES[2:]), seed=st.integers(0, 255))
def test_wide_values_sum_to_other_bits_where_partial_sums_are_rounded(
    dtype: torch.dtype, data: st.DataObject, size: int, seed: int
) -> None:
    order = data.draw(st.permutations(range(size)))
    rows = inputs(size, dtype, "sum", wide=True, seed=seed)
    assert not same_bits(in_sequence(rows, order, dtype), reduce_result(rows, "sum"))


@narrow
@pytest.mark.parametrize("size", SIZES[2:])
def test_plain_values_do_not_show_that_partial_sums_are_rounded(dtype: torch.dtype, size: int) -> None:
    rows = inputs(size, dtype, "sum")
    assert same_bits(in_sequence(rows, [*range(size)], dtype), reduce_result(rows, "sum"))


@narrow
@pytest.mark.parametrize("size", SIZES[2:])
def test_wide_result_without_one_rank_differs(dtype: torch.dtype, size: int) -> None:
    rows = inputs(size, dtype, "sum", wide=True)
    assert not torch.equal(reduce_result(rows[1:], "sum"), reduce_result(rows, "sum"))


@pytest.mark.parametrize(
    ("dtype", "op", "size"),
    [(torch.float32, "sum", 4), (torch.int32, "sum", 4), (torch.bfloat16, "avg", 4), (torch.bfloat16, "max", 4)],
    ids=str,
)
def test_wide_values_are_plain_where_rounding_could_not_show(dtype: torch.dtype, op: str, size: int) -> None:
    assert torch.equal(inputs(size, dtype, op, wide=True), inputs(size, dtype, op))


# a function of seed, step, rank and index alone


@settings(deadline=None, max_examples=100)
@given(
    one=st.tuples(st.integers(0, 255), st.integers(0, 63), st.integers(0, 63)),
    other=st.tuples(st.integers(0, 255), st.integers(0, 63), st.integers(0, 63)),
)
def test_another_seed_step_or_rank_gives_other_values(one: tuple[int, int, int], other: tuple[int, int, int]) -> None:
    mine, theirs = gather_values([key(*one), key(*other)], 64, torch.int32, CPU)
    assert torch.equal(mine, theirs) == (one == other)


def test_no_two_ranks_or_steps_of_a_scenario_share_an_input() -> None:
    every = [key(7, step, rank) for step in range(64) for rank in range(64)]
    assert len(gather_values(every, 4, torch.int32, CPU).unique(dim=0)) == 64 * 64


def test_seed_step_and_rank_are_not_interchangeable() -> None:
    assert len({key(1, 2, 3), key(1, 3, 2), key(2, 1, 3), key(2, 3, 1), key(3, 1, 2), key(3, 2, 1)}) == 6


def test_values_behind_a_seed_file_stay_as_they_were() -> None:
    recorded = [[453199654, 60939824, -1451134399, -1601103301]]
    assert gather_values([key(1, 2, 3)], 4, torch.int32, CPU).tolist() == recorded


@dtypes
def test_value_at_an_index_does_not_depend_on_the_count(dtype: torch.dtype) -> None:
    short, long = (bits(gather_values(keys(4), count, dtype, CPU)) for count in (33, 1000))
    assert torch.equal(short, long[:, :33])


@dtypes
def test_values_of_a_rank_do_not_depend_on_the_group_around_it(dtype: torch.dtype) -> None:
    alone, among = gather_values(keys(3)[2:], 64, dtype, CPU), gather_values(keys(3), 64, dtype, CPU)
    assert torch.equal(bits(alone[0]), bits(among[2]))


@pytest.mark.parametrize("wide", [False, True], ids=["plain", "wide"])
@reductions
def test_reduced_values_are_the_same_every_time(dtype: torch.dtype, op: str, wide: bool) -> None:
    assert same_bits(inputs(8, dtype, op, wide, seed=9), inputs(8, dtype, op, wide, seed=9))


def test_neighbouring_elements_differ_almost_everywhere() -> None:
    values = gather_values(keys(1), 4096, torch.int32, CPU)[0]
    assert (values[1:] == values[:-1]).sum() == 0
