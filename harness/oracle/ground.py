"""The segments and windows of a rank at one moment of its history, by address.

Invariant: a look costs what lies near the operand, and not all that was ever registered. What was seen then stays as it
was, whatever goes later.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterable, Iterator
from itertools import count
from typing import NamedTuple

from harness.oracle.lives import SegmentLife, WindowLife
from harness.oracle.spans import Span, Spans

Windows = dict[Hashable, list[WindowLife]]
"""The windows of one span, by a key."""


class Kept(NamedTuple):
    """The first `length` of windows that only grow in number."""

    windows: list[WindowLife]
    length: int


def kept(windows: list[WindowLife]) -> Kept:
    """All of these as they are now, without a copy."""
    return Kept(windows, len(windows))


def in_turn(seen: Iterable[Kept]) -> tuple[WindowLife, ...]:
    """The windows that were kept, in the order in which they were registered."""
    return tuple(sorted((window for each in seen for window in each.windows[: each.length]), key=_turn))


class Shelf:
    """Windows by their spans."""

    def __init__(self) -> None:
        self._spans: Spans[Windows] = Spans()

    def add(self, key: Hashable, window: WindowLife) -> None:
        """Add a window of a key."""
        there = self._spans.get(_span(window))
        if there is None:
            self._spans.put(_span(window), there := {})
        there.setdefault(key, []).append(window)

    def take(self, key: Hashable, window: WindowLife) -> None:
        """Take a window of a key away, if it is there."""
        there = self._spans.get(_span(window)) or {}
        # a list of its own: what was kept of the old one stays
        left = [each for each in there.pop(key, ()) if each is not window]
        if left:
            there[key] = left
        elif not there and self._spans.get(_span(window)) is not None:
            self._spans.drop(_span(window))

    def covering(self, address: int) -> Iterator[Windows]:
        """The windows that an address lies in."""
        return (windows for _, windows in self._spans.covering(address))

    def meeting(self, start: int, end: int) -> Iterator[tuple[Span, Windows]]:
        """The windows that share an address with a range, with their spans."""
        return self._spans.meeting(start, end)


class Ground:
    """The segments and windows that a rank has. Whoever reads its events says what comes and goes, in their order."""

    def __init__(self) -> None:
        self.windows, self.nulls = Shelf(), Shelf()
        """Live windows, and live null windows, by communicator."""
        self.sound = Shelf()
        """The live windows whose segments were not freed."""
        self.gone = Shelf()
        """Windows that are no longer live, by group."""
        self._latest: dict[tuple[Span, Hashable], WindowLife] = {}
        self._by_base: dict[int, list[tuple[int, int, WindowLife]]] = {}
        self._segments: Spans[list[SegmentLife]] = Spans()
        self._turns = count()

    def allocated(self, segment: SegmentLife) -> None:
        """A segment came."""
        segment.turn = next(self._turns)
        if segment.is_live:
            there = self._segments.get(_extent(segment)) or []
            self._segments.put(_extent(segment), [*there, segment])

    def freed(self, segment: SegmentLife) -> None:
        """A segment goes."""
        there = self._segments.get(_extent(segment)) or []
        left = [each for each in there if each is not segment]
        if left:
            self._segments.put(_extent(segment), left)
        elif there:
            self._segments.drop(_extent(segment))

    def segment(self, address: int) -> SegmentLife | None:
        """The live segment in which an address lies; the first of several."""
        # Only live ones: ncclMemAlloc and cudaMalloc give the address of a freed segment out again.
        found = (segment for _, there in self._segments.covering(address) for segment in there)
        return min(found, key=lambda segment: segment.turn, default=None)

    def registered(self, window: WindowLife) -> None:
        """A window came, or a null window."""
        window.turn = next(self._turns)
        if not window.is_live:
            self._buried(window)
        elif window.event.is_null:
            self.nulls.add(window.event.comm, window)
        else:
            self.windows.add(window.event.comm, window)
            insort(self._by_base.setdefault(window.event.comm, []), (window.event.address, window.turn, window))
            if window.segment_freed_at is None:
                self.sound.add(window.event.comm, window)

    def went(self, window: WindowLife) -> None:
        """A live window goes, with its communicator or without."""
        for shelf in (self.windows, self.sound, self.nulls):
            shelf.take(window.event.comm, window)
        if not window.event.is_null:
            mine = self._by_base[window.event.comm]
            del mine[bisect_left(mine, (window.event.address, window.turn))]
        self._buried(window)

    def _buried(self, window: WindowLife) -> None:
        if not window.event.is_null:
            self.gone.add(window.comm.id, window)
            key = _span(window), window.comm.id
            self._latest[key] = max(window, self._latest.get(key, window), key=_turn)

    def highest(self, comm: int, address: int) -> WindowLife | None:
        """The live window of a communicator with the highest base at or below an address; the first of several."""
        mine = self._by_base.get(comm, [])
        above = bisect_left(mine, (address + 1,))
        return mine[bisect_left(mine, (mine[above - 1][0],))][2] if above else None

    def latest(self, key: Hashable, address: int) -> WindowLife | None:
        """Of a group's windows that an address lay in and that are gone, the one that was registered last."""
        found = (self._latest[_span(there[key][0]), key] for there in self.gone.covering(address) if key in there)
        return max(found, key=_turn, default=None)


def _turn(window: WindowLife) -> int:
    return window.turn


def _span(window: WindowLife) -> Span:
    return window.event.address, window.end


def _extent(segment: SegmentLife) -> Span:
    return segment.event.address, segment.end
