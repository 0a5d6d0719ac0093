"""Kernel collectives with one planted fault each, and the sound ones they are planted in.

Invariant: a class differs from `SoundKernels` in its fault alone. Its docstring names the fault of the catalogue.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import torch
import triton
import triton.language as tl

from harness.kernels.rounding import to_bfloat16_bits
from harness.system.collectives import CollectiveContext, NotOwned, bits

BLOCK = 1024


@triton.jit(do_not_specialize=("rank", "count", "reach"), do_not_specialize_on_alignment=("source",))
def gather_kernel(outputs, source, rank, count, reach, BLOCK: tl.constexpr):
    """Program (b, p) stores block b of `source`, up to element `reach`, to chunk `rank` of `outputs[p]`."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = index < reach
    output = tl.load(outputs + tl.program_id(1)).to(source.dtype)
    tl.store(output + rank.to(tl.int64) * count + index, tl.load(source + index, mask=mask), mask=mask)


@triton.jit(do_not_specialize=("rank", "count", "reach"), do_not_specialize_on_alignment=("output",))
def scatter_kernel(
    sources,
    output,
    rank,
    count,
    reach,
    scale,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    BF16: tl.constexpr,
    INTEGER: tl.constexpr,
    NARROW: tl.constexpr,
    TRUNCATE: tl.constexpr,
):
    """Program b sums block b of chunk `rank` of every source, up to element `reach`; bfloat16 comes as int16 bits.

    NARROW rounds every partial sum to bfloat16. TRUNCATE cuts the bits off that bfloat16 does not have.
    """
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = index < reach
    place = rank.to(tl.int64) * count + index
    if INTEGER:
        total = tl.zeros((BLOCK,), dtype=tl.int32)
    else:
        total = tl.zeros((BLOCK,), dtype=tl.float32)
    for peer in range(SIZE):
        source = tl.load(sources + peer).to(output.dtype)
        value = tl.load(source + place, mask=mask, other=0)
        if BF16:
            total += (value.to(tl.int32) << 16).to(tl.float32, bitcast=True)
        elif INTEGER:
            total += value
        else:
            total += value.to(tl.float32)
        if NARROW:
            total = (to_bfloat16_bits(total).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    if BF16 and TRUNCATE:
        tl.store(output + index, ((total * scale).to(tl.int32, bitcast=True) >> 16).to(tl.int16), mask=mask)
    elif BF16:
        tl.store(output + index, to_bfloat16_bits(total * scale), mask=mask)
    elif INTEGER:
        tl.store(output + index, total, mask=mask)
    else:
        tl.store(output + index, (total * scale).to(output.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=("rank", "epoch"))
def slot_barrier_kernel(pads, rank, epoch, SIZE: tl.constexpr):
    """Every rank counts into one word of every pad, and waits for its own word to be exactly SIZE·epoch."""
    for peer in range(SIZE):
        pad = tl.load(pads + peer).to(tl.pointer_type(tl.int32))
        tl.atomic_add(pad, 1, sem="release", scope="sys")
    mine = tl.load(pads + rank).to(tl.pointer_type(tl.int32))
    missing = 1
    while missing != 0:
        missing = tl.atomic_add(mine, 0, sem="acquire", scope="sys") - SIZE * epoch


class SoundKernels:
    """All-gather of any dtype, reduce-scatter with sum or avg of dtypes that are reduced exactly. Breaks no rule."""

    truncates = False
    """Whether bfloat16 is cut off instead of rounded to."""

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        outputs, count = self.addresses(context, output), source.numel()
        grid = (-(-count // BLOCK), self.peers(context))
        self.before(context)
        gather_kernel[grid](outputs, bits(source), self.place(context), count, self.reach(context, count), BLOCK=BLOCK)
        self.after(context)

    def reduce_scatter(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        sources, count = self.addresses(context, source), output.numel()
        bf16 = output.dtype is torch.bfloat16
        self.before(context)
        scatter_kernel[(-(-count // BLOCK),)](
            sources,
            bits(output) if bf16 else output,
            self.place(context),
            count,
            self.reach(context, count),
            1.0 / context.size if op == "avg" else 1.0,
            SIZE=self.peers(context),
            BLOCK=BLOCK,
            BF16=bf16,
            INTEGER=not output.dtype.is_floating_point,
            NARROW=self.narrow(output),
            TRUNCATE=self.truncates,
        )
        self.after(context)

    def addresses(self, context: CollectiveContext, tensor: torch.Tensor) -> torch.Tensor:
        """Where each rank's counterpart of a tensor is mapped."""
        return context.peer_addresses(tensor)

    def peers(self, context: CollectiveContext) -> int:
        """How many ranks the kernel exchanges with, this one among them."""
        return context.size

    def place(self, context: CollectiveContext) -> int:
        """Which chunk is this rank's."""
        return context.rank

    def reach(self, context: CollectiveContext, count: int) -> int:
        """Where a rank's chunk ends."""
        return count

    def narrow(self, output: torch.Tensor) -> bool:
        """Whether partial sums are rounded to bfloat16."""
        return False

    def before(self, context: CollectiveContext) -> None:
        context.barrier()

    def after(self, context: CollectiveContext) -> None:
        context.barrier()


class LosesLastPeer(SoundKernels):
    """The last rank of the group is left out (K01)."""

    def peers(self, context: CollectiveContext) -> int:
        return context.size - 1


class MissesTail(SoundKernels):
    """The last element is dropped where the count is no multiple of the block (K02)."""

    def reach(self, context: CollectiveContext, count: int) -> int:
        return count - 1 if count % BLOCK else count


class NoFirstBarrier(SoundKernels):
    """A rank that is early does not wait for its peers before it touches their memory (K03)."""

    def before(self, context: CollectiveContext) -> None:
        pass


class OneSlotBarrier(SoundKernels):
    """The barrier compares one count for equality, so a rank that is late never sees it pass (K04)."""

    def before(self, context: CollectiveContext) -> None:
        epoch = context.epoch()
        slot_barrier_kernel[(1,)](context.signal_pads, context.rank, epoch, SIZE=context.size, num_warps=1)

    after = before


class AddsInBfloat16(SoundKernels):
    """Partial sums of bfloat16 are rounded to it at every step (K05)."""

    def narrow(self, output: torch.Tensor) -> bool:
        return output.dtype is torch.bfloat16


class OrdersByGlobalRank(SoundKernels):
    """A rank's chunk lies at the place of its rank in the world, and not of its rank in the group (K06)."""

    def place(self, context: CollectiveContext) -> int:
        return context.group[context.rank] % context.size


class BindsToTheFirstGroup(SoundKernels):
    """The operation keeps the rank that it had in the group that it was first called for (F23)."""

    first: CollectiveContext | None = None

    def place(self, context: CollectiveContext) -> int:
        self.first = self.first or context
        return self.first.rank % context.size


class Overruns(SoundKernels):
    """The last rank of the group stores four elements past its output's end (K07)."""

    def reach(self, context: CollectiveContext, count: int) -> int:
        return count + 4 if context.rank == context.size - 1 else count


class ClearsFirst(SoundKernels):
    """The output is cleared before the sources are read; in place, it is one of them (K08)."""

    def reduce_scatter(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        output.zero_()
        super().reduce_scatter(context, output, source, op)


class AddsFloatsInBfloat16(SoundKernels):
    """Partial sums of fp32 are rounded to bfloat16 at every step (K19)."""

    def narrow(self, output: torch.Tensor) -> bool:
        return output.dtype is torch.float32


class Truncates(SoundKernels):
    """The sum is cut off where bfloat16 ends, and not rounded to the nearest (K20)."""

    truncates = True


class ChangesResult(SoundKernels):
    """Right up to its result, which `changed` replaces before the call returns."""

    def reduce_scatter(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        super().reduce_scatter(context, output, source, op)
        output.copy_(self.changed(output))

    def changed(self, output: torch.Tensor) -> torch.Tensor:
        return output


class PassesThroughHalf(ChangesResult):
    """A sum of floats passes through fp16 on its way to the output (K21)."""

    def changed(self, output: torch.Tensor) -> torch.Tensor:
        return output.half() if output.is_floating_point() else output


class LosesSign(ChangesResult):
    """The sign of a sum gets lost (K22)."""

    def changed(self, output: torch.Tensor) -> torch.Tensor:
        return output.abs()


class KeepsPeerAddresses(SoundKernels):
    """A tensor's peer addresses are asked for once, and kept by its address: longer than the tensor, its window and
    its communicator (K25)."""

    def __init__(self) -> None:
        self._kept: dict[tuple[tuple[int, ...], int], torch.Tensor] = {}

    def addresses(self, context: CollectiveContext, tensor: torch.Tensor) -> torch.Tensor:
        key = context.group, tensor.data_ptr()
        if key not in self._kept:
            self._kept[key] = context.peer_addresses(tensor)
        return self._kept[key]


class AsksTheFirstGroup(SoundKernels):
    """A tensor's peer addresses are those of the first group of that size which has a window over it (K26)."""

    def __init__(self) -> None:
        self._first: dict[int, CollectiveContext] = {}

    def addresses(self, context: CollectiveContext, tensor: torch.Tensor) -> torch.Tensor:
        try:
            return self._first.setdefault(context.size, context).peer_addresses(tensor)
        except NotOwned:
            return context.peer_addresses(tensor)
