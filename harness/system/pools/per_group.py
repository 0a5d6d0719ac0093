"""`per-group`: one pool for each communicator, registered with it.

Invariant: a block of a group's pool never reaches another group, so the windows over it are the
group's own. A graph allocates from pools of its own. Leaving the context registers new segments, in the order in which
they came; a group without window support registers nothing. Known trouble: memory cost, and ranks do not agree
before they register, so a rank that alone fails to grow leaves its peers waiting.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.system.context import Communicator, Pool, ProcessGroup, RankContext, Segment


class PerGroup:
    def __init__(self, context: RankContext) -> None:
        self._context = context

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        pool = self._pool(group)
        with pool.use():
            yield
        if group.communicator.supports_windows:
            _register_all(pool, group.communicator)

    def _pool(self, group: ProcessGroup) -> Pool:
        graph = self._context.graph
        pool = self._context.pool(group.id.label + (f" of {graph}" if graph else ""))
        pool.is_reserved = graph is not None
        if not pool.on_freed:
            pool.on_freed.append(Segment.close_windows)
        return pool

    def close(self) -> None:
        for pool in self._context.pools():
            pool.close()


def _register_all(pool: Pool, communicator: Communicator) -> None:
    """Register every segment that has no window of this very communicator."""
    for segment in pool.segments:
        if all(window.communicator is not communicator for window in segment.windows):
            communicator.register(segment)
