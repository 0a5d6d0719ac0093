"""Sight: NCCL's look-up by start address, and everything else over an operand."""

from __future__ import annotations

import pytest

from harness.oracle.ground import Ground
from harness.oracle.lives import SegmentLife, WindowLife
from harness.oracle.sight import Sight, see
from harness.trace.events import CommCreated, Operand, Registered, SegmentAllocated

MINE, OTHER = CommCreated(0, (0, 1), 0, True), CommCreated(1, (0, 2), 0, True)
OLD = CommCreated(7, (0, 1), 0, True)
"""The communicator that `MINE` replaced."""


def window(
    start: int, end: int, comm: CommCreated = MINE, null: bool = False, died: int | None = None, ordinal: int = 0
) -> WindowLife:
    return WindowLife(Registered(9, comm.comm, 1, start, end - start, null), comm, 0, ordinal, died)


def sight(*windows: WindowLife, at: int = 100, size: int = 10, segments: tuple[SegmentLife, ...] = ()) -> Sight:
    ground = Ground()
    for segment in segments:
        ground.allocated(segment)
    for window in windows:
        ground.registered(window)
    return see(MINE, Operand("a", at, size), ground)


# the window that is found


@pytest.mark.parametrize(
    ("start", "end", "found"), [(100, 101, True), (0, 101, True), (101, 200, False), (0, 100, False)]
)
def test_a_window_is_found_by_the_operands_start(start: int, end: int, found: bool) -> None:
    assert (sight(window(start, end)).window is not None) is found


@pytest.mark.parametrize("reverse", [False, True])
def test_of_two_windows_the_one_with_the_higher_base_is_found(reverse: bool) -> None:
    windows = [window(0, 1000), window(90, 200)]
    assert sight(*(windows[::-1] if reverse else windows)).window is windows[1]


def test_a_window_that_ends_before_the_operand_hides_a_larger_one_below() -> None:
    """Only the highest base at or below the address is looked at."""
    assert sight(window(0, 1000), window(90, 95)).window is None


@pytest.mark.parametrize(
    "hidden",
    [window(90, 200, OTHER), window(90, 200, null=True), window(90, 200, died=3)],
    ids=["another communicator's", "null", "gone"],
)
def test_what_is_no_live_window_of_the_communicator_hides_none(hidden: WindowLife) -> None:
    own = window(0, 1000)
    assert sight(own, hidden).window is own


def test_a_window_whose_segment_was_freed_is_still_found() -> None:
    stale = window(0, 1000)
    stale.segment_freed_at = 4
    assert (sight(stale).window, sight(stale).segment_freed_at) == (stale, 4)


@pytest.mark.parametrize(("size", "whole"), [(100, True), (101, False)])
def test_an_operand_is_whole_if_the_window_reaches_to_its_end(size: int, whole: bool) -> None:
    assert sight(window(0, 200), size=size).is_whole is whole


def test_an_operand_in_no_window_is_not_whole_and_at_no_place() -> None:
    assert (sight().is_whole, sight().place) == (False, None)


def test_a_place_is_the_windows_turn_and_the_offset_in_it() -> None:
    assert sight(window(60, 200, ordinal=3)).place == (3, 40)


# what else lies there


def test_live_windows_of_other_communicators_are_seen_apart() -> None:
    other = window(0, 200, OTHER)
    gone, null, beside = window(0, 200, OTHER, died=2), window(0, 200, OTHER, null=True), window(101, 200, OTHER)
    assert sight(window(0, 200), other, gone, null, beside).others == (other,)


def test_null_windows_of_the_communicator_are_seen_apart() -> None:
    null = window(0, 200, null=True)
    assert sight(null, window(0, 200, OTHER, null=True), window(0, 200, null=True, died=2)).nulls == (null,)


def test_former_windows_are_those_of_the_group_whatever_its_communicator_was() -> None:
    earlier, later = window(0, 200, OLD, died=2), window(0, 200, MINE, died=4)
    others = window(0, 200, OTHER, died=2), window(0, 200, OLD, null=True, died=2), window(0, 200, OLD)
    assert sight(earlier, later, *others).former == (earlier, later)


def test_the_segment_is_the_live_one_at_the_address() -> None:
    """An address comes again after a free."""
    gone = SegmentLife(SegmentAllocated(1, "p", 0, 4096), 0, died=2)
    live = SegmentLife(SegmentAllocated(2, "p", 0, 4096), 3)
    beside = SegmentLife(SegmentAllocated(3, "p", 4096, 4096), 3)
    assert sight(segments=(gone, beside, live)).segment is live
    assert sight(segments=(gone, beside)).segment is None


def test_windows_over_other_parts_of_the_segment_are_seen_whoever_has_them() -> None:
    segment = SegmentLife(SegmentAllocated(2, "p", 50, 100), 0)
    own, others, past = window(50, 60), window(120, 140, OTHER), window(0, 55)
    over, gone, null = window(90, 200, OTHER), window(50, 60, died=1), window(50, 60, null=True)
    apart = window(0, 50), window(150, 200)
    seen = sight(own, others, past, over, gone, null, *apart, segments=(segment,))
    assert seen.beside == (own, others, past)
    assert sight(own).beside == ()
