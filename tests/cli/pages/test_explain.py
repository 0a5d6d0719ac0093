"""`symm show SEED`: in the terminal, as a page and as a trace; what cannot be run is shown from its file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.campaign import seeds
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Allocate
from harness.scenario.system import System
from tests.tools.commands import Run, forked
from tests.tools.draws import PAIR
from tests.tools.folders import SIM, sentence

NAME = "wrong-owner-found-on-sim"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("explain")
    targets = "--html", "page.html", "--perfetto", "trace.json", "--json", "account.json"
    return forked(folder, "show", NAME, *SIM, *targets)


def test_a_seed_that_ships_is_explained_by_its_name(run: Run) -> None:
    assert (run.status, run.err) == (0, "")
    assert "uses memory that was registered with tp[0,1,2,3]" in run.out
    assert "no window of moe_ep[0,2] here: the call needs one" in run.out


def test_page_trace_and_facts_are_of_the_same_run(run: Run) -> None:
    account = json.loads((run.folder / "account.json").read_text())
    assert account["verdict"]["headline"] in (run.folder / "page.html").read_text()
    trace = json.loads((run.folder / "trace.json").read_text())
    assert trace["otherData"]["headline"] == account["verdict"]["headline"]


def test_other_pools_are_run_and_the_first_step_that_differs_is_named(run: Run) -> None:
    outcomes = {each["system"]: each for each in json.loads((run.folder / "account.json").read_text())["outcomes"]}
    assert outcomes["pool shared-at-alloc"] == {
        **{"system": "pool shared-at-alloc", "rules": ["wrong-owner"], "is_own": True, "first_step": None},
        "difference": "",
    }
    assert (outcomes["pool per-group"]["rules"], outcomes["pool per-group"]["first_step"]) == ([], 1)


def test_a_topology_is_shown_as_ever(tmp_path: Path) -> None:
    run = forked(tmp_path, "show", "qwen3-32b-tp4")
    assert (run.status, "qwen3-32b-tp4: 4 ranks" in run.out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("qwen3-32b-tp4", "--html", "a.html"), "--html needs one seed, which qwen3-32b-tp4 is not"),
        ((NAME, "--against", "qwen3-32b-tp4"), f"--against goes with layouts, and {NAME} is a seed"),
        ((NAME, "--no-run", "--perfetto", "a.json"), "--perfetto needs a run of the seed"),
        ((NAME, "--html", "nowhere/a.html"), "nowhere/a.html: no such directory"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    run = forked(tmp_path, "show", *arguments)
    assert run.status == 2
    assert words in sentence(run)
    assert not [*tmp_path.iterdir()]


def test_a_seed_of_a_stranger_runs_no_code_and_is_shown_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from pathlib import Path\nPath('imported').touch()\n")
    scenario = Scenario(PAIR, (Allocate("a", "tp", 8),), System("mine:Pool"))
    seeds.save(seeds.Seed(seeds.SCHEMA, scenario, (), {}, note="from the night"), tmp_path / "s.json")
    run = forked(tmp_path, "show", "s.json", *SIM, "--html", "page.html")
    assert run.status == 0
    assert "a seed runs no code by itself" in " ".join(run.out.split())
    assert "from the night" in (tmp_path / "page.html").read_text()
    assert not (tmp_path / "imported").exists()


def test_nothing_runs_where_none_is_wanted(tmp_path: Path) -> None:
    run = forked(tmp_path, "show", NAME, "--no-run")
    assert (run.status, run.processes) == (0, [])
    assert "It was not run (--no-run)" in run.out
    assert "steps and windows" not in run.out
