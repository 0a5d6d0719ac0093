"""Pools over segments, with the bookkeeping that both substrates share.

Invariant: the pool records a segment when it comes, and with its live windows when it goes. The system under test
records nothing, so it cannot mislead the oracle about what it owns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager

from harness.substrate.recorder import Recorder
from harness.substrate.segment import Segment
from harness.trace import events as trace


class Pool(ABC):
    """A caching allocator over segments. Callbacks see each segment come and go, in order."""

    def __init__(self, recorder: Recorder, name: str) -> None:
        self._recorder, self.name = recorder, name
        self.segments: list[Segment] = []
        self.refusals = 0
        """How often this pool was refused a segment."""
        self.is_reserved = False
        """Set by a policy for memory that a graph may still write. `trim` then frees nothing."""
        self.on_allocated: list[Callable[[Segment], None]] = []
        self.on_freed: list[Callable[[Segment], None]] = []

    @abstractmethod
    def use(self) -> AbstractContextManager[None]:
        """Route this thread's allocations (`torch.empty` and the rest) into the pool. Local."""

    @abstractmethod
    def snapshot(self) -> list[Segment]:
        """The pool's segments by address, as the allocator lists them, at the cost of asking it. Local."""

    @abstractmethod
    def used(self) -> list[tuple[int, int]]:
        """Address and bytes of each block that is handed out, at the cost of asking the allocator. Local."""

    @abstractmethod
    def trim(self) -> None:
        """Free the pool's segments if nothing in it is in use and it is not reserved. Local."""

    @abstractmethod
    def close(self) -> None:
        """Free every segment that holds no live block. Local."""

    def allocated(self, address: int, size: int) -> Segment:
        """Note a new segment, then call the subscribers. Called by the allocator, inside an allocation."""
        segment = Segment(next(self._recorder.idents), self.name, address, size)
        self.segments.append(segment)
        self._recorder.record(trace.SegmentAllocated(segment.ident, self.name, address, size))
        for callback in self.on_allocated:
            callback(segment)
        return segment

    def freed(self, address: int) -> Segment:
        """Note that a segment is about to go: call the subscribers, then record the windows that are still live."""
        segment = next(segment for segment in self.segments if segment.address == address)
        for callback in self.on_freed:
            callback(segment)
        self.segments.remove(segment)
        live = tuple(window.ident for window in segment.windows)
        self._recorder.record(trace.SegmentFreed(segment.ident, live))
        return segment
