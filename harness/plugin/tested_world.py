"""The world that property tests use: every scenario runs on the system that the options name, and is judged.

Invariant: a failing scenario is saved before its finding is raised, and the seed file that a finding names holds the
scenario that it lists.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hypothesis import currently_in_test_context, event

from harness.campaign.keeper import Keeper
from harness.campaign.replay import with_system
from harness.errors import PluginError, UsageError
from harness.oracle.case import Case
from harness.oracle.findings import Finding
from harness.oracle.judge import examine_case
from harness.oracle.states.reached import reached
from harness.plugin.failing import Failing, kept
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
        self._failing: Failing | None = None
        self.draws = 0
        """Scenarios that the test has had checked; how the harness shrinks them does not count."""
        self.vacuous: Counter[str] = Counter()
        """Those that tested nothing, by reason (`harness.oracle.coverage.vacuity`)."""
        self.raised: Finding | UsageError | None = None
        """What `check` raised the last time that it did."""

    @property
    def size(self) -> int:
        """The largest world it can run."""
        return self._world.size

    @property
    def substrate(self) -> str:
        """Where its ranks stand: `sim` or `nccl`."""
        return self._world.platform.name

    @property
    def seed_files(self) -> list[str]:
        """Those of the test that runs."""
        keeper = self._keepers.get(_test())
        return [found.seed_file for found in keeper.found.values() if found.seed_file] if keeper else []

    def begin(self) -> None:
        """A test begins."""
        self.draws, self.vacuous = 0, Counter()

    def run(self, scenario: Scenario) -> Draw:
        """Execute a scenario as it is, and judge nothing."""
        return self._world.run(scenario)

    def check(self, scenario: Scenario) -> Draw:
        """Execute a scenario on the system that the options name, and raise its first finding.

        The scenario is saved first. A seed file for each test and rule holds the scenario of the finding that was
        raised last; in a property test, the smallest one in the end.
        """
        __tracebackhide__ = True
        try:
            return self._checked(scenario)
        except (Finding, UsageError) as error:
            self.raised = error
            raise

    @contextmanager
    def failing(self) -> Iterator[Failing]:
        """What a property test breaks while this is open. The draws that it checks are noted there."""
        keeper = self._keepers[_test()] = Keeper(self._folder, self._environment)
        self._failing = Failing(self._world, keeper)
        try:
            yield self._failing
        finally:
            self._failing = None

    def _checked(self, scenario: Scenario) -> Draw:
        __tracebackhide__ = True
        if scenario.world > self.size:
            raise UsageError(
                f"a scenario of {scenario.world} ranks does not fit --symm-world={self.size}: draw no larger ones, "
                f"scenarios(world={self.size}), or start more ranks"
            )
        scenario = with_system(scenario, *self._system)
        if self._failing is not None:
            self._failing.go_on(scenario)
        keeper = self._keepers.setdefault(_test(), Keeper(self._folder, self._environment))
        try:
            draw = self._world.run(scenario)
        except PluginError as error:
            _note(error, *listing(scenario))
            with suppress(UsageError):  # what it raised says more than a full disk
                _note(error, *kept(keeper.keep_refused(scenario, error), scenario))
            raise
        case = Case(draw)
        verdict = examine_case(case)
        findings = verdict.findings
        self.draws += 1
        self.vacuous.update([verdict.vacuous] if verdict.is_vacuous else [])
        _note_states(case)
        if self._failing is not None:
            self._failing.tell(draw, findings)
        if findings:
            keeper.found.pop(findings[0].key, None)  # a smaller one of an earlier call is another scenario
            path = keeper.keep(scenario, findings[0], findings, key=findings[0].key).seed_file
            _note(findings[0], *listing(scenario, findings[0].step), *places(findings[0].record()))
            _note(findings[0], *(f"also {finding}" for finding in findings[1:]), *kept(path, scenario))
            raise findings[0]
        return draw


def _note_states(case: Case) -> None:
    """Have Hypothesis count the states that a draw reached, where it draws: they stand in its statistics and in its
    observations."""
    if currently_in_test_context():
        for state in reached(case):
            event(str(state))


def _test() -> str:
    return os.environ.get("PYTEST_CURRENT_TEST", "")


def _note(error: Exception, *lines: str) -> None:
    """Have pytest show these lines below the error."""
    for line in lines:
        error.add_note(shown(line))
