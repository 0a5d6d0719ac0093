"""The schedule of a draw: which rank runs when several can, and after which switch points that changes.

Invariant: with a schedule, a draw on the simulation is a function of its scenario.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from harness.scenario.layouts.groups import Group
from harness.scenario.steps import ProgramError

LAST = 1 << 31
"""No change comes after so many switch points."""


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The ranks in the order of their priorities, highest first: the first one that can go on runs.

    `changes`: numbers of switch points, counted from 1 over all ranks. The rank that comes to one of them goes behind
    all others.
    """

    order: Group
    changes: tuple[int, ...] = ()

    def check(self, world: int) -> None:
        """Raise `ProgramError` where it is none of so many ranks."""
        if sorted(self.order) != [*range(world)]:
            raise ProgramError(f"schedule {[*self.order]} does not name each of the ranks 0 to {world - 1} once")
        if [*self.changes] != sorted({*self.changes}) or not all(0 < change < LAST for change in self.changes):
            raise ProgramError(f"schedule changes {[*self.changes]} are no rising numbers from 1 on")

    def on(self, kept: Sequence[int]) -> Schedule:
        """The same for the ranks kept, numbered anew."""
        return Schedule(tuple(sorted(range(len(kept)), key=lambda rank: self.order.index(kept[rank]))), self.changes)
