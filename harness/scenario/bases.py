"""The bases of steps: what every step can be asked, and what every collective can.

Invariant: who asks a step which family, graph, stream, rank or buffers it concerns needs no look at its kind. So a new
kind of step brings its answers along, and what reads programs stays as it is.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal, NamedTuple

import msgspec

from harness.scenario.layouts.groups import Group, Groups
from harness.scenario.operands import Elements, View, at

Op = Literal["sum", "avg", "max", "min"]
Via = Literal["library", "kernel", "copy-engine"]
Role = Literal["source", "output"]
"""Which operand of a call."""


COPIED: tuple[Role, ...] = ("output",)
"""The operands through which copy engines reach other ranks: they write into the peers' outputs. NCCL 2.32.3, asked on
an H100, takes them where the output lies in a window."""
STAGED_BYTES = 16384
"""Of a send from one rank to another, up to which NCCL moves it through buffers of its own, so that it does not matter
who registered what (`NCCL_P2P_LL_THRESHOLD`, 2.30.7; a second channel begins at 64 KiB)."""


class Lengths(NamedTuple):
    """Elements that a rank reads and writes, behind the offsets of its views."""

    source: int
    output: int


class BaseStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind"):
    """What every step can be asked. A kind that has a field of such a name answers with it, in place of the default."""

    per_rank: ClassVar[tuple[str, ...]] = ()
    """The fields that hold one count for all ranks, or one for each."""

    @property
    def kind(self) -> str:
        """The step's name in programs, traces and reports."""
        return str(self.__struct_config__.tag)

    @property
    def family(self) -> str | None:
        """The family that it names, if it names one."""
        return None

    @property
    def other_families(self) -> tuple[str, ...]:
        """Further families whose communicators it uses."""
        return ()

    @property
    def groups(self) -> Groups | None:
        """The groups of that family that act, of which no two have a rank in common. None: all of them."""
        return None

    @property
    def graph(self) -> str | None:
        """The graph that it names, if it names one."""
        return None

    @property
    def rank(self) -> int | None:
        """The rank that acts alone; None where every rank acts."""
        return None

    @property
    def stream(self) -> int:
        """The stream that it runs on."""
        return 0

    @property
    def allocates(self) -> str | None:
        """The buffer that it makes, if it makes one."""
        return None

    @property
    def drops(self) -> str | None:
        """The buffer that it drops, if it drops one."""
        return None

    @property
    def views(self) -> tuple[View, ...]:
        """The views that it reads or writes."""
        return ()

    @property
    def buffers(self) -> frozenset[str]:
        """The names of all buffers that it makes, drops, reads or writes."""
        names = (self.allocates, self.drops, *(view.buffer for view in self.views))
        return frozenset(name for name in names if name is not None)


class CollectiveStep(BaseStep, frozen=True):
    """A call that every rank of a group takes part in, on `stream`.

    Without its `part` the call is in place: the part lies in the whole (`part_in_whole`). Counts may differ between the
    ranks of a group, unless `has_one_count`; no symmetric kernel runs such a call. `claim` says that the caller relies
    on the symmetric path.
    """

    per_rank = ("count",)
    whole_operand: ClassVar[Role]
    """The operand that is always given. Where one has a chunk for every rank, it is that one."""
    peer_operands: ClassVar[tuple[Role, ...]] = ()
    """The operands through which NCCL's symmetric kernels reach other ranks; none where it has no such kernel.

    NCCL 2.32.3 was forced on an H100: to `SYMK_ST` for all-gathers, to `SYMK_LD` for reduce-scatters, and to
    `SYMK_AGxLL_R` and `SYMK_RSxLD_AGxST` for all-reduces, which it refused with either operand outside. It refused
    every symmetric kernel for all-to-alls and broadcasts.
    """
    has_one_count: ClassVar[bool] = False
    """Whether all ranks of a group have the same count."""
    has_kernels: ClassVar[bool] = True
    """Whether a plug-in may run it."""
    has_copies: ClassVar[bool] = False
    """Whether NCCL can move it by copy engines (`ncclCeImplemented`, 2.30.7)."""

    @property
    @abstractmethod
    def family(self) -> str: ...

    @property
    @abstractmethod
    def count(self) -> Elements:
        """Elements that each rank contributes or receives."""

    @property
    @abstractmethod
    def source(self) -> View | None: ...

    @property
    @abstractmethod
    def output(self) -> View | None: ...

    @property
    @abstractmethod
    def via(self) -> Via: ...

    @property
    @abstractmethod
    def claim(self) -> bool: ...

    @property
    def reached(self) -> tuple[Role, ...]:
        """The operands through which this call reaches other ranks."""
        return COPIED if self.via == "copy-engine" else self.peer_operands

    @property
    def whole(self) -> View:
        """The operand that is always given."""
        whole = self.output if self.whole_operand == "output" else self.source
        assert whole is not None
        return whole

    @property
    def part(self) -> View | None:
        """The other operand; None in place."""
        return self.source if self.whole_operand == "output" else self.output

    @abstractmethod
    def lengths(self, group: Group, rank: int) -> Lengths:
        """What a rank of `group` reads and writes."""

    def differs_in(self, group: Group) -> bool:
        """Whether the ranks of a group differ in count."""
        return len(set(counts_in(self, group))) > 1

    def part_in_whole(self, group: Group, rank: int) -> int:
        """Where the part of a rank of `group` begins in the whole, in place. In elements."""
        return 0

    def sends(self, group: Group, rank: int) -> tuple[int, ...] | None:
        """Elements that a rank of `group` sends to each of its ranks, where the library's call is one send and one
        receive a pair of ranks; None where it is not."""
        return None

    @property
    def op(self) -> Op | None:
        """How it reduces; None where it moves data alone."""
        return None

    @property
    def views(self) -> tuple[View, ...]:
        return (self.whole,) if self.part is None else (self.whole, self.part)

    def reach(self, group: Group, rank: int) -> tuple[int, ...]:
        """Elements behind its offset that a rank of `group` reads or writes, for each of `views`."""
        source, output = self.lengths(group, rank)
        both = (output, source) if self.whole_operand == "output" else (source, output)
        return both[: len(self.views)]


def counts_in(step: CollectiveStep, group: Group) -> tuple[int, ...]:
    """The elements that each rank of a group contributes or receives, in group order."""
    return tuple(at(step.count, rank) for rank in group)


def start_of(step: CollectiveStep, group: Group, rank: int) -> int:
    """The elements that the ranks before `rank` contribute or receive, in group order."""
    return sum(counts_in(step, group)[: group.index(rank)])


def is_uneven(step: CollectiveStep, group: Group) -> bool:
    """Whether the ranks of a group differ in count, so that no symmetric kernel runs the call."""
    return step.differs_in(group)
