"""What one rank records during a draw: its facts, and the numbers that they name things by.

Invariant: each draw starts its facts and its numbers again from zero, so that a replay gives the same trace.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from harness.trace.events import Event


class Recorder:
    """The facts of the rank that has number `rank` in the world. Communicators and pools share one."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.start(_ignore)

    def start(self, record: Callable[[Event], None]) -> None:
        """Begin a draw whose facts go to `record`."""
        self.record = record
        self.idents = count()
        """Numbers of communicators, segments and windows, in one series."""

    def stop(self) -> None:
        """Ignore facts until the next draw."""
        self.record = _ignore


def _ignore(event: Event) -> None:
    pass
