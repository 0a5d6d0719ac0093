"""Reduce-scatter by pulling: each rank loads its chunk of every peer's source and adds in fp32. All-reduce is the same
with the whole source as the chunk.

Invariant: only the source is addressed through peers, as in NCCL's LD kernel. Partial sums are kept in fp32 (int32 for
integers) in group order and rounded once. Access and order: see the package. One compiled kernel serves all ranks,
counts and alignments of a size and dtype.
"""

import triton
import triton.language as tl

from harness.kernels.rounding import to_bfloat16_bits


@triton.jit(do_not_specialize=("start", "done", "count"), do_not_specialize_on_alignment=("output",))
def reduce_scatter_kernel(
    sources,
    output,
    start: tl.int64,
    done: tl.int64,
    count: tl.int64,
    scale,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    PART: tl.constexpr,
    BF16: tl.constexpr,
    INTEGER: tl.constexpr,
    MAX: tl.constexpr,
    MIN: tl.constexpr,
):
    """sources: int64[SIZE], address of each rank's source; output: `count` elements, the sum of those in each source
    from `start` bytes on. Grid (ceil(count / BLOCK),).

    bfloat16 comes as int16 bits (`BF16`); the sum is multiplied by `scale` (1 or 1/SIZE) unless `INTEGER`. `MAX` and
    `MIN`: the largest or smallest in place of the sum. `done` of the elements fill words of 16 bytes. PART of the
    others are reduced at a time.
    """
    per: tl.constexpr = 128 // output.dtype.element_ty.primitive_bitwidth
    begin = tl.program_id(0).to(tl.int64) * BLOCK
    start, done, count = start.to(tl.int64), done.to(tl.int64), count.to(tl.int64)
    own = output.to(tl.int64)
    together = own | start
    for peer in range(SIZE):
        together |= tl.load(sources + peer)
    end = tl.minimum(begin + BLOCK, count)
    # how far this block goes by words; written as a product so that the compiler knows it for a multiple of a word
    whole = tl.minimum(end, done) // per * per * (together % 16 == 0).to(tl.int64)
    for by_words in tl.static_range(2):
        if by_words:
            at, last = begin, whole
        else:
            at, last = tl.maximum(begin, whole), end
        while at < last:
            # words take one turn: of a start that changes, the compiler does not know that it is aligned
            index = (begin if by_words else at) + tl.arange(0, BLOCK if by_words else PART).to(tl.int64)
            mask = index < last
            if INTEGER:
                total = tl.full(index.shape, -0x80000000 if MAX else 0x7FFFFFFF if MIN else 0, dtype=tl.int32)
            else:
                total = tl.full(index.shape, float("-inf") if MAX else float("inf") if MIN else 0.0, dtype=tl.float32)
            for peer in range(SIZE):
                source = (tl.load(sources + peer) + start).to(output.dtype)
                if by_words:
                    source = tl.multiple_of(source, 16)
                value = tl.load(source + index, mask=mask)
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
            target = own.to(output.dtype)
            if by_words:
                target = tl.multiple_of(target, 16)
            if BF16:
                tl.store(target + index, to_bfloat16_bits(total * scale), mask=mask)
            elif INTEGER:
                tl.store(target + index, total, mask=mask)
            else:
                tl.store(target + index, (total * scale).to(output.dtype.element_ty), mask=mask)
            at += BLOCK if by_words else PART
