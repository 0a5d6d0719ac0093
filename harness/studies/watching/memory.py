"""Where an address lies in a process: in which live segment of `ncclMemAlloc`, and which windows are over it.

Invariant: only what the process has been seen to allocate, register and free counts.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True, order=True)
class Live:
    """A live segment."""

    address: int
    size: int
    ident: int


class Registration(NamedTuple):
    """A live window: its number, and the addresses that it covers."""

    ident: int
    start: int
    end: int


@dataclass
class Memory:
    """The live segments and windows of one process."""

    segments: list[Live] = field(default_factory=list)
    windows: dict[tuple[int, int], Registration] = field(default_factory=dict)
    """By communicator and handle."""

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
        end = found.address + found.size
        return found, tuple(each.ident for each in self.windows.values() if found.address <= each.start < end)

    def is_for_window(self, address: int) -> bool:
        """Whether an address lies in memory that may have windows: a live segment, or one that was freed under one."""
        return self.segment(address) is not None or any(
            window.start <= address < window.end for window in self.windows.values()
        )

    def gone(self, comm: int) -> None:
        """Take the windows of a communicator away."""
        self.windows = {key: window for key, window in self.windows.items() if key[0] != comm}
