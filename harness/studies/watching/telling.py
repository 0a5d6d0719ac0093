"""What one process wrote, told as the events of a rank's trace.

Invariant: a number names the same communicator, segment or window in the whole trace, and no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count

import numpy as np

from harness.machine.observer import records
from harness.machine.observer.facts import SYMMETRIC
from harness.machine.observer.records import Call, Fact
from harness.scenario import operands
from harness.scenario.bases import Via
from harness.studies.watching.lines import PAIRWISE, Line, last_frees
from harness.studies.watching.members import Members
from harness.studies.watching.memory import Live, Memory
from harness.trace import events as trace
from harness.trace.events import Event, Kind, Operand, Role

COPY_ENGINE = "copy engine"
"""The path of calls that copy engines move."""
KINDS: dict[str, Kind] = {
    "AllGather": "all_gather",
    "ReduceScatter": "reduce_scatter",
    "AllReduce": "all_reduce",
    "AlltoAll": "all_to_all",
    "Broadcast": "broadcast",
    "Reduce": "reduce",
    "Gather": "gather",
    "Scatter": "scatter",
    "Send": "send",
    "Recv": "recv",
}
WHOLE: dict[str, tuple[Role, ...]] = {
    "AllGather": ("output",),
    "ReduceScatter": ("source",),
    "AlltoAll": ("source", "output"),
    "Gather": ("output",),
    "Scatter": ("source",),
}
"""The operands that hold `count` elements of every rank; all others hold `count` in all."""
ITEMSIZE = {**operands.ITEMSIZE, "uint32": 4, "uint64": 8}
NOWHERE = -1
LEFT_ALONE = (2, 6)
"""`ncclSystemError` and `ncclRemoteError`: the rank had met its peers or waited for them, and one of them went away."""


class Teller:
    """Tells the events of one rank."""

    def __init__(self, rank: int, members: Members, line: Line) -> None:
        self.rank, self.line = rank, line
        self._teams = {comm: team for (of, comm), team in members.by_end.items() if of == rank}
        self._memory, self._idents = Memory(), count()
        self._comms: dict[int, int] = {}
        self._blocked, self._last_frees = set(line.process.in_flight), last_frees(line.process)

    def events(self, steps: Mapping[int, int], has_ended: bool = True) -> Iterator[Event]:
        """Every change, and the calls at the places that have a step; what comes before the first is step 0."""
        yield trace.Began(0)
        for place in sorted({*map(int, self.line.changes()), *steps}):
            if place in steps:
                yield trace.Began(steps[place])
            yield from self._told(place, self.line.captures.get(place, ""))
        if has_ended and not self._blocked:
            yield trace.Finished()

    def _told(self, place: int, capture: str) -> Iterator[Event]:
        index = int(self.line.order[place])
        fact = self.line.process.facts[index]
        match fact:
            case Call() if fact.function in PAIRWISE:
                yield self._end(fact, place)
            case Call():
                yield from self._call(fact, is_blocked=index in self._blocked)
            case records.CommCreated() | records.CommGone():
                yield from self._communicator(fact)
            case records.Allocated() | records.AllocationFailed() | records.Freed():
                yield from self._segment(fact, is_last=index in self._last_frees)
            case records.RegisterEntered() if fact.comm in self._comms:
                yield trace.Entered("register", self._comms[fact.comm], capture)
            case records.LocallyRegistered() if fact.comm in self._comms:
                yield trace.LocallyRegistered(self._comms[fact.comm], fact.address, fact.size)
            case _:
                yield from self._window(fact)

    def _communicator(self, fact: records.CommCreated | records.CommGone) -> Iterator[Event]:
        team = self._teams.get(fact.comm)
        match fact:
            case records.CommCreated() if team is not None:
                self._comms[fact.comm] = next(self._idents)
                created = self._comms[fact.comm], team.group, team.generation, team.has_windows, team.number
                yield trace.CommCreated(*created)
            case records.CommGone(how="destroy" | "abort") if fact.comm in self._comms:
                self._memory.gone(fact.comm)
                yield trace.CommDestroyed(self._comms[fact.comm])

    def _segment(
        self, fact: records.Allocated | records.AllocationFailed | records.Freed, is_last: bool
    ) -> Iterator[Event]:
        match fact:
            case records.Allocated():
                segment = Live(fact.address, fact.size, next(self._idents))
                self._memory.add(segment)
                yield trace.SegmentAllocated(segment.ident, "", fact.address, fact.size)
            case records.AllocationFailed():
                yield trace.SegmentDenied("", fact.size)
            case records.Freed() if (freed := self._memory.free(fact.address)) is not None:
                segment, windows = freed
                yield trace.SegmentFreed(segment.ident, () if is_last else windows)

    def _window(self, fact: Fact) -> Iterator[Event]:
        match fact:
            case records.RegisterFailed() if fact.comm in self._comms and fact.result not in LEFT_ALONE:
                comm, segment = self._comms[fact.comm], self._segment_of(fact.address)
                yield trace.RegistrationFailed(comm, segment, f"ncclResult {fact.result}")
            case records.Registered() if fact.comm in self._comms:
                ident = next(self._idents)
                if fact.window:
                    self._memory.registered(fact.comm, fact.window, ident, fact.address, fact.size)
                place = self._segment_of(fact.address), fact.address, fact.size
                is_symmetric = bool(fact.flags & SYMMETRIC)
                yield trace.Registered(ident, self._comms[fact.comm], *place, not fact.window, is_symmetric)
            case records.Deregistered():
                gone = self._memory.deregistered(fact.comm, fact.window)
                if gone is not None:
                    yield trace.Deregistered(gone)

    def _segment_of(self, address: int) -> int:
        segment = self._memory.segment(address)
        return NOWHERE if segment is None else segment.ident

    def _end(self, fact: Call, place: int) -> Event:
        """One end of a send. Its number is its place among all between the two."""
        places = self.line.pairwise[fact.comm][fact.function, fact.root]
        number, peer = int(np.searchsorted(places, place)), self._teams[fact.comm].group[fact.root]
        sender, receiver = (self.rank, peer) if fact.function == "Send" else (peer, self.rank)
        size = fact.count * ITEMSIZE.get(fact.dtype, 1)
        operand = self._operand(fact.send or fact.receive, size)
        return trace.PointToPoint(self._comms[fact.comm], operand, sender, receiver, number)

    def _call(self, fact: Call, is_blocked: bool) -> Iterator[Event]:
        team = self._teams[fact.comm]
        comm, sizes = self._comms[fact.comm], sizes_of(fact, team.size)
        source, output = self._operand(fact.send, sizes[0]), self._operand(fact.receive, sizes[1])
        roles: tuple[tuple[Role, Operand], ...] = ("source", source), ("output", output)
        meant = tuple(role for role, operand in roles if self._memory.is_for_window(operand.address))
        what = KINDS[fact.function], fact.dtype, fact.op or None, fact.count
        path, evidence = path_of(fact)
        via: Via = "copy-engine" if path == COPY_ENGINE else "library"
        sent = (fact.count,) * team.size if fact.function == "AlltoAll" and not fact.captured else None
        yield trace.Called(comm, source, output, *what, via, team.family, meant, claims=False, sent=sent)
        if is_blocked:
            yield trace.Entered(KINDS[fact.function], comm)
        else:
            yield trace.Ran(path, evidence, is_free=True)

    def _operand(self, address: int, size: int) -> Operand:
        segment = self._memory.segment(address)
        if segment is None:
            return Operand(f"memory at {address:#x}", address, size)
        offset = address - segment.address
        return Operand(f"segment {segment.ident}{f' + {offset}' if offset else ''}", address, size)


def sizes_of(call: Call, ranks: int) -> tuple[int, int]:
    """Bytes of a call's source and output on one rank."""
    part = call.count * ITEMSIZE.get(call.dtype, 1)
    whole = WHOLE.get(call.function, ())
    return part * (ranks if "source" in whole else 1), part * (ranks if "output" in whole else 1)


def path_of(call: Call) -> tuple[str, str]:
    """The path of equal calls, and by which evidence; unknown where NCCL said nothing of it, or they differ."""
    said = {"symmetric": call.symmetric, "legacy": call.legacy, COPY_ENGINE: call.copy}
    taken = [path for path, times in said.items() if times]
    if not taken:
        return "unknown", ""
    if len(taken) > 1:
        return "unknown", ", ".join(f"{times} of {call.calls} {path}" for path, times in said.items() if times)
    return taken[0], "NCCL's profiler"
