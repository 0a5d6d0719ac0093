"""A night shows what it found before it makes pictures of it, and these cost no finding and little time."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from harness import interrupts
from harness.campaign.keeper import Found
from harness.cli.nights import night
from harness.cli.nights.night import Night
from harness.cli.pages import explain
from harness.oracle.findings import Record
from harness.scenario.steps import Allocate
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
