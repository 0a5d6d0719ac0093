"""A policy's own calls of NCCL on one simulated rank, whose communicator is said to be NCCL's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from harness.machine.observer import facts
from harness.substrate.communicator import Communicator
from harness.substrate.observed import NAME, Control, Overheard
from harness.substrate.pool import Pool
from harness.substrate.segment import Segment
from harness.substrate.sim.communicator import SimCommunicator
from harness.trace.events import Event
from tests.tools.one_rank import Rank


class Bare(Pool):
    """Segments and nothing else."""

    def use(self) -> AbstractContextManager[None]:
        return nullcontext()

    def snapshot(self) -> list[Segment]:
        return self.segments

    def used(self) -> list[tuple[int, int]]:
        return []

    def trim(self) -> None: ...

    def close(self) -> None: ...


class Waits(SimCommunicator):
    """Counts the registrations for which it waits."""

    waiting = 0

    @contextmanager
    def registering(self) -> Iterator[None]:
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1


class Heard:
    """A rank of one group, and the translation of what its policy does."""

    def __init__(self, rank: Rank, control: Control, kind: type[Waits] = Waits) -> None:
        self.events, self.substrate = rank.events, rank.substrate
        self.communicator: Communicator = rank.communicator(slot=3, kind=kind)
        self.events.clear()
        self.pool = Bare(self.substrate.recorder, NAME)
        self.overheard = Overheard(
            self.pool,
            self.substrate.denial,
            self.substrate.refusal,
            control,
            lambda: [self.communicator],
            lambda number: ("handle", number),
        )

    def hear(self, *script: facts.Fact) -> list[Event]:
        for fact in script:
            self.overheard.hear(fact)
        return self.events
