"""Steps: what a program does, one frozen record each, and what each step touches.

Invariant: any step can be asked which family, graph, stream, rank and buffers it concerns, without a look at its kind.
Steps run in list order on every rank. A step that names a family runs in its groups, or in those of `groups`; a rank
that is in none of them goes on. So groups may run their steps in different orders, and never wait for each other in a
circle.

A new kind of step is a class here, or in `harness.scenario.collectives`, and a member of `Step`;
`harness.scenario.validity` says when it may run, and `harness.rank.executor` runs it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from harness.errors import UsageError
from harness.scenario.bases import BaseStep, CollectiveStep, Op, Via
from harness.scenario.collectives import (
    AllGather,
    AllReduce,
    AllToAll,
    Broadcast,
    Collective,
    Reduce,
    ReduceScatter,
    SendReceive,
)
from harness.scenario.layouts.groups import Groups
from harness.scenario.operands import DType, Elements, View

__all__ = [  # plug-ins and tests of users import from here what they always did
    "STREAMS",
    "AllGather",
    "AllReduce",
    "AllToAll",
    "Allocate",
    "Allocation",
    "Ballast",
    "Broadcast",
    "Capture",
    "Collective",
    "CollectiveStep",
    "DType",
    "Deny",
    "EndCapture",
    "GraphStep",
    "InFlight",
    "Op",
    "Prepare",
    "ProgramError",
    "Recreate",
    "Reduce",
    "ReduceScatter",
    "Refuse",
    "Release",
    "Replay",
    "SendReceive",
    "Stall",
    "Steady",
    "Step",
    "Straggle",
    "Trim",
    "Via",
    "View",
    "same_on_all",
]

STREAMS = 3
"""Streams that steps may choose from; graphs are captured on one more."""


class ProgramError(UsageError):
    """A program that cannot be built; the message names the step and the reason."""


class Allocate(BaseStep, frozen=True, tag="allocate"):
    """Collective over `family`: allocate `buffer` (elements, one count or one for each rank).

    Role `window`: through a buffer site, under the pool policy, for collectives of `family`; `site` says which
    one (`harness.system.sites`). Role `plain`: ordinary memory. The block belongs to `stream` and returns there, once
    the other streams that used it are done.

    `registered` takes the place of the policy, as in a program made of a recording: the buffer has a segment of its
    own, which each rank registers with its groups of these families, in this order. One list for all ranks, or one for
    each. `lead` elements of the segment lie in front of it.
    """

    buffer: str
    family: str
    elements: Elements
    dtype: DType = "float32"
    role: Literal["window", "plain"] = "window"
    site: Literal["local", "global"] = "local"
    stream: int = 0
    groups: Groups | None = None
    registered: tuple[tuple[str, ...], ...] | None = None
    lead: Elements = 0

    per_rank = ("elements", "lead")

    @property
    def other_families(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for names in self.registered or () for name in names))

    def registered_on(self, rank: int) -> tuple[str, ...]:
        """The families with whose groups a rank registers the segment."""
        names = self.registered or ((),)
        return names[0] if len(names) == 1 else names[rank]

    @property
    def allocates(self) -> str:
        return self.buffer


def same_on_all(lists: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    """What each rank registers, as `Allocate.registered` has it: one list where those of all ranks are equal."""
    return lists[:1] if len(set(lists)) == 1 else lists


class Release(BaseStep, frozen=True, tag="release"):
    """Local on every rank that holds it: drop `buffer`."""

    buffer: str

    @property
    def drops(self) -> str:
        return self.buffer


class Ballast(BaseStep, frozen=True, tag="ballast"):
    """Local: `rank` alone allocates `size` bytes in its pool of `family` and keeps them as `buffer`.

    `groups`: where the rank is in several groups of the family, the one whose pool it is.
    """

    buffer: str
    family: str
    rank: int
    size: int
    groups: Groups | None = None

    @property
    def allocates(self) -> str:
        return self.buffer

    @property
    def elements(self) -> int:
        return self.size

    @property
    def dtype(self) -> Literal["uint8"]:
        return "uint8"

    @property
    def role(self) -> Literal["window"]:
        """Pools serve it like any buffer for windows."""
        return "window"


class Trim(BaseStep, frozen=True, tag="trim"):
    """Local on every rank: pools in which nothing is in use return their segments."""


class Recreate(BaseStep, frozen=True, tag="recreate"):
    """Collective over the world: destroy and re-create the communicators of `family`."""

    family: str


class Straggle(BaseStep, frozen=True, tag="straggle"):
    """Local: `rank` pauses for `milliseconds` before its next step."""

    rank: int
    milliseconds: int


class Stall(BaseStep, frozen=True, tag="stall"):
    """Local: what `rank` enqueues on `stream` after this waits on the device for `milliseconds`; the host goes on."""

    rank: int
    milliseconds: int
    stream: int = 0


class InFlight(BaseStep, frozen=True, tag="in_flight"):
    """On every rank: the calls that follow are made without waiting for those before, up to the next one with `begins`
    false, or the end. There every rank waits for all of them, and looks at what they left.

    Only allocate, release, collectives, straggle and stall may be in between. What nothing orders is refused: a buffer,
    or kernels of a communicator, on two streams. Library calls of a communicator may be on several: NCCL has each wait
    for the one before (`ncclLaunchPrepare` and `ncclLaunchFinish` in `src/enqueue.cc`). Its User Guide ("Using multiple
    NCCL communicators concurrently") has those of several communicators run at once where every rank makes them in one
    order, which steps do.
    """

    begins: bool = True


class Deny(BaseStep, frozen=True, tag="deny"):
    """Local: the next segment allocation of `rank` fails as if the memory were used up."""

    rank: int


class Refuse(BaseStep, frozen=True, tag="refuse"):
    """Local: the next segment that `rank` wants a window over cannot be registered on it, with any communicator."""

    rank: int


class Steady(BaseStep, frozen=True, tag="steady"):
    """On every rank: what follows repeats what pools have met twice, so that they need not grow; up to the next one
    with `begins` false."""

    begins: bool = True


class GraphStep(BaseStep, frozen=True):
    """On every rank: one act on `graph`."""

    graph: str


class Prepare(GraphStep, frozen=True, tag="prepare"):
    """What follows, up to the end of `graph`'s capture, is for that graph. First its warm-up."""


class Capture(GraphStep, frozen=True, tag="capture"):
    """Begin to capture `graph`. Until it ends only allocate, release and collectives follow.

    A collective is captured together with what fills its source and takes away its output. One by a kernel follows a
    call like it in the warm-up. The library makes it where the kernels under test do not say that graphs may hold them.
    """


class EndCapture(GraphStep, frozen=True, tag="end_capture"):
    """`graph` is captured."""


class Replay(GraphStep, frozen=True, tag="replay"):
    """Collective over the groups of what was captured: run `graph` on new values, on the same addresses."""


Step = (
    Allocate
    | Release
    | Collective
    | Ballast
    | Trim
    | Recreate
    | Straggle
    | Stall
    | InFlight
    | Deny
    | Refuse
    | Steady
    | Prepare
    | Capture
    | EndCapture
    | Replay
)
Allocation = Allocate | Ballast
"""The steps that make a buffer."""


def of_one_size(steps: Iterable[Step]) -> tuple[Step, ...]:
    """The steps with buffers that are on all ranks as large as on any."""
    return tuple(
        msgspec.structs.replace(step, elements=max(step.elements))
        if isinstance(step, Allocate) and not isinstance(step.elements, int)
        else step
        for step in steps
    )
