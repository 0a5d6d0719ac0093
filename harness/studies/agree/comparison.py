"""Runs the same scenarios on two worlds and compares every fact that both define.

Invariant: a fact that differs is explained by a named reason, which is counted, or it is a disagreement,
whose seed file is on disk before it is shrunk. A fact that was found to disagree is settled: its
smallest scenario is kept, and the draws that follow look for other facts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from harness.campaign import seeds
from harness.campaign.search import Smallest, smallest_failing
from harness.clock import CLOCK, Clock
from harness.oracle.case import Case
from harness.oracle.judge import judge
from harness.scenario.scenario import Scenario
from harness.studies.agree.facts import FACTS, Difference, differences
from harness.studies.agree.reasons import REASONS, Disparity, explain
from harness.trace.draw import Draw
from harness.world.world import World

SHRINK_SECONDS = 30.0
"""Time for shrinking one disagreement."""


class Disagreement(msgspec.Struct, frozen=True):
    """A fact in which two worlds differ without a reason: how, on which scenario, and where that is saved."""

    fact: str
    differences: tuple[Difference, ...]
    scenario: Scenario
    seed_file: str
    draws_to_find: int


class Agreement(msgspec.Struct):
    """What came of comparing. `compared` counts, for each fact, the draws in which both worlds define it."""

    draws: int = 0
    shrinking: int = 0
    seconds: float = 0.0
    compared: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(FACTS, 0))
    accounted: dict[str, int] = msgspec.field(default_factory=lambda: {reason.name: 0 for reason in REASONS})
    """For each reason, the draws that differ because of it."""
    found: dict[str, Disagreement] = msgspec.field(default_factory=dict)
    """The disagreement of each fact that has one."""

    @property
    def draws_per_second(self) -> float:
        """Rate of drawing, without the time that shrinking took."""
        return self.draws / self.seconds if self.seconds else 0.0


class Pair:
    """One scenario's draws on two worlds."""

    def __init__(self, first: Draw, second: Draw) -> None:
        self.first, self.second = first, second
        self._cases = Case(first), Case(second)

    def disparity(self, fact: str) -> Disparity | None:
        """In what the draws differ; None where they cannot be compared."""
        found = differences(fact, *self._cases)
        return None if found is None else Disparity(fact, found, self.first, self.second)


class Comparison:
    """Compares `first`, the simulation, with `second`, on whatever is given to `run`.

    Seed files go to `seeds_dir`, with `environment` and what was found on `second`.
    """

    def __init__(
        self,
        first: World,
        second: World,
        seeds_dir: Path,
        *,
        environment: dict[str, Any] | None = None,
        facts: Collection[str] = tuple(FACTS),
        search: Callable[..., Smallest] = smallest_failing,
        clock: Clock = CLOCK,
    ) -> None:
        self._first, self._second = first, second
        self._files = {fact: seeds.SeedFile(seeds_dir, f"disagree-{fact}") for fact in FACTS}
        self._environment, self._facts = environment or {}, facts
        self._search, self._clock = search, clock
        self._progress: Callable[[Agreement], None] = lambda agreement: None
        self.agreement = Agreement()

    def run(
        self,
        scenarios: Iterable[Scenario],
        draws: int | None = None,
        minutes: float | None = None,
        progress: Callable[[Agreement], None] = lambda agreement: None,
    ) -> Agreement:
        """Compare at most `draws` scenarios in at most `minutes`; `progress` is called after every draw.

        Raises `UsageError` for a wrong request.
        """
        self._progress = progress
        end = float("inf") if minutes is None else self._clock.now() + 60 * minutes
        for scenario in islice(scenarios, draws):
            if self._clock.now() >= end:
                break
            for fact in self._compare(scenario):
                self._shrink(fact, min(end, self._clock.now() + SHRINK_SECONDS))
        return self.agreement

    def _pair(self, scenario: Scenario) -> Pair:
        return Pair(self._first.run(scenario), self._second.run(scenario))

    def _compare(self, scenario: Scenario) -> list[str]:
        """Compare one scenario; returns the facts that disagree for the first time."""
        agreement, began = self.agreement, self._clock.now()
        pair = self._pair(scenario)
        agreement.draws += 1
        reasons: set[str] = set()
        new = []
        for fact in self._facts:
            disparity = pair.disparity(fact)
            if disparity is None:
                continue
            agreement.compared[fact] += 1
            if disparity.differences:
                explained = explain(disparity)
                reasons.update(explained)
                if not explained and fact not in agreement.found:
                    self._keep(disparity)
                    new.append(fact)
        for reason in reasons:
            agreement.accounted[reason] += 1
        agreement.seconds += self._clock.now() - began
        self._progress(agreement)
        return new

    def _shrink(self, fact: str, end: float) -> None:
        """Search, until `end`, for a smaller scenario in which this fact disagrees without a reason."""

        def fails(scenario: Scenario) -> int | None:
            disparity = self._pair(scenario).disparity(fact)
            self.agreement.shrinking += 1
            self._progress(self.agreement)
            if disparity is None or not disparity.differences or explain(disparity):
                return None
            self._keep(disparity)
            return len(scenario.steps)  # a difference may show at the end only

        scenario = self.agreement.found[fact].scenario
        self._search(scenario, fails, len(scenario.steps), end, clock=self._clock)

    def _keep(self, disparity: Disparity) -> None:
        """Save the scenario in place of the one before, and note it."""
        fact, scenario = disparity.fact, disparity.first.scenario
        known = self.agreement.found.get(fact)
        records = tuple(finding.record() for finding in judge(disparity.second))
        path = self._files[fact].save(seeds.Seed(seeds.SCHEMA, scenario, records, self._environment))
        after = known.draws_to_find if known else self.agreement.draws
        self.agreement.found[fact] = Disagreement(fact, tuple(disparity.differences), scenario, path, after)
