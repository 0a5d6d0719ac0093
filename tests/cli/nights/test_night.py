"""A night shows what it found before it makes pictures of it, and these cost no finding and little time."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest

from harness import interrupts
from harness.campaign.keeper import Found
from harness.cli.ending import Outputs
from harness.cli.nights import night
from harness.cli.nights.night import Night
from harness.cli.pages import explain
from harness.nights.folder import RunFolder
from harness.oracle.findings import Record
from harness.report import facts
from harness.scenario.steps import Allocate
from harness.scenario.system import System
from tests.tools.draws import scenario

FOUND = [
    Found(Record("hang", "they wait", 0, (0, 1)), scenario(Allocate("a", "tp", 8)), f"{name}.json", 1, (2, 1))
    for name in "ab"
]


def test_pictures_are_made_when_what_was_found_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    done = Mock()
    done.pictures.return_value = {}
    monkeypatch.setattr(night.terminal, "summary", done.summary)
    monkeypatch.setattr(night.news, "show", done.news)
    monkeypatch.setattr(night.explain, "of_findings", done.pictures)
    for shown in (night.coverage, night.leftovers):
        monkeypatch.setattr(shown, "show", Mock())
    Night(*[Mock() for _ in range(9)])._show()
    assert [name for name, _, _ in done.mock_calls] == ["summary", "news", "pictures"]


def test_the_folder_of_a_run_and_its_json_are_the_same_facts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """However long one takes to be written after the other."""
    times = (f"2026-01-31T00:00:0{second}Z" for second in range(9))
    monkeypatch.setattr(facts, "now", lambda: next(times))
    monkeypatch.setattr(Night, "_found", lambda night: {"findings": []})
    monkeypatch.setattr(night.results, "of_campaign", Mock(return_value=[]))
    outputs = Outputs(Mock(params={}), str(tmp_path / "night.json"))
    keeping, tonight = Mock(folder=RunFolder(tmp_path / "run")), Mock(seed=5)
    ended = Night(Mock(), Mock(), tonight, keeping, outputs, Mock(), Mock(), System(), {})
    ended._write()
    assert (tmp_path / "run/run.json").read_text() == (tmp_path / "night.json").read_text()


def test_a_finding_whose_picture_fails_costs_no_other() -> None:
    world = Mock()
    world.run.side_effect = StopIteration("a defect of the pictures")
    assert explain.of_findings(world, FOUND, {}) == {}
    assert world.run.call_count == len(FOUND)


def test_pictures_end_when_their_time_is_over() -> None:
    world = Mock()
    assert explain.of_findings(world, FOUND, {}, seconds=0) == {}
    world.run.assert_not_called()


def test_no_picture_is_made_after_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Mock()
    monkeypatch.setattr(interrupts, "has_come", lambda: True)
    assert explain.of_findings(world, FOUND, {}) == {}
    world.run.assert_not_called()
