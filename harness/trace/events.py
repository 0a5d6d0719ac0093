"""Events: what happened on one rank, a class for each kind.

Invariant: an event states what happened on one rank and never judges it. Events are appended to the
rank's journal in shared memory as they happen, so the parent can read how far a rank came even after
it hung or died.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from harness.scenario.bases import Via
from harness.scenario.layouts.groups import Group, GroupId


class _Event(msgspec.Struct, frozen=True, array_like=True):
    pass


class Began(_Event, frozen=True, tag="began"):
    """The rank starts a step; every event up to the next `Began` belongs to it."""

    step: int


class Entered(_Event, frozen=True, tag="entered"):
    """The rank is about to block in a collective call on a communicator."""

    call: str
    comm: int


class Returned(_Event, frozen=True, tag="returned"):
    """The rank came out of a collective call that leaves no other event."""

    call: str
    comm: int


class Closing(_Event, frozen=True, tag="closing"):
    """The rank ran every step and waits for all others: first to close its policy, then to end."""


class Finished(_Event, frozen=True, tag="finished"):
    """The rank ran every step and gave everything back."""


class CommCreated(_Event, frozen=True, tag="comm"):
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


class CommDestroyed(_Event, frozen=True, tag="comm-destroyed"):
    """A communicator is gone, and its windows with it."""

    comm: int


class SegmentAllocated(_Event, frozen=True, tag="segment"):
    """A pool took a segment from the window-capable allocator. `segment` names it on this rank."""

    segment: int
    pool: str
    address: int
    size: int


class SegmentDenied(_Event, frozen=True, tag="segment-denied"):
    """The allocator refused a segment of this size."""

    pool: str
    size: int


class SegmentFreed(_Event, frozen=True, tag="segment-freed"):
    """A segment was freed; `windows` are those still live over it at that moment."""

    segment: int
    windows: tuple[int, ...]


class Registered(_Event, frozen=True, tag="registered"):
    """A registration of `size` bytes from `address` returned. `is_null`: it succeeded without a window.
    `is_symmetric`: it was asked for with the flag without which no symmetric kernel takes the window."""

    window: int
    comm: int
    segment: int
    address: int
    size: int
    is_null: bool
    is_symmetric: bool = True


class Unregistrable(_Event, frozen=True, tag="unregistrable"):
    """The harness was asked to let every registration of this segment fail on this rank."""

    segment: int


class RegistrationFailed(_Event, frozen=True, tag="registration-failed"):
    """A registration that the rank had entered failed on it, before it met its peers."""

    comm: int
    segment: int
    error: str


class Deregistered(_Event, frozen=True, tag="deregistered"):
    """A window was deregistered by itself, before its communicator went."""

    window: int


class Placed(_Event, frozen=True, tag="placed"):
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


class Dropped(_Event, frozen=True, tag="dropped"):
    """A buffer was released, and its block is back in the pool."""

    buffer: str


class Skipped(_Event, frozen=True, tag="skipped"):
    """The step did not run on this rank: a buffer it names could not be allocated."""

    buffer: str


class Exhausted(_Event, frozen=True, tag="exhausted"):
    """An allocation failed for want of memory."""

    buffer: str
    size: int


class Operand(msgspec.Struct, frozen=True, array_like=True):
    """Where a collective's operand lay: address and bytes of the view, and its buffer."""

    buffer: str
    address: int
    size: int


Kind = Literal[
    "all_gather",
    "reduce_scatter",
    "all_reduce",
    "all_to_all",
    "broadcast",
    "reduce",
    "gather",
    "scatter",
    "send",
    "recv",
]
"""What a call does. Draws make the first two alone."""
Role = Literal["source", "output"]
"""Which operand of a call."""


class Called(_Event, frozen=True, tag="called"):
    """A collective was called. Written before it runs, so that a call that never returns has its operands and its
    facts: all that the oracle knows of a call.

    comm     the communicator that runs it
    dtype    of an element, in torch's words
    op       how it reduces; None where it moves data alone
    counts   elements that each rank contributes or receives: one number, or one for each rank of the group, in its
             order, where they differ
    via      the library, or a kernel under test
    family   the name under which the call was made
    meant    the operands that were allocated to lie in a window
    claims   whether the caller relies on the symmetric path
    """

    comm: int
    source: Operand
    output: Operand
    kind: Kind
    dtype: str
    op: str | None
    counts: int | tuple[int, ...]
    via: Via
    family: str
    meant: tuple[Role, ...]
    claims: bool

    @property
    def is_uneven(self) -> bool:
        """Whether the ranks of the group differ in count, so that no symmetric kernel runs the call."""
        return isinstance(self.counts, tuple) and len({*self.counts}) > 1


