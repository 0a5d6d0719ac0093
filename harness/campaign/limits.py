"""What a campaign may spend once it has found something: draws, runs and seconds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

MORE = 48
"""Draws after the first finding, unless a caller or a time says otherwise."""


@dataclass(frozen=True)
class Limits:
    """What a campaign spends once it has found something."""

    more: int | None = MORE
    """Draws after the first finding, in which other rules may be found. None: no limit."""
    shrinks: int = 80
    """Runs that Hypothesis may spend on a batch's failures, before `harness.campaign.smaller.search` takes over. Where
    a failure costs the ranks there are none: few tries fit, and the search needs fewer."""
    shrink_seconds: float = 30.0
    """Time that Hypothesis may spend on them. The search gets what is left of it."""
    known_seconds: float = 60.0
    """Time that may go into draws which break rules that were found already, such as hangs up to the deadline."""
    search_seconds: float = 30.0
    """Time that `harness.campaign.smaller.search` has for each finding in any case."""
    reruns: int = 10
    """Runs on fresh ranks that show whether the smallest case comes again, and how often. With 0 nothing is known."""
    rerun_seconds: float = 20.0
    """Time for these runs, and as much again for those after other draws; at least one of each is made."""

    @property
    def seconds(self) -> float:
        """Time for shrinking a finding, in both ways."""
        return self.shrink_seconds + self.search_seconds

    def within(self, seconds: float) -> Limits:
        """The same with so much time for shrinking a finding, half of it for either way."""
        return replace(self, shrink_seconds=seconds / 2, search_seconds=seconds / 2)

    def to_the_end(self) -> Limits:
        """The same for a campaign that no finding ends."""
        return replace(self, more=None, known_seconds=inf)


SHRINK_SECONDS = Limits().seconds
"""Time for shrinking a finding, unless the user gives another."""
