"""Results of commands for CI systems: JUnit XML, and the facts of a run in its JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.tools.commands import Run, forked
from tests.tools.folders import SIM, facts, seed_file, sentence

WRITES = ("--json", "found.json", "--junitxml", "junit.xml")


@pytest.fixture(scope="module")
def fuzzed(place: Callable[[str], Path]) -> Run:
    return forked(place("fuzzed"), "fuzz", "tp2", "--draws", "4", "--pool", "per-group", "--seed", "3", *SIM, *WRITES)


@pytest.fixture(scope="module")
def replayed(place: Callable[[str], Path]) -> Run:
    folder = place("replayed")
    seed_file(folder)
    return forked(folder, "replay", "seed.json", "--times", "2", *SIM, *WRITES)


def cases(run: Run) -> list[tuple[str | None, str | None, list[str]]]:
    root = ElementTree.parse(run.folder / "junit.xml").getroot()
    return [(case.get("classname"), case.get("name"), [each.tag for each in case]) for case in root.iter("testcase")]


def test_a_fuzz_without_a_finding_is_one_case_that_passed(fuzzed: Run) -> None:
    assert (fuzzed.status, cases(fuzzed)) == (0, [("symm.fuzz.per-group", "draws", [])])


def test_the_json_of_a_run_says_what_was_asked_for(fuzzed: Run) -> None:
    found = facts(fuzzed)
    assert found["command"][:3] == ["symm", "fuzz", "tp2"]
    assert (found["seed"], found["system"]["pool"], found["interrupted"]) == (3, "per-group", False)
    assert (found["options"]["draws"], found["options"]["sites"]) == (4, "explicit")
    assert found["started"] <= found["ended"]
    assert found["speed"][-1][1] == found["draws"]


def test_each_run_of_a_seed_is_a_case_and_fails_with_its_finding(replayed: Run) -> None:
    kind = "symm.replay.seed.json"
    assert (replayed.status, cases(replayed)) == (1, [(kind, "run 1", ["failure"]), (kind, "run 2", ["failure"])])


def test_junit_to_a_folder_is_refused_before_anything_runs(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "there").mkdir(parents=True)
    run = forked(folder, "fuzz", *SIM, "--junitxml", "there")
    assert (run.status, "cannot write JUnit XML to there" in sentence(run)) == (2, True)
