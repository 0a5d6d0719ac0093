"""Facts of tests: in JUnit XML and with `-v`, also from the workers of `pytest -n`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.plugin.test_hooks import BY_HAND
from tests.tools.commands import ALONE, Run, forked_pytest

MINE = (
    BY_HAND
    + """
import os
from hypothesis import given, settings, strategies as st

alone = Scenario(Topology("alone", "explicit", families_given={"tp": ((0,), (1,))}), right.steps)

@settings(max_examples=6, deadline=None, derandomize=True, database=None)
@given(st.sampled_from([right, alone]))
def test_drawn(world, scenario):
    world.check(scenario)

@settings(max_examples=4, deadline=None, derandomize=True, database=None)
@given(st.just(wrong))
def test_broken(world, scenario):
    world.check(scenario)

@pytest.mark.xfail(raises=Finding)
def test_expected(world):
    world.check(wrong)

def test_plain():
    pass
"""
)
CHOSEN = "drawn or broken or expected or plain or check_returns"


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on one worker of `pytest -n`."""
    folder = tmp_path_factory.mktemp("spread")
    (folder / "test_mine.py").write_text(MINE)
    options = ("-v", "-n", "1", "-k", CHOSEN, "--symm-substrate", "sim", "--symm-shrink-seconds", "0")
    return forked_pytest(
        folder, "-p", "no:cacheprovider", *options, "--junitxml", "junit.xml", environment=dict(ALONE, HOME=str(folder))
    )


def properties(run: Run, test: str) -> dict[str, str]:
    root = ElementTree.parse(run.folder / "junit.xml").getroot()
    (case,) = (case for case in root.iter("testcase") if case.get("name") == test)
    return {each.get("name", ""): each.get("value", "") for each in case.iter("property")}


def test_a_property_has_its_draws_the_vacuous_ones_by_reason_and_the_substrate(spread: Run) -> None:
    found = properties(spread, "test_drawn")
    assert found["symm_substrate"] == "sim"
    assert int(found["symm_draws"]) >= 2
    reasons = json.loads(found["symm_vacuous_by_reason"])
    assert reasons.keys() == {"groups of one rank"}
    assert int(found["symm_vacuous"]) == reasons["groups of one rank"] < int(found["symm_draws"])


def test_a_property_that_fails_has_its_seed_file(spread: Run) -> None:
    assert (spread.folder / properties(spread, "test_broken")["symm_seed_file"]).exists()


def test_a_test_without_hypothesis_counts_too_and_one_before_it_leaves_nothing(spread: Run) -> None:
    found = properties(spread, "test_check_returns_the_draw")
    assert (found["symm_draws"], found["symm_vacuous"], "symm_seed_file" in found) == ("1", "0", False)


def test_a_test_without_a_world_has_no_facts(spread: Run) -> None:
    assert [name for name in properties(spread, "test_plain") if name.startswith("symm")] == []


def test_v_shows_draws_and_vacuous_ones_by_reason(spread: Run) -> None:
    assert re.search(r"PASSED \(\d draws, \d vacuous: \d groups of one rank\).* test_mine.py::test_drawn", spread.out)
    assert re.search(r"^FAILED test_mine.py::test_broken - ", spread.out, re.MULTILINE)


def test_v_leaves_other_outcomes_as_they_are(spread: Run) -> None:
    assert re.search(r"XFAIL.* test_mine.py::test_expected", spread.out)
    assert re.search(r"PASSED (?!\().*test_mine.py::test_plain", spread.out)


def test_the_header_has_substrate_world_and_versions(spread: Run) -> None:
    (line,) = (line for line in spread.out.splitlines() if line.startswith("symm: substrate "))
    assert "sim (asked for), world of 4 ranks; Python " in line
    assert "Hypothesis " in line


def test_an_option_of_few_words_is_answered_by_the_one_that_was_meant(tmp_path: Path) -> None:
    run = forked_pytest(tmp_path, "--symm-sites", "explict", environment=dict(ALONE, HOME=str(tmp_path)))
    assert "did you mean explicit?" in run.err
