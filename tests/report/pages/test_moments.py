"""The memory map shows segments, buffers and windows at the moment of a call, the wanted one, and where peers land."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from harness.oracle.case import Case
from harness.report.pages import moments
from harness.report.pages.account import Registration, Segment, Span
from harness.report.pages.moments import memory_map
from harness.scenario.operands import View
from harness.scenario.steps import AllGather, Allocate, Release
from harness.world.world import World
from tests.report.pages.conftest import Accounts, seed


def segments(accounts: Accounts, rule: str) -> dict[int, Segment]:
    memory = accounts[rule].memory
    assert memory is not None
    return {rank.rank: rank.segments[0] for rank in memory.ranks}


def test_the_window_that_was_wanted_lies_over_the_operand(accounts: Accounts) -> None:
    segment = segments(accounts, "wrong-owner")[0]
    (operand,) = (span for span in segment.spans if span.text == "output 'b1'")
    owner, wanted = segment.registrations
    assert owner == Registration("other", "tp[0,1,2,3]", 0, 2 << 20, "window 0 of tp[0,1,2,3], step 0 (allocate)")
    assert (wanted.claim, wanted.owner) == ("wanted", "moe_ep[0,2]")
    assert (wanted.start, wanted.end) == (operand.start, operand.end)


def test_only_ranks_of_the_call_are_shown(accounts: Accounts) -> None:
    assert set(segments(accounts, "wrong-owner")) == {0, 2}


def test_where_a_peer_lands_is_at_the_peers_own_offset(accounts: Accounts) -> None:
    found = segments(accounts, "offset-mismatch")
    lands = {rank: [span for span in each.spans if span.kind == "reached"] for rank, each in found.items()}
    assert lands == {
        0: [Span("reached", 1024, 1056, "rank 1 takes 'b' to be here: free memory")],
        1: [Span("reached", 512, 544, "rank 0 takes 'b' to be here: part of 'b'")],
    }


def test_a_sound_call_wants_nothing_and_lands_where_it_means(simulation: World) -> None:
    sound = seed(Allocate("b", "tp", 8), AllGather("tp", View("b"), 4), pool="deferred")
    memory = memory_map(Case(simulation.run(sound.scenario)), 1, (0, 1))
    assert memory is not None
    for rank in memory.ranks:
        (segment,) = rank.segments
        assert [each.claim for each in segment.registrations] == ["owner"]
        assert {span.kind for span in segment.spans} == {"buffer", "operand"}


def test_what_came_after_the_call_is_not_there(simulation: World) -> None:
    later = Allocate("later", "tp", 8), Release("b")
    sound = seed(Allocate("b", "tp", 8), AllGather("tp", View("b"), 4), *later)
    memory = memory_map(Case(simulation.run(sound.scenario)), 1, (0,))
    assert memory is not None
    names = {span.text for rank in memory.ranks for each in rank.segments for span in each.spans}
    assert names == {"b", "output 'b'", "source 'b'"}


def test_a_buffer_that_was_there_before_is_shown(simulation: World) -> None:
    steps = Allocate("a", "tp", 8), Release("a"), Allocate("b", "tp", 8), AllGather("tp", View("b"), 4)
    memory = memory_map(Case(simulation.run(seed(*steps).scenario)), 3, (0,))
    assert memory is not None
    spans = memory.ranks[0].segments[0].spans
    assert [span.text for span in spans if span.kind == "earlier"] == ["'a' until step 1 (release)"]


def test_races_of_a_draw_are_looked_for_once(simulation: World, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(simulation.run(seed(Allocate("b", "tp", 8), AllGather("tp", View("b"), 4)).scenario))
    unordered = Mock(side_effect=moments.unordered)
    monkeypatch.setattr(moments, "unordered", unordered)
    assert memory_map(case, 1, (0, 1)) is not None
    unordered.assert_called_once()
