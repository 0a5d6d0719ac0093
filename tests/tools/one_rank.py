"""A simulated rank inside this process, for tests that need no peers."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.substrate.pool import Pool
from harness.substrate.sim.substrate import SimSubstrate
from harness.trace.events import Event


@dataclass
class Rank:
    """A rank of a world of one, and the facts it has recorded."""

    substrate: SimSubstrate
    facts: list[Event] = field(default_factory=list)

    def pool(self, name: str = "pool") -> Pool:
        return self.substrate.pool(name)
