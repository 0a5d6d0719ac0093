"""History: what was alive when follows from a rank's events, in their order."""

from __future__ import annotations

from harness.oracle.history import History, read
from harness.trace.events import (
    Began,
    CommCreated,
    CommDestroyed,
    Deregistered,
    Dropped,
    Entered,
    Event,
    Operand,
    Placed,
    Ran,
    Registered,
    SegmentAllocated,
    SegmentFreed,
)
from harness.trace.trace import Trace
from tests.tools.calls import gathered

COMM, AGAIN = CommCreated(0, (0, 1), 0, True), CommCreated(8, (0, 1), 1, True)
SEGMENT = SegmentAllocated(1, "p", 0, 4096)
WINDOW, SECOND = Registered(2, 0, 1, 0, 4096, False), Registered(3, 0, 1, 0, 4096, False)
NULL = Registered(4, 0, 1, 0, 4096, True)
CALL = gathered(0, Operand("b", 512, 16), Operand("a", 64, 32))


def of(*events: Event) -> History:
    return read(Trace(1, events))


def test_a_buffer_lives_from_its_placement_to_its_release() -> None:
    life = of(Began(0), Placed("a", 1, 64, 96), Began(4), Dropped("a")).buffers["a"]
    assert (life.born, life.died) == (0, 4)


def test_a_segment_keeps_the_windows_that_were_live_when_it_was_freed() -> None:
    history = of(COMM, Began(0), SEGMENT, WINDOW, Began(2), SegmentFreed(1, (2,)))
    segment = history.segments[1]
    assert (segment.born, segment.died, segment.windows_at_death) == (0, 2, (2,))
    assert (history.windows[2].segment_freed_at, history.windows[2].is_live) == (2, True)


def test_a_deregistered_window_is_gone_by_itself() -> None:
    window = of(COMM, Began(0), SEGMENT, WINDOW, Began(2), Deregistered(2)).windows[2]
    assert (window.died, window.is_gone_with_communicator) == (2, False)


def test_windows_go_with_their_communicator_and_no_other() -> None:
    other = CommCreated(5, (0, 2), 0, True), Registered(6, 5, 1, 0, 4096, False)
    history = of(COMM, Began(0), SEGMENT, WINDOW, *other, Began(2), CommDestroyed(0), AGAIN)
    went = {ident: (window.died, window.is_gone_with_communicator) for ident, window in history.windows.items()}
    assert went == {2: (2, True), 6: (None, False)}


def test_a_window_that_was_deregistered_before_did_not_go_with_its_communicator() -> None:
    window = of(COMM, Began(0), SEGMENT, WINDOW, Deregistered(2), Began(2), CommDestroyed(0)).windows[2]
    assert (window.died, window.is_gone_with_communicator) == (0, False)


def test_registrations_of_a_communicator_are_counted_and_null_ones_take_a_turn() -> None:
    other = CommCreated(5, (0, 2), 0, True), Registered(6, 5, 1, 0, 4096, False)
    history = of(COMM, SEGMENT, NULL, *other, WINDOW)
    assert {ident: window.ordinal for ident, window in history.windows.items()} == {4: 0, 6: 0, 2: 1}


def test_a_registration_that_was_entered_counts_if_it_returned_or_not() -> None:
    history = of(COMM, Entered("register", 0), SEGMENT, WINDOW, Entered("all_gather", 0), Entered("register", 0))
    assert history.entered == {0: 2}


def test_a_window_knows_those_of_its_communicator_that_it_doubled_when_it_came() -> None:
    history = of(COMM, SEGMENT, WINDOW, SECOND, Deregistered(2), NULL)
    assert history.doubled == {3: (history.windows[2],), 4: (history.windows[3],)}


def test_windows_of_another_communicator_or_beside_it_are_not_doubled() -> None:
    other = CommCreated(5, (0, 2), 0, True), Registered(6, 5, 1, 0, 4096, False)
    assert of(COMM, SEGMENT, *other, WINDOW, Registered(3, 0, 1, 4096, 4096, False)).doubled == {}


def test_a_window_over_a_freed_segment_is_not_doubled() -> None:
    assert of(COMM, SEGMENT, WINDOW, SegmentFreed(1, (2,)), SECOND).doubled == {}


def test_a_call_is_seen_as_things_were_when_it_was_made() -> None:
    history = of(COMM, SEGMENT, WINDOW, Began(3), CALL, Ran("symmetric", "the log"), Deregistered(2), CALL)
    first, second = history.uses
    assert (first.rank, first.step, first.output.window) == (1, 3, history.windows[2])
    assert (second.output.window, second.output.former) == (None, (history.windows[2],))


def test_a_call_that_did_not_return_has_no_path() -> None:
    first, second = of(COMM, CALL, Ran("legacy", ""), CALL).uses
    assert (first.ran, second.ran) == (Ran("legacy", ""), None)
