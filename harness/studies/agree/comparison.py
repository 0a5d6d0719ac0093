"""Runs scenarios on two sides and compares every fact that both define: on two worlds, or in two ways on one.

Invariant: a fact that differs is explained by a named reason, which is counted, or it is a disagreement,
whose seed file is on disk before it is shrunk. A fact that was found to disagree is settled: its
smallest scenario is kept, and the draws that follow look for other facts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import msgspec

from harness.campaign import seeds
from harness.campaign.smaller.search import Smallest, smallest_failing
from harness.clock import CLOCK, Clock
from harness.oracle.case import Case
from harness.oracle.judge import judge
from harness.scenario.scenario import Scenario
from harness.studies.agree.facts import FACTS, Difference, differences
from harness.studies.agree.reasons import REASONS, Disparity, Reason, explain
from harness.trace.draw import Draw
from harness.world.world import World

SHRINK_SECONDS = 30.0
"""Time for shrinking one disagreement."""


class Disagreement(msgspec.Struct, frozen=True):
    """A fact in which two sides differ without a reason: how, on which scenario, and where that is saved."""

    fact: str
    differences: tuple[Difference, ...]
    scenario: Scenario
    seed_file: str
    draws_to_find: int
    second_file: str = ""
    """Where the second side's scenario is saved, if it is another one."""


class Agreement(msgspec.Struct):
    """What came of comparing. `compared` counts, for each fact, the draws in which both sides define it."""

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


class Sides(Protocol):
    """Two ways to run a scenario, and what is compared of them."""

    facts: Collection[str]
    reasons: tuple[Reason, ...]

    def disparities(self, scenario: Scenario, facts: Collection[str]) -> Iterator[Disparity]:
        """Run it both ways. In what the draws differ, for each of these facts that both define."""


class Worlds:
    """A scenario on `first`, the simulation, and on `second`."""

    facts: Collection[str] = tuple(FACTS)
    reasons = REASONS

    def __init__(self, first: World, second: World) -> None:
        self._first, self._second = first, second

    def disparities(self, scenario: Scenario, facts: Collection[str]) -> Iterator[Disparity]:
        """Run it on both worlds, and compare."""
        first, second = self._first.run(scenario), self._second.run(scenario)
        here, there = Case(first), Case(second)
        for fact in facts:
            if (found := differences(fact, here, there)) is not None:
                yield Disparity(fact, found, first, second)


class Comparison:
    """Compares two sides on whatever is given to `run`.

    Seed files go to `seeds_dir`, with `environment` and what was found on the second side. Where that side ran another
    scenario, it has a file of its own, and each file has what was found on its scenario.
    """

    def __init__(
        self,
        sides: Sides,
        seeds_dir: Path,
        *,
        environment: dict[str, Any] | None = None,
        facts: Collection[str] | None = None,
        search: Callable[..., Smallest] = smallest_failing,
        clock: Clock = CLOCK,
    ) -> None:
        self._sides, self._facts = sides, sides.facts if facts is None else facts
        self._files = {fact: seeds.SeedFile(seeds_dir, f"disagree-{fact}") for fact in sides.facts}
        self._second_files = {fact: seeds.SeedFile(seeds_dir, f"disagree-{fact}-second") for fact in sides.facts}
        self._environment = environment or {}
        self._search, self._clock = search, clock
        self._progress: Callable[[Agreement], None] = lambda agreement: None
        self.agreement = Agreement(
            compared=dict.fromkeys(sides.facts, 0), accounted={reason.name: 0 for reason in sides.reasons}
        )

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

    def _compare(self, scenario: Scenario) -> list[str]:
        """Compare one scenario; returns the facts that disagree for the first time."""
        agreement, began = self.agreement, self._clock.now()
        reasons: set[str] = set()
        new = []
        for disparity in self._sides.disparities(scenario, self._facts):
            fact = disparity.fact
            agreement.compared[fact] += 1
            if disparity.differences:
                explained = explain(disparity, self._sides.reasons)
                reasons.update(explained)
                if not explained and fact not in agreement.found:
                    self._keep(disparity, agreement.draws + 1)
                    new.append(fact)
        agreement.draws += 1
        for reason in reasons:
            agreement.accounted[reason] += 1
        agreement.seconds += self._clock.now() - began
        self._progress(agreement)
        return new

    def _shrink(self, fact: str, end: float) -> None:
        """Search, until `end`, for a smaller scenario in which this fact disagrees without a reason."""
        found = self.agreement.found[fact]

        def fails(scenario: Scenario) -> int | None:
            disparities = list(self._sides.disparities(scenario, (fact,)))
            self.agreement.shrinking += 1
            self._progress(self.agreement)
            for disparity in disparities:
                if disparity.differences and not explain(disparity, self._sides.reasons):
                    self._keep(disparity, found.draws_to_find)
                    return len(scenario.steps)  # a difference may show at the end only
            return None

        self._search(found.scenario, fails, len(found.scenario.steps), end, clock=self._clock)

    def _keep(self, disparity: Disparity, draws: int) -> None:
        """Save the scenario in place of the one before, and note it."""
        fact, first, second = disparity.fact, disparity.first, disparity.second
        is_another = first.scenario != second.scenario
        path = self._save(self._files[fact], first.scenario, first if is_another else second)
        other = self._save(self._second_files[fact], second.scenario, second) if is_another else ""
        self.agreement.found[fact] = Disagreement(
            fact, tuple(disparity.differences), first.scenario, path, draws, other
        )

    def _save(self, file: seeds.SeedFile, scenario: Scenario, seen: Draw) -> str:
        records = tuple(finding.record() for finding in judge(seen))
        return file.save(seeds.Seed(seeds.SCHEMA, scenario, records, self._environment))
