"""An account of a seed: all that its pictures show, as plain data.

Invariant: an account holds facts of one draw and their words, and no markup. The terminal, the page and the Perfetto
trace are made of the same account.
"""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal["done", "fails", "idle", "waits", "skipped", "unreached"]
"""What became of a step on a rank: it ran; the finding shows in it; the rank has no part in it; it never came out of
it; it could not run it; it never began it."""
Claim = Literal["owner", "other", "null", "gone", "stale", "wanted"]
"""What a registration is for the call: a window of its communicator; one of another; none, although it succeeded; one
that is gone; one over a segment that was freed; or one that the call wanted and that is not there."""
SpanKind = Literal["buffer", "operand", "damage", "reached", "earlier"]


class Member(msgspec.Struct, frozen=True):
    """A group of a family, and whether it makes the call, and owns the memory of the call."""

    name: str
    ranks: tuple[int, ...]
    calls: bool = False
    owns: bool = False


class Family(msgspec.Struct, frozen=True):
    """A family with its groups."""

    name: str
    members: tuple[Member, ...]


class Cell(msgspec.Struct, frozen=True):
    """What became of a step on a rank."""

    step: int
    state: State
    text: str = ""


class Life(msgspec.Struct, frozen=True):
    """A segment, a window or a buffer of a rank, from one step to another. `owner`: the communicator of a window, the
    pool of a segment. `died` is None for what was there at the end."""

    kind: Literal["segment", "window", "buffer"]
    name: str
    owner: str
    born: int
    died: int | None
    segment: int = -1
    size: int = 0
    is_null: bool = False


class Use(msgspec.Struct, frozen=True):
    """A call of a rank, and the windows by their names in `Life` that it found."""

    step: int
    text: str
    path: str
    windows: tuple[str, ...] = ()


class Lane(msgspec.Struct, frozen=True):
    """A rank: what became of each step, what lived on it, what it called, and how it ended."""

    rank: int
    cells: tuple[Cell, ...]
    lives: tuple[Life, ...]
    uses: tuple[Use, ...]
    fate: str


class Span(msgspec.Struct, frozen=True):
    """Bytes of a segment, counted from its first. `operand` is a view of the call, `damage` changed and should not
    have, `reached` is where the access of a peer lands, and `earlier` a buffer that was there before."""

    kind: SpanKind
    start: int
    end: int
    text: str


class Registration(msgspec.Struct, frozen=True):
    """A registration over bytes of a segment."""

    claim: Claim
    owner: str
    start: int
    end: int
    text: str


class Segment(msgspec.Struct, frozen=True):
    """A segment of a rank at one moment."""

    ident: int
    pool: str
    size: int
    spans: tuple[Span, ...]
    registrations: tuple[Registration, ...]


class RankMemory(msgspec.Struct, frozen=True):
    """The segments of a rank that matter to the call, a sentence on what is wrong there, and how many others it has."""

    rank: int
    segments: tuple[Segment, ...]
    sentence: str
    others: int = 0


class MemoryMap(msgspec.Struct, frozen=True):
    """The memory of ranks at the moment of a call, or at the end of a step without one."""

    moment: str
    wanted: str
    """The communicator that makes the call; empty where none does."""
    ranks: tuple[RankMemory, ...]
    left_out: int = 0
    """Ranks of the call that are not shown."""


class Turn(msgspec.Struct, frozen=True):
    """A registration of a communicator on one rank, by its place in their order. `is_made`: it came back."""

    text: str
    is_made: bool = True


class Turns(msgspec.Struct, frozen=True):
    """What each rank of a communicator registered, in order: NCCL pairs the ranks' registrations by that alone."""

    owner: str
    ranks: dict[int, tuple[Turn, ...]]


class Chunk(msgspec.Struct, frozen=True):
    """A part of an output: from where it should come, and its state. `unsure`: the trace
    does not say."""

    start: int
    end: int
    sender: str
    state: Literal["right", "wrong", "unsure"]


class Output(msgspec.Struct, frozen=True):
    """An output that came out wrong."""

    rank: int
    buffer: str
    call: str
    elements: int
    wrong: int
    index: int
    expected: str
    found: str
    origin: str
    chunks: tuple[Chunk, ...]


class Wait(msgspec.Struct, frozen=True):
    """Ranks in one place, and the ranks that they wait for."""

    ranks: tuple[int, ...]
    place: str
    awaited: tuple[int, ...]


NOT_RUN = ("not run",)
"""Stands for the rules of an outcome on a system that refused the scenario."""


class Outcome(msgspec.Struct, frozen=True):
    """The scenario on another system: the rules it broke there, and where that first differs from the seed's own."""

    system: str
    rules: tuple[str, ...]
    is_own: bool = False
    first_step: int | None = None
    difference: str = ""
    """Where it was not run: why."""

    @property
    def was_run(self) -> bool:
        return self.rules != NOT_RUN


class Line(msgspec.Struct, frozen=True):
    """A step of the program in words."""

    step: int
    kind: str
    text: str
    is_marked: bool = False
    shows: str = ""
    """Which finding shows in it, as a clause; empty where none does."""


class Verdict(msgspec.Struct, frozen=True):
    """What is wrong in one sentence, how it came about, what it costs, and the oracle's own argument."""

    rule: str
    rule_means: str
    headline: str
    why: str
    effect: str
    argument: str
    others: tuple[str, ...] = ()
    """Further findings of the same draw, as sentences."""
    also: tuple[tuple[str, str], ...] = ()
    """The rules of these, each with the first sentence of its first finding."""


class Account(msgspec.Struct, frozen=True):
    """All that is shown of a seed. Parts of a draw are empty where none was run, and `not_run` says why. What later
    versions add has a default, as the files of earlier runs lack it."""

    name: str
    command: str
    verdict: Verdict
    step: int
    families: tuple[Family, ...]
    places: tuple[str, ...]
    """Where ranks are, if that is more than one node."""
    program: tuple[Line, ...]
    system: dict[str, str]
    environment: dict[str, str]
    shows_at_end: str = ""
    """Which finding shows once all steps have run, as a clause; empty where none does."""
    note: str = ""
    ran_on: str = ""
    not_run: str = ""
    lanes: tuple[Lane, ...] = ()
    memory: MemoryMap | None = None
    turns: tuple[Turns, ...] = ()
    outputs: tuple[Output, ...] = ()
    waits: tuple[Wait, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    contrast: str = ""
    """Which part of the system makes the difference, by those outcomes."""
    stacks: tuple[str, ...] = ()
