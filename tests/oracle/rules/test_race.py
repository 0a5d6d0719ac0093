"""Races: each kind is found in the first draw that makes the two accesses, whatever the data, and both are named."""

from __future__ import annotations

import msgspec
import pytest

from harness.oracle.findings import Finding
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.schedule import Schedule
from harness.scenario.steps import AllGather, Allocate, Recreate, ReduceScatter, Release, Step
from harness.world.world import World
from tests.tools.scenes import SQUARE, findings, rules, scenario, unsaid

ORDER, KERNELS, MINE = "harness.system.planted.order", "harness.system.planted.kernels", "tests.tools.planted.order"
GATHER = (Allocate("a", "tp", 256), AllGather("tp", View("a"), 100, via="kernel"))
SCATTER = (Allocate("a", "tp", 256), ReduceScatter("tp", View("a"), 100, via="kernel"))
TWICE = (
    *GATHER,
    AllGather("tp", View("a"), 50, via="kernel"),
    Allocate("b", "tp", 512, "bfloat16"),
    ReduceScatter("tp", View("b"), 60, via="kernel"),
    Release("a"),
    Release("b"),
    Recreate("tp"),
    Allocate("c", "tp", 256),
    AllGather("tp", View("c"), 60, via="kernel"),
    AllGather("tp", View("c"), 50),
    AllGather("tp", View("c"), 50, via="kernel"),
)
ORDERS = [Schedule((0, 1)), Schedule((1, 0)), Schedule((0, 1), (3, 9))]


def by(schedule: Schedule, *steps: Step, kernels: str) -> Scenario:
    return msgspec.structs.replace(scenario(*steps, kernels=kernels), schedule=schedule)


def race(found: list[Finding]) -> Finding:
    return next(finding for finding in found if finding.rule == "race")


@pytest.mark.parametrize("schedule", ORDERS)
@pytest.mark.parametrize("steps", [GATHER, SCATTER], ids=["gather", "scatter"])
@pytest.mark.parametrize(
    "kernels",
    [
        f"{KERNELS}:NoFirstBarrier",
        f"{ORDER}:NoLastBarrier",
        f"{ORDER}:SharesFlags",
        f"{ORDER}:RelaxedSignals",
        *(f"{MINE}:{name}" for name in ("SignalsItsGpu", "LooksRelaxed", "LooksByLoads", "SignalsTooEarly")),
    ],
)
def test_an_order_that_is_missing_is_found(
    ranks: World, kernels: str, steps: tuple[Step, ...], schedule: Schedule
) -> None:
    assert rules(findings(ranks, by(schedule, *steps, kernels=kernels)))[0] == "race"


@pytest.mark.parametrize("schedule", ORDERS)
@pytest.mark.parametrize(
    "kernels",
    ["triton", f"{KERNELS}:SoundKernels", f"{ORDER}:FlagBarrier", f"{MINE}:Meets", f"{MINE}:LooksByCompareAndSwap"],
)
def test_what_is_ordered_is_silent(ranks: World, kernels: str, schedule: Schedule) -> None:
    assert findings(ranks, by(schedule, *TWICE, kernels=kernels)) == []


def test_without_a_schedule_nobody_looks(ranks: World) -> None:
    assert findings(ranks, scenario(*GATHER, kernels=f"{ORDER}:RelaxedSignals")) == []


def test_both_accesses_are_named_with_the_line_of_the_kernel(ranks: World) -> None:
    found = race(findings(ranks, by(Schedule((0, 1)), *SCATTER, kernels=f"{ORDER}:NoLastBarrier")))
    claims = ("of 'a' on rank", "reads them in scatter_kernel (kernels.py:", "at step 1 (reduce_scatter)", "and rank")
    assert unsaid(found, *claims) == []
    assert found.ranks == (0, 1)


def test_the_bytes_that_both_accessed_are_named(ranks: World) -> None:
    found = race(findings(ranks, by(Schedule((0, 1)), *GATHER, kernels=f"{KERNELS}:NoFirstBarrier")))
    assert "bytes 0–399 of 'a' on rank 1" in str(found)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("LooksRelaxed", "meet_kernel (order.py:"),
        ("SignalsItsGpu", "is not at system scope, so peers may find it in parts"),
    ],
)
def test_the_operation_that_orders_nothing_is_named(ranks: World, name: str, why: str) -> None:
    assert why in str(race(findings(ranks, by(Schedule((0, 1)), *GATHER, kernels=f"{MINE}:{name}"))))


def test_groups_that_overlap_are_ordered_by_the_rank_that_they_share(ranks: World) -> None:
    steps = (
        Allocate("a", "tp", 256),
        Allocate("b", "cp", 256),
        AllGather("tp", View("a"), 50, via="kernel"),
        AllGather("cp", View("b"), 50, via="kernel"),
        AllGather("tp", View("a"), 50, via="kernel"),
    )
    played = msgspec.structs.replace(scenario(*steps, topology=SQUARE), schedule=Schedule((3, 1, 0, 2), (5, 30)))
    assert findings(ranks, played) == []
