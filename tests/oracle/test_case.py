"""A case: the phrases that explanations share, and what each call is about."""

from __future__ import annotations

import msgspec
import pytest

from harness.oracle.case import Case, group_name, ranks_text
from harness.scenario.layouts.groups import GroupId
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Step
from harness.scenario.topology import Topology
from harness.trace.draw import Draw
from harness.trace.events import (
    Began,
    CommCreated,
    Dropped,
    Event,
    Exhausted,
    Operand,
    Placed,
    Ran,
    Registered,
    SegmentAllocated,
)
from harness.trace.trace import TEARDOWN, Trace
from tests.tools.calls import gathered, scattered
from tests.tools.scenes import PAIR, explicit

STEPS = (Allocate("a", "tp", 8), Allocate("p", "tp", 8, role="plain"), AllGather("tp", View("a"), 4, View("p")))
COMM = CommCreated(0, (0, 1), 0, True)
WINDOWED = (COMM, Began(0), SegmentAllocated(1, "p", 0, 4096), Registered(2, 0, 1, 0, 4096, False))
CALLED = (Began(2), gathered(0, Operand("p", 9000, 16), Operand("a", 64, 32)))
BUFFER = Placed("a", 1, 64, 96, GroupId((0, 1)))


def case(*ranks: tuple[Event, ...], steps: tuple[Step, ...] = STEPS, topology: Topology = PAIR) -> Case:
    traces = tuple(Trace(rank, events) for rank, events in enumerate(ranks))
    return Case(Draw(Scenario(topology, steps), traces, (), 1.0, 1.0))


# names


def test_a_group_goes_by_the_first_family_that_has_it() -> None:
    whole = GroupId((0, 1))
    families = {"dp": (GroupId((0,)), GroupId((1,))), "tp": (whole,), "ep": (whole,), "cp": (GroupId((0, 1), 1),)}
    groups = GroupId((1,)), whole, GroupId((0, 1), 1), GroupId((1, 0))
    assert [group_name(families, group) for group in groups] == ["dp[1]", "tp[0,1]", "cp[0,1]", "group[1,0]"]


def test_a_family_that_the_program_names_comes_before_the_layouts_first() -> None:
    topology = explicit(ep=((0, 1),), tp=((0, 1),))
    assert case(topology=topology).name(GroupId((0, 1))) == "tp[0,1]"


def test_a_step_goes_by_its_number_and_kind() -> None:
    assert [case().at_step(step) for step in (-1, 0, 2, TEARDOWN)] == [
        "the start",
        "step 0 (allocate)",
        "step 2 (all_gather)",
        "the end",
    ]


def test_a_call_names_the_family_of_its_step_and_the_other_name_of_its_group() -> None:
    topology = explicit(ep=((0, 1),), tp=((0, 1),))
    steps = (Allocate("a", "ep", 8), AllGather("tp", View("a"), 4))
    called = Began(1), gathered(0, Operand("a", 64, 16), Operand("a", 64, 32))
    (use, _), *_ = case((COMM, *called), (COMM, *called), steps=steps, topology=topology).calls.values()
    assert (
        case(steps=steps, topology=topology).call(use) == "step 1 (all_gather) on tp[0,1] (the same group as ep[0,1])"
    )


# calls


def test_a_call_has_its_ranks_in_the_order_of_their_group() -> None:
    turned = CommCreated(0, (1, 0), 0, True)
    steps = (Allocate("a", "cp", 8), AllGather("cp", View("a"), 4))
    called = Began(1), gathered(0, Operand("a", 64, 16), Operand("a", 64, 32))
    ranks = [(turned, *called)] * 2
    calls = case(*ranks, steps=steps, topology=explicit(cp=((1, 0),))).calls
    assert {key: [use.rank for use in uses] for key, uses in calls.items()} == {(1, (1, 0)): [1, 0]}


def test_ranks_reach_each_other_through_a_gathers_output_and_a_scatters_source() -> None:
    called = (
        gathered(0, Operand("p", 9000, 16), Operand("a", 64, 32)),
        scattered(0, Operand("a", 64, 32), Operand("p", 0, 16)),
    )
    for event, role in ((called[0], "output"), (called[1], "source")):
        found = case((COMM, Began(2), event))
        (use,) = found.histories[0].uses
        assert (found.peer_roles([use]), use.sight(role).operand.buffer) == ((role,), "a")


def test_an_operand_that_is_source_and_output_is_looked_at_once() -> None:
    for source, roles in ((Operand("a", 64, 32), ("source",)), (Operand("b", 96, 32), ("source", "output"))):
        reduced = msgspec.structs.replace(gathered(0, source, Operand("a", 64, 32)), kind="all_reduce", op="sum")
        found = case((COMM, Began(2), reduced))
        assert found.peer_roles(found.histories[0].uses) == roles


def test_an_operand_is_meant_for_a_window_if_it_is_on_any_rank() -> None:
    operands = Operand("a", 64, 16), Operand("a", 64, 32)
    ranks = [(COMM, Began(2), gathered(0, *operands, meant=meant)) for meant in [(), ("output",), ()]]
    for seen, is_meant in ((ranks, True), (ranks[::2], False)):
        found = case(*seen)
        uses = [use for history in found.histories for use in history.uses]
        assert [found.is_meant_for_window(uses, role) for role in ("source", "output")] == [False, is_meant]


@pytest.mark.parametrize(
    ("ran", "text"),
    [
        ((), "the call did not return"),
        ((Ran("legacy", ""),), "which path the call took is not known"),
        ((Ran("legacy", "the log"),), "the call took the legacy path (the log)"),
    ],
)
def test_a_path_is_given_with_its_evidence(ran: tuple[Event, ...], text: str) -> None:
    found = case((COMM, *CALLED, *ran))
    assert found.path(found.histories[0].uses[0]) == text


# memory


def test_a_rank_that_was_refused_memory_is_shown_with_the_buffer() -> None:
    found = case((Began(0), Exhausted("a", 8), Began(1), Exhausted("p", 8)), (Began(0),))
    assert found.refusals((0, 1)) == (
        " Rank 0 could not allocate 'a' at step 0 (allocate). Rank 0 could not allocate 'p' at step 1 (allocate)."
    )
    assert [found.refused(0, until) for until in (0, 1)] == [
        "could not allocate 'a' at step 0 (allocate)",
        "could not allocate 'p' at step 1 (allocate)",
    ]
    assert (found.refusals((1,)), found.refused(1, TEARDOWN)) == ("", "")


def test_who_held_the_memory_before_is_shown_if_it_was_the_same_memory() -> None:
    before = Placed("old", 1, 64, 8), Placed("beside", 1, 56, 8)
    gone = Dropped("old"), Dropped("beside")
    events = (*WINDOWED, *before, Began(1), *gone, BUFFER, *CALLED)
    found = case(events)
    (use,) = found.histories[0].uses
    shown = found.earlier_holders(use, use.output)
    assert shown == " 'old' held this memory from step 0 (allocate) to step 1 (allocate)."


def test_a_site_that_asked_for_another_group_is_shown() -> None:
    for named, text in (((0, 1), ""), ((), ""), ((0,), " Its site asked the pool for dp[0] at step 0 (allocate).")):
        placed = Placed("a", 1, 64, 96, GroupId(named))
        found = case((*WINDOWED, placed, *CALLED), topology=explicit(tp=((0, 1),), dp=((0,), (1,))))
        (use,) = found.histories[0].uses
        assert found.asked_for(use, use.output) == text


# ranks


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
