"""Graphs on a rank: what was captured, and how it is replayed on new values.

Invariant: a graph keeps addresses of buffers and no tensor of one, so their blocks go where the pool policy lets
them go. What feeds a captured collective and what takes its result away is the harness's own memory.
"""

from __future__ import annotations

from contextlib import ExitStack

import torch

from harness.rank import values
from harness.rank.exact import Exchange
from harness.substrate.base import Substrate
from harness.substrate.bits import bits
from harness.trace import events as trace


class CapturedCall:
    """A collective in a graph, captured at step `index`: `feed` fills its source, and its output goes to `tap`."""

    def __init__(self, substrate: Substrate, exchange: Exchange, index: int, into: str) -> None:
        self._substrate, self._exchange, self.index, self._into = substrate, exchange, index, into
        self.ranks: tuple[int, ...] = exchange.group
        self.feed = torch.empty(0)
        self.tap = torch.empty(0)

    def before(self, output: torch.Tensor, source: torch.Tensor) -> None:
        """Capture what comes before the call: poison for the output, values for the source."""
        self.feed, self.tap = torch.empty_like(source), torch.empty_like(output)
        into, origin, fed = self._raw(output), self._raw(source), self.feed.view(torch.uint8)
        self._substrate.device.enqueue(lambda: _poison(into))
        self._substrate.device.enqueue(lambda: _copy(origin, fed))

    def after(self, output: torch.Tensor) -> None:
        """Capture what comes after the call."""
        found, tapped = self._raw(output), self.tap.view(torch.uint8)
        self._substrate.device.enqueue(lambda: _copy(tapped, found))

    def fill(self, keys: list[int]) -> torch.Tensor:
        """New values for the next replay; returns the exact result."""
        mine, expected = self._exchange.inputs(keys, self.feed.dtype, wide=False)
        bits(self.feed).copy_(bits(mine))
        values.poison(self.tap)
        return expected

    def compare(self, expected: torch.Tensor) -> trace.Mismatch | None:
        """Where the last replay's output differs from the exact result."""
        return self._exchange.compare(self._into, self.tap, expected)

    def _raw(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._substrate.device.view(tensor.data_ptr(), tensor.numel() * tensor.element_size())


class CapturedGraph:
    """A graph from the beginning of its capture. Local; `replay` is collective."""

    def __init__(self, substrate: Substrate) -> None:
        self.calls: list[CapturedCall] = []
        self.buffers: set[str] = set()
        """Operands, which a replay may change."""
        self._capturing = ExitStack()
        self._work = self._capturing.enter_context(substrate.device.capture())

    def end(self) -> None:
        """End the capture; a second call does nothing."""
        self._capturing.close()

    def replay(self) -> None:
        self._work.replay()


def _poison(raw: torch.Tensor) -> None:
    raw.fill_(255)


def _copy(target: torch.Tensor, source: torch.Tensor) -> None:
    target.copy_(source)
