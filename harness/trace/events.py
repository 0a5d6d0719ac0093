"""Events: what happened on one rank, a class for each kind.

Invariant: an event states what happened on one rank and never judges it. Events are appended to the
rank's journal in shared memory as they happen, so the parent can read how far a rank came even after
it hung or died.
"""

from __future__ import annotations

from harness.scenario.layouts.groups import Group, GroupId
from harness.trace.accesses import Accessed, Met, Relaxed, Scheduled, Synced
from harness.trace.bases import BaseEvent
from harness.trace.calls import Called, Kind, Operand, PointToPoint, Ran, Role
from harness.trace.damage import (
    Changed,
    Differs,
    Lost,
    Mismatch,
    Origin,
    Overwritten,
    PadOverwritten,
    Provision,
    SourceChanged,
    Strayed,
    Touched,
    Unmapped,
    WorkspaceOverwritten,
)

__all__ = [
    "SMALL_SEGMENT",
    "Accessed",
    "Awaited",
    "Began",
    "Called",
    "Changed",
    "Closing",
    "CommCreated",
    "CommDestroyed",
    "Deregistered",
    "Differs",
    "Dropped",
    "Entered",
    "Event",
    "Exhausted",
    "Finished",
    "Kind",
    "Leaked",
    "LocallyRegistered",
    "Lost",
    "Met",
    "Mismatch",
    "Operand",
    "Origin",
    "Overwritten",
    "PadOverwritten",
    "Placed",
    "PointToPoint",
    "Provided",
    "Provision",
    "Raised",
    "Ran",
    "Registered",
    "RegistrationFailed",
    "Relaxed",
    "Replayed",
    "Returned",
    "Role",
    "SegmentAllocated",
    "SegmentDenied",
    "SegmentFreed",
    "Skipped",
    "SourceChanged",
    "Strayed",
    "Touched",
    "Unmapped",
    "Unregistrable",
    "WorkspaceOverwritten",
]


class Began(BaseEvent, frozen=True, tag="began"):
    """The rank starts a step; every event up to the next `Began` belongs to it."""

    step: int


class Entered(BaseEvent, frozen=True, tag="entered"):
    """The rank is about to block in a collective call on a communicator. `capture`: the capture that a registration of
    a watched program was made in, such as `capture 2 (train.py:40 step)`. Of a draw, its program says that."""

    call: str
    comm: int
    capture: str = ""


class Returned(BaseEvent, frozen=True, tag="returned"):
    """The rank came out of a collective call that leaves no other event."""

    call: str
    comm: int


class Provided(BaseEvent, frozen=True, tag="provided"):
    """The rank came out of a call in which the harness made a workspace or flags of `nbytes` for a plug-in, and its
    peers on that communicator did so, too. `ident` names it on this rank, in the series of windows."""

    ident: int
    comm: int
    what: Provision
    nbytes: int


class Closing(BaseEvent, frozen=True, tag="closing"):
    """The rank ran every step and waits for all others: first to close its policy, then to end."""


class Finished(BaseEvent, frozen=True, tag="finished"):
    """The rank ran every step and gave everything back."""


class CommCreated(BaseEvent, frozen=True, tag="comm"):
    """A communicator came into being. `comm` names it on this rank; `has_windows`: it supports windows.
    `number`: which one over these ranks it is."""

    comm: int
    group: Group
    generation: int
    has_windows: bool
    number: int = 0

    @property
    def id(self) -> GroupId:
        """The group with its communicator, whichever generation this is."""
        return GroupId(self.group, self.number)


class CommDestroyed(BaseEvent, frozen=True, tag="comm-destroyed"):
    """A communicator is gone, and its windows with it."""

    comm: int


class SegmentAllocated(BaseEvent, frozen=True, tag="segment"):
    """A pool took a segment from the window-capable allocator. `segment` names it on this rank."""

    segment: int
    pool: str
    address: int
    size: int


class SegmentDenied(BaseEvent, frozen=True, tag="segment-denied"):
    """The allocator refused a segment of this size."""

    pool: str
    size: int


