"""Exact data: every legal order of summation gives the same bits, and an illegal one shows."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.rank import values as values_module
from harness.rank.exact import average_range
from harness.rank.values import (
    BLOCK,
    FORMS,
    canary,
    gather_values,
    key,
    poison,
    reduce_result,
    reduce_values,
)
from harness.scenario.operands import ITEMSIZE
from harness.substrate.bits import bits

CPU = torch.device("cpu")
GATHERED = [getattr(torch, name) for name in ITEMSIZE]
FLOATS = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
INTEGERS = [torch.int8, torch.uint8, torch.int32, torch.int64]
REDUCED = [*product(FLOATS, ("sum", "avg", "max", "min")), *product(INTEGERS, ("sum", "max", "min"))]
NARROW = [torch.bfloat16, torch.float16]
COUNT, MANY = 96, 4096
SIZES = range(1, 17)

dtypes = pytest.mark.parametrize("dtype", GATHERED, ids=str)
reductions = pytest.mark.parametrize(("dtype", "op"), REDUCED, ids=str)
narrow = pytest.mark.parametrize("dtype", NARROW, ids=str)
floats = pytest.mark.parametrize("dtype", FLOATS, ids=str)
integers = pytest.mark.parametrize("dtype", INTEGERS, ids=str)


def keys(size: int, seed: int = 0, step: int = 0) -> list[int]:
    """Keys of a group's ranks, as a call makes them."""
    return [key(seed, step, rank) for rank in range(size)]


def sizes(op: str) -> list[int]:
    """Group sizes for which the harness uses an operation."""
    return [size for size in SIZES if op != "avg" or size & (size - 1) == 0]


def inputs(
    size: int, dtype: torch.dtype, op: str, wide: bool = False, seed: int = 0, count: int = COUNT
) -> torch.Tensor:
    return reduce_values(keys(size, seed), count, dtype, op, wide, CPU)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(bits(one), bits(other))


def folded(data: st.DataObject, terms: list[torch.Tensor], op: str) -> torch.Tensor:
    """The terms combined two at a time in a drawn order, each result rounded to their dtype."""
    terms, combine = [*terms], {"max": torch.maximum, "min": torch.minimum}.get(op, torch.add)
    while len(terms) > 1:
        one = terms.pop(data.draw(st.integers(0, len(terms) - 1)))
        other = terms.pop(data.draw(st.integers(0, len(terms) - 1)))
        terms.append(combine(one, other))
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


@pytest.mark.parametrize("dtype", [each for each in FLOATS if each is not torch.float8_e4m3fn], ids=str)
def test_gathered_floats_hold_what_an_engine_might_lose(dtype: torch.dtype) -> None:
    """Infinities, NaN with their payloads, zeros and subnormals, of either sign, and each within a few elements."""
    values = gather_values(keys(1), 600, dtype, CPU)[0]
    exact, tiny, negative = values.double(), torch.finfo(dtype).tiny, bits(values) < 0
    lost = {
        "infinite": exact.isinf(),
        "zero": exact == 0,
        "subnormal": (exact.abs() < tiny) & (exact != 0),
        "nan": exact.isnan(),
    }
    assert [name for name, found in lost.items() if not (found & negative).any()] == []
    assert [name for name, found in lost.items() if not (found & ~negative).any()] == []
    assert len(bits(values)[exact.isnan()].unique()) > 4
    assert exact.isfinite().sum() > 500


@dtypes
def test_gathered_values_use_every_bit(dtype: torch.dtype) -> None:
    values = bits(gather_values(keys(16), 4096, dtype, CPU)).long()
    for bit in range(8 * dtype.itemsize):
        assert 0 < ((values >> bit) & 1).sum() < values.numel()


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


@pytest.mark.parametrize(("dtype", "op"), [each for each in REDUCED if each[0] is not torch.int64], ids=str)
def test_plain_result_is_what_torch_computes_in_float64(dtype: torch.dtype, op: str) -> None:
    for size in sizes(op):
        rows = inputs(size, dtype, op)
        exact = rows.double()
        by_name = {"sum": torch.sum, "avg": torch.mean, "max": torch.amax, "min": torch.amin}
        assert torch.equal(reduce_result(rows, op).double(), by_name[op](exact, dim=0))


