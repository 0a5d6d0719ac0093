"""`snapshot-once`: one pool for every group. Leaving the context registers each segment that is new in a snapshot.

Invariant (of the design, and its fault): an address is registered once, with the group that was first
to leave the context after it appeared. The set of addresses belongs to no communicator and is never
cleared, so no second group gets a window, and an address that is used again is skipped. Every exit
pays for a snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.system.context import ProcessGroup, RankContext, Segment


class SnapshotOnce:
    def __init__(self, context: RankContext) -> None:
        self._pool = context.pool("shared")
        self._pool.on_freed.append(Segment.close_windows)
        self._registered: set[int] = set()

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        with self._pool.use():
            yield
        for segment in self._pool.snapshot():
            if segment.address not in self._registered:
                self._registered.add(segment.address)
                if group.communicator.supports_windows:
                    group.communicator.register(segment)

    def close(self) -> None:
        self._pool.close()
