"""`symm fuzz --dry`: it counts the scenarios that the command draws without it, and starts no rank."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.campaign import campaign
from harness.cli import dry
from harness.cli.nights.tonight import Tonight
from harness.cli.request import Request
from harness.errors import UsageError
from harness.machine import nccl
from harness.oracle.judge import Verdict
from harness.report import drawn
from harness.scenario.scenario import Scenario
from harness.studies.drawing.drawn import UNITS, Drawn
from harness.trace.draw import Draw
from harness.world.platform import Platform
from tests.tools.commands import Run, forked
from tests.tools.folders import SIM, content, sentence

SMALL = "--draws", "12", "--world", "3", "--seed", "20"
DRAWS = 40


@pytest.fixture(scope="module")
def counted(place: Callable[[str], Path]) -> Run:
    return forked(place("dry"), "fuzz", "--dry", *SMALL, *SIM, "--json", "-")


def test_a_dry_run_exits_with_0_and_leaves_nothing(counted: Run) -> None:
    assert (counted.status, counted.processes, content(counted.folder)) == (0, [], {})


def test_a_dry_run_writes_totals_and_histograms_of_every_unit(counted: Run) -> None:
    promised = {"schema", "seed", "layouts", "groups", "environment", *UNITS}
    assert counted.data.keys() == promised | {"by_draw", "by_step", "by_collective", "by_call"}
    assert (counted.data["schema"], counted.data["seed"], counted.data["draws"]) == (1, 20, 12)


def test_a_dry_run_says_where_it_would_have_run(counted: Run) -> None:
    assert counted.data["environment"]["substrate"] == "sim"
    assert "substrate sim: asked for" in counted.err


def test_a_dry_run_shows_shares_on_stderr_and_that_nothing_ran(counted: Run) -> None:
    assert "Nothing ran." in counted.err
    assert f"{counted.data['calls']} calls" in counted.err
    assert "\n  operation " in counted.err


def test_a_dry_run_meets_the_layouts_and_groups_that_the_command_runs(counted: Run) -> None:
    ran = forked(counted.folder, "fuzz", *SMALL, *SIM, "--json", "-")
    assert [ran.data[name] for name in ("draws", "layouts", "groups")] == [
        counted.data[name] for name in ("draws", "layouts", "groups")
    ]


def test_a_dry_run_of_some_minutes_is_refused(tmp_path: Path) -> None:
    run = forked(tmp_path, "fuzz", "--dry", "--minutes", "1")
    assert (run.status, "--dry goes with --draws" in sentence(run)) == (2, True)


def test_a_dry_run_refuses_what_the_command_refuses(tmp_path: Path) -> None:
    run = forked(tmp_path, "fuzz", "--dry", "--graphs", "--hazard", "deny")
    assert (run.status, "--graphs does not go with --hazard" in sentence(run)) == (2, True)


REQUESTS: dict[str, dict[str, Any]] = {
    "free programs": {},
    "kernels alone": {"collectives": "triton"},
    "graphs on streams": {"graphs": True, "streams": 3},
    "hazards": {"hazard": ("ballast", "uneven")},
    "flows": {"flow": "all"},
    "implicit sites": {"sites": "implicit"},
    "one layout": {"topology": ("qwen3-32b-tp4",)},
    "nodes": {"nodes": 2},
}


def facts(account: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in account.items() if name not in ("environment", "seed")}


class Runs:
    """Ranks on which nothing ever fails."""

    def __init__(self) -> None:
        self.ran: list[Scenario] = []

    def run(self, scenario: Scenario) -> Draw:
        self.ran.append(scenario)
        return Draw(scenario, (), (), 0.0, 20.0)


@pytest.mark.parametrize("what", REQUESTS)
def test_a_dry_run_counts_the_scenarios_that_a_campaign_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    monkeypatch.setattr(campaign, "examine", lambda draw: Verdict([]))
    request, unstarted, world = Request(world=8, **REQUESTS[what]), dry.Unstarted.on("sim", 8, 0, ()), Runs()
    night = Tonight(20, None, ())
    dry.run(Console(file=StringIO()), request, unstarted, DRAWS, night, str(tmp_path / "dry.json"))
    campaign.Campaign(world, request.strategy(unstarted), tmp_path / "seeds", seed=20).run(DRAWS)  # type: ignore[arg-type]
    counted = json.loads((tmp_path / "dry.json").read_text())
    assert len(world.ran) == DRAWS
    assert facts(counted) == facts(drawn.as_data(Drawn(world.ran), 20, {}))


def test_another_seed_counts_other_scenarios(counted: Run) -> None:
    other = forked(counted.folder, "fuzz", "--dry", *SMALL[:-1], "21", *SIM, "--json", "-")
    assert other.data["by_call"] != counted.data["by_call"]


@pytest.mark.parametrize(("version", "has_kernels"), [((2, 29, 1), False), ((2, 29, 2), True)])
def test_kernels_are_drawn_where_nccl_would_let_them_run(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], has_kernels: bool
) -> None:
    monkeypatch.setattr(dry, "choose", lambda *_: Platform("nccl", "", 30.0, 4.0, gpus=2, is_node_bound=True))
    monkeypatch.setattr(nccl, "version", lambda: version)
    unstarted = dry.Unstarted.on("nccl", 2, 32, ())
    assert (unstarted.size, unstarted.description["kernels"]) == (2, has_kernels)


def test_a_share_of_larger_worlds_is_drawn_as_on_the_simulation() -> None:
    assert dry.Unstarted.on("sim", 8, 32, ()).size == 32


def test_without_a_number_of_draws_nothing_is_drawn() -> None:
    with pytest.raises(UsageError, match="--draws"):
        dry.run(Console(file=StringIO()), Request(world=2), dry.Unstarted.on("sim", 2, 0, ()), None, 0, None)
