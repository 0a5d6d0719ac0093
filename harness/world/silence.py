"""How long the ranks of a draw have written nothing, and how long that may last; `watch` decides by it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from harness.clock import CLOCK, Clock
from harness.ipc.journal import Journal
from harness.trace.events import Began

LOOK = 0.2
"""Most seconds that one interval between two looks at a silence counts for."""
TIMES_THE_LONGEST, REMEMBERED = 10, 100
"""Ranks are presumed to hang when they have been silent so many times longer than in any of the last draws."""


class Silence:
    """How long nothing has been written to any of these journals, nor beaten, since every rank began its first step.

    What comes before that, such as importing a plug-in, is no silence. An interval between two looks counts for no more
    than `LOOK`: whoever looks may have been stopped, and the ranks with it.
    """

    def __init__(self, journals: Sequence[Journal], clock: Clock = CLOCK) -> None:
        self._journals, self._clock = journals, clock
        self._marks: list[tuple[int, int]] = []
        self._looked = clock.now()
        self._have_begun = False
        self._seconds = 0.0
        self.longest = 0.0
        """Seconds of the longest silence that was seen."""
        self.stillness = 0.0
        """Seconds for which nothing was written at the last look, whether or not every rank had begun."""

    def look(self) -> float:
        """Seconds of the silence so far. Call it often."""
        now = self._clock.now()
        since, self._looked = min(now - self._looked, LOOK), now
        marks = [(journal.length, journal.beats) for journal in self._journals]
        if not self._have_begun:
            self._have_begun = all(any(isinstance(event, Began) for event in each) for each in self._journals)
        elif marks == self._marks:
            self._seconds += since
            self.longest = max(self.longest, self._seconds)
        self.stillness += since
        if marks != self._marks:
            self._marks, self._seconds, self.stillness = marks, 0.0, 0.0
        return self._seconds


class Patience:
    """Learns from draws that ended well how long ranks may be silent."""

    def __init__(self) -> None:
        self._silences: deque[float] = deque(maxlen=REMEMBERED)

    def learn(self, longest: float) -> None:
        """One more draw has ended well, with this longest silence."""
        self._silences.append(longest)

    def seconds(self, least: float) -> float:
        """Ten times the longest silence in the last draws, and no less than `least`."""
        return max(least, TIMES_THE_LONGEST * max(self._silences, default=0.0))
