"""Collectives whose calls graphs may hold: right ones, and such with one planted fault each.

Invariant: a right one keeps on the device what changes from call to call, as its Python runs once for a graph.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

from typing import Literal

import torch
import triton
import triton.language as tl

from examples.protocols import BLOCK, Packets
from harness.system.collectives import CollectiveContext, Unsupported, bits
from tests.tools.unusual.collectives import OPS, TwoPhases
from tests.tools.unusual.moves import pull, reduced, rounded, starts_of


class Moves(TwoPhases):
    """Kernels, operations of torch, memory that comes in the capture, and the harness's barrier. Breaks no rule."""

    captures = True


class CopiesItsEpoch(Packets):
    """Breaks wrong-data: it raises its epoch on the host, and copies that to the device."""

    def word(self, context: CollectiveContext) -> torch.Tensor:
        return context.flags(1).fill_(context.epoch())


class Returns:
    """Returns tensors of its own, which come in the capture where a graph holds the call. Breaks no rule."""

    functional: Literal[True] = True
    captures = True
    ops = OPS

    def all_gather(self, context: CollectiveContext, source: torch.Tensor) -> torch.Tensor:
        sources, count = context.peer_addresses(source), source.numel()
        context.barrier()
        result = self.result(context.size * count, source)
        result.copy_(pull(sources, source, 0, count).flatten())
        context.barrier()
        return result

    def reduce_scatter(self, context: CollectiveContext, source: torch.Tensor, op: str) -> torch.Tensor:
        sources, count = context.peer_addresses(source), source.numel() // context.size
        context.barrier()
        result = self.result(count, source)
        total = reduced(pull(sources, source, context.rank * count, count), op)
        result.copy_(rounded(total, op, context.size, source.dtype))
        context.barrier()
        return result

    def result(self, elements: int, like: torch.Tensor) -> torch.Tensor:
        return torch.empty(elements, dtype=like.dtype, device=like.device)


class ReturnsOneScratch(Returns):
    """Breaks result-overwritten: results of a size have one scratch, whatever graph they belong to."""

    def __init__(self) -> None:
        self.scratch: dict[object, torch.Tensor] = {}

    def result(self, elements: int, like: torch.Tensor) -> torch.Tensor:
        key = elements, like.dtype
        if key not in self.scratch:
            self.scratch[key] = super().result(elements, like)
        return self.scratch[key]


class ReachesOutside(Moves):
    """Breaks raised, when what it launches runs: one of its operations has an index that is not there."""

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        context.peer_addresses(output)
        output.index_copy_(
            0, torch.full((1,), output.numel(), dtype=torch.int64, device=output.device), source[:1].clone()
        )


class LeavesEarly(Moves):
    """Breaks hang: the group's first rank skips a barrier."""

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        context.peer_addresses(output)
        if context.rank:
            context.barrier()


class LeavesTheSecond(Moves):
    """Breaks hang: the group's first rank skips the barriers of every call but its first."""

    def __init__(self) -> None:
        self.calls = 0

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        self.calls += 1
        if context.rank or self.calls == 1:
            super().all_gather(context, output, source)
        else:
            context.peer_addresses(output)


class Refuses(Moves):
    """Breaks no rule, and makes no call."""

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        raise Unsupported


@triton.jit(do_not_specialize=("count",), do_not_specialize_on_alignment=("source",))
def push_kernel(addresses, source, word, count, BLOCK: tl.constexpr):
    """Program (p, b) stores block b of `source` behind the elements at `addresses[p]` that `word` counts."""
    index = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = index < count
    target = tl.load(addresses + tl.program_id(0)).to(source.dtype) + tl.load(word)
    tl.store(target + index, tl.load(source + index, mask=mask), mask=mask)


class Stages(Moves):
    """Its kernel has from a word on the device where a chunk begins. Breaks no rule: the number goes with a launch."""

    def __init__(self) -> None:
        self.words: dict[object, torch.Tensor] = {}

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        outputs, count = context.peer_addresses(output), source.numel()
        word = self.words.get(context.identity)
        if word is None:
            word = self.words[context.identity] = torch.zeros(1, dtype=torch.int64, device=context.device)
        self.stage(word, starts_of(context, output)[context.rank])
        context.barrier()
        if count:
            grid = context.size, triton.cdiv(count, BLOCK)
            push_kernel[grid](outputs, bits(source), word, count, BLOCK=BLOCK)
        context.barrier()

    def stage(self, word: torch.Tensor, start: int) -> None:
        word.fill_(start)


class ReusesItsStaging(Stages):
    """Breaks wrong-data in flight: the host writes the next number where a copy that is queued has yet to read. A graph
    reads there at every replay."""

    def __init__(self) -> None:
        super().__init__()
        self.staged = torch.zeros(1, dtype=torch.int64, pin_memory=torch.cuda.is_available())

    def stage(self, word: torch.Tensor, start: int) -> None:
        self.staged.numpy()[0] = start  # of the host, at once
        word.copy_(self.staged, non_blocking=True)
