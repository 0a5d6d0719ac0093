"""Runs scenarios again for a finding that is known, and judges them.

Invariant: a scenario that the system under test refuses is no failure; the finding was met with another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from harness.campaign.keeper import Keeper
from harness.clock import CLOCK, Clock
from harness.errors import PluginError
from harness.oracle.findings import Finding
from harness.scenario.scenario import Scenario
from harness.trace.draw import Draw
from harness.world.world import World


class Failure(NamedTuple):
    """A run in which a known finding came again, which is kept by `key`."""

    key: str
    draw: Draw
    broken: Finding
    findings: Sequence[Finding]
    """All that count, the known one among them."""


class Trials:
    """Runs on `world` for what `keeper` has kept. `judge` gives the findings of a draw that count; `tried` is called
    after each run."""

    def __init__(
        self,
        world: World,
        keeper: Keeper,
        judge: Callable[[Draw], Sequence[Finding]],
        tried: Callable[[], None],
        clock: Clock = CLOCK,
    ) -> None:
        self.world, self.keeper, self.clock = world, keeper, clock
        self._judge, self._tried = judge, tried

    def failure(
        self, key: str, scenario: Scenario, world: World | None = None, *, hurried: bool = True
    ) -> Failure | None:
        """Run a scenario, on another `world` if one is given. None where the finding kept by `key` does not come again.

        `hurried`: ranks that are presumed to hang are not waited for.
        """
        try:
            draw = (world or self.world).run(scenario, hurried=hurried)
        except PluginError:
            return None
        self._tried()
        findings = self._judge(draw)
        broken = self.keeper.found[key].again(findings, scenario)
        return None if broken is None else Failure(key, draw, broken, findings)

    def failure_after(self, before: Sequence[Scenario], key: str, scenario: Scenario) -> Failure | None:
        """The same on fresh ranks, which run `before` first and nothing else. No presumption counts: fresh ranks may be
        silent for long, while kernels are compiled."""
        failure = self._after(before, key, scenario, hurried=True)
        if failure is not None and failure.draw.is_presumed:
            failure = self._after(before, key, scenario, hurried=False)
        return failure

    def keep(self, failure: Failure, *, anyway: bool = False) -> None:
        """Keep the scenario of a run, as `Keeper.keep` does."""
        key, draw, broken, findings = failure
        is_costly = not draw.is_clean
        self.keeper.keep(
            draw.scenario, broken, findings, printed=draw.printed, costs_ranks=is_costly, anyway=anyway, key=key
        )

    def _after(self, before: Sequence[Scenario], key: str, scenario: Scenario, hurried: bool) -> Failure | None:
        self.world.renew()
        for draw in before:
            self.failure(key, draw)
        return self.failure(key, scenario, hurried=hurried)
