"""Whose processes and communicators a recording holds: ranks of the world, groups of ranks, and their names.

Invariant: a communicator is the same on all of its ranks if and only if it has one identity. One of which a rank was
not recorded has no group, and is not judged.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from harness.errors import UsageError
from harness.machine.observer.records import CommCreated, CommGone, Fact, Process, Registered
from harness.scenario.layouts.groups import Group, GroupId, rank_in_two
from harness.scenario.topology import Topology
from harness.studies.watching.callsites import place_of
from harness.text import counted

UNNAMED = "comm"
"""The family of communicators that the program gave no name."""
ENDED = ("destroy", "abort")
"""What takes a communicator's windows with it. After `ncclCommFinalize` and `ncclCommRevoke` it is still there."""
NEVER = 1 << 62
MOST_CLAUSES = 4
SUCCESS, IN_PROGRESS = 0, 7
"""Of NCCL's results."""


@dataclass
class Member:
    """One rank's end of a communicator: the process, by its place in the recording, and the communicator's number in
    it. `made` and `gone` are places in the order of the process."""

    process: int
    comm: int
    made: int
    gone: int = NEVER


@dataclass
class Team:
    """A communicator of the program, with its members by their ranks in it."""

    identity: int
    size: int
    name: str = ""
    members: dict[int, Member] = field(default_factory=dict)
    group: Group = ()
    """Ranks of the world, in the order of the communicator; empty where a member was not recorded."""
    family: str = ""
    number: int = 0
    """Which of the communicators over these ranks it is."""
    generation: int = 0
    """How many were in its place before."""
    has_windows: bool = True
    """Whether registrations with it give windows, as far as that was seen."""
    site: str = ""
    """The Python stack that made it, on the first process that has one."""

    @property
    def missing(self) -> tuple[int, ...]:
        """Ranks in it that were not recorded."""
        return tuple(rank for rank in range(self.size) if rank not in self.members)

    @property
    def id(self) -> GroupId:
        return GroupId(self.group, self.number)

    @property
    def label(self) -> str:
        """Such as `tp[0,1]`."""
        return f"{self.family}[{','.join(map(str, self.group))}]"


@dataclass(frozen=True)
class Members:
    """The processes that have communicators, in rank order, and all communicators in the order of their making."""

    processes: tuple[Process, ...]
    teams: tuple[Team, ...]
    topology: Topology
    """The groups as families, each with communicators of its own."""

    @property
    def whole(self) -> list[Team]:
        """Those of which every rank was recorded."""
        return [team for team in self.teams if team.group]

    @cached_property
    def by_end(self) -> dict[tuple[int, int], Team]:
        """The whole ones by each of their ends: a rank, and the communicator's number in its process."""
        return {(member.process, member.comm): team for team in self.whole for member in team.members.values()}


def members_of(recorded: Sequence[Process]) -> Members:
    """The ranks and communicators of what was recorded. Raises `UsageError` for what cannot be one run, for one process
    that was several ranks of a communicator, and where no communicator is whole."""
    processes = [process for process in recorded if any(_is_made(fact) for fact in process.facts)]
    if not processes:
        waits = in_creation(recorded).values()
        raise UsageError("nothing to judge: no process made a communicator" + (f"; {listed(waits)}" if waits else ""))
    teams = _teams(processes)
    places = _places(processes, teams)
    for team in teams:
        if not team.missing:
            team.group = tuple(places[team.members[rank].process] for rank in range(team.size))
        for member in team.members.values():
            member.process = places[member.process]
    whole = [team for team in teams if team.group]
    if not whole:
        raise UsageError(f"nothing to judge: of every communicator some ranks were not recorded{_example(teams)}")
    topology = _named(whole)
    by_rank = sorted(processes, key=lambda process: places[processes.index(process)])
    given = [_given(process) for process in by_rank]
    for team in whole:
        team.has_windows = _has_windows(team, by_rank, given)
    return Members(tuple(by_rank), tuple(teams), topology)


def in_creation(processes: Sequence[Process]) -> dict[int, str]:
    """Those that have not come out of the creation of a communicator, by their place, each with a clause on it."""
    found = {}
    for place, process in enumerate(processes):
        for fact in (process.facts[index] for index in process.in_flight):
            if isinstance(fact, CommCreated):
                name = f"process {process.pid}" if process.rank < 0 else f"rank {process.rank}"
                size = f" of {counted(fact.size, 'rank')}" if fact.size > 0 else ""
                where = f" ({place_of(fact.site)})" if fact.site else ""
                found[place] = f"{name} has not come out of the creation of a communicator{size}{where}"
    return found


def listed(clauses: Collection[str]) -> str:
    """The first clauses, and how many more there are."""
    more = len(clauses) - MOST_CLAUSES
    return "; ".join([*clauses][:MOST_CLAUSES]) + (f"; and {more} more" if more > 0 else "")


def _is_made(fact: Fact) -> bool:
    return isinstance(fact, CommCreated) and is_there(fact)


def _example(teams: Sequence[Team]) -> str:
    team = teams[0]
    return f", such as rank {team.missing[0]} of one of {team.size}"


