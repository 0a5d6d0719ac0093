"""Right collectives in memory that the harness provides, and such with one planted fault each.

Invariant: what was asked for on a communicator is kept by its identity, and dropped when that is closed.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import time
from collections.abc import Hashable

import torch
import triton
import triton.language as tl

from harness.system.collectives import CollectiveContext, Unsupported, bits
from tests.tools.unusual.collectives import Direct
from tests.tools.unusual.moves import push, starts_of

MOST = 2048
"""Words that a rank sends at one time."""
BLOCK = 512


@triton.jit(do_not_specialize=("rank", "epoch", "start", "count"), do_not_specialize_on_alignment=("source",))
def send_kernel(spaces, source, rank, epoch, start, count, BLOCK: tl.constexpr):
    """Program (p, b) stores block b of `source` to peer p, from packet `start` on: an element beside the epoch."""
    index = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = index < count
    space = tl.load(spaces + tl.program_id(0)).to(tl.pointer_type(tl.int64))
    element = tl.load(source + index, mask=mask, other=0).to(tl.int64) & 0xFFFFFFFF
    tl.store(space + start + index, element | (epoch.to(tl.int64) << 32), mask=mask)


@triton.jit(do_not_specialize=("epoch", "start", "count", "stride"), do_not_specialize_on_alignment=("output",))
def receive_kernel(space, output, epoch, start, count, stride, BLOCK: tl.constexpr):
    """Program (p, b) waits for block b of what peer p sends, and stores the elements. Packets of a peer begin `stride`
    behind those of the one before."""
    index = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = index < count
    packets = space + start + tl.program_id(0) * stride + index
    missing = 1
    while missing > 0:
        seen = tl.load(packets, mask=mask, other=0, volatile=True) >> 32
        missing = tl.max((mask & (seen != epoch)).to(tl.int32))
    packet = tl.load(packets, mask=mask, other=0, volatile=True)  # a loop may not carry it
    tl.store(output + tl.program_id(0) * count + index, packet.to(output.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=("rank", "epoch", "row", "size"))
def meet_kernel(flags, mine, rank, epoch, row, size):
    """Program b meets program b of every peer at words `row + b · size + sender`."""
    at = row + tl.program_id(0) * size
    peer = rank * 0
    while peer < size:
        theirs = tl.load(flags + peer).to(tl.pointer_type(tl.int32))
        tl.atomic_xchg(theirs + at + rank, epoch, sem="release", scope="sys")
        peer += 1
    sender = rank * 0
    while sender < size:
        missing = 1
        while missing > 0:
            missing = epoch - tl.atomic_add(mine + at + sender, 0, sem="acquire", scope="sys")
        sender += 1


class Packets(Direct):
    """An all-gather without a barrier: an element travels with the number of its call, and the receiver polls for it.

    Right, as two halves take turns: a rank sends the call after next only when all peers have sent the next one, and so
    have read this one.
    """

    def __init__(self) -> None:
        self.spaces: dict[Hashable, tuple[torch.Tensor, torch.Tensor]] = {}

    def open(self, context: CollectiveContext) -> None:
        if context.shares_gpu:
            raise Unsupported
        space = context.workspace(2 * context.size * MOST * 8)
        self.spaces[self.key(context)] = space.view(torch.int64), context.peer_addresses(space)

    def close(self, context: CollectiveContext) -> None:
        del self.spaces[self.key(context)]

    def key(self, context: CollectiveContext) -> Hashable:
        return context.identity

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        if len({*context.counts}) > 1:
            super().all_gather(context, output, source)
            return
        words, into = (words_of(each) for each in (source, output))
        if (count := words.numel()) > MOST:
            raise Unsupported
        if not count:
            return
        (space, spaces), size, epoch = self.spaces[self.key(context)], context.size, context.epoch()
        half = epoch % 2 * size * MOST
        grid = size, triton.cdiv(count, BLOCK)
        start = self.start(half + context.rank * MOST, context)
        send_kernel[grid](spaces, words, context.rank, epoch, start, count, BLOCK=BLOCK)
        receive_kernel[grid](space, into, epoch, half, count, MOST, BLOCK=BLOCK)

    def start(self, at: int, context: CollectiveContext) -> int:
        """The packet from which on this rank sends."""
        return at


def words_of(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(torch.int32) if tensor.element_size() == 8 else bits(tensor)


class KeepsItsWorkspace(Packets):
    """Breaks hang: it goes by the group, and polls what its last communicator had. Of two communicators over the same
    ranks both use one workspace, which breaks wrong-data."""

    def open(self, context: CollectiveContext) -> None:
        if self.key(context) not in self.spaces:
            super().open(context)

    def close(self, context: CollectiveContext) -> None:
        pass

    def key(self, context: CollectiveContext) -> Hashable:
        return context.group


class SendsTooFar(Packets):
    """Breaks out-of-bounds: the group's last rank sends one more packet behind every workspace."""

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        super().all_gather(context, output, source)
        if context.rank == context.size - 1:
            spaces, one = self.spaces[self.key(context)][1], torch.ones(1, dtype=torch.int32, device=context.device)
            send_kernel[(context.size, 1)](spaces, one, 0, 7, 2 * context.size * MOST, 1, BLOCK=BLOCK)
        context.barrier()


