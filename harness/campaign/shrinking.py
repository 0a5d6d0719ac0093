"""Shrinks the scenario of a finding by running smaller ones: hurried, and beside GPUs on a simulation first.

Invariant: what is kept has failed on the world that it was found on, and not by a presumption.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from harness.campaign.keeper import Keeper
from harness.campaign.search import Fails, Smallest, smallest_failing
from harness.clock import CLOCK, Clock
from harness.errors import MachineError, PluginError
from harness.oracle.findings import Finding
from harness.scenario.scenario import Scenario
from harness.trace.draw import Draw
from harness.world.world import World

WORTH_A_SIMULATION = 5.0
"""Least seconds for shrinking a finding for which a simulation beside GPUs is started."""
CONFIRMATIONS = 10
"""Runs in which a scenario that was presumed to hang has to hang once."""


class Shrinking:
    """Runs smaller scenarios on `world` and keeps those that fail. `judge` gives the findings of a draw that count;
    `tried` is called after each. `search` finds the smallest."""

    def __init__(
        self,
        world: World,
        keeper: Keeper,
        judge: Callable[[Draw], Sequence[Finding]],
        tried: Callable[[], None],
        search: Callable[..., Smallest] = smallest_failing,
        clock: Clock = CLOCK,
    ) -> None:
        self._world, self._keeper, self._judge, self._tried = world, keeper, judge, tried
        self._search, self._clock = search, clock
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
            try:
                draw = world.run(scenario, hurried=hurried)
            except PluginError:  # the system under test takes no such scenario; it was found on another
                return None
            self._tried()
            findings = self._judge(draw)
            broken = self._keeper.found[key].again(findings)
            if broken is None:
                return None
            if world is self._world:
                self._note(draw, broken, findings)
            return broken.step

        return fails

    def _note(self, draw: Draw, broken: Finding, findings: Sequence[Finding]) -> None:
        """Keep a scenario that failed on this world."""
        if draw.is_presumed:
            if draw.scenario != self._keeper.found[broken.key].scenario:
                self._presumed.add(draw.scenario)
            return
        self._presumed.discard(draw.scenario)
        self._keeper.keep(draw.scenario, broken, findings, printed=draw.printed)
