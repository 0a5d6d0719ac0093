"""The search for a smaller case where Hypothesis stops: fewer ranks, fewer steps, plainer numbers.

Hypothesis shrinks the choices behind a scenario; a layout is several choices that must change
together, which it rarely manages. Here the scenario itself is changed: every smaller layout of the
same convention, every part of the layout itself, every step left out, every number made plain.

Invariant: what comes back breaks the same rule, was executed, and is no larger than what went in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import chain, takewhile
from typing import Literal, NamedTuple

from harness.campaign.smaller.candidates import fewer_ranks, fewer_steps, until
from harness.campaign.smaller.plainer import plainer
from harness.clock import CLOCK, Clock
from harness.scenario.scenario import Scenario

Fails = Callable[[Scenario], int | None]
"""The step at which a scenario fails, after which nothing matters; None where it does not fail."""


RUNS = 10_000
"""More than there is time for, where each takes ranks."""
SURE = 2
"""How often the smallest scenario has to fail once more, to be one that always does."""


class Smallest(NamedTuple):
    """The smallest scenario found that still fails, and how far that is known: nothing smaller does (`smallest`), this
    one passed in some runs, so that others may have done by chance (`race`), or the time was up (`time`)."""

    scenario: Scenario
    how: Literal["smallest", "race", "time"]


def smallest_failing(
    scenario: Scenario, fails: Fails, step: int, end: float = math.inf, runs: int = RUNS, clock: Clock = CLOCK
) -> Smallest:
    """Look for smaller scenarios that fail, until `end` (by `clock`) and in at most `runs` calls of `fails`;
    this one does, at `step`.

    A failure can cost all ranks, as a hang does, so the candidate that leaves out most is tried first. Where the
    smallest does not fail in every run, a smaller one that passed may fail too: all are tried again until the end.
    """
    search = _Search(scenario, fails, step, end, runs, clock)
    while not search.is_over:
        has_shrunk = [search.has_taken(candidates) for candidates in (fewer_ranks, fewer_steps, plainer)]
        if not any(has_shrunk) and search.is_sure():
            return Smallest(search.scenario, "race" if search.is_race else "smallest")
    return Smallest(search.scenario, "race" if search.is_race else "time")


class _Search:
    """The smallest scenario so far, the step at which it failed, and what is left to find a smaller one."""

    def __init__(self, scenario: Scenario, fails: Fails, step: int, end: float, runs: int, clock: Clock) -> None:
        self.scenario = scenario
        self.is_race = False
        """Whether the smallest has passed, too."""
        self._fails, self._step, self._end, self._left, self._clock = fails, step, end, runs, clock

    @property
    def is_over(self) -> bool:
        """Whether time is up, or the runs are used up."""
        return self._left == 0 or self._clock.now() >= self._end

    def has_taken(self, candidates: Callable[[Scenario], Iterator[Scenario]]) -> bool:
        """Take the first candidate that fails, then the first one of that, and so on. Whether there was any."""
        found = False
        while any(map(self._takes, self._tried(candidates))):
            found = True
        return found

    def is_sure(self) -> bool:
        """Whether the smallest fails again whenever it is run."""
        for _ in range(SURE):
            if self.is_over:
                return False
            if not self._takes(self.scenario):
                self.is_race = True
                return False
        return True

    def _tried(self, candidates: Callable[[Scenario], Iterator[Scenario]]) -> Iterator[Scenario]:
        """What may stand for the smallest, until the search is over."""
        everything = chain(until(self.scenario, self._step), candidates(self.scenario))
        return takewhile(lambda _: not self.is_over, everything)

    def _takes(self, candidate: Scenario) -> bool:
        """Run a candidate, and keep it if it fails."""
        self._left -= 1
        step = self._fails(candidate)
        if step is not None:
            self.is_race = self.is_race and candidate is self.scenario
            self.scenario, self._step = candidate, step
        return step is not None
