"""All-gathers that move data in ways of their own, and such with one planted fault each: through a workspace, by an
index that holds the peer, by words of 16 bytes.

Invariant: as in `kernels`. A class without a fault breaks no rule, and what is planted in it overrides one method.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

from collections.abc import Hashable
from math import gcd
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from harness.system.collectives import CollectiveContext, bits
from harness.system.planted.kernels import SoundKernels

BLOCK = 4096
LARGE = 4096
"""Bytes up to which an all-gather goes through a workspace. Draws meet sizes beside powers of two."""
WORD = 16
"""Bytes of a word."""


@triton.jit(do_not_specialize=("start", "count"), do_not_specialize_on_alignment=("source",))
def push_kernel(outputs, source, start, count, BLOCK: tl.constexpr):
    """Program (b, p) stores block b of `source` at `outputs[p]`, from byte `start` on."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = index < count
    output = (tl.load(outputs + tl.program_id(1)) + start).to(source.dtype)
    tl.store(output + index, tl.load(source + index, mask=mask), mask=mask)


@triton.jit(do_not_specialize=("rank", "count", "size"), do_not_specialize_on_alignment=("source",))
def packed_kernel(outputs, source, rank, count, size, SHIFT: tl.constexpr, BLOCK: tl.constexpr):
    """Program (b, p) stores block b of `source` to chunk `rank` of `outputs[p]`, by an index whose upper bits hold the
    peer and whose last SHIFT bits hold the element."""
    element = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    packed = (tl.program_id(1).to(tl.int64) << SHIFT) + element
    peer, index = packed >> SHIFT, packed & ((1 << SHIFT) - 1)
    mask = (element < count) & (peer < size)
    output = tl.load(outputs + peer, mask=mask, other=0).to(source.dtype)
    place = rank.to(tl.int64) * count + index
    tl.store(output + place, tl.load(source + index, mask=mask), mask=mask)


@triton.jit(do_not_specialize=("start", "words"), do_not_specialize_on_alignment=("source",))
def words_kernel(outputs, source, start, words, BLOCK: tl.constexpr):
    """Program (b, p) stores block b of `source`, half a word an element, from the word on that has byte `start` of
    `outputs[p]`."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = index < 2 * words
    output = ((tl.load(outputs + tl.program_id(1)) + start) // 16 * 16).to(source.dtype)
    tl.store(output + index, tl.load(source + index, mask=mask), mask=mask)


class Space(NamedTuple):
    """A workspace with a slot for every rank, and where the peers have theirs."""

    own: torch.Tensor
    peers: torch.Tensor


class Staged(SoundKernels):
    """Up to `LARGE` bytes a rank pushes into its slot of every peer's workspace. Breaks no rule."""

    def __init__(self) -> None:
        self._spaces: dict[Hashable, Space] = {}

    def open(self, context: CollectiveContext) -> None:
        own = context.workspace(context.size * LARGE)
        self._spaces[self.key(context)] = Space(own, context.peer_addresses(own).clone())

    def close(self, context: CollectiveContext) -> None:
        del self._spaces[self.key(context)]

    def key(self, context: CollectiveContext) -> Hashable:
        """By what the workspace of a communicator is kept."""
        return context.identity

    def is_small(self, context: CollectiveContext, nbytes: int) -> bool:
        """Whether a call of so many bytes a rank goes through the workspace."""
        return nbytes <= LARGE

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        outputs, nbytes = self.addresses(context, output), source.numel() * source.element_size()
        context.barrier()
        if not self.is_small(context, nbytes):
            self._push(context, outputs, source, context.rank * nbytes)
            context.barrier()
            return
        space = self._spaces[self.key(context)]
        self._push(context, space.peers, source, context.rank * LARGE)
        context.barrier()
        slots = space.own.view(context.size, LARGE)[:, :nbytes]
        output.view(torch.uint8).view(context.size, nbytes).copy_(slots)

    def _push(self, context: CollectiveContext, targets: torch.Tensor, source: torch.Tensor, start: int) -> None:
        grid = triton.cdiv(source.numel(), BLOCK), context.size
        push_kernel[grid](targets, bits(source), start, source.numel(), BLOCK=BLOCK)


class OffByOne(Staged):
    """The group's first rank takes the other algorithm at the last size of the small one (K13)."""

    def is_small(self, context: CollectiveContext, nbytes: int) -> bool:
        return nbytes < LARGE + (context.rank > 0)


class KeepsItsWorkspace(Staged):
    """Keeps its workspace by the ranks of the group, and with it the addresses that peers had before the communicator
    was re-created (K17)."""

    def open(self, context: CollectiveContext) -> None:
        if self.key(context) not in self._spaces:
            super().open(context)

    def close(self, context: CollectiveContext) -> None:
        pass

    def key(self, context: CollectiveContext) -> Hashable:
        return context.group


class Packed(SoundKernels):
    """One index holds the peer and the element. Breaks no rule."""

    shift = 32

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        outputs, count = self.addresses(context, output), source.numel()
        grid = -(-count // BLOCK), context.size
        context.barrier()
        packed_kernel[grid](outputs, bits(source), context.rank, count, context.size, SHIFT=self.shift, BLOCK=BLOCK)
        context.barrier()


class IndexOf32Bits(Packed):
    """The index has 32 bits, half of them for the peer, so that an element from 65,536 on is one of another peer
    (K14)."""

    shift = 16


class ByWords(SoundKernels):
    """Moves words of 16 bytes where source and target begin with one, and the rest by elements. Breaks no rule."""

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        outputs, width = self.addresses(context, output), source.element_size()
        start = context.rank * source.numel() * width
        is_aligned = gcd(source.data_ptr(), self.alignment(context, output, start)) % WORD == 0
        words = source.numel() * width // WORD if is_aligned else 0
        done, moved = words * WORD // width, bits(source)
        whole, rest = moved[:done], moved[done:]
        context.barrier()
        if words:
            grid = triton.cdiv(2 * words, BLOCK), context.size
            words_kernel[grid](outputs, whole.view(torch.int64), start, words, BLOCK=BLOCK)
        if rest.numel():
            grid = triton.cdiv(rest.numel(), BLOCK), context.size
            push_kernel[grid](outputs, rest, start + words * WORD, rest.numel(), BLOCK=BLOCK)
        context.barrier()

    def alignment(self, context: CollectiveContext, output: torch.Tensor, start: int) -> int:
        """What divides, on every rank, the address of byte `start` of an output."""
        return gcd(context.alignment(output), start)


class TakesForAligned(ByWords):
    """Takes its chunk for as aligned as the output, which holds of the first rank's (K18)."""

    def alignment(self, context: CollectiveContext, output: torch.Tensor, start: int) -> int:
        return context.alignment(output)
