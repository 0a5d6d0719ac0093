"""Where an address lies in a process: in which live segment of `ncclMemAlloc`, and which windows are over it.

Invariant: only what the process has been seen to allocate, register and free counts.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from harness.oracle.spans import Spans


@dataclass(frozen=True, order=True)
class Live:
    """A live segment."""

    address: int
    size: int
    ident: int


class Registration(NamedTuple):
    """A live window: its place among all that came, its number, and the addresses that it covers."""

    turn: int
    ident: int
    start: int
    end: int


Key = tuple[int, int]
"""Of a window: communicator and handle."""


@dataclass
class Memory:
    """The live segments and windows of one process."""

    segments: list[Live] = field(default_factory=list)
    _windows: dict[int, dict[int, Registration]] = field(default_factory=dict)
    """By communicator and handle."""
    _over: Spans[dict[Key, Registration]] = field(default_factory=Spans)
    _turns: count[int] = field(default_factory=count)

    def add(self, segment: Live) -> None:
        insort(self.segments, segment)

    def segment(self, address: int) -> Live | None:
        """The live segment that an address lies in."""
        place = self._place(address)
        found = self.segments[place] if place >= 0 else None
        return found if found is not None and address < found.address + found.size else None

    def _place(self, address: int) -> int:
        return bisect_right(self.segments, address, key=lambda segment: segment.address) - 1

    def free(self, address: int) -> tuple[Live, tuple[int, ...]] | None:
        """Take a segment away. Returns it with the windows that are live over it; None for an unknown address."""
        found = self.segment(address)
        if found is None or found.address != address:
            return None
        del self.segments[self._place(address)]
        # from the byte before: a window without a byte of its own may begin at the address
        near = self._over.meeting(address - 1, address + found.size)
        over = (window for (start, _), there in near if start >= address for window in there.values())
        return found, tuple(window.ident for window in sorted(over))

    def is_for_window(self, address: int) -> bool:
        """Whether an address lies in memory that may have windows: a live segment, or one that was freed under one."""
        return self.segment(address) is not None or any(True for _ in self._over.covering(address))

    def registered(self, comm: int, handle: int, ident: int, start: int, size: int) -> None:
        """A window came. One of the same handle that is there is no more, and this one takes its turn."""
        before = self._take(comm, handle)
        window = Registration(next(self._turns) if before is None else before.turn, ident, start, start + size)
        self._windows.setdefault(comm, {})[handle] = window
        there = self._over.get((window.start, window.end))
        if there is None:
            self._over.put((window.start, window.end), there := {})
        there[comm, handle] = window

    def deregistered(self, comm: int, handle: int) -> int | None:
        """Take a window away. Returns its number; None for an unknown handle."""
        window = self._take(comm, handle)
        return None if window is None else window.ident

    def gone(self, comm: int) -> None:
        """Take the windows of a communicator away."""
        for handle in [*self._windows.get(comm, ())]:
            self._take(comm, handle)

    def _take(self, comm: int, handle: int) -> Registration | None:
        window = self._windows.get(comm, {}).pop(handle, None)
        if window is not None:
            there = self._over.get((window.start, window.end)) or {}
            del there[comm, handle]
            if not there:
                self._over.drop((window.start, window.end))
        return window
