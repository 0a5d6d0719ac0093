"""Runs the smallest case of a finding again on fresh ranks: how often it fails there, and after which draws if never.

Invariant: what is counted ran on rank processes that had run nothing else, or exactly the draws that are named.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from harness.campaign.keeper import Found
from harness.campaign.seeds import Reruns, last_that_fit
from harness.campaign.smaller.shrinking import Shrinking
from harness.campaign.trials import Trials
from harness.scenario.scenario import Scenario

Draws = tuple[Scenario, ...]


class Origin(NamedTuple):
    """The scenario in which a finding was first met, and the draws that its ranks had run before."""

    scenario: Scenario
    before: Draws = ()


class Rerunning:
    """Runs what `trials` has kept again. `shrinking` makes a case smaller that fails on fresh ranks alone."""

    def __init__(self, trials: Trials, shrinking: Shrinking) -> None:
        self._trials, self._keeper, self._clock, self._shrinking = trials, trials.keeper, trials.clock, shrinking

    def run(self, key: str, runs: int, seconds: float, origin: Origin) -> None:
        """Run the scenario that was found by `key` up to `runs` times on fresh ranks, once where it is no race and
        fails at once. Each part has `seconds`.

        Where it never fails, it may be too small: it needs what larger cases had left in the ranks. So the first case
        is run on fresh ranks, too, and made smaller there. At last both are run after the draws before it.
        """
        found = self._keeper.found[key]
        results = [*self._results(key, found, runs, self._clock.now() + seconds)]
        reruns = Reruns(sum(results), len(results))
        if reruns.failed:
            self._keeper.rerun(key, reruns)
        elif origin.scenario != found.scenario and self._has_shrunk_anew(key, origin.scenario, seconds):
            self._keeper.rerun(key, Reruns(1, 1))
        else:
            self._look_before(key, reruns, last_that_fit(origin.before), origin.scenario, seconds)

    def _results(self, key: str, found: Found, runs: int, end: float) -> Iterator[bool]:
        """Whether each run on fresh ranks failed."""
        for number in range(runs):
            if number and self._clock.now() >= end:
                return
            has_failed = self._trials.failure_after((), key, found.scenario) is not None
            yield has_failed
            if has_failed and number == 0 and found.shrunk != "race":
                return

    def _has_shrunk_anew(self, key: str, first: Scenario, seconds: float) -> bool:
        return self._shrinking.run_on_fresh_ranks(key, first, self._clock.now() + seconds)

    def _look_before(self, key: str, reruns: Reruns, before: Draws, first: Scenario, seconds: float) -> None:
        """Note the draws that the smallest case needs, or else those that the first case needs."""
        end, smallest = self._clock.now() + seconds, self._keeper.found[key].scenario
        for scenario in dict.fromkeys((smallest, first)) if before else ():
            if scenario != smallest and self._clock.now() >= end:
                break
            failure = self._trials.failure_after(before, key, scenario)
            if failure is not None:
                if scenario != smallest:
                    self._trials.keep(failure, anyway=True)
                    reruns = Reruns(0, 1)
                needed = self._needed(key, scenario, before, end)
                self._keeper.rerun(key, Reruns(0, reruns.runs, len(needed)), needed)
                return
        self._keeper.rerun(key, reruns, before)

    def _needed(self, key: str, scenario: Scenario, before: Draws, end: float) -> Draws:
        """The draws of `before` without which the scenario does not fail, as far as there is time. It does after all
        of them. Larger parts are left out first."""
        part = len(before)
        while part := part // 2:
            for at in reversed(range(0, len(before), part)):
                fewer = before[:at] + before[at + part :]
                if fewer and self._clock.now() < end and self._trials.failure_after(fewer, key, scenario):
                    before = fewer
        return before
