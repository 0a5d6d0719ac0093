"""Reduce-scatter in the interpreter: the bits that torch gives, and not an element more."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.rank.values import reduce_result, reduce_values
from harness.substrate.bits import bits
from tests.tools.interpreter import Interpreter
from tests.tools.kernel_calls import COUNTS, CPU, EDGES, QUICK, called, keys

FLOATS = ("float32", "float16", "bfloat16")


def reduced(interpreter: Interpreter, sources: torch.Tensor, op: str) -> tuple[torch.Tensor, bool]:
    """The outputs of all ranks in order for the sources [size, size·count], and whether nothing else was written."""
    outputs, is_fenced = called(interpreter, "reduce_scatter", sources, op)
    return torch.cat(outputs), is_fenced


def in_group_order(sources: torch.Tensor, op: str) -> torch.Tensor:
    """The sum over ranks by torch, one rank after the other in fp32 (int32 for int32), rounded once."""
    total = torch.zeros(sources.shape[1], dtype=torch.float32 if sources.is_floating_point() else torch.int32)
    for row in sources:
        total = total + row.to(total.dtype)
    return (total / len(sources) if op == "avg" else total).to(sources.dtype)


@pytest.mark.parametrize(("dtype", "op"), [*product(FLOATS, ("sum", "avg")), ("int32", "sum")])
@pytest.mark.parametrize("size", [2, 4, 8])
def test_reduce_scatter_gives_the_exact_result_of_the_harness(
    dtype: str, op: str, size: int, interpreter: Interpreter
) -> None:
    sources = reduce_values(keys(size), size * 129, getattr(torch, dtype), op, True, CPU)
    found, _ = reduced(interpreter, sources, op)
    assert torch.equal(bits(found), bits(reduce_result(sources, op)))


@pytest.mark.parametrize("count", EDGES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_reduce_scatter_is_right_and_in_bounds_on_both_sides_of_its_blocks(
    dtype: str, count: int, interpreter: Interpreter
) -> None:
    sources = reduce_values(keys(2), 2 * count, getattr(torch, dtype), "sum", True, CPU)
    found, is_fenced = reduced(interpreter, sources, "sum")
    assert torch.equal(bits(found), bits(reduce_result(sources, "sum")))
    assert is_fenced


@pytest.mark.parametrize("op", ["sum", "avg"])
@pytest.mark.parametrize("dtype", FLOATS)
@QUICK
@given(data=st.data(), size=st.sampled_from([2, 4]), count=COUNTS)
def test_reduce_scatter_of_any_floats_is_the_sum_in_group_order_rounded_once(
    interpreter: Interpreter, dtype: str, op: str, data: st.DataObject, size: int, count: int
) -> None:
    spread = data.draw(st.sampled_from([1.0, 1e-3, 300.0, 3e4]))
    noise = torch.Generator().manual_seed(data.draw(st.integers(0, 1 << 16)))
    sources = (spread * torch.randn(size, size * count, generator=noise)).to(getattr(torch, dtype))
    found, is_fenced = reduced(interpreter, sources, op)
    assert torch.equal(bits(found), bits(in_group_order(sources, op)))
    assert is_fenced


@QUICK
@given(data=st.data(), size=st.integers(2, 5), count=COUNTS)
def test_reduce_scatter_of_any_integers_wraps_around_as_torch_does(
    interpreter: Interpreter, data: st.DataObject, size: int, count: int
) -> None:
    noise = torch.Generator().manual_seed(data.draw(st.integers(0, 1 << 16)))
    sources = torch.randint(-(1 << 31), 1 << 31, (size, size * count), generator=noise).to(torch.int32)
    found, is_fenced = reduced(interpreter, sources, "sum")
    assert torch.equal(found, in_group_order(sources, "sum"))
    assert is_fenced


def test_sum_in_group_order_is_not_the_sum_of_partial_sums_in_bfloat16() -> None:
    """What the comparison above would show: rounding after every rank gives other bits."""
    sources = torch.randn(4, 400, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    partial = sources[0] + sources[1] + sources[2] + sources[3]
    assert not torch.equal(partial, in_group_order(sources, "sum"))
