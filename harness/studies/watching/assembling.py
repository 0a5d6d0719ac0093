"""What processes wrote, made into one recording: communicators as families, calls as steps, memory as segments.

Invariant: NCCL pairs the calls of a communicator by their order on each rank, and so does this. Equal calls between
two changes of memory, windows or communicators are told once; nothing could differ about them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from harness.machine.observer.records import Call, Freed, GroupStarted, Process, RegisterEntered, Unobserved
from harness.oracle.case import ranks_text
from harness.studies.watching.callsites import place_of
from harness.studies.watching.lines import Line, last_frees, line
from harness.studies.watching.members import Members, Team, members_of
from harness.studies.watching.ordering import Node, Steps, first_places, steps_of
from harness.studies.watching.rules.reuse import unjudged
from harness.studies.watching.telling import KINDS, Teller
from harness.text import counted
from harness.trace.draw import Fate
from harness.trace.recording import Recording
from harness.trace.trace import Trace

BEGINNING = "the start"
NUMBER = re.compile(r" \d+\b")


@dataclass(frozen=True)
class Assembled:
    """A recording, and what it stands on. `told`: by rank and step, the fact of the process that is told there."""

    recording: Recording
    members: Members
    lines: tuple[Line, ...]
    told: dict[tuple[int, int], int]
    kinds: tuple[str, ...]
    """By step, what steps have in common that differ only in their number: operation, communicator and call site."""
    left_out: tuple[str, ...]
    """What is not judged, a sentence each."""


def assemble(processes: Sequence[Process], running: Collection[str] = ()) -> Assembled:
    """The recording of a run; `running` has the paths of processes that had not ended. Raises `UsageError` where it
    holds nothing to judge."""
    members = members_of(processes)
    lines, steps = _in_step(members)
    fates = tuple(_fate(rank, process, process.path in running) for rank, process in enumerate(members.processes))
    traces = tuple(
        Trace(rank, tuple(Teller(rank, members, each).events(steps.of[rank], fates[rank].state == "finished")))
        for rank, each in enumerate(lines)
    )
    nccl = members.processes[0].nccl or None
    texts = _texts(members, lines, steps)
    hosts = tuple(process.host for process in members.processes)
    recording = Recording(members.topology, traces, fates, texts, nccl=nccl, hosts=hosts)
    told = {
        (rank, step): int(each.order[place])
        for rank, each in enumerate(lines)
        for place, step in steps.of[rank].items()
    }
    left_out = tuple(_left_out(members, steps, running))
    return Assembled(recording, members, lines, told, _kinds(members, steps, texts), left_out)


def _in_step(members: Members) -> tuple[tuple[Line, ...], Steps]:
    """The lines of all ranks, and their steps. Ranks may make calls on two communicators in different orders, as on two
    streams or inside a group."""
    lines = tuple(map(line, members.processes))
    steps = steps_of(members, lines)
    if steps.misplaced:
        place = {team.identity: number for number, team in enumerate(members.whole)}
        ends: list[dict[int, int]] = [{} for _ in lines]
        for (rank, comm), team in members.by_end.items():
            ends[rank][comm] = place[team.identity]
        lines = tuple(each.by_communicator(known) for each, known in zip(lines, ends, strict=True))
        steps = steps_of(members, lines)
    return lines, steps


def _kinds(members: Members, steps: Steps, texts: Sequence[str]) -> tuple[str, ...]:
    """The text of each step without its number, with its communicator."""
    labels = {team.identity: team.label for team in members.whole}
    owners = ["", *(labels.get(node.identity, "") if node.what != "free" else "" for node in steps.nodes)]
    return tuple(f"{NUMBER.sub('', text, count=1)} {owner}" for text, owner in zip(texts, owners, strict=True))


def _fate(rank: int, process: Process, is_running: bool) -> Fate:
    """A process that never left a call, or the end of a group, was waiting there when it ended. One that had not ended
    may do anything yet."""
    is_blocked = any(
        isinstance(process.facts[index], Call | RegisterEntered | GroupStarted) for index in process.in_flight
    )
    return Fate(rank, "hung" if is_blocked else "stopped" if is_running else "finished")


def _texts(members: Members, lines: Sequence[Line], steps: Steps) -> tuple[str, ...]:
    """The text of each step."""
    teams = {team.identity: team for team in members.whole}
    first = first_places(steps)
    texts = [BEGINNING]
    for step, node in enumerate(steps.nodes, 1):
        rank, place = first.get(step, (0, None))
        texts.append(_text(teams.get(node.identity), node, lines[rank], place))
    return tuple(texts)


def _text(team: Team | None, node: Node, line: Line, place: int | None) -> str:
    """Such as `all_gather 14 (model.py:31 forward)`, `free 3 (pool.py:88 trim)` or `destruction of tp[0,1]`."""
    fact = None if place is None else line.process.facts[int(line.order[place])]
    where = place_of(fact.site) if isinstance(fact, Call | RegisterEntered | Freed) else ""
    again = f" of communicator {team.generation + 1} there" if team is not None and team.generation else ""
    if node.what == "free" or team is None:
        return f"free {node.number + 1}{f' ({where})' if where else ''}"
    if node.what in ("creation", "destruction"):
        return f"{node.what} of {team.label}{again}"
    what = KINDS[fact.function] if isinstance(fact, Call) else node.what
    return f"{what} {node.number + 1}{again} ({where or f'of {team.label}'})"


def _left_out(members: Members, steps: Steps, running: Collection[str]) -> Iterator[str]:
    """What a recording holds and its verdict says nothing of."""
    if going_on := tuple(rank for rank, process in enumerate(members.processes) if process.path in running):
        yield f"What {ranks_text(going_on)} had yet to do."
    partial = [team for team in members.teams if not team.group]
    for team in partial[:1]:
        ranks = f"rank{'s' if len(team.missing) > 1 else ''} {', '.join(map(str, team.missing))}"
        yield (
            f"{counted(len(partial), 'communicator')} of which some ranks were not recorded, such as one of "
            f"{team.size} without {ranks}."
        )
    at_end = sum(len(last_frees(each)) for each in members.processes)
    if at_end:
        yield f"{counted(at_end, 'free')} at the end of a process, when Python had ended: windows may live longer."
    if steps.misplaced:
        yield f"{counted(len(steps.misplaced), 'call')} that ranks made in different orders on two communicators."
    for process in members.processes:
        if process.lost_events or process.lost_facts:
            yield (
                f"{counted(process.lost_events, 'event')} and {counted(process.lost_facts, 'fact')} of process "
                f"{process.pid} for which its file had no room."
            )
    unseen = {fact.path for process in members.processes for fact in process.facts if isinstance(fact, Unobserved)}
    for path in sorted(unseen):
        yield f"Calls to {path}, if there were any: it is loaded beside the NCCL that is observed."
    yield from unjudged(members.processes)
