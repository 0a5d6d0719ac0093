"""Explanation: of a hang, the smallest part comes first, and the text says no more than the traces do.

Ranks are put where a test needs them, event by event; `rules/test_fate.py` has the like of it on real ranks.
"""

from __future__ import annotations

from harness.oracle.explanation import explain
from harness.scenario.topology import Topology
from harness.trace.events import Began, Closing, Event, Exhausted, Returned
from harness.trace.trace import TEARDOWN
from tests.tools.hung import CHAIN, CP, DONE, DP, EIGHT, RING, THROUGH, TP, case, inside
from tests.tools.scenes import CROSSED, SQUARE


def text(topology: Topology, *ranks: tuple[Event, ...]) -> str:
    return explain(case(topology, *ranks)).text


# the root


def test_ranks_that_entered_two_communicators_in_opposite_order_are_a_cycle() -> None:
    shown = text(SQUARE, inside(TP), inside(TP), inside(TP), inside(CP))
    assert shown == "rank 3 registers for cp[1,3] while ranks 0–2 wait in register of tp[0,1,2,3]."


def test_a_cycle_of_three_communicators_is_shown_whole() -> None:
    shown = text(RING, inside(TP), inside(CP), inside(DP))
    assert shown == (
        "rank 0 registers for tp[0,1] "
        "while rank 1 waits in register of cp[1,2] and rank 2 waits in register of dp[0,2]."
    )


def test_ranks_that_re_create_communicators_wait_for_the_whole_world() -> None:
    shown = text(CROSSED, inside(TP, "recreate", 1), inside(TP, "recreate", 1), (Began(0),), (Began(0),))
    assert shown == "ranks 2, 3 are still at step 0 (allocate) while ranks 0, 1 wait in recreate of tp[0,1]."


def test_of_ranks_that_re_create_communicators_those_of_the_own_group_come_first() -> None:
    shown = text(CROSSED, inside(TP, "recreate", 1), (Began(0),), inside(TP, "recreate", 1), (Began(0),))
    assert shown.startswith("rank 1 is still at step 0 (allocate) while rank 0 waits in recreate of tp[0,1].")


def test_a_rank_that_closes_its_system_is_shown_apart_from_those_that_wait() -> None:
    closing = (*DONE, Began(TEARDOWN))
    shown = text(SQUARE, (*closing, Closing()), closing, (*closing, Closing()), (*closing, Closing()))
    assert shown == "rank 1 is still giving everything back while ranks 0, 2, 3 wait at the end."


def test_two_calls_of_one_communicator_are_a_cycle() -> None:
    shown = text(SQUARE, inside(TP, "all_gather"), inside(TP), inside(TP), inside(TP))
    assert shown == "rank 0 is in all_gather of tp[0,1,2,3] while ranks 1–3 wait in register of tp[0,1,2,3]."


def test_a_rank_that_never_came_is_shown_with_the_step_it_is_at() -> None:
    shown = text(SQUARE, inside(TP), inside(TP), inside(TP), (Began(0),))
    assert shown == "rank 3 is still at step 0 (allocate) while ranks 0–2 wait in register of tp[0,1,2,3]."


def test_a_rank_that_is_through_has_run_every_step() -> None:
    shown = text(SQUARE, inside(TP), inside(TP), inside(TP), DONE)
    assert shown == "rank 3 has run every step while ranks 0–2 wait in register of tp[0,1,2,3]."


def test_a_chain_is_shown_from_its_end() -> None:
    shown = text(CHAIN, inside(TP, step=1), inside(CP), DONE)
    assert shown == (
        "rank 2 has run every step while rank 1 waits in register of cp[1,2]. "
        "Rank 0 waits for rank 1 in register of tp[0,1]."
    )


def test_a_rank_out_of_memory_is_shown_with_the_buffer_it_was_refused() -> None:
    refused = (Began(0), Exhausted("b0", 8), *THROUGH)
    shown = explain(case(SQUARE, inside(TP), inside(TP), refused, inside(TP)))
    assert shown.text == (
        "rank 2 could not allocate 'b0' at step 0 (allocate) and has run every step "
        "while ranks 0, 1, 3 wait in register of tp[0,1,2,3]."
    )
    assert shown.refused == (2,)


def test_memory_refused_at_a_later_step_is_no_part_of_the_explanation() -> None:
    later = (Began(1), Exhausted("b1", 8), *THROUGH)
    assert explain(case(SQUARE, inside(TP), inside(TP), inside(TP), later)).refused == ()


def test_a_call_that_all_entered_and_none_left_is_shown_alone() -> None:
    shown = text(SQUARE, *[inside(TP, "all_gather")] * 4)
    assert shown == "ranks 0–3 are still in all_gather of tp[0,1,2,3], which every one of its ranks entered."


def test_a_call_that_one_rank_left_names_that_rank() -> None:
    left = (*inside(TP, "all_gather kernel"), Returned("all_gather kernel", TP), *THROUGH)
    shown = text(SQUARE, *[inside(TP, "all_gather kernel")] * 3, left)
    assert shown == "ranks 0–2 are still in all_gather kernel of tp[0,1,2,3], which rank 3 has left."


def test_a_stuck_call_is_the_root_for_those_who_wait_for_its_ranks() -> None:
    shown = text(CHAIN, inside(TP), inside(CP, "all_gather"), inside(CP, "all_gather"))
    assert shown == (
        "ranks 1, 2 are still in all_gather of cp[1,2], which every one of its ranks entered "
        "while rank 0 waits in register of tp[0,1]."
    )


def test_a_rank_that_gives_back_its_memory_holds_up_those_at_the_end() -> None:
    shown = text(CHAIN, DONE, (Began(TEARDOWN),), DONE)
    assert shown == "rank 1 is still giving everything back while ranks 0, 2 wait at the end."


# what the text leaves out


def test_ranks_that_wait_for_no_other_are_not_explained() -> None:
    assert text(CHAIN, (Began(0),), (Began(1),), (Began(2),)) == ""


def test_a_rank_that_came_out_of_an_exchange_is_not_shown_in_it() -> None:
    out = (*inside(TP, "exchange"), Returned("exchange", TP))
    assert text(CHAIN, inside(TP), out, DONE) == (
        "rank 1 is still at step 0 (allocate) while rank 0 waits in register of tp[0,1]."
    )


def test_of_the_ranks_that_are_done_only_those_waited_for_are_named() -> None:
    assert text(EIGHT, inside(CP)) == "rank 4 has run every step while rank 0 waits in register of cp[0,4]."


# which root comes first


def test_refused_memory_comes_before_fewer_ranks() -> None:
    refused = (Began(0), Exhausted("b0", 8), *THROUGH)
    shown = text(EIGHT, inside(CP), *[DONE] * 4, inside(TP), inside(TP), refused)
    assert shown.startswith("rank 7 could not allocate 'b0'")


def test_fewer_ranks_come_before_earlier_steps() -> None:
    shown = text(EIGHT, inside(CP, step=2), *[DONE] * 4, inside(TP), inside(TP), inside(TP))
    assert shown == (
        "rank 4 has run every step while rank 0 waits in register of cp[0,4]. "
        "Ranks 5–7 wait for rank 4 in register of tp[4,5,6,7]."
    )
