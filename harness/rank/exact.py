"""Exact data of a collective: the inputs of every rank of the group, and the result that this rank must have.

Invariant: it follows from the step, the group and the keys alone. One result is owed, bit for bit; of an average over a
group whose size is no power of two, any in `average_range`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

import torch

from harness.rank import values
from harness.rank.own import cat, crc32, equal
from harness.rank.values import Beat, silently
from harness.scenario.bases import counts_in
from harness.scenario.layouts.groups import Group
from harness.scenario.steps import (
    AllGather,
    AllReduce,
    AllToAll,
    Broadcast,
    Collective,
    Reduce,
    ReduceScatter,
    SendReceive,
)
from harness.substrate.bits import bits
from harness.trace import events as trace


class Span(NamedTuple):
    """A run of a rank's output: its elements from `begin` to `end` come from the input of the rank with index `sender`,
    from `start` on. Of a reduction it is every rank's input, and `sender` the rank itself."""

    begin: int
    end: int
    sender: int
    start: int


class ExactData:
    """The exact data of one collective, for the rank with index `mine` in `group`."""

    def __init__(self, step: Collective, group: Group, mine: int, device: torch.device, beat: Beat = silently) -> None:
        self.step, self.group, self.mine, self._device, self._beat = step, group, mine, device, beat
        self.counts = counts_in(step, group)
        self.lengths = [step.lengths(group, rank) for rank in group]
        self.longest = max(each.source for each in self.lengths)
        self.op = step.op
        self.is_exact = values.is_exact(len(group), step.op)
        """Whether one result is owed, bit for bit."""
        self._range: tuple[torch.Tensor, torch.Tensor] | None = None
        self.spans = [span for span in self._spans() if span.begin < span.end]
        self._ends = [span.end for span in self.spans]

    def _spans(self) -> Iterator[Span]:
        step, mine, length = self.step, self.mine, self.lengths[self.mine].output
        match step:
            case AllGather():
                sent = [(count, 0) for count in self.counts]
            case AllToAll():
                sent = [(row[mine], sum(row[:mine])) for row in step.sent(self.group)]
            case Broadcast():
                sent = [(length if index == step.root else 0, 0) for index in range(len(self.group))]
            case SendReceive():
                sender = (mine - step.shift) % len(self.group)
                sent = [(length if index == sender else 0, 0) for index in range(len(self.group))]
            case ReduceScatter():
                yield Span(0, length, mine, sum(self.counts[:mine]))
                return
            case AllReduce() | Reduce():
                yield Span(0, length, mine, 0)
                return
        begin = 0
        for sender, (count, start) in enumerate(sent):
            yield Span(begin, begin + count, sender, start)
            begin += count

    def inputs(self, keys: list[int], dtype: torch.dtype, wide: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """This rank's source and exact result, for the input keys of the group's ranks."""
        inputs = self.all_inputs(keys, dtype, wide)
        if not self.is_exact:
            self._range = average_range(self._mine_of(inputs), wide)
        return inputs[self.mine][: self.lengths[self.mine].source], self.result(inputs)

    def all_inputs(self, keys: list[int], dtype: torch.dtype, wide: bool) -> torch.Tensor:
        """Every rank's input, [size, elements], each as long as the longest."""
        if self.op is None:
            return values.gather_values(keys, self.longest, dtype, self._device, self._beat)
        return values.reduce_values(keys, self.longest, dtype, self.op, wide, self._device, self._beat)

    def result(self, inputs: torch.Tensor) -> torch.Tensor:
        """This rank's exact result."""
        if self.op is None:
            return cat(
                [inputs[sender][start : start + end - begin] for begin, end, sender, start in self.spans]
                or [inputs[0][:0]]
            )
        return values.reduce_result(self._mine_of(inputs), self.op, beat=self._beat)

    def _mine_of(self, inputs: torch.Tensor) -> torch.Tensor:
        """What of all inputs this rank's output is reduced from."""
        start, length = sum(span.start for span in self.spans), self.lengths[self.mine].output
        return inputs[:, start : start + length]

    def digest(self, output: torch.Tensor) -> int | None:
        """CRC-32 of an output's bytes, the same on every device; None where several results are right."""
        return _crc(output) if self.is_exact else None

    def alike(self, output: torch.Tensor) -> int | None:
        """CRC-32 of an all-reduce's output where several results are right: whichever it is, every rank gets it. None
        for other calls."""
        is_owed = isinstance(self.step, AllReduce) and not self.is_exact
        return _crc(output) if is_owed else None

    def span_at(self, index: int) -> Span:
        """The span in which an element of the output lies."""
        return self.spans[bisect_right(self._ends, index)]

    def owner(self, place: int) -> int:
        """The rank for whom an element of the inputs is reduced."""
        if not isinstance(self.step, ReduceScatter):
            return self.group[self.mine]
        return self.group[bisect_right([*accumulate(self.counts)], place)]

    def compare(
        self, buffer: str, output: torch.Tensor, expected: torch.Tensor, fed: slice = slice(0)
    ) -> trace.Mismatch | None:
        """Where an output differs from the exact result, that of the last `inputs`; None if nowhere. Give a copy where
        a peer might still write. `fed`: the elements that held no poison before the call."""
        found, exact = bits(output), bits(expected)
        if equal(found, exact):
            return None
        wrong = self._wrong(output, expected)
        if not wrong.numel():
            return None
        index = int(wrong[0])
        chunk = self.span_at(index).sender
        shown = _shown(expected, index), _shown(output, index)
        begin, end, _ = fed.indices(len(found))
        had_poison = (wrong < begin) | (wrong >= end)
        touched = (had_poison & (found[wrong] == values.all_ones(found))).logical_not().nonzero()
        return trace.Mismatch(
            *(buffer, wrong.numel(), found.numel(), index, chunk, *shown),
            had_poison=bool(had_poison[0]),
            untouched=int(touched[0]) if touched.numel() else wrong.numel(),
        )

    def _wrong(self, output: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
        """Indices of the elements that are not what is owed."""
        if self._range is None:
            return (bits(output) != bits(expected)).nonzero().flatten()
        (least, greatest), found = self._range, output.to(torch.float64)
        return ((found >= least) & (found <= greatest)).logical_not().nonzero().flatten()  # NaN is in no range


def _crc(output: torch.Tensor) -> int:
    return crc32(bits(output).cpu().numpy().data)


def average_range(inputs: torch.Tensor, wide: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The least and the greatest average of [size, count] that are right where 1/size is no power of two: float64.

    With t terms that are not zero, 1/size rounds once, each product once and the sum t - 1 times. Each rounding is at
    most u of the magnitudes' sum over size, and t + 2 of them leave room for their products. u is half a unit of the
    type, as NCCL's ring rounds at every hop, and the result is rounded once more.

    Where the collective is `wide`, u is half a unit of fp32. One rounding to the type follows, which keeps the order:
    the result lies between the roundings of the least and the greatest sum.
    """
    exact, unit = inputs.to(torch.float64), 0.5 ** values.FORMS[inputs.dtype].bits
    mean, terms = exact.sum(dim=0) / len(exact), (exact != 0).sum(dim=0) + 2
    magnitudes = exact.abs().sum(dim=0) / len(exact)
    if wide and inputs.dtype in values.NARROW:
        off = terms * 0.5**24 * magnitudes
        least, greatest = (each.to(inputs.dtype).to(torch.float64) for each in (mean - off, mean + off))
        return least, greatest
    off = terms * unit * magnitudes + 2 * unit * mean.abs()
    rounded = mean.to(inputs.dtype).to(torch.float64)
    return rounded - off, rounded + off


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
