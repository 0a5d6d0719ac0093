"""A copy whose kernel lets the next one on its stream start before it has loaded or stored anything.

A kernel that was launched to start early waits for this one, as CUDA asks of it (`griddepcontrol.wait`). Otherwise it
reads old bytes, or writes what this kernel has yet to load. NCCL 2.28 to 2.30.6 left the wait out of its symmetric
kernels (nccl 1924). Any other kernel starts afterwards.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, globaltimer

BLOCK = 4096
"""Bytes that one program copies."""
CAPTURED, EAGER = 20_000, 1_000_000
"""Nanoseconds for which a program holds back: longer than a kernel takes to start, in a graph and from the host."""


# One compiled kernel serves every operand: none is compiled while a stream is captured.
@triton.jit(do_not_specialize=("target", "source", "count", "held"))
def early_move_kernel(target, source, count: tl.int64, held: tl.int64, BLOCK: tl.constexpr):
    """target, source: uint8[count]. Grid (count / BLOCK, rounded up). held: ns before the loads. sm_90 and later."""
    gdc_launch_dependents()
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    begun = globaltimer()
    while globaltimer() - begun < held:
        pass
    value = tl.load(source + at, mask=at < count, volatile=True)  # no compiler moves it before the wait
    tl.store(target + at, value, mask=at < count)
