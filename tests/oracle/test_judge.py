"""Judging a draw: every rule is asked, the first finding is the cause, and a draw that tested nothing says so."""

from __future__ import annotations

import msgspec

from harness.oracle.case import Case
from harness.oracle.judge import every, examine, is_vacuous
from harness.scenario.operands import View
from harness.scenario.steps import AllGather, Allocate, Ballast, Release, Trim
from harness.trace.events import Ran
from harness.world.world import World
from tests.tools.scenes import explicit, findings, rules, scenario

GATHER = (Allocate("a", "tp", 256), AllGather("tp", View("a"), 100))
SHIFTED = (
    Allocate("a", "tp", 256),
    Ballast("shift", "tp", rank=1, size=1000),
    Allocate("b", "tp", 256),
    AllGather("tp", View("b"), 100),
)
OUTLIVED = (
    Allocate("a", "tp", 256),
    Release("a"),
    Trim(),
    Allocate("b", "tp", 256),
    AllGather("tp", View("b"), 100),
)


def test_an_offset_that_differs_comes_before_the_data_that_it_made_wrong(ranks: World) -> None:
    found = findings(ranks, scenario(*SHIFTED))
    assert found[0].rule == "offset-mismatch"
    assert "wrong-data" in rules(found)


def test_a_segment_freed_too_early_comes_before_the_stale_window_and_the_leak(ranks: World) -> None:
    found = findings(ranks, scenario(*OUTLIVED, pool="ForgetsToDeregister"))
    assert rules(found) == ["freed-while-registered", "stale-window", "leak"]


def test_every_rank_that_breaks_a_rule_is_found_and_one_finding_is_kept(ranks: World) -> None:
    draw = ranks.run(scenario(*GATHER, pool="NeverRegisters"))
    assert [finding.rule for finding in every(Case(draw))] == ["unregistered", "unregistered"]
    assert [finding.rule for finding in examine(draw).findings] == ["unregistered"]


# draws that tested nothing


def test_a_draw_with_a_collective_on_an_owned_buffer_tested_something(ranks: World) -> None:
    draw = ranks.run(scenario(*GATHER))
    assert (is_vacuous(draw), examine(draw).is_vacuous) == (False, False)


def test_a_draw_without_a_collective_is_vacuous(ranks: World) -> None:
    draw = ranks.run(scenario(GATHER[0]))
    assert (is_vacuous(draw), examine(draw).is_vacuous) == (True, True)


def test_a_draw_whose_groups_have_one_rank_is_vacuous(ranks: World) -> None:
    assert is_vacuous(ranks.run(scenario(*GATHER, topology=explicit(tp=((0,), (1,))))))


def test_a_draw_in_which_no_buffer_is_owned_is_vacuous(ranks: World) -> None:
    assert is_vacuous(ranks.run(scenario(*GATHER, pool="NeverRegisters")))


def test_a_draw_whose_sizes_were_meant_to_differ_and_did_not_is_vacuous(ranks: World) -> None:
    meant = Allocate("u", "tp", (64, 64))
    assert is_vacuous(ranks.run(scenario(*GATHER, meant)))
    assert not is_vacuous(ranks.run(scenario(*GATHER, msgspec.structs.replace(meant, elements=(64, 65)))))


def test_a_call_that_did_not_return_on_every_rank_tested_nothing(ranks: World) -> None:
    draw = ranks.run(scenario(*GATHER))
    events = tuple(event for event in draw.traces[1].events if not isinstance(event, Ran))
    traces = draw.traces[0], msgspec.structs.replace(draw.traces[1], events=events)
    assert is_vacuous(msgspec.structs.replace(draw, traces=traces))
