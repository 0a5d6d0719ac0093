"""A denial refuses one segment, and records it."""

from __future__ import annotations

import pytest

from harness.substrate.denial import Denial
from harness.substrate.recorder import Recorder
from harness.trace.events import Event, SegmentDenied


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