class Ran(_Event, frozen=True, tag="ran"):
    """The collective returned. `path`: copy, symmetric, legacy, kernel or unknown. `evidence`: how it is known.
    `digest`: CRC-32 of the bytes that its output view then held, in a world with the evidence `digests`. `is_free`:
    NCCL chose the path by itself, so that one that owns its buffers may have gone either way."""

    path: str
    evidence: str
    digest: int | None = None
    is_free: bool = False


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """What the first `matched` of a run of `wrong` elements equal. By `kind`:

    zeros    zero
    input    what rank `ranks` had put in
    result   what rank `ranks` should have got of a reduction
    without  the reduction without `ranks`
    twice    the reduction with rank `ranks` counted twice
    mixed    the reduction with what rank `ranks` puts in at step `step`

    `step` is that of an earlier or later call, or -1. `shift`: how many elements further on in that data they are.
    """

    kind: str
    ranks: Group = ()
    step: int = -1
    shift: int = 0
    matched: int = 0
    wrong: int = 0


class Mismatch(_Event, frozen=True, tag="mismatch"):
    """Elements of an output view differ from the exact result; the first one is shown. `origin` is where it came from,
    if that is sure."""

    buffer: str
    elements: int
    of: int
    index: int
    chunk: int
    expected: str
    found: str
    origin: Origin | None = None


class _Elements(_Event, frozen=True):
    """So many elements `of` a view are not as they were; the first one is shown, before and after."""

    buffer: str
    elements: int
    of: int
    index: int
    before: str
    after: str


class Changed(_Elements, frozen=True, tag="changed"):
    """Elements of an output view changed after the call had returned."""


class Overwritten(_Event, frozen=True, tag="overwritten"):
    """Canaries of a buffer changed: `where` is front (in front of it), guard (behind it) or fence (beside an output
    view). Or replay: elements of a buffer that is no operand of the graph that ran."""

    buffer: str
    where: str
    index: int
    elements: int


class Touched(_Event, frozen=True, tag="touched"):
    """Bytes changed where no call may write: `changed` of those from `address` up to `end`, in a live buffer, or with
    no `buffer` in free memory of a segment. The first ones are shown, before and after. `when`: during the step's call
    or replay, or between the call before and this step. `segment` is -1 outside every pool."""

    when: str
    buffer: str
    segment: int
    address: int
    end: int
    changed: int
    before: str
    after: str


class SourceChanged(_Elements, frozen=True, tag="source-changed"):
    """Elements of a call's source, its output left out, are not as they were put there."""


class PadOverwritten(_Event, frozen=True, tag="pad-overwritten"):
    """Words beside this rank's pad of a group changed: `pad` is the signal pad or that of the barrier. `index` of the
    first from the pad's first word on, negative before it; `found`: what it held."""

    group: GroupId
    pad: str
    index: int
    words: int
    found: str


class Strayed(_Event, frozen=True, tag="strayed"):
    """Read through the peer pointer to `peer`'s part of a buffer, this is not the stamp that `peer` wrote there."""

    buffer: str
    peer: int
    found: str


class Differs(_Event, frozen=True, tag="differs"):
    """The symmetric and the legacy path left different bits in an output; the first ones are shown."""

    buffer: str
    elements: int
    of: int
    index: int
    symmetric: str
    legacy: str


class Replayed(_Event, frozen=True, tag="replayed"):
    """A graph ran again. What follows, up to the next step, was seen in the call that it captured at step
    `captured`."""

    captured: int


class Leaked(_Event, frozen=True, tag="leaked"):
    """Still there after the policy was closed and every buffer released."""

    what: str
    ident: int
    size: int


class Raised(_Event, frozen=True, tag="raised"):
    """The system under test raised; `where` is pool or collectives."""

    where: str
    error: str


Event = (
    Began
    | Entered
    | Returned
    | Closing
    | Finished
    | CommCreated
    | CommDestroyed
    | SegmentAllocated
    | SegmentDenied
    | SegmentFreed
    | Registered
    | Unregistrable
    | RegistrationFailed
    | Deregistered
    | Placed
    | Dropped
    | Skipped
    | Exhausted
    | Called
    | Ran
    | Mismatch
    | Changed
    | Overwritten
    | Touched
    | SourceChanged
    | PadOverwritten
    | Strayed
    | Differs
    | Replayed
    | Leaked
    | Raised
)


SMALL_SEGMENT = 2 << 20
"""Bytes of a segment that PyTorch cuts into blocks of up to 1 MiB. No other segment is so small, and no block of one
kind ever stands in for one of the other (`c10/cuda/CUDACachingAllocator.cpp`, `kSmallBuffer`)."""
