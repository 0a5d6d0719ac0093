"""Buffers of a draw and the canaries that guard them."""

from __future__ import annotations

import torch

from harness.rank import values
from harness.scenario.operands import FENCE
from harness.substrate.bits import bits
from harness.trace.events import Overwritten

GUARD_SALT, FENCE_SALT = 1, 2


class Canary:
    """A region that must not change: it holds a pattern until it is looked at."""

    def __init__(self, buffer: str, where: str, region: torch.Tensor, salt: int) -> None:
        self._buffer, self._where, self._region = buffer, where, bits(region)
        self._pattern = values.canary(region, salt)
        self._region.copy_(self._pattern)

    def damage(self) -> Overwritten | None:
        """What has changed since the last look, if anything has."""
        if torch.equal(self._region, self._pattern):
            return None
        changed = (self._region != self._pattern).nonzero().flatten()
        self._region.copy_(self._pattern)
        return Overwritten(self._buffer, self._where, int(changed[0]), changed.numel())


class Buffer:
    """A live buffer: `body`, and behind it a guard of canaries; none if the buffer came while a graph was captured,
    when nothing can be written. `stream` is the one that its step names, to which its block belongs outside graphs."""

    def __init__(self, name: str, whole: torch.Tensor, elements: int, stream: int = 0, guarded: bool = True) -> None:
        self.name, self.body, self.stream = name, whole[:elements], stream
        self.is_shared = False
        """Whether another stream has used it, too."""
        self.guard = Canary(name, "guard", whole[elements:], GUARD_SALT) if guarded else None

    def use_on(self, stream: int) -> bool:
        """Note that work on a stream uses it. Returns whether that is not its own."""
        is_foreign = stream != self.stream
        self.is_shared |= is_foreign
        return is_foreign

    def fences(self, start: int, end: int) -> list[Canary]:
        """Canaries on both sides of `body[start:end]`, as far as the body reaches."""
        regions = (self.body[max(0, start - FENCE) : start], self.body[end : end + FENCE])
        return [Canary(self.name, "fence", region, FENCE_SALT) for region in regions if region.numel()]
