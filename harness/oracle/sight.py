"""How a communicator sees an operand at the moment of a call: what its look-up finds, and what else lies there.

Invariant: a sight holds only windows and segments that were recorded before the call.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from harness.oracle.ground import Ground, Kept, in_turn, kept
from harness.oracle.lives import SegmentLife, WindowLife
from harness.trace.events import CommCreated, Operand


class Around(NamedTuple):
    """What else was there than the window that NCCL finds, as `Sight` tells it."""

    others: tuple[Kept, ...]
    beside: tuple[Kept, ...]
    nulls: tuple[Kept, ...]
    former: tuple[Kept, ...]


@dataclass(frozen=True)
class Sight:
    """How a communicator saw an operand when the call ran."""

    operand: Operand
    segment: SegmentLife | None
    window: WindowLife | None
    """The window that NCCL finds for the operand."""
    segment_freed_at: int | None
    """The step at which the segment had been freed under the window, if it had."""
    latest_former: WindowLife | None
    """The last of `former`."""
    around: Around

    @cached_property
    def others(self) -> tuple[WindowLife, ...]:
        """Live windows of other communicators over the operand's start."""
        return in_turn(self.around.others)

    @cached_property
    def beside(self) -> tuple[WindowLife, ...]:
        """Live windows of any communicator over other parts of the operand's segment."""
        return in_turn(self.around.beside)

    @cached_property
    def nulls(self) -> tuple[WindowLife, ...]:
        """Registrations of this communicator over the operand's start that gave no window."""
        return in_turn(self.around.nulls)

    @cached_property
    def former(self) -> tuple[WindowLife, ...]:
        """Windows of the same group over this memory that are gone; the latest comes last."""
        return in_turn(self.around.former)

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


def see(comm: CommCreated, operand: Operand, ground: Ground) -> Sight:
    """An operand as a communicator sees it now, on the ground of its rank."""
    segment, found = ground.segment(operand.address), _found(comm, operand, ground)
    around = Around(
        tuple(_of_others(comm, operand, ground)),
        tuple(_beside(segment, operand, ground)),
        tuple(_nulls(comm, operand, ground)),
        tuple(_former(comm, operand, ground)),
    )
    freed = None if found is None else found.segment_freed_at
    return Sight(operand, segment, found, freed, ground.latest(comm.id, operand.address), around)


def _found(comm: CommCreated, operand: Operand, ground: Ground) -> WindowLife | None:
    """The window that NCCL finds."""
    # NCCL looks a window up by start address alone, in the list of the communicator that runs the call: the one with
    # the highest base counts, and hides a larger one around it (2.32, ncclDevrFindWindow).
    best = ground.highest(comm.comm, operand.address)
    return best if best is not None and best.covers(operand.address) else None


def _of_others(comm: CommCreated, operand: Operand, ground: Ground) -> Iterator[Kept]:
    # A window serves the communicator it was registered with and no other, be it over the same ranks: NCCL refuses
    # a forced symmetric call on a buffer in the window of another (2.32.3, run on an H100).
    for there in ground.windows.covering(operand.address):
        yield from (kept(windows) for owner, windows in there.items() if owner != comm.comm)


def _beside(segment: SegmentLife | None, operand: Operand, ground: Ground) -> Iterator[Kept]:
    if segment is not None:
        for (start, end), there in ground.windows.meeting(segment.event.address, segment.end):
            if not start <= operand.address < end:
                yield from map(kept, there.values())


def _nulls(comm: CommCreated, operand: Operand, ground: Ground) -> Iterator[Kept]:
    # ncclCommWindowRegister returns ncclSuccess and a null window where the communicator has no symmetric support.
    return (kept(there[comm.comm]) for there in ground.nulls.covering(operand.address) if comm.comm in there)


def _former(comm: CommCreated, operand: Operand, ground: Ground) -> Iterator[Kept]:
    # By group: NCCL destroys windows with their communicator, and the one re-created in its place has another number.
    return (kept(there[comm.id]) for there in ground.gone.covering(operand.address) if comm.id in there)
