"""Registrations in the middle of steady work: what a program without steps of its own tells of its hot path.

Invariant: a registration counts if a call of the same shape on the same communicator has run often before in windows
that are still there, and the new window is used by such a call. A program is right that meets a new size or a new
communicator, that ran in ordinary memory before, or that gave its windows back: nothing has grown. A window whose first
call is captured is a graph's, and each graph may have memory of its own; captured calls have not run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from harness.machine.observer.records import Call, Deregistered, Registered
from harness.oracle.findings import Finding, HotPathGrowth
from harness.oracle.peers import peer_operands
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
    """A live window, with how often calls of each shape have run in it, and whether one has."""

    made: Registered
    times: Counter[Shape] = field(default_factory=Counter)
    is_used: bool = False

    def holds(self, call: Call) -> bool:
        """Whether an operand through which ranks reach each other begins in it."""
        places: dict[Role, int] = {"source": call.send, "output": call.receive}
        end = self.made.address + self.made.size
        return any(self.made.address <= places[role] < end for role in peer_operands(KINDS[call.function]))


def _grown(line: Line) -> Iterator[tuple[int, str]]:
    """The first registration of each communicator that came in steady state, with what it was for."""
    facts, known = line.process.facts, set[int]()
    windows: dict[int, dict[int, _Open]] = {}
    homes: dict[int, list[_Open]] = {}
    for index in line.order.tolist():
        match facts[index]:
            case Registered() as made if made.window:
                windows.setdefault(made.comm, {})[made.window] = _Open(made)
                homes.clear()
            case Deregistered() as given:
                windows.get(given.comm, {}).pop(given.window, None)
                homes.clear()
            case Call() as call if call.comm in windows:
                if index not in homes:
                    homes[index] = [window for window in windows[call.comm].values() if window.holds(call)]
                text = _used(call, homes[index], windows[call.comm])
                if text and call.comm not in known:
                    known.add(call.comm)
                    yield call.comm, text
            case _:
                pass


def _used(call: Call, homes: Sequence[_Open], windows: Mapping[int, _Open]) -> str:
    """Count a call in the first window that holds it. Returns what is wrong if one is new, and the shape is not."""
    if not homes:
        return ""
    shape, text = Shape(call.comm, call.function, call.dtype, call.count), ""
    for home in homes:
        if not home.is_used:
            home.is_used = True
            times = sum(window.times[shape] for window in windows.values())
            text = text or (_text(call, home.made, times) if times >= STEADY and not call.captured else "")
    homes[0].times[shape] += not call.captured
    return text


def _text(call: Call, window: Registered, times: int) -> str:
    size = counted(max(sizes_of(call, 1)), "byte")
    where = f" (at {place_of(window.site)})" if place_of(window.site) else ""
    return (
        f"a segment of {counted(window.size, 'byte')} was registered{where} for {KINDS[call.function]} of {size} a "
        f"rank, which had run {counted(times, 'time')} before in other windows; the pool still grows on the hot path"
    )
