"""A call whose result is looked at later: what feeds it and what takes its result away runs on the device beside it.

Invariant: what is enqueued keeps addresses of a pool's buffers and no tensor of one, so their blocks go where the pool
policy lets them go. What feeds a call and what takes its result away is the harness's own memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch

from harness.rank import values
from harness.rank.buffers import LiveBuffers
from harness.rank.exact import ExactData, shared, source_changed
from harness.rank.own import empty, empty_like
from harness.scenario.layouts.groups import GroupId
from harness.substrate.base import Substrate
from harness.substrate.bits import bits
from harness.trace import events as trace
from harness.trace.accesses import How

POISONED_LAST = 2
"""The index, modulo 4, of calls whose source is filled before their output is poisoned, both by kernels."""


class DeferredCall:
    """The collective at step `index`: `feed` fills its source, its output goes to `tap`, and what it leaves of its
    source to `left`."""

    def __init__(
        self, substrate: Substrate, group: GroupId, exact: ExactData, index: int, into: str, origin: str
    ) -> None:
        self._substrate, self._exact, self.index, self._into, self._from = substrate, exact, index, into, origin
        self.group = group
        self.feed = empty(0)
        self.tap, self.left = empty(0), empty(0)
        self.expected = empty(0)
        """The exact result of the values that were filled in last."""
        self._shared = self._fed = slice(0)
        self.operands: tuple[torch.Tensor, ...] = ()
        """Where output and source lie, or lay."""
        self.returned: torch.Tensor | None = None
        """What a plug-in in functional form gave in place of the output."""
        self.is_by_kernel = False

    def take(self, output: torch.Tensor, source: torch.Tensor) -> None:
        """These are its operands."""
        self.feed, self.tap, self.left = empty_like(source), empty_like(output), empty_like(source)
        self._shared, self._fed = shared(source, output), shared(output, source)
        self.operands = self._raw(output), self._raw(source)

    def fill(self, keys: list[int], wide: bool = False) -> None:
        """New values for the next run. `wide`: it adds in at least fp32."""
        mine, self.expected = self._exact.inputs(keys, self.feed.dtype, wide)
        bits(self.feed).copy_(bits(mine))
        values.poison(self.tap)

    def before(self) -> None:
        """Enqueue what comes before the call: poison for the output, values for the source. The last of both is what a
        call that does not wait for it can miss."""
        (into, origin), fed = self.operands, self.feed.view(torch.uint8)
        self._touch("fills", into, origin)
        if self.index % 4 == POISONED_LAST and not _overlap(into, origin):
            self._move(origin, fed)
            self._move(into, self.tap.view(torch.uint8))  # which is poison until the call is through
            return
        self._substrate.device.enqueue(lambda: _poison(into))
        self._move(origin, fed)

    def after(self) -> None:
        """Enqueue what comes after the call."""
        (found, origin), tapped, left = self.operands, self.tap.view(torch.uint8), self.left.view(torch.uint8)
        if self.returned is not None:
            found = self._raw(self.returned)
        self._touch("looks at", found, origin)
        self._move(tapped, found)
        self._move(left, origin)

    def digest(self) -> int | None:
        """That of the last run's output, in a world that has digests."""
        return self._exact.digest(self.tap) if "digests" in self._substrate.evidence else None

    def compare(self) -> trace.Mismatch | None:
        """Where the last run's output differs from the exact result."""
        fed = self._fed if self.returned is None else slice(None)
        return self._exact.compare(self._into, self.tap, self.expected, fed)

    def spoiled(self) -> trace.SourceChanged | None:
        """Where the last run's source changed in its call."""
        return source_changed(self._from, self.feed, self.left, self._shared)

    def keep(self, buffers: LiveBuffers, captured: int = -1) -> None:
        """Have the last run's output kept, if its buffer is still there. `captured`: as in `Kept.hold`."""
        if self.returned is not None:
            buffers.kept.came(self.returned)
            buffers.kept.hold_returned(self.returned, self.tap if captured < 0 else self.tap.clone(), captured)
        elif self._into in buffers:
            body, start = buffers[self._into].body, self.operands[0].data_ptr()
            first = (start - body.data_ptr()) // body.element_size()
            if first >= 0 and first + len(self.tap) <= len(body):
                view = body[first : first + len(self.tap)]
                buffers.kept.hold("output", self._into, view, self.tap.clone(), captured)

    def _touch(self, how: How, *tensors: torch.Tensor) -> None:
        """Say in its turn what is done to a call's operands, if anyone listens."""
        if self._substrate.is_in_turns:
            self._substrate.device.enqueue(lambda: self._substrate.touched(how, *tensors))

    def _move(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Enqueue a move of bytes: a kernel by turns with a copy, which the device may order otherwise."""
        device = self._substrate.device
        device.enqueue(partial(_by_copy if self.index % 2 else device.move_by_kernel, target, source))

    def _raw(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._substrate.device.view(tensor.data_ptr(), tensor.numel() * tensor.element_size())


def record_beside(substrate: Substrate, calls: Iterable[DeferredCall]) -> None:
    """Record what kernels among the calls have written beside the pads and the memory of the harness."""
    for group in dict.fromkeys(call.group for call in calls if call.is_by_kernel):
        substrate.communicator(group).record_beside()


def _overlap(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two pieces of memory share a byte. uint8[n] each."""
    return one.data_ptr() < other.data_ptr() + other.numel() and other.data_ptr() < one.data_ptr() + one.numel()


def _by_copy(target: torch.Tensor, source: torch.Tensor) -> None:
    target.copy_(source)


def _poison(raw: torch.Tensor) -> None:
    raw.fill_(255)
