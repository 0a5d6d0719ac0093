"""All-gather and reduce-scatter in the interpreter: the bits that torch gives, and not an element more."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.rank.values import gather_values, key, reduce_result, reduce_values
from harness.scenario.operands import ITEMSIZE
from harness.substrate.bits import bits
from harness.system.collectives import INTERPRETER_BLOCK
from tests.tools.interpreter import Interpreter

CPU = torch.device("cpu")
FLOATS = ("float32", "float16", "bfloat16")
EDGES = [1, 2, 63, 64, 65, 127, 129, INTERPRETER_BLOCK - 1, INTERPRETER_BLOCK, INTERPRETER_BLOCK + 1, 40001]
"""Counts on both sides of the smallest block, of a power of two, of the largest block, and of several."""
COUNTS = st.one_of(st.integers(1, 200), st.sampled_from(EDGES[:7]))
QUICK = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def keys(size: int) -> list[int]:
    return [key(5, 0, rank) for rank in range(size)]


def as_bytes(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    return tensor.contiguous().view(torch.uint8).numpy()


def as_tensor(found: np.ndarray[Any, Any], dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(found.copy()).view(dtype)


def gathered(interpreter: Interpreter, sources: torch.Tensor) -> tuple[list[torch.Tensor], bool]:
    """Every rank's output for the sources [size, count], and whether nothing beside it was written."""
    found, fenced = interpreter("all_gather", [as_bytes(row) for row in sources], name(sources.dtype))
    return [as_tensor(output, sources.dtype) for output in found], fenced


def reduced(interpreter: Interpreter, sources: torch.Tensor, op: str) -> tuple[torch.Tensor, bool]:
    """The outputs of all ranks in order for the sources [size, size·count], and whether nothing else was written."""
    found, fenced = interpreter("reduce_scatter", [as_bytes(row) for row in sources], name(sources.dtype), op)
    return torch.cat([as_tensor(output, sources.dtype) for output in found]), fenced


def name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def in_group_order(sources: torch.Tensor, op: str) -> torch.Tensor:
    """The sum over ranks by torch, one rank after the other in fp32 (int32 for int32), rounded once."""
    total = torch.zeros(sources.shape[1], dtype=torch.float32 if sources.is_floating_point() else torch.int32)
    for row in sources:
        total = total + row.to(total.dtype)
    return (total / len(sources) if op == "avg" else total).to(sources.dtype)


# all-gather


@pytest.mark.parametrize("dtype", ITEMSIZE)
@pytest.mark.parametrize("size", [2, 3, 4])
def test_all_gather_copies_every_bit_of_every_dtype(dtype: str, size: int, interpreter: Interpreter) -> None:
    sources = gather_values(keys(size), 77, getattr(torch, dtype), CPU)
    outputs, _ = gathered(interpreter, sources)
    assert all(torch.equal(bits(output), bits(sources).flatten()) for output in outputs)


@pytest.mark.parametrize("count", EDGES)
def test_all_gather_is_right_and_in_bounds_on_both_sides_of_its_blocks(count: int, interpreter: Interpreter) -> None:
    sources = gather_values(keys(2), count, torch.bfloat16, CPU)
    outputs, fenced = gathered(interpreter, sources)
    assert all(torch.equal(bits(output), bits(sources).flatten()) for output in outputs)
    assert fenced


@QUICK
@given(size=st.integers(2, 5), count=COUNTS, dtype=st.sampled_from([*ITEMSIZE]))
def test_all_gather_is_right_and_in_bounds_for_any_size_and_count(
    interpreter: Interpreter, size: int, count: int, dtype: str
) -> None:
    sources = gather_values(keys(size), count, getattr(torch, dtype), CPU)
    outputs, fenced = gathered(interpreter, sources)
    assert all(torch.equal(bits(output), bits(sources).flatten()) for output in outputs)
    assert fenced


def test_all_gather_keeps_what_is_no_number(interpreter: Interpreter) -> None:
    words = torch.tensor([[0x7FC00001, 0x7F800001, -1, -(1 << 31)], [0x7F800000, -0x800000, 1, 0]], dtype=torch.int32)
    outputs, _ = gathered(interpreter, words.view(torch.float32))
    assert [bits(output).tolist() for output in outputs] == [words.flatten().tolist()] * 2


# reduce-scatter


@pytest.mark.parametrize(("dtype", "op"), [*product(FLOATS, ("sum", "avg")), ("int32", "sum")])
@pytest.mark.parametrize("size", [2, 4, 8])
def test_reduce_scatter_gives_the_exact_result_of_the_harness(
    dtype: str, op: str, size: int, interpreter: Interpreter
) -> None:
    sources = reduce_values(keys(size), size * 33, getattr(torch, dtype), op, True, CPU)
    found, _ = reduced(interpreter, sources, op)
    assert torch.equal(bits(found), bits(reduce_result(sources, op)))


@pytest.mark.parametrize("count", EDGES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_reduce_scatter_is_right_and_in_bounds_on_both_sides_of_its_blocks(
    dtype: str, count: int, interpreter: Interpreter
) -> None:
    sources = reduce_values(keys(2), 2 * count, getattr(torch, dtype), "sum", True, CPU)
    found, fenced = reduced(interpreter, sources, "sum")
    assert torch.equal(bits(found), bits(reduce_result(sources, "sum")))
    assert fenced


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
    found, fenced = reduced(interpreter, sources, op)
    assert torch.equal(bits(found), bits(in_group_order(sources, op)))
    assert fenced


@QUICK
@given(data=st.data(), size=st.integers(2, 5), count=COUNTS)
def test_reduce_scatter_of_any_integers_wraps_around_as_torch_does(
    interpreter: Interpreter, data: st.DataObject, size: int, count: int
) -> None:
    noise = torch.Generator().manual_seed(data.draw(st.integers(0, 1 << 16)))
    sources = torch.randint(-(1 << 31), 1 << 31, (size, size * count), generator=noise).to(torch.int32)
    found, fenced = reduced(interpreter, sources, "sum")
    assert torch.equal(found, in_group_order(sources, "sum"))
    assert fenced


def test_sum_in_group_order_is_not_the_sum_of_partial_sums_in_bfloat16() -> None:
    """What the comparison above would show: rounding after every rank gives other bits."""
    sources = torch.randn(4, 400, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    partial = sources[0] + sources[1] + sources[2] + sources[3]
    assert not torch.equal(partial, in_group_order(sources, "sum"))
