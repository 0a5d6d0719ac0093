"""All-gather by pushing: each rank stores its chunk into every peer's output. A broadcast is a gather in which one rank
has all elements.

Invariant: only the output is addressed through peers, as in NCCL's ST kernel, so the output is the buffer that must lie
in a window of the group's communicator, at the same place on every rank. Access and order: see the package.
One compiled kernel serves all ranks, sizes, counts and alignments of a width: programs draw them all.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=("start", "done", "count", "first"), do_not_specialize_on_alignment=("source",))
def all_gather_kernel(
    outputs,
    source,
    start: tl.int64,
    done: tl.int64,
    count: tl.int64,
    first: tl.int64,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    PART: tl.constexpr,
):
    """outputs: int64[SIZE], address of each rank's output; source: `count` integers of the element width.

    Grid (ceil(count / BLOCK),): program b copies block b to the chunk of every peer that begins `start` bytes into its
    output. The first to get it is peer `first` modulo SIZE. `done` of the elements fill words of 16 bytes. PART of the
    others are copied at a time.
    """
    width: tl.constexpr = source.dtype.element_ty.primitive_bitwidth // 8
    begin = tl.program_id(0).to(tl.int64) * BLOCK
    start, done, count, first = start.to(tl.int64), done.to(tl.int64), count.to(tl.int64), first.to(tl.int64)
    origin = source.to(tl.int64)
    together = origin | start
    for turn in range(SIZE):
        together |= tl.load(outputs + turn)
    at = begin
    if together % 16 == 0:
        index = begin * width // 8 + tl.arange(0, BLOCK * width // 8)
        mask = index < done * width // 16 * 2
        value = tl.load(tl.multiple_of(origin.to(tl.pointer_type(tl.int64)), 16) + index, mask=mask)
        for turn in range(SIZE):
            target = (tl.load(outputs + (first + turn) % SIZE) + start).to(tl.pointer_type(tl.int64))
            tl.store(tl.multiple_of(target, 16) + index, value, mask=mask)
        at = done
    end = tl.minimum(begin + BLOCK, count)
    while at < end:
        index = at + tl.arange(0, PART).to(tl.int64)
        mask = index < end
        value = tl.load(source + index, mask=mask)
        for turn in range(SIZE):
            target = (tl.load(outputs + (first + turn) % SIZE) + start).to(source.dtype)
            tl.store(target + index, value, mask=mask)
        at += PART
