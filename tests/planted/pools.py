"""Pool policies with one planted fault each, and the sound ones they are planted in."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from harness.context import ProcessGroup, RankContext
from harness.substrate.pool import Pool, Segment, Window


class Sound:
    """One pool a group; leaving `use` registers every segment that its communicator has no window over.

    Breaks no rule. Windows close before their segment is freed; null windows are never asked for.
    """

    def __init__(self, context: RankContext) -> None:
        self.context = context
        self.windows: list[Window] = []

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        pool = self.pool(group)
        with pool.use():
            yield
        if self.may_register(group):
            self.register_all(pool.segments, group)

    def pool(self, group: ProcessGroup) -> Pool:
        pool = self.context.pool("-".join(map(str, group.ranks)))
        if not pool.on_freed:
            pool.on_freed.append(self.freed)
        return pool

    def may_register(self, group: ProcessGroup) -> bool:
        return group.communicator.supports_windows

    def register_all(self, segments: list[Segment], group: ProcessGroup) -> None:
        for segment in segments:
            if not self.is_registered(segment, group):
                self.register(segment, group)

    def is_registered(self, segment: Segment, group: ProcessGroup) -> bool:
        return any(w.segment.ident == segment.ident and w.communicator is group.communicator for w in self.windows)

    def register(self, segment: Segment, group: ProcessGroup) -> None:
        window = group.communicator.register(segment)
        if window is not None:
            self.windows.append(window)

    def freed(self, segment: Segment) -> None:
        """Called when a segment is about to go."""
        for window in self.windows:
            if window.segment.ident == segment.ident:
                window.close()

    def close(self) -> None:
        for pool in self.context.pools():
            pool.close()


class CollectsGarbage(Sound):
    """Breaks no rule: odd ranks collect garbage at every use, as any rank may at any time."""

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        if self.context.rank % 2:
            gc.collect()
        with super().use(group):
            yield


# ownership


class NeverRegisters(Sound):
    """Breaks unregistered: nobody registers the pool's segments (F25: to lie in the pool says nothing)."""

    def register(self, segment: Segment, group: ProcessGroup) -> None:
        pass


class OutsideThePool(Sound):
    """Breaks unregistered: allocations go past the pool (F24, whose other thread is left out)."""

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        yield


class FirstGroupOnly(Sound):
    """Breaks wrong-owner: every segment is registered with the first group ever seen (F23, F01)."""

    first: ProcessGroup | None = None

    def register(self, segment: Segment, group: ProcessGroup) -> None:
        self.first = self.first or group
        super().register(segment, self.first)


class ShortWindow(Sound):
    """Breaks partly-registered: windows end 4096 bytes behind the segment's start (F22)."""

    def register(self, segment: Segment, group: ProcessGroup) -> None:
        super().register(Segment(segment.ident, segment.pool, segment.address, 4096), group)


class IgnoresNull(Sound):
    """Breaks null-window: registers with every communicator and takes success for a window (F18)."""

    def may_register(self, group: ProcessGroup) -> bool:
        return True


class RemembersSegments(Sound):
    """Breaks stale-window: the index of registered segments outlives the communicator (F13)."""

    def is_registered(self, segment: Segment, group: ProcessGroup) -> bool:
        return any(window.segment.ident == segment.ident for window in self.windows)


class RemembersAddresses(Sound):
    """Breaks stale-window: an address once registered counts as registered, whatever lies there now (F13)."""

    def is_registered(self, segment: Segment, group: ProcessGroup) -> bool:
        return any(window.address == segment.address for window in self.windows)


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


class DeregistersAlone(Sound):
    """Breaks stale-window on the group's first rank alone, whose window closes at once, so that its peers wait for
    it on another path: hang (F13)."""

    def register(self, segment: Segment, group: ProcessGroup) -> None:
        super().register(segment, group)
        if group.rank == 0:
            self.windows[-1].close()


# registration


class RegistersAlone(Sound):
    """Breaks registration-skew: only the group's first rank registers, so it waits for ever (F06)."""

    def register(self, segment: Segment, group: ProcessGroup) -> None:
        if group.rank == 0:
            super().register(segment, group)


class EveryGroup(Sound):
    """Sound: registers a new segment with every group seen so far, in the order in which they came."""

    def __init__(self, context: RankContext) -> None:
        super().__init__(context)
        self.groups: dict[str, ProcessGroup] = {}

    def register_all(self, segments: list[Segment], group: ProcessGroup) -> None:
        self.groups.setdefault(group.name, group)
        for known in self.in_order(list(self.groups.values())):
            super().register_all(segments, known)

    def in_order(self, groups: list[ProcessGroup]) -> list[ProcessGroup]:
        return groups


class OppositeOrder(EveryGroup):
    """Breaks registration-skew: odd ranks go through the groups backwards, and both sides wait (F07)."""

    def in_order(self, groups: list[ProcessGroup]) -> list[ProcessGroup]:
        return groups[::-1] if self.context.rank % 2 else groups


class AlwaysRegisters(Sound):
    """Breaks double-registration: registers at every use and keeps no index (F15)."""

    def is_registered(self, segment: Segment, group: ProcessGroup) -> bool:
        return False


# lifetime


class ForgetsToDeregister(Sound):
    """Breaks freed-while-registered: segments go without their windows (F14). The windows leak (F17), and hide
    what is registered at the same address later: stale-window."""

    def freed(self, segment: Segment) -> None:
        pass


class KeepsEverything(Sound):
    """Breaks leak: `close` gives nothing back (F17)."""

    def close(self) -> None:
        pass


class KeepsATensor(Sound):
    """Breaks leak: a scratch tensor of the pool is held for ever, and its segment with it (F17)."""

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        with super().use(group):
            self.scratch = torch.empty(64)
            yield
