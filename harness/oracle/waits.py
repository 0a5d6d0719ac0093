"""Who waits for whom where ranks hang, and the smallest explanation that their traces give.

A rank in a collective call waits for the members of the communicator that have not entered this call
as often as it has. From such a wait one comes to where those members are, and so on to the root: ranks
that are in no call, a call that every member entered and none left, or a cycle.

Invariant: every edge follows from recorded entries. Where traces show no rank waiting, there is none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from harness.oracle.case import Case
from harness.oracle.history import History
from harness.scenario.layouts.groups import GroupId
from harness.trace.events import Closing, Entered, RegistrationFailed

Ranks = tuple[int, ...]
WORLD_WIDE = "recreate"
"""The call for which NCCL needs every rank of the world, each with its own group: it splits what all share."""


@dataclass(frozen=True)
class InCall:
    """In a collective call of a communicator, entered for the `entry`-th time."""

    call: str
    group: GroupId
    generation: int
    entry: int


@dataclass(frozen=True)
class AtStep:
    """In no call of a communicator: in the system under test, in the harness, or stopped."""

    step: int


@dataclass(frozen=True)
class AtEnd:
    """Through with every step, and waiting for all others to be."""

    meeting: int


Situation = InCall | AtStep | AtEnd


class Waits:
    """The ranks of a hung draw by situation, and the edges between those."""

    def __init__(self, case: Case) -> None:
        self._entries = [_entries(history) for history in case.histories]
        self._where = [self._situation(history) for history in case.histories]
        self._came_to = [_world_wide(case, history) for history in case.histories]
        self._meets_at_end = case.program.is_lockstep and not any(isinstance(at, InCall) for at in self._where)

    @property
    def situations(self) -> list[Situation]:
        """Every situation that a rank is in, in rank order."""
        return list(dict.fromkeys(self._where))

    def of(self, rank: int) -> Situation:
        """The situation that a rank is in."""
        return self._where[rank]

    def ranks(self, situation: Situation) -> Ranks:
        """The ranks in a situation."""
        return tuple(rank for rank, at in enumerate(self._where) if at == situation)

    def awaited(self, situation: Situation) -> Ranks:
        """The ranks that those in a situation wait for. A rank at the end counts as done while others are in calls, and
        where ranks do not meet there."""
        match situation:
            case InCall(call, group, generation, entry):
                key = call, group, generation
                # NCCL's registrations and collectives wait for every member, with no timeout.
                late = tuple(sorted(rank for rank in group.ranks if self._entries[rank][key] < entry))
                return late or (self._behind(situation) if call == WORLD_WIDE else ())
            case AtEnd(meeting) if self._meets_at_end:
                return tuple(
                    rank for rank, at in enumerate(self._where) if not isinstance(at, AtEnd) or at.meeting < meeting
                )
        return ()

    def _behind(self, situation: InCall) -> Ranks:
        """The ranks of the world that have made a world-wide call less often than those in a situation."""
        most = max(self._came_to[rank] for rank in self.ranks(situation))
        return tuple(rank for rank, times in enumerate(self._came_to) if times < most)

    def left(self, situation: InCall) -> Ranks:
        """The members of the communicator that have entered this call too and are no longer in it."""
        inside, late = self.ranks(situation), self.awaited(situation)
        return tuple(sorted(rank for rank in situation.group.ranks if rank not in inside and rank not in late))

    def next(self, situation: Situation) -> list[Situation]:
        """The situations of the ranks that are waited for."""
        return list(dict.fromkeys(self._where[rank] for rank in self.awaited(situation)))

    def roots(self) -> Iterator[tuple[Situation, ...]]:
        """The ends of all chains: a situation that waits for no other, with one that waits for it; a call that every
        member entered and none left, alone; or the situations of a cycle that waits for none outside it."""
        for situation in self.situations:
            waiting = [other for other in self.situations if situation in self.next(other)]
            if not self.next(situation):
                yield from ((situation, other) for other in waiting)
                if isinstance(situation, InCall) and not waiting:
                    yield (situation,)
            elif all(situation in self._reach(other) for other in self._reach(situation)):
                yield self._cycle(situation)

    def _reach(self, start: Situation) -> set[Situation]:
        found: set[Situation] = set()
        edge = [start]
        while edge:
            new = {*self.next(edge.pop())} - found
            found |= new
            edge += new
        return found

    def _cycle(self, start: Situation) -> tuple[Situation, ...]:
        """The shortest way from a situation back to it."""
        paths: list[tuple[Situation, ...]] = [(start,)]
        for path in paths:
            for situation in self.next(path[-1]):
                if situation == start:
                    return path
                if situation not in path:
                    paths.append((*path, situation))
        raise AssertionError(f"{start} lies on no cycle")

    def _situation(self, history: History) -> Situation:
        trace = history.trace
        if trace.is_closing:
            return AtEnd(sum(isinstance(event, Closing) for event in trace.events))
        if trace.blocked_in is None:
            return AtStep(trace.last_step)
        call, comm = trace.blocked_in.call, history.comms[trace.blocked_in.comm]
        key = call, comm.id, comm.generation
        return InCall(*key, self._entries[history.rank][key])


def _entries(history: History) -> Counter[tuple[str, GroupId, int]]:
    """How often a rank entered each call of each communicator. A registration that failed on it was none for its
    peers."""
    events = history.trace.events
    comms = ((event.call, history.comms[event.comm]) for event in events if isinstance(event, Entered))
    entries = Counter((call, comm.id, comm.generation) for call, comm in comms)
    failed = (history.comms[event.comm] for event in events if isinstance(event, RegistrationFailed))
    entries.subtract(("register", comm.id, comm.generation) for comm in failed)
    return entries


def _world_wide(case: Case, history: History) -> int:
    """How many world-wide calls a rank has come to: those that it entered, and those of families that leave it out."""
    trace = history.trace
    entered = {step for step, event in trace.steps() if isinstance(event, Entered) and event.call == WORLD_WIDE}
    return len(entered | case.program.recreated_without(history.rank, trace.last_step))
