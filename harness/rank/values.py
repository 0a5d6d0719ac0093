"""Data that shows what was done to it: inputs whose results have the same bits in every legal order of summation.

Invariant: every value is a function of (seed, step, rank, index) alone, so each rank can compute any rank's input and
the exact result without communication. No legal value equals `poison`.

A gather moves any bit pattern. A maximum is one of any values but NaN. A sum is, element by element, of one of these
kinds. All terms of an element are integers times one power of two, which ranges over the exponents of the type:

- *integers*: the sums of their magnitudes fit the mantissa, so that no order rounds;
- *alone*: one rank has a value of all bits of the mantissa, up to the largest finite one, its peers zeros of either
  sign;
- *pair*: two ranks cancel each other, and a third stays.

Where the collective promises to add in at least fp32 and to round once (`wide`), sums in half precision are exact in
fp32 alone, and rounded to the nearest, ties to even:

- *scattered*: terms of different exponents;
- *pair*: two ranks cancel each other, and hold terms so large that a partial sum in the type forgets the third;
- *tie*: two ranks end on a tie or just beside one, and some carry into the next exponent;
- *flushed*, of an average: one rank has the smallest subnormal, whose share rounds to a zero that keeps its sign;
- *large*, of an average in fp16: the sum may pass its largest value, and the share does not.

An average over a group whose size is no power of two has none that end on a tie or are flushed. There a *scattered* sum
shows that it was rounded to the type before it was divided.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from harness.rank.own import arange, cat, from_numpy, host_arange, tensor
from harness.substrate.bits import INTEGER_OF, bits

_MASK = (1 << 62) - 1
BLOCK = 1 << 14
"""Columns that are made at a time."""
_WIDE = 24
"""Bits of a sum in fp32."""
_HIGHEST = 128
"""Every sum in fp32 is below this power of two."""
_SMALLEST = -126
"""The exponent of the smallest number in fp32 that has all bits of its mantissa."""


class Form(NamedTuple):
    """A float type: bits of a mantissa, its first one among them, and the exponents of the smallest and the largest
    unit that `pieces` multiplies mantissas by."""

    bits: int
    lowest: int
    highest: int


FORMS = {
    torch.float16: Form(11, -24, 5),
    torch.bfloat16: Form(8, -133, 120),
    torch.float32: Form(24, -149, 104),
    torch.float64: Form(53, -1022, 971),  # subnormals are left out: 2**-1074 is no factor that a float64 holds
    torch.float8_e4m3fn: Form(4, -9, 5),
    torch.float8_e5m2: Form(3, -16, 13),
}
NARROW = (torch.float16, torch.bfloat16)
"""Types in which partial sums of a `wide` collective would be rounded."""


class _Kind(NamedTuple):
    """How the terms of an element are made. `cap`: largest mantissa. `active`: ranks that have one. `lifted`: how many
    of these have it above all bits of the others. `spread`: exponents that a rank's may lie above the common one.
    `low` and `high`: the common one. `paired`, `tied`: the first two ranks cancel each other, or make a tie."""

    cap: int
    active: int
    low: int
    high: int
    lifted: int = 0
    spread: int = 0
    paired: bool = False
    tied: bool = False

    @property
    def row(self) -> list[int]:
        """Its numbers, for a table: more mantissas and exponents than there are, so that the first and the last come
        up often."""
        wide = self.high - self.low
        drawn = self.cap * 9 // 8, wide * 5 // 4 + 1, wide // 8 - self.low
        return [*self[:5], self.spread + 1, *drawn, self.paired, self.tied]


def key(*parts: int) -> int:
    """A well-mixed 62-bit key from small integers."""
    value = 0x9E3779B97F4A7C15
    for part in parts:
        value = (value ^ (part + 0x632BE59BD9B4E019)) * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
        value ^= value >> 31
    return value & _MASK


Beat = Callable[[], None]
"""Says that this rank is at work."""


def silently() -> None:
    """Say nothing."""


def gather_values(
    keys: Sequence[int], count: int, dtype: torch.dtype, device: torch.device, beat: Beat = silently
) -> torch.Tensor:
    """Input of an all-gather for each key: [len(keys), count] of any bit patterns but poison. Of floats, one in eight
    is an infinity, NaN, zero or subnormal."""
    return _in_blocks(count, device, lambda part: _moved(keys, part, dtype, device), beat)


def reduce_values(
    keys: Sequence[int],
    count: int,
    dtype: torch.dtype,
    op: str,
    wide: bool,
    device: torch.device,
    beat: Beat = silently,
) -> torch.Tensor:
    """Input of a reduction for each rank of a group: [size, count]. `wide`: it adds in at least fp32, rounding once."""
    if op in ("max", "min"):
        return _in_blocks(count, device, lambda part: _candidates(keys, part, dtype, device), beat)
    if not dtype.is_floating_point:
        return _in_blocks(count, device, lambda part: _integers(keys, part, dtype, device), beat)
    form = FORMS[dtype]
    kinds = _kinds(len(keys), form, op, wide and dtype in NARROW)
    return _in_blocks(count, device, lambda part: _terms(keys, part, form, kinds, device).to(dtype), beat)


def _in_blocks(count: int, device: torch.device, made: Callable[[range], torch.Tensor], beat: Beat) -> torch.Tensor:
    """Columns 0 to `count`, as `made` gives them: on the host in blocks that stay in its caches, which takes a quarter
    of the time for many. `beat` is called behind each, as a busy machine may take long for all of them."""
    if count <= BLOCK or device.type != "cpu":
        return made(range(count))
    blocks = []
    for start in range(0, count, BLOCK):
        blocks.append(made(range(start, min(start + BLOCK, count))))
        beat()
    return cat(blocks, dim=-1)


def is_exact(size: int, op: str | None) -> bool:
    """Whether one result is owed, bit for bit. Of an average, only where 1/size is a power of two."""
    return op != "avg" or size & (size - 1) == 0


def reduce_result(inputs: torch.Tensor, op: str, size: int = 0, beat: Beat = silently) -> torch.Tensor:
    """The exact result of reducing [size, count] over its first axis. `size`: what an average divides by, if that is
    another number."""
    return _in_blocks(
        inputs.shape[1], inputs.device, lambda part: _reduced(inputs[:, part.start : part.stop], op, size), beat
    )


def _reduced(inputs: torch.Tensor, op: str, size: int) -> torch.Tensor:
    exact = inputs.to(torch.float64) if inputs.dtype.is_floating_point else inputs.long()
    if op in ("max", "min"):
        return (exact.amax(dim=0) if op == "max" else exact.amin(dim=0)).to(inputs.dtype)
    total = exact.sum(dim=0)
    return (total / (size or inputs.shape[0]) if op == "avg" else total).to(inputs.dtype)


def poison(tensor: torch.Tensor) -> None:
    """Overwrite with all-ones bits, which no legal value has (a NaN in every float dtype)."""
    bits(tensor).fill_(all_ones(tensor))


def all_ones(tensor: torch.Tensor) -> int:
    """An element of poison, as an integer of the tensor's width."""
    return 255 if tensor.element_size() == 1 else -1


