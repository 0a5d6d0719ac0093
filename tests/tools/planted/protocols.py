"""The protocols of `examples` with one planted fault each.

Invariant: a class differs from its base in its fault alone, and its docstring says what that breaks.
"""

from __future__ import annotations

from examples.protocols import Copies, Packets, SwappedFlags
from harness.system.collectives import CollectiveContext


class GoesOnEarly(SwappedFlags):
    """Breaks race: it leaves out the barrier behind the data."""

    def meet(self, context: CollectiveContext, number: int) -> None:
        if number == 0:
            super().meet(context, number)


class OneHalf(Packets):
    """Breaks hang: the packets of a call lie where those of the call before may not have been read."""

    def half(self, epoch: int) -> int:
        return 0


class SkipsItself(Copies):
    """Breaks wrong-data: it takes its own chunk for there, as it is in place."""

    def targets(self, context: CollectiveContext) -> list[int]:
        return super().targets(context)[:-1]
