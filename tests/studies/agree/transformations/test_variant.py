"""A variant knows which step and rank each of its own stands for."""

from __future__ import annotations

from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Allocate, AllReduce
from harness.scenario.topology import Topology
from harness.studies.agree.transformations.calls import split_calls
from harness.studies.agree.transformations.variant import Variant, rewritten
from harness.trace.trace import TEARDOWN

PAIR = Topology("pair", "sglang", {"tp": 2})
SCENARIO = Scenario(PAIR, (Allocate("a", "tp", 64), AllReduce("tp", View("a"), 8), Allocate("b", "tp", 64)))


def test_steps_after_a_split_call_stand_for_the_ones_before_it_was_split() -> None:
    variant = split_calls(SCENARIO)
    assert variant is not None
    assert [variant.step(step) for step in range(4)] == [0, 1, 1, 2]


def test_the_end_stays_the_end() -> None:
    variant = Variant(SCENARIO, (2, 1, 0), (0, 1))
    assert [variant.step(step) for step in (-1, TEARDOWN, TEARDOWN + 1)] == [-1, TEARDOWN, TEARDOWN + 1]


def test_ranks_are_given_in_rising_order() -> None:
    assert Variant(SCENARIO, (0, 1, 2), (2, 0, 1)).ranks_drawn((0, 1)) == (0, 2)


def test_the_same_steps_are_no_variant() -> None:
    assert rewritten(SCENARIO, [*enumerate(SCENARIO.steps)]) is None
