"""A recorder's events and numbers belong to one draw."""

from __future__ import annotations

from harness.substrate.recorder import Recorder
from harness.trace.events import Closing, Event, Finished


def test_each_draw_numbers_from_zero() -> None:
    recorder = Recorder(3)
    numbers = []
    for _ in range(2):
        recorder.start(lambda event: None)
        numbers += [next(recorder.idents), next(recorder.idents)]
    assert numbers == [0, 1, 0, 1]


def test_an_event_goes_to_the_record_of_its_draw() -> None:
    recorder, first, second = Recorder(0), list[Event](), list[Event]()
    recorder.start(first.append)
    recorder.record(Closing())
    recorder.start(second.append)
    recorder.record(Finished())
    assert (first, second) == ([Closing()], [Finished()])


def test_events_after_the_draw_are_ignored() -> None:
    recorder, events = Recorder(0), list[Event]()
    recorder.start(events.append)
    recorder.stop()
    recorder.record(Closing())
    assert events == []


def test_numbers_go_on_after_the_draw_so_that_its_last_objects_keep_theirs() -> None:
    recorder = Recorder(0)
    next(recorder.idents)
    recorder.stop()
    assert next(recorder.idents) == 1
