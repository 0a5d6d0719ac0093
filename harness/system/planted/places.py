"""Pool policies with one planted fault each, which shows where buffers are large, far apart, or used on several
streams.

Invariant: a class differs from `Sound` in its fault alone. Its docstring names the fault of the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.system.context import SMALL_SEGMENT, ProcessGroup, Segment
from harness.system.planted.sound import Sound


class AllocatesOnOneStream(Sound):
    """Allocates on stream 0, whichever is current, so that a block is given out again while the stream that used it is
    not done (F32)."""

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        with self.context.stream(0), super().use(group):
            yield


class OneGranule(Sound):
    """Windows end one granule of 2 MiB behind the segment's start (F38: far views of large buffers are past it)."""

    def register(self, segment: Segment, group: ProcessGroup) -> None:
        size = min(segment.size, SMALL_SEGMENT)
        super().register(Segment(segment.ident, segment.pool, segment.address, size), group)


class OneSizeClass(Sound):
    """Registers small segments alone, as those of the first size that it met are (F39)."""

    def register(self, segment: Segment, group: ProcessGroup) -> None:
        if segment.size == SMALL_SEGMENT:
            super().register(segment, group)
