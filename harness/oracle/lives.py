"""What a rank's segments, windows and buffers were, and from which step to which they were there.

Invariant: a life ends once; what has ended keeps its place among the others.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.trace.events import CommCreated, Placed, Registered, SegmentAllocated


@dataclass
class SegmentLife:
    """A segment from `born` to `died`, both steps; `windows_at_death` were live when it was freed."""

    event: SegmentAllocated
    born: int
    died: int | None = None
    windows_at_death: tuple[int, ...] = ()
    turn: int = 0
    """Its place among all segments and windows of its rank (`oracle.ground`)."""

    @property
    def end(self) -> int:
        return self.event.address + self.event.size

    @property
    def is_live(self) -> bool:
        return self.died is None

    def covers(self, address: int) -> bool:
        return self.event.address <= address < self.end


@dataclass
class WindowLife:
    """A registration, the `ordinal`-th of its communicator; null windows count."""

    event: Registered
    comm: CommCreated
    born: int
    ordinal: int
    died: int | None = None
    segment_freed_at: int | None = None
    """The step at which the segment was freed under it."""
    is_gone_with_communicator: bool = False
    """Whether it went with its communicator, and not by being deregistered."""
    segment: SegmentLife | None = None
    came_after: int | None = None
    """The step at which its communicator had been destroyed, before it was registered."""
    turn: int = 0
    """Its place among all segments and windows of its rank (`oracle.ground`)."""

    @property
    def end(self) -> int:
        return self.event.address + self.event.size

    @property
    def base(self) -> int:
        """Where its segment begins, which NCCL maps whole on the peers (`symMemoryObtain`)."""
        return self.event.address if self.segment is None else self.segment.event.address

    @property
    def is_never_deregistered(self) -> bool:
        """Whether it went without being deregistered: with its communicator, or before it with its segment."""
        if self.segment_freed_at is not None:
            return True
        has_segment = self.segment is None or self.segment.is_live
        return self.is_gone_with_communicator and has_segment

    @property
    def is_live(self) -> bool:
        return self.died is None

    @property
    def is_window(self) -> bool:
        """Whether it is live, and no null window."""
        return self.died is None and not self.event.is_null

    def covers(self, address: int) -> bool:
        return self.event.address <= address < self.end


@dataclass
class BufferLife:
    """A buffer from `born` to `died`, both steps."""

    event: Placed
    born: int
    died: int | None = None
