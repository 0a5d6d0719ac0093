"""A rank's trace read into what was alive when: segments, windows, buffers, and each collective's view of them.

Invariant: everything here follows from recorded events; nothing is looked up in the system under test.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from harness.scenario.layout import Group
from harness.trace.events import (
    Called,
    CommCreated,
    CommDestroyed,
    Deregistered,
    Dropped,
    Entered,
    Operand,
    Placed,
    Ran,
    Registered,
    SegmentAllocated,
    SegmentFreed,
)
from harness.trace.trace import Trace


@dataclass
class SegmentLife:
    event: SegmentAllocated
    born: int
    died: int | None = None
    windows_at_death: tuple[int, ...] = ()

    @property
    def end(self) -> int:
        return self.event.address + self.event.size


@dataclass
class WindowLife:
    event: Registered
    comm: CommCreated
    born: int
    ordinal: int
    died: int | None = None
    orphaned: int | None = None
    """The step at which the segment was freed under it."""
    lost: bool = False
    """Whether it went with its communicator, and not by being deregistered."""
    segment: SegmentLife | None = None

    @property
    def end(self) -> int:
        return self.event.address + self.event.size

    @property
    def mislaid(self) -> bool:
        """Whether it went without being deregistered: with its communicator, or before it with its segment."""
        gone = self.segment is not None and self.segment.died is not None
        return self.orphaned is not None or (self.lost and not gone)

    @property
    def live(self) -> bool:
        return self.died is None

    def covers(self, address: int) -> bool:
        return self.event.address <= address < self.end


@dataclass
class BufferLife:
    event: Placed
    born: int
    died: int | None = None


@dataclass(frozen=True)
class Sight:
    """How a communicator saw an operand when the call ran."""

    operand: Operand
    segment: SegmentLife | None
    window: WindowLife | None
    others: tuple[WindowLife, ...]
    nulls: tuple[WindowLife, ...]
    former: tuple[WindowLife, ...]
    """Windows of the same group over this memory that are gone; the latest comes last."""
    orphaned: int | None
    """The step at which the window's segment had been freed, if it had."""

    @property
    def whole(self) -> bool:
        """Whether the window reaches to the operand's end."""
        return self.window is not None and self.operand.address + self.operand.size <= self.window.end

    @property
    def place(self) -> tuple[int, int] | None:
        """(window ordinal, offset): equal on every rank of a group that may address its peers."""
        if self.window is None:
            return None
        return self.window.ordinal, self.operand.address - self.window.event.address


@dataclass(frozen=True)
class Use:
    """One collective on one rank."""

    rank: int
    step: int
    comm: CommCreated
    source: Sight
    output: Sight
    ran: Ran | None = None
    """What came of the call; None where it never returned."""


@dataclass
class History:
    """What one rank's trace says, in the order in which it happened."""

    trace: Trace
    comms: dict[int, CommCreated] = field(default_factory=dict)
    segments: dict[int, SegmentLife] = field(default_factory=dict)
    windows: dict[int, WindowLife] = field(default_factory=dict)
    buffers: dict[str, BufferLife] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    entered: dict[int, int] = field(default_factory=dict)
    """Registrations entered, by communicator; one more than were made where the rank is still in one."""
    live_at: dict[int, frozenset[int]] = field(default_factory=dict)
    """For each window, those that were live over live segments when it was registered."""

    @property
    def rank(self) -> int:
        return self.trace.rank

    def registrations(self, comm: int) -> list[WindowLife]:
        """Windows and null windows of a communicator, in order."""
        return [window for window in self.windows.values() if window.event.comm == comm]


def read(trace: Trace) -> History:
    """The history behind a trace."""
    history = History(trace)
    for step, event in trace.steps():
        match event:
            case CommCreated() | CommDestroyed() | Entered() | Registered() | Deregistered():
                _on_communicator(history, event, step)
            case SegmentAllocated():
                history.segments[event.segment] = SegmentLife(event, step)
            case SegmentFreed():
                _freed(history, event, step)
            case Placed():
                history.buffers[event.buffer] = BufferLife(event, step)
            case Dropped():
                history.buffers[event.buffer].died = step
            case Called():
                comm = history.comms[event.comm]
                source, output = _sight(history, comm, event.source), _sight(history, comm, event.output)
                history.uses.append(Use(history.rank, step, comm, source, output))
            case Ran():
                history.uses[-1] = replace(history.uses[-1], ran=event)
            case _:
                pass
    return history


def _on_communicator(
    history: History, event: CommCreated | CommDestroyed | Entered | Registered | Deregistered, step: int
) -> None:
    match event:
        case CommCreated():
            history.comms[event.comm] = event
        case CommDestroyed():
            for window in history.registrations(event.comm):
                if window.died is None:
                    window.died, window.lost = step, True
        case Entered():
            if event.call == "register":
                history.entered[event.comm] = history.entered.get(event.comm, 0) + 1
        case Registered():
            ordinal = len(history.registrations(event.comm))
            live = (w.event.window for w in history.windows.values() if w.live and w.orphaned is None)
            history.live_at[event.window] = frozenset(live)
            history.windows[event.window] = WindowLife(
                event, history.comms[event.comm], step, ordinal, segment=history.segments.get(event.segment)
            )
        case Deregistered():
            history.windows[event.window].died = step


def _freed(history: History, event: SegmentFreed, step: int) -> None:
    segment = history.segments[event.segment]
    segment.died, segment.windows_at_death = step, event.windows
    for ident in event.windows:
        history.windows[ident].orphaned = step


def _sight(history: History, comm: CommCreated, operand: Operand) -> Sight:
    """NCCL's look-up by start address, and everything else that lies over that address."""
    over = [window for window in history.windows.values() if window.covers(operand.address)]
    own = [w for w in history.windows.values() if w.event.comm == comm.comm and w.live and not w.event.is_null]
    below = [window for window in own if window.event.address <= operand.address]
    best = max(below, key=lambda window: window.event.address, default=None)
    window = best if best is not None and best.covers(operand.address) else None
    segments = (s for s in history.segments.values() if s.died is None)
    return Sight(
        operand,
        next((s for s in segments if s.event.address <= operand.address < s.end), None),
        window,
        tuple(w for w in over if w.event.comm != comm.comm and w.live and not w.event.is_null),
        tuple(w for w in over if w.event.comm == comm.comm and w.live and w.event.is_null),
        tuple(w for w in over if w.comm.group == comm.group and not w.live and not w.event.is_null),
        None if window is None else window.orphaned,
    )


def group_name(families: dict[str, tuple[Group, ...]], group: Group) -> str:
    """Such as `tp[0,1,2,3]`, under the first family that has the group."""
    family = next((name for name, partition in families.items() if group in partition), "group")
    return f"{family}[{','.join(map(str, group))}]"
