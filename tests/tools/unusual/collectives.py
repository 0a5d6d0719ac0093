"""Right collectives of unusual designs that need no memory of their own at their peers.

Invariant: each asks for all peer addresses before it does anything else. So a call falls back to the library on every
rank, or on none.
"""

from __future__ import annotations

from typing import Literal

import torch

from harness.system.collectives import CollectiveContext
from tests.tools.unusual.moves import pull, push, reduced, rounded, shares_of, signal, starts_of, wait

OPS = ("sum", "avg", "max", "min")


class Direct:
    """Pulls shares and adds them in group order: what the others have where they have no form of their own."""

    ops = OPS
    uneven = True

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        outputs = context.peer_addresses(output)
        context.barrier()
        push(outputs, source, starts_of(context, output)[context.rank])
        context.barrier()

    def reduce_scatter(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        sources = context.peer_addresses(source)
        context.barrier()
        rows = pull(sources, source, starts_of(context, source)[context.rank], output.numel())
        output.copy_(rounded(reduced(rows, op), op, context.size, output.dtype))
        context.barrier()


class PullsSources(Direct):
    """Gathers by reading the sources of its peers, which lie in windows as outputs do.

    Right, as a barrier lies before the first read, and another one behind the last.
    """

    pulls = True

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        sources = self.sources(context, source)
        context.barrier()
        starts = starts_of(context, output)
        for peer, address in enumerate(sources.split(1)):
            begin, end = starts[peer : peer + 2]
            theirs = source if peer == context.rank else pull(address, source, 0, end - begin)[0]
            output[begin:end].copy_(theirs)
        context.barrier()

    def broadcast(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, root: int) -> None:
        sources = self.sources(context, source)
        context.barrier()
        if context.rank != root or output.data_ptr() != source.data_ptr():
            output.copy_(pull(sources[root : root + 1], output, 0, output.numel())[0])
        context.barrier()

    def sources(self, context: CollectiveContext, source: torch.Tensor) -> torch.Tensor:
        return context.peer_addresses(source)


class RingGather(Direct):
    """A ring, in which a rank signals its right neighbour alone, and waits for its left one alone.

    Right, as a chunk goes on only after its signal has come, and each round has an epoch of its own. There is no last
    barrier: every store into an output has been waited for, and nobody stores into a rank's own chunk. It cannot run
    where ranks share a GPU in turns, as its kernels spin.
    """

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        outputs, starts, size = context.peer_addresses(output), starts_of(context, output), context.size
        left, right = (context.rank - 1) % size, (context.rank + 1) % size
        output[starts[context.rank] : starts[context.rank + 1]].copy_(source)
        context.barrier()  # the neighbour's output is ready to be written
        for round_ in range(size - 1):
            chunk, epoch = (context.rank - round_) % size, context.epoch()
            push(outputs[right : right + 1], output[starts[chunk] : starts[chunk + 1]], starts[chunk])
            signal(context, right, epoch)
            wait(context, left, epoch)


class Doubling(Direct):
    """Recursive doubling for a gather (Bruck's, for any number of ranks), and a binary tree for a broadcast. Ranks pull
    what others have pulled before.

    Right, as a barrier lies between two rounds, a rank never writes a chunk that it already has, and nobody leaves
    before all have read.
    """

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        outputs, starts, size = context.peer_addresses(output), starts_of(context, output), context.size
        output[starts[context.rank] : starts[context.rank + 1]].copy_(source)
        has = 1
        while has < size:
            context.barrier()
            peer = (context.rank + has) % size
            for chunk in [(peer + behind) % size for behind in range(min(has, size - has))]:
                start, end = starts[chunk], starts[chunk + 1]
                output[start:end].copy_(pull(outputs[peer : peer + 1], output, start, end - start)[0])
            has *= 2
        context.barrier()

    def broadcast(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, root: int) -> None:
        outputs, size = context.peer_addresses(output), context.size
        place = (context.rank - root) % size
        if place == 0:
            output.copy_(source)
        step = 1 << (size - 1).bit_length() >> 1
        while step:
            context.barrier()
            if place % (2 * step) == step:
                parent = (context.rank - step) % size
                output.copy_(pull(outputs[parent : parent + 1], output, 0, output.numel())[0])
            step //= 2
        context.barrier()


class TwoPhases(Direct):
    """An all-reduce in two phases: each rank reduces a share of all sources, and stores it into all outputs.

    Right in place without a barrier in between: a share of a rank's memory is read and then written by one rank, the
    share's own. Shares differ by one element, or are empty.
    """

    def all_reduce(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        sources, outputs = context.peer_addresses(source), context.peer_addresses(output)
        start, end = shares_of(source.numel(), context.size)[context.rank :][:2]
        context.barrier()
        total = reduced(pull(sources, source, start, end - start), op)
        push(outputs, rounded(total, op, context.size, output.dtype), start)
        context.barrier()


class Leader(Direct):
    """One rank does the work of all, and which one changes from call to call: the others store into its output, or wait
    for its result.

    Right, as ranks make the same calls in a group, so that they agree on the leader. It stores only after all have
    come.
    """

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        outputs, leader = context.peer_addresses(output), self._next(context)
        context.barrier()
        push(outputs[leader : leader + 1], source, starts_of(context, output)[context.rank])
        context.barrier()
        if context.rank == leader:
            push(outputs, output, 0)
        context.barrier()

    def all_reduce(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        sources, outputs = context.peer_addresses(source), context.peer_addresses(output)
        leader = self._next(context)
        context.barrier()
        if context.rank == leader:
            total = reduced(pull(sources, source, 0, source.numel()), op)
            push(outputs, rounded(total, op, context.size, output.dtype), 0)
        context.barrier()

    def all_to_all(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        outputs, leader, count = context.peer_addresses(output), self._next(context), source.numel() // context.size
        context.barrier()
        for peer in [(leader + behind) % context.size for behind in range(context.size)]:
            push(outputs[peer : peer + 1], source[peer * count : (peer + 1) * count], context.rank * count)
        context.barrier()

    def _next(self, context: CollectiveContext) -> int:
        return context.epoch() % context.size


class Rotates:
    """Returns its results in the slots of a ring of its own. A slot comes again after eight results.

    Right, as no more than the last seven results are looked at. Its memory is ordinary, and all the plug-in's.
    """

    functional: Literal[True] = True
    ops = OPS
    SLOTS = 8

    def __init__(self) -> None:
        self._slots = [torch.empty(0, dtype=torch.uint8)] * self.SLOTS
        self._results = 0

    def all_gather(self, context: CollectiveContext, source: torch.Tensor) -> torch.Tensor:
        sources, count = context.peer_addresses(source), source.numel()
        output = self._slot(context.size * count, source)
        context.barrier()
        output.copy_(pull(sources, source, 0, count).flatten())
        context.barrier()
        return output

    def reduce_scatter(self, context: CollectiveContext, source: torch.Tensor, op: str) -> torch.Tensor:
        count = source.numel() // context.size
        return self._reduced(context, source, op, context.rank * count, count)

    def all_reduce(self, context: CollectiveContext, source: torch.Tensor, op: str) -> torch.Tensor:
        return self._reduced(context, source, op, 0, source.numel())

    def _reduced(
        self, context: CollectiveContext, source: torch.Tensor, op: str, start: int, count: int
    ) -> torch.Tensor:
        sources = context.peer_addresses(source)
        output = self._slot(count, source)
        context.barrier()
        total = reduced(pull(sources, source, start, count), op)
        output.copy_(rounded(total, op, context.size, source.dtype))
        context.barrier()
        return output

    def _slot(self, elements: int, like: torch.Tensor) -> torch.Tensor:
        index, nbytes = self._results % self.SLOTS, elements * like.element_size()
        self._results += 1
        if self._slots[index].numel() < nbytes or self._slots[index].device != like.device:
            self._slots[index] = torch.empty(nbytes, dtype=torch.uint8, device=like.device)
        return self._slots[index][:nbytes].view(like.dtype)
