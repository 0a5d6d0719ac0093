"""Exact data of a collective: the inputs of every rank of the group, and the result that this rank must have.

Invariant: it follows from the step, the group and the keys alone.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

import torch

from harness.rank import values
from harness.rank.own import cat, equal
from harness.scenario.bases import counts_in
from harness.scenario.layouts.groups import Group
from harness.scenario.steps import AllGather, Collective
from harness.substrate.bits import bits
from harness.trace import events as trace


class ExactData:
    """The exact data of one collective, for the rank with index `mine` in `group`."""

    def __init__(self, step: Collective, group: Group, mine: int, device: torch.device) -> None:
        self.step, self.group, self.mine, self._device = step, group, mine, device
        self.counts = counts_in(step, group)
        self.starts = list(accumulate(self.counts, initial=0))

    def inputs(self, keys: list[int], dtype: torch.dtype, wide: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """This rank's source and exact result, for the input keys of the group's ranks."""
        inputs = self.all_inputs(keys, dtype, wide)
        if isinstance(self.step, AllGather):
            chunks = [row[:count] for row, count in zip(inputs, self.counts, strict=True)]
            return chunks[self.mine], cat(chunks)
        return inputs[self.mine], values.reduce_result(self.chunk(inputs), self.step.op)

    def all_inputs(self, keys: list[int], dtype: torch.dtype, wide: bool) -> torch.Tensor:
        """Every rank's input, [size, elements]; of a gather, each as long as the longest."""
        if isinstance(self.step, AllGather):
            return values.gather_values(keys, max(self.counts), dtype, self._device)
        return values.reduce_values(keys, self.starts[-1], dtype, self.step.op, wide, self._device)

    def owner(self, place: int) -> int:
        """The rank whose chunk an element of the last axis lies in."""
        return self.group[bisect_right(self.starts, place) - 1]

    def chunk(self, whole: torch.Tensor) -> torch.Tensor:
        """This rank's chunk of the last axis."""
        return whole[..., self.starts[self.mine] : self.starts[self.mine + 1]]

    def compare(self, buffer: str, output: torch.Tensor, expected: torch.Tensor) -> trace.Mismatch | None:
        """Where an output differs from the exact result, bit for bit; None if nowhere. Give a copy where a peer might
        still write."""
        found, exact = bits(output), bits(expected)
        if equal(found, exact):
            return None
        wrong = (found != exact).nonzero().flatten()
        index = int(wrong[0])
        chunk = bisect_right(self.starts, index) - 1 if isinstance(self.step, AllGather) else self.mine
        shown = _shown(expected, index), _shown(output, index)
        return trace.Mismatch(buffer, wrong.numel(), found.numel(), index, chunk, *shown)


def changed(buffer: str, before: torch.Tensor, after: torch.Tensor) -> trace.Changed | None:
    """Where an output has changed since a copy of it was taken; None if nowhere. `after` is a copy too."""
    one, other = bits(before), bits(after)
    if equal(one, other):
        return None
    wrong = (one != other).nonzero().flatten()
    index = int(wrong[0])
    return trace.Changed(buffer, wrong.numel(), one.numel(), index, _shown(before, index), _shown(after, index))


def shared(source: torch.Tensor, output: torch.Tensor) -> slice:
    """The elements of a call's source that lie in its output: none, or in place some or all."""
    start = (output.data_ptr() - source.data_ptr()) // source.element_size()
    return slice(max(0, start), max(0, start + output.numel()))


def source_changed(buffer: str, filled: torch.Tensor, left: torch.Tensor, shared: slice) -> trace.SourceChanged | None:
    """Where `left`, a copy of a call's source, is not what it was filled with, its `shared` elements left out; None if
    nowhere."""
    one, other = bits(filled).clone(), bits(left)
    one[shared] = other[shared]
    if equal(one, other):
        return None
    wrong = (one != other).nonzero().flatten()
    index = int(wrong[0])
    shown = _shown(filled, index), _shown(left, index)
    return trace.SourceChanged(buffer, wrong.numel(), one.numel(), index, *shown)


def _shown(tensor: torch.Tensor, index: int) -> str:
    """One element as value and bits."""
    mask = (1 << 8 * tensor.element_size()) - 1
    return f"{tensor[index].item()!r} (0x{int(bits(tensor)[index]) & mask:0{2 * tensor.element_size()}x})"
