"""Bits of tensors: equal integers mean equal bits, where floats compare otherwise."""

from __future__ import annotations

import pytest
import torch

from harness.substrate.bits import bits

NAN, NEGATIVE_ZERO = float("nan"), -0.0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float8_e5m2, torch.bfloat16, torch.float16, torch.float32])
def test_bits_are_integers_of_the_same_width(dtype: torch.dtype) -> None:
    found = bits(torch.zeros(3, dtype=dtype))
    assert (found.dtype.is_floating_point, found.dtype.itemsize, len(found)) == (False, dtype.itemsize, 3)


def test_equal_nans_have_equal_bits() -> None:
    value = torch.tensor([NAN])
    assert torch.equal(bits(value), bits(value.clone()))


def test_zeros_of_different_sign_have_different_bits() -> None:
    assert not torch.equal(bits(torch.tensor([0.0])), bits(torch.tensor([NEGATIVE_ZERO])))


def test_bits_share_the_tensors_memory() -> None:
    value = torch.zeros(2)
    bits(value)[1] = 0x3F800000
    assert value.tolist() == [0.0, 1.0]
