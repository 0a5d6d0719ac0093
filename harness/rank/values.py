"""Exact data: inputs whose results have the same bits in every legal order of summation.

Invariant: every value is a function of (seed, step, rank, index) alone, so each rank can compute any
rank's input and the exact result without communication. No legal value equals `poison`.

What moves has arbitrary bits: NaN, infinities and zeros of either sign too. A reduction has signed integers times a
power of two, which is one for all ranks. They fill the mantissa, and every partial sum represents them exactly. Where
the collective promises to accumulate in fp32 and to round once, sums of narrow types need that rounding, and two ranks
of each group carry cancelling large terms: rounding a partial sum shows, and so does truncation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from harness.rank.own import arange, from_numpy, host_arange, tensor
from harness.substrate.bits import INTEGER_OF, bits

_MASK = (1 << 62) - 1
_CANCEL = {torch.bfloat16: 1 << 10, torch.float16: 1 << 14}
_PRECISION = {torch.float32: 24, torch.bfloat16: 8, torch.float16: 11, torch.int32: 31}
"""Bits of a magnitude that the type has."""
_SCALES = {torch.float32: (-60, 60), torch.bfloat16: (-60, 60), torch.float16: (-10, 4), torch.int32: (0, 0)}
"""Powers of two with which an average over 2**8 ranks is no subnormal, and no sum is infinite."""
_LIFT = 2
"""Powers of two by which ranks may differ where sums are rounded, so that these have more bits than the type."""


def key(*parts: int) -> int:
    """A well-mixed 62-bit key from small integers."""
    value = 0x9E3779B97F4A7C15
    for part in parts:
        value = (value ^ (part + 0x632BE59BD9B4E019)) * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
        value ^= value >> 31
    return value & _MASK


def gather_values(keys: Sequence[int], count: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Input of a call that moves data, for each key: [len(keys), count] of any bit patterns but poison."""
    width = 8 * dtype.itemsize
    value = _mix(keys, count, device) & ((1 << width) - 1)
    value = value - (value == (1 << width) - 1).long()
    if width > 8:  # into the signed range of the integer type
        value = value - ((value >> (width - 1)) << width)
    return value.to(INTEGER_OF[dtype.itemsize]).view(dtype)


def reduce_values(
    keys: Sequence[int], count: int, dtype: torch.dtype, op: str, wide: bool, device: torch.device
) -> torch.Tensor:
    """Input of a reduction for each rank of a group: [size, count]. `wide` asks for sums that have to be rounded, and
    for cancelling terms."""
    size, mixed = len(keys), _mix(keys, count, device)
    lowest, highest = _SCALES[dtype]
    if not wide or op not in ("sum", "avg") or dtype not in _CANCEL:
        whole = _signed(mixed, (1 << _PRECISION[dtype]) // size)
        return _scaled(whole, mixed[0], lowest, highest, dtype)
    whole = _signed(mixed, 1 << _PRECISION[dtype]) << (mixed >> 28) % (_LIFT + 1)
    if size > 2 and op == "sum":
        position = arange(count, device=device) % size
        rows = arange(size, device=device)[:, None]
        is_cancelling = mixed[0] >> 20 & 1 == 1  # in the others every rank adds to the sum
        plus, minus = (rows == position) & is_cancelling, (rows == (position + 1) % size) & is_cancelling
        whole = whole.masked_fill(plus | minus, 0) + _CANCEL[dtype] * (plus.long() - minus.long())
    if dtype is torch.float16:  # whose largest number has 16 bits
        highest = min(highest, 16 - _PRECISION[dtype] - _LIFT - (size - 1).bit_length())
    return _scaled(whole, mixed[0], lowest, highest, dtype)


def _signed(mixed: torch.Tensor, limit: int) -> torch.Tensor:
    """Integers of either sign, of a magnitude below `limit`, which is at least 2."""
    most = max(2, limit)
    return mixed % (2 * most - 1) - (most - 1)


def _scaled(whole: torch.Tensor, chance: torch.Tensor, lowest: int, highest: int, dtype: torch.dtype) -> torch.Tensor:
    """The integers times a power of two, which differs from element to element and not between ranks."""
    if not dtype.is_floating_point:
        return whole.to(dtype)
    power = (chance >> 8) % (highest - lowest + 1) + lowest
    return torch.ldexp(whole.double(), power).to(dtype)


def spread(size: int) -> int:
    """How many values an element of a reduction's input may have at least, in a group of that size."""
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
