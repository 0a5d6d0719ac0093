"""A campaign as `symm fuzz` runs it: shown, written and kept, however it ends.

Invariant: what stands in the folder of a run and in its JSON are the same facts. While the run goes on they say that it
was interrupted, since it may be killed at any time.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import msgspec
from rich.console import Console

from harness import interrupts
from harness.campaign.campaign import Campaign
from harness.campaign.tally import Tally
from harness.cli.ending import Outputs, at_the_end
from harness.cli.nights.keeping import Keeping
from harness.cli.nights.tonight import Tonight
from harness.cli.pages import explain
from harness.clock import CLOCK, Clock
from harness.errors import UsageError
from harness.nights.guide import Guide
from harness.nights.known import replay
from harness.nights.refreshing import Refreshing
from harness.report import data, leftovers, results, terminal
from harness.report.nights import coverage, news
from harness.report.pages.account import Account
from harness.report.results import Result
from harness.scenario.system import System

UNDER_WAY = {"interrupted": True, "ended": None}


@dataclass
class Night:
    """A campaign with what it is drawn by, and with where its facts go."""

    campaign: Campaign
    guide: Guide
    tonight: Tonight
    keeping: Keeping
    outputs: Outputs
    console: Console
    details: terminal.Details
    system: System
    environment: dict[str, Any]
    accounts: dict[str, Account] = field(default_factory=dict)
    """Pictures of findings by their seed files, where a file gets them."""
    clock: Clock = CLOCK
    began: float | None = None
    ended: float | None = None
    """When known cases began to run, and when the campaign was over."""

    def run(self, draws: int | None, minutes: float | None, named: Collection[str | None]) -> Tally:
        """Run known cases again, then the campaign; show and write what it found, also after Ctrl-C or where a plug-in
        has not its shape. Of known cases those run whose plug-ins are `named`."""
        with (
            at_the_end(self._show, self._write),
            terminal.progress(self.console, draws, minutes=minutes, speed=self.outputs.speed) as advance,
        ):
            self.campaign.progress = Refreshing(self._refresh, advance)
            self.campaign.progress(self.campaign.tally)
            self.began = self.clock.now()
            try:
                left = replay(self.campaign.world, self.keeping.known, minutes, self.tonight.seed, named)
                self.campaign.run(draws, minutes and left)
            finally:
                self.ended = self.clock.now()
        return self.campaign.tally

    @property
    def _seconds(self) -> float:
        """Of the night so far, without what is done before and after it."""
        now = self.clock.now() if self.ended is None else self.ended
        return now - (now if self.began is None else self.began)

    @property
    def _says_all(self) -> bool:
        """Whether the command ends with a sentence, and there is nothing beside it."""
        return isinstance(sys.exception(), UsageError) and not self.campaign.tally.found and not interrupts.has_come()

    @property
    def _about(self) -> dict[str, Any]:
        return {"seed": self.tonight.seed, "system": msgspec.to_builtins(self.system)}

    def _found(self) -> dict[str, Any]:
        campaign, tonight = self.campaign, self.tonight
        facts = data.fuzz(campaign.tally, campaign.world, self.environment, tonight.seed, tonight.shard)
        facts = explain.with_accounts({**facts, "coverage": self.guide.as_data()}, self.accounts)
        if self.keeping.folder is not None:  # files are written before the JSON that names them
            self.keeping.known.keep_met(self.keeping.folder.known)
        return news.added(facts, campaign.tally, self.keeping.known, self._seconds)

    def _refresh(self) -> None:
        if self.keeping.folder is not None:
            facts = self.outputs.facts(self._found(), **self._about)
            data.write(facts | UNDER_WAY, str(self.keeping.folder.run))

    def _write(self) -> None:
        self.keeping.known.save()
        kind = f"symm.fuzz.{self.system.pool}"
        if self._says_all:
            self.outputs.refuse(self.console, Result(kind, "draws", "error", str(sys.exception())))
            return
        found, folder = self._found(), self.keeping.folder
        whole = self.outputs.facts(found, **self._about)
        try:
            if folder is not None:
                data.write(whole, str(folder.run))
            outcome = results.of_campaign(kind, self.campaign.tally, has_met=bool(self.keeping.known.met))
            self.outputs.write_whole(self.console, found, whole, outcome)
        finally:  # a page that cannot be made costs no facts
            explain.write_report(whole, self.outputs.html)

    def _show(self) -> None:
        if self._says_all:
            return
        campaign, console = self.campaign, self.console
        lines = campaign.keep_under_way() if interrupts.has_come() else ""  # before anything that might fail
        self.guide.finish()
        coverage.show(console, self.guide.coverage, self.guide.corpus)
        terminal.summary(console, campaign.tally, self.details)
        news.show(console, campaign.tally, self.keeping.known, self._seconds)
        leftovers.show(console, campaign.world)
        if lines:
            console.print(terminal.plain(lines), highlight=False, soft_wrap=True)
        if sys.exception() is None and (self.outputs.is_kept or self.keeping.folder is not None):
            self.accounts |= explain.of_findings(campaign.world, campaign.tally.found.values(), self.environment)
