"""Schedules: each names every rank once, and files that have none stay as they are."""

from __future__ import annotations

import msgspec
import pytest

from harness.scenario.scenario import Scenario
from harness.scenario.schedule import Schedule
from harness.scenario.steps import ProgramError
from tests.tools.draws import scenario

PLAIN = scenario()


def by(schedule: Schedule) -> Scenario:
    return msgspec.structs.replace(PLAIN, schedule=schedule)


def test_a_scenario_without_a_schedule_has_none_in_its_file() -> None:
    assert b"schedule" not in msgspec.json.encode(PLAIN)
    assert PLAIN.scheduled is None


def test_a_schedule_comes_back_from_a_file() -> None:
    played = by(Schedule((1, 0), (3, 17)))
    assert msgspec.json.decode(msgspec.json.encode(played), type=Scenario) == played


def test_scenarios_that_differ_in_their_schedule_are_not_the_same() -> None:
    assert len({PLAIN, by(Schedule((0, 1))), by(Schedule((1, 0))), by(Schedule((1, 0), (4,)))}) == 4


@pytest.mark.parametrize("order", [(0,), (0, 0), (0, 2), (0, 1, 2)])
def test_a_schedule_of_other_ranks_is_refused(order: tuple[int, ...]) -> None:
    with pytest.raises(ProgramError, match="each of the ranks 0 to 1 once"):
        by(Schedule(order))


@pytest.mark.parametrize("changes", [(0,), (4, 4), (5, 4)])
def test_changes_that_do_not_rise_are_refused(changes: tuple[int, ...]) -> None:
    with pytest.raises(ProgramError, match="no rising numbers"):
        by(Schedule((0, 1), changes))


def test_ranks_that_are_kept_keep_their_order() -> None:
    assert Schedule((3, 0, 2, 1), (7,)).on((1, 3)) == Schedule((1, 0), (7,))
