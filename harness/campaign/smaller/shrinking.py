"""Shrinks the scenario of a finding by running smaller ones: hurried, and beside GPUs on a simulation first.

Invariant: what is kept has failed on the world that it was found on, and not by a presumption.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from harness.campaign.smaller.search import Fails, Smallest, smallest_failing
from harness.campaign.trials import Failure, Trials
from harness.errors import MachineError
from harness.scenario.scenario import Scenario
from harness.world.world import World

WORTH_A_SIMULATION = 5.0
"""Least seconds for shrinking a finding for which a simulation beside GPUs is started."""
CONFIRMATIONS = 10
"""Runs in which a scenario that was presumed to hang has to hang once."""


class Shrinking:
    """Runs smaller scenarios by `trials` and keeps those that fail. `search` finds the smallest."""

    def __init__(self, trials: Trials, search: Callable[..., Smallest] = smallest_failing) -> None:
        self._trials, self._world, self._keeper, self._clock = trials, trials.world, trials.keeper, trials.clock
        self._search = search
        self._presumed: set[Scenario] = set()

    def run(self, key: str, end: float, costs_ranks: bool) -> None:
        """Shrink the scenario that is kept of a rule, until `end` by the clock. A scenario that was only presumed to
        hang is run without the shortcut after that. `costs_ranks`: a run that fails leaves no rank alive."""
        now = self._clock.now()
        if costs_ranks and end - now >= WORTH_A_SIMULATION:
            self._rehearse(key, (now + end) / 2)
        smallest = self._smallest(key, end, hurried=True)
        if smallest.scenario in self._presumed:
            passes = self._passes_before_it_fails(key, smallest.scenario, end)
            if passes is None:
                smallest = self._smallest(key, end, hurried=False)
            elif passes:
                smallest = Smallest(smallest.scenario, "race")
        self._keeper.settle(key, smallest.how)

    def run_on_fresh_ranks(self, key: str, scenario: Scenario, end: float) -> bool:
        """Keep a scenario if it fails on ranks that have run nothing else, even in place of a smaller one, and shrink
        it on such ranks until `end`. Returns whether it failed."""
        failure = self._trials.failure_after((), key, scenario)
        if failure is None:
            return False
        self._trials.keep(failure, anyway=True)

        def fails(smaller: Scenario) -> int | None:
            again = self._trials.failure_after((), key, smaller)
            if again is not None:
                self._note(again)
            return None if again is None else again.broken.step

        smallest = self._search(scenario, fails, failure.broken.step, end, clock=self._clock)
        self._keeper.settle(key, smallest.how)
        return True

    def _smallest(self, key: str, end: float, hurried: bool) -> Smallest:
        found = self._keeper.found[key]
        fails = self._fails(key, self._world, hurried)
        return self._search(found.scenario, fails, found.finding.step, end, clock=self._clock)

    def _rehearse(self, key: str, end: float) -> None:
        """Where ranks on GPUs hung or died, which costs seconds a try, shrink the scenario on a simulation first. The
        result counts if it fails on the GPUs too."""
        simulation = self._world.simulation
        if simulation is None:
            return
        scenario, fails = self._keeper.found[key].scenario, self._fails(key, simulation, hurried=True)
        smaller = scenario
        with suppress(MachineError):  # of the simulation, which the user did not ask for
            step = fails(scenario)
            if step is not None:
                smaller = self._search(scenario, fails, step, end, clock=self._clock).scenario
        if smaller != scenario:
            self._fails(key, self._world, hurried=False)(smaller)

    def _passes_before_it_fails(self, key: str, scenario: Scenario, end: float) -> int | None:
        """How often a scenario that was presumed to hang passes before it fails when it has all the time there is, as a
        race may; None if it never does, in as many runs as there is time for: until `end`, or for a deadline more."""
        fails = self._fails(key, self._world, hurried=False)
        end = max(end, self._clock.now() + self._world.deadline)
        for passes in range(CONFIRMATIONS):
            if fails(scenario) is not None:
                return passes
            if self._clock.now() >= end:
                break
        return None

    def _fails(self, key: str, world: World, hurried: bool) -> Fails:
        """Whether a scenario still breaks a rule on a world, this one or a simulation beside it."""

        def fails(scenario: Scenario) -> int | None:
            failure = self._trials.failure(key, scenario, world, hurried=hurried)
            if failure is None:
                return None
            if world is self._world:
                self._note(failure)
            return failure.broken.step

        return fails

    def _note(self, failure: Failure) -> None:
        """Keep a scenario that failed on this world."""
        draw = failure.draw
        if draw.is_presumed:
            if draw.scenario != self._keeper.found[failure.key].scenario:
                self._presumed.add(draw.scenario)
            return
        self._presumed.discard(draw.scenario)
        self._trials.keep(failure)
