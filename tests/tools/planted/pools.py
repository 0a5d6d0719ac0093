"""Pool policies with one planted fault each, beside those of the catalogue in `harness.studies.faults`."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness.system.context import ProcessGroup, RankContext, Segment
from harness.system.planted.sound import Sound


class CollectsGarbage(Sound):
    """Breaks no rule: odd ranks collect garbage at every use, as any rank may at any time."""

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        if self.context.rank % 2:
            gc.collect()
        with super().use(group):
            yield


class NeverRegisters(Sound):
    """Breaks unregistered: no rank registers the pool's segments (F25: a place in the pool is no registration)."""

    def register(self, segment: Segment, group: ProcessGroup) -> None:
        pass


class RegistersLate(Sound):
    """Sound from the second segment on: two segments of a pool are registered together, oldest first."""

    def register_all(self, segments: list[Segment], group: ProcessGroup) -> None:
        if len(segments) > 1:
            super().register_all(self.in_order(segments, group), group)

    def in_order(self, segments: list[Segment], group: ProcessGroup) -> list[Segment]:
        return segments


class ReversedOrder(RegistersLate):
    """Breaks segment-mismatch, or registration-skew where sizes differ: odd ranks register newest first (F04)."""

    def in_order(self, segments: list[Segment], group: ProcessGroup) -> list[Segment]:
        return segments[::-1] if group.rank % 2 else segments


class LongWindow(Sound):
    """Breaks oversized-window: each window is twice as long as its segment."""

    def register(self, segment: Segment, group: ProcessGroup) -> None:
        super().register(Segment(segment.ident, segment.pool, segment.address, 2 * segment.size), group)


class RemembersPieces(Sound):
    """Breaks stale-window: a segment counts as registered where one of its size was before, at its address (F13)."""

    def is_registered(self, segment: Segment, group: ProcessGroup) -> bool:
        return any((window.address, window.size) == (segment.address, segment.size) for window in self.windows)


class DeregistersAlone(Sound):
    """Breaks stale-window on the group's first rank alone, whose window closes at once, so that its peers wait for
    it on another path: hang (F13)."""

    def register(self, segment: Segment, group: ProcessGroup) -> None:
        super().register(segment, group)
        if group.rank == 0:
            self.windows[-1].close()


class KeepsTheCommunicator(Sound):
    """Breaks stale-window: registers with the communicator that a group had at first, also once it is destroyed."""

    def register(self, segment: Segment, group: ProcessGroup) -> None:
        first = next((w.communicator for w in self.windows if w.communicator.group == group.ranks), group.communicator)
        window = first.register(segment)
        if window is not None:
            self.windows.append(window)

    def is_registered(self, segment: Segment, group: ProcessGroup) -> bool:
        return any(window.segment.ident == segment.ident for window in self.windows)


class KeepsEverything(Sound):
    """Breaks leak: `close` gives nothing back (F17)."""

    def close(self) -> None:
        pass


class HandsOutTwice(Sound):
    """Breaks overlapping-buffers: every buffer of a group is cut from the start of one tensor, the live ones too."""

    STEP = 512
    """Bytes by which a buffer lies behind the one before."""

    def __init__(self, context: RankContext) -> None:
        super().__init__(context)
        self.arenas: dict[str, torch.Tensor] = {}

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        if group.name not in self.arenas:
            with super().use(group):
                self.arenas[group.name] = torch.empty(1 << 20, dtype=torch.uint8, device=self.context.device)
        arena = self.arenas[group.name]
        self.arenas[group.name] = arena[self.STEP :]
        with _Cutting(arena):
            yield

    def close(self) -> None:
        self.arenas.clear()
        super().close()


class _Cutting(TorchDispatchMode):
    """Cuts every new tensor from the start of another."""

    def __init__(self, arena: torch.Tensor) -> None:
        super().__init__()
        self.arena = arena

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from importing its compiler."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.ops.aten.empty.memory_format:
            return func(*args, **(kwargs or {}))
        dtype = (kwargs or {}).get("dtype") or torch.get_default_dtype()
        return self.arena[: args[0][0] * dtype.itemsize].view(dtype)