@reductions
def test_result_without_one_rank_differs(dtype: torch.dtype, op: str) -> None:
    for size in sizes(op)[1:]:
        rows = inputs(size, dtype, op)
        assert not torch.equal(reduce_result(rows[1:], op), reduce_result(rows, op))


@floats
def test_sums_fill_the_mantissa_and_the_exponents_of_either_sign(dtype: torch.dtype) -> None:
    form, limits = FORMS[dtype], torch.finfo(dtype)
    for size in (2, 8):
        sums = reduce_result(inputs(size, dtype, "sum", count=MANY), "sum").double()
        mantissas, exponents = sums[sums != 0].frexp()
        units = (mantissas.abs() * 2**form.bits).long()
        assert [bit for bit in range(form.bits) if not (units >> bit & 1).any()] == []
        assert {-1, 1} <= {*sums[sums.abs() == limits.max].sign().tolist()}
        assert len(exponents.unique()) > 0.7 * (form.highest - form.lowest)
        assert (sums.abs() < limits.tiny).any() or dtype is torch.float64, "subnormals"


@floats
def test_a_rank_alone_has_peers_with_zeros_of_either_sign(dtype: torch.dtype) -> None:
    rows = inputs(4, dtype, "sum", count=MANY)
    alone = rows[:, (rows != 0).sum(dim=0) == 1]
    assert alone.shape[1] > MANY // 4
    assert 0.4 < alone[alone == 0].signbit().double().mean() < 0.6


@pytest.mark.parametrize("wide", [False, True], ids=["plain", "wide"])
@floats
def test_no_sum_leaves_the_sign_of_a_zero_to_chance(dtype: torch.dtype, wide: bool) -> None:
    """Where all terms are zeros, a kernel that begins with zero has another sign than one that begins with a term."""
    for size in SIZES:
        assert (inputs(size, dtype, "sum", wide, count=MANY) != 0).any(dim=0).all()


@floats
def test_two_ranks_cancel_beside_a_third(dtype: torch.dtype) -> None:
    rows = inputs(5, dtype, "sum", count=MANY).double()
    three = rows[:, (rows != 0).sum(dim=0) == 3]
    cancel = (three[:, None] + three[None, :] == 0) & (three[:, None] != 0)
    assert three.shape[1] > MANY // 16
    assert cancel.any(dim=0).any(dim=0).all()


@integers
def test_integers_are_summed_within_their_type_in_every_order(dtype: torch.dtype) -> None:
    limits = torch.iinfo(dtype)
    for size in SIZES:
        rows = inputs(size, dtype, "sum", count=MANY).long()
        assert (rows.clamp(min=0).sum(dim=0) <= limits.max).all()
        assert (rows.clamp(max=0).sum(dim=0) >= limits.min).all()
        share = min(limits.max // size, 1 << 61)
        assert rows.max() > share // 2
        assert limits.min == 0 or rows.min() < -share // 2


@pytest.mark.parametrize("op", ["max", "min"])
@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS], ids=str)
def test_an_extreme_may_have_either_sign_and_any_size(dtype: torch.dtype, op: str) -> None:
    found = reduce_result(inputs(4, dtype, op, count=MANY), op).double()
    largest = torch.finfo(dtype).max if dtype.is_floating_point else torch.iinfo(dtype).max
    assert not found.isnan().any()
    assert found[found.isfinite()].abs().max() > largest / 8
    assert dtype is torch.uint8 or ((found > 0).sum() > MANY // 32 and (found < 0).sum() > MANY // 32)


@pytest.mark.parametrize("op", ["max", "min"])
@floats
def test_infinities_reach_an_extreme_on_some_ranks_and_on_all(dtype: torch.dtype, op: str) -> None:
    rows = inputs(4, dtype, op, count=MANY)
    found = reduce_result(rows, op).double()
    assert (found == math.inf).sum() > 4
    assert (found == -math.inf).sum() > 4
    assert (rows.isinf().any(dim=0) & found.isfinite()).sum() > 4


@pytest.mark.parametrize("op", ["max", "min"])
@floats
def test_an_extreme_of_zeros_has_one_sign(dtype: torch.dtype, op: str) -> None:
    rows = inputs(4, dtype, op, count=MANY)
    zeros = rows[:, (rows == 0).any(dim=0)]
    assert zeros.shape[1] > MANY // 32
    assert (zeros.signbit() == zeros[0].signbit()).all()
    assert {*reduce_result(zeros, op).signbit().tolist()} == {False, True}


# what a reduction does to values shows


def in_bfloat16(sums: torch.Tensor) -> torch.Tensor:
    return sums.to(torch.bfloat16)


DAMAGES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "through bf16": in_bfloat16,
    "through fp16": lambda sums: sums.half(),
    "no sign": lambda sums: sums.abs(),
    "no subnormals": lambda sums: sums.masked_fill(sums.abs() < torch.finfo(sums.dtype).tiny, 0),
    "clamped": lambda sums: sums.clamp(-3e4, 3e4),
}
SHOWN = [
    *product([torch.float32], DAMAGES),
    *product([torch.bfloat16], ["through fp16", "no sign", "no subnormals", "clamped"]),
    *product([torch.float16], ["through bf16", "no sign", "no subnormals", "clamped"]),
]


