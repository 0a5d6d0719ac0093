"""All-gather by pushing: each rank stores its shard into every peer's output.

Invariant: only the output is addressed through peers, as in NCCL's ST kernel, so the output is the
buffer that must lie in a window of the group's communicator, at the same place on every rank.
One compiled kernel serves all ranks, counts and alignments of a width: programs draw them all.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=("start", "count"), do_not_specialize_on_alignment=("source",))
def all_gather_kernel(outputs, source, start, count, BLOCK: tl.constexpr):
    """outputs: int64[size], address of each rank's output; source: `count` integers of the element width.

    Grid (size, ceil(count / BLOCK)): program (p, b) copies block b to the chunk of peer p that begins at `start`.
    """
    peer = tl.program_id(0)
    index = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = index < count
    output = tl.load(outputs + peer).to(source.dtype)
    value = tl.load(source + index, mask=mask)
    tl.store(output + start + index, value, mask=mask)
