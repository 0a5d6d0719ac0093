"""Kernel collectives that write once where they may not: 20 places, named `tests.tools.strays:Name` in a `System`.

Invariant: a class differs from the sound kernels in one store, which always changes what it overwrites. The group's
first rank makes it, once all data is in place and before the last barrier. Simulation alone: it reaches any address.
"""

from __future__ import annotations

import torch

from harness.substrate.sim.device import tensor_at
from harness.system.collectives import CollectiveContext, bits
from harness.system.planted.kernels import SoundKernels

BYTES = 4
"""Bytes of a store."""
FREE = 1 << 20
"""Bytes behind an output at which no scene has a buffer, in the segment of 2 MiB that holds it."""


class Stray(SoundKernels):
    """Stores at `distance` bytes from the start of the output, from its end if `is_behind`; in a peer's memory if
    `is_peers`."""

    distance: int
    is_behind = False
    is_peers = False

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        self.output, self.source = output, source
        super().all_gather(context, output, source)
        self.earlier, self.output, self.source = output.data_ptr(), torch.empty(0), torch.empty(0)

    def reduce_scatter(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        self.output, self.source = output, source
        super().reduce_scatter(context, output, source, op)
        self.output, self.source = torch.empty(0), torch.empty(0)

    def after(self, context: CollectiveContext) -> None:
        context.barrier()  # nobody reads or writes operands any more
        if context.rank == 0:
            self.spoil(context)
        context.barrier()

    def spoil(self, context: CollectiveContext) -> None:
        store(self.start(context) + self.distance + (size(self.output) if self.is_behind else 0))

    def start(self, context: CollectiveContext) -> int:
        """Where the output begins, here or on the group's last rank."""
        if self.is_peers:
            return int(context.peer_addresses(self.output)[-1])
        return self.output.data_ptr()


def size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def store(address: int) -> None:
    """Flip every bit of a few bytes."""
    memory = tensor_at(address, BYTES, torch.uint8)
    memory.copy_(~memory)


# beside the output


class RightInFront(Stray):
    distance = -BYTES


class InFront128(Stray):
    distance = -128


class InFront4096(Stray):
    distance = -4096


class RightBehind(Stray):
    distance, is_behind = 0, True


class Behind128(Stray):
    distance, is_behind = 128, True


class Behind4096(Stray):
    distance, is_behind = 4096, True


class PeersRightInFront(RightInFront):
    is_peers = True


class PeersInFront128(InFront128):
    is_peers = True


class PeersInFront4096(InFront4096):
    is_peers = True


class PeersRightBehind(RightBehind):
    is_peers = True


class PeersBehind128(Behind128):
    is_peers = True


class PeersBehind4096(Behind4096):
    is_peers = True


# elsewhere


class InFreeMemory(Stray):
    distance, is_behind = FREE, True


class InPeersFreeMemory(InFreeMemory):
    is_peers = True


class InEarlierOutput(Stray):
    """In the output of the call before, which is live, or was released."""

    earlier = 0

    def spoil(self, context: CollectiveContext) -> None:
        if self.earlier:
            store(self.earlier)


class ClearsEarlierOutput(InEarlierOutput):
    """The same with zeros."""

    def spoil(self, context: CollectiveContext) -> None:
        if self.earlier:
            tensor_at(self.earlier, BYTES, torch.uint8).zero_()


class ClearsBehind(Behind128):
    """Zeros, as a kernel stores that clears its tail too far."""

    def spoil(self, context: CollectiveContext) -> None:
        tensor_at(self.start(context) + size(self.output), self.distance, torch.uint8).zero_()


class InPeersEarlierOutput(InEarlierOutput):
    """In the last rank's, which lies as far from its output."""

    def spoil(self, context: CollectiveContext) -> None:
        if self.earlier:
            store(int(context.peer_addresses(self.output)[-1]) + self.earlier - self.output.data_ptr())


class InSource(Stray):
    """In the last element of the source; in place, in the first one that is not output."""

    def spoil(self, context: CollectiveContext) -> None:
        is_in_place = self.source.data_ptr() == self.output.data_ptr()
        store(self.source.data_ptr() + (size(self.output) if is_in_place else size(self.source) - BYTES))


class LateInPeersEarlierOutput(InPeersEarlierOutput):
    """After the last barrier, when the peer may be anywhere in the steps that follow."""

    def after(self, context: CollectiveContext) -> None:
        context.barrier()
        if context.rank == 0:
            self.spoil(context)


class WholeSource(Stray):
    """All of the source, as a kernel that works in place and does not say so."""

    def spoil(self, context: CollectiveContext) -> None:
        bits(self.source).add_(1)
