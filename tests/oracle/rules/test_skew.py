"""Skew in recordings: ranks that register in another order, or not as often, once that is sure. `test_registration` has
the skews of draws."""

from __future__ import annotations

import pytest

from harness.trace.draw import State
from tests.tools.recordings import (
    CALL,
    CP,
    MIB,
    ORDINARY,
    OWNED,
    TP,
    Step,
    allocated,
    called,
    comm,
    found,
    keys,
    registered,
    within,
)

TWO = Step("main", (comm(TP), comm(CP), allocated(3), allocated(4)))


def in_order(*segments: int, sizes: tuple[int, ...] = (4 * MIB, 4 * MIB)) -> tuple[Step, ...]:
    """Two segments, registered in this order."""
    start = Step("main", (comm(TP), comm(CP), allocated(3, sizes[0]), allocated(4, sizes[1])))
    made = [registered(TP, segment, sizes[segment - 3]) for segment in segments]
    return start, *(Step(f"register {at} (pool.py:12 __exit__)", events) for at, events in enumerate(made))


@pytest.mark.parametrize("sizes", [(4 * MIB, 4 * MIB), (4 * MIB, 8 * MIB)], ids=["of one size", "of two sizes"])
def test_segments_registered_in_another_order_are_registration_skew(sizes: tuple[int, int]) -> None:
    (finding,) = found(in_order(3, 4, sizes=sizes), in_order(4, 3, sizes=sizes))
    assert (finding.key, finding.step, finding.ranks) == ("registration-skew", 1, (0, 1))
    assert str(finding).startswith(
        "registration-skew: the ranks of tp[0,1] registered the same segments in different orders; the first is "
        f"segment 3 of {sizes[0]} bytes at register 0 (pool.py:12 __exit__) on rank 0 and segment 4 of {sizes[1]} bytes"
    )


def test_segments_that_were_allocated_and_registered_in_another_order_are_skew_by_their_sizes() -> None:
    swapped = Step("main", (comm(TP), comm(CP), allocated(3, 8 * MIB), allocated(4)))
    other = swapped, *in_order(3, 4, sizes=(8 * MIB, 4 * MIB))[1:]
    assert keys(found(in_order(3, 4, sizes=(4 * MIB, 8 * MIB)), other)) == ["registration-skew"]


def test_segments_in_one_order_of_registration_are_silent_whatever_their_numbers() -> None:
    assert found(in_order(3, 4), in_order(3, 4)) == []
    lone = Step("main", (comm(TP), comm(CP), allocated(9), allocated(3), allocated(4)))
    assert found(in_order(3, 4), (lone, *in_order(3, 4)[1:])) == []


def test_another_order_is_right_where_a_call_finds_its_buffers_at_one_place() -> None:
    """Rank 1 allocated the same buffers in another order."""
    first = Step(CALL, called(TP, within(3))), Step(CALL, called(TP, within(4)))
    assert found((*in_order(3, 4), first[0]), (*in_order(4, 3), first[1])) == []


def test_another_order_shows_at_the_call_too() -> None:
    first = Step(CALL, called(TP, within(3)))
    assert keys(found((*in_order(3, 4), first), (*in_order(4, 3), first))) == ["registration-skew", "segment-mismatch"]


def test_a_registration_that_one_rank_left_out_is_skew_once_that_rank_has_gone_on() -> None:
    more = Step("register 2 (pool.py:12 __exit__)", registered(TP, 4))
    later = Step("all_gather 2 (m.py:1 f)", called(TP, within(3), ran=None))
    start = (TWO, *OWNED[1:])
    states: tuple[State, ...] = ("stopped", "stopped")
    assert keys(found((*start, more), (*start, later), states=states)) == ["registration-skew"]
    assert keys(found((*start, more), start)) == ["registration-skew"]  # its process has ended
    assert found((*start, more), start, states=states) == []  # it may be on its way


def test_a_later_step_on_another_communicator_is_no_sign_of_having_gone_on() -> None:
    """Steps of different communicators are in no order between ranks."""
    more = Step("register 2 (pool.py:12 __exit__)", registered(TP, 4))
    other = Step("all_gather 2 (m.py:1 f)", called(CP, ORDINARY, ran=None))
    assert found((TWO, more), (TWO, other), states=("stopped", "stopped")) == []
