"""Waits: of a hang, the smallest explanation comes first, and says no more than the traces do.

Ranks are put where a test needs them, event by event; `test_fate.py` has the like of it on real ranks.
"""

from __future__ import annotations

import pytest

from harness.oracle.case import Case, ranks_text
from harness.oracle.explanation import explain
from harness.oracle.waits import Waits
from harness.scenario.layout import Group
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Allocate
from harness.scenario.topology import Topology
from harness.trace.draw import Draw, Fate
from harness.trace.events import Began, Closing, CommCreated, Entered, Event, Exhausted, Returned
from harness.trace.trace import TEARDOWN, Trace
from tests.tools.scenes import CROSSED, SQUARE, explicit

CHAIN = explicit(tp=((0, 1), (2,)), cp=((0,), (1, 2)))
RING = explicit(tp=((0, 1), (2,)), cp=((1, 2), (0,)), dp=((0, 2), (1,)))
EIGHT = explicit(tp=((0, 1, 2, 3), (4, 5, 6, 7)), cp=((0, 4), (1, 5), (2, 6), (3, 7)))
THROUGH = (Began(TEARDOWN), Closing())
DONE = (Began(0), *THROUGH)


def case(topology: Topology, *ranks: tuple[Event, ...]) -> Case:
    """A hang in which each rank has these facts, its communicators before them. Unnamed ranks are done."""
    world = topology.world
    facts = (*ranks, *[DONE] * (world - len(ranks)))
    traces = tuple(Trace(rank, (*comms(topology, rank), *events)) for rank, events in enumerate(facts))
    steps = tuple(Allocate(f"b{index}", "tp", 8) for index in range(3))
    return Case(Draw(Scenario(topology, steps), traces, tuple(Fate(rank, "hung") for rank in range(world)), 5.0, 5.0))


def groups(topology: Topology, rank: int) -> list[Group]:
    return [topology.group(family, rank) for family in topology.families]


def comms(topology: Topology, rank: int) -> list[CommCreated]:
    """The communicators of a rank, numbered as its families are."""
    return [CommCreated(number, group, 0, True) for number, group in enumerate(groups(topology, rank))]


def inside(family: int, call: str = "register", step: int = 0) -> tuple[Event, ...]:
    """In a call over the group of the family with this number."""
    return Began(step), Entered(call, family)


def words(topology: Topology, *ranks: tuple[Event, ...]) -> str:
    return explain(case(topology, *ranks)).text


TP, CP, DP = range(3)

# the root


def test_ranks_that_entered_two_communicators_in_opposite_order_are_a_cycle() -> None:
    said = words(SQUARE, inside(TP), inside(TP), inside(TP), inside(CP))
    assert said == "rank 3 registers for cp[1,3] while ranks 0–2 wait in register of tp[0,1,2,3]."


def test_a_cycle_of_three_communicators_is_told_whole() -> None:
    said = words(RING, inside(TP), inside(CP), inside(DP))
    assert said == (
        "rank 0 registers for tp[0,1] "
        "while rank 1 waits in register of cp[1,2] and rank 2 waits in register of dp[0,2]."
    )


def test_ranks_that_create_communicators_anew_wait_for_the_whole_world() -> None:
    said = words(CROSSED, inside(TP, "recreate", 1), inside(TP, "recreate", 1), (Began(0),), (Began(0),))
    assert said == "ranks 2, 3 are still at step 0 (allocate) while ranks 0, 1 wait in recreate of tp[0,1]."


def test_of_ranks_that_create_communicators_anew_those_of_the_own_group_are_told_first() -> None:
    said = words(CROSSED, inside(TP, "recreate", 1), (Began(0),), inside(TP, "recreate", 1), (Began(0),))
    assert said.startswith("rank 1 is still at step 0 (allocate) while rank 0 waits in recreate of tp[0,1].")


def test_a_rank_that_closes_its_system_is_told_from_those_that_wait_for_it() -> None:
    closing = (*DONE, Began(TEARDOWN))
    said = words(SQUARE, (*closing, Closing()), closing, (*closing, Closing()), (*closing, Closing()))
    assert said == "rank 1 is still giving everything back while ranks 0, 2, 3 wait at the end."


def test_two_calls_of_one_communicator_are_a_cycle() -> None:
    said = words(SQUARE, inside(TP, "all_gather"), inside(TP), inside(TP), inside(TP))
    assert said == "rank 0 is in all_gather of tp[0,1,2,3] while ranks 1–3 wait in register of tp[0,1,2,3]."


def test_a_rank_that_never_came_is_told_with_the_step_it_is_at() -> None:
    said = words(SQUARE, inside(TP), inside(TP), inside(TP), (Began(0),))
    assert said == "rank 3 is still at step 0 (allocate) while ranks 0–2 wait in register of tp[0,1,2,3]."


