"""What came of a hunt, a fault or a cell, in a sentence: nothing tested is not clean, and one is singular."""

from __future__ import annotations

import pytest
from msgspec import structs

from harness.campaign.keeper import Found, Shrunk
from harness.campaign.seeds import Reruns
from harness.oracle.findings import Leak
from harness.report.verdicts import of_cell, of_fault, story
from harness.scenario.scenario import Scenario
from harness.studies.faults.catalogue import select
from harness.studies.faults.proof import Hunt, Outcome
from harness.studies.matrix import Cell
from tests.tools.campaigns import TWO, layers

LEAK = Leak("shown", step=0, ranks=(0,))
SMALL = Scenario(TWO, layers(1))
(FAULT,) = select(["F17"])


def found(at: tuple[int, int] = (8, 20), draws: int = 5, shrunk: Shrunk = "smallest") -> Found:
    return Found(LEAK.record(), SMALL, "kept/leak.json", draws, at, shrunk=shrunk)


def cell(*rules: Found, draws: int = 4, vacuous: int = 1, is_complete: bool = True) -> Cell:
    return Cell("apart", "explicit", "deferred", "padded", draws, vacuous, is_complete, rules, 0)


def hunt(draws: int, rule: str = "leak") -> Hunt:
    return Hunt(rule, (rule,), draws, 0.5, 2, 3, "kept/leak.json")


@pytest.mark.parametrize(
    ("shrunk", "end"),
    [
        ("smallest", ""),
        ("race", "; it fails in some runs only, so a smaller case may have been missed"),
        ("time", "; the time for making it smaller was up"),
        ("unfinished", "; making it smaller was not finished"),
    ],
)
def test_a_story_says_how_shrinking_ended(shrunk: Shrunk, end: str) -> None:
    assert story(found(shrunk=shrunk)) == (
        f"found after 5 draws on 8 ranks in 20 steps, shrunk to 2 ranks and {len(SMALL.steps)} steps{end}"
    )


@pytest.mark.parametrize(
    ("shrunk", "reruns", "end"),
    [
        ("smallest", Reruns(1, 1), ""),
        ("smallest", Reruns(6, 10), "; it fails in 6 of 10 runs on fresh ranks"),
        ("race", Reruns(6, 10), "; it fails in 6 of 10 runs on fresh ranks, so a smaller case may have been missed"),
        ("race", Reruns(3, 3), "; it fails in some runs only, so a smaller case may have been missed"),
        ("race", Reruns(0, 10), "; not reproducible: 0 of 10 runs on fresh ranks failed"),
        ("smallest", Reruns(0, 4, 1), "; reproducible after 1 draw: alone, 0 of 4 runs on fresh ranks failed"),
        (
            "time",
            Reruns(0, 1, 12),
            "; the time for making it smaller was up; reproducible after 12 draws: alone, 0 of 1 run on fresh ranks "
            "failed",
        ),
    ],
)
def test_a_story_says_how_often_it_failed_on_fresh_ranks(shrunk: Shrunk, reruns: Reruns, end: str) -> None:
    told = structs.replace(found((2, len(SMALL.steps)), shrunk=shrunk), reruns=reruns)
    assert story(told) == f"found after 5 draws on 2 ranks in {len(SMALL.steps)} steps{end}"


def test_a_story_of_what_nothing_made_smaller_does_not_say_so() -> None:
    as_found = 2, len(SMALL.steps)
    assert story(found(as_found, draws=1)) == f"found after 1 draw on 2 ranks in {len(SMALL.steps)} steps"


def test_a_fault_is_found_after_the_median_of_the_draws_of_its_seeds() -> None:
    assert of_fault(Outcome(FAULT, (hunt(2), hunt(9), hunt(4)))) == (
        "found with 3 of 3 seeds, after 4 draws in the median"
    )


def test_a_hunt_that_named_another_rule_first_does_not_count() -> None:
    assert of_fault(Outcome(FAULT, (hunt(1), hunt(7, "hang")))) == (
        "found with 1 of 2 seeds, after 1 draw in the median; seed 1: hang after 7 draws, in kept/leak.json"
    )


def test_a_fault_that_no_seed_found_is_missed() -> None:
    assert of_fault(Outcome(FAULT, (hunt(7, "hang"),))) == (
        "missed with 1 seed; seed 0: hang after 7 draws, in kept/leak.json"
    )


def test_a_hunt_that_found_nothing_says_so() -> None:
    assert of_fault(Outcome(FAULT, (Hunt("", (), 9, 0.5, 0, 0, ""),))) == (
        "missed with 1 seed; seed 0: no finding in 9 draws"
    )


def test_a_missed_hunt_is_in_the_data_with_its_seed() -> None:
    assert Outcome(FAULT, (hunt(1), hunt(7, "hang"))).as_data()["missed"] == [
        {"seed": 1, "rule": "hang", "draws": 7, "seed_file": "kept/leak.json"}
    ]


HOW_IT_ENDED = pytest.mark.parametrize(("is_complete", "cut"), [(True, ""), (False, " (time was up)")])


@HOW_IT_ENDED
def test_a_clean_cell_counts_the_draws_that_tested_something(is_complete: bool, cut: str) -> None:
    assert of_cell(cell(is_complete=is_complete)) == f"clean in 3 draws{cut}"


@HOW_IT_ENDED
def test_a_cell_in_which_nothing_was_tested_is_not_called_clean(is_complete: bool, cut: str) -> None:
    assert of_cell(cell(draws=3, vacuous=3, is_complete=is_complete)) == f"nothing tested in 3 draws{cut}"


@HOW_IT_ENDED
def test_a_broken_cell_names_the_rule_its_size_and_its_seed_file(is_complete: bool, cut: str) -> None:
    assert of_cell(cell(found(), is_complete=is_complete)) == (
        f"leak after 5 draws: 2 ranks, {len(SMALL.steps)} steps{cut}\n  leak.json"
    )
