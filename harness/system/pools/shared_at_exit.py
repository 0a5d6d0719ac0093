"""`shared-at-exit`: one pool for every group. Leaving the context registers each segment that is new to the group.

Invariant (of the design, and its faults): every segment gets a window of every group that leaves the context after
it came. So other groups decide which segments a group registers, by their growth, and at which offsets its buffers
lie, by their blocks. Ranks of one group whose other groups differ register different segments, or hold a buffer at
different offsets. The index goes by the communicator's address, so a new communicator at an old address inherits it.
Any free clears the whole index. (That could register a segment twice, and does not here: a pool frees its segments
all at once, when none of them is in use.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from harness.system.context import ProcessGroup, RankContext, Segment


class SharedAtExit:
    def __init__(self, context: RankContext) -> None:
        self._pool = context.pool("shared")
        self._pool.on_allocated.append(self._allocated)
        self._pool.on_freed.append(self._freed)
        self._recorded: list[Segment] = []
        self._seen: defaultdict[int, set[int]] = defaultdict(set)
        """Addresses of segments, by the address of the communicator that has registered them."""

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        with self._pool.use():
            yield
        if group.communicator.supports_windows:
            seen = self._seen[group.comm_ptr]
            for segment in self._recorded:
                if segment.address not in seen:
                    seen.add(segment.address)
                    group.communicator.register(segment)

    def _allocated(self, segment: Segment) -> None:
        self._recorded.append(segment)

    def _freed(self, segment: Segment) -> None:
        segment.close_windows()
        self._recorded.remove(segment)
        self._seen.clear()

    def close(self) -> None:
        self._pool.close()
