"""A barrier between the ranks of a group, on registered signal pads.

Invariant: a rank leaves `epoch` only after every rank has entered it, and what a rank wrote before
entering is visible to every rank that has left. Epochs grow by one and are compared with >=, so a
fast rank that is already in the next epoch cannot lock out a slow one.

Order: every signal is a release, and every look an acquire, at system scope. A release covers what this rank's stream
wrote before it, whichever kernel did (PTX ISA, "Memory Consistency Model": causality order).
"""

import triton
import triton.language as tl
from triton.language.standard import _sum_combine


@triton.jit(do_not_specialize=("rank", "epoch"))
def barrier_kernel(pads, rank, epoch, SIZE: tl.constexpr, LANES: tl.constexpr):
    """pads: int64[SIZE], address of each rank's pad (int32[SIZE], one word for each sender). Grid (1,).

    With epoch 0 it is the one after the last of this rank, which its pad has: a graph may launch that again and again.
    LANES is SIZE rounded up to a power of two; lane i signals rank i, then waits for rank i.
    """
    lane = tl.arange(0, LANES)
    mask = lane < SIZE
    if epoch == 0:
        epoch = tl.load(tl.load(pads + rank).to(tl.pointer_type(tl.int32)) + rank) + 1
    peers = tl.load(pads + lane, mask=mask, other=0).to(tl.pointer_type(tl.int32))
    tl.atomic_xchg(peers + rank, epoch, mask=mask, sem="release", scope="sys")
    own = tl.load(pads + rank).to(tl.pointer_type(tl.int32)) + lane
    # The loop carries a number: Triton 3.6 fails to compile one that carries the words themselves.
    missing = SIZE
    while missing > 0:
        seen = tl.atomic_add(own, 0, mask=mask, sem="acquire", scope="sys")
        # `tl.sum` does the same, and takes the interpreter 0.4 ms: as long as all else in this kernel
        missing = tl.reduce((mask & (seen < epoch)).to(tl.int32), 0, _sum_combine)
