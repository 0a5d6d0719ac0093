"""Kernel collectives with one planted fault each, beside those of the catalogue in `harness.studies.faults`."""

from __future__ import annotations

import ctypes
import time

import torch

from harness.kernels.barrier import barrier_kernel
from harness.system.collectives import CollectiveContext, bits
from harness.system.planted.kernels import BLOCK, SoundKernels, gather_kernel
from harness.trace.events import SMALL_SEGMENT


class Dawdles(SoundKernels):
    """Breaks no rule: the group's last rank sets to work late, and its peers wait for it."""

    def before(self, context: CollectiveContext) -> None:
        super().before(context)
        if context.rank == context.size - 1:
            time.sleep(0.3)


class NoLastBarrier(Dawdles):
    """Breaks wrong-data: the peers of a late rank go on before it has read and written their memory (K03)."""

    def after(self, context: CollectiveContext) -> None:
        pass


class OwnBarrier(SoundKernels):
    """Breaks no rule: its first barrier is its own, on the signal pads."""

    def before(self, context: CollectiveContext) -> None:
        lanes = 1 << (context.size - 1).bit_length()
        barrier_kernel[(1,)](context.signal_pads, context.rank, self.epoch(context), SIZE=context.size, LANES=lanes)

    def epoch(self, context: CollectiveContext) -> int:
        return context.epoch()


class OwnCount(OwnBarrier):
    """Breaks no rule: counts the epochs of each group itself, from a draw's begin on."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, ...], int] = {}

    def epoch(self, context: CollectiveContext) -> int:
        self._last[context.group] = self._last.get(context.group, 0) + 1
        return self._last[context.group]


class LeavesEarly(SoundKernels):
    """Breaks hang, and nothing else in a reduce-scatter: the group's last rank skips the last barrier (K04)."""

    def after(self, context: CollectiveContext) -> None:
        if context.rank != context.size - 1:
            context.barrier()


class FallsBackAlone(SoundKernels):
    """Breaks hang: the group's first rank makes the call by the library, while its peers wait in the kernel."""

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        if context.rank == 0:
            context._communicator.all_gather(output, source)
        else:
            super().all_gather(context, output, source)


class SkipsACall(SoundKernels):
    """Breaks hang, and wrong-data on the rank at fault: the group's last rank returns at once (F08)."""

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        if context.rank != context.size - 1:
            super().all_gather(context, output, source)


class CrashesInKernel(SoundKernels):
    """Breaks rank-crash: the group's last rank stores through null pointers (F22)."""

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        if context.rank == context.size - 1:
            nowhere, count = torch.zeros(context.size, dtype=torch.int64), source.numel()
            gather_kernel[(1, context.size)](nowhere, bits(source), context.rank, count, count, BLOCK=BLOCK)
        super().all_gather(context, output, source)


class WritesBesidePads(OwnBarrier):
    """Breaks out-of-bounds: the group's first rank stores two words past the end of every signal pad."""

    def after(self, context: CollectiveContext) -> None:
        super().after(context)
        if context.rank == 0:
            for pad in context.signal_pads.tolist():
                ctypes.memset(pad + 4 * context.size, 7, 8)
        context.barrier()


class WritesBesidePadsAndLeaves(WritesBesidePads):
    """Breaks out-of-bounds, and hang: the first rank then leaves the others in the barrier."""

    def after(self, context: CollectiveContext) -> None:
        if context.rank:
            context.barrier()
        else:
            for pad in context.signal_pads.tolist():
                ctypes.memset(pad - 4, 7, 4)


class LosesASignal(SoundKernels):
    """Breaks out-of-bounds, and hang: the group's last rank is late, and clears its pad of the barrier before it
    comes, when its peers have signalled there."""

    def after(self, context: CollectiveContext) -> None:
        if context.rank == context.size - 1:
            time.sleep(0.3)
            ctypes.memset(int(context._barrier_pads[context.rank]), 0, 4 * context.size)
        super().after(context)


class ReachesTooFar(SoundKernels):
    """Breaks out-of-bounds: the addresses of peers are as far too high as a segment is long."""

    def addresses(self, context: CollectiveContext, tensor: torch.Tensor) -> torch.Tensor:
        found = super().addresses(context, tensor)
        peers = torch.arange(context.size) != context.rank
        return found + peers * SMALL_SEGMENT


class RoundsTheSum(SoundKernels):
    """Breaks wrong-data: an average in half precision is rounded twice, as a sum and as a share. It is right where the
    size of the group is a power of two."""

    def reduce_scatter(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        is_rounded = op == "avg" and output.dtype in (torch.float16, torch.bfloat16)
        is_rounded &= context.size & (context.size - 1) != 0
        super().reduce_scatter(context, output, source, "sum" if is_rounded else op)
        if is_rounded:
            output.copy_(output.float() / context.size)
