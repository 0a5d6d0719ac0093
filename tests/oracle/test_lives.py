"""Lives: where a segment or a window lies, and how a window that is gone went."""

from __future__ import annotations

import pytest

from harness.oracle.lives import SegmentLife, WindowLife
from harness.trace.events import CommCreated, Registered, SegmentAllocated

COMM = CommCreated(0, (0, 1), 0, True)


def segment(died: int | None = None) -> SegmentLife:
    return SegmentLife(SegmentAllocated(1, "p", 4096, 4096), 0, died)


def window(null: bool = False, **how: object) -> WindowLife:
    return WindowLife(Registered(2, 0, 1, 4096, 4096, null), COMM, 0, 0, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize(("address", "inside"), [(4095, False), (4096, True), (8191, True), (8192, False)])
def test_a_life_covers_its_addresses_from_the_first_to_the_last(address: int, inside: bool) -> None:
    assert (segment().covers(address), window().covers(address)) == (inside, inside)


def test_what_has_died_is_not_live() -> None:
    assert [each.is_live for each in (segment(), segment(3), window(), window(died=3))] == [True, False, True, False]


def test_a_null_window_is_live_and_no_window() -> None:
    assert (window(null=True).is_live, window(null=True).is_window, window().is_window) == (True, False, True)


def test_a_window_that_is_gone_is_no_window() -> None:
    assert not window(died=3).is_window


@pytest.mark.parametrize(
    ("how", "is_never_deregistered"),
    [
        ({"died": 3}, False),
        ({"died": 3, "segment": segment()}, False),
        ({"died": 3, "is_gone_with_communicator": True, "segment": segment()}, True),
        ({"died": 3, "is_gone_with_communicator": True}, True),
        ({"died": 3, "is_gone_with_communicator": True, "segment": segment(died=2)}, False),
        ({"segment_freed_at": 2, "segment": segment(died=2)}, True),
    ],
    ids=[
        "deregistered",
        "deregistered, its segment there",
        "with its communicator",
        "with its communicator, its segment unknown",
        "with its communicator, its segment since gone",
        "under it its segment was freed",
    ],
)
def test_how_a_window_went(how: dict[str, object], is_never_deregistered: bool) -> None:
    assert window(**how).is_never_deregistered is is_never_deregistered
