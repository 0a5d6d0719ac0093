"""One process's events in order, as arrays: which calls are new, and which call of its communicator each one is.

Invariant: NCCL pairs the calls of a communicator by their order on each rank, so a call's number on its communicator
names it on every rank.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from harness.machine.observer.records import Call, GroupEnded, GroupStarted, Process, RegisterEntered

PAIRWISE = ("Send", "Recv")
"""Calls that are no collective: they have no counterpart on every rank."""
NO_STATE = (Call, GroupStarted, GroupEnded)
"""Facts that change nothing for the calls that follow."""

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Line:
    """The order of one process. `comms` has each fact's communicator, -1 where it is no collective call; `state` the
    facts that may change what calls find."""

    process: Process
    order: Numbers
    comms: Numbers
    state: NDArray[np.bool_]

    def places(self, comm: int) -> Numbers:
        """Where the collective calls of a communicator are in the order; the k-th is call k on it."""
        return np.flatnonzero(self.comms[self.order] == comm)

    def new_calls(self, comm: int) -> Numbers:
        """The numbers, on their communicator, of the calls that differ from every earlier one, or follow a change of
        memory, windows or communicators."""
        places = self.places(comm)
        if not places.size:
            return places
        epochs = np.cumsum(self.state[self.order])[places]
        _, first = np.unique(epochs * len(self.comms) + self.order[places], return_index=True)
        return np.sort(first)

    @cached_property
    def registrations(self) -> dict[int, list[int]]:
        """Where in the order registrations with each communicator were entered."""
        facts, found = self.process.facts, dict[int, list[int]]()
        for place in self.changes().tolist():
            fact = facts[int(self.order[place])]
            if isinstance(fact, RegisterEntered):
                found.setdefault(fact.comm, []).append(place)
        return found

    def changes(self) -> Numbers:
        """Where facts are in the order that change memory, windows or communicators."""
        return np.flatnonzero(self.state[self.order])


def line(process: Process) -> Line:
    """The line of a process."""
    return Line(
        process,
        np.asarray(process.order, np.int64),
        _array(_communicator(fact) for fact in process.facts),
        np.asarray([not isinstance(fact, NO_STATE) for fact in process.facts], np.bool_),
    )


def _communicator(fact: object) -> int:
    return fact.comm if isinstance(fact, Call) and fact.function not in PAIRWISE else -1


def _array(numbers: Iterable[int]) -> Numbers:
    return np.asarray([*numbers], np.int64)
