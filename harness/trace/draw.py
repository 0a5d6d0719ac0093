"""One executed scenario as plain data: what every rank saw, and how it ended.

Invariant: a draw holds what was seen and on what, and no judgement.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from harness.scenario.scenario import Scenario
from harness.trace.events import Called, Changed, Mismatch, Ran, SourceChanged
from harness.trace.raising import Raising
from harness.trace.trace import Trace

State = Literal["finished", "raised", "crashed", "hung", "stopped"]
Version = tuple[int, ...]
"""Such as (2, 32, 3)."""


class Fate(msgspec.Struct, frozen=True):
    """How a rank ended a draw, and what it printed. `raised`: the system under test raised on it. `stopped`: it was
    well, and ended because another was not."""

    rank: int
    state: State
    how: str = ""
    """Of a crash, its cause in one line."""
    printed: str = ""
    """The end of its output: `stdout:`, lines, `stderr:`, lines. Python adds lines of its own when it dies."""
    stack: str = ""
    """Where the rank was, one frame a line, innermost first."""
    witness: str = ""
    """Where the stack comes from: SIGUSR1 (Python frames, by the rank itself), py-spy, or py-spy with native frames."""
    raising: Raising | None = None
    """What the system under test raised, where it did."""


class Draw(msgspec.Struct, frozen=True):
    """One executed scenario: what every rank saw and how it ended."""

    scenario: Scenario
    traces: tuple[Trace, ...]
    fates: tuple[Fate, ...]
    seconds: float
    deadline: float
    is_presumed: bool = False
    """Whether it was taken for a hang by the silence of its ranks, before the deadline."""
    nccl: Version | None = None
    """The NCCL that ran it; None on the simulation."""

    @property
    def printed(self) -> tuple[str, ...]:
        """The end of each rank's output."""
        return tuple(fate.printed for fate in self.fates)

    @property
    def is_clean(self) -> bool:
        """Whether every rank ran to the end."""
        return all(fate.state == "finished" for fate in self.fates)

    @property
    def has_lost_sends(self) -> bool:
        """Whether a call that the library makes of sends and receives left other data than it owes, on any rank, at
        once or in a replay."""
        return any(map(_lost_sends, self.traces))


def _lost_sends(trace: Trace) -> bool:
    sent: set[int] = set()
    for step, event in trace.seen():
        match event:
            case Called() if event.sent is not None:
                sent.add(step)
            case Ran(path="kernel" | "copy engine"):
                sent.discard(step)
            case Changed() | Mismatch() | SourceChanged() if step in sent:
                return True
    return False
