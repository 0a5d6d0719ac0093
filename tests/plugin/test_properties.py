"""Property tests on a tested world, as pytest shows them: one listing and one seed file a rule, and nothing twice."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness.system.pools.built_in  # noqa: F401  (torch, which a run inside this process would otherwise load and unload)
from harness.campaign import seeds
from harness.campaign.replay import replay
from harness.plugin.failing import Failing
from harness.plugin.properties import watched
from harness.plugin.tested_world import TestedWorld
from harness.report.listing import listing
from harness.scenario.scenario import Scenario
from harness.world.world import World
from tests.tools.campaigns import LEAKING
from tests.tools.commands import forked_pytest

POOLS = """
import os
from harness.system.planted.pools import KeepsATensor
from harness.system.planted.sound import Sound

class KeepsSome(KeepsATensor):
    def close(self):
        if self.context.rank or os.urandom(1)[0] % 2:
            del self.scratch
        super().close()

class Raises(Sound):
    def register(self, segment, group):
        raise RuntimeError("out of sorts")
"""
PROPERTIES = """
import pytest
from hypothesis import Phase, event, example, given, note, settings, strategies as st
from harness import Finding, Scenario, System, Topology
from tests.tools.campaigns import TWO, layers

FOUR = Topology("four", "sglang", {"tp": 4})
LEAKS, LOOSE = "tests.tools.planted:KeepsATensor", "tests.tools.planted:NeverRegisters"
mine = settings(max_examples=20, deadline=None, derandomize=True, database=None)

def on(*pools, topology=FOUR):
    return st.builds(
        lambda pool, count, seed: Scenario(topology, layers(count), System(pool), seed),
        st.sampled_from(pools), st.integers(2, 4), st.integers(0, 9),
    )

@mine
@given(scenario=on(LEAKS, LOOSE))
def test_two_rules(world, scenario):
    note(f"my note: {len(scenario.steps)} steps")
    print("my print")
    world.check(scenario)

@mine
@given(scenario=on("pools:KeepsSome"))
def test_sometimes(world, scenario):
    world.check(scenario)

@mine
@given(scenario=on("per-group"))
def test_clean(world, scenario):
    world.check(scenario)

@mine
@given(scenario=on(LOOSE))
def test_handled(world, scenario):
    with pytest.raises(Finding, match="unregistered"):
        world.check(scenario)

@pytest.mark.xfail(raises=Finding, strict=True)
@mine
@given(scenario=on(LEAKS))
def test_expected(world, scenario):
    world.check(scenario)

@settings(mine, phases=[Phase.generate])
@given(scenario=on(LEAKS))
def test_as_drawn(world, scenario):
    world.check(scenario)

@settings(mine, report_multiple_bugs=False)
@given(scenario=on(LEAKS, LOOSE))
def test_first_alone(world, scenario):
    world.check(scenario)

@mine
@given(data=st.data())
def test_drawn_inside(world, data):
    world.check(data.draw(on(LEAKS)))

@mine
@given(scenario=on("per-group"))
@example(scenario=Scenario(FOUR, layers(3), System(LEAKS)))
def test_example(world, scenario):
    note("an example of mine")
    world.check(scenario)

@mine
@given(scenario=on("pools:Raises"))
def test_raises(world, scenario):
    world.check(scenario)

@mine
@given(scenario=on("per-group", topology=Topology("five", "sglang", {"tp": 5})))
def test_too_large(world, scenario):
    world.check(scenario)

@mine
@given(scenario=on(LEAKS), is_odd=st.booleans())
def test_of_its_own(world, scenario, is_odd):
    assert not is_odd, "one is odd"
    world.check(scenario)

@mine
@given(number=st.integers())
def test_without_a_world(number):
    assert number < 5
"""
NOISE = (
    "Failing test case",
    "Falsifying example",
    "Failing explicit example",
    "Scenario(",
    "PLEASE REPORT",
    "Flaky",
    "flaky",
    "Explanation:",
    "always and only run",
    "commented parts",
    "reproduce_failure",
    "git apply",
)
"""Words of Hypothesis's own report."""
FAILING = ("two_rules", "sometimes", "as_drawn", "first_alone", "drawn_inside", "example", "raises", "too_large")


