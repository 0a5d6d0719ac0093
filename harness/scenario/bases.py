"""The bases of steps: what every step can be asked, and what every collective can.

Invariant: who asks a step which family, graph, stream, rank or buffers it concerns needs no look at its kind. So a new
kind of step brings its answers along, and what reads programs stays as it is.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import msgspec

from harness.scenario.layouts.groups import Group, Groups
from harness.scenario.operands import Elements, View, at

Op = Literal["sum", "avg", "max"]
Via = Literal["library", "kernel"]


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

    Without its `part` the call is in place: rank i's part is chunk i of the whole. Counts may differ between the ranks
    of a group; no symmetric kernel runs such a call. `claim` says that the caller relies on the symmetric path.
    """

    per_rank = ("count",)
    whole_operand: ClassVar[Literal["source", "output"]]
    """Which operand has a chunk for every rank; through it ranks reach each other."""

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
    @abstractmethod
    def whole(self) -> View:
        """The operand with a chunk for every rank, through which ranks reach each other."""

    @property
    @abstractmethod
    def part(self) -> View | None:
        """The operand of one chunk; None in place."""

    @property
    def op(self) -> Op | None:
        """How it reduces; None where it moves data alone."""
        return None

    @property
    def views(self) -> tuple[View, ...]:
        return (self.whole,) if self.part is None else (self.whole, self.part)

    def reach(self, group: Group, rank: int) -> tuple[int, ...]:
        """Elements behind its offset that a rank of `group` reads or writes, for each of `views`."""
        return (sum(counts_in(self, group)), at(self.count, rank))[: len(self.views)]


def counts_in(step: CollectiveStep, group: Group) -> tuple[int, ...]:
    """The elements that each rank of a group contributes or receives, in group order."""
    return tuple(at(step.count, rank) for rank in group)


def is_uneven(step: CollectiveStep, group: Group) -> bool:
    """Whether the ranks of a group differ in count, so that no symmetric kernel runs the call."""
    return len(set(counts_in(step, group))) > 1
