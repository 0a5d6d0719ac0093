"""A rank's trace read into what was alive when: segments, windows, buffers, and each collective's view of them.

Invariant: everything here follows from recorded events; nothing is looked up in the system under test.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

from harness.oracle.ground import Ground, in_turn, kept
from harness.oracle.lives import BufferLife, SegmentLife, WindowLife
from harness.oracle.sight import Sight, see
from harness.scenario.layouts.groups import GroupId
from harness.trace.events import (
    Called,
    CommCreated,
    CommDestroyed,
    Deregistered,
    Dropped,
    Entered,
    LocallyRegistered,
    Operand,
    PadOverwritten,
    Placed,
    PointToPoint,
    Provided,
    Ran,
    Registered,
    RegistrationFailed,
    Role,
    SegmentAllocated,
    SegmentFreed,
    WorkspaceOverwritten,
)
from harness.trace.trace import Trace


@dataclass(frozen=True)
class Use:
    """One collective on one rank."""

    rank: int
    step: int
    comm: CommCreated
    called: Called
    """The facts of the call."""
    source: Sight
    output: Sight
    ran: Ran | None = None
    """What came of the call; None where it never returned."""

    def sight(self, role: Role) -> Sight:
        """How the communicator saw one of the operands."""
        return self.output if role == "output" else self.source


@dataclass(frozen=True)
class End:
    """One end of a send of a watched program."""

    rank: int
    step: int
    comm: CommCreated
    event: PointToPoint
    sight: Sight


Key = tuple[GroupId, int]
"""A communicator, equal on all of its ranks: its group, and its generation."""
OnComm = Called | Entered | RegistrationFailed


@dataclass
class History:
    """What one rank's trace says, in the order in which it happened."""

    trace: Trace
    comms: dict[int, CommCreated] = field(default_factory=dict)
    destroyed: dict[int, int] = field(default_factory=dict)
    """The step at which a communicator was destroyed."""
    segments: dict[int, SegmentLife] = field(default_factory=dict)
    windows: dict[int, WindowLife] = field(default_factory=dict)
    buffers: dict[str, BufferLife] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    local: list[LocallyRegistered] = field(default_factory=list)
    provided: dict[int, Provided] = field(default_factory=dict)
    """Workspaces and flags of plug-ins."""
    entered: dict[int, int] = field(default_factory=dict)
    """Registrations entered, by communicator, without those that failed; one more than were made where the rank is
    still in one."""
    doubled: dict[int, tuple[WindowLife, ...]] = field(default_factory=dict)
    """For a window, those of its communicator that shared an address with it and were live over live segments when it
    was registered; without windows that met none."""
    ground: Ground = field(default_factory=Ground, repr=False)
    """What is there now."""
    _by_comm: dict[int, list[WindowLife]] = field(default_factory=dict, repr=False)

    @property
    def rank(self) -> int:
        return self.trace.rank

    def registrations(self, comm: int) -> list[WindowLife]:
        """Windows and null windows of a communicator, in order."""
        return self._by_comm.get(comm, [])

    def numbers(self, key: Key) -> list[int]:
        """A communicator by its number on this rank; empty where it was not made here."""
        return self._numbers.get(key, [])

    def made(self, key: Key) -> list[WindowLife]:
        """What was registered with a communicator, in order."""
        windows = (window for comm in self.numbers(key) for window in self.registrations(comm))
        return sorted(windows, key=lambda window: window.turn)

    def on(self, key: Key) -> list[tuple[int, OnComm]]:
        """The calls on a communicator, and the registrations that were entered and that failed, with their steps."""
        found = [each for comm in self.numbers(key) for each in self._on_comms.get(comm, ())]
        return [(step, event) for _, step, event in sorted(found, key=lambda each: each[0])]

    @cached_property
    def _numbers(self) -> dict[Key, list[int]]:
        numbers: dict[Key, list[int]] = {}
        for comm in self.comms.values():
            numbers.setdefault((comm.id, comm.generation), []).append(comm.comm)
        return numbers

    @cached_property
    def _on_comms(self) -> dict[int, list[tuple[int, int, OnComm]]]:
        """Their places in the trace, steps and events, by communicator."""
        found: dict[int, list[tuple[int, int, OnComm]]] = {}
        for place, (step, event) in enumerate(self.trace.steps()):
            match event:
                case Called() | Entered(call="register") | RegistrationFailed():
                    found.setdefault(event.comm, []).append((place, step, event))
        return found

    def beside(self) -> Iterator[tuple[int, PadOverwritten | WorkspaceOverwritten]]:
        """What was found written on its pads, or beside what the harness provided, by the rank or after its end, with
        the step by which it was."""
        for step, event in self.trace.steps():
            if isinstance(event, PadOverwritten | WorkspaceOverwritten):
                yield step, event
        for event in self.trace.after:
            yield self.trace.last_step, event