class ByFlags(Direct):
    """Pushes between two barriers of its own, whose blocks meet those of their peers at words of their own.

    Right, as the epoch rises at every barrier, and the two have words apart.
    """

    def open(self, context: CollectiveContext) -> None:
        if context.shares_gpu:
            raise Unsupported
        context.flags(self.words(context))

    def words(self, context: CollectiveContext) -> int:
        return 2 * min(4, context.max_blocks) * context.size

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        outputs = context.peer_addresses(output)
        self.meet(context, 0)
        push(outputs, source, starts_of(context, output)[context.rank])
        self.meet(context, 1)

    def meet(self, context: CollectiveContext, number: int) -> None:
        flags, blocks = context.flags(self.words(context)), min(4, context.max_blocks)
        row, epoch = number * blocks * context.size, self.epoch(context)
        meet_kernel[(blocks,)](
            context.peer_addresses(flags), flags, context.rank, epoch, row, context.size, num_warps=1
        )

    def epoch(self, context: CollectiveContext) -> int:
        return context.epoch()


class AssumesZeros(ByFlags):
    """Breaks wrong-data: it takes the flags for zero at every call, and passes the barriers of the second one."""

    def epoch(self, context: CollectiveContext) -> int:
        return 1


class RefusesAll(Direct):
    """Breaks no rule, and makes no call."""

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        raise Unsupported

    def reduce_scatter(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        raise Unsupported


class RefusesAlone(Direct):
    """Breaks hang: the group's first rank leaves to the library what its peers make."""

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        if context.rank == 0:
            raise Unsupported
        super().all_gather(context, output, source)


class SendsToBoth(Packets):
    """Breaks stale-peer-address: it sends to where the workspaces of the group were at first, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[tuple[int, ...], torch.Tensor] = {}

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        first = self.first.setdefault(context.group, self.spaces[self.key(context)][1].clone())
        one = torch.ones(1, dtype=torch.int32, device=context.device)
        send_kernel[(context.size, 1)](first, one, context.rank, 1 << 20, 0, 1, BLOCK=BLOCK)
        context.barrier()
        super().all_gather(context, output, source)
        context.barrier()


class KeepsBooks(Direct):
    """Breaks no rule: it is opened once for each identity, which all ranks share, and closed once."""

    seen: set[Hashable] = set()
    """Of all draws of this process."""

    def __init__(self) -> None:
        self.opened: list[Hashable] = []

    def open(self, context: CollectiveContext) -> None:
        assert context.identity not in self.seen, "the identity is not new"
        assert len({*context._communicator.exchange(hash(context.identity) >> 1)}) == 1, "ranks differ"
        self.seen.add(context.identity)
        self.opened.append(context.identity)

    def close(self, context: CollectiveContext) -> None:
        self.opened.remove(context.identity)

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        assert context.identity in self.opened, "it is not open"
        super().all_gather(context, output, source)


class AsksInACall(Direct):
    """Breaks no rule, unless its first call is in flight: it asks for a workspace where it needs one."""

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        space = context.workspace(512)
        assert space is context.workspace(512), "it is another one"
        super().all_gather(context, output, source)


class AsksForUnlikeSizes(Direct):
    """Breaks raised: ranks ask for workspaces of different sizes."""

    def open(self, context: CollectiveContext) -> None:
        context.workspace(64 + context.rank)


class StaysInOpen(Direct):
    """Breaks hang: the group's first rank does not come out of `open`."""

    def open(self, context: CollectiveContext) -> None:
        context.flags(1)
        while context.rank == 0:
            time.sleep(1)


class RaisesInClose(Direct):
    """Breaks raised."""

    def close(self, context: CollectiveContext) -> None:
        raise ValueError("it cannot be closed")
