"""The world that property tests use: every scenario runs on the system that the options name, and is judged.

Invariant: a failing scenario is saved before its finding is raised.
"""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import chain
from pathlib import Path

from harness.campaign import seeds
from harness.campaign.keeper import Keeper
from harness.campaign.replay import with_system
from harness.errors import PluginError, UsageError
from harness.oracle.judge import judge
from harness.report.frames import places
from harness.report.listing import listing, shown
from harness.scenario.scenario import Scenario
from harness.scenario.system import Sites
from harness.trace.draw import Draw
from harness.world import environment
from harness.world.world import World


class TestedWorld:
    """What the `world` fixture gives: a running world, and the system that the options name."""

    __test__ = False

    def __init__(
        self, world: World, pool: str | None, collectives: str | None, sites: Sites | None, folder: Path
    ) -> None:
        self._world, self._system, self._folder = world, (pool, collectives, sites), folder
        self._environment = environment.describe(world)
        self._keepers: dict[str, Keeper] = {}

    @property
    def size(self) -> int:
        """The largest world it can run."""
        return self._world.size

    def run(self, scenario: Scenario) -> Draw:
        """Execute a scenario as it is, and judge nothing."""
        return self._world.run(scenario)

    def check(self, scenario: Scenario) -> Draw:
        """Execute a scenario on the system that the options name, and raise its first finding.

        The scenario is saved first, one seed file for each test and rule, which shrinks as Hypothesis does.
        """
        __tracebackhide__ = True
        if scenario.world > self.size:
            raise UsageError(
                f"a scenario of {scenario.world} ranks does not fit --symm-world={self.size}: draw no larger ones, "
                f"scenarios(world={self.size}), or start more ranks"
            )
        scenario = with_system(scenario, *self._system)
        keeper = self._keeper()
        try:
            draw = self._world.run(scenario)
        except PluginError as error:
            _note(error, *listing(scenario))
            with suppress(UsageError):  # what it raised says more than a full disk
                _note(error, *_seed(keeper.keep_refused(scenario, error), scenario))
            raise
        findings = judge(draw)
        if findings:
            found = keeper.keep(scenario, findings[0], findings)
            program = listing(scenario, findings[0].step), places(findings[0].record())
            also = (f"also {finding}" for finding in findings[1:])
            _note(findings[0], *chain(*program, also), *_seed(found.seed_file, found.scenario))
            raise findings[0]
        return draw

    def _keeper(self) -> Keeper:
        test = os.environ.get("PYTEST_CURRENT_TEST", "")
        return self._keepers.setdefault(test, Keeper(self._folder, self._environment))


def _seed(path: str, scenario: Scenario) -> tuple[str, str]:
    """Where the scenario is, and what runs it again."""
    return f"seed file: {path}", f"replay: {seeds.command(path, scenario.system)}"


def _note(error: Exception, *lines: str) -> None:
    """Have pytest show these lines below the error."""
    for line in lines:
        error.add_note(shown(line))
