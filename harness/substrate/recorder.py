"""The events that one rank records during a draw, and the numbers by which they name things.

Invariant: each draw numbers again from zero, so that a replay gives the same trace.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from harness.trace.events import Event


class Recorder:
    """Records for the rank with number `rank` in the world. Its communicators and pools share one recorder."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.start(_ignore)

    def start(self, record: Callable[[Event], None], beat: Callable[[], None] = lambda: None, draw: int = 0) -> None:
        """Begin draw number `draw`, whose events go to `record`. `beat` says that this rank is at work in between."""
        self.record, self.beat, self.draw = record, beat, draw
        self.idents = count()
        """Numbers of communicators, segments and windows, in one series."""

    def stop(self) -> None:
        """Ignore events until the next draw."""
        self.record = _ignore


def _ignore(event: Event) -> None:
    pass
