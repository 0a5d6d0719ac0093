"""Reduce-scatter by pulling: each rank loads its chunk of every peer's source and adds in fp32. All-reduce is the same
with the whole source as the chunk.

Invariant: only the source is addressed through peers, as in NCCL's LD kernel. Partial sums are kept
in fp32 (int32 for int32) in group order and rounded once.
One compiled kernel serves all ranks, counts and alignments of a size and dtype.
"""

import triton
import triton.language as tl

from harness.kernels.rounding import to_bfloat16_bits


@triton.jit(do_not_specialize=("start", "count"), do_not_specialize_on_alignment=("output",))
def reduce_scatter_kernel(
    sources,
    output,
    start,
    count,
    scale,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    BF16: tl.constexpr,
    INTEGER: tl.constexpr,
    MAX: tl.constexpr,
    MIN: tl.constexpr,
):
    """sources: int64[SIZE], address of each rank's source; output: `count` elements, the sum of those in each source
    from `start` on. Grid (ceil(count / BLOCK),).

    bfloat16 comes as int16 bits (`BF16`); the sum is multiplied by `scale` (1 or 1/SIZE) unless `INTEGER`. `MAX` and
    `MIN`: the largest or smallest in place of the sum.
    """
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = index < count
    place = start + index
    if INTEGER:
        total = tl.full((BLOCK,), -0x80000000 if MAX else 0x7FFFFFFF if MIN else 0, dtype=tl.int32)
    else:
        total = tl.full((BLOCK,), float("-inf") if MAX else float("inf") if MIN else 0.0, dtype=tl.float32)
    for peer in range(SIZE):
        source = tl.load(sources + peer).to(output.dtype)
        value = tl.load(source + place, mask=mask, other=0)
        if BF16:
            value = (value.to(tl.int32) << 16).to(tl.float32, bitcast=True)
        elif not INTEGER:
            value = value.to(tl.float32)
        if MAX:
            total = tl.maximum(total, value)
        elif MIN:
            total = tl.minimum(total, value)
        else:
            total += value
    if BF16:
        tl.store(output + index, to_bfloat16_bits(total * scale), mask=mask)
    elif INTEGER:
        tl.store(output + index, total, mask=mask)
    else:
        tl.store(output + index, (total * scale).to(output.dtype.element_ty), mask=mask)
