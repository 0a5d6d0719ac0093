"""`symm fuzz` as a shard: its first lines, its JSON and its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.campaign import seeds
from harness.cli.nights.tonight import tonight
from harness.nights.shard import VARIABLES, night_seed
from tests.tools.commands import Run, forked, forked_code
from tests.tools.folders import SIM, content, sentence

LEAKS = ("--pool", "harness.system.planted.pools:KeepsATensor", "--world", "2", "--shrink-seconds", "2")
TASK = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_JOB_ID": "4711"}


def as_task(folder: Path, *arguments: str, variables: dict[str, str]) -> Run:
    """A command with variables of an engine in its environment."""
    return forked_code(
        folder,
        f"import os, sys; os.environ.update({variables!r}); sys.argv = ['symm', *{arguments!r}]\n"
        "from harness.cli import main; main.main()",
    )


@pytest.fixture(scope="module")
def task(place: Callable[[str], Path]) -> Run:
    return as_task(place("task"), "fuzz", "--draws", "24", "--run", "night/2", *LEAKS, *SIM, variables=TASK)


def test_the_first_lines_name_shard_and_seed_and_their_sources(task: Run) -> None:
    assert task.out.splitlines()[1:3] == [
        "shard 2 of 4, from SLURM_ARRAY_TASK_ID",
        "seed 3969109519, from SLURM_ARRAY_JOB_ID 4711",
    ]


def test_a_shard_makes_its_part_of_the_draws(task: Run) -> None:
    assert "6 draws in" in task.out


def test_the_json_of_a_shard_says_which_it_is_and_of_which_seed(task: Run) -> None:
    found = json.loads((task.folder / "night/2/run.json").read_bytes())
    assert (found["seed"], found["shard"]) == (3969109519, {"index": 2, "of": 4, "source": "SLURM_ARRAY_TASK_ID"})
    assert found["interrupted"] is False


def test_a_run_leaves_all_in_its_folder(task: Run) -> None:
    found = json.loads((task.folder / "night/2/run.json").read_bytes())
    (finding,) = found["findings"]
    assert content(task.folder).keys() == {"night/2/run.json", finding["seed_file"]}
    assert Path(finding["seed_file"]).parent == Path("night/2/seeds")
    assert seeds.load(task.folder / finding["seed_file"]).findings[0].rule == "leak"


def test_a_given_seed_is_that_of_every_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_RUN_ID", "4711")
    night = tonight("2/4", 20)
    assert (night.seed, night.lines) == (20, ("shard 2 of 4, from --shard", "seed 20"))


@pytest.fixture
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_no_engine")
def test_a_run_of_a_ci_that_is_not_divided_says_nothing_of_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_RUN_ID", "4711")
    night = tonight(None, None)
    assert (night.shard, night.lines) == (None, (f"seed {night.seed}: --seed {night.seed} draws the same",))
    assert tonight(None, 20).seed == 20


@pytest.mark.usefixtures("_no_engine")
def test_a_dry_run_counts_the_scenarios_of_its_shard(place: Callable[[str], Path]) -> None:
    dry = ("fuzz", "--dry", "--draws", "24", "--world", "2", "--seed", "3", *SIM, "--json", "-")
    whole, first, second = (
        forked(place("dry"), *dry, *part).data for part in ((), ("--shard", "1/2"), ("--shard", "2/2"))
    )
    assert (first["draws"], second["draws"], whole["draws"]) == (12, 12, 24)
    assert first["by_step"] != second["by_step"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--shard", "0/4"), "--shard '0/4' is no shard: shards count from 1, so I/N is 1/N up to N/N"),
        (("--run", "night", "--seeds-dir", "kept"), "--seeds-dir does not go with --run"),
        (("--run", "night", "--dry"), "--run keeps a run, and --dry makes none"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, options: tuple[str, ...], says: str) -> None:
    run = forked(tmp_path, "fuzz", *options, *SIM)
    assert run.status == 2
    assert sentence(run).startswith(says)
    assert content(tmp_path) == {}


def test_the_seed_of_a_task_is_that_of_its_array() -> None:
    assert night_seed(TASK, None)[0] == 3969109519  # type: ignore[arg-type]
