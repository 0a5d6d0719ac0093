"""Calls in flight: made without waiting for those before, and looked at together once all are through.

Invariant: every rank waits at the same steps of the program, so that a device which does its work late runs the calls
of all ranks in one order. In flight no buffer is looked at, and none is written past the streams.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch

from harness.rank.buffers import LiveBuffers
from harness.rank.deferred.calls import DeferredCall, record_beside
from harness.rank.results.kept import RETURNED
from harness.substrate.base import Substrate
from harness.trace import events as trace

Explained = Callable[[int, trace.Mismatch, torch.Tensor, torch.Tensor, bool], trace.Mismatch]
"""Adds to a mismatch of the call at a step where the wrong elements come from (`harness.rank.origins`)."""


class Flight:
    """The calls that a rank has not waited for."""

    def __init__(self, substrate: Substrate, buffers: LiveBuffers, explained: Explained, seed: int) -> None:
        self._substrate, self._buffers, self._explained, self._seed = substrate, buffers, explained, seed
        self._calls: list[DeferredCall] = []
        self._open = ExitStack()

    def begin(self, index: int) -> None:
        """From step `index` on, wait for nothing."""
        self._substrate.device.synchronize()
        self._buffers.memory.before()
        self._open.enter_context(self._substrate.device.in_flight(is_eager=bool((self._seed + index) % 2)))

    def add(self, call: DeferredCall) -> None:
        """A call was made."""
        self._calls.append(call)

    def end(self, index: int) -> None:
        """Wait for every call at step `index`, and look at what they left. Does nothing where none is in flight."""
        if not self._substrate.device.is_in_flight:
            return
        self._substrate.device.synchronize()
        self._open.close()
        calls, self._calls = self._calls, []
        record, kept = self._substrate.record, self._buffers.kept
        self._substrate.record_unmapped()
        self._buffers.memory.after("flight", *(operand for call in calls for operand in call.operands))
        returned = [call for call in calls if call.returned is not None]
        kept.make_room(len(returned))
        for call in calls:
            record(trace.Awaited(call.index, call.digest()))
            kept.began(call.index)
            kept.let_go(*call.operands)  # what an earlier one left there
            if (mismatch := call.compare()) is not None:
                record(self._explained(call.index, mismatch, call.tap, call.expected, call.is_by_kernel))
            elif call not in returned[:-RETURNED]:
                call.keep(self._buffers)
            if (spoiled := call.spoiled()) is not None:
                record(spoiled)
        record(trace.Awaited(index))
        kept.began(index)
        kept.after("flight")
        self._buffers.landed()
        record_beside(self._substrate, calls)

    def close(self) -> None:
        """Wait for nothing more: the draw ends here."""
        self._calls.clear()
        self._open.close()
