"""A run's facts, written again and again while it goes on, so that a kill loses little of them.

Invariant: they are written at a new finding at once, and else every few seconds. A disk that refuses does not end the
hunt; what writes them at its end says so.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from harness.campaign.tally import Tally
from harness.clock import CLOCK, Clock
from harness.errors import UsageError

SECONDS = 2.0
"""Between two writings."""


class Refreshing:
    """To be called after each draw, as `progress` is: calls that, then `write`, unless it has written a moment ago and
    nothing new was found since."""

    def __init__(
        self, write: Callable[[], None], progress: Callable[[Tally], None] = lambda tally: None, clock: Clock = CLOCK
    ) -> None:
        self._write, self._progress, self._clock = write, progress, clock
        self._due = clock.now()
        self._found: set[str] = set()

    def __call__(self, tally: Tally) -> None:
        """`tally` is that of the run so far."""
        self._progress(tally)
        found = set(tally.found)
        if found == self._found and self._clock.now() < self._due:
            return
        self._found = found
        with suppress(UsageError):
            self._write()
        self._due = self._clock.now() + SECONDS