@pytest.mark.parametrize("wide", [False, True], ids=["plain", "wide"])
@pytest.mark.parametrize(("dtype", "damage"), SHOWN, ids=str)
def test_damage_to_a_sum_shows_in_a_few_elements(dtype: torch.dtype, damage: str, wide: bool) -> None:
    for size in (2, 3, 8):
        sums = reduce_result(inputs(size, dtype, "sum", wide, count=2 * COUNT), "sum")
        assert not same_bits(DAMAGES[damage](sums).to(dtype), sums)


@pytest.mark.parametrize("size", SIZES[1:])
def test_sums_of_fp32_show_partial_sums_in_bfloat16(size: int) -> None:
    rows = inputs(size, torch.float32, "sum")
    assert not same_bits(
        in_sequence(rows.bfloat16(), [*range(size)], torch.bfloat16).float(), reduce_result(rows, "sum")
    )


@pytest.mark.parametrize("size", SIZES[1:])
def test_sums_of_int32_show_that_they_were_added_in_fp32(size: int) -> None:
    rows = inputs(size, torch.int32, "sum")
    assert not same_bits(in_sequence(rows, [*range(size)], torch.float32), reduce_result(rows, "sum"))


# wide values: exact in fp32, and wrong as soon as a partial sum is rounded


def last_bits(rows: torch.Tensor) -> torch.Tensor:
    """Of the sums of rows, what rounding takes away, in halves of the last bit kept: 1 is a tie."""
    sums = rows.double().sum(dim=0)
    sums = sums[sums != 0].abs()
    unit = (sums.frexp()[1] - FORMS[rows.dtype].bits).double()
    return (sums / 2**unit % 1) * 2


@narrow
def test_wide_sums_end_on_ties_and_just_beside_them(dtype: torch.dtype) -> None:
    for size in (2, 4, 16):
        rest = last_bits(inputs(size, dtype, "sum", wide=True, count=MANY))
        just = 2 * 0.5 ** FORMS[dtype].bits
        assert [int((rest == wanted).sum()) > 20 for wanted in (1, 1 - just, 1 + just)] == [True] * 3


@narrow
def test_rounding_of_a_wide_sum_carries_into_the_next_exponent(dtype: torch.dtype) -> None:
    rows = inputs(2, dtype, "sum", wide=True, count=MANY)
    exact, rounded = rows.double().sum(dim=0), reduce_result(rows, "sum").double()
    assert ((exact.frexp()[1] != rounded.frexp()[1]) & (exact != 0)).sum() > 10


