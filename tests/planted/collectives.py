"""Kernel collectives with one planted fault each, and the sound ones they are planted in."""

# ruff: noqa: N803  (Triton: constexpr in capitals)

from __future__ import annotations

import time

import torch
import triton
import triton.language as tl

from harness.collectives import CollectiveContext
from harness.values import bits
from kernels.rounding import to_bfloat16_bits

BLOCK = 128


@triton.jit
def gather_kernel(outputs, source, rank, count, reach, BLOCK: tl.constexpr):
    """Program (p, b) stores block b of `source`, up to element `reach`, to chunk `rank` of `outputs[p]`."""
    index = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = index < reach
    theirs = tl.load(outputs + tl.program_id(0)).to(source.dtype)
    tl.store(theirs + rank * count + index, tl.load(source + index, mask=mask), mask=mask)


@triton.jit
def scatter_kernel(sources, output, rank, count, reach, SIZE: tl.constexpr, BLOCK: tl.constexpr, NARROW: tl.constexpr):
    """Program b sums block b of chunk `rank` of every source, bfloat16 as bits, up to element `reach`.

    NARROW rounds every partial sum.
    """
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = index < reach
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for peer in range(SIZE):
        theirs = tl.load(sources + peer).to(output.dtype)
        value = tl.load(theirs + rank * count + index, mask=mask, other=0)
        total += (value.to(tl.int32) << 16).to(tl.float32, bitcast=True)
        if NARROW:
            total = (to_bfloat16_bits(total).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    tl.store(output + index, to_bfloat16_bits(total), mask=mask)


class SoundKernels:
    """All-gather of any dtype, reduce-scatter of bfloat16 with sum. Breaks no rule."""

    narrow = False

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        outputs, count = context.peer_addresses(output), source.numel()
        grid = (self.peers(context), -(-count // BLOCK))
        self.before(context)
        gather_kernel[grid](outputs, bits(source), context.rank, count, self.reach(context, count), BLOCK=BLOCK)
        self.after(context)

    def reduce_scatter(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        assert output.dtype is torch.bfloat16, "the planted kernels reduce nothing else"
        assert op == "sum", "the planted kernels reduce with nothing else"
        sources, count = context.peer_addresses(source), output.numel()
        size, reach = self.peers(context), self.reach(context, count)
        self.before(context)
        scatter_kernel[(-(-count // BLOCK),)](
            sources, bits(output), context.rank, count, reach, SIZE=size, BLOCK=BLOCK, NARROW=self.narrow
        )
        self.after(context)

    def peers(self, context: CollectiveContext) -> int:
        """How many ranks the kernel exchanges with, this one among them."""
        return context.size

    def reach(self, context: CollectiveContext, count: int) -> int:
        """Where a rank's chunk ends."""
        return count

    def before(self, context: CollectiveContext) -> None:
        context.barrier()

    def after(self, context: CollectiveContext) -> None:
        context.barrier()


class LosesLastPeer(SoundKernels):
    """Breaks wrong-data: the last rank of the group is left out (K01)."""

    def peers(self, context: CollectiveContext) -> int:
        return context.size - 1


class MissesTail(SoundKernels):
    """Breaks wrong-data: the last element is dropped where the count is no multiple of the block (K02)."""

    def reach(self, context: CollectiveContext, count: int) -> int:
        return count - 1 if count % BLOCK else count


class Overruns(SoundKernels):
    """Breaks out-of-bounds: the last rank of the group stores four elements past its output's end (K07)."""

    def reach(self, context: CollectiveContext, count: int) -> int:
        return count + 4 if context.rank == context.size - 1 else count


class NoFirstBarrier(SoundKernels):
    """Breaks wrong-data where a rank is late: its peers do not wait for it before they touch its memory (K03)."""

    def before(self, context: CollectiveContext) -> None:
        pass


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


class AddsInBfloat16(SoundKernels):
    """Breaks wrong-data: partial sums are rounded to bfloat16 at every step (K05)."""

    narrow = True


class LeavesEarly(SoundKernels):
    """Breaks hang, and nothing else in a reduce-scatter: the group's last rank skips the last barrier (K04)."""

    def after(self, context: CollectiveContext) -> None:
        if context.rank != context.size - 1:
            context.barrier()


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
            gather_kernel[(context.size, 1)](nowhere, bits(source), context.rank, count, count, BLOCK=BLOCK)
        super().all_gather(context, output, source)
