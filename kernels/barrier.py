"""A barrier between the ranks of a group, on registered signal pads.

Invariant: a rank leaves `epoch` only after every rank has entered it, and what a rank wrote before
entering is visible to every rank that has left. Epochs grow by one and are compared with >=, so a
fast rank that is already in the next epoch cannot lock out a slow one.
"""

import triton
import triton.language as tl


@triton.jit
def barrier_kernel(pads, rank, epoch, SIZE: tl.constexpr):
    """pads: int64[SIZE], address of each rank's pad (int32[SIZE], one word for each sender). Grid (1,)."""
    for step in range(SIZE):
        peer = (rank + step) % SIZE
        theirs = tl.load(pads + peer).to(tl.pointer_type(tl.int32))
        tl.atomic_xchg(theirs + rank, epoch, sem="release", scope="sys")
    mine = tl.load(pads + rank).to(tl.pointer_type(tl.int32))
    for sender in range(SIZE):
        while tl.atomic_add(mine + sender, 0, sem="acquire", scope="sys") < epoch:
            pass
