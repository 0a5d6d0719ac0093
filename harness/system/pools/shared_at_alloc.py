"""`shared-at-alloc`: one pool for every group; a new segment is registered with the group that makes it grow.

Invariant (of the design, and its fault): a segment has exactly one window, with the communicator that
was current when the segment was allocated. A cached block is handed to any group that asks. The
registration is a collective hidden inside a local allocation, so a rank that grows alone hangs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.system.context import ProcessGroup, RankContext, Segment


class SharedAtAlloc:
    def __init__(self, context: RankContext) -> None:
        self._pool = context.pool("shared")
        self._pool.on_allocated.append(self._allocated)
        self._pool.on_freed.append(Segment.close_windows)
        self._current: ProcessGroup | None = None

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        outer, self._current = self._current, group
        try:
            with self._pool.use():
                yield
        finally:
            self._current = outer

    def _allocated(self, segment: Segment) -> None:
        assert self._current is not None, "the pool grows only inside `use`"
        communicator = self._current.communicator
        if communicator.supports_windows:
            communicator.register(segment)

    def close(self) -> None:
        self._pool.close()
