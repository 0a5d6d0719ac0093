"""The verdict on what a program did: every rule that a recording can break, calls by call site, and what was judged.

Invariant: a run in which no call of several ranks reached window memory tested nothing, and says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.machine.observer.records import Call, Process, read_all
from harness.oracle.case import Case
from harness.oracle.findings import Finding, Hang
from harness.oracle.judge import examine_case
from harness.oracle.waits import AtEnd, InCall, Situation, Waits
from harness.studies.watching.assembling import Assembled, assemble
from harness.studies.watching.members import in_creation, listed
from harness.studies.watching.rules.growth import growth
from harness.studies.watching.rules.reuse import reuse
from harness.studies.watching.table import Row, rows
from harness.text import counted


@dataclass(frozen=True)
class Judged:
    """What a program did, and what is wrong with it."""

    assembled: Assembled
    case: Case
    rows: tuple[Row, ...]
    findings: tuple[Finding, ...]
    is_vacuous: bool

    @property
    def calls(self) -> int:
        """All calls that were recorded, of whatever communicator."""
        facts = (fact for process in self.assembled.members.processes for fact in process.facts)
        return sum(fact.calls for fact in facts if isinstance(fact, Call))


def judge(processes: Sequence[Process], running: Collection[str] = ()) -> Judged:
    """The verdict on the processes of one run; `running` has the paths of those that had not ended. Raises `UsageError`
    where they hold nothing to judge."""
    assembled = assemble(processes, running)
    case = Case(assembled.recording)
    verdict = examine_case(case)
    table = tuple(rows(assembled, case))
    seen = (each for each in verdict.findings if not (running and isinstance(each, Hang)) or _is_for_ever(case))
    found = _told_once([*seen, *reuse(assembled.members, case, assembled.told)], assembled.kinds)
    made = () if running or any(isinstance(each, Hang) for each in found) else _never_made(assembled)
    findings = (*found, *made, *growth(assembled.members, assembled.lines))
    return Judged(assembled, case, table, findings, verdict.is_vacuous)


def _never_made(assembled: Assembled) -> Iterator[Finding]:
    """Ranks that ended in the creation of a communicator: it is no step, since it has no group."""
    waits = in_creation(assembled.members.processes)
    if waits:
        yield Hang(f"{listed(waits.values())}.", step=len(assembled.kinds) - 1, ranks=tuple(waits))


def _is_for_ever(case: Case) -> bool:
    """Whether ranks wait that nobody will let go on, although some have not ended: for one that has, or in a circle.
    All others may be late."""
    waits = Waits(case)
    return any(isinstance(root[0], AtEnd) or all(_waits(waits, each) for each in root) for root in waits.roots())


def _waits(waits: Waits, situation: Situation) -> bool:
    return isinstance(situation, InCall) and bool(waits.next(situation))


def _told_once(findings: Sequence[Finding], kinds: Sequence[str]) -> list[Finding]:
    """Findings of one rule at steps of one kind as one, with all ranks, and how many more there are: a call site may
    make the same mistake with a hundred buffers."""
    found: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        kind = kinds[finding.step] if finding.step < len(kinds) else ""
        found.setdefault((finding.key, kind), []).append(finding)
    for first, *others in found.values():
        first.ranks = tuple(dict.fromkeys(rank for each in (first, *others) for rank in each.ranks))
        steps = {each.step for each in others} - {first.step}
        if steps and not kinds[first.step].startswith("free"):
            first.explanation += f" The same holds at {counted(len(steps), 'other step')} like it."
    return [first for first, *_ in found.values()]


def read(folders: Sequence[Path]) -> list[Process]:
    """What processes wrote into folders. Raises `UsageError` where a folder holds none, or a file is damaged."""
    found = []
    for folder in folders:
        if folder.is_file():
            raise UsageError(f"{folder} is a file; name the folder that it is in, with the files of all processes")
        here = read_all(folder)
        if not here:
            raise UsageError(f"{folder} holds no recording (*.symm): no process called NCCL under symm watch")
        found += here
    return found
