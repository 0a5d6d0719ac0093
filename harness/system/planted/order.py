"""Kernel collectives that order their ranks too little, with one planted fault each.

Invariant: as in `kernels`. Most of these faults leave right data as long as no rank loses the processor.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import torch
import triton
import triton.language as tl

from harness.system.collectives import CollectiveContext
from harness.system.planted.kernels import SoundKernels


@triton.jit(do_not_specialize=("rank", "epoch"))
def flag_barrier_kernel(
    pads, rank, epoch, SIZE: tl.constexpr, LANES: tl.constexpr, RELAXED: tl.constexpr, PARITY: tl.constexpr
):
    """Lane i signals rank i in its pad, then waits for rank i in its own: for `epoch` or a later one; with PARITY for
    its last bit alone. RELAXED: signals publish nothing. `epoch` is a number, or points to one."""
    if epoch.dtype.is_ptr():
        epoch = tl.load(epoch)
    lane = tl.arange(0, LANES)
    mask = lane < SIZE
    peers = tl.load(pads + lane, mask=mask, other=0).to(tl.pointer_type(tl.int32))
    if RELAXED:
        tl.atomic_xchg(peers + rank, epoch, mask=mask, sem="relaxed", scope="sys")
    elif PARITY:
        tl.atomic_xchg(peers + rank, epoch & 1, mask=mask, sem="release", scope="sys")
    else:
        tl.atomic_xchg(peers + rank, epoch, mask=mask, sem="release", scope="sys")
    own = tl.load(pads + rank).to(tl.pointer_type(tl.int32)) + lane
    missing = SIZE
    while missing > 0:
        seen = tl.atomic_add(own, 0, mask=mask, sem="acquire", scope="sys")
        if PARITY:
            missing = tl.sum((mask & (seen != (epoch & 1))).to(tl.int32), axis=0)
        else:
            missing = tl.sum((mask & (seen < epoch)).to(tl.int32), axis=0)


class FlagBarrier(SoundKernels):
    """Its barriers are its own, on the signal pads. Breaks no rule."""

    is_relaxed, has_parity = False, False

    def before(self, context: CollectiveContext) -> None:
        self.meet(context, self.epoch(context))

    def after(self, context: CollectiveContext) -> None:
        self.meet(context, self.epoch(context))

    def epoch(self, context: CollectiveContext) -> int | torch.Tensor:
        """The number of a barrier, or the word on the device that has it."""
        return context.epoch()

    def meet(self, context: CollectiveContext, epoch: int | torch.Tensor) -> None:
        """The barrier. An epoch is met once."""
        flag_barrier_kernel[(1,)](
            context.signal_pads,
            context.rank,
            epoch,
            SIZE=context.size,
            LANES=1 << (context.size - 1).bit_length(),
            RELAXED=self.is_relaxed,
            PARITY=self.has_parity,
            num_warps=1,
        )


class NoLastBarrier(SoundKernels):
    """A rank goes on while its peers may still use its memory (K09)."""

    def after(self, context: CollectiveContext) -> None:
        pass


class OneParitySlot(FlagBarrier):
    """A signal is the last bit of the epoch, in one slot for all epochs: the next one hides it from a late rank
    (K10)."""

    has_parity = True


class SharesFlags(FlagBarrier):
    """The barriers before and after the kernel share their flags and the epoch, so the second one waits for nothing
    (K11)."""

    def before(self, context: CollectiveContext) -> None:
        self._epoch = context.epoch()
        self.meet(context, self._epoch)

    def after(self, context: CollectiveContext) -> None:
        self.meet(context, self._epoch)


class RelaxedSignals(FlagBarrier):
    """The signals of the barrier are relaxed, so what a rank wrote before may come after them (K16)."""

    is_relaxed = True


class EpochOnDevice(FlagBarrier):
    """A word on the device counts the barriers, so that a replay counts on. Breaks no rule."""

    captures = True

    def open(self, context: CollectiveContext) -> None:
        context.flags(1)

    def epoch(self, context: CollectiveContext) -> int | torch.Tensor:
        return context.flags(1).add_(1)


class BakesEpoch(EpochOnDevice):
    """An epoch is an argument of a launch, which a graph keeps: a replay waits for what has come long before (K12)."""

    def epoch(self, context: CollectiveContext) -> int | torch.Tensor:
        return context.epoch()


class CallByCall(FlagBarrier):
    """Numbers the two barriers of a call by the calls of a communicator. Breaks no rule."""

    def before(self, context: CollectiveContext) -> None:
        self._epoch = self.start(context)
        self.meet(context, self._epoch + 1)

    def after(self, context: CollectiveContext) -> None:
        self.meet(context, self._epoch + 2)

    def start(self, context: CollectiveContext) -> int:
        """The last epoch of the call before."""
        return 2 * context.epoch() - 2


class AssumesZeroPads(CallByCall):
    """Takes the pads for zero at every call, so the first barrier of the second one waits for nothing (K15)."""

    def start(self, context: CollectiveContext) -> int:
        return 0
