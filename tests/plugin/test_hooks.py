"""The pytest plugin: tests of a user's own, as they pass, fail, are spread over workers, and are refused."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

import pytest

import harness.system.pools.built_in  # noqa: F401  (torch, which a run inside this process would otherwise load and unload)
from harness.campaign import seeds
from harness.report.listing import listing
from tests.tools.commands import forked_pytest

PROPERTY = """
from hypothesis import Phase, given, settings, strategies as st
from harness import Topology, scenarios

ANY = None
NESTED = st.just(Topology("nested", "explicit", families_given={{"all": ((0, 1, 2, 3),), "near": ((0, 1), (2, 3))}}))

@settings(max_examples={}, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
@given(scenarios(4, topologies={}))
def test_property(world, scenario):
    world.check(scenario)
"""
BY_HAND = """
import pytest
from harness import Finding, Scenario, System, Topology, UsageError, judge
from harness.scenario.steps import AllGather, Allocate, View

pair = Topology("pair", "sglang", {"tp": 2})
right = Scenario(pair, (Allocate("a", "tp", 8), AllGather("tp", View("a"), 4)))
wrong = Scenario(right.topology, right.steps, System("tests.tools.planted:NeverRegisters"))

def test_size(world):
    assert world.size == 4

def test_run_judges_nothing(world):
    assert [finding.rule for finding in judge(world.run(wrong))] == ["unregistered"]

def test_check_raises(world):
    with pytest.raises(Finding, match="unregistered"):
        world.check(wrong)

def test_check_returns_the_draw(world):
    assert world.check(right).is_clean

def test_check_names_the_other_findings(world):
    with pytest.raises(Finding, match="freed-while-registered") as raised:
        world.check(Scenario(right.topology, right.steps, System("tests.tools.planted:ForgetsToDeregister")))
    assert [note for note in raised.value.__notes__ if note.startswith("also leak: ")]

def test_check_refuses_a_scenario_that_is_too_large(world):
    five = Scenario(Topology("five", "sglang", {"tp": 5}), (Allocate("a", "tp", 8),))
    with pytest.raises(UsageError, match="5 ranks does not fit --symm-world=4"):
        world.check(five)
"""
MANY = (
    BY_HAND
    + """
@pytest.mark.parametrize("number", range(2))
def test_many(world, number):
    world.check(right)
"""
)
INTERRUPTED = (
    BY_HAND
    + """
def test_interrupted(world):
    world.run(right)
    raise KeyboardInterrupt
"""
)


class Played(NamedTuple):
    """A pytest run that has ended: what it said, and the processes that it left."""

    status: int
    out: str
    outcomes: dict[str, int]
    processes: list[int]
    folder: Path

    def passed(self, test: str) -> bool:
        return bool(re.search(rf"::{test} PASSED", self.out))


def play(folder: Path, test: str, *options: str) -> Played:
    """Run one file of tests on the simulation, in a folder and a process of its own."""
    (folder / "test_mine.py").write_text(test)
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "120"}
    plain = "-v", "-p", "no:cacheprovider", "--symm-substrate=sim"
    run = forked_pytest(folder, *plain, *options, environment=environment)
    outcomes = pytest.RunResult.parse_summary_nouns(run.out.splitlines()) if "===" in run.out else {}
    return Played(run.status, run.out, outcomes, run.processes, folder)


# tests that pass


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(tmp_path_factory.mktemp("passed"), PROPERTY.format(25, "ANY") + BY_HAND)


def test_a_property_that_holds_passes(passed: Played) -> None:
    assert passed.passed("test_property")


def test_the_header_says_the_substrate_and_why(passed: Played) -> None:
    assert "symm: substrate sim (asked for)" in passed.out


def test_the_world_has_four_ranks_unless_told(passed: Played) -> None:
    assert passed.passed("test_size")


def test_run_leaves_the_judging_to_the_test(passed: Played) -> None:
    assert passed.passed("test_run_judges_nothing")


def test_check_raises_the_first_finding(passed: Played) -> None:
    assert passed.passed("test_check_raises")


@pytest.mark.parametrize("what", ["names_the_other_findings", "refuses_a_scenario_that_is_too_large"])
def test_check(passed: Played, what: str) -> None:
    assert passed.passed(f"test_check_{what}")


def test_check_returns_a_draw_without_findings(passed: Played) -> None:
    assert passed.passed("test_check_returns_the_draw")


def test_a_finding_is_kept_where_seeds_are_kept(passed: Played) -> None:
    kept = [*(passed.folder / "symm-seeds").iterdir()]
    assert sorted(seeds.load(path).findings[0].rule for path in kept) == ["freed-while-registered", "unregistered"]


def test_a_run_that_passes_leaves_no_process(passed: Played) -> None:
    assert (passed.status, passed.processes) == (0, [])


# tests that fail


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(
        tmp_path_factory.mktemp("failed"),
        PROPERTY.format(100, "NESTED"),  # a buffer of one group soon lies where one of the other's was
        "--symm-pool=shared-at-alloc",
        "--symm-seeds-dir=kept/here",
    )


@pytest.fixture(scope="module")
def seed(failed: Played) -> seeds.Seed:
    """What the seed file holds that the failure names."""
    said = re.search(r"seed file: (kept/here/\S+)", failed.out)
    assert said
    return seeds.load(failed.folder / said[1])


def test_the_pool_of_the_options_fails_the_property(failed: Played) -> None:
    assert (failed.status, failed.outcomes) == (1, {"failed": 1})


def test_a_failure_names_a_seed_file_with_the_scenario(seed: seeds.Seed) -> None:
    assert seed.scenario.system.pool == "shared-at-alloc"


def test_a_failure_shows_the_finding_of_its_seed_file(failed: Played, seed: seeds.Seed) -> None:
    assert f"{seed.findings[0].rule}: {seed.findings[0].explanation}" in failed.out


def test_a_failure_shows_the_program_as_it_ran(failed: Played, seed: seeds.Seed) -> None:
    """The scenario that Hypothesis drew names another pool."""
    assert all(line in failed.out for line in listing(seed.scenario, seed.findings[0].step))


def test_a_failure_names_the_command_that_runs_it_again(failed: Played) -> None:
    assert re.search(r"replay: symm replay kept/here/\S+\.json", failed.out)


def test_a_failure_shows_no_line_of_the_harness(failed: Played) -> None:
    assert "def check(self" not in failed.out


def test_a_run_that_fails_leaves_seed_files_and_nothing_half_written(failed: Played) -> None:
    kept = [*(failed.folder / "kept" / "here").iterdir()]
    assert kept
    assert [path.name for path in kept if not seeds.load(path).findings] == []


def test_a_run_that_fails_leaves_no_process(failed: Played) -> None:
    assert failed.processes == []


# workers


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(tmp_path_factory.mktemp("spread"), MANY, "-n", "2", "--dist=each", "--symm-world=2", "-k", "test_many")


def test_tests_pass_on_two_workers(spread: Played) -> None:
    assert (spread.status, spread.outcomes) == (0, {"passed": 4})


def test_both_workers_run_draws(spread: Played) -> None:
    assert sorted(re.findall(r"\[(gw\d)\].* PASSED .*test_many", spread.out)) == ["gw0", "gw0", "gw1", "gw1"]


def test_workers_leave_no_process(spread: Played) -> None:
    assert spread.processes == []


# Ctrl-C


def test_ctrl_c_in_a_test_leaves_no_process(tmp_path: Path) -> None:
    run = play(tmp_path, INTERRUPTED, "--symm-world=2", "-k", "test_interrupted")
    assert (run.status, run.processes) == (pytest.ExitCode.INTERRUPTED, [])


# wrong options

WRONG = {
    "--symm-world=0": "--symm-world=0",
    "--symm-world=many": "--symm-world",
    "--symm-substrate=cuda": "'cuda'",
    "--symm-substrate=nccl": "no GPU",
    "--symm-pool=puddle": "'puddle'",
    "--symm-sites=guessed": "'guessed'",
    "--symm-pool=rude:Pool": "'rude:Pool'",
    "--symm-collectives=smoke": "'smoke'",
    "--symm-seeds-dir=rude.py": "rude.py",
    "--symm-shrink-seconds=nan": "--symm-shrink-seconds=nan",
    "--symm-shrink-seconds=-1": "--symm-shrink-seconds=-1",
    "--symm-evidence=luck": "'luck'",
    "--symm-evidence=forced": "comes from NCCL",
}


def refused(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, option: str) -> pytest.RunResult:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    pytester.makepyfile(test_mine=BY_HAND, rude="raise RuntimeError('not today')")
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", option)


@pytest.mark.parametrize("option", WRONG)
def test_a_wrong_option_is_refused_before_anything_runs(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    result = refused(pytester, monkeypatch, option)
    assert (result.ret, "test session starts" in result.stdout.str()) == (pytest.ExitCode.USAGE_ERROR, False)


@pytest.mark.parametrize("option", WRONG)
def test_a_wrong_option_is_named(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    assert WRONG[option] in refused(pytester, monkeypatch, option).stderr.str()
