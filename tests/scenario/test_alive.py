"""The account of what is alive: buffers, graphs and communicators after each step, and what goes with a step."""

from __future__ import annotations

import pytest

from harness.scenario.alive import Alive, without
from harness.scenario.layouts.groups import GroupId, Groups
from harness.scenario.operands import View
from harness.scenario.steps import (
    AllGather,
    Allocate,
    Ballast,
    Capture,
    EndCapture,
    Prepare,
    Recreate,
    Release,
    Replay,
    Step,
    Trim,
)
from harness.scenario.topology import Topology

QUAD = Topology("quad", "sglang", {"tp": 4, "attn_dp": 2})
ALLOCATE = Allocate("a", "tp", 64)
GATHER = AllGather("tp", View("a"), 4)
CAPTURED = (Prepare("g"), Capture("g"), GATHER, EndCapture("g"))


def after(*steps: Step) -> Alive:
    alive = Alive(QUAD)
    for step in steps:
        alive.take(step)
    return alive


# buffers


def test_buffers_live_in_the_order_of_their_allocation() -> None:
    assert [*after(Allocate("b", "tp", 1), Ballast("a", "tp", 0, 8)).buffers] == ["b", "a"]


def test_a_released_buffer_is_gone_and_its_name_is_known() -> None:
    alive = after(ALLOCATE, Release("a"))
    assert ([*alive.buffers], alive.names) == ([], {"a"})


@pytest.mark.parametrize(
    ("replaced", "is_stale"),
    [("tp", True), ("moe_tp", True), ("attn_tp", False)],
    ids=["its family", "a family of the same groups", "another family"],
)
def test_a_buffer_is_stale_once_communicators_of_its_groups_were_replaced(replaced: str, is_stale: bool) -> None:
    assert after(ALLOCATE, Recreate(replaced)).buffers["a"].is_stale == is_stale


def test_a_buffer_allocated_after_a_replacement_is_not_stale() -> None:
    assert not after(Recreate("tp"), ALLOCATE).buffers["a"].is_stale


# graphs


def test_a_graph_is_prepared_then_captured() -> None:
    steps = ALLOCATE, *CAPTURED
    states = [after(*steps[:count]).graphs["g"].state for count in (2, 3, 5)]
    assert states == ["prepared", "capturing", "captured"]


@pytest.mark.parametrize(("count", "is_open", "is_capturing"), [(1, True, False), (2, True, True), (4, False, False)])
def test_a_graph_is_open_until_its_capture_ends(count: int, is_open: bool, is_capturing: bool) -> None:
    alive = after(ALLOCATE, *CAPTURED[:count])
    assert (alive.open is not None, alive.capturing is not None) == (is_open, is_capturing)


def test_a_graph_uses_what_was_allocated_before_its_capture_and_owns_what_was_allocated_in_it() -> None:
    inside = Allocate("b", "tp", 64), AllGather("tp", View("b"), 4)
    graph = after(ALLOCATE, *CAPTURED[:3], *inside, EndCapture("g")).graphs["g"]
    assert (graph.used, graph.own) == ({"a"}, {"b"})


def test_a_graph_holds_the_groups_of_its_collectives() -> None:
    assert after(ALLOCATE, *CAPTURED).graphs["g"].groups == {GroupId((0, 1, 2, 3))}


def test_a_collective_of_the_warm_up_is_not_in_the_graph() -> None:
    graph = after(ALLOCATE, Prepare("g"), GATHER, Capture("g"), EndCapture("g")).graphs["g"]
    assert (graph.used, graph.groups) == (set(), set())


@pytest.mark.parametrize(
    ("step", "ended"),
    [(Release("a"), True), (Recreate("tp"), True), (Recreate("attn_tp"), False), (Trim(), False)],
    ids=["its buffer", "its communicators", "other communicators", "no memory in use"],
)
def test_a_graph_ends_with_what_it_needs(step: Step, ended: bool) -> None:
    assert after(ALLOCATE, *CAPTURED, step).graphs["g"].ended_by == (step if ended else None)


def test_a_graph_outlives_what_it_owns() -> None:
    own = Allocate("b", "tp", 64), AllGather("tp", View("b"), 4)
    assert after(Prepare("g"), Capture("g"), *own, EndCapture("g"), Release("b")).graphs["g"].ended_by is None


@pytest.mark.parametrize(("made_in", "graph"), [((), None), ((Prepare("g"),), "g")], ids=["outside", "in it"])
def test_a_buffer_belongs_to_the_graph_it_was_allocated_for(made_in: tuple[Step, ...], graph: str | None) -> None:
    assert after(*made_in, ALLOCATE).buffers["a"].graph == graph


# what goes with a step


def test_with_an_allocation_go_the_steps_on_its_buffer() -> None:
    other = Allocate("b", "tp", 64)
    assert without((ALLOCATE, other, GATHER, Release("a"), Release("b")), [0]) == (other, Release("b"))


def test_with_a_capture_go_the_steps_on_its_graph_and_no_others() -> None:
    assert without((ALLOCATE, *CAPTURED, Replay("g"), Trim()), [2]) == (ALLOCATE, GATHER, Trim())


def test_a_release_goes_alone() -> None:
    assert without((ALLOCATE, Release("a"), Trim()), [1]) == (ALLOCATE, Trim())


def test_indices_behind_the_end_leave_nothing_out() -> None:
    assert without((ALLOCATE,), range(1, 5)) == (ALLOCATE,)


# groups that act

PAIRS = Topology("pairs", "explicit", families_given={"tp": ((0, 1), (2, 3)), "cp": ((0, 1), (3, 2))})


def account(*steps: Step) -> Alive:
    alive = Alive(PAIRS)
    for step in steps:
        alive.take(step)
    return alive


def test_the_ranks_of_the_groups_that_act_hold_a_buffer() -> None:
    alive = account(Allocate("a", "tp", 8, groups=((2, 3),)), Allocate("b", "tp", 8), Ballast("c", "tp", 3, 8))
    assert [each.holders for each in alive.buffers.values()] == [{2, 3}, {0, 1, 2, 3}, {3}]


@pytest.mark.parametrize(("groups", "is_stale"), [(((0, 1),), True), (((2, 3),), False)])
def test_a_buffer_is_stale_where_a_group_that_it_is_for_was_replaced(groups: Groups, is_stale: bool) -> None:
    alive = account(Allocate("a", "tp", 8, groups=groups), Recreate("cp"))
    assert alive.buffers["a"].is_stale == is_stale


def test_a_graph_rests_on_the_groups_that_act_in_it() -> None:
    other = ((2, 3),)
    steps = Allocate("a", "tp", 8), Capture("g"), AllGather("tp", View("a"), 4, groups=other), EndCapture("g")
    assert account(*steps).graphs["g"].groups == {GroupId((2, 3))}
    assert account(*steps, Recreate("cp")).graphs["g"].ended_by is None
