"""Events of collectives: what was called on which memory, and which path it took.

Invariant: a call is written before it runs, with all that the oracle knows of it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from harness.scenario.bases import Role, Via
from harness.trace.bases import BaseEvent


class Operand(msgspec.Struct, frozen=True, array_like=True):
    """Where a collective's operand lay: address and bytes of the view, and its buffer."""

    buffer: str
    address: int
    size: int


__all__ = ["Called", "Kind", "Operand", "PointToPoint", "Ran", "Role"]
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
    "send_receive",
]
"""What a call does. A draw makes sends and receives together, and no gather or scatter."""


class Called(BaseEvent, frozen=True, tag="called"):
    """A collective was called. Written before it runs, so that a call that never returns has its operands and its
    facts: all that the oracle knows of a call.

    comm     the communicator that runs it
    dtype    of an element, in torch's words
    op       how it reduces; None where it moves data alone
    counts   elements that each rank contributes or receives, of an all-to-all all that it sends: one number, or one
             for each rank of the group, in its order, where they differ
    via      the library, or a kernel under test, where it runs such calls
    family   the name under which the call was made
    pulls    whether peers read the source, beside the operands that a call of that kind has for them
    meant    the operands that were allocated to lie in a window
    claims   whether the caller relies on the symmetric path
    sent     elements that this rank sends to each rank of the group, in its order, where the call is one send and one
             receive a pair of ranks; None where it is not, or not known, and where a watched program captured the
             call, so that it sends nothing now
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
    sent: tuple[int, ...] | None = None
    pulls: bool = False

    @property
    def is_uneven(self) -> bool:
        """Whether the ranks of the group differ in count, so that no symmetric kernel runs the call."""
        return isinstance(self.counts, tuple) and len({*self.counts}) > 1

    @property
    def is_empty(self) -> bool:
        """Whether no rank of the group has an element, so that NCCL returns at once."""
        return self.counts == 0


class PointToPoint(BaseEvent, frozen=True, tag="point-to-point"):
    """The rank made one end of a send: it sends, or it receives. Of watched programs alone, outside of captures, and
    only where the other end was recorded, too. A draw makes its sends and receives together (`Called`).

    comm              the communicator
    operand           what is sent, or where it is received
    sender, receiver  ranks of the world, of which this rank is one
    number            which of the sends from the one to the other it is, on that communicator: the same at both ends
    """

    comm: int
    operand: Operand
    sender: int
    receiver: int
    number: int


class Ran(BaseEvent, frozen=True, tag="ran"):
    """The collective returned. `path`: copy, symmetric, copy engine, legacy, kernel or unknown. `evidence`: how it is
    known. `digest`: CRC-32 of the bytes that its output view then held, in a world with the evidence `digests`.
    `is_free`: NCCL chose the path by itself, so that one that owns its buffers may have gone either way. `alike`: the
    CRC-32 of an output for which several results are right, and which every rank owes alike. `is_unsupported`: the
    plug-in refused the call by `Unsupported`, so that the library made it."""

    path: str
    evidence: str
    digest: int | None = None
    is_free: bool = False
    alike: int | None = None
    is_unsupported: bool = False
