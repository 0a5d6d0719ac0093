"""A trace: the step of each event, where the rank stopped, and what it held."""

from __future__ import annotations

import pytest

from harness.trace.events import (
    Began,
    CommCreated,
    Entered,
    Event,
    Finished,
    Provided,
    Raised,
    Returned,
    SegmentAllocated,
    SegmentFreed,
)
from harness.trace.trace import Trace

INSIDE = Entered("register", 0)
OPEN = Entered("open", 0)
COMM = CommCreated(0, (0, 1), 0, True)


def of(*events: Event) -> Trace:
    return Trace(0, events)


def test_an_event_belongs_to_the_step_that_began_before_it() -> None:
    trace = of(COMM, Began(0), INSIDE, Began(3), Finished())
    assert [step for step, _ in trace.steps()] == [-1, 0, 0, 3, 3]
    assert tuple(event for _, event in trace.steps()) == trace.events


@pytest.mark.parametrize(("events", "last"), [((), -1), ((COMM,), -1), ((Began(0), Began(4), INSIDE), 4)])
def test_the_last_step_is_the_one_that_began_last(events: tuple[Event, ...], last: int) -> None:
    assert of(*events).last_step == last


@pytest.mark.parametrize(
    ("events", "is_through"),
    [((), False), ((Began(0),), False), ((Finished(),), True), ((Finished(), Began(0)), False)],
)
def test_a_rank_has_finished_if_that_is_the_last_it_wrote(events: tuple[Event, ...], is_through: bool) -> None:
    assert of(*events).has_finished is is_through


@pytest.mark.parametrize(
    ("events", "call"),
    [
        ((), None),
        ((Began(0),), None),
        ((Began(0), INSIDE), INSIDE),
        ((INSIDE, Returned("register", 0)), None),
        ((INSIDE, Raised("pool", "TypeError")), INSIDE),
        ((OPEN, Entered("flags", 0), Provided(1, 0, "flags", 8)), OPEN),
        ((OPEN, Entered("signal pads", 0), Returned("signal pads", 0), Raised("collectives", "TypeError")), OPEN),
        ((Began(0), Entered("flags", 0), Provided(1, 0, "flags", 8)), None),
    ],
    ids=["nothing", "no call", "inside", "returned", "raised inside", "memory", "pads", "memory outside"],
)
def test_a_rank_is_blocked_in_the_call_that_it_entered_last(events: tuple[Event, ...], call: Entered | None) -> None:
    assert of(*events).blocked_in == call


def test_the_most_held_is_what_was_there_at_one_time() -> None:
    first, second, third = (SegmentAllocated(ident, "p", 0, size) for ident, size in ((1, 10), (2, 30), (3, 15)))
    assert of(first, second, SegmentFreed(2, ()), third).most_held == 40


def test_a_rank_without_segments_holds_nothing() -> None:
    assert of(COMM).most_held == 0


def test_communicators_are_found_by_their_number() -> None:
    other = CommCreated(7, (1,), 0, False)
    assert of(COMM, Began(0), other).comms() == {0: COMM, 7: other}
