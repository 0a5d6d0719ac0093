"""One process's events in order, as arrays: which calls are new, and which call of its communicator each one is.

Invariant: NCCL pairs the calls of a communicator by their order on each rank, so a call's number on its communicator
names it on every rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from harness.machine.observer.facts import AT_END
from harness.machine.observer.records import (
    Allocated,
    Call,
    CaptureBegan,
    CaptureEnded,
    CommCreated,
    Freed,
    Graph,
    GroupEnded,
    GroupStarted,
    Held,
    History,
    Process,
    RegisterEntered,
)
from harness.studies.watching.callsites import place_of
from harness.studies.watching.members import IN_PROGRESS, SUCCESS

PAIRWISE = ("Send", "Recv")
"""Calls that are no collective: they have no counterpart on every rank."""
NO_STATE = (Call, GroupStarted, GroupEnded, CaptureBegan, CaptureEnded, Graph, History, Held)
"""Facts that change nothing for the calls that follow."""
WORK = (Call, RegisterEntered, CommCreated, Allocated)
"""Facts of a process that goes on: what ends gives back and makes nothing."""

Numbers = NDArray[np.int64]
Places = NDArray[np.int32]
NONE: Places = np.empty(0, np.int32)
End = tuple[str, int]
"""Of sends or receives on a communicator: the function, and the peer's rank in it."""


@dataclass(frozen=True)
class Line:
    """The order of one process. `comms` has each fact's communicator, -1 where it is no collective call; `state` the
    facts that may change what calls find."""

    process: Process
    order: Numbers
    comms: Numbers
    state: NDArray[np.bool_]

    def places(self, comm: int) -> Places:
        """Where the collective calls of a communicator are in the order; the k-th is call k on it."""
        return self._by_comm.get(comm, NONE)

    @cached_property
    def _by_comm(self) -> dict[int, Places]:
        return _by_owner(self.comms[self.order])

    @cached_property
    def pairwise(self) -> dict[int, dict[End, Places]]:
        """By communicator where the sends to a peer are in the order, and the receives from it. NCCL pairs both by
        their order.

        The first captured one ends them: replays are not seen, and a replay may meet a call that is none. Without any
        where a call failed or a fact was lost: it may be one of them.
        """
        facts, numbers = self.process.facts, dict[tuple[int, End], int]()
        if self.process.lost_facts or any(map(_has_failed, facts)):
            return {}
        owners = _array(_number(fact, numbers) for fact in facts)
        captured = np.asarray([isinstance(fact, Call) and fact.captured for fact in facts], np.bool_)
        found: dict[int, dict[End, Places]] = {}
        places = _by_owner(owners[self.order]) if numbers else {}
        for (comm, end), number in numbers.items():
            there = places.get(number, NONE)
            found.setdefault(comm, {})[end] = there[: _first(captured[self.order[there]])]
        return found

    def by_communicator(self, rank: Mapping[int, int]) -> Line:
        """The same with the calls between two changes in the order of their communicators, of which `rank` has the
        place of each: whatever the order of two of them, both find the same. The last ones stay as they are in a
        process that is still in one: those after it did not come."""
        calls = np.flatnonzero(self.comms[self.order] >= 0)
        epochs = np.searchsorted(self._changes, calls)
        if self.process.in_flight:
            calls, epochs = (each[epochs < len(self._changes)] for each in (calls, epochs))
        ranks = _array(rank.get(comm, len(rank)) for comm in self.comms[self.order[calls]].tolist())
        order = self.order.copy()
        order[calls] = self.order[calls[np.lexsort((ranks, epochs))]]
        return replace(self, order=order)

    def new_calls(self, comm: int) -> Numbers:
        """The numbers, on their communicator, of the calls that differ from every earlier one, or follow a change of
        memory, windows or communicators."""
        return self.new(self.places(comm))

    def new(self, places: Places) -> Numbers:
        """The numbers of those calls at `places` that differ from every earlier one there, or follow such a change."""
        epochs = np.searchsorted(self._changes, places)
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

    @cached_property
    def captures(self) -> dict[int, str]:
        """The registrations that were entered in a capture, by their places in the order, each with the capture, such
        as `capture 2 (train.py:40 step)`.

        That is what its thread does. It is also what another one does for a call that is captured, as PyTorch's thread
        of backward passes does.
        """
        open_, number, found = dict[int, tuple[int, str]](), 0, dict[int, str]()
        for place in self._around_captures().tolist():
            match self.process.facts[int(self.order[place])]:
                case CaptureBegan() as began:
                    number += 1
                    where = place_of(began.site)
                    open_.pop(began.stream, None)  # where its end was not seen
                    open_[began.stream] = began.thread, f"capture {number}{f' ({where})' if where else ''}"
                case CaptureEnded() as ended:
                    open_.pop(ended.stream, None)
                case RegisterEntered() as entered:
                    own = [name for thread, name in open_.values() if thread == entered.thread]
                    if not own and open_ and self._serves_a_capture(place, entered):
                        own = [name for _, name in open_.values()]
                    found.update({place: own[-1]} if own else {})
                case _:
                    pass
        return found

    def _serves_a_capture(self, place: int, entered: RegisterEntered) -> bool:
        """Whether the first call in what was registered there is captured, before a capture ends."""
        inside = range(entered.address, entered.address + entered.size)
        for index in self.order[place + 1 :]:
            match self.process.facts[int(index)]:
                case Call() as call if call.send in inside or call.receive in inside:
                    return call.captured
                case CaptureEnded():
                    return False
                case _:
                    pass
        return False

    def _around_captures(self) -> Numbers:
        """Where captures begin and end, and registrations are entered; nowhere in a process without captures."""
        facts = self.process.facts
        if not any(isinstance(fact, CaptureBegan) for fact in facts):
            return np.asarray([], np.int64)
        told = [isinstance(fact, CaptureBegan | CaptureEnded | RegisterEntered) for fact in facts]
        return np.flatnonzero(np.asarray(told, np.bool_)[self.order])

    def changes(self) -> Numbers:
        """Where facts are in the order that change memory, windows or communicators."""
        return self._changes

    @cached_property
    def _changes(self) -> Numbers:
        return np.flatnonzero(self.state[self.order])


