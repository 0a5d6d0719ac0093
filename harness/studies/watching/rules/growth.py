"""Registrations in the middle of steady work: what a program without steps of its own tells of its hot path.

Invariant: a registration counts if a call of the same shape on the same communicator has run often before in windows
that are still there, and the new window is used by such a call. A program is right that meets a new size or a new
communicator, that ran in ordinary memory before, or that gave its windows back: nothing has grown. A window whose first
call is captured is a graph's, and each graph may have memory of its own; captured calls have not run.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from harness.machine.observer.records import Call, Deregistered, Fact, Registered
from harness.oracle.findings import Finding, HotPathGrowth
from harness.oracle.peers import peer_operands
from harness.oracle.spans import Span, Spans
from harness.studies.watching.callsites import place_of
from harness.studies.watching.lines import Line
from harness.studies.watching.members import Members
from harness.studies.watching.telling import KINDS, sizes_of
from harness.text import counted
from harness.trace.events import Role

STEADY = 32
"""Calls of one shape after which a program has come to a steady state."""


class Shape(NamedTuple):
    """What a pool has met: a call of a communicator with its size."""

    comm: int
    function: str
    dtype: str
    elements: int


def growth(members: Members, lines: Sequence[Line]) -> list[Finding]:
    """A finding for each communicator with which ranks went on registering, at the first such registration."""
    found: dict[str, list[tuple[int, str]]] = {}
    for rank, line in enumerate(lines):
        for comm, text in _grown(line):
            team = members.by_end.get((rank, comm))
            if team is not None and team.size > 1:
                found.setdefault(team.label, []).append((rank, text))
    return [
        HotPathGrowth(f"{label}: {seen[0][1]}.", step=0, ranks=tuple(rank for rank, _ in seen))
        for label, seen in found.items()
    ]


@dataclass(eq=False)
class _Open:
    """A live window, its turn among those of its communicator, and how often calls of each shape have run in it."""

    made: Registered
    turn: int
    times: Counter[Shape] = field(default_factory=Counter)

    @property
    def span(self) -> Span:
        return self.made.address, self.made.address + self.made.size


@dataclass(frozen=True)
class _Home:
    """Where equal calls are counted until a window comes or goes: in the first that holds them, and in all together.
    Without a window that does, in neither."""

    shape: Shape
    counted: tuple[Counter[Shape], ...] = ()

    def count(self) -> None:
        for times in self.counted:
            times[self.shape] += 1


class _Windows:
    """The live windows of a communicator."""

    def __init__(self) -> None:
        self._by_handle: dict[int, _Open] = {}
        self._by_span: Spans[list[_Open]] = Spans()
        self._unused: Spans[list[_Open]] = Spans()
        """Those that no call has used."""
        self._turns = count()
        self.times: Counter[Shape] = Counter()
        """How often calls of each shape have run in them."""

    def registered(self, made: Registered) -> None:
        before = self.deregistered(made.window)
        window = _Open(made, next(self._turns) if before is None else before.turn)
        self._by_handle[made.window] = window
        _put(self._by_span, window)
        _put(self._unused, window)

    def deregistered(self, handle: int) -> _Open | None:
        window = self._by_handle.pop(handle, None)
        if window is not None:
            self.times.subtract(window.times)
            _take(self._by_span, window)
            _take(self._unused, window)
        return window

    def first(self, call: Call) -> _Open | None:
        """The window that came first, of those that hold a call."""
        return min((there[0] for there in _holding(self._by_span, call)), key=_turn, default=None)

    def used(self, call: Call) -> list[_Open]:
        """Those that hold a call and that none has used before. From now on one has."""
        new = sorted({window for there in _holding(self._unused, call) for window in there}, key=_turn)
        for window in new:
            _take(self._unused, window)
        return new


def _turn(window: _Open) -> int:
    return window.turn


def _put(spans: Spans[list[_Open]], window: _Open) -> None:
    """Put a window among those of its span, which are in the order of their turns."""
    there = spans.get(window.span)
    if there is None:
        spans.put(window.span, there := [])
    insort(there, window, key=_turn)


def _take(spans: Spans[list[_Open]], window: _Open) -> None:
    """Take a window away, if it is there."""
    there = spans.get(window.span) or []
    place = bisect_left(there, window.turn, key=_turn)
    if there[place : place + 1] == [window]:
        del there[place]
        if not there:
            spans.drop(window.span)


def _holding(spans: Spans[list[_Open]], call: Call) -> Iterator[list[_Open]]:
    """By span the windows in which an operand begins through which ranks reach each other."""
    places: dict[Role, int] = {"source": call.send, "output": call.receive}
    for role in peer_operands(KINDS[call.function], "copy-engine" if call.copy else "library"):
        yield from (there for _, there in spans.covering(places[role]))


def _grown(line: Line) -> Iterator[tuple[int, str]]:
    """The first registration of each communicator that came in steady state, with what it was for."""
    facts, known = line.process.facts, set[int]()
    windows: dict[int, _Windows] = defaultdict(_Windows)
    homes: dict[int, dict[int, _Home]] = defaultdict(dict)
    comms = [fact.comm if isinstance(fact, Call) else None for fact in facts]
    for index in line.order.tolist():
        comm = comms[index]
        if comm is None:
            _changed(facts[index], windows, homes)
            continue
        home = homes[comm].get(index)
        if home is None:
            home, text = _used(facts[index], windows[comm])
            homes[comm][index] = home
            if text and comm not in known:
                known.add(comm)
                yield comm, text
        home.count()


def _changed(fact: Fact, windows: dict[int, _Windows], homes: dict[int, dict[int, _Home]]) -> None:
    match fact:
        case Registered(window=handle) if handle:
            windows[fact.comm].registered(fact)
        case Deregistered():
            windows[fact.comm].deregistered(fact.window)
        case _:
            return
    homes[fact.comm].clear()


def _used(call: Call, windows: _Windows) -> tuple[_Home, str]:
    """Where such a call is counted, and what is wrong if it uses a new window, and its shape is not new."""
    shape, first = Shape(call.comm, call.function, call.dtype, call.count), windows.first(call)
    if first is None:
        return _Home(shape), ""
    times = windows.times[shape]
    new = windows.used(call)
    if call.captured:
        return _Home(shape), ""
    text = _text(call, new[0].made, times) if new and times >= STEADY else ""
    return _Home(shape, (first.times, windows.times)), text


def _text(call: Call, window: Registered, times: int) -> str:
    size = counted(max(sizes_of(call, 1)), "byte")
    where = f" (at {place_of(window.site)})" if place_of(window.site) else ""
    return (
        f"a segment of {counted(window.size, 'byte')} was registered{where} for {KINDS[call.function]} of {size} a "
        f"rank, which had run {counted(times, 'time')} before in other windows; the pool still grows on the hot path"
    )
