"""One collective on one rank: fill the source, poison and fence the output, run, compare.

Invariant: a call that another rank of the group makes too can only differ in what it reads and
writes, never in what is asked; inputs and exact results follow from (seed, step, rank, index).
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import torch

from harness import cross_checks, trace, values
from harness.buffer import Buffer, Canary
from harness.collectives import CollectiveContext
from harness.context import ProcessGroup
from harness.guard import NotOwned, guarded
from harness.program import AllGather, Collective, View, at, counts_in, is_uneven
from harness.substrate.base import Substrate
from harness.trace import Operand


class Call:
    """A collective step about to run on this rank. `keys` are the input keys of the group's ranks."""

    def __init__(
        self, substrate: Substrate, buffers: Mapping[str, Buffer], step: Collective, group: ProcessGroup
    ) -> None:
        self._substrate, self._buffers, self._step = substrate, buffers, step
        self._communicator, self._mine = group.communicator, group.rank
        self._counts = counts_in(step, group.ranks)
        self._is_uneven = is_uneven(step, group.ranks)
        self._starts = list(accumulate(self._counts, initial=0))
        whole = self._view(step.whole, self._starts[-1])
        part = self._chunk(whole) if step.part is None else self._view(step.part, self._counts[self._mine])
        names = step.whole.buffer, (step.part or step.whole).buffer
        if isinstance(step, AllGather):
            (self._output, self._source), (self._into, self._from) = (whole, part), names
        else:
            (self._source, self._output), (self._from, self._into) = (whole, part), names

    def _view(self, view: View, count: int) -> torch.Tensor:
        start = at(view.offset, self._substrate.rank)
        return self._buffers[view.buffer].body[start : start + count]

    def _chunk(self, whole: torch.Tensor) -> torch.Tensor:
        """This rank's chunk of the last axis."""
        return whole[..., self._starts[self._mine] : self._starts[self._mine + 1]]

    def run(self, keys: list[int], kernel: Any) -> None:
        """Collective over the group. `kernel` is the system under test for steps that go through one."""
        fences = [] if self._step.output is None else self._fences(self._step.output)
        expected = self._fill(keys, wide=self._step.via == "kernel")
        if "stamps" in self._substrate.evidence and self._is_library:
            cross_checks.stamp(self._communicator, *self._peer_addressed)
        operands = _operand(self._from, self._source), _operand(self._into, self._output)
        self._substrate.record(trace.Called(self._communicator.ident, *operands))
        try:
            path, evidence = self._dispatch(kernel)
        except NotOwned:  # an engine falls back to the library here, and so does the harness
            expected = self._fill(keys, wide=False)
            path, evidence = self._library()
        self._substrate.synchronize()
        digest = _digest(self._output) if "digests" in self._substrate.evidence else None
        self._substrate.record(trace.Ran(path, evidence, digest))
        self._compare(expected)
        for damage in filter(None, (fence.damage() for fence in fences)):
            self._substrate.record(damage)
        if "differential" in self._substrate.evidence and self._is_library:
            self._run_again(keys, path)

    @property
    def _is_library(self) -> bool:
        return self._step.via == "library"

    @property
    def _peer_addressed(self) -> tuple[str, torch.Tensor]:
        """The operand through which ranks reach each other."""
        return (self._into, self._output) if isinstance(self._step, AllGather) else (self._from, self._source)

    def _run_again(self, keys: list[int], path: str) -> None:
        """The same call on the same buffers by the legacy path, if every rank took the symmetric one."""
        if not cross_checks.agree_on(self._communicator, path):
            return
        symmetric = self._output.clone()
        self._fill(keys, wide=False)
        with self._communicator.on_legacy_path():
            self._library()
        self._substrate.synchronize()
        cross_checks.compare(self._communicator, self._into, symmetric, self._output)

    def _fences(self, view: View) -> list[Canary]:
        start = at(view.offset, self._substrate.rank)
        return self._buffers[view.buffer].fences(start, start + self._output.numel())

    def _fill(self, keys: list[int], wide: bool) -> torch.Tensor:
        """Poison the output, fill this rank's source, and return the exact result."""
        device, dtype = self._substrate.device, self._source.dtype
        values.poison(self._output)
        if isinstance(self._step, AllGather):
            inputs = values.gather_values(keys, max(self._counts), dtype, device)
            chunks = [row[:count] for row, count in zip(inputs, self._counts, strict=True)]
            values.bits(self._source).copy_(values.bits(chunks[self._mine]))
            return torch.cat(chunks)
        inputs = values.reduce_values(keys, self._starts[-1], dtype, self._step.op, wide, device)
        self._source.copy_(inputs[self._mine])
        return values.reduce_result(self._chunk(inputs), self._step.op)

    def _dispatch(self, kernel: Any) -> tuple[str, str]:
        if self._step.via == "library" or self._communicator.size == 1:
            return self._library()
        context = CollectiveContext(self._communicator)
        self._communicator.entered(f"{self._step.kind} kernel")
        operands = context, self._output, self._source
        if isinstance(self._step, AllGather):
            guarded("collectives", lambda: kernel.all_gather(*operands))
        else:
            op = self._step.op
            guarded("collectives", lambda: kernel.reduce_scatter(*operands, op))
        return "kernel", "the kernel under test"

    def _library(self) -> tuple[str, str]:
        counts = self._counts if self._is_uneven else None
        if isinstance(self._step, AllGather):
            return self._communicator.all_gather(self._output, self._source, counts)
        return self._communicator.reduce_scatter(self._output, self._source, self._step.op, counts)

    def _compare(self, expected: torch.Tensor) -> None:
        """Record where the output differs from the exact result, bit for bit."""
        found, exact = values.bits(self._output), values.bits(expected)
        if torch.equal(found, exact):
            return
        wrong = (found != exact).nonzero().flatten()
        index = int(wrong[0])
        chunk = bisect_right(self._starts, index) - 1 if isinstance(self._step, AllGather) else self._mine
        shown = _shown(expected, index), _shown(self._output, index)
        self._substrate.record(trace.Mismatch(self._into, wrong.numel(), found.numel(), index, chunk, *shown))


def _operand(buffer: str, view: torch.Tensor) -> Operand:
    return Operand(buffer, view.data_ptr(), view.numel() * view.element_size())


def _digest(view: torch.Tensor) -> int:
    """CRC-32 of a view's bytes, the same on every device."""
    return zlib.crc32(values.bits(view).cpu().numpy().data)


def _shown(tensor: torch.Tensor, index: int) -> str:
    """One element as value and bits."""
    mask = (1 << 8 * tensor.element_size()) - 1
    return f"{tensor[index].item()!r} (0x{int(values.bits(tensor)[index]) & mask:0{2 * tensor.element_size()}x})"
