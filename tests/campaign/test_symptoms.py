"""Symptoms tell findings apart before anything is shrunk, and traits say what a smaller case cannot have."""

from __future__ import annotations

import pytest

from harness.campaign.symptoms import Symptom, symptom, traits
from harness.oracle.findings import Record
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, AllReduce, Deny, Recreate, Release, Step
from harness.scenario.topology import Topology
from tests.tools.campaigns import TWO

A = Allocate("a", "tp", 8)
GATHERED, REDUCED = AllGather("tp", View("a"), 1, via="kernel"), AllReduce("tp", View("a"), 4, op="max")


def program(*steps: Step, topology: Topology = TWO) -> Scenario:
    return Scenario(topology, steps)


def record(rule: str, step: int, explanation: str = "shown", cause: str = "") -> Record:
    return Record(rule, explanation, step, (0,), cause=cause)


BOTH = program(A, GATHERED, REDUCED)


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        (record("wrong-data", 1), "wrong-data in all_gather by kernel"),
        (record("wrong-data", 2), "wrong-data in all_reduce"),
        (record("out-of-bounds", 99), "out-of-bounds at the end"),
        (record("wrong-owner", 1), "wrong-owner"),
        (record("raised", 0, cause="KeyError in f (mine.py:3)"), "raised KeyError in f (mine.py:3)"),
        (record("hang", 1, "rank 1 registers for a while rank 0 waits in all_gather of tp[0,1]."), "hang in register"),
        (record("hang", 1, "ranks 0, 1 are in all_gather kernel of tp[0,1]. After"), "hang in all_gather kernel"),
        (record("hang", 1, "rank 1 has run every step while rank 0 waits in all_gather of tp."), "hang in a call"),
        (
            record("rank-crash", 1, "rank 1 died of SIGSEGV (11) at step 1 (all_gather), in copy (mine.py:7)."),
            "rank-crash died of SIGSEGV (N), in copy (mine.py)",
        ),
    ],
)
def test_a_symptom_says_where_in_the_system_a_rule_breaks(found: Record, shown: str) -> None:
    assert symptom([found], 0, BOTH) == Symptom(shown)


def test_what_follows_from_another_rule_is_told_by_that() -> None:
    findings = [record("wrong-owner", 1), record("wrong-data", 1), record("wrong-data", 2)]
    assert [symptom(findings, number, BOTH) for number in (1, 2)] == [Symptom("wrong-data", "wrong-owner")] * 2


@pytest.mark.parametrize("each", [Symptom("leak"), Symptom("leak", "hang")])
def test_a_symptom_is_read_from_its_text(each: Symptom) -> None:
    assert Symptom.read(str(each)) == each


FOUR = Topology("four", "sglang", {"tp": 4})
PARTS = Topology("parts", "explicit", {}, families_given={"tp": ((0, 1),), "one": ((0,),)})


@pytest.mark.parametrize(
    ("scenario", "has"),
    [
        (program(A, AllGather("tp", View("a"), 1)), {"call"}),
        (program(A, GATHERED), {"call"}),
        (program(A, REDUCED), {"call", "max", "more than one element"}),
        (program(A, AllGather("tp", View("a", 2), 1)), {"call", "an offset"}),
        (program(Allocate("a", "tp", 8, "float16"), GATHERED), {"call", "float16"}),
        (program(Allocate("a", "tp", (8, 9)), GATHERED), {"call", "ranks that differ"}),
        (program(Deny(0), A, GATHERED), {"call", "deny"}),
        (program(A, GATHERED, topology=FOUR), {"call", "more than two ranks"}),
        (program(Allocate("b", "one", 1), A, GATHERED, topology=PARTS), {"call", "2 families", "ranks that differ"}),
    ],
)
def test_traits_are_what_is_not_plain(scenario: Scenario, has: set[str]) -> None:
    assert traits(record("wrong-data", len(scenario.steps) - 1), scenario) == has


@pytest.mark.parametrize("step", [1, 2])
def test_a_step_on_groups_that_overlap_has_traits_too(step: int) -> None:
    ring = Topology("ring", "explicit", {}, families_given={"tp": ((0, 1),), "ring": ((0, 1), (1, 2))})
    found = traits(record("stale-window", step), program(A, Recreate("ring"), GATHERED, topology=ring))
    assert {"recreate", "2 families"} <= found


def test_what_comes_after_a_finding_is_no_trait_of_it() -> None:
    scenario = program(A, GATHERED, Release("a"), Recreate("tp"))
    assert traits(record("wrong-owner", 1), scenario) == {"call"}


@pytest.mark.parametrize("step", [-1, 1 << 20])
def test_a_finding_may_show_at_the_start_or_at_the_end(step: int) -> None:
    assert symptom([record("leak", step)], 0, BOTH) == Symptom("leak")
    assert ("call" in traits(record("leak", step), BOTH)) == (step > 0)
