"""Segments and their windows."""

from __future__ import annotations

import pytest

from harness.substrate.segment import Segment, Window


class Registry:
    """Deregisters as a communicator does, and notes it."""

    def __init__(self) -> None:
        self.closed: list[int] = []

    def __repr__(self) -> str:
        return "<Registry>"

    def register(self, segment: Segment, ident: int) -> Window:
        window = Window(ident, self, segment, None)
        segment.windows.append(window)
        return window

    def deregister(self, window: Window) -> None:
        window.is_valid = False
        window.segment.windows.remove(window)
        self.closed.append(window.ident)


@pytest.mark.parametrize(("address", "is_inside"), [(4095, False), (4096, True), (6143, True), (6144, False)])
def test_a_segment_holds_the_addresses_from_its_start_up_to_its_end(address: int, is_inside: bool) -> None:
    assert (address in Segment(0, "tp", 4096, 2048)) is is_inside


def test_a_window_is_closed_by_the_communicator_that_registered_it() -> None:
    segment, first, second = Segment(0, "tp", 4096, 2048), Registry(), Registry()
    first.register(segment, 1)
    second.register(segment, 2).close()
    assert (first.closed, second.closed) == ([], [2])


def test_every_window_over_a_segment_is_closed_whoever_registered_it() -> None:
    segment, first, second = Segment(0, "tp", 4096, 2048), Registry(), Registry()
    for ident, registry in enumerate([first, second, first]):
        registry.register(segment, ident)
    segment.close_windows()
    assert (first.closed, second.closed, segment.windows) == ([0, 2], [1], [])


def test_a_segment_shows_its_place_and_pool() -> None:
    assert repr(Segment(3, "tp", 4096, 2048)) == "<Segment 3: 2048 bytes at 0x1000 of pool 'tp'>"


def test_a_window_shows_whether_it_is_live() -> None:
    window = Registry().register(Segment(3, "tp", 4096, 2048), 7)
    live = repr(window)
    window.close()
    assert (live, repr(window)) == (
        "<Window 7: live, segment 3, <Registry>>",
        "<Window 7: closed, segment 3, <Registry>>",
    )
