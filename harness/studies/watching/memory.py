"""Where an address lies in a process: in which live segment of `ncclMemAlloc`, and which windows are over it.

Invariant: only what the process has been seen to allocate, register and free counts.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass, field


@dataclass(frozen=True, order=True)
class Live:
    """A live segment."""

    address: int
    size: int
    ident: int


@dataclass
class Memory:
    """The live segments and windows of one process."""

    segments: list[Live] = field(default_factory=list)
    windows: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    """By communicator and handle: the window's number, and where it starts."""

    def add(self, segment: Live) -> None:
        insort(self.segments, segment)

    def segment(self, address: int) -> Live | None:
        """The live segment that an address lies in."""
        place = bisect_right(self.segments, address, key=lambda segment: segment.address) - 1
        found = self.segments[place] if place >= 0 else None
        return found if found is not None and address < found.address + found.size else None

    def free(self, address: int) -> tuple[Live, tuple[int, ...]] | None:
        """Take a segment away. Returns it with the windows that are live over it; None for an unknown address."""
        found = self.segment(address)
        if found is None or found.address != address:
            return None
        self.segments.remove(found)
        over = (
            window for window, start in self.windows.values() if found.address <= start < found.address + found.size
        )
        return found, tuple(over)

    def gone(self, comm: int) -> None:
        """Take the windows of a communicator away."""
        self.windows = {key: window for key, window in self.windows.items() if key[0] != comm}