def _teams(processes: Sequence[Process]) -> list[Team]:
    """Every communicator, in the order in which the first of its ranks made it."""
    teams: dict[int, Team] = {}
    for index, process in enumerate(processes):
        ends: dict[int, list[Member]] = {}
        for place, fact in _on_communicators(process):
            if isinstance(fact, CommCreated):
                team = teams.setdefault(fact.identity, Team(fact.identity, fact.size))
                team.name, team.site = team.name or fact.name, team.site or fact.site
                member = Member(index, fact.comm, place)
                _join(team, fact.rank, member, process)
                ends.setdefault(fact.comm, []).append(member)
            else:
                for member in ends.get(fact.comm, ()):
                    member.gone = min(member.gone, place)
    return sorted(teams.values(), key=lambda team: min(member.made for member in team.members.values()))


def _on_communicators(process: Process) -> Iterator[tuple[int, CommCreated | CommGone]]:
    """What happened to communicators, in the order of the process, with its place there."""
    found: dict[int, CommCreated | CommGone] = {}
    for index, fact in enumerate(process.facts):
        if (isinstance(fact, CommCreated) and is_there(fact)) or (isinstance(fact, CommGone) and fact.how in ENDED):
            found[index] = fact
    for place, index in enumerate(process.order):
        if index in found:
            yield place, found[index]


def is_there(created: CommCreated) -> bool:
    """Whether a communicator came into being that can be told apart: NCCL returned success, or goes on by itself; a
    split did not leave this rank out; and the observer saw it being made."""
    return created.result in (SUCCESS, IN_PROGRESS) and created.size > 0 and created.identity != 0


def _join(team: Team, rank: int, member: Member, process: Process) -> None:
    if rank in team.members and team.members[rank].process != member.process:
        raise UsageError(f"{process.path}: rank {rank} of a communicator is in another file, too; are these two runs?")
    if any(each.process == member.process for each in team.members.values()):
        raise UsageError(f"{process.path}: the process has several ranks of one communicator; each rank needs its own")
    team.members[rank] = member


def _places(processes: Sequence[Process], teams: Sequence[Team]) -> dict[int, int]:
    """The rank of each process in the world: what its environment said; or its rank in a communicator of all; or else
    its place by host and process number."""
    said = [process.rank for process in processes]
    if min(said) >= 0 and len(set(said)) == len(said):
        by_rank = sorted(range(len(said)), key=said.__getitem__)
        return {index: rank for rank, index in enumerate(by_rank)}
    for team in teams:
        if team.size == len(processes) and not team.missing:
            return {member.process: rank for rank, member in team.members.items()}
    by_host = sorted(range(len(processes)), key=lambda index: (processes[index].host, processes[index].pid))
    return {index: rank for rank, index in enumerate(by_host)}


def _given(process: Process) -> dict[int, list[int]]:
    """The windows that registrations with each communicator gave."""
    found: dict[int, list[int]] = {}
    for fact in process.facts:
        if isinstance(fact, Registered):
            found.setdefault(fact.comm, []).append(fact.window)
    return found


def _has_windows(team: Team, processes: Sequence[Process], given: Sequence[Mapping[int, list[int]]]) -> bool:
    """Whether it has windows: as its registrations said; without any, whether all ranks are on one host."""
    comms = {member.process: member.comm for member in team.members.values()}
    registered = [window for rank, comm in comms.items() for window in given[rank].get(comm, ())]
    if registered:
        return any(registered)
    return len({processes[rank].host for rank in comms}) == 1


def _named(teams: Sequence[Team]) -> Topology:
    """Give each communicator a family, and its number among those over the same ranks. Returns the families.

    One that was made after another of its ranks and name had gone takes that one's place. The others of a name are in
    one family while no rank is in two of them.
    """
    families: dict[str, list[Team]] = {}
    gone: dict[tuple[str, Group], list[Team]] = {}
    for team in teams:
        before = _predecessor(gone.get((team.name, team.group), []), families, team)
        if before is None:
            team.family = _family(families, team)
        else:
            team.family, team.generation = before.family, before.generation + 1
            families[team.family].remove(before)
            gone[team.name, team.group].remove(before)
        families.setdefault(team.family, []).append(team)
        if team.members[0].gone != NEVER:
            gone.setdefault((team.name, team.group), []).append(team)
    groups = {name: tuple(team.group for team in members) for name, members in families.items()}
    topology = Topology("recorded", "explicit", families_given=groups, shares={})
    for team in teams:
        team.number = next(each.number for each in topology.ids[team.family] if each.ranks == team.group)
    return topology


def _predecessor(gone: Sequence[Team], families: Mapping[str, list[Team]], team: Team) -> Team | None:
    """A communicator of the same ranks and name that was destroyed before this one was made, on their first rank. Of
    several that of the first family."""
    before = [each for each in gone if each.members[0].gone < team.members[0].made]
    if len(before) < 2:
        return next(iter(before), None)
    order = [*families]
    return min(before, key=lambda each: order.index(each.family))


def _family(families: Mapping[str, list[Team]], team: Team) -> str:
    """The first family of this name in which no rank of the group is."""
    base, count = team.name or UNNAMED, 1
    while True:
        name = base if count == 1 else f"{base}-{count}"
        others = [each.group for each in families.get(name, [])]
        same_size = all(len(other) == len(team.group) for other in others)
        if same_size and rank_in_two([*others, team.group]) is None:
            return name
        count += 1
