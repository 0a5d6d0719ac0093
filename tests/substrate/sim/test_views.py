"""Views: a window's memory on a peer has an address of its own, and what is touched beside or after it is found."""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import memset, string_at

import pytest

from harness.ipc.memory import SharedMemory
from harness.substrate.sim.views import STEP, Views
from harness.trace.events import Unmapped

SIZE = 2 << 20
PEER = 1


@pytest.fixture(scope="module")
def shared() -> Iterator[SharedMemory]:
    memory = SharedMemory.create(2)
    yield memory
    memory.close()


@pytest.fixture
def views(shared: SharedMemory) -> Views:
    shared.reset()
    return Views(shared)


def opened(views: Views, shared: SharedMemory, window: int = 0, ahead: int = 0) -> int:
    return views.open(window, PEER, shared.arena(PEER)[0] + ahead, SIZE)


def at_peer(shared: SharedMemory, offset: int = 0) -> int:
    """Where the peer's memory is mapped for the library."""
    return shared.base + shared.arena(PEER)[0] + offset


@pytest.mark.parametrize("ahead", [0, 512, 4096 + 512])
def test_a_view_is_the_peers_memory(views: Views, shared: SharedMemory, ahead: int) -> None:
    view = opened(views, shared, ahead=ahead)
    memset(view + 8, 7, 4)
    assert string_at(at_peer(shared, ahead + 8), 5) == b"\7\7\7\7\0"
    memset(at_peer(shared, ahead), 9, 1)
    assert string_at(view, 1) == b"\11"
    assert [*views.touched()] == []


def test_two_windows_have_addresses_of_their_own_over_the_same_memory(views: Views, shared: SharedMemory) -> None:
    one, other = opened(views, shared, 0), opened(views, shared, 1)
    views.close(0)
    memset(one, 7, 4)
    memset(other + 4, 8, 4)
    assert string_at(at_peer(shared), 8) == b"\0" * 4 + b"\10" * 4


def test_a_write_after_the_window_is_found_and_does_not_reach_the_peer(views: Views, shared: SharedMemory) -> None:
    opened(views, shared, 4)
    view = opened(views, shared, 5)
    views.close(5)
    memset(view + 5000, 7, 4)
    assert string_at(at_peer(shared, 5000), 4) == b"\0" * 4
    assert [*views.touched()] == [Unmapped(5, PEER, 5000, "0707070700000000")]


def test_a_read_after_the_window_is_found_by_its_page_and_gives_zeros(views: Views, shared: SharedMemory) -> None:
    view = opened(views, shared, 5)
    memset(view + 5000, 7, 4)
    views.close(5)
    assert string_at(view + 5000, 4) == b"\0" * 4
    assert [*views.touched()] == [Unmapped(5, PEER, 4096, "")]


def test_what_was_found_is_not_found_again_and_later_touches_are(views: Views, shared: SharedMemory) -> None:
    view = opened(views, shared)
    views.close(0)
    for _ in range(2):
        memset(view, 1, 1)
        assert len([*views.touched()]) == 1
    assert [*views.touched()] == []


def test_a_view_is_found_once_however_much_of_it_was_touched(views: Views, shared: SharedMemory) -> None:
    view = opened(views, shared)
    views.close(0)
    for page in (0, 5, 9):
        memset(view + page * 4096, 1, 1)
    assert [*views.touched()] == [Unmapped(0, PEER, 0, "01" + "00" * 7)]


def test_a_touch_behind_the_end_of_a_live_view_is_found(views: Views, shared: SharedMemory) -> None:
    view = opened(views, shared, 3)
    opened(views, shared, 4)
    memset(view + SIZE - 4, 1, 8)
    assert [*views.touched()] == [Unmapped(3, PEER, SIZE, "0101010100000000")]


def test_an_address_of_an_earlier_draw_belongs_to_no_window_and_is_not_given_out(
    views: Views, shared: SharedMemory
) -> None:
    view = opened(views, shared)
    views.forget()
    again = opened(views, shared)
    assert again > view + SIZE
    memset(view, 7, 4)
    assert string_at(at_peer(shared), 4) == b"\0" * 4
    assert [*views.touched()] == [Unmapped(-1, -1, 0, "07" * 4 + "00" * 4)]


def test_what_a_draw_touched_is_not_found_in_the_next(views: Views, shared: SharedMemory) -> None:
    view = opened(views, shared)
    views.close(0)
    memset(view, 7, 4)
    views.forget()
    assert [*views.touched()] == []


def test_addresses_come_again_once_much_of_the_space_is_used(
    views: Views, shared: SharedMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.substrate.sim.views.SPACE", 4 * STEP)
    first = opened(views, shared)
    views.forget()
    opened(views, shared)
    views.forget()
    assert opened(views, shared) == first


def test_a_draw_that_needs_more_than_the_space_raises(
    views: Views, shared: SharedMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.substrate.sim.views.SPACE", 3 * STEP)
    opened(views, shared)
    with pytest.raises(MemoryError, match="no addresses left"):
        opened(views, shared)
