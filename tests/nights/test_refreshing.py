"""A run's facts while it goes on: when they are written, and that a disk that refuses ends no hunt."""

from __future__ import annotations

from typing import Any

from harness.campaign.tally import Tally
from harness.errors import UsageError
from harness.nights.refreshing import SECONDS, Refreshing
from tests.tools.clock import FakeClock


def test_facts_are_written_at_the_first_call_and_then_every_few_seconds() -> None:
    time, written = FakeClock(), list[float]()
    refresh = Refreshing(lambda: written.append(time.seconds), clock=time.clock)
    for _ in range(10):
        refresh(Tally())
        time.advance(SECONDS / 2)
    assert written == [0, SECONDS, 2 * SECONDS, 3 * SECONDS, 4 * SECONDS]


def test_a_new_finding_is_written_at_once() -> None:
    time, written = FakeClock(), list[Any]()
    tally = Tally()
    refresh = Refreshing(lambda: written.append([*tally.found]), clock=time.clock)
    refresh(tally)
    tally.found["hang"] = object()  # type: ignore[assignment]
    refresh(tally)
    refresh(tally)
    assert written == [[], ["hang"]]


def test_progress_is_shown_at_every_call() -> None:
    time, shown = FakeClock(), list[Tally]()
    refresh = Refreshing(lambda: None, shown.append, time.clock)
    for _ in range(3):
        refresh(Tally())
    assert len(shown) == 3


def test_a_disk_that_refuses_is_tried_again_and_ends_nothing() -> None:
    time, tries = FakeClock(), list[float]()

    def full() -> None:
        tries.append(time.seconds)
        raise UsageError("cannot write run.json: No space left on device")

    refresh = Refreshing(full, clock=time.clock)
    for _ in range(2):
        refresh(Tally())
        time.advance(SECONDS)
    assert tries == [0, SECONDS]
