"""`per-unique-id`: one pool for every group. Leaving the context registers what a snapshot shows that is new to the
communicator, told by its identity.

Invariant (of the design, and its faults): a communicator that was created anew is another one, so it gets windows of
its own over every segment. Nothing is ever deregistered, and no address forgotten. So a segment goes under its windows,
and one that comes to an old address is taken for registered. As under `shared-at-exit`, other groups decide which
segments a group registers, and at which offsets its buffers lie. An exit by an exception registers, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from harness.system.context import Communicator, ProcessGroup, RankContext, Window


class PerUniqueId:
    def __init__(self, context: RankContext) -> None:
        self._pool = context.pool("shared")
        self._known: defaultdict[Communicator, set[int]] = defaultdict(set)
        """Addresses that a communicator has registered. To hold the communicator keeps its identity from another."""
        self._windows: list[Window | None] = []

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        try:
            with self._pool.use():
                yield
        finally:
            if group.communicator.supports_windows:
                self._register(group.communicator)

    def _register(self, communicator: Communicator) -> None:
        known = self._known[communicator]
        for segment in self._pool.snapshot():
            if segment.address not in known:
                self._windows.append(communicator.register(segment))
                known.add(segment.address)

    def close(self) -> None:
        # the engine's windows last as long as its process, which a draw is not
        for window in filter(None, self._windows):
            window.close()
        self._pool.close()
