"""Calls by call site: how many, how many bytes, which path they took, and who owns the memory that peers reach.

Invariant: calls are counted as the processes wrote them, in order or not. Owners are those of the calls that are told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.machine.observer.records import Call
from harness.oracle.case import Case
from harness.oracle.history import Use
from harness.oracle.peers import peer_operands
from harness.oracle.sight import Sight
from harness.studies.watching.assembling import Assembled
from harness.studies.watching.callsites import place_of
from harness.studies.watching.telling import KINDS, sizes_of

ORDINARY = "ordinary memory"


@dataclass
class Row:
    """Calls of one kind at one place, on all ranks of the groups of a family. `nbytes`: of their larger operands."""

    family: str
    kind: str
    dtype: str
    place: str
    calls: int = 0
    nbytes: int = 0
    symmetric: int = 0
    legacy: int = 0
    copy: int = 0
    captured: int = 0
    """Calls that were captured for a CUDA graph. NCCL may have said a path of them all the same."""
    owners: dict[str, None] = field(default_factory=dict)
    """What owns the operands through which ranks reach each other, in the order in which it was met."""

    @property
    def unknown(self) -> int:
        """Calls of which NCCL said no path."""
        return self.calls - self.symmetric - self.legacy - self.copy

    @property
    def has_slow_owned(self) -> bool:
        """Whether a call took another path although a window of its own communicator owned its operands."""
        return self.legacy > 0 and [*self.owners] == ["its own window"]


def rows(assembled: Assembled, case: Case) -> list[Row]:
    """The table, with the most frequent calls first."""
    found: dict[tuple[str, ...], Row] = {}
    by_fact: dict[tuple[int, int], Row] = {}
    teams = assembled.members.by_end
    for rank, line in enumerate(assembled.lines):
        for index, fact in enumerate(line.process.facts):
            if isinstance(fact, Call) and (team := teams.get((rank, fact.comm))) is not None:
                key = team.family, KINDS[fact.function], fact.dtype, place_of(fact.site)
                row = by_fact[rank, index] = found.setdefault(key, Row(*key))
                _count(row, fact, team.size)
    for use in (use for history in case.histories for use in history.uses):
        if (told := by_fact.get((use.rank, assembled.told.get((use.rank, use.step), -1)))) is not None:
            told.owners |= dict.fromkeys(owners(case, use))
    return sorted(found.values(), key=lambda row: -row.calls)


def _count(row: Row, call: Call, ranks: int) -> None:
    row.calls += call.calls
    row.nbytes += call.calls * max(sizes_of(call, ranks))
    row.symmetric += call.symmetric
    row.legacy += call.legacy
    row.copy += call.copy
    row.captured += call.calls if call.captured else 0


def owners(case: Case, use: Use) -> Iterator[str]:
    """Who owns each operand through which ranks reach each other in a call."""
    for role in peer_operands(use.called.kind, use.called.via):
        yield _owner(case, use.sight(role))


def _owner(case: Case, sight: Sight) -> str:
    if sight.window is not None:
        return "its own window"
    if sight.others:
        return f"windows of {case.name(sight.others[0].comm.id)}"
    return "no window" if sight.segment is not None else ORDINARY
