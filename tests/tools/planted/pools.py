"""Pool policies with one planted fault each, beside those of the catalogue in `harness.studies.faults`."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from harness.system.context import ProcessGroup, Segment
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
