"""Runs the smallest case of a finding again on fresh ranks: how often it fails there, and after which draws if never.

Invariant: what is counted ran on rank processes that had run nothing else, or exactly the draws that are named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from harness.campaign.keeper import Found, Keeper
from harness.campaign.seeds import Reruns, last_that_fit
from harness.clock import CLOCK, Clock
from harness.errors import PluginError
from harness.oracle.findings import Finding
from harness.scenario.scenario import Scenario
from harness.trace.draw import Draw
from harness.world.world import World

Draws = tuple[Scenario, ...]


class Rerunning:
    """Runs what `keeper` has kept again on `world`. `judge` gives the findings of a draw that count; `tried` is called
    after each."""

    def __init__(
        self,
        world: World,
        keeper: Keeper,
        judge: Callable[[Draw], Sequence[Finding]],
        tried: Callable[[], None],
        clock: Clock = CLOCK,
    ) -> None:
        self._world, self._keeper, self._judge, self._tried, self._clock = world, keeper, judge, tried, clock

    def run(self, key: str, runs: int, seconds: float, before: Draws) -> None:
        """Run the scenario that was found by `key` up to `runs` times on fresh ranks, once where it is no race and
        fails at once. Where it never fails, look for those of the draws `before` it that it needs. Each part has
        `seconds`."""
        found = self._keeper.found[key]
        results = [*self._results(found, runs, self._clock.now() + seconds)]
        reruns = Reruns(sum(results), len(results))
        if reruns.failed:
            self._keeper.rerun(key, reruns)
            return
        preceding = last_that_fit(before)
        needed = self._needed(found, preceding, self._clock.now() + seconds) if preceding else None
        after = None if needed is None else len(needed)
        self._keeper.rerun(key, Reruns(0, reruns.runs, after), preceding if needed is None else needed)

    def _results(self, found: Found, runs: int, end: float) -> Iterator[bool]:
        """Whether each run on fresh ranks failed."""
        for number in range(runs):
            if number and self._clock.now() >= end:
                return
            self._world.renew()
            has_failed = self._fails(found, found.scenario)
            yield has_failed
            if has_failed and number == 0 and found.shrunk != "race":
                return

    def _needed(self, found: Found, before: Draws, end: float) -> Draws | None:
        """The draws of `before` without which the scenario does not fail, as far as there is time; None if it does not
        fail even after all of them. Larger parts are left out first."""
        if not self._fails_after(found, before):
            return None
        part = len(before)
        while part := part // 2:
            for at in reversed(range(0, len(before), part)):
                fewer = before[:at] + before[at + part :]
                if fewer and self._clock.now() < end and self._fails_after(found, fewer):
                    before = fewer
        return before

    def _fails_after(self, found: Found, before: Draws) -> bool:
        """Whether the scenario fails on fresh ranks that have run other draws before."""
        self._world.renew()
        for draw in before:
            self._run(draw)
        return self._fails(found, found.scenario)

    def _fails(self, found: Found, scenario: Scenario) -> bool:
        draw = self._run(scenario)
        return draw is not None and found.again(self._judge(draw)) is not None

    def _run(self, scenario: Scenario) -> Draw | None:
        """A draw, hurried, as one that hangs is known to; None where the system under test refuses it."""
        try:
            draw = self._world.run(scenario, hurried=True)
        except PluginError:
            return None
        self._tried()
        return draw