def read(trace: Trace) -> History:
    """The history behind a trace."""
    history = History(trace)
    for step, event in trace.steps():
        match event:
            case CommCreated() | CommDestroyed() | Entered() | RegistrationFailed() | Registered() | Deregistered():
                _on_communicator(history, event, step)
            case SegmentAllocated():
                history.segments[event.segment] = SegmentLife(event, step)
                history.ground.allocated(history.segments[event.segment])
            case SegmentFreed():
                _freed(history, event, step)
            case Placed():
                history.buffers[event.buffer] = BufferLife(event, step)
            case Dropped():
                history.buffers[event.buffer].died = step
            case Called():
                comm = history.comms[event.comm]
                source, output = _sight(history, comm, event.source), _sight(history, comm, event.output)
                history.uses.append(Use(history.rank, step, comm, event, source, output))
            case PointToPoint():
                comm = history.comms[event.comm]
                sight = _sight(history, comm, event.operand)
                history.ends.append(End(history.rank, step, comm, event, sight))
            case LocallyRegistered():
                history.local.append(event)
            case Provided():
                history.provided[event.ident] = event
            case Ran():
                history.uses[-1] = replace(history.uses[-1], ran=event)
            case _:
                pass
    return history


def _on_communicator(
    history: History,
    event: CommCreated | CommDestroyed | Entered | RegistrationFailed | Registered | Deregistered,
    step: int,
) -> None:
    match event:
        case CommCreated():
            history.comms[event.comm] = event
        case CommDestroyed():
            history.destroyed[event.comm] = step
            # NCCL destroys a communicator's windows with it; none is inherited by the one that replaces it.
            for window in history.registrations(event.comm):
                if window.died is None:
                    history.ground.went(window)
                    window.died, window.is_gone_with_communicator = step, True
        case Entered():
            if event.call == "register":
                # Entered, not returned: a registration is collective, has no timeout, and may never come back.
                history.entered[event.comm] = history.entered.get(event.comm, 0) + 1
        case RegistrationFailed():
            history.entered[event.comm] -= 1  # the peers go on waiting for this rank
        case Registered():
            _registered(history, event, step)
        case Deregistered():
            window = history.windows[event.window]
            if window.is_live:
                history.ground.went(window)
            window.died = step


def _registered(history: History, event: Registered, step: int) -> None:
    # NCCL pairs the ranks' registrations by their order, and a null window takes a turn like any other.
    same = history._by_comm.setdefault(event.comm, [])
    comm, segment = history.comms[event.comm], history.segments.get(event.segment)
    window = WindowLife(event, comm, step, len(same), segment=segment)
    if event.comm in history.destroyed:  # no communicator is left that could find it
        window.came_after = history.destroyed[event.comm]
        window.died, window.is_gone_with_communicator = step, True
    met = history.ground.sound.meeting(event.address, window.end)
    if doubled := in_turn(kept(there[event.comm]) for _, there in met if event.comm in there):
        history.doubled[event.window] = doubled
    history.ground.registered(window)
    history.windows[event.window] = window
    same.append(window)


def _freed(history: History, event: SegmentFreed, step: int) -> None:
    segment = history.segments[event.segment]
    history.ground.freed(segment)
    segment.died, segment.windows_at_death = step, event.windows
    for ident in event.windows:
        window = history.windows[ident]
        if window.segment_freed_at is None:
            history.ground.sound.take(window.event.comm, window)
        window.segment_freed_at = step


def _sight(history: History, comm: CommCreated, operand: Operand) -> Sight:
    return see(comm, operand, history.ground)
