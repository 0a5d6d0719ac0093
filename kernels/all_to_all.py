"""All-to-all by pushing: each rank stores a chunk of its source into every peer's output.

Invariant: only the output is addressed through peers, so it must lie in a window of the group's communicator, at the
same place on every rank. One compiled kernel serves all ranks, counts and alignments of a width.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=("rank", "count"), do_not_specialize_on_alignment=("source",))
def all_to_all_kernel(outputs, source, rank, count, BLOCK: tl.constexpr):
    """outputs: int64[size], address of each rank's output; source: size·count integers of the element width.

    Grid (size, ceil(count / BLOCK)): program (p, b) copies block b of chunk p to chunk `rank` of peer p.
    """
    peer = tl.program_id(0)
    index = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = index < count
    output = tl.load(outputs + peer).to(source.dtype)
    value = tl.load(source + peer * count + index, mask=mask)
    tl.store(output + rank * count + index, value, mask=mask)
