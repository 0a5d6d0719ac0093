"""Collectives that give a result away and write to it later, and the sound ones in functional form.

Invariant: a class differs from its sound one in its fault alone. Its docstring names the fault of the catalogue.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

from typing import Literal

import torch
import triton
import triton.language as tl

from harness.system.collectives import CollectiveContext, bits
from harness.system.planted.kernels import BLOCK, SoundKernels, gather_kernel, scatter_kernel


@triton.jit(do_not_specialize=("count",), do_not_specialize_on_alignment=("output",))
def pull_kernel(sources, output, count, BLOCK: tl.constexpr):
    """Program (b, p) loads block b of `sources[p]` into chunk p of `output`."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = index < count
    peer = tl.program_id(1).to(tl.int64)
    source = tl.load(sources + peer).to(output.dtype)
    tl.store(output + peer * count + index, tl.load(source + index, mask=mask), mask=mask)


class SoundResults:
    """All-gather and reduce-scatter that return a tensor of their own, in memory of its own. Breaks no rule."""

    functional: Literal[True] = True

    def all_gather(self, context: CollectiveContext, source: torch.Tensor) -> torch.Tensor:
        sources, count = context.peer_addresses(source), source.numel()
        output = self.result(context.size * count, source)
        context.barrier()
        pull_kernel[(-(-count // BLOCK), context.size)](sources, bits(output), count, BLOCK=BLOCK)
        context.barrier()
        return output

    def reduce_scatter(self, context: CollectiveContext, source: torch.Tensor, op: str) -> torch.Tensor:
        sources, count = context.peer_addresses(source), source.numel() // context.size
        output, bf16 = self.result(count, source), source.dtype is torch.bfloat16
        context.barrier()
        scatter_kernel[(-(-count // BLOCK),)](
            sources,
            bits(output) if bf16 else output,
            context.rank,
            count,
            count,
            1.0 / context.size if op == "avg" else 1.0,
            SIZE=context.size,
            BLOCK=BLOCK,
            BF16=bf16,
            INTEGER=not output.dtype.is_floating_point,
            NARROW=False,
            TRUNCATE=False,
        )
        context.barrier()
        return output

    def result(self, elements: int, source: torch.Tensor) -> torch.Tensor:
        """Memory for a result."""
        return torch.empty(elements, dtype=source.dtype, device=source.device)


class ReturnsItsScratch(SoundResults):
    """Every result is the start of one scratch, so that a call overwrites what the call before returned (K23)."""

    def __init__(self) -> None:
        self._scratch = torch.empty(0, dtype=torch.uint8)

    def result(self, elements: int, source: torch.Tensor) -> torch.Tensor:
        size = elements * source.element_size()
        if self._scratch.numel() < size or self._scratch.device != source.device:
            self._scratch = torch.empty(max(size, 1 << 20), dtype=torch.uint8, device=source.device)
        return self._scratch[:size].view(source.dtype)


class ClearsLate(SoundKernels):
    """What clears the end of a gathered output lags: it lands when the group's next call begins (K24)."""

    def __init__(self) -> None:
        self._late: dict[tuple[int, ...], tuple[int, torch.Tensor]] = {}

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        context.peer_addresses(output)  # or this call is the library's
        self._land(context, output, source)
        super().all_gather(context, output, source)
        zeros = torch.zeros(min(source.numel(), BLOCK), dtype=bits(source).dtype, device=source.device)
        end = output.data_ptr() + output.numel() * output.element_size()
        self._late[context.group] = end - zeros.numel() * zeros.element_size(), zeros

    def reduce_scatter(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        context.peer_addresses(source)
        self._land(context, output, source)
        super().reduce_scatter(context, output, source, op)

    def _land(self, context: CollectiveContext, *operands: torch.Tensor) -> None:
        address, zeros = self._late.pop(context.group, (0, torch.empty(0)))
        size = zeros.numel() * zeros.element_size()
        starts = [(each.data_ptr(), each.numel() * each.element_size()) for each in operands]
        # what the operands hold would be wrong in this call, which is another fault
        if address and not any(address < start + many and start < address + size for start, many in starts):
            target = torch.tensor([address], dtype=torch.int64, device=context.device)
            gather_kernel[(1, 1)](target, zeros, 0, 0, zeros.numel(), BLOCK=BLOCK)