def cut_off(sums: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """fp32 sums without the bits that a narrow type lacks."""
    rounded = sums.to(dtype)
    past = rounded.float().abs() > sums.abs()
    return (bits(rounded) - past.to(torch.int16)).view(dtype)


def away_from_zero(sums: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """fp32 sums rounded to the nearest, ties away from zero."""
    one = cut_off(sums, dtype)
    other = (bits(one) + 1).view(dtype)
    return other.where((sums.double() - one.double()).abs() >= (other.double() - sums.double()).abs(), one)


@pytest.mark.parametrize("rounding", [cut_off, away_from_zero])
@pytest.mark.parametrize("op", ["sum", "avg"])
@pytest.mark.parametrize("size", [2, 4, 8])
@narrow
def test_another_rounding_shows(
    dtype: torch.dtype, size: int, op: str, rounding: Callable[[torch.Tensor, torch.dtype], torch.Tensor]
) -> None:
    rows = inputs(size, dtype, op, wide=True, count=2 * COUNT)
    sums = rows.float().sum(dim=0) / (size if op == "avg" else 1)
    assert same_bits(sums.to(dtype), reduce_result(rows, op))
    assert not same_bits(rounding(sums, dtype), reduce_result(rows, op))


@pytest.mark.parametrize("size", [2, 4, 8, 16])
@narrow
def test_a_share_that_rounds_to_zero_keeps_its_sign(dtype: torch.dtype, size: int) -> None:
    shares = reduce_result(inputs(size, dtype, "avg", wide=True, count=MANY), "avg")
    assert {*shares[shares == 0].signbit().tolist()} == {False, True}


@narrow
@settings(deadline=None, max_examples=60)
@given(data=st.data(), size=st.sampled_from([2, 4, 8, 16]), seed=st.integers(0, 255), is_scaled_first=st.booleans())
def test_wide_values_average_to_the_same_bits_in_float32_in_every_order(
    dtype: torch.dtype, data: st.DataObject, size: int, seed: int, is_scaled_first: bool
) -> None:
    rows = inputs(size, dtype, "avg", wide=True, seed=seed)
    terms = [row / (size if is_scaled_first else 1) for row in rows.float()]
    found = folded(data, terms, "sum") / (1 if is_scaled_first else size)
    assert same_bits(found.to(dtype), reduce_result(rows, "avg"))


@pytest.mark.parametrize("size", [2, 4, 8, 16])
def test_a_sum_of_fp16_that_is_rounded_before_it_is_divided_overflows(size: int) -> None:
    rows = inputs(size, torch.float16, "avg", wide=True, count=4 * COUNT)
    result = reduce_result(rows, "avg")
    assert result.isfinite().all()
    assert not same_bits(reduce_result(rows, "sum") / size, result)


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
    [(torch.float32, "sum", 4), (torch.int32, "sum", 4), (torch.float32, "avg", 4), (torch.bfloat16, "max", 4)],
    ids=str,
)
def test_wide_values_are_plain_where_rounding_could_not_show(dtype: torch.dtype, op: str, size: int) -> None:
    assert torch.equal(inputs(size, dtype, op, wide=True), inputs(size, dtype, op))


# averages over any number of ranks: within a bound

ODD = [size for size in SIZES if size & (size - 1)]


def is_within(found: torch.Tensor, rows: torch.Tensor, wide: bool = False) -> bool:
    least, greatest = average_range(rows, wide)
    return bool(((found.double() >= least) & (found.double() <= greatest)).all())


@floats
@settings(deadline=None, max_examples=60)
@given(data=st.data(), size=st.sampled_from(ODD), seed=st.integers(0, 255))
def test_an_average_is_within_its_bound_in_every_order_and_wherever_it_is_scaled(
    dtype: torch.dtype, data: st.DataObject, size: int, seed: int
) -> None:
    """Scaled first as in NCCL's ring, at the end, or divided; every result rounded to the type."""
    rows = inputs(size, dtype, "avg", seed=seed)
    share = torch.tensor(1 / size, dtype=dtype)
    assert is_within(folded(data, [row * share for row in rows], "sum"), rows)
    assert is_within(folded(data, [*rows], "sum") * share, rows)
    assert is_within(folded(data, [*rows], "sum") / size, rows)


@narrow
@settings(deadline=None, max_examples=60)
@given(data=st.data(), size=st.sampled_from(ODD), seed=st.integers(0, 255))
def test_an_average_added_in_fp32_is_within_the_bound_for_wide(
    dtype: torch.dtype, data: st.DataObject, size: int, seed: int
) -> None:
    rows = inputs(size, dtype, "avg", wide=True, seed=seed)
    share = torch.tensor(1 / size, dtype=torch.float32)
    assert is_within((folded(data, [*rows.float()], "sum") * share).to(dtype), rows, wide=True)
    assert is_within(folded(data, [row * share for row in rows.float()], "sum").to(dtype), rows, wide=True)


@floats
@pytest.mark.parametrize("size", ODD)
def test_a_wrong_divisor_or_a_lost_rank_is_out_of_bound(dtype: torch.dtype, size: int) -> None:
    rows = inputs(size, dtype, "avg")
    assert not is_within(reduce_result(rows, "avg", size + 1), rows)
    assert not is_within(reduce_result(rows, "avg", size - 1), rows)
    for lost in range(size):
        assert not is_within(reduce_result(rows[[row for row in range(size) if row != lost]], "avg", size), rows)


@pytest.mark.parametrize("size", ODD)
def test_an_average_of_fp32_in_bfloat16_is_out_of_bound(size: int) -> None:
    rows = inputs(size, torch.float32, "avg")
    assert not is_within(reduce_result(rows, "avg").bfloat16(), rows)
    assert not is_within(in_sequence(rows.bfloat16(), [*range(size)], torch.bfloat16) / size, rows)


@narrow
@pytest.mark.parametrize("size", ODD)
def test_partial_sums_in_half_precision_are_out_of_the_bound_for_wide(dtype: torch.dtype, size: int) -> None:
    rows = inputs(size, dtype, "avg", wide=True, count=4 * COUNT)
    share = torch.tensor(1 / size, dtype=dtype)
    assert not is_within(
        in_sequence(torch.stack([row * share for row in rows]), [*range(size)], dtype), rows, wide=True
    )


@narrow
@settings(deadline=None, max_examples=30)
@given(size=st.sampled_from([*ODD, 31, 33, 63]), seed=st.integers(0, 255))
def test_a_sum_that_is_rounded_before_it_is_divided_is_out_of_the_bound_for_wide(
    dtype: torch.dtype, size: int, seed: int
) -> None:
    rows = inputs(size, dtype, "avg", wide=True, seed=seed, count=4 * COUNT)
    total = rows.double().sum(dim=0)
    assert torch.equal(total, total.float().double())
    assert is_within((total.float() / size).to(dtype), rows, wide=True)
    assert is_within((total / size).to(dtype), rows, wide=True)
    twice = (total.to(dtype).float() / size).to(dtype)
    assert is_within(twice, rows) or dtype is torch.float16  # finite, it is as near as the ring's
    finite = twice.isfinite()
    assert not is_within(twice[finite], rows[:, finite], wide=True)


@floats
def test_no_average_within_a_bound_is_subnormal_or_overflows(dtype: torch.dtype) -> None:
    for size in ODD:
        rows = inputs(size, dtype, "avg", count=MANY).double()
        assert (rows[rows != 0].abs() / size >= torch.finfo(dtype).tiny).all()
        assert (rows.clamp(min=0).sum(dim=0) <= torch.finfo(dtype).max).all()


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
    recorded = [[1526941478, 1134681648, -377392575, -1601103301]]
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


FLOATS, INTEGERS = (torch.float32, torch.bfloat16, torch.float64), (torch.int8, torch.int64)


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS])
def test_values_are_the_same_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    found = []
    for size in (64, 1 << 20):
        monkeypatch.setattr(values_module, "BLOCK", size)
        made = [gather_values(keys(3), 500, dtype, CPU)]
        for op in ("sum", "max", "min", *(["avg"] if dtype in FLOATS else [])):
            made.append(reduce_values(keys(3), 500, dtype, op, False, CPU))
            made.append(reduce_result(made[-1], op))
        found.append([bits(each) for each in made])
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize(("count", "beats"), [(BLOCK, 0), (BLOCK + 1, 2), (5 * BLOCK, 5)])
def test_values_of_a_large_call_beat_behind_every_block(count: int, beats: int) -> None:
    heard: list[None] = []
    gather_values(keys(2), count, torch.int8, CPU, lambda: heard.append(None))
    reduce_values(keys(2), count, torch.float32, "sum", True, CPU, lambda: heard.append(None))
    assert len(heard) == 2 * beats
