"""The guide: what it tries first, what it learns from, and that a seed repeats it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from harness.campaign.campaign import Campaign
from harness.nights.corpus import Corpus
from harness.nights.guide import CORPUS_SHARE, MUTATIONS, Guide
from harness.oracle.case import Case
from harness.oracle.findings import Leak
from harness.oracle.judge import Verdict, examine_case
from harness.oracle.states.state import State
from harness.scenario.scenario import Scenario
from harness.strategies.batches import sample
from harness.strategies.programs import scenarios
from harness.trace.draw import Draw
from harness.world.world import World
from tests.tools.campaigns import RIGHT, TWO, layers
from tests.tools.clock import FakeClock

FREE = scenarios(4, via="library")


def shown(guide: Guide, draws: Iterable[Draw], is_broken: bool = False) -> None:
    """Have a guide see draws."""
    for draw in draws:
        case = Case(draw)
        verdict = Verdict([Leak("left", step=0, ranks=(0,))], False) if is_broken else examine_case(case)
        guide.saw(draw, case, verdict, 0.1)


@pytest.fixture(scope="module")
def draws(simulation: World) -> list[Draw]:
    return [simulation.run(scenario) for scenario in sample(FREE, 12, seed=1)]


def test_between_batches_come_mutations_and_the_same_for_a_seed(draws: list[Draw]) -> None:
    guides = Guide(7), Guide(7), Guide(8)
    for guide in guides:
        assert [*guide.scenarios()] == []  # the corpus comes first, and there is none
        shown(guide, draws)
    first, again, other = ([*guide.scenarios()] for guide in guides)
    assert 0 < len(first) <= MUTATIONS
    assert first == again != other


def test_before_anything_was_drawn_there_is_nothing_to_change() -> None:
    assert [*Guide().scenarios(), *Guide().scenarios()] == []


def test_what_broke_a_rule_is_no_parent_and_still_counts(draws: list[Draw], tmp_path: Path) -> None:
    guide = Guide(corpus=Corpus(tmp_path))
    assert [*guide.scenarios()] == []
    shown(guide, draws, is_broken=True)
    assert [*guide.scenarios()] == []
    assert guide.coverage.counts
    assert [*tmp_path.iterdir()] == []


def test_without_mutations_only_the_corpus_is_tried(draws: list[Draw], tmp_path: Path) -> None:
    Corpus(tmp_path).add(RIGHT, [State("group", "width 2")])
    guide = Guide(corpus=Corpus(tmp_path), mutations=0)
    assert [*guide.scenarios()] == [RIGHT]
    shown(guide, draws)
    assert [*guide.scenarios()] == []


def kept(folder: Path, count: int) -> Corpus:
    for number in range(count):
        scenario = Scenario(TWO, layers(1), seed=number)
        Corpus(folder).add(scenario, [State("path", f"made up {number}")])
    return Corpus(folder)


def test_the_corpus_has_its_share_of_the_draws(tmp_path: Path) -> None:
    corpus = kept(tmp_path, 10)
    assert len([*Guide(corpus=corpus, draws=20).scenarios()]) == CORPUS_SHARE * 20
    assert len([*Guide(corpus=corpus).scenarios()]) == 10


def test_a_finding_costs_the_corpus_no_scenario(draws: list[Draw], tmp_path: Path) -> None:
    told: list[str] = []
    corpus = kept(tmp_path, 6)
    guide, tried = Guide(corpus=corpus, observe=lambda *each: told.append(each[-1])), []
    for _ in range(3):
        for scenario in guide.scenarios():
            shown(guide, draws[:1])
            tried.append(scenario)
            if len(tried) in (1, 3):
                break
        shown(guide, draws[:1])  # of the strategy
    assert tried == corpus.scenarios
    assert told == ["corpus", "strategy", "corpus", "corpus", "strategy", "corpus", "corpus", "corpus", "strategy"]


def test_the_corpus_has_its_share_of_the_time(tmp_path: Path) -> None:
    time, tried = FakeClock(), 0
    for _ in Guide(corpus=kept(tmp_path, 10), minutes=1, clock=time.clock).scenarios():
        time.advance(5)
        tried += 1
    assert tried == 3, "at 0, 5 and 10 seconds of twelve"


def test_a_scenario_that_reached_something_new_is_kept_and_one_that_did_not_is_not(
    draws: list[Draw], tmp_path: Path
) -> None:
    guide = Guide(corpus=Corpus(tmp_path))
    shown(guide, draws[:1])
    shown(guide, draws[:1])
    assert Corpus(tmp_path).scenarios == [draws[0].scenario]
    again = Guide(corpus=Corpus(tmp_path))
    shown(again, draws[:1])
    assert (again.coverage.new, again.as_data()["corpus"]["added"]) == (0, 0)


def test_the_guide_says_where_a_draw_came_from(draws: list[Draw], tmp_path: Path) -> None:
    told: list[str] = []
    guide = Guide(corpus=kept(tmp_path, 1), observe=lambda *each: told.append(each[-1]))
    by_scenario = draws[0]
    for _ in guide.scenarios():
        shown(guide, [by_scenario])
    shown(guide, draws)
    for _ in guide.scenarios():
        shown(guide, [by_scenario])
    assert [*dict.fromkeys(told)] == ["corpus", "strategy", "mutation"]


def test_a_campaign_with_a_guide_draws_the_same_for_a_seed(simulation: World, tmp_path: Path) -> None:
    ran: list[list[Scenario]] = [[], []]
    for each in ran:
        campaign = Campaign(
            simulation,
            scenarios(2, via="library"),
            tmp_path,
            seed=3,
            guide=Guide(3),
            progress=lambda tally, each=each: each.append(simulation.ran[-1]),  # type: ignore[misc]
        )
        campaign.run(30)
    assert ran[0] == ran[1]
    assert len(ran[0]) == 30


def test_a_guide_leaves_what_the_strategy_draws_as_it_is(simulation: World, tmp_path: Path) -> None:
    ran: list[list[Scenario]] = []
    for guide in (None, Guide(3)):
        each: list[Scenario] = []
        drawn = scenarios(2, via="library").map(lambda one, each=each: each.append(one) or one)  # type: ignore[misc]
        Campaign(simulation, drawn, tmp_path, seed=3, guide=guide).run(20)
        ran.append(each)
    fewer, more = sorted(ran, key=len)
    assert more[: len(fewer)] == fewer
    assert msgspec.json.encode(fewer[0]) == msgspec.json.encode(more[0])
