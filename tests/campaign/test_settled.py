"""What is settled: a draw counts as a finding that is there only if it may shrink to its smallest case."""

from __future__ import annotations

from typing import Any

from harness.campaign.settled import MOST, Settled, Settlement
from harness.campaign.symptoms import Symptom, symptom
from harness.oracle.findings import Record
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Deny, Recreate, Step
from harness.scenario.system import System
from harness.scenario.topology import Topology
from tests.tools.campaigns import TWO

MINE, MINE_POOLED = System(collectives="mine:K"), System("per-group", "mine:K")
A, GATHERED = Allocate("a", "tp", 8), AllGather("tp", View("a"), 1)


def case(*steps: Step, **system: Any) -> tuple[Scenario, Record]:
    scenario = Scenario(TWO, (*steps, A, GATHERED), System(**system))
    return scenario, Record("wrong-owner", "shown", len(steps) + 1, (0,))


def settled(*steps: Step) -> Settled:
    scenario, found = case(*steps)
    return Settled.of([found], scenario)


def of(settlement: Settlement, *steps: Step, **system: Any) -> Settled | None:
    scenario, found = case(*steps, **system)
    return settlement.of(symptom([found], 0, scenario), found, scenario)


NEEDS_RECREATE = settled(Recreate("tp"))


def test_a_draw_with_all_traits_of_a_case_counts_as_its_finding() -> None:
    assert of(Settlement([NEEDS_RECREATE]), Recreate("tp"), Deny(0)) is NEEDS_RECREATE


def test_a_draw_without_one_of_them_is_a_second_bug_of_the_rule() -> None:
    assert of(Settlement([NEEDS_RECREATE]), Deny(0)) is None
    assert of(Settlement([NEEDS_RECREATE, settled(Deny(0))]), Deny(0)) is not None


def test_another_system_has_findings_of_its_own() -> None:
    assert of(Settlement([NEEDS_RECREATE]), Recreate("tp"), pool="per-group") is None
    assert of(Settlement([NEEDS_RECREATE]), Recreate("tp"), sites="implicit") is None


def test_parts_of_the_system_that_go_into_no_signature_make_no_other_finding() -> None:
    assert of(Settlement([NEEDS_RECREATE]), Recreate("tp"), collectives="mine:K") is NEEDS_RECREATE
    wide, found = (
        Scenario(Topology("wide", "sglang", {"tp": 4}), (A, GATHERED), System(collectives="mine:K")),
        settled(),
    )
    larger = Settled.of([Record("wrong-owner", "shown", 1, (0,))], wide)
    assert [*Settlement([larger]).larger(found)] == [larger]


def test_a_finding_of_kernels_depends_on_them_and_not_on_the_pool() -> None:
    steps = A, AllGather("tp", View("a"), 1, via="kernel")
    found = Record("wrong-data", "shown", 1, (0,))
    own, pool, kernels = (
        Scenario(TWO, steps, system) for system in (MINE, MINE_POOLED, System(collectives="mine:Other"))
    )
    settlement = Settlement([Settled.of([found], own)])
    assert [settlement.of(symptom([found], 0, each), found, each) is not None for each in (own, pool, kernels)] == [
        True,
        True,
        False,
    ]


def test_a_bug_that_shows_in_ever_other_ways_is_looked_for_no_more() -> None:
    several = [settled(Recreate("tp")) for _ in range(MOST)]
    assert of(Settlement(several[:-1])) is None
    assert of(Settlement(several)) is several[-1]


def test_what_else_is_found_in_a_smallest_case_follows_from_it() -> None:
    scenario, found = case()
    follows = Record("wrong-data", "shown", found.step, (0,))
    own = Settled.of([found, follows], scenario)
    assert own.symptoms == {Symptom("wrong-owner"), Symptom("wrong-data", "wrong-owner")}
    assert Settled.of([found], scenario, noted=own.noted).symptoms == own.symptoms


def test_a_case_that_was_not_shrunk_to_its_end_counts_by_its_symptom() -> None:
    scenario, found = case(Recreate("tp"))
    unfinished = Settled.of([found], scenario, is_smallest=False)
    assert of(Settlement([unfinished]), Deny(0)) is unfinished


def test_a_case_that_is_larger_by_its_layout_alone_is_the_smaller_one() -> None:
    wide = Scenario(Topology("wide", "sglang", {"tp": 4}), (A, GATHERED))
    larger, small = Settled.of([Record("wrong-owner", "shown", 1, (0,))], wide), settled()
    settlement = Settlement([larger, NEEDS_RECREATE, small])
    assert [[*settlement.larger(each)] for each in (small, larger)] == [[larger], []]
