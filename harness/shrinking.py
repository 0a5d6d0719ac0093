"""Makes the scenario of a finding smaller by running smaller ones: in a hurry, and beside GPUs on a simulation first.

Invariant: what is kept has failed on the world that it was found on, and not by a presumption.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from harness.draw import Draw
from harness.errors import MachineError, PluginError
from harness.findings import Finding
from harness.keeper import Keeper
from harness.program import Scenario
from harness.reduce import Fails, Reduced, reduce
from harness.world import World

WORTH_A_SIMULATION = 5.0
"""Least seconds for making a finding smaller for which a simulation beside GPUs is started."""
CONFIRMATIONS = 10
"""Runs in which a scenario that was presumed to hang has to hang once."""


class Shrinking:
    """Runs smaller scenarios on `world` and keeps those that fail. `judge` gives the findings of a draw that count;
    `tried` is called after each."""

    def __init__(
        self, world: World, keeper: Keeper, judge: Callable[[Draw], Sequence[Finding]], tried: Callable[[], None]
    ) -> None:
        self._world, self._keeper, self._judge, self._tried = world, keeper, judge, tried
        self._presumed: set[Scenario] = set()

    def run(self, rule: str, end: float, is_dear: bool) -> None:
        """Make what is kept of a rule smaller, until `end` by `time.monotonic`. Where a scenario was but presumed to
        hang, that it does is shown after that. `is_dear`: a run that fails leaves no rank alive."""
        now = time.monotonic()
        if is_dear and end - now >= WORTH_A_SIMULATION:
            self._rehearse(rule, (now + end) / 2)
        reduced = self._search(rule, end, hurried=True)
        if reduced.scenario in self._presumed and not self._is_confirmed(rule, reduced.scenario):
            reduced = self._search(rule, end, hurried=False)
        self._keeper.settle(rule, reduced.how)

    def _search(self, rule: str, end: float, hurried: bool) -> Reduced:
        found = self._keeper.found[rule]
        return reduce(found.scenario, self._fails(rule, self._world, hurried), found.finding.step, end)

    def _rehearse(self, rule: str, end: float) -> None:
        """Where ranks on GPUs hung or died, which costs seconds a try, make the scenario smaller on a simulation first;
        what comes of that counts if it fails on the GPUs too."""
        simulation = self._world.simulation
        if simulation is None:
            return
        scenario, fails = self._keeper.found[rule].scenario, self._fails(rule, simulation, hurried=True)
        smaller = scenario
        with suppress(MachineError):  # of the simulation, which nobody has asked for
            step = fails(scenario)
            if step is not None:
                smaller = reduce(scenario, fails, step, end).scenario
        if smaller != scenario:
            self._fails(rule, self._world, hurried=False)(smaller)

    def _is_confirmed(self, rule: str, scenario: Scenario) -> bool:
        """Whether a scenario hangs when it has all the time there is. A race may pass some times before; each pass
        takes little."""
        fails = self._fails(rule, self._world, hurried=False)
        return any(fails(scenario) is not None for _ in range(CONFIRMATIONS))

    def _fails(self, rule: str, world: World, hurried: bool) -> Fails:
        """Whether a scenario still breaks a rule on a world, here or elsewhere."""

        def fails(scenario: Scenario) -> int | None:
            try:
                draw = world.run(scenario, hurried=hurried)
            except PluginError:  # the system under test takes no such scenario; it was found on another
                return None
            self._tried()
            findings = self._judge(draw)
            broken = self._keeper.found[rule].again(findings)
            if broken is None:
                return None
            if world is self._world:
                self._note(draw, broken, findings)
            return broken.step

        return fails

    def _note(self, draw: Draw, broken: Finding, findings: Sequence[Finding]) -> None:
        """Keep a scenario that failed on this world."""
        if draw.presumed:
            self._presumed.add(draw.scenario)
            return
        self._presumed.discard(draw.scenario)
        self._keeper.keep(draw.scenario, broken, findings)
