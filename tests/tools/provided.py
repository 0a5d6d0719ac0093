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

from examples.protocols import MOST, Packets
from harness.system.collectives import CollectiveContext, Unsupported
from tests.tools.unusual.collectives import Direct
from tests.tools.unusual.moves import push, starts_of


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


@triton.jit
def stray_kernel(addresses, word, at):
    """Program p stores a word behind `at` others at peer p."""
    target = tl.load(addresses + tl.program_id(0)).to(tl.pointer_type(tl.int64))
    tl.store(target + at, word)


class KeepsItsWorkspace(Packets):
    """Breaks hang: it goes by the group, and polls what its last communicator had. Of two communicators over the same
    ranks both use one workspace, which breaks wrong-data."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor]] = {}

    def open(self, context: CollectiveContext) -> None:
        super().open(context)
        self.spaces[context.identity] = self.kept.setdefault(context.group, self.spaces[context.identity])


class SendsTooFar(Packets):
    """Breaks out-of-bounds: the group's last rank sends one more packet behind every workspace."""

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        super().all_gather(context, output, source)
        if context.rank == context.size - 1:
            stray_kernel[(context.size,)](self.spaces[context.identity][1], 7 << 32 | 1, 2 * context.size * MOST)
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
        stray_kernel[(context.size,)](self.first.setdefault(context.group, self.spaces[context.identity][1]), 1, 0)
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
