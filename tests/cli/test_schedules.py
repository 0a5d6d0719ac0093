"""`symm fuzz --schedules`: a race is found, kept with its schedule, and replayed in every run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.campaign import seeds
from tests.tools.commands import Run, forked
from tests.tools.folders import SIM

RELAXED = ("--collectives", "harness.system.planted.order:RelaxedSignals")


@pytest.fixture(scope="module")
def found(place: Callable[[str], Path]) -> Run:
    options = "--draws", "12", "--world", "2", "--schedules", "3", "--shrink-seconds", "5", "--json", "-"
    return forked(place("schedules"), "fuzz", *options, *RELAXED, *SIM)


@pytest.fixture(scope="module")
def kept(found: Run) -> Path:
    return found.folder / found.data["findings"][0]["seed_file"]


def test_a_race_is_found(found: Run) -> None:
    assert (found.status, {each["rule"] for each in found.data["findings"]}) == (1, {"race"})


def test_its_seed_file_holds_a_schedule(kept: Path) -> None:
    assert seeds.load(kept).scenario.scheduled is not None


def test_it_is_as_small_as_can_be_and_no_race_to_the_search(found: Run, kept: Path) -> None:
    assert found.data["findings"][0]["shrunk"] == "smallest"
    assert len(seeds.load(kept).scenario.steps) == 2


def test_a_replay_finds_it_in_every_run(found: Run, kept: Path) -> None:
    again = forked(found.folder, "replay", str(kept), "--times", "20", *SIM, "--json", "-")
    assert (again.status, again.data["failed"]) == (1, 20)


def test_a_replay_on_right_kernels_finds_nothing(found: Run, kept: Path) -> None:
    assert forked(found.folder, "replay", str(kept), "--collectives", "triton", *SIM).status == 0