def test_a_rank_that_is_through_is_told_as_such() -> None:
    said = words(SQUARE, inside(TP), inside(TP), inside(TP), DONE)
    assert said == "rank 3 has run every step while ranks 0–2 wait in register of tp[0,1,2,3]."


def test_a_chain_is_told_from_its_end() -> None:
    said = words(CHAIN, inside(TP, step=1), inside(CP), DONE)
    assert said == (
        "rank 2 has run every step while rank 1 waits in register of cp[1,2]. "
        "Rank 0 waits for rank 1 in register of tp[0,1]."
    )


def test_a_rank_out_of_memory_is_told_with_what_it_was_refused() -> None:
    refused = (Began(0), Exhausted("b0", 8), *THROUGH)
    said = explain(case(SQUARE, inside(TP), inside(TP), refused, inside(TP)))
    assert said.text == (
        "rank 2 could not allocate 'b0' at step 0 (allocate) and has run every step "
        "while ranks 0, 1, 3 wait in register of tp[0,1,2,3]."
    )
    assert said.refused == (2,)


def test_memory_refused_at_a_later_step_is_no_part_of_the_explanation() -> None:
    later = (Began(1), Exhausted("b1", 8), *THROUGH)
    assert explain(case(SQUARE, inside(TP), inside(TP), inside(TP), later)).refused == ()


def test_a_call_that_all_entered_and_none_left_is_told_alone() -> None:
    said = words(SQUARE, *[inside(TP, "all_gather")] * 4)
    assert said == "ranks 0–3 are still in all_gather of tp[0,1,2,3], which every one of its ranks entered."


def test_a_call_that_one_rank_left_names_that_rank() -> None:
    left = (*inside(TP, "all_gather kernel"), Returned("all_gather kernel", TP), *THROUGH)
    said = words(SQUARE, *[inside(TP, "all_gather kernel")] * 3, left)
    assert said == "ranks 0–2 are still in all_gather kernel of tp[0,1,2,3], which rank 3 has left."


def test_a_stuck_call_is_the_root_for_those_who_wait_for_its_ranks() -> None:
    said = words(CHAIN, inside(TP), inside(CP, "all_gather"), inside(CP, "all_gather"))
    assert said == (
        "ranks 1, 2 are still in all_gather of cp[1,2], which every one of its ranks entered "
        "while rank 0 waits in register of tp[0,1]."
    )


def test_a_rank_that_gives_back_its_memory_holds_up_those_at_the_end() -> None:
    said = words(CHAIN, DONE, (Began(TEARDOWN),), DONE)
    assert said == "rank 1 is still giving everything back while ranks 0, 2 wait at the end."


# what is not said


def test_ranks_that_wait_for_nobody_are_not_explained() -> None:
    assert words(CHAIN, (Began(0),), (Began(1),), (Began(2),)) == ""


def test_a_rank_that_came_out_of_an_exchange_is_not_said_to_be_in_it() -> None:
    out = (*inside(TP, "exchange"), Returned("exchange", TP))
    assert words(CHAIN, inside(TP), out, DONE) == (
        "rank 1 is still at step 0 (allocate) while rank 0 waits in register of tp[0,1]."
    )


def test_of_the_ranks_that_are_done_only_those_waited_for_are_named() -> None:
    assert words(EIGHT, inside(CP)) == "rank 4 has run every step while rank 0 waits in register of cp[0,4]."


# which root comes first


def test_refused_memory_comes_before_fewer_ranks() -> None:
    refused = (Began(0), Exhausted("b0", 8), *THROUGH)
    said = words(EIGHT, inside(CP), *[DONE] * 4, inside(TP), inside(TP), refused)
    assert said.startswith("rank 7 could not allocate 'b0'")


def test_fewer_ranks_come_before_earlier_steps() -> None:
    said = words(EIGHT, inside(CP, step=2), *[DONE] * 4, inside(TP), inside(TP), inside(TP))
    assert said == (
        "rank 4 has run every step while rank 0 waits in register of cp[0,4]. "
        "Ranks 5–7 wait for rank 4 in register of tp[4,5,6,7]."
    )


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


@pytest.mark.parametrize(
    ("ranks", "text"),
    [
        ((3,), "rank 3"),
        ((0, 1), "ranks 0, 1"),
        ((0, 1, 2), "ranks 0–2"),
        ((0, 2, 3, 4, 7), "ranks 0, 2–4, 7"),
        ((0, 1, 3, 4), "ranks 0, 1, 3, 4"),
    ],
)
def test_three_ranks_in_a_row_are_written_as_a_run(ranks: tuple[int, ...], text: str) -> None:
    assert ranks_text(ranks) == text
