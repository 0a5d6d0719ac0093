"""All-gather in the interpreter: the bits of every source, and not an element more."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.rank.values import gather_values
from harness.scenario.operands import ITEMSIZE
from harness.substrate.bits import bits
from tests.tools.interpreter import Interpreter
from tests.tools.kernel_calls import COUNTS, CPU, EDGES, QUICK, called, keys


@pytest.mark.parametrize("dtype", ITEMSIZE)
@pytest.mark.parametrize("size", [2, 3, 4])
def test_all_gather_copies_every_bit_of_every_dtype(dtype: str, size: int, interpreter: Interpreter) -> None:
    sources = gather_values(keys(size), 77, getattr(torch, dtype), CPU)
    outputs, _ = called(interpreter, "all_gather", sources)
    assert all(torch.equal(bits(output), bits(sources).flatten()) for output in outputs)


@pytest.mark.parametrize("count", EDGES)
def test_all_gather_is_right_and_in_bounds_on_both_sides_of_its_blocks(count: int, interpreter: Interpreter) -> None:
    sources = gather_values(keys(2), count, torch.bfloat16, CPU)
    outputs, is_fenced = called(interpreter, "all_gather", sources)
    assert all(torch.equal(bits(output), bits(sources).flatten()) for output in outputs)
    assert is_fenced


@QUICK
@given(size=st.integers(2, 5), count=COUNTS, dtype=st.sampled_from([*ITEMSIZE]))
def test_all_gather_is_right_and_in_bounds_for_any_size_and_count(
    interpreter: Interpreter, size: int, count: int, dtype: str
) -> None:
    sources = gather_values(keys(size), count, getattr(torch, dtype), CPU)
    outputs, is_fenced = called(interpreter, "all_gather", sources)
    assert all(torch.equal(bits(output), bits(sources).flatten()) for output in outputs)
    assert is_fenced


def test_all_gather_keeps_what_is_no_number(interpreter: Interpreter) -> None:
    words = torch.tensor([[0x7FC00001, 0x7F800001, -1, -(1 << 31)], [0x7F800000, -0x800000, 1, 0]], dtype=torch.int32)
    outputs, _ = called(interpreter, "all_gather", words.view(torch.float32))
    assert [bits(output).tolist() for output in outputs] == [words.flatten().tolist()] * 2
