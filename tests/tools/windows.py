"""A pool policy whose windows overlap, to see which of them a look-up finds."""

from __future__ import annotations

from harness.system.context import ProcessGroup, Segment
from harness.system.planted.sound import Sound

INNER = range(4096, 8192)
"""Offsets of the small window inside the large one."""


class Overlapping(Sound):
    """Registers each segment whole, and then a part of it once more with the same communicator."""

    def register(self, segment: Segment, group: ProcessGroup) -> None:
        super().register(segment, group)
        inner = Segment(segment.ident, segment.pool, segment.address + INNER.start, len(INNER))
        super().register(inner, group)
