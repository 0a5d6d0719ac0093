"""The fuzz loop: how long Hypothesis shrinks, what the search gets after it, and how a campaign ends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st

from harness.campaign import seeds
from harness.campaign.campaign import LONG, Campaign
from harness.campaign.limits import Limits
from harness.campaign.settled import Settled
from harness.campaign.smaller.search import Smallest
from harness.errors import UsageError
from harness.oracle.case import Case
from harness.oracle.findings import Finding, Leak, Record
from harness.oracle.judge import Verdict
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, ReduceScatter
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.strategies.flows import flows
from harness.strategies.topologies import topologies
from harness.trace.draw import Draw
from harness.world.world import World
from tests.tools.campaigns import LEAKING, RIGHT, STUCK, TWO, campaign_of, layers
from tests.tools.clock import FakeClock

Run = Callable[[Scenario], None]


def test_what_costs_new_ranks_is_searched_without_hypothesis(simulation: World, tmp_path: Path) -> None:
    handed: list[tuple[Scenario, int]] = []

    def taken(scenario: Scenario, *_: object, **how: object) -> Smallest:
        handed.append((scenario, simulation.restarts))
        return Smallest(scenario, "time")

    before = simulation.restarts
    campaign_of(simulation, tmp_path, STUCK, search=taken).run(1)
    assert handed == [(STUCK, before + 1)]


def test_hypothesis_goes_on_where_only_a_later_failure_costs_the_ranks(simulation: World, tmp_path: Path) -> None:
    ran: list[Scenario] = []

    def three(strategy: object, run: Run, *_: object, **how: object) -> None:
        for scenario in (LEAKING, STUCK, LEAKING):
            with suppress(Finding):
                run(scenario)
            ran.append(scenario)

    def unchanged(scenario: Scenario, *_: object, **how: object) -> Smallest:
        return Smallest(scenario, "time")

    restarts = simulation.restarts
    campaign_of(simulation, tmp_path, draw_batch=three, search=unchanged, shrink_seconds=60).run(1)
    assert (ran, simulation.restarts) == ([LEAKING, STUCK, LEAKING], restarts + 1)


A, GATHERED = Allocate("a", "tp", 8), AllGather("tp", View("a"), 1)
TWO_RULES = st.sampled_from(
    [
        Scenario(TWO, (A,), System("tests.tools.planted:KeepsATensor")),
        Scenario(TWO, (A, GATHERED), System("tests.tools.planted:NeverRegisters")),
    ]
)


@pytest.mark.parametrize("runs", range(8))
def test_hypothesis_may_be_left_while_it_shows_several_failures(simulation: World, tmp_path: Path, runs: int) -> None:
    limits = Limits(more=5, shrinks=runs).within(5)
    tally = Campaign(simulation, TWO_RULES, tmp_path, limits=limits).run(20)
    assert tally.found.keys() == {"leak", "unregistered"}


KERNELS = System(collectives="harness.system.planted.kernels:LosesLastPeer")
TWO_BUGS = st.sampled_from(
    [
        Scenario(TWO, (A, AllGather("tp", View("a"), 1, via="kernel")), KERNELS),
        Scenario(TWO, (A, ReduceScatter("tp", View("a"), 1, via="kernel")), KERNELS),
    ]
)


def test_two_bugs_of_one_rule_are_two_findings(simulation: World, tmp_path: Path) -> None:
    tally = Campaign(simulation, TWO_BUGS, tmp_path, limits=Limits(more=12, shrinks=0, reruns=0).within(40)).run(20)
    shown = {f"wrong-data in {kind} by kernel" for kind in ("all_gather", "reduce_scatter")}
    signatures = {found.signature for found in tally.found.values()}
    assert ({*tally.found}, len(signatures), len(list(tmp_path.iterdir()))) == (shown, 2, 2)


WAYS = st.sampled_from([Scenario(TWO, steps, LEAKING.system) for steps in (layers(2), (A, GATHERED), (A,))])


def test_one_bug_is_one_finding_however_it_is_met(simulation: World, tmp_path: Path) -> None:
    tally = Campaign(simulation, WAYS, tmp_path, limits=Limits(more=12, reruns=0).within(40)).run(20)
    assert ({*tally.found}, len(list(tmp_path.iterdir()))) == ({"leak"}, 1)


NEEDS_RELEASE, PLAIN = Scenario(TWO, layers(1), LEAKING.system), Scenario(TWO, (A,), LEAKING.system)
WIDE = Scenario(Topology("four", "sglang", {"tp": 4}), layers(1), LEAKING.system)


def test_a_key_that_was_dropped_is_not_the_key_of_another_finding(simulation: World, tmp_path: Path) -> None:
    drawn = iter((WIDE, NEEDS_RELEASE, PLAIN))

    def one(strategy: object, run: Run, *_: object, **how: object) -> None:
        with suppress(Finding):
            run(next(drawn, RIGHT))

    def unchanged(scenario: Scenario, *_: object, **how: object) -> Smallest:
        return Smallest(scenario, "smallest")

    limits = Limits(reruns=0)
    tally = Campaign(simulation, st.nothing(), tmp_path, limits=limits, draw_batch=one, search=unchanged).run(3)
    assert {key: found.scenario for key, found in tally.found.items()} == {"leak #2": NEEDS_RELEASE, "leak #3": PLAIN}
    assert len({found.signature for found in tally.found.values()}) == len(list(tmp_path.iterdir())) == 2


def test_what_only_follows_from_a_finding_is_that_finding(simulation: World, tmp_path: Path) -> None:
    skewed = Scenario(TWO, (A, GATHERED), System("harness.system.planted.pools:ScratchOnOddRanks"))
    tally = campaign_of(simulation, tmp_path, skewed, search_seconds=20).run(8)
    (path,) = tmp_path.iterdir()
    assert [*tally.found] == ["offset-mismatch"]
    assert len(seeds.load(path).findings) > 1


def among_others(act: Callable[[], object]) -> None:
    """What leaves Hypothesis, raised as it raises several failures."""
    try:
        act()
    except BaseException as raised:
        raise BaseExceptionGroup("2 distinct failures", [Leak("shown", step=0, ranks=(0,)), raised]) from raised


def test_time_that_is_up_while_hypothesis_shows_several_failures_ends_the_campaign(tmp_path: Path) -> None:
    time, batches = FakeClock(), list[int]()

    def late(strategy: object, run: Run, seed: int, number: int, **how: object) -> None:
        batches.append(number)
        time.advance(60)
        among_others(lambda: run(RIGHT))

    campaign = campaign_of(SimpleNamespace(), tmp_path, draw_batch=late, clock=time.clock)
    assert (campaign.run(20, minutes=1).draws, batches, campaign.is_cut_short) == (0, [0], True)


def test_a_wrong_request_is_raised_from_among_several_failures(tmp_path: Path) -> None:
    def refuses(scenario: Scenario) -> None:
        raise UsageError("no such pool")

    def wrong(strategy: object, run: Run, *_: object, **how: object) -> None:
        among_others(lambda: run(RIGHT))

    with pytest.raises(UsageError, match="no such pool"):
        campaign_of(SimpleNamespace(run=refuses), tmp_path, draw_batch=wrong).run(20)


def test_another_error_among_several_failures_goes_on(tmp_path: Path) -> None:
    def fails() -> None:
        raise ZeroDivisionError

    def wrong(*_: object, **how: object) -> None:
        among_others(fails)

    with pytest.raises(BaseExceptionGroup, match="2 distinct failures"):
        campaign_of(SimpleNamespace(), tmp_path, draw_batch=wrong).run(20)


@pytest.mark.parametrize(
    ("scenario", "shrinking", "minutes", "left"),
    [(STUCK, 50, None, 57), (LEAKING, 0, None, 7), (LEAKING, 50, 0.1, 6)],
    ids=["what-is-left", "its-own", "of-the-campaign"],
)
def test_the_search_has_its_own_time_and_what_hypothesis_left(
    simulation: World, tmp_path: Path, scenario: Scenario, shrinking: int, minutes: float | None, left: float
) -> None:
    time, ends = FakeClock(100), list[float]()

    def timed(scenario: Scenario, fails: object, step: int, end: float, **how: object) -> Smallest:
        ends.append(end - time.seconds)
        return Smallest(scenario, "time")

    limits: Any = {"shrink_seconds": shrinking, "search_seconds": 7}
    campaign_of(simulation, tmp_path, scenario, search=timed, clock=time.clock, **limits).run(1, minutes)
    assert ends == [left]


class NeedsFour:
    """A faulty pool (one window for all groups) that takes no world of fewer than four ranks."""

    def __new__(cls, context):
        from harness.system.pools.shared_at_alloc import SharedAtAlloc

        if context.world < 4:
            raise RuntimeError("needs 4 ranks")
        return SharedAtAlloc(context)


def test_a_finding_outlives_a_system_that_refuses_smaller_scenarios(simulation: World, tmp_path: Path) -> None:
    four = Topology("four", "sglang", {"tp": 4, "attn_dp": 2})
    strategy = flows(
        4, tokens="padded", topologies=topologies(4, [four]), system=System("tests.campaign.test_campaign:NeedsFour")
    )
    tally = Campaign(simulation, strategy, tmp_path, limits=Limits(more=1).within(0.5)).run(10)
    assert {found.scenario.world for found in tally.found.values()} == {4}


def test_a_finding_that_nothing_made_smaller_does_not_say_so(simulation: World, tmp_path: Path) -> None:
    tally = campaign_of(simulation, tmp_path, shrink_seconds=0, search_seconds=0).run(1)
    leak = tally.found["leak"]
    assert (leak.scenario, leak.found_at, leak.shrunk) == (LEAKING, (2, len(LEAKING.steps)), "time")


@pytest.mark.parametrize(("scenario", "settled"), [(LEAKING, 1), (RIGHT, None)], ids=["a finding", "nothing"])
def test_a_campaign_knows_whether_a_finding_ended_it(
    simulation: World, tmp_path: Path, scenario: Scenario, settled: int | None
) -> None:
    assert campaign_of(simulation, tmp_path, scenario).run(20).settled == settled


def test_a_campaign_to_the_end_goes_on_when_something_was_found(simulation: World, tmp_path: Path) -> None:
    time = FakeClock()
    limits = Limits(more=1, reruns=0).within(0).to_the_end()
    drawn = st.integers(0, 9999).map(lambda seed: msgspec.structs.replace(LEAKING, seed=seed))
    campaign = Campaign(simulation, drawn, tmp_path, limits=limits, clock=time.clock)
    campaign.progress = lambda tally: time.advance(10 * tally.draws - time.seconds)
    tally = campaign.run(None, minutes=2)
    assert (tally.draws, tally.shrinking, tally.settled, [*tally.found]) == (12, 0, None, ["leak"])


@pytest.mark.parametrize(("seconds", "is_kept"), [(LONG, True), (LONG / 2, False)])
def test_a_draw_that_is_ended_is_kept_if_it_ran_for_long(tmp_path: Path, seconds: float, is_kept: bool) -> None:
    time = FakeClock()

    def ends(scenario: Scenario) -> None:
        time.advance(seconds)
        raise KeyboardInterrupt

    campaign = campaign_of(SimpleNamespace(run=ends), tmp_path, clock=time.clock)
    with nullcontext(), pytest.raises(KeyboardInterrupt):
        campaign.run(1)
    lines = campaign.keep_under_way()
    assert (lines.startswith(f"Draw 1 had run for {seconds:.1f} s."), len(list(tmp_path.iterdir()))) == (
        is_kept,
        int(is_kept),
    )


class Scripted:
    """A guide that gives these scenarios before the first batch, and notes what it sees."""

    def __init__(self, *given: Scenario) -> None:
        self._given = given
        self.seen: list[tuple[Scenario, int]] = []

    def scenarios(self) -> tuple[Scenario, ...]:
        given, self._given = self._given, ()
        return given

    def saw(self, draw: Draw, case: Case, verdict: Verdict, seconds: float) -> None:
        self.seen.append((draw.scenario, len(verdict.findings)))


def test_what_a_guide_gives_runs_before_what_is_drawn_and_counts(simulation: World, tmp_path: Path) -> None:
    guide = Scripted(msgspec.structs.replace(RIGHT, seed=5))
    tally = campaign_of(simulation, tmp_path, RIGHT, guide=guide).run(2)
    assert tally.draws == 2
    assert guide.seen == [(msgspec.structs.replace(RIGHT, seed=5), 0), (RIGHT, 0)]


def test_what_fails_of_a_guide_is_shrunk_and_kept_and_its_tries_are_no_draws(simulation: World, tmp_path: Path) -> None:
    guide = Scripted(LEAKING, RIGHT)
    tally = campaign_of(simulation, tmp_path, RIGHT, guide=guide).run(1)
    found = tally.found["leak"]
    assert (found.shrunk, found.draws_to_find, len(found.scenario.steps)) == ("smallest", 1, 1)
    assert tally.shrinking > 0
    assert guide.seen == [(LEAKING, 1)]


class Refused(Scripted):
    """A guide that cannot write down what it sees."""

    def saw(self, *_: object) -> None:
        raise UsageError("No space left on device")


def test_a_finding_is_kept_although_the_guide_cannot_learn_of_it(simulation: World, tmp_path: Path) -> None:
    campaign = campaign_of(simulation, tmp_path, guide=Refused())
    with pytest.raises(UsageError, match="No space left"):
        campaign.run(1)
    (path,) = tmp_path.iterdir()
    assert (campaign.tally.draws, [*campaign.tally.found], seeds.load(path).scenario) == (1, ["leak"], LEAKING)


def test_what_a_guide_gives_stays_within_the_draws(simulation: World, tmp_path: Path) -> None:
    guide = Scripted(*(msgspec.structs.replace(RIGHT, seed=number) for number in range(5)))
    assert campaign_of(simulation, tmp_path, RIGHT, guide=guide).run(3).draws == 3
    assert len(guide.seen) == 3


class Timed:
    """A world whose runs take a second each, of a clock of their own."""

    def __init__(self, world: World) -> None:
        self._world, self.time = world, FakeClock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    def run(self, *arguments: Any, **how: Any) -> Draw:
        self.time.advance(1)
        return self._world.run(*arguments, **how)


OFTEN = st.integers(0, 9999).map(lambda seed: msgspec.structs.replace(LEAKING, seed=seed))
LEAK = Settled.of((Record("leak", "shown", 1 << 20, (0,)),), Scenario(TWO, (A,), LEAKING.system))


@pytest.mark.parametrize("is_known", [True, False])
def test_seconds_of_draws_count_as_known_where_the_user_knows_what_they_met(
    simulation: World, tmp_path: Path, is_known: bool
) -> None:
    timed: Any = Timed(simulation)
    known = [msgspec.structs.replace(LEAK, symptoms={*LEAK.symptoms})] if is_known else []
    limits = Limits(more=9, reruns=0)
    tally = Campaign(timed, OFTEN, tmp_path, known=known, limits=limits, clock=timed.time.clock).run(6)
    assert (tally.draws, bool(tally.found)) == (6, not is_known)
    assert (tally.known_draws, tally.known_shrinking) == (6.0 * is_known, 0)


@pytest.mark.parametrize("is_known", [True, False])
def test_seconds_of_shrinking_count_as_known_where_it_ended_in_what_the_user_knows(
    simulation: World, tmp_path: Path, is_known: bool
) -> None:
    timed: Any = Timed(simulation)
    known = [msgspec.structs.replace(LEAK, symptoms=set(), signature=LEAK.signature if is_known else "0" * 16)]
    tally = campaign_of(timed, tmp_path, search_seconds=20, known=known, clock=timed.time.clock).run(1)
    assert (bool(tally.found), tally.shrinking > 0) == (not is_known, True)
    assert tally.known_shrinking == tally.shrinking * is_known
