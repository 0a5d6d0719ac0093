"""The fuzz loop: draw, run, judge, save, raise; Hypothesis shrinks.

Invariant: a failing scenario's seed file is on disk before its finding is raised. A malformed request
ends the campaign at once; it is never taken for a finding and shrunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from hypothesis import strategies as st
from hypothesis.errors import Flaky

from harness.campaign import seeds
from harness.campaign.keeper import Keeper
from harness.campaign.limits import Limits
from harness.campaign.reruns import Origin, Rerunning
from harness.campaign.settled import Settled, Settlement
from harness.campaign.smaller.search import Smallest, smallest_failing
from harness.campaign.smaller.shrinking import Shrinking
from harness.campaign.symptoms import BESIDE, Symptom, symptom
from harness.campaign.tally import Tally
from harness.campaign.trials import Trials
from harness.clock import CLOCK, Clock
from harness.errors import PluginError, UsageError
from harness.oracle.case import Case
from harness.oracle.findings import Finding
from harness.oracle.judge import Verdict, examine, examine_case
from harness.scenario.scenario import Scenario
from harness.strategies.batches import PATIENCE, batch
from harness.strategies.schedules import by_schedules
from harness.trace.draw import Draw
from harness.world.world import World

LONG = 2.0
"""Seconds after which a draw that Ctrl-C ends may have been a hang."""
AGAIN = " #"
"""Between a symptom and the number of the finding that has it, from the second on."""


class _Stop(BaseException):
    """Leaves Hypothesis at once: time is up, or the request was wrong."""

    def __init__(self, error: UsageError | None = None) -> None:
        self.error = error


class _Enough(BaseException):
    """Leaves a Hypothesis run whose failures are small enough for `harness.campaign.smaller.search`."""


class Guide(Protocol):
    """What sends some of the draws. `harness.nights.guide` has the one of the commands."""

    def scenarios(self) -> Iterable[Scenario]:
        """What to run before the next batch of the strategy."""

    def saw(self, draw: Draw, case: Case, verdict: Verdict, seconds: float) -> None:
        """Learn from a draw that was judged, and that counts."""


class Campaign:
    """Draws scenarios from `strategy` and runs them on `world` until the budget ends.

    What is found is shrunk at once, signed and settled; a few more draws look for other findings. What shrinks to the
    signature of a finding that is settled is that one once more. `known` is settled from the start.

    `expected` gives the rules that a scenario may break although everything is right; a draw that breaks one of them
    first is counted, and no finding. A draw runs by so many `schedules` (`harness.strategies.schedules`), or by none.
    `batches` are the numbers of those to draw, all if it is not given. `environment` goes into the seed files;
    `progress` is called after every draw. A `guide` gives further draws between those of the strategy.
    `draw_batch` draws, and `search` finds the smallest case where Hypothesis stops.
    """

    def __init__(
        self,
        world: World,
        strategy: st.SearchStrategy[Scenario],
        seeds_dir: Path,
        *,
        seed: int = 0,
        batches: Iterator[int] | None = None,
        environment: dict[str, Any] | None = None,
        progress: Callable[[Tally], None] = lambda tally: None,
        limits: Limits | None = None,
        schedules: int = 0,
        known: Sequence[Settled] = (),
        expected: Callable[[Scenario], Collection[str]] = lambda scenario: (),
        draw_batch: Callable[..., None] = batch,
        search: Callable[..., Smallest] = smallest_failing,
        guide: Guide | None = None,
        clock: Clock = CLOCK,
    ) -> None:
        self.world, self.progress, self._guide = world, progress, guide
        self._strategy, self._seed, self._expected = strategy, seed, expected
        self._schedules, self._batches = schedules, batches or count()
        self._draw_batch, self._clock = draw_batch, clock
        self._limits = limits or Limits()
        self._keeper = Keeper(seeds_dir, environment or {})
        self.tally = Tally(found=self._keeper.found)
        trials = Trials(world, self._keeper, self._judge, self._tried, clock)
        self._shrinking = Shrinking(trials, search)
        self._rerunning = Rerunning(trials, self._shrinking)
        self._keys: set[str] = set()
        """All keys by which something was kept. None comes again: what was kept by it may have been dropped since."""
        self._origins: dict[str, Origin] = {}
        """By key of a finding, where it was first met."""
        self.settled = Settlement(known)
        self._open: dict[Symptom, str] = {}
        """The symptoms that a batch has met and that are not settled, each with the key of its finding."""
        self._failed_at: float | None = None
        """When the first failure of a batch was found, if there was one."""
        self._is_for_search = False
        """Whether that failure left no rank alive, where each one costs new ranks and Hypothesis needs many; or whether
        another leads its draw, from which it mostly follows."""
        self._keys_that_cost_ranks: set[str] = set()
        """Keys of failures like that."""
        self._under_way: tuple[Scenario, float] | None = None
        """The draw that runs, and since when."""
        self._unaccounted = 0.0
        """Since when the time that findings take is not yet accounted to one."""
        self._known = 0.0
        self._shrinks = 0
        self._clean: set[int] = set()
        self._end: float | None = None
        self._limit: int | None = None

    def run(self, draws: int | None, minutes: float | None = None) -> Tally:
        """At most `draws` draws (None: no limit) in at most `minutes`. Raises `UsageError` for a wrong request."""
        self._end = None if minutes is None else self._clock.now() + 60 * minutes
        self._limit = draws
        idle = 0
        try:
            while idle < PATIENCE and not self._spent():
                before = self.tally.draws
                for draw in (self._guided, self._batch):
                    self._open, self._failed_at, self._shrinks = {}, None, 0
                    draw()
                    for key in dict.fromkeys(self._open.values()):
                        self._shrink(key)
                        self._end_with(key)
                idle = idle + 1 if self.tally.draws == before else 0
        except _Stop as stop:
            if stop.error is not None:
                raise stop.error from stop.error.__cause__
            for key in dict.fromkeys(self._open.values()):
                if key in self.tally.found and not self.tally.found[key].signature:
                    self._keeper.settle(key, "time")
                    self._end_with(key)
        self.tally.settled = self._limits.more if self._is_settled else None
        return self.tally

    def keep_under_way(self) -> str:
        """Keep the draw that a signal ended after it had run for a while. Returns the lines about it, or nothing."""
        scenario, began = self._under_way or (None, 0.0)
        seconds = self._clock.now() - began
        if scenario is None or seconds < LONG:
            return ""
        what = f"Draw {self.tally.draws + 1}" if self._failed_at is None else "A smaller case"
        try:
            kept = f"  replay: {seeds.command(self._keeper.keep_interrupted(scenario), scenario.system)}"
        except UsageError as error:
            kept = f"  It is not kept: {error}"
        return f"{what} had run for {seconds:.1f} s.\n{kept}"

    def _guided(self) -> None:
        """Run what the guide gives, up to a finding."""
        with suppress(Finding, _Enough):
            for scenario in self._guide.scenarios() if self._guide is not None else ():
                self._one(scenario)

    def _batch(self) -> None:
        try:
            self._draw_batch(self._strategy, self._one, self._seed, next(self._batches), shrink=True)
        except _Enough:
            pass
        except (Finding, Flaky, BaseExceptionGroup) as raised:
            _only_findings(raised)

    @property
    def is_cut_short(self) -> bool:
        """Whether time was up before the draws were, so that findings may be larger than they need to be."""
        return self._end is not None and self._clock.now() >= self._end

    def _one(self, drawn: Scenario) -> None:
        for scenario in by_schedules(drawn, self._schedules):
            self._try(scenario)

    def _try(self, scenario: Scenario) -> None:
        if self._spent():
            raise _Stop
        if self._is_small_enough():
            raise _Enough
        if hash(scenario) in self._clean:
            return  # every batch starts from the same simplest example
        began = self._clock.now()
        self._under_way = scenario, began
        try:
            draw = self._run(scenario)
            self._under_way = None
            new = self._noted(draw, began)
        except UsageError as error:
            self._under_way = None
            if self._failed_at is not None and isinstance(error, PluginError):
                return  # while a finding is shrunk, a scenario that the system refuses is no smaller case
            raise _Stop(self._kept(error, scenario)) from error
        self.progress(self.tally)
        if new is not None:
            raise new
        self._clean.add(hash(scenario))

    def _run(self, scenario: Scenario) -> Draw:
        """Run a draw. A hang that is settled is not waited for."""
        if self._failed_at is None and any(
            seen.shown.startswith("hang") for each in self.settled for seen in each.symptoms
        ):
            draw = self.world.run(scenario, hurried=True)
            if not draw.is_presumed or self._first_new(self._judge(draw), scenario, is_drawn=False) is None:
                return draw
            self._open.clear()
        return self.world.run(scenario)

    def _noted(self, draw: Draw, began: float) -> Finding | None:
        """Judge a draw, count it and keep what is new of it. Only then the guide learns of it, which may be refused."""
        case, is_drawn = Case(draw), self._failed_at is None
        verdict = examine_case(case)
        seconds = self._clock.now() - began
        new = self._counted(draw, verdict, seconds)
        if is_drawn and self._guide is not None:
            self._guide.saw(draw, case, verdict, seconds)
        return new

    def _end_with(self, key: str) -> None:
        """Run a finding that was shrunk again, and settle it. Its time began with the batch's first failure, or where
        that of the finding before it ended."""
        self._rerun(key)
        is_known = self._settle(key)
        now = self._clock.now()
        self.tally.known_shrinking += is_known * (now - self._unaccounted)
        self._unaccounted = now

    def _counted(self, draw: Draw, verdict: Verdict, seconds: float) -> Finding | None:
        """Count a draw and keep what is new of it: its first finding that is not settled."""
        findings = self._unexpected(draw.scenario, verdict)
        is_drawn = self._failed_at is None
        if is_drawn:
            self.tally.count(draw, verdict, seconds, is_expected=len(findings) < len(verdict.findings))
        else:
            self.tally.shrinking += 1
            self._shrinks += 1
        met = self._first_new(findings, draw.scenario, is_drawn)
        if met is None:
            self._known += seconds if findings else 0.0
            self.tally.known_draws += seconds if findings and is_drawn and self._is_known(findings, draw) else 0.0
            return None
        key, new = met
        if is_drawn:
            self._failed_at = self._unaccounted = self._clock.now()
            self._is_for_search = not draw.is_clean or BESIDE in key
        if not draw.is_clean:
            self._keys_that_cost_ranks.add(key)
        if self._limits.reruns:
            self._origins.setdefault(key, Origin(draw.scenario, tuple(self.world.ran)[:-1]))
        is_costly = not draw.is_clean
        self._keys.add(key)
        self._keeper.keep(draw.scenario, new, findings, self.tally.draws, draw.printed, costs_ranks=is_costly, key=key)
        return new.of_kind(key)

    def _first_new(self, findings: Sequence[Finding], scenario: Scenario, is_drawn: bool) -> tuple[str, Finding] | None:
        """The first finding that is not settled, and the key of what it is a finding of. Where it `is_drawn`, the
        settled ones count."""
        for number, finding in enumerate(findings):
            seen = symptom(findings, number, scenario)
            settled = self.settled.of(seen, finding, scenario)
            if settled is None:
                if seen not in self._open:
                    self._open[seen] = self._key(seen, finding.key)
                return self._open[seen], finding
            settled.draws += is_drawn
        return None

    def _is_known(self, findings: Sequence[Finding], draw: Draw) -> bool:
        """Whether the first finding of a draw without new ones is one that the user knows."""
        settled = self.settled.of(symptom(findings, 0, draw.scenario), findings[0], draw.scenario)
        return settled is not None and not settled.key

    def _key(self, seen: Symptom, rule: str) -> str:
        """The key of a symptom that a batch meets first: that of an open finding which it may be a smaller case of, or
        one of its own."""
        for other, key in self._open.items():
            if other.beside and other.shown == rule:
                return key
        earlier = sum(key.partition(AGAIN)[0] == str(seen) for key in self._keys)
        return f"{seen}{AGAIN}{earlier + 1}" if earlier else str(seen)

    def _judge(self, draw: Draw) -> Sequence[Finding]:
        return self._unexpected(draw.scenario, examine(draw))

    def _unexpected(self, scenario: Scenario, verdict: Verdict) -> Sequence[Finding]:
        """The findings, unless the first is of a rule that the scenario may break: others may follow from that."""
        findings = verdict.findings
        return () if findings and findings[0].rule in self._expected(scenario) else findings

    def _is_small_enough(self) -> bool:
        """Whether Hypothesis has had what it may spend on the failures of a batch."""
        if self._failed_at is None:
            return False
        limits = self._limits
        return (
            self._is_for_search
            or self._shrinks >= limits.shrinks
            or self._clock.now() >= self._failed_at + limits.shrink_seconds
        )

    def _shrink(self, key: str) -> None:
        """Search for a smaller case than Hypothesis left of a finding, with the time that it left too."""
        now, limits = self._clock.now(), self._limits
        left = max(0.0, (self._failed_at or now) + limits.shrink_seconds - now)
        end = min(now + left + limits.search_seconds, self._end or math.inf)
        self._shrinking.run(key, end, key in self._keys_that_cost_ranks)

    def _rerun(self, key: str) -> None:
        """Look whether a finding's smallest case comes again on fresh ranks, and how often."""
        found = self.tally.found[key]
        is_known = found.costs_ranks and found.shrunk == "smallest"
        if self._limits.reruns and not is_known:  # each run of it cost the ranks, so that it came again on fresh ones
            seconds = self._limits.rerun_seconds
            if self._end is not None:
                seconds = min(seconds, self._end - self._clock.now())
            self._rerunning.run(key, self._limits.reruns, seconds, self._origins[key])

    def _settle(self, key: str) -> bool:
        """Sign a finding's smallest case. If another has that signature, or leads there, it is that one. One that is
        larger by its layout alone is this one. Returns whether it is one that the user knows."""
        settled, seen = self._keeper.settled(key), {seen for seen, of in self._open.items() if of == key}
        twin = self.settled.twin(settled) or self.settled.of(*self._keeper.leading(key))
        if twin is not None:
            self._keeper.drop(key)
            twin.draws += 1
        else:
            twin = settled
            self.settled.add(settled)
            for each in [*self.settled.larger(settled)]:
                if each.key:
                    seen |= each.symptoms
                    self._keeper.drop(each.key)
                    self.settled.remove(each)
        twin.symptoms |= settled.symptoms | seen
        if twin.key:
            self._keeper.sign(twin.key, twin)
        return not twin.key

    def _tried(self) -> None:
        self.tally.shrinking += 1
        self.progress(self.tally)

    def _kept(self, error: UsageError, scenario: Scenario) -> UsageError:
        """The error; where a plug-in has not its shape, the scenario is kept and the error says where."""
        if not isinstance(error, PluginError):
            return error
        try:
            again = seeds.command(self._keeper.keep_refused(scenario, error), scenario.system)
            kept = PluginError(f"{error}; replay: {again}")
        except UsageError as full:
            kept = PluginError(f"{error}; its scenario is not kept: {full}")
        kept.__cause__ = error.__cause__
        return kept

    def _spent(self) -> bool:
        """Whether the budget is used up. A failure that was found is shrunk all the same, within the time."""
        if self.is_cut_short:
            return True
        if self._failed_at is not None:
            return False
        if self._is_settled or self._known > self._limits.known_seconds:
            return True
        return self._limit is not None and self.tally.draws >= self._limit

    @property
    def _is_settled(self) -> bool:
        """Whether enough draws have followed the first finding."""
        if self._limits.more is None:
            return False
        first = min((found.draws_to_find for found in self.tally.found.values()), default=self.tally.draws)
        return self.tally.draws >= first + self._limits.more


def _only_findings(raised: BaseException) -> None:
    """Findings are in the tally already; anything else that Hypothesis raised goes on."""
    # Hypothesis runs each of several distinct failures a last time and raises them together in a group
    # (`report_multiple_bugs`), among them a `_Stop` or `_Enough` that came in that last run.
    if isinstance(raised, Flaky):
        return  # Hypothesis raises it for a failure that does not come again: its seed file is kept
    for error in raised.exceptions if isinstance(raised, BaseExceptionGroup) else (raised,):
        if isinstance(error, BaseExceptionGroup):
            _only_findings(error)
        elif isinstance(error, _Stop):
            raise error
        elif not isinstance(error, Finding | Flaky | _Enough):
            raise raised
