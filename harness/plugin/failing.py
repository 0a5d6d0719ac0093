"""A property test that fails: each rule that it broke, made smaller by the harness, and shown with its seed file.

Invariant: of each rule there is one scenario. It is the one that is listed, that the seed file holds, and that replays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain

import msgspec

from harness.campaign import seeds
from harness.campaign.keeper import Found, Keeper
from harness.campaign.limits import MORE, Limits
from harness.campaign.reruns import Origin, Rerunning
from harness.campaign.smaller.shrinking import Shrinking
from harness.campaign.trials import Trials
from harness.clock import CLOCK, Clock
from harness.errors import PluginError, UsageError
from harness.oracle.findings import RULES, Finding
from harness.oracle.judge import judge
from harness.report.frames import places
from harness.report.listing import listing, shown
from harness.report.verdicts import story
from harness.scenario.scenario import Scenario
from harness.trace.draw import Draw
from harness.world.world import World

LOOKING = 10.0
"""Seconds after the first failure in which other rules may be found, as Hypothesis itself has it."""
REPEATS = 5
"""Runs of scenarios that failed already, after which Hypothesis is taken to shrink. It also draws some twice."""
RUNS = 8
"""Runs of the smallest scenario of a rule, where there is time, to know whether it always fails."""


class Enough(BaseException):
    """Leaves Hypothesis, which would run what failed again, make it smaller, and show a scenario of its own."""


class Escape(msgspec.Struct, frozen=True):
    """A finding that a test did not handle, the draw that it is of, and its number among those of the test."""

    draw: Draw
    findings: Sequence[Finding]
    number: int


class Failing:
    """What a property test has broken so far. `world` runs smaller scenarios, `keeper` writes the seed files.

    `tell` has to be called with every draw that is judged, `escaped` with each finding that ended the test's body.
    """

    def __init__(self, world: World, keeper: Keeper, clock: Clock = CLOCK) -> None:
        self.keeper = keeper
        self.error: UsageError | None = None
        """Why no more can be drawn: the request, the machine, or the system under test."""
        self.others: dict[type[BaseException], str] = {}
        """Errors of the test's own, by type: one of each."""
        self.notes: list[str] = []
        """What the test noted in the draw that failed first."""
        self.may_shrink = True
        """Whether the test's settings have a phase for it."""
        self._world, self._clock = world, clock
        self._escapes: dict[str, list[Escape]] = {}
        self._origins: dict[str, Origin] = {}
        self._began: float | None = None
        self._draws, self._last, self._repeats = 0, 0, 0
        self._judged: tuple[Finding, Escape] | None = None
        """The last finding that `check` raised, with its draw."""
        self._runs: Counter[Scenario] = Counter()
        self._failures: dict[Scenario, list[Sequence[Finding]]] = {}

    @property
    def is_failing(self) -> bool:
        """Whether there is anything to show."""
        return bool(self._escapes) or self.error is not None

    def go_on(self, scenario: Scenario | None = None) -> None:
        """Raises `Enough` where another draw, of this scenario, would show nothing new."""
        if self.error is not None or (self._began is not None and self._has_looked()):
            raise Enough
        escapes = chain.from_iterable(self._escapes.values())
        again = [each.draw for each in escapes if each.draw.scenario == scenario]
        self._repeats += bool(again)
        if self._repeats > REPEATS or any(not draw.is_clean for draw in again):
            raise Enough

    def _has_looked(self) -> bool:
        assert self._began is not None
        return self._draws >= self._last or self._clock.now() >= self._began + LOOKING

    def tell(self, draw: Draw, findings: Sequence[Finding]) -> None:
        """Note a draw that the test had judged."""
        self._draws += 1
        if findings:
            self._judged = findings[0], Escape(draw, findings, self._draws)
        self._counted(draw, findings)

    def escaped(self, finding: Finding, notes: Sequence[str], is_last: bool) -> None:
        """Note that the last finding ended the test's body. `is_last`: the settings ask for one failure."""
        assert self._judged is not None
        if self._began is None:
            self._began = self._clock.now()
            self._last = self._draws + (0 if is_last else MORE)
            self.notes = [*notes]
        if finding.key not in self._escapes:
            scenario = self._judged[1].draw.scenario
            self._origins[finding.key] = Origin(scenario, tuple(self._world.ran)[:-1])
        self._escapes.setdefault(finding.key, []).append(self._judged[1])

    def shrink(self, seconds: float) -> None:
        """Keep the smallest scenario of each rule, and make it smaller for so long in all."""
        end = self._clock.now() + (seconds if self.may_shrink else 0)
        for key, escapes in self._escapes.items():
            self.keeper.found.pop(key, None)  # it may be of a finding that the test handles
            for each in escapes:
                is_costly = not each.draw.is_clean
                self.keeper.keep(
                    each.draw.scenario, each.findings[0], each.findings, each.number, costs_ranks=is_costly, key=key
                )
        for others, key in zip(range(len(self._escapes), 0, -1), self._escapes, strict=True):
            if self.may_shrink:
                now = self._clock.now()
                self._make_smaller(key, now + max(0.0, end - now) / others)

    def _make_smaller(self, key: str, end: float) -> None:
        """Shrink what is kept by `key`, and see how often it fails, on fresh ranks too. Where each run of it costs the
        ranks, shrinking has seen that."""
        counted = Trials(self._world, self.keeper, self._judge, lambda: None, self._clock)
        costs_ranks = any(not each.draw.is_clean for each in self._escapes[key])
        Shrinking(counted).run(key, end, costs_ranks)
        found = self.keeper.found[key]
        if not found.costs_ranks:
            self._run_again(key, end)
        if not (found.costs_ranks and found.shrunk == "smallest"):
            on_fresh = Trials(self._world, self.keeper, judge, lambda: None, self._clock)
            left = min(Limits().rerun_seconds, end - self._clock.now())
            Rerunning(on_fresh, Shrinking(on_fresh)).run(key, Limits().reruns, left, self._origins[key])

    def _run_again(self, key: str, end: float) -> None:
        """Whether the smallest scenario always fails; the more runs there are, the rarer the passes that show."""
        found = self.keeper.found[key]
        with suppress(PluginError):  # the finding stands
            while self._runs[found.scenario] < RUNS and self._clock.now() < end:
                if found.again(self._judge(self._world.run(found.scenario)), found.scenario) is None:
                    self.keeper.settle(key, "race")

    def _judge(self, draw: Draw) -> Sequence[Finding]:
        findings = judge(draw)
        if draw.nccl == self._world.nccl and not draw.is_presumed:  # not on a simulation beside GPUs
            self._counted(draw, findings)
        return findings

    def _counted(self, draw: Draw, findings: Sequence[Finding]) -> None:
        self._runs[draw.scenario] += 1
        if findings:
            self._failures.setdefault(draw.scenario, []).append(findings)

    @property
    def found(self) -> list[Found]:
        """What is kept of each rule that ended the test's body."""
        return [self.keeper.found[key] for key in self._escapes if key in self.keeper.found]

    @property
    def raised(self) -> Exception | None:
        """What ended the test's body where the first finding was met, with its traceback."""
        first = next(iter(self._escapes.values()), None)
        return first[0].findings[0] if first else self.error

    def outcome(self) -> Exception:
        """What the test is to raise: its first finding, with everything else below it."""
        found = self.found
        if not found:
            assert self.error is not None
            return self.error
        first, *more = found
        record = first.finding
        raised = RULES[record.rule](record.explanation, step=record.step, ranks=record.ranks, stacks=record.stacks)
        for line in chain(self._about(first), *(self._another(each) for each in more), self._beside()):
            raised.add_note(shown(line))
        return raised

    def _about(self, found: Found) -> Iterator[str]:
        """The program, how it was found, and where it is kept."""
        yield from listing(found.scenario, found.finding.step)
        yield from places(found.finding)
        failures = self._failures.get(found.scenario, [])
        of_rule = [each for each in failures if found.again(each, found.scenario)]
        others = of_rule[-1] if of_rule else ()
        yield from (f"also {finding}" for finding in others if finding.key != found.finding.key)
        yield from self._story(found, len(of_rule))
        yield from kept(found.seed_file, found.scenario) if found.seed_file else ("it could not be kept",)

    def _story(self, found: Found, failures: int) -> Iterator[str]:
        runs = self._runs[found.scenario]
        if self.may_shrink:
            yield story(found)
        else:
            whole = story(msgspec.structs.replace(found, shrunk="smallest"))
            yield f"{whole}; the test's settings have no phase to make it smaller"
        if failures < runs:
            yield f"it failed in {failures} of {runs} runs"

    def _another(self, found: Found) -> Iterator[str]:
        yield from ("", f"{found.finding.rule}: {found.finding.explanation}", *self._about(found))

    def _beside(self) -> Iterator[str]:
        """What else there is to say: errors, and the test's notes."""
        if self.error is not None:
            yield from ("", f"also {type(self.error).__name__}: {self.error}", *getattr(self.error, "__notes__", ()))
        for other in self.others.values():
            yield from ("", f"also, in another draw, {other}")
        if self.notes:
            yield from ("", "noted by the test, on the scenario as it was drawn:", *self.notes)


def kept(path: str, scenario: Scenario) -> tuple[str, str]:
    """Where a scenario is, and what runs it again."""
    return f"seed file: {path}", f"replay: {seeds.command(path, scenario.system)}"
