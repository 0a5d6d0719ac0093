"""The steps of a recording: which calls and registrations are told, and in which order they come on all ranks.

Invariant: a call has one number on all of its ranks, and on every rank numbers grow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Literal, NamedTuple

import numpy as np

from harness.machine.observer.records import Call, Freed
from harness.studies.watching.lines import NONE, Line, Numbers
from harness.studies.watching.members import NEVER, Members, Team
from harness.studies.watching.merging import merged

What = Literal["call", "registration", "creation", "destruction", "free", "send", "recv"]


class Node(NamedTuple):
    """A call on a communicator, or a registration with it: the `number`-th of either, from 0 on. Or its creation or
    destruction. Or one end of a send, the `number`-th between these `ends`, which is a rank's own: ranks have no order
    between what they send and receive in one group. Or the free of a segment, which is a rank's own, too; then
    `identity` is that rank."""

    identity: int
    what: What
    number: int = 0
    ends: tuple[int, ...] = ()
    """The sender and the receiver, by their ranks in the communicator."""


class Steps(NamedTuple):
    """For each rank the step at a place in its order; what each step is; and calls that ranks made in another order, so
    that they have no step."""

    of: tuple[dict[int, int], ...]
    nodes: tuple[Node, ...]
    misplaced: frozenset[Node]


def steps_of(members: Members, lines: Sequence[Line]) -> Steps:
    """The steps of all ranks, from 1 on."""
    places = _places(members, lines)
    order = merged([[*found] for found in places])
    misplaced = frozenset(node for found in places for node in _against(found, order) if node.what == "call")
    nodes = tuple(node for node in sorted(order, key=order.__getitem__) if node not in misplaced)
    numbers = {node: step for step, node in enumerate(nodes, 1)}
    return Steps(tuple(dict(_growing(found, numbers)) for found in places), nodes, misplaced)


def _places(members: Members, lines: Sequence[Line]) -> list[dict[Node, int]]:
    """For each rank its nodes, in its order, with their places there."""
    found: list[dict[Node, int]] = [{} for _ in lines]
    for team in members.whole:
        comms = {member.process: member.comm for member in team.members.values()}
        wanted = _wanted([(lines[rank], comm) for rank, comm in comms.items()])
        for rank, comm in comms.items():
            calls = lines[rank].places(comm)
            for number in wanted[wanted < len(calls)]:
                found[rank][Node(team.identity, "call", int(number))] = int(calls[number])
            for number, place in enumerate(lines[rank].registrations.get(comm, ())):
                found[rank][Node(team.identity, "registration", number)] = int(place)
        for rank, node, place in _sends(team, lines):
            found[rank][node] = place
        for member in team.members.values():
            found[member.process][Node(team.identity, "creation")] = member.made
            if member.gone != NEVER:
                found[member.process][Node(team.identity, "destruction")] = member.gone
    for rank, line in enumerate(lines):
        for number, place in enumerate(_frees(line)):
            found[rank][Node(rank, "free", number)] = int(place)
    return [dict(sorted(each.items(), key=lambda item: item[1])) for each in found]


def _sends(team: Team, lines: Sequence[Line]) -> Iterator[tuple[int, Node, int]]:
    """Both ends of the sends that are new at one of them, each with its rank and place. One that has no other end yet
    is left out, and so are all of a communicator without registrations: nothing could be said of them."""
    if not any(member.comm in lines[member.process].registrations for member in team.members.values()):
        return
    ends = {rank: lines[member.process].pairwise.get(member.comm, {}) for rank, member in team.members.items()}
    for sender, receiver in permutations(team.members, 2):
        sent, received = ends[sender].get(("Send", receiver), NONE), ends[receiver].get(("Recv", sender), NONE)
        both = min(len(sent), len(received))
        if both:
            first, second = team.members[sender].process, team.members[receiver].process
            new = np.union1d(lines[first].new(sent[:both]), lines[second].new(received[:both]))
            for number in new.tolist():
                yield first, Node(team.identity, "send", number, (sender, receiver)), int(sent[number])
                yield second, Node(team.identity, "recv", number, (sender, receiver)), int(received[number])


def _wanted(ends: Sequence[tuple[Line, int]]) -> Numbers:
    """The numbers of the calls on a communicator that are new on any of its ranks, or that one is still in."""
    new = [line.new_calls(comm) for line, comm in ends]
    # a rank may hang in a send, or in a first call that is not whole yet: then no call of it has a number
    last = [len(line.places(comm)) - 1 for line, comm in ends if line.places(comm).size and _is_blocked(line, comm)]
    return np.unique(np.concatenate([*new, np.asarray(last, np.int64)]))


def _is_blocked(line: Line, comm: int) -> bool:
    facts = (line.process.facts[index] for index in line.process.in_flight)
    return any(isinstance(fact, Call) and fact.comm == comm for fact in facts)


def _frees(line: Line) -> Numbers:
    """Where in the order of a process segments are freed."""
    freed = [isinstance(fact, Freed) for fact in line.process.facts]
    return np.flatnonzero(np.asarray(freed, np.bool_)[line.order])


def _against(found: dict[Node, int], order: dict[Node, int]) -> Iterator[Node]:
    """What a rank did after something that has a higher number."""
    highest = -1
    for node in found:
        if order[node] < highest:
            yield node
        highest = max(highest, order[node])


def _growing(found: dict[Node, int], numbers: dict[Node, int]) -> Iterator[tuple[int, int]]:
    """The places of a rank with their steps. A registration that would go back belongs to the step before it."""
    highest = 0
    for node, place in found.items():
        if numbers.get(node, -1) > highest:
            highest = numbers[node]
            yield place, highest


def first_places(steps: Steps) -> dict[int, tuple[int, int]]:
    """For each step the first rank that has it, and the place there."""
    found: dict[int, tuple[int, int]] = {}
    for rank, places in enumerate(steps.of):
        for place, step in places.items():
            found.setdefault(step, (rank, place))
    return found
