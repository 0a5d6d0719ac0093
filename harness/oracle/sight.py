"""How a communicator sees an operand at the moment of a call: what its look-up finds, and what else lies there.

Invariant: a sight holds only windows and segments that were recorded before the call.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.oracle.lives import SegmentLife, WindowLife
from harness.trace.events import CommCreated, Operand


@dataclass(frozen=True)
class Sight:
    """How a communicator saw an operand when the call ran."""

    operand: Operand
    segment: SegmentLife | None
    window: WindowLife | None
    """The window that NCCL finds for the operand."""
    others: tuple[WindowLife, ...]
    """Live windows of other communicators over the operand's start."""
    beside: tuple[WindowLife, ...]
    """Live windows of any communicator over other parts of the operand's segment."""
    nulls: tuple[WindowLife, ...]
    """Registrations of this communicator over the operand's start that gave no window."""
    former: tuple[WindowLife, ...]
    """Windows of the same group over this memory that are gone; the latest comes last."""
    segment_freed_at: int | None
    """The step at which the segment had been freed under the window, if it had."""

    @property
    def is_whole(self) -> bool:
        """Whether the window reaches to the operand's end."""
        return self.window is not None and self.operand.address + self.operand.size <= self.window.end

    @property
    def place(self) -> tuple[int, int] | None:
        """(window ordinal, offset from the base of the window's segment): equal on every rank of a group that may
        address its peers. Where a window covers a part alone, NCCL adds that part's own offset on this rank."""
        if self.window is None:
            return None
        return self.window.ordinal, self.operand.address - self.window.base


def see(comm: CommCreated, operand: Operand, windows: Iterable[WindowLife], segments: Iterable[SegmentLife]) -> Sight:
    """An operand as a communicator sees it now, of all windows and segments that its rank has had so far."""
    windows = [*windows]
    segment = _segment(operand, segments)
    below = [window for window in windows if window.event.address <= operand.address]
    over = [window for window in below if window.covers(operand.address)]
    found = _found(comm, operand, below)
    return Sight(
        operand,
        segment,
        found,
        _of_others(comm, over),
        _beside(segment, operand, windows),
        _nulls(comm, over),
        _former(comm, over),
        None if found is None else found.segment_freed_at,
    )


def _segment(operand: Operand, segments: Iterable[SegmentLife]) -> SegmentLife | None:
    """The live segment in which an operand starts."""
    # Only live ones: ncclMemAlloc and cudaMalloc give the address of a freed segment out again.
    return next((segment for segment in segments if segment.is_live and segment.covers(operand.address)), None)


def _found(comm: CommCreated, operand: Operand, below: list[WindowLife]) -> WindowLife | None:
    """The window that NCCL finds, of all that start at or below the operand."""
    # NCCL looks a window up by start address alone, in the list of the communicator that runs the call: the one with
    # the highest base counts, and hides a larger one around it (2.32, ncclDevrFindWindow).
    own = [window for window in below if window.is_window and window.event.comm == comm.comm]
    best = max(own, key=lambda window: window.event.address, default=None)
    return best if best is not None and best.covers(operand.address) else None


def _of_others(comm: CommCreated, over: list[WindowLife]) -> tuple[WindowLife, ...]:
    # A window serves the communicator it was registered with and no other, be it over the same ranks: NCCL refuses
    # a forced symmetric call on a buffer in the window of another (2.32.3, run on an H100).
    return tuple(window for window in over if window.is_window and window.event.comm != comm.comm)


def _beside(segment: SegmentLife | None, operand: Operand, windows: Iterable[WindowLife]) -> tuple[WindowLife, ...]:
    if segment is None:
        return ()
    return tuple(
        window
        for window in windows
        if window.is_window
        and window.event.address < segment.end
        and segment.event.address < window.end
        and not window.covers(operand.address)
    )


def _nulls(comm: CommCreated, over: list[WindowLife]) -> tuple[WindowLife, ...]:
    # ncclCommWindowRegister returns ncclSuccess and a null window where the communicator has no symmetric support.
    return tuple(
        window for window in over if window.is_live and window.event.is_null and window.event.comm == comm.comm
    )


def _former(comm: CommCreated, over: list[WindowLife]) -> tuple[WindowLife, ...]:
    # By group: NCCL destroys windows with their communicator, and the one re-created in its place has another number.
    gone = (window for window in over if not window.is_live and not window.event.is_null)
    return tuple(each for each in gone if each.comm.number == comm.number and each.comm.group == comm.group)
