"""Buffers of a draw and the canaries that guard them.

Invariant: a block returns to its pool at the step that releases its buffer, at the same step on every rank.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping

import torch

from harness.rank import values
from harness.scenario.layout import Group
from harness.scenario.operands import FENCE, GUARD
from harness.substrate.base import Substrate
from harness.substrate.bits import bits
from harness.system.boundary import call_system
from harness.trace.events import Dropped, Exhausted, Overwritten, Placed

GUARD_SALT, FENCE_SALT = 1, 2


class Canary:
    """A region that must not change: it holds a pattern until it is looked at."""

    def __init__(self, buffer: str, where: str, region: torch.Tensor, salt: int) -> None:
        self._buffer, self._where, self._region = buffer, where, bits(region)
        self._pattern = values.canary(region, salt)
        self._region.copy_(self._pattern)

    def damage(self) -> Overwritten | None:
        """What has changed since the last look, if anything has."""
        seen = self._region.clone()  # a peer that runs on may write between two looks
        if torch.equal(seen, self._pattern):
            return None
        changed = (seen != self._pattern).nonzero().flatten()
        self._region.copy_(self._pattern)
        return Overwritten(self._buffer, self._where, int(changed[0]), changed.numel())


class Buffer:
    """A live buffer: `body`, and behind it a guard of canaries; none if the buffer came while a graph was captured,
    when nothing can be written. `stream` is the one that its step names, to which its block belongs outside graphs."""

    def __init__(self, name: str, whole: torch.Tensor, elements: int, stream: int = 0, is_guarded: bool = True) -> None:
        self.name, self.body, self.stream = name, whole[:elements], stream
        self.is_shared = False
        """Whether another stream has used it, too."""
        self.guard = Canary(name, "guard", whole[elements:], GUARD_SALT) if is_guarded else None

    def use_on(self, stream: int) -> bool:
        """Note that work on a stream uses it. Returns whether that is not its own."""
        is_foreign = stream != self.stream
        self.is_shared |= is_foreign
        return is_foreign

    def fences(self, start: int, end: int) -> list[Canary]:
        """Canaries on both sides of `body[start:end]`, as far as the body reaches."""
        regions = (self.body[max(0, start - FENCE) : start], self.body[end : end + FENCE])
        return [Canary(self.name, "fence", region, FENCE_SALT) for region in regions if region.numel()]


class LiveBuffers(Mapping[str, Buffer]):
    """The buffers that this rank holds in a draw, by name."""

    def __init__(self, substrate: Substrate) -> None:
        self._substrate = substrate
        self._live: dict[str, Buffer] = {}

    def __getitem__(self, name: str) -> Buffer:
        return self._live[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._live)

    def __len__(self) -> int:
        return len(self._live)

    def place(self, name: str, size: int, named: Group, make: Callable[[], torch.Tensor], stream: int = 0) -> None:
        """Have the system under test allocate `size` elements, the guard included, and keep them as a buffer."""
        try:
            whole = call_system("pool", make, torch.OutOfMemoryError)
        except torch.OutOfMemoryError:
            self._substrate.record(Exhausted(name, size - GUARD))
            return
        segment = self._substrate.locate(whole.data_ptr())
        ident = -1 if segment is None else segment.ident
        nbytes = whole.numel() * whole.element_size()
        self._substrate.record(Placed(name, ident, whole.data_ptr(), nbytes, named))
        # In a capture nothing runs, so no canary can be written.
        is_guarded = not self._substrate.device.is_capturing
        self._live[name] = Buffer(name, whole[:size], size - GUARD, stream=stream, is_guarded=is_guarded)

    def release(self, name: str) -> None:
        """Look at a buffer's canaries and drop it. Does nothing where it could not be allocated."""
        if name in self._live:
            self._check(self._live[name])
            self._drop(name)

    def release_all(self) -> None:
        """Release what is left, in the order of allocation."""
        self.check()
        for name in list(self._live):
            self._drop(name)

    def check(self) -> None:
        """Record the canaries that changed since the last look."""
        for buffer in self._live.values():
            self._check(buffer)

    def _check(self, buffer: Buffer) -> None:
        if buffer.guard is None or self._substrate.device.is_capturing:
            return
        damage = buffer.guard.damage()
        if damage is not None:
            self._substrate.record(damage)

    def _drop(self, name: str) -> None:
        is_shared = self._live[name].is_shared
        del self._live[name]
        # Triton's interpreter holds operands in cycles; the block has to return now, on every rank.
        gc.collect()
        # PyTorch keeps a block that another stream used until that stream's events are done, and looks at them when it
        # next allocates: ranks would differ in when.
        if is_shared and not self._substrate.device.is_capturing:
            self._substrate.device.reclaim()
        self._substrate.record(Dropped(name))
