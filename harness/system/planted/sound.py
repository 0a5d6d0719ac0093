"""The sound pool policies that faults are planted in.

Invariant: they break no rule of the harness, under any program without hazards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.system.context import Pool, ProcessGroup, RankContext, Segment, Window


class Sound:
    """One pool a communicator, and one for it in each graph; leaving `use` registers every segment that it has no
    window over.

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
        place = self.place()
        pool = self.pool_named(group.id.label + place)
        pool.is_reserved = bool(place)
        return pool

    def place(self) -> str:
        """The graph that allocations are for, which has pools of its own."""
        return f" of {self.context.graph}" if self.context.graph else ""

    def pool_named(self, name: str) -> Pool:
        pool = self.context.pool(name)
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


class GoesWithout(Sound):
    """Breaks no rule: goes without symmetric memory for small buffers, on every rank alike."""

    smallest = 2048
    """Bytes of a buffer that is worth a window."""

    def wants(self, group: ProcessGroup, nbytes: int) -> bool:
        return nbytes >= self.smallest


class EveryGroup(Sound):
    """Breaks no rule where every rank takes every step: registers a new segment with every group seen so far, in the
    order in which they came."""

    def __init__(self, context: RankContext) -> None:
        super().__init__(context)
        self.groups: dict[str, ProcessGroup] = {}

    def register_all(self, segments: list[Segment], group: ProcessGroup) -> None:
        self.groups.setdefault(group.name, group)
        for known in self.in_order(list(self.groups.values())):
            if super().may_register(known):
                super().register_all(segments, known)

    def in_order(self, groups: list[ProcessGroup]) -> list[ProcessGroup]:
        return groups
