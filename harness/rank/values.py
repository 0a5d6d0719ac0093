"""Exact data: inputs whose results have the same bits in every legal order of summation.

Invariant: every value is a function of (seed, step, rank, index) alone, so each rank can compute any
rank's input and the exact result without communication. No legal value equals `poison`.

For an all-gather the bits are arbitrary finite patterns. For a reduction they are small integers that
every partial sum represents exactly. Where the collective promises to accumulate in fp32, two ranks
of each group carry cancelling large terms, so that rounding a partial sum to the dtype shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from harness.rank.own import arange, from_numpy, host_arange, tensor
from harness.substrate.bits import INTEGER_OF, bits

_MASK = (1 << 62) - 1
_CANCEL = {torch.bfloat16: 1 << 10, torch.float16: 1 << 14}


def key(*parts: int) -> int:
    """A well-mixed 62-bit key from small integers."""
    value = 0x9E3779B97F4A7C15
    for part in parts:
        value = (value ^ (part + 0x632BE59BD9B4E019)) * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
        value ^= value >> 31
    return value & _MASK


def gather_values(keys: Sequence[int], count: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Input of an all-gather for each key: [len(keys), count] of finite bit patterns."""
    mixed = _mix(keys, count, device)
    width = 8 * dtype.itemsize
    finite = ~(1 << (width - 2))  # the top exponent bit is zero: neither infinity nor NaN
    value = mixed & ((1 << width) - 1) & finite
    if width > 8:  # into the signed range of the integer type
        value = value - ((value >> (width - 1)) << width)
    return value.to(INTEGER_OF[dtype.itemsize]).view(dtype)


def reduce_values(
    keys: Sequence[int], count: int, dtype: torch.dtype, op: str, wide: bool, device: torch.device
) -> torch.Tensor:
    """Input of a reduction for each rank of a group: [size, count]. `wide` asks for cancelling terms."""
    size = len(keys)
    small = _mix(keys, count, device) % spread(size)
    if not wide or size < 3 or op != "sum" or dtype not in _CANCEL:
        return small.to(dtype)
    position = arange(count, device=device) % size
    rows = arange(size, device=device)[:, None]
    plus, minus = rows == position, rows == (position + 1) % size
    small = small.masked_fill(plus | minus, 0)
    return (small + _CANCEL[dtype] * plus.long() - _CANCEL[dtype] * minus.long()).to(dtype)


def spread(size: int) -> int:
    """How many values an element of a reduction's input may have, in a group of that size, without cancelling terms."""
    return max(2, min(16, 256 // size))


def reduce_result(inputs: torch.Tensor, op: str) -> torch.Tensor:
    """The exact result of reducing [size, count] over its first axis."""
    exact = inputs.to(torch.float64) if inputs.dtype.is_floating_point else inputs.long()
    if op == "max":
        return exact.amax(dim=0).to(inputs.dtype)
    total = exact.sum(dim=0)
    return (total / inputs.shape[0] if op == "avg" else total).to(inputs.dtype)


def poison(tensor: torch.Tensor) -> None:
    """Overwrite with all-ones bits, which no legal value has (a NaN in every float dtype)."""
    bits(tensor).fill_(255 if tensor.element_size() == 1 else -1)


def canary(tensor: torch.Tensor, *salts: int) -> torch.Tensor:
    """The pattern that guards `tensor`, as integers: another one for other `salts`."""
    # NumPy takes a third of PyTorch's time for so few elements
    value = (host_arange(tensor.numel()) + (key(*salts) & 0x7FFFFFFF)) * 0x9E3779B1
    mixed = ((value >> 15) ^ value) & ~(1 << (8 * tensor.element_size() - 2))  # poison has every bit
    return from_numpy(mixed).to(tensor.device, INTEGER_OF[tensor.element_size()])


def _mix(keys: Sequence[int], count: int, device: torch.device) -> torch.Tensor:
    """Non-negative int64[len(keys), count], well mixed."""
    index = arange(count, dtype=torch.int64, device=device)
    start = tensor([key & 0x7FFFFFFF for key in keys], dtype=torch.int64, device=device)[:, None]
    value = (index * 0x9E3779B1 + start * 0x85EBCA6B) & 0xFFFFFFFF
    value = ((value ^ (value >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
    value = ((value ^ (value >> 12)) * 0x297A2D39) & 0xFFFFFFFF
    return value ^ (value >> 15)
