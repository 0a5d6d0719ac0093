"""The order of a draw's findings: the first one is the cause, and each rule speaks once a step."""

from __future__ import annotations

import pytest

from harness.oracle.findings import PRIORITY, RULES, Finding, ordered
from harness.scenario.operands import View
from harness.scenario.steps import AllGather, Allocate, Ballast, Release, Trim
from harness.world.world import World
from tests.tools.scenes import findings, rules, scenario

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


def said(rule: str, step: int, explanation: str = "") -> Finding:
    return RULES[rule](explanation, step=step, ranks=(0,))


def test_an_offset_that_differs_comes_before_the_data_that_it_made_wrong(ranks: World) -> None:
    found = findings(ranks, scenario(*SHIFTED))
    assert found[0].rule == "offset-mismatch"
    assert "wrong-data" in rules(found)


def test_a_segment_freed_too_early_comes_before_the_stale_window_and_the_leak(ranks: World) -> None:
    found = findings(ranks, scenario(*OUTLIVED, pool="ForgetsToDeregister"))
    assert rules(found) == ["freed-while-registered", "stale-window", "leak"]


@pytest.mark.parametrize(
    ("cause", "consequence"),
    [
        ("freed-while-registered", "stale-window"),
        ("registration-skew", "hang"),
        ("registration-skew", "segment-mismatch"),
        ("wrong-owner", "slow-path"),
        ("segment-mismatch", "wrong-data"),
        ("offset-mismatch", "wrong-data"),
        ("offset-mismatch", "out-of-bounds"),
        ("out-of-bounds", "wrong-data"),
        ("rank-crash", "hang"),
    ],
)
def test_a_cause_found_late_comes_before_its_consequence(cause: str, consequence: str) -> None:
    assert [finding.rule for finding in ordered([said(consequence, 1), said(cause, 2)])] == [cause, consequence]


def test_of_one_rule_the_earliest_step_comes_first() -> None:
    assert [finding.step for finding in ordered([said("leak", 7), said("leak", 3)])] == [3, 7]


def test_a_rule_speaks_once_a_step_in_the_words_of_the_first() -> None:
    assert [str(finding) for finding in ordered([said("leak", 3, "this"), said("leak", 3, "that")])] == ["leak: this"]


def test_every_rule_has_a_place_in_the_order() -> None:
    assert sorted(PRIORITY) == sorted(RULES)
