"""All-to-all by pushing: each rank stores a chunk of its source into every peer's output.

Invariant: only the output is addressed through peers, so it must lie in a window of the group's communicator, at the
same place on every rank. Access and order: see the package. One compiled kernel serves all ranks, sizes, counts and
alignments of a width.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=("rank", "done", "count", "first"), do_not_specialize_on_alignment=("source",))
def all_to_all_kernel(
    outputs,
    source,
    rank: tl.int64,
    done: tl.int64,
    count: tl.int64,
    first: tl.int64,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    PART: tl.constexpr,
):
    """outputs: int64[SIZE], address of each rank's output; source: size·count integers of the element width.

    Grid (ceil(count / BLOCK),): program b copies block b of each peer's chunk to chunk `rank` of its output. The first
    to get it is peer `first` modulo SIZE. `done` of a chunk's elements fill words of 16 bytes. PART of the others are
    copied at a time.
    """
    width: tl.constexpr = source.dtype.element_ty.primitive_bitwidth // 8
    begin = tl.program_id(0).to(tl.int64) * BLOCK
    rank, done, count, first = rank.to(tl.int64), done.to(tl.int64), count.to(tl.int64), first.to(tl.int64)
    origin, chunk = source.to(tl.int64), count * width
    start = rank * chunk
    together = origin | chunk
    for turn in range(SIZE):
        together |= tl.load(outputs + turn)
    at = begin
    if together % 16 == 0:
        index = begin * width // 8 + tl.arange(0, BLOCK * width // 8)
        mask = index < done * width // 16 * 2
        for turn in range(SIZE):
            peer = (first + turn) % SIZE
            given = (origin + peer * chunk).to(tl.pointer_type(tl.int64))
            target = (tl.load(outputs + peer) + start).to(tl.pointer_type(tl.int64))
            value = tl.load(tl.multiple_of(given, 16) + index, mask=mask)
            tl.store(tl.multiple_of(target, 16) + index, value, mask=mask)
        at = done
    end = tl.minimum(begin + BLOCK, count)
    while at < end:
        index = at + tl.arange(0, PART).to(tl.int64)
        mask = index < end
        for turn in range(SIZE):
            peer = (first + turn) % SIZE
            given = (origin + peer * chunk).to(source.dtype)
            target = (tl.load(outputs + peer) + start).to(source.dtype)
            tl.store(target + index, tl.load(given + index, mask=mask), mask=mask)
        at += PART
