"""Programs: the steps of one draw as frozen data, and the scenario that carries them.

Invariant: a `Scenario` that exists can be executed. Steps run in list order on every rank, each rank
acting in its own group of the family a step names (SPMD by construction). `harness.scenario.validity` refuses
everything else when a scenario is built, naming the step and the reason.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from harness.errors import UsageError
from harness.scenario.layout import Group
from harness.scenario.operands import DType, Elements, View, at

Op = Literal["sum", "avg", "max"]
Via = Literal["library", "kernel"]
STREAMS = 3
"""Streams that steps may choose from; graphs are captured on one more."""


class ProgramError(UsageError):
    """A program that cannot be built; the message names the step and the reason."""


class _Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind"):
    @property
    def kind(self) -> str:
        """The step's name in programs, traces and reports."""
        return str(self.__struct_config__.tag)


class Allocate(_Step, frozen=True, tag="allocate"):
    """Collective over `family`: allocate `buffer` (elements, one count or one for each rank).

    Role `window`: through a buffer site, under the pool policy, for collectives of `family`; `site` says which
    one (`harness.system.sites`). Role `plain`: ordinary memory. The block belongs to `stream` and returns there, once
    the other streams that used it are done.
    """

    buffer: str
    family: str
    elements: Elements
    dtype: DType = "float32"
    role: Literal["window", "plain"] = "window"
    site: Literal["local", "global"] = "local"
    stream: int = 0


class Release(_Step, frozen=True, tag="release"):
    """Local on every rank that holds it: drop `buffer`."""

    buffer: str


class AllGather(_Step, frozen=True, tag="all_gather"):
    """Collective over `family`: `count` elements of each rank's `source`, in group rank order, to `output`.

    Without `source` the call is in place: rank i's input is chunk i of the output. Counts may differ between the
    ranks of a group; such a call is one broadcast a rank, which no symmetric kernel runs. `claim` says that the
    caller relies on the symmetric path. The call runs on `stream`.
    """

    family: str
    output: View
    count: Elements
    source: View | None = None
    via: Via = "library"
    claim: bool = False
    stream: int = 0

    @property
    def whole(self) -> View:
        """The operand with a chunk for every rank, through which ranks reach each other."""
        return self.output

    @property
    def part(self) -> View | None:
        """The operand of one chunk; None in place."""
        return self.source


class ReduceScatter(_Step, frozen=True, tag="reduce_scatter"):
    """Collective over `family`: reduce `size·count` elements of each rank's `source`, chunk i to rank i's `output`.

    Without `output` the call is in place: rank i's result is chunk i of the source. Counts may differ between the
    ranks of a group; such a call is one reduction a rank, which no symmetric kernel runs.
    """

    family: str
    source: View
    count: Elements
    output: View | None = None
    op: Op = "sum"
    via: Via = "library"
    claim: bool = False
    stream: int = 0

    @property
    def whole(self) -> View:
        """The operand with a chunk for every rank, through which ranks reach each other."""
        return self.source

    @property
    def part(self) -> View | None:
        """The operand of one chunk; None in place."""
        return self.output


class Ballast(_Step, frozen=True, tag="ballast"):
    """Local: `rank` alone allocates `size` bytes in its pool of `family` and keeps them as `buffer`."""

    buffer: str
    family: str
    rank: int
    size: int


class Trim(_Step, frozen=True, tag="trim"):
    """Local on every rank: pools in which nothing is in use return their segments."""


class Recreate(_Step, frozen=True, tag="recreate"):
    """Collective over the world: destroy and re-create the communicators of `family`."""

    family: str


class Straggle(_Step, frozen=True, tag="straggle"):
    """Local: `rank` pauses for `milliseconds` before its next step."""

    rank: int
    milliseconds: int


class Deny(_Step, frozen=True, tag="deny"):
    """Local: the next segment allocation of `rank` fails as if the memory were used up."""

    rank: int


class Steady(_Step, frozen=True, tag="steady"):
    """On every rank: what follows repeats what pools have met twice, so that they need not grow; up to the next one
    with `begins` false."""

    begins: bool = True


class Prepare(_Step, frozen=True, tag="prepare"):
    """On every rank: what follows, up to the end of `graph`'s capture, is for that graph. First its warm-up."""

    graph: str


class Capture(_Step, frozen=True, tag="capture"):
    """On every rank: begin to capture `graph`. Until it ends only allocate, release and library collectives follow.

    A collective is captured together with what fills its source and takes away its output.
    """

    graph: str


class EndCapture(_Step, frozen=True, tag="end_capture"):
    """On every rank: `graph` is captured."""

    graph: str


class Replay(_Step, frozen=True, tag="replay"):
    """Collective over the groups of what was captured: run `graph` on new values, on the same addresses."""

    graph: str


GraphStep = Prepare | Capture | EndCapture | Replay
Step = Allocate | Release | AllGather | ReduceScatter | Ballast | Trim | Recreate | Straggle | Deny | Steady | GraphStep
Collective = AllGather | ReduceScatter


def counts_in(step: Collective, group: Group) -> tuple[int, ...]:
    """The elements that each rank of a group contributes or receives, in group order."""
    return tuple(at(step.count, rank) for rank in group)


def is_uneven(step: Collective, group: Group) -> bool:
    """Whether the ranks of a group differ in count, so that no symmetric kernel runs the call."""
    return len(set(counts_in(step, group))) > 1