def last_frees(process: Process) -> frozenset[int]:
    """The frees, as numbers of facts, that Python's end made and after which the process did no work: a program that
    has Python inside, or that calls NCCL from a destructor, may go on after Python."""
    after = takewhile(lambda index: not isinstance(process.facts[index], WORK), reversed(process.order))
    return frozenset(index for index in after if _is_at_end(process.facts[index]))


def _is_at_end(fact: object) -> bool:
    return isinstance(fact, Freed) and fact.site == AT_END


def line(process: Process) -> Line:
    """The line of a process."""
    return Line(
        process,
        np.asarray(process.order, np.int64),
        _array(_communicator(fact) for fact in process.facts),
        np.asarray([not isinstance(fact, NO_STATE) for fact in process.facts], np.bool_),
    )


def _by_owner(owners: Numbers) -> dict[int, Places]:
    """The places of each owner in an order; -1 is none. All at once: a look at the whole order for each costs too much
    where many communicators are made anew."""
    calls = np.flatnonzero(owners >= 0)
    # numbers are small, and numpy sorts 16 bits in linear time
    small = owners[calls].astype(np.uint16) if owners.max(initial=0) < 1 << 16 else owners[calls]
    calls = calls[np.argsort(small, kind="stable")]
    found, starts = np.unique(owners[calls], return_index=True)
    return dict(zip(found.tolist(), np.split(calls.astype(np.int32), starts[1:]), strict=False))


def _number(fact: object, numbers: dict[tuple[int, End], int]) -> int:
    """The number of a send or receive among those of `numbers`, which takes new ones; -1 for other facts."""
    if not isinstance(fact, Call) or fact.function not in PAIRWISE:
        return -1
    return numbers.setdefault((fact.comm, (fact.function, fact.root)), len(numbers))


def _has_failed(fact: object) -> bool:
    """Whether a call failed, or a group of them: then it is not sure which ones NCCL made."""
    return isinstance(fact, Call | GroupEnded) and fact.result not in (SUCCESS, IN_PROGRESS)


def _first(flags: NDArray[np.bool_]) -> int:
    """The place of the first that is set, or behind all."""
    return int(flags.argmax()) if flags.any() else len(flags)


def _communicator(fact: object) -> int:
    return fact.comm if isinstance(fact, Call) and fact.function not in PAIRWISE else -1


def _array(numbers: Iterable[int]) -> Numbers:
    return np.asarray([*numbers], np.int64)
