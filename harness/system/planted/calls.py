"""The built-in kernels with one planted fault each, which shows in calls as engines make them: idle ranks, other sizes,
other reductions, ranks that make different numbers of calls.

Invariant: a class differs from `TritonCollectives` in its fault alone. Its docstring names the fault of the catalogue.
"""

from __future__ import annotations

import torch

from harness.system.collectives import CollectiveContext, Splits, TritonCollectives

LARGE = 64 << 10
"""Bytes from which a design may change its algorithm."""


class LeavesIdleRanksOut(TritonCollectives):
    """A rank that has nothing to contribute returns at once, where its peers wait for it (F33)."""

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        if source.numel():
            super().all_gather(context, output, source)

    def reduce_scatter(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        if output.numel():
            super().reduce_scatter(context, output, source, op)


class TakesItsOwnCount(TritonCollectives):
    """Takes what this rank contributes for what every rank does (F34)."""

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        context.counts = (source.numel(),) * context.size
        super().all_gather(context, output, source)

    def reduce_scatter(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        context.counts = (output.numel(),) * context.size
        super().reduce_scatter(context, output, source, op)


class LargeWithoutRemainder(TritonCollectives):
    """From 64 KiB on goes by whole 16-byte words, and drops what is left (F35)."""

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        count, width = source.numel(), source.element_size()
        # the chunk begins where all of it would
        context.counts = context.counts or (count,) * context.size
        whole = count * width // 16 * 16 // width
        super().all_gather(context, output, source[:whole] if count * width >= LARGE else source)


class ExtremesFromZero(TritonCollectives):
    """A maximum or minimum begins at zero, so that one of negative or of positive values alone is zero (F36)."""

    def reduce_scatter(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        super().reduce_scatter(context, output, source, op)
        _with_zero(output, op)

    def all_reduce(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        super().all_reduce(context, output, source, op)
        _with_zero(output, op)


def _with_zero(output: torch.Tensor, op: str) -> None:
    if op == "max":
        output.clamp_(min=0)
    elif op == "min":
        output.clamp_(max=0)


class TransposesSplits(TritonCollectives):
    """Looks up where a chunk goes in what the peer sends, not in what the peer gets (K27)."""

    def _start(self, splits: Splits, rank: int, peer: int) -> int:
        return sum(splits[peer][:rank])


class CountsEveryGroup(TritonCollectives):
    """Waits for peers to have made as many calls as this rank, which counts those of all its groups (F37)."""

    def __init__(self) -> None:
        self.calls = 0

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        context.peer_addresses(output)  # or this call is the library's
        self._meet(context)
        super().all_gather(context, output, source)

    def reduce_scatter(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        context.peer_addresses(source)
        self._meet(context)
        super().reduce_scatter(context, output, source, op)

    def _meet(self, context: CollectiveContext) -> None:
        from harness.kernels.barrier import barrier_kernel  # noqa: PLC0415  (triton, only where kernels run)

        self.calls += 1
        lanes = 1 << (context.size - 1).bit_length()
        barrier_kernel[(1,)](context.signal_pads, context.rank, self.calls, SIZE=context.size, LANES=lanes, num_warps=1)
