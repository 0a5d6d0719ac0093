"""Pool policies that decline buffers, named `tests.tools.planted.declines:Name`."""

from __future__ import annotations

from harness.system.context import ProcessGroup, Segment
from harness.system.planted.sound import Sound


class DeclinesOddSizes(Sound):
    """Breaks no rule where sizes are equal: wants the buffers of an even number of 4-byte elements."""

    def wants(self, group: ProcessGroup, nbytes: int) -> bool:
        return nbytes % 8 == 0


class DeclinesOddSizesAlone(DeclinesOddSizes):
    """Breaks unregistered: only the second rank of a group declines (F30)."""

    def wants(self, group: ProcessGroup, nbytes: int) -> bool:
        return group.rank != 1 or super().wants(group, nbytes)


class DeclinesOddAndRegistersAlone(DeclinesOddSizes):
    """Breaks registration-skew: the second rank of a group registers nothing (F06)."""

    def register(self, segment: Segment, group: ProcessGroup) -> None:
        if group.rank == 0:
            super().register(segment, group)


class CannotSay(Sound):
    """Gives no bool."""

    def wants(self, group: ProcessGroup, nbytes: int) -> bool:
        return None  # type: ignore[return-value]


class RaisesWhenAsked(Sound):
    """Breaks raised: rank 1 raises."""

    def wants(self, group: ProcessGroup, nbytes: int) -> bool:
        if group.rank == 1:
            raise ValueError(f"cannot tell for {nbytes} bytes")
        return True
