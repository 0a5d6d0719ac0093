"""Registrations in the middle of steady work: what a program without steps of its own tells of its hot path.

Invariant: a registration counts if a call of the same shape on the same communicator, over its other windows, has run
often before, and the new window is used by such a call. A program that meets a new size or a new communicator is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from harness.machine.observer.records import Call, Registered
from harness.oracle.findings import Finding, HotPathGrowth
from harness.studies.watching.callsites import place_of
from harness.studies.watching.lines import Line
from harness.studies.watching.members import Members
from harness.studies.watching.telling import KINDS, sizes_of
from harness.text import counted

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
    teams = {(m.process, m.comm): team for team in members.whole for m in team.members.values()}
    for rank, line in enumerate(lines):
        for comm, text in _grown(line):
            team = teams.get((rank, comm))
            if team is not None and team.size > 1:
                found.setdefault(team.label, []).append((rank, text))
    return [
        HotPathGrowth(f"{label}: {seen[0][1]}.", step=0, ranks=tuple(rank for rank, _ in seen))
        for label, seen in found.items()
    ]


def _grown(line: Line) -> Iterator[tuple[int, str]]:
    """The first registration of each communicator that came in steady state, with what it was for."""
    facts = line.process.facts
    calls: Counter[Shape] = Counter()
    fresh: dict[int, Registered] = {}
    known: set[int] = set()
    for index in line.order.tolist():
        match facts[index]:
            case Registered() as made if made.window:
                fresh[made.comm] = made
            case Call() as call:
                shape = Shape(call.comm, call.function, call.dtype, call.count)
                window = fresh.get(call.comm)
                if window is not None and _is_in(window, call):
                    del fresh[call.comm]
                    if calls[shape] >= STEADY and call.comm not in known:
                        known.add(call.comm)
                        yield call.comm, _text(call, window, calls[shape])
                calls[shape] += 1
            case _:
                pass


def _is_in(window: Registered, call: Call) -> bool:
    end = window.address + window.size
    return window.address <= call.send < end or window.address <= call.receive < end


def _text(call: Call, window: Registered, times: int) -> str:
    size = counted(max(sizes_of(call, 1)), "byte")
    where = f" (at {place_of(window.site)})" if place_of(window.site) else ""
    return (
        f"a segment of {counted(window.size, 'byte')} was registered{where} for {KINDS[call.function]} of {size} a "
        f"rank, which had run {counted(times, 'time')} before in other memory; the pool still grows on the hot path"
    )
