"""Ground: what is there at a moment, and what was seen then."""

from __future__ import annotations

from harness.oracle.ground import Ground, in_turn, kept
from harness.oracle.lives import SegmentLife, WindowLife
from harness.trace.events import CommCreated, Registered, SegmentAllocated

COMM = CommCreated(0, (0, 1), 0, True)


def window(start: int = 0, died: int | None = None) -> WindowLife:
    return WindowLife(Registered(9, 0, 1, start, 100, False), COMM, 0, 0, died)


def segment(ident: int) -> SegmentLife:
    return SegmentLife(SegmentAllocated(ident, "p", 0, 100), 0)


def test_windows_that_were_kept_stay_when_they_go_and_others_come() -> None:
    ground, first, second, third = Ground(), window(), window(), window()
    ground.registered(first)
    ground.registered(second)
    ((_, there),) = ground.windows.meeting(0, 1)
    seen = kept(there[0])
    ground.registered(third)
    ground.went(first)
    assert in_turn([seen]) == (first, second)


def test_the_latest_window_that_is_gone_is_the_one_that_was_registered_last() -> None:
    ground, first, second = Ground(), window(), window(start=50)
    ground.registered(first)
    ground.registered(second)
    ground.went(second)
    ground.went(first)
    assert (ground.latest(COMM.id, 60), ground.latest(COMM.id, 10), ground.latest(COMM.id, 200)) == (
        second,
        first,
        None,
    )


def test_of_segments_at_one_address_the_first_is_found_until_it_is_freed() -> None:
    ground, first, second = Ground(), segment(1), segment(2)
    ground.allocated(first)
    ground.allocated(second)
    assert ground.segment(50) is first
    ground.freed(first)
    assert ground.segment(50) is second
    ground.freed(second)
    assert ground.segment(50) is None