def canary(tensor: torch.Tensor, *salts: int) -> torch.Tensor:
    """The pattern that guards `tensor`, as integers: another one for other `salts`."""
    # NumPy takes a third of PyTorch's time for so few elements
    value = (host_arange(tensor.numel()) + (key(*salts) & 0x7FFFFFFF)) * 0x9E3779B1
    mixed = ((value >> 15) ^ value) & ~(1 << (8 * tensor.element_size() - 2))  # poison has every bit
    return from_numpy(mixed).to(tensor.device, INTEGER_OF[tensor.element_size()])


def _kinds(size: int, form: Form, op: str, wide: bool) -> list[_Kind]:
    """The kinds of a sum's elements, of which each is one in eight."""
    full, low, high = (1 << form.bits) - 1, form.lowest, form.highest
    if op == "avg":
        # shares have all bits that values have; where they are rounded, they are no subnormals, which have fewer
        is_rounded = not is_exact(size, op) and not (wide and form.lowest > _SMALLEST)
        low += (size - 1).bit_length() + (form.bits - 1 if is_rounded else 0)
    alone = _Kind(full, 1, low, high)
    integers = _Kind(max(1, full // size), size, low, high)
    if not wide:
        pair = _Kind(full >> 1, 3, low, high, paired=True) if size > 2 else integers
        return [integers] * 4 + [alone] * 3 + [pair]
    spread = max(0, _WIDE - form.bits - (size - 1).bit_length())
    top = high - (_WIDE + 1 - form.bits)
    scattered = _Kind(full, size, low, top, spread=spread)
    pair = _Kind(full, 3, low, high - form.bits - 1, lifted=2, paired=True) if size > 2 else scattered
    has_room = high + form.bits + (size - 1).bit_length() <= _HIGHEST
    large = _Kind(full, size, high, high) if op == "avg" and has_room else scattered
    if not is_exact(size, op):
        return [scattered] * 3 + [large, alone, alone, pair, pair]
    tie = _Kind(full, 2, low, high - form.bits - 1, lifted=1, tied=True) if size > 1 else scattered
    flushed = _Kind(1, 1, form.lowest, form.lowest) if op == "avg" and size > 1 else alone
    return [scattered, large, alone, flushed, pair, pair, tie, tie]


def _terms(keys: Sequence[int], part: range, form: Form, kinds: list[_Kind], device: torch.device) -> torch.Tensor:
    """Inputs of a sum: float64[size, part]."""
    size, is_wide, is_long = len(keys), any(kind.lifted for kind in kinds), form.bits > _WIDE
    mixed, each = _mixed(keys, part, is_long, device)
    cap, active, low, high, lifted, spread, mantissas, exponents, lead, paired, tied = _looked_up(kinds, each & 7)
    role = arange(size, device=device)[:, None] - ((each >> 16) * size >> 16)
    role += role >> 63 & size
    mantissa = mixed >> 1
    if is_long:
        mantissa %= mantissas
    else:  # a division of integers takes as long as ten multiplications
        mantissa *= mantissas
        mantissa >>= 31
    mantissa = (mantissa + 1).clamp(max=cap)
    if is_wide:
        half, beside = 1 << form.bits - 1, each >> 13 & 3
        is_beside = (tied & (beside < 3) == 1) & (role == 1)
        mantissa = (beside + half - 1).where(is_beside, mantissa)
        above = (mixed >> 1 & 0xFF) * spread >> 8
        mantissa = ((mantissa | half) << form.bits).where(role < lifted, mantissa << above)
    mantissa *= role < active
    exponent = (((each >> 3 & 0xFFF) * exponents >> 12) - lead).clamp(min=low).clamp(max=high)
    # powers of two by their bits: of `pow`, a device need not give the last one. Minus times zero is minus zero.
    mixed <<= 63
    mixed |= exponent + 1023 << 52
    terms = mantissa.to(torch.float64)
    terms *= mixed.view(torch.float64)
    if any(kind.paired for kind in kinds):
        terms = terms.roll(1, 0).neg_().where((paired == 1) & (role == 1), terms)
    return terms


def _looked_up(kinds: list[_Kind], number: torch.Tensor) -> list[torch.Tensor | int]:
    """The numbers of each element's kind; one for all where the kinds have the same."""
    columns = [*zip(*(kind.row for kind in kinds), strict=True)]
    apart = [column for column in columns if len({*column}) > 1]
    found = iter(tensor(apart, dtype=torch.int64, device=number.device)[:, number] if apart else ())
    return [column[0] if len({*column}) == 1 else next(found) for column in columns]


def _integers(keys: Sequence[int], part: range, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Inputs of a sum that no order takes beyond the type: [size, part]."""
    limit = max(1, min((torch.iinfo(dtype).max - 1) // len(keys), 1 << 61))
    mixed, _ = _mixed(keys, part, dtype.itemsize == 8, device)
    if dtype is torch.uint8:
        return (mixed % (limit + 1)).to(dtype)
    terms = mixed % (2 * limit + 1) - limit
    terms += 2 * (terms == -1)
    is_poison, first = terms.sum(dim=0) == -1, terms[0]
    terms[0] += is_poison * (2 * (first == 0).long() - 1)
    return terms.to(dtype)


def _candidates(keys: Sequence[int], part: range, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Inputs of a maximum or a minimum: [size, part] of any values but NaN, of either sign or of one. One element in
    sixteen has infinities, half of those on every rank. No element has zeros of different signs, of which any is
    right."""
    width = 8 * dtype.itemsize
    mixed = _patterns(keys, part, dtype, device)
    if not dtype.is_floating_point:
        return _without_poison(mixed, width).to(dtype)
    _, each = _mixed(keys[:1], part, False, device)
    first = 1 << FORMS[dtype].bits - 1
    infinity = (1 << width - 1) - first
    magnitude = mixed & (1 << width - 1) - 1
    magnitude = (magnitude ^ first).where(magnitude >= infinity, magnitude).clamp(min=1)
    is_infinite = (each >> 4 & 15 == 0) & ((each >> 9 & 1 == 0) | (mixed >> 3 & 1 == 0))
    magnitude = magnitude.masked_fill(is_infinite, infinity)
    sign = (each >> 8).where(each & 3 == 0, mixed >> width - 1) & 1
    value = magnitude * (each & 15 != 0) | sign << width - 1
    return value.to(INTEGER_OF[dtype.itemsize]).view(dtype)


def _moved(keys: Sequence[int], part: range, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Any bit patterns: [len(keys), part]."""
    mixed, width = _patterns(keys, part, dtype, device), 8 * dtype.itemsize
    if dtype.is_floating_point:
        mantissa = (1 << FORMS[dtype].bits - 1) - 1
        exponent, sign = (1 << width - 1) - 1 - mantissa, -1 << width - 1
        kept = tensor([sign, sign | mantissa, sign, sign | mantissa, *[-1] * 28], device=device)
        forced = tensor([exponent, exponent, *[0] * 30], device=device)
        choice = mixed * 0x9E3779B1 >> 24 & 31
        mixed = mixed & kept[choice] | forced[choice]
    return _without_poison(mixed, width).to(INTEGER_OF[dtype.itemsize]).view(dtype)


def _patterns(keys: Sequence[int], part: range, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """int64[len(keys), part] of as many well mixed bits as the type has."""
    mixed = _mix(keys, part, device)
    if dtype.itemsize < 8:
        return mixed & (1 << 8 * dtype.itemsize) - 1
    return mixed << 32 | _mix([each >> 31 for each in keys], part, device)


def _without_poison(patterns: torch.Tensor, width: int) -> torch.Tensor:
    """Patterns of which none has all bits."""
    ones = (1 << width) - 1 if width < 64 else -1
    is_poison: torch.Tensor = patterns & ones == ones
    return patterns.bitwise_xor(is_poison.long())


def _mixed(keys: Sequence[int], part: range, is_long: bool, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Non-negative int64[len(keys), part] of 32 bits, or 62 if `is_long`; and int64[part] of 32 bits that the ranks
    of the group share."""
    both = _mix([*keys, key(keys[0], 1)], part, device)
    mixed, each = both[:-1], both[-1]
    if is_long:
        mixed = (mixed & 0x3FFFFFFF) << 32 | _mix([each >> 31 for each in keys], part, device)
    return mixed, each


def _mix(keys: Sequence[int], part: range, device: torch.device) -> torch.Tensor:
    """Non-negative int64[len(keys), part], well mixed: 32 bits."""
    index = arange(part.start, part.stop, dtype=torch.int64, device=device)
    start = tensor([key & 0x7FFFFFFF for key in keys], dtype=torch.int64, device=device)[:, None]
    value = index * 0x9E3779B1 + start * 0x85EBCA6B
    value &= 0xFFFFFFFF
    value ^= value >> 15
    value *= 0x2C1B3C6D
    value &= 0xFFFFFFFF
    value ^= value >> 12
    value *= 0x297A2D39
    value &= 0xFFFFFFFF
    value ^= value >> 15
    return value
