"""Kernel collectives whose order differs from the right one in one thing, beside those of the catalogue."""

# mypy: allow-untyped-defs, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl

from harness.system.collectives import CollectiveContext
from harness.system.planted.kernels import SoundKernels


@triton.jit(do_not_specialize=("rank", "epoch"))
def meet_kernel(pads, rank, epoch, SIZE: tl.constexpr, LANES: tl.constexpr, SIGNAL: tl.constexpr, LOOK: tl.constexpr):
    """A barrier whose signals are `release` or `gpu` (a release that only this GPU sees), and whose looks are
    `acquire`, `relaxed`, `volatile` (no atomic operation) or `cas` (compare and swap)."""
    lane = tl.arange(0, LANES)
    mask = lane < SIZE
    peers = tl.load(pads + lane, mask=mask, other=0).to(tl.pointer_type(tl.int32))
    if SIGNAL == "gpu":
        tl.atomic_xchg(peers + rank, epoch, mask=mask, sem="release", scope="gpu")
    else:
        tl.atomic_xchg(peers + rank, epoch, mask=mask, sem="release", scope="sys")
    own = tl.load(pads + rank).to(tl.pointer_type(tl.int32))
    if LOOK == "cas":
        for sender in range(SIZE):
            seen = epoch - 1
            while seen < epoch:
                seen = tl.atomic_cas(own + sender, 0, 0, sem="acquire", scope="sys")
    else:
        missing = SIZE
        while missing > 0:
            if LOOK == "volatile":
                seen = tl.load(own + lane, mask=mask, other=0, volatile=True)
            elif LOOK == "relaxed":
                seen = tl.atomic_add(own + lane, 0, mask=mask, sem="relaxed", scope="sys")
            else:
                seen = tl.atomic_add(own + lane, 0, mask=mask, sem="acquire", scope="sys")
            missing = tl.sum((mask & (seen < epoch)).to(tl.int32), axis=0)


class Meets(SoundKernels):
    """Breaks no rule."""

    signal, look = "release", "acquire"

    def before(self, context: CollectiveContext) -> None:
        lanes = 1 << (context.size - 1).bit_length()
        meet_kernel[(1,)](
            context.signal_pads,
            context.rank,
            context.epoch(),
            SIZE=context.size,
            LANES=lanes,
            SIGNAL=self.signal,
            LOOK=self.look,
        )

    after = before


class LooksByCompareAndSwap(Meets):
    """Breaks no rule."""

    look = "cas"


class SignalsItsGpu(Meets):
    """Breaks race: its releases are at the scope of a GPU."""

    signal = "gpu"


class LooksRelaxed(Meets):
    """Breaks race: no acquire takes over what was released."""

    look = "relaxed"


class LooksByLoads(Meets):
    """Breaks race: a load is no atomic operation."""

    look = "volatile"


class SignalsTooEarly(SoundKernels):
    """Breaks race: the barrier behind the kernel comes before it."""

    def before(self, context: CollectiveContext) -> None:
        context.barrier()
        context.barrier()

    def after(self, context: CollectiveContext) -> None:
        pass