class SegmentFreed(BaseEvent, frozen=True, tag="segment-freed"):
    """A segment was freed; `windows` are those still live over it at that moment."""

    segment: int
    windows: tuple[int, ...]


class Registered(BaseEvent, frozen=True, tag="registered"):
    """A registration of `size` bytes from `address` returned. `is_null`: it succeeded without a window.
    `is_symmetric`: it was asked for with the flag without which no symmetric kernel takes the window."""

    window: int
    comm: int
    segment: int
    address: int
    size: int
    is_null: bool
    is_symmetric: bool = True


class LocallyRegistered(BaseEvent, frozen=True, tag="locally-registered"):
    """A watched program registered memory with a communicator by `ncclCommRegister`, which gives no window. Until when
    is not known."""

    comm: int
    address: int
    size: int


class Unregistrable(BaseEvent, frozen=True, tag="unregistrable"):
    """The harness was asked to let every registration of this segment fail on this rank."""

    segment: int


class RegistrationFailed(BaseEvent, frozen=True, tag="registration-failed"):
    """A registration that the rank had entered failed on it, before it met its peers."""

    comm: int
    segment: int
    error: str


class Deregistered(BaseEvent, frozen=True, tag="deregistered"):
    """A window was deregistered by itself, before its communicator went."""

    window: int


class Placed(BaseEvent, frozen=True, tag="placed"):
    """A buffer was allocated. `segment` is -1 for memory outside every pool; `named` the group that the
    buffer site named to the pool policy, empty for ordinary memory. `is_declined`: the policy was asked and did not
    want the buffer, so that it is in ordinary memory. The program has `body` bytes of it, behind `front` bytes of
    canaries."""

    buffer: str
    segment: int
    address: int
    size: int
    named: GroupId = GroupId(())
    is_declined: bool = False
    front: int = 0
    body: int = 0


class Dropped(BaseEvent, frozen=True, tag="dropped"):
    """A buffer was released, and its block is back in the pool."""

    buffer: str


class Skipped(BaseEvent, frozen=True, tag="skipped"):
    """The step did not run on this rank: a buffer it names could not be allocated."""

    buffer: str


class Exhausted(BaseEvent, frozen=True, tag="exhausted"):
    """An allocation failed for want of memory."""

    buffer: str
    size: int


class Replayed(BaseEvent, frozen=True, tag="replayed"):
    """A graph ran again. What follows, up to the next step, was seen in the call that it captured at step
    `captured`."""

    captured: int


class Awaited(BaseEvent, frozen=True, tag="awaited"):
    """Nothing is in flight any more. What follows, up to the next of these or the next step, was seen in the call at
    step `call`, or now, if that is this step. `digest`: that of the call's output, as `Ran` has it."""

    call: int
    digest: int | None = None


class Leaked(BaseEvent, frozen=True, tag="leaked"):
    """Still there after the policy was closed and every buffer released."""

    what: str
    ident: int
    size: int


class Raised(BaseEvent, frozen=True, tag="raised"):
    """The system under test raised; `where` is pool or collectives."""

    where: str
    error: str


Event = (
    Began
    | Entered
    | Returned
    | Provided
    | Closing
    | Finished
    | CommCreated
    | CommDestroyed
    | SegmentAllocated
    | SegmentDenied
    | SegmentFreed
    | Registered
    | LocallyRegistered
    | Unregistrable
    | RegistrationFailed
    | Deregistered
    | Placed
    | Dropped
    | Skipped
    | Exhausted
    | Called
    | PointToPoint
    | Ran
    | Mismatch
    | Changed
    | Overwritten
    | Touched
    | SourceChanged
    | Lost
    | PadOverwritten
    | WorkspaceOverwritten
    | Unmapped
    | Strayed
    | Differs
    | Replayed
    | Awaited
    | Leaked
    | Raised
    | Scheduled
    | Accessed
    | Synced
    | Relaxed
    | Met
)


SMALL_SEGMENT = 2 << 20
"""Bytes of a segment that PyTorch cuts into blocks of up to 1 MiB. No other segment is so small, and no block of one
kind ever stands in for one of the other (`c10/cuda/CUDACachingAllocator.cpp`, `kSmallBuffer`)."""
