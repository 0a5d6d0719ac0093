"""Running again on fresh ranks: what always fails, a race, what needs earlier draws, and what never comes again."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import strategies as st

from harness.campaign import seeds
from harness.campaign.campaign import Campaign
from harness.campaign.keeper import Found, Keeper, Shrunk
from harness.campaign.limits import Limits
from harness.campaign.replay import replay
from harness.campaign.reruns import Origin, Rerunning
from harness.campaign.seeds import Reruns
from harness.campaign.smaller.search import smallest_failing
from harness.campaign.smaller.shrinking import Shrinking
from harness.campaign.trials import Trials
from harness.clock import CLOCK
from harness.oracle.findings import Leak
from harness.scenario.scenario import Scenario
from harness.scenario.system import System
from harness.world.world import World
from tests.tools.campaigns import LEAKING, STUCK, TWO, layers
from tests.tools.clock import FakeClock

LEAK = Leak("shown", step=0, ranks=(0,))
CASE = Scenario(TWO, layers(1), seed=99)


def earlier(count: int) -> tuple[Scenario, ...]:
    return tuple(Scenario(TWO, layers(1), seed=seed) for seed in range(count))


class Ranks:
    """Ranks that know what they have run. A draw of them holds all of that. `presumes`: what fails in a hurry is
    presumed to."""

    def __init__(self, presumes: bool) -> None:
        self.ran: list[Scenario] = []
        self.started, self._presumes = 0, presumes

    def renew(self) -> None:
        self.started += 1
        self.ran.clear()

    def run(self, scenario: Scenario, *, hurried: bool) -> Any:
        self.ran.append(scenario)
        is_presumed = hurried and self._presumes
        return SimpleNamespace(
            ran=tuple(self.ran), scenario=scenario, is_presumed=is_presumed, is_clean=True, printed=()
        )


class Hunt:
    """A kept case whose fate `fails` decides, by what its ranks have run up to now, the case itself last."""

    def __init__(
        self,
        folder: Path,
        fails: Callable[[list[int]], bool],
        shrunk: Shrunk = "smallest",
        presumes: bool = False,
    ) -> None:
        self.ranks, self.keeper = Ranks(presumes), Keeper(folder, {})
        self.keeper.keep(CASE, LEAK, [LEAK])
        self.keeper.settle("leak", shrunk)
        self._fails = fails

    def found(self, before: int = 0, runs: int = 10, seconds: float = 20, clock: Any = CLOCK) -> Found:
        def judge(draw: Any) -> list[Leak]:
            is_failing = draw.is_presumed or self._fails([scenario.seed for scenario in draw.ran])
            return [LEAK] if is_failing else []

        ranks: Any = self.ranks
        trials = Trials(ranks, self.keeper, judge, lambda: None, clock)
        Rerunning(trials, Shrinking(trials)).run("leak", runs, seconds, Origin(CASE, earlier(before)))
        return self.keeper.found["leak"]

    @property
    def seed(self) -> seeds.Seed:
        return seeds.load(self.keeper.found["leak"].seed_file)


def test_a_case_that_fails_at_once_runs_once(tmp_path: Path) -> None:
    hunt = Hunt(tmp_path, lambda ran: True)
    assert (hunt.found(before=5).reruns, hunt.ranks.started) == (Reruns(1, 1), 1)
    assert (hunt.seed.reruns, hunt.seed.preceded_by) == (Reruns(1, 1), ())


@pytest.mark.parametrize("shrunk", ["race", "smallest"])
def test_a_case_that_fails_at_times_is_counted(tmp_path: Path, shrunk: Shrunk) -> None:
    turns = count()
    hunt = Hunt(tmp_path, lambda ran: next(turns) % 2 == 1, shrunk)
    assert (hunt.found().reruns, hunt.seed.reruns) == (Reruns(5, 10), Reruns(5, 10))


def test_a_race_that_fails_at_once_is_counted_too(tmp_path: Path) -> None:
    turns = count()
    assert Hunt(tmp_path, lambda ran: next(turns) < 3, "race").found().reruns == Reruns(3, 10)


def test_a_case_that_never_comes_again_keeps_the_draws_before_it(tmp_path: Path) -> None:
    hunt = Hunt(tmp_path, lambda ran: False)
    assert hunt.found(before=5).reruns == Reruns(0, 10)
    assert hunt.seed.preceded_by == earlier(5)


def test_a_case_without_draws_before_it_is_run_alone_on_fresh_ranks_each_time(tmp_path: Path) -> None:
    hunt = Hunt(tmp_path, lambda ran: False)
    assert (hunt.found().reruns, hunt.ranks.started) == (Reruns(0, 10), 10)


@pytest.mark.parametrize("needed", [{0}, {11}, {3, 8}, {0, 5, 11}])
def test_of_the_draws_before_it_those_that_it_needs_are_kept(tmp_path: Path, needed: set[int]) -> None:
    hunt = Hunt(tmp_path, lambda ran: needed < {*ran})
    assert hunt.found(before=12).reruns == Reruns(0, 10, after=len(needed))
    assert {draw.seed for draw in hunt.seed.preceded_by} == needed


def test_runs_end_with_their_time_and_one_is_made_in_any_case(tmp_path: Path) -> None:
    time = FakeClock()
    hunt = Hunt(tmp_path, lambda ran: bool(time.advance(3)), "race")
    assert hunt.found(seconds=8, clock=time.clock).reruns == Reruns(0, 3)
    assert hunt.found(seconds=-1, clock=time.clock).reruns == Reruns(0, 1)


def test_where_time_is_up_every_draw_before_it_is_tried_once(tmp_path: Path) -> None:
    hunt = Hunt(tmp_path, lambda ran: 3 in ran)
    assert hunt.found(before=9, seconds=0).reruns == Reruns(0, 1, after=9)


def test_a_seed_keeps_the_last_draws_for_which_it_has_room() -> None:
    draws = earlier(9)
    size = len(seeds._text(draws[0]))
    assert seeds.last_that_fit(draws, room=7 * size) == draws[-3:]
    assert seeds.last_that_fit(draws) == draws
    assert seeds.last_that_fit((), 0) == ()


def large(seed: int) -> Scenario:
    return Scenario(TWO, layers(200), seed=seed)


def test_a_seed_of_large_draws_can_be_read(tmp_path: Path) -> None:
    before = seeds.last_that_fit([large(seed) for seed in range(100)])
    assert 0 < len(before) < 100
    path = tmp_path / "seed.json"
    seeds.save(seeds.Seed(seeds.SCHEMA, CASE, (), {}, Reruns(0, 10), before), path)
    assert seeds.load(path).preceded_by == before


def test_what_is_only_presumed_counts_for_nothing(tmp_path: Path) -> None:
    hunt = Hunt(tmp_path, lambda ran: False, presumes=True)
    assert hunt.found(before=2).reruns == Reruns(0, 10)
    assert Hunt(tmp_path, lambda ran: True, presumes=True).found().reruns == Reruns(1, 1)


# on ranks

AFTER, AT_TIMES, FROM_THIRD, FROM_FIFTH = (
    System(f"tests.tools.planted.memory:{name}")
    for name in ("LeaksAfterThree", "LeaksEverySecondTime", "LeaksFromThird", "LeaksFromFifth")
)


def unchanged(scenario: Scenario, *_: object, **how: object) -> Any:
    return SimpleNamespace(scenario=scenario, how="smallest")


def played(world: World, folder: Path, *scenarios: Scenario, search: Callable[..., Any] = unchanged) -> Campaign:
    """A campaign that draws these, each alone, and shrinks nothing unless `search` does."""
    drawn = iter(scenarios)

    def one(strategy: object, run: Callable[[Scenario], None], *_: object, **how: object) -> None:
        run(next(drawn, scenarios[-1]))

    limits = Limits(reruns=4)
    world.renew()
    return Campaign(world, st.nothing(), folder, limits=limits, draw_batch=one, search=search)


def test_what_an_earlier_draw_left_is_replayed_after_that_draw(simulation: World, tmp_path: Path) -> None:
    three, two = Scenario(TWO, layers(3), AFTER), Scenario(TWO, layers(2), AFTER)
    others = [Scenario(TWO, layers(2), AFTER, seed) for seed in range(1, 5)]
    campaign = played(simulation, tmp_path, *others[:3], three, others[3])
    (found,) = campaign.run(5).found.values()
    assert (found.scenario, found.reruns) == (others[3], Reruns(0, 4, after=1))
    seed = seeds.load(found.seed_file)
    assert seed.preceded_by == (three,)
    simulation.renew()
    (alone,) = replay(simulation, two)
    assert alone.findings == []
    again = [[record.rule for record in run.findings] for run in replay(simulation, seed.scenario, 2, seed.preceded_by)]
    assert again == [["leak"], ["leak"]]


def test_what_fails_at_every_second_draw_of_a_process_needs_the_one_before(simulation: World, tmp_path: Path) -> None:
    drawn = [Scenario(TWO, layers(1), AT_TIMES, seed) for seed in range(2)]
    (found,) = played(simulation, tmp_path, *drawn).run(2).found.values()
    assert found.reruns == Reruns(0, 4, after=1)


def test_what_always_fails_says_no_more_than_that(simulation: World, tmp_path: Path) -> None:
    (found,) = played(simulation, tmp_path, LEAKING).run(1).found.values()
    assert found.reruns == Reruns(1, 1)


def test_a_case_that_is_too_small_for_fresh_ranks_gives_way_to_one_that_is_not(
    simulation: World, tmp_path: Path
) -> None:
    (found,) = (
        played(simulation, tmp_path, Scenario(TWO, layers(5), FROM_THIRD), search=smallest_failing)
        .run(1)
        .found.values()
    )
    assert (found.reruns, found.shrunk, found.found_at) == (Reruns(1, 1), "smallest", (2, 15))
    assert [step.kind for step in found.scenario.steps] == ["allocate"] * 3
    assert seeds.load(found.seed_file).scenario == found.scenario
    simulation.renew()
    (alone,) = replay(simulation, found.scenario)
    assert [finding.rule for finding in alone.findings] == ["leak"]


def test_what_needs_a_larger_case_and_draws_before_it_keeps_both(simulation: World, tmp_path: Path) -> None:
    before, larger = Scenario(TWO, layers(2), FROM_FIFTH), Scenario(TWO, layers(3), FROM_FIFTH)
    (found,) = played(simulation, tmp_path, before, larger, search=smallest_failing).run(2).found.values()
    assert (found.scenario, found.reruns, found.shrunk) == (larger, Reruns(0, 1, after=1), "unfinished")
    assert seeds.load(found.seed_file).preceded_by == (before,)


def test_a_case_that_costs_no_ranks_runs_again_although_another_of_its_rule_did(
    simulation: World, tmp_path: Path
) -> None:
    used, costly = Scenario(TWO, layers(1), AT_TIMES), Scenario(TWO, (*STUCK.steps, *layers(0)), STUCK.system)
    campaign = played(simulation, tmp_path, used, Scenario(TWO, layers(1), AT_TIMES, 7))
    campaign._keys_that_cost_ranks.add("leak")
    (found,) = campaign.run(2).found.values()
    assert (found.costs_ranks, found.reruns) == (False, Reruns(0, 4, after=1))
    (hang,) = played(simulation, tmp_path, costly).run(1).found.values()
    assert (hang.costs_ranks, hang.reruns) == (True, None)
