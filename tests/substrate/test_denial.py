"""A denial refuses one segment, and records it."""

from __future__ import annotations

import pytest

from harness.substrate.denial import Denial, Refusal
from harness.substrate.recorder import Recorder
from harness.trace.events import Event, SegmentDenied, Unregistrable


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def denial(events: list[Event]) -> Denial:
    recorder = Recorder(0)
    recorder.start(events.append)
    return Denial(recorder)


def test_no_segment_is_refused_before_a_step_asks_for_it(denial: Denial, events: list[Event]) -> None:
    assert (denial.refuses("tp", 512), events) == (False, [])


def test_one_segment_is_refused_and_the_next_is_not(denial: Denial) -> None:
    denial.is_due = True
    assert (denial.refuses("tp", 512), denial.refuses("tp", 512)) == (True, False)


def test_the_refusal_is_recorded_with_its_pool_and_size(denial: Denial, events: list[Event]) -> None:
    denial.is_due = True
    denial.refuses("tp", 512)
    assert events == [SegmentDenied("tp", 512)]


# a segment that cannot be registered


@pytest.fixture
def refusal(events: list[Event]) -> Refusal:
    recorder = Recorder(0)
    recorder.start(events.append)
    return Refusal(recorder)


def test_no_registration_is_refused_before_a_step_asks_for_it(refusal: Refusal, events: list[Event]) -> None:
    assert (refusal.refuses(3), events) == (False, [])


def test_one_segment_is_refused_at_every_look_and_the_next_is_not(refusal: Refusal) -> None:
    refusal.is_due = True
    assert [refusal.refuses(segment) for segment in (3, 4, 3)] == [True, False, True]


def test_the_refused_segment_is_recorded_once(refusal: Refusal, events: list[Event]) -> None:
    refusal.is_due = True
    for _ in range(2):
        refusal.refuses(3)
    assert events == [Unregistrable(3)]


def test_a_draw_begins_with_nothing_refused(refusal: Refusal) -> None:
    refusal.is_due = True
    refusal.refuses(3)
    refusal.is_due = True
    refusal.start()
    assert (refusal.refuses(3), refusal.refuses(4)) == (False, False)
