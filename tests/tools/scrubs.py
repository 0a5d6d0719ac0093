"""Kernel collectives that lose one kind of values each, named `tests.tools.scrubs:Name` in a `System`.

Invariant: a class is right for every other value. A class has its fault in gathers or in reductions alone, as it says.
"""

from __future__ import annotations

import torch

from harness.substrate.sim.device import tensor_at
from harness.system.collectives import CollectiveContext
from harness.system.planted.kernels import ChangesResult, SoundKernels


class _InGathers(SoundKernels):
    """What a rank sends passes through `changed`."""

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        sent = self.changed(source.clone()) if source.is_floating_point() else source
        super().all_gather(context, output, sent)

    def changed(self, sent: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class NoNaN(_InGathers):
    def changed(self, sent: torch.Tensor) -> torch.Tensor:
        return sent.masked_fill(sent.isnan(), 0)


class OneNaN(_InGathers):
    """A NaN comes out with the payload that the device gives."""

    def changed(self, sent: torch.Tensor) -> torch.Tensor:
        return sent.masked_fill(sent.isnan(), float("nan"))


class Saturates(_InGathers):
    def changed(self, sent: torch.Tensor) -> torch.Tensor:
        largest = torch.finfo(sent.dtype).max
        return sent.where(sent.isnan(), sent.clamp(-largest, largest))


class NoMinusZero(_InGathers):
    def changed(self, sent: torch.Tensor) -> torch.Tensor:
        return sent.masked_fill(sent == 0, 0)


class NoSubnormals(_InGathers):
    def changed(self, sent: torch.Tensor) -> torch.Tensor:
        return sent.masked_fill(sent.abs() < torch.finfo(sent.dtype).tiny, 0)


class AveragesNoMinusZero(ChangesResult):
    def changed(self, output: torch.Tensor) -> torch.Tensor:
        return output.masked_fill(output == 0, 0)


class SumsNoSubnormals(ChangesResult):
    def changed(self, output: torch.Tensor) -> torch.Tensor:
        return output.masked_fill(output.abs() < torch.finfo(output.dtype).tiny, 0)


class OverflowsHalf(ChangesResult):
    """Sums of fp16 beyond half of its range are infinite."""

    def changed(self, output: torch.Tensor) -> torch.Tensor:
        return output.masked_fill(output.abs() > 32768, float("inf")) if output.dtype is torch.float16 else output


class DividesByOneMore(ChangesResult):
    def reduce_scatter(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        self.size = context.size
        super().reduce_scatter(context, output, source, op)

    def changed(self, output: torch.Tensor) -> torch.Tensor:
        return output * (self.size / (self.size + 1))


class AveragesInBfloat16(ChangesResult):
    def changed(self, output: torch.Tensor) -> torch.Tensor:
        return output.bfloat16()


class OwnOrder(SoundKernels):
    """Averages are scaled first and then added, on every rank from its own source on: each result is within the bound,
    and ranks hold different bits."""

    def all_reduce(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        addresses = context.peer_addresses(source)
        context.barrier()
        total, first = torch.zeros_like(output), self.first(context)
        for place in range(context.size):
            address = int(addresses[(first + place) % context.size])
            total += tensor_at(address, source.numel(), source.dtype) / context.size
        context.barrier()
        output.copy_(total)

    def first(self, context: CollectiveContext) -> int:
        return context.rank


class OtherOrderEachTime(OwnOrder):
    """The same, but on every rank from the same source on, which is another one in the next call: as where each call
    adds what comes first."""

    calls = 0

    def first(self, context: CollectiveContext) -> int:
        self.calls += 1
        return self.calls


class WrongOnOneRank(OwnOrder):
    """The same, and on the second rank one element is far off."""

    def all_reduce(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        super().all_reduce(context, output, source, op)
        if context.rank == 1:
            output[3] = 1.0 + output.abs().max()