class Played(NamedTuple):
    """A pytest run that has ended: each test's outcome and what was shown of it."""

    out: str
    folder: Path

    def outcome(self, test: str) -> str:
        found = re.search(rf"::test_{test} (\w+)", self.out)
        assert found, self.out
        return found[1]

    def shown(self, test: str) -> str:
        """What pytest shows of a failing test."""
        found = re.search(rf"^_+ test_{test} _+\n(.*?)(?=^_+ test_|^=====)", self.out, re.MULTILINE | re.DOTALL)
        assert found, self.out
        return found[1]

    def kept(self, test: str) -> list[seeds.Seed]:
        """The seed files that a failing test names, in that order."""
        return [seeds.load(self.folder / path) for path in re.findall(r"^seed file: (\S+)$", self.shown(test), re.M)]


def play(folder: Path, *options: str) -> Played:
    """Run the properties on the simulation, in a folder and a process of its own."""
    (folder / "test_mine.py").write_text(PROPERTIES)
    (folder / "pools.py").write_text(POOLS)
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "120"}
    plain = "-v", "-p", "no:cacheprovider", "--symm-substrate=sim", "--symm-shrink-seconds=8"
    return Played(forked_pytest(folder, *plain, *options, environment=environment).out, folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(tmp_path_factory.mktemp("spread"), "-n", "2", "-x", "-k", "two_rules", "--hypothesis-seed=7")


# one scenario, shown once


def test_each_rule_that_a_property_breaks_has_one_seed_file(run: Played) -> None:
    assert sorted(seed.findings[0].rule for seed in run.kept("two_rules")) == ["leak", "unregistered"]


@pytest.mark.parametrize("test", ["two_rules", "sometimes", "as_drawn", "drawn_inside", "example"])
def test_what_is_listed_is_what_the_seed_file_holds(run: Played, test: str) -> None:
    listed = re.findall(r"^(sglang .*(?:\n[ →] +\d+ .*)+)$", run.shown(test), re.MULTILINE)
    assert listed == ["\n".join(listing(seed.scenario, seed.findings[0].step)) for seed in run.kept(test)]


@pytest.mark.parametrize("test", ["two_rules", "as_drawn", "drawn_inside", "example"])
def test_what_is_said_is_what_the_seed_file_says(run: Played, test: str) -> None:
    said = [f"{seed.findings[0].rule}: {seed.findings[0].explanation}" for seed in run.kept(test)]
    assert [run.shown(test).count(f"{each}\n") for each in said] == [1] * len(said)


def test_the_seed_file_fails_again_by_the_same_rule(run: Played, simulation: World) -> None:
    for seed in run.kept("two_rules"):
        (again,) = replay(simulation, seed.scenario)
        assert again.findings[0].rule == seed.findings[0].rule


def test_no_other_seed_file_is_left(run: Played) -> None:
    named = set(re.findall(r"^seed file: symm-seeds/(\S+)$", run.out, re.MULTILINE))
    left = {path.name for path in (run.folder / "symm-seeds").iterdir()} - named
    assert [name.split("-")[0] for name in left] == ["unregistered"]  # of test_handled


def test_the_scenario_is_as_small_as_fuzz_makes_it(run: Played) -> None:
    assert [(seed.scenario.world, len(seed.scenario.steps)) for seed in run.kept("two_rules")] == [(2, 1), (2, 2)]


@pytest.mark.parametrize("test", FAILING)
def test_hypothesis_shows_nothing_of_its_own(run: Played, test: str) -> None:
    assert [word for word in NOISE if word in run.shown(test)] == []


@pytest.mark.parametrize("test", FAILING)
def test_the_line_of_the_test_is_named_and_none_of_the_harness(run: Played, test: str) -> None:
    shown = run.shown(test)
    assert (len(re.findall(r"^test_mine.py:\d+: world.check", shown, re.M)), "harness/" in shown) == (1, False)


def test_the_short_summary_names_the_finding(run: Played) -> None:
    assert re.search(r"^FAILED test_mine.py::test_as_drawn - \w+: leak: ", run.out, re.MULTILINE), run.out[-3000:]


# what a test says itself


def test_notes_and_prints_of_the_test_are_shown(run: Played) -> None:
    shown = run.shown("two_rules")
    assert (len(re.findall("^my note: [69] steps$|^my note: 12 steps$", shown, re.M)), "my print\n" in shown) == (
        1,
        True,
    )


def test_notes_of_an_explicit_example_are_shown(run: Played) -> None:
    assert "an example of mine" in run.shown("example")


def test_an_error_of_the_test_itself_is_shown_beside_the_finding(run: Played) -> None:
    assert "also, in another draw, AssertionError: one is odd" in run.shown("of_its_own")


@pytest.mark.parametrize(("test", "outcome"), [("clean", "PASSED"), ("handled", "PASSED"), ("expected", "XFAIL")])
def test_what_does_not_fail_stays_so(run: Played, test: str, outcome: str) -> None:
    assert run.outcome(test) == outcome


def test_a_property_without_a_world_is_left_to_hypothesis(run: Played) -> None:
    assert "number=5" in run.shown("without_a_world")


# failures that come only sometimes


def test_a_failure_that_comes_sometimes_says_in_how_many_runs(run: Played) -> None:
    said = re.search(r"^it failed in (\d+) of (\d+) runs$", run.shown("sometimes"), re.MULTILINE)
    assert said
    assert 0 < int(said[1]) < int(said[2])


def test_a_failure_that_always_comes_counts_no_runs(run: Played) -> None:
    assert "it failed in" not in run.shown("two_rules")


# settings


def test_settings_without_the_phase_shrink_leave_the_scenario_as_drawn(run: Played) -> None:
    (seed,) = run.kept("as_drawn")
    assert (seed.scenario.world, "no phase to make it smaller" in run.shown("as_drawn")) == (4, True)


def test_settings_that_want_one_failure_get_one(run: Played) -> None:
    assert len(run.kept("first_alone")) == 1


def test_what_the_system_raises_is_shown_once_with_its_scenario(run: Played) -> None:
    (seed,) = run.kept("raises")
    (finding,), shown = seed.findings, run.shown("raises")
    assert [shown.count("out of sorts"), shown.count("\n".join(listing(seed.scenario, finding.step)))] == [1, 1]


# what is no finding


def test_a_scenario_that_does_not_fit_ends_the_property(run: Played) -> None:
    assert run.shown("too_large").startswith("a scenario of 5 ranks does not fit --symm-world=4")


# what ends the shrinking


def test_a_timeout_while_shrinking_says_what_was_found(
    simulation: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(failing: Failing, rule: str, end: float) -> None:
        raise TimeoutError("of the test")

    @settings(deadline=None, database=None)
    @given(st.just(LEAKING))
    def leaks(scenario: Scenario) -> None:
        world.check(scenario)

    monkeypatch.setattr(Failing, "_run_again", ends)
    world = TestedWorld(simulation, None, None, None, tmp_path)
    item: Any = SimpleNamespace(obj=leaks, funcargs={"world": world}, stash={})
    with pytest.raises(TimeoutError) as raised, watched(item, 8.0):
        leaks()
    (kept,) = tmp_path.iterdir()
    notes = raised.value.__notes__
    assert [sum(note.startswith(word) for note in notes) for word in ("leak: ", f"seed file: {kept}")] == [1, 1]


# workers


def test_a_worker_shows_the_same(spread: Played) -> None:
    seeds_kept = spread.kept("two_rules")
    assert sorted(seed.findings[0].rule for seed in seeds_kept) == ["leak", "unregistered"]
    assert [word for word in NOISE if word in spread.shown("two_rules")] == []
