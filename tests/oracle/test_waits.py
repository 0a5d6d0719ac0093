"""Waits: who waits for whom where ranks hang, and where such chains end.

Ranks are put where a test needs them, event by event; `rules/test_fate.py` has the like of it on real ranks.
"""

from __future__ import annotations

from harness.oracle.waits import AtEnd, AtStep, InCall, Situation, Waits
from harness.scenario.layouts.groups import GroupId
from harness.scenario.steps import Recreate, Trim
from harness.scenario.topology import Topology
from harness.trace.events import Began, CommCreated, Entered, Event, Returned
from harness.trace.trace import TEARDOWN
from tests.tools.hung import CHAIN, CP, DONE, DP, RING, THROUGH, TP, case, inside
from tests.tools.scenes import CROSSED, SQUARE, explicit


def roots(topology: Topology, *ranks: tuple[Event, ...]) -> list[tuple[Situation, ...]]:
    return [*Waits(case(topology, *ranks)).roots()]


def in_call(call: str, *group: int) -> InCall:
    return InCall(call, GroupId(group), 0, 1)


# situations


def test_ranks_in_one_call_are_in_one_situation() -> None:
    waits = Waits(case(SQUARE, inside(TP), inside(CP), inside(TP), (Began(2),)))
    assert waits.situations == [in_call("register", 0, 1, 2, 3), in_call("register", 1, 3), AtStep(2)]
    assert [waits.ranks(situation) for situation in waits.situations] == [(0, 2), (1,), (3,)]


def test_the_same_call_of_a_re_created_communicator_is_another_situation() -> None:
    again = (Began(0), CommCreated(9, (0, 1), 1, True), Entered("register", 9))
    waits = Waits(case(CHAIN, inside(TP), again))
    assert waits.situations[:2] == [in_call("register", 0, 1), InCall("register", GroupId((0, 1)), 1, 1)]


def test_ranks_that_met_at_the_end_more_often_are_in_another_situation() -> None:
    closed = (*DONE, Began(TEARDOWN), *THROUGH[1:])
    assert Waits(case(CHAIN, DONE, closed, DONE)).situations == [AtEnd(1), AtEnd(2)]


# who is awaited


def test_ranks_in_a_call_wait_for_the_members_that_have_not_entered_it() -> None:
    waits = Waits(case(SQUARE, inside(TP), inside(CP), inside(TP), (Began(0),)))
    assert waits.awaited(in_call("register", 0, 1, 2, 3)) == (1, 3)


def test_a_rank_at_a_step_waits_for_none() -> None:
    assert Waits(case(SQUARE, (Began(0),), inside(TP))).awaited(AtStep(0)) == ()


def test_ranks_at_the_end_wait_for_those_on_their_way() -> None:
    assert Waits(case(CHAIN, DONE, (Began(1),), DONE)).awaited(AtEnd(1)) == (1,)


def test_ranks_at_the_end_wait_for_none_while_others_are_in_calls() -> None:
    """They are what the calls wait for."""
    assert Waits(case(CHAIN, DONE, inside(TP), (Began(1),))).awaited(AtEnd(1)) == ()


def test_a_world_wide_call_waits_for_ranks_of_other_groups_once_its_own_have_come() -> None:
    recreate = inside(TP, "recreate")
    waits = Waits(case(CROSSED, recreate, recreate, (Began(0),), (Began(0),)))
    assert waits.awaited(in_call("recreate", 0, 1)) == (2, 3)


def test_a_rank_that_a_family_leaves_out_has_come_to_its_world_wide_call_once_it_is_past() -> None:
    apart = explicit(tp=((0, 1),), cp=((2, 3),))
    recreate, past = inside(TP, "recreate"), (Began(0), Began(1))
    waits = Waits(case(apart, recreate, recreate, (), past, steps=(Recreate("tp"), Trim())))
    assert waits.awaited(in_call("recreate", 0, 1)) == (2,)


def test_members_that_came_out_of_a_call_have_left_it() -> None:
    out = (*inside(TP), Returned("register", TP))
    waits = Waits(case(SQUARE, inside(TP), out, inside(TP), out))
    assert waits.left(in_call("register", 0, 1, 2, 3)) == (1, 3)


# roots


def test_the_end_of_a_chain_is_a_root_with_those_that_wait_for_it() -> None:
    assert roots(CHAIN, inside(TP), inside(CP), (Began(1),)) == [(AtStep(1), in_call("register", 1, 2))]


def test_a_cycle_is_one_root_however_many_of_it_are_asked() -> None:
    tp, cp, dp = in_call("register", 0, 1), in_call("register", 1, 2), in_call("register", 0, 2)
    found = roots(RING, inside(TP), inside(CP), inside(DP))
    assert {frozenset(root) for root in found} == {frozenset((tp, cp, dp))}


def test_a_call_that_every_member_entered_is_a_root_alone() -> None:
    assert roots(SQUARE, *[inside(TP)] * 4) == [(in_call("register", 0, 1, 2, 3),)]


def test_ranks_that_wait_for_no_other_have_no_root() -> None:
    assert roots(CHAIN, (Began(0),), (Began(1),), (Began(2),)) == []


# entries are counted


def test_a_rank_that_made_the_call_once_less_is_waited_for() -> None:
    twice = (*inside(TP), Returned("register", TP), *inside(TP, step=1))
    once = (*inside(TP), Returned("register", TP), Began(1))
    waits = Waits(case(CHAIN, twice, once))
    assert waits.awaited(waits.situations[0]) == (1,)


def test_calls_of_the_communicator_before_a_replacement_do_not_count() -> None:
    again = (*inside(TP), CommCreated(9, (0, 1), 1, True), Entered("register", 9))
    before = (*inside(TP), Returned("register", TP))
    waits = Waits(case(CHAIN, again, before))
    assert waits.awaited(waits.situations[0]) == (1,)
