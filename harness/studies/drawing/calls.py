"""One call of a scenario, before it runs: how much it moves, what values it gets, and which path is open to it.

Invariant: all follows from the scenario alone, so that no rank is needed to say it. `harness.rank.values` makes the
values and `harness.oracle.rules.path` judges the path of a call that ran; both go by the same conditions.
"""

from __future__ import annotations

from typing import NamedTuple

from harness.oracle.rules.path import REDUCED, REDUCIBLE
from harness.scenario.alive import Alive
from harness.scenario.bases import is_uneven
from harness.scenario.layouts.groups import GroupId
from harness.scenario.operands import ITEMSIZE, View, divides_exactly, is_averaged
from harness.scenario.steps import Collective

NEAR = 64
"""Elements behind the start of its buffer up to which a view is near it."""
HALVES = ("bfloat16", "float16")
VALUES = ("any bits", "any number", "integers", "exact sums", "sums that round once", "averages within a bound")
"""What a call gets: any bits where it moves them, any values but NaN of which the largest or smallest is sought, and
terms of sums. Kernels add terms of 16 bits in fp32, so that their sums round once."""
OPEN = "open"
PATHS = (
    OPEN,
    "a kernel's",
    "one rank",
    "no such NCCL kernel",
    "unequal counts",
    "no windows there",
    "an operand outside windows",
    "no elements",
    "op not reduced",
    "type not reduced",
    "copy engines",
)
"""Whether NCCL's symmetric path is open to a call, or the first reason why it is not. With the last one it is open to
copy engines."""
PLACES = ("in place", "other operand in a window", "other operand in plain memory")
OFFSETS = ("zero", "near", "far")


class Call(NamedTuple):
    """A collective step in one of its groups. `alive` is the account of the steps before it."""

    step: Collective
    group: GroupId
    alive: Alive

    @property
    def width(self) -> int:
        """Ranks of the group."""
        return len(self.group.ranks)

    @property
    def bytes(self) -> int:
        """Bytes of the smaller operand, on the rank where that is largest: what a rank gives, or gets of a
        reduce-scatter."""
        ranks = self.group.ranks
        return max(min(self.step.lengths(ranks, rank)) for rank in ranks) * ITEMSIZE[dtype(self.step, self.alive)]

    @property
    def counts(self) -> str:
        """Whether the ranks of the group differ in count."""
        return "unequal" if is_uneven(self.step, self.group.ranks) else "equal"

    @property
    def values(self) -> str:
        """One of `VALUES`."""
        op, of = self.step.op, dtype(self.step, self.alive)
        if op is None:
            return "any bits"
        if op in ("max", "min"):
            return "any number"
        if not is_averaged(of):
            return "integers"
        if op == "avg" and not divides_exactly(of, self.width):
            return "averages within a bound"
        return "sums that round once" if self.step.via == "kernel" and of in HALVES else "exact sums"

    @property
    def path(self) -> str:
        """One of `PATHS`."""
        step, ranks, topology = self.step, self.group.ranks, self.alive.topology
        closed = {
            "one rank": self.width < 2,
            "a kernel's": step.via == "kernel",
            "no such NCCL kernel": not step.reached,
            "unequal counts": is_uneven(step, ranks),
            "no windows there": not topology.has_windows(ranks),
            "an operand outside windows": not self._has_operands_in_windows,
            "no elements": self.bytes == 0,
            "op not reduced": step.op not in (None, *REDUCED.get(step.kind, ())),
            "type not reduced": step.op is not None and dtype(step, self.alive) not in REDUCIBLE,
            "copy engines": step.via == "copy-engine",
        }
        return next((why for why, holds in closed.items() if holds), OPEN)

    @property
    def _has_operands_in_windows(self) -> bool:
        """Whether a right pool policy has windows of the group over all that peers reach."""
        views = [getattr(self.step, role) or self.step.whole for role in self.step.reached]
        return all(self._is_in_window(view) for view in views)

    def _is_in_window(self, view: View) -> bool:
        live = self.alive.buffers[view.buffer]
        return live.allocation.role == "window" and not live.is_stale and self.group in live.groups


def dtype(step: Collective, alive: Alive) -> str:
    """The element type of a collective."""
    return alive.buffers[step.whole.buffer].allocation.dtype


def place(step: Collective, alive: Alive) -> str:
    """One of `PLACES`."""
    if step.part is None:
        return PLACES[0]
    return PLACES[1 if alive.buffers[step.part.buffer].allocation.role == "window" else 2]


def offset(view: View) -> str:
    """One of `OFFSETS`, on the rank where the view lies farthest behind the start of its buffer."""
    most = view.offset if isinstance(view.offset, int) else max(view.offset)
    return OFFSETS[(most > 0) + (most > NEAR)]
