"""Facts of a run: what was asked for, when, where, and how fast it went."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness import interrupts
from harness.report.facts import POINTS, Facts, Speed
from tests.tools.clock import FakeClock


def test_a_run_has_its_command_options_host_and_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/symm", "fuzz", "--draws", "3"])
    data = Facts({"draws": 3, "seeds_dir": Path("seeds"), "pools": ("a", "b")}, {"seed": 7}).as_data()
    assert data["command"] == ["symm", "fuzz", "--draws", "3"]
    assert data["options"] == {"draws": 3, "seeds_dir": "seeds", "pools": ["a", "b"]}
    assert (data["seed"], data["interrupted"], bool(data["host"])) == (7, False, True)
    assert datetime.fromisoformat(data["started"]).tzinfo == UTC
    assert data["started"] <= data["ended"]


def test_a_run_that_was_interrupted_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "has_come", lambda: True)
    assert Facts().as_data()["interrupted"] is True


def test_a_run_without_draws_has_no_speed() -> None:
    assert "speed" not in Facts().as_data()


def test_speed_is_seconds_and_draws() -> None:
    clock = FakeClock()
    speed = Speed(clock.clock)
    for draws in (1, 2, 2, 3):
        clock.advance(0.5)
        speed.note(draws)
    assert speed.points == [(0.0, 0), (0.5, 1), (1.0, 2), (2.0, 3)]


@pytest.mark.parametrize("draws", [100, 1000, 20000])
def test_speed_has_about_sixty_points_however_long_it_is_and_ends_with_the_last_draw(draws: int) -> None:
    clock = FakeClock()
    speed = Speed(clock.clock)
    for number in range(1, draws + 1):
        clock.advance(0.1)
        speed.note(number)
    assert POINTS / 2 <= len(speed.points) <= 2 * POINTS
    assert speed.points[-1][1] == draws
    assert speed.points == sorted(speed.points)
