"""Calls in flight: what each left is judged as its own, and memory that is given out too early shows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import pytest

from harness.oracle.findings import Finding
from harness.oracle.judge import judge
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    AllGather,
    Allocate,
    AllReduce,
    InFlight,
    ReduceScatter,
    Release,
    Stall,
    Step,
)
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.trace.draw import Draw
from harness.trace.events import Awaited, Ran, SegmentFreed
from harness.world.world import World

DEFERRED = System()
PAIR = Topology("pair", "sglang", {"tp": 2})
A, B = Allocate("a", "tp", 64), Allocate("b", "tp", 64)
PLACES, RESULTS, KERNELS, CALLS = (
    f"harness.system.planted.{name}" for name in ("places", "results", "kernels", "calls")
)


def gather(buffer: str, **fields: object) -> AllGather:
    return AllGather("tp", View(buffer), 32, **fields)  # type: ignore[arg-type]


TURNOVER = (
    InFlight(),
    Allocate("a", "tp", 64, stream=1),
    gather("a", stream=1),
    Release("a"),
    Allocate("b", "tp", 64, stream=2),
    gather("b", stream=2),
    InFlight(begins=False),
)
"""The second buffer is on another stream than the one that was released before its call was done."""
BURST = (A, B, InFlight(), gather("a"), ReduceScatter("tp", View("b"), 8), AllReduce("tp", View("b", 3), 16))


@pytest.fixture(scope="module")
def ranks() -> Iterator[World]:
    with World(2, "sim", deadline=5) as world:
        yield world


def ran(ranks: World, *steps: Step, system: System = DEFERRED, seed: int = 0) -> tuple[Draw, list[Finding]]:
    draw = ranks.run(Scenario(PAIR, steps, system, seed))
    return draw, list(judge(draw))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ends", [(), (InFlight(begins=False),), (InFlight(begins=False), gather("a"))])
def test_calls_in_flight_are_exact(ranks: World, ends: tuple[Step, ...], seed: int) -> None:
    draw, findings = ran(ranks, *BURST, *ends, seed=seed)
    assert not findings
    awaited = [event.call for event in draw.traces[0].events if isinstance(event, Awaited)]
    assert awaited[:3] == [3, 4, 5]
    assert sum(isinstance(event, Ran) for event in draw.traces[0].events) == 3 + (len(ends) == 2)


@pytest.mark.parametrize("pool", ["deferred", "per-group"])
@pytest.mark.parametrize("seed", range(2))
def test_a_block_that_turns_over_in_flight_is_given_out_rightly(ranks: World, pool: str, seed: int) -> None:
    assert not ran(ranks, *TURNOVER, system=System(pool), seed=seed)[1]


@pytest.mark.parametrize("seed", range(2))
def test_a_block_that_another_stream_gets_too_early_shows(ranks: World, seed: int) -> None:
    """Whether what each rank enqueues for itself runs early or late."""
    _, findings = ran(ranks, *TURNOVER, system=System(f"{PLACES}:AllocatesOnOneStream"), seed=seed)
    assert {finding.rule for finding in findings} & {"wrong-data", "source-changed", "result-overwritten"}
    assert findings[0].step in (2, 5)


def test_ordinary_memory_that_is_released_in_flight_stays_until_its_call_is_done(ranks: World) -> None:
    plain = [Allocate(f"p{number}", "tp", 1 << 16, role="plain") for number in range(4)]
    called = [(each, AllGather("tp", View(each.buffer), 1 << 15), Release(each.buffer)) for each in plain]
    assert not ran(ranks, InFlight(), *chain(*called), InFlight(begins=False))[1]


def test_the_block_of_an_idle_rank_is_free_as_soon_as_that_of_its_peers(ranks: World) -> None:
    steps = (InFlight(), Allocate("p", "tp", (1, 0)), Release("p"), A, ReduceScatter("tp", View("a"), 8))
    assert not ran(ranks, *steps, InFlight(begins=False))[1]


def test_a_wrong_result_is_that_of_its_own_call(ranks: World) -> None:
    steps = (A, B, InFlight(), gather("a"), gather("b", via="kernel"), InFlight(begins=False))
    _, findings = ran(ranks, *steps, system=System("deferred", f"{KERNELS}:LosesLastPeer"))
    assert (findings[0].rule, findings[0].step) == ("wrong-data", 4)
    assert findings[0].explanation.startswith("step 4 (all_gather) on tp[0,1]: output 'b'")


def test_a_scratch_that_is_returned_twice_in_flight_names_both_calls(ranks: World) -> None:
    steps = (A, B, InFlight(), gather("a", via="kernel"), gather("b", via="kernel"), InFlight(begins=False))
    _, findings = ran(ranks, *steps, system=System("deferred", f"{RESULTS}:ReturnsItsScratch"))
    assert {finding.rule for finding in findings} == {"result-overwritten"}
    assert "step 3 (all_gather)" in findings[0].explanation
    assert "step 4 (all_gather) on tp[0,1] returned the same memory" in findings[0].explanation


@pytest.mark.parametrize("early", range(5))
def test_results_in_flight_count_among_the_last_that_are_kept(ranks: World, early: int) -> None:
    """A ring of eight results turns, and the last seven are whole."""
    rotates = System("harness.system.planted.sound:Sound", "tests.tools.unusual.collectives:Rotates")
    called = [gather("a" if number % 2 else "b", via="kernel") for number in range(9)]
    steps = (A, B, *called[:early], InFlight(), *called, InFlight(begins=False), *called[:early])
    assert not ran(ranks, *steps, system=rotates)[1]


def test_a_call_that_owes_no_single_result_turns_a_ring_twice() -> None:
    """It is made twice, and a ring of eight results still has the last seven."""
    three = Topology("three", "sglang", {"pp": 3})
    rotates = System("harness.system.planted.sound:Sound", "tests.tools.unusual.collectives:Rotates")
    average = ReduceScatter("pp", View("a"), 33, op="avg", via="kernel")
    gathered = AllGather("pp", View("b"), 64, via="kernel")
    operands = (Allocate("a", "pp", 99, "bfloat16"), Allocate("b", "pp", 192))
    steps = (*operands, *[gathered] * 7, average, *[gathered] * 9, *[average] * 9, gathered)
    with World(3, "sim", deadline=5) as world:
        assert not list(judge(world.run(Scenario(three, steps, rotates))))


@pytest.mark.parametrize("seed", range(2))
def test_memory_of_a_pool_that_is_given_up_in_flight_goes_after_its_calls(ranks: World, seed: int) -> None:
    """`deferred` takes a fresh pool where addresses lie in another order on a rank, as CUDA would wait before."""
    large = 5242735
    steps = (
        *(Allocate("a", "tp", large // 2), InFlight(), Release("a")),
        *(Allocate("b", "tp", large), gather("b"), Release("b")),
        *(Allocate("c", "tp", large, stream=1), gather("c", stream=1), InFlight(begins=False)),
    )
    draw = ranks.run(Scenario(PAIR, steps, DEFERRED, seed, falling=(1,)))
    assert sum(isinstance(event, SegmentFreed) for event in draw.traces[0].events) > 0
    assert not list(judge(draw))


def test_a_stalled_stream_holds_nothing_else_up(ranks: World) -> None:
    assert not ran(ranks, A, InFlight(), Stall(0, 30), gather("a"), InFlight(begins=False))[1]


def test_a_hang_in_flight_is_in_the_call_that_waits(ranks: World) -> None:
    uneven = AllGather("tp", View("b"), (0, 32), via="kernel")
    steps = (A, B, InFlight(), gather("a"), uneven, InFlight(begins=False))
    _, findings = ran(ranks, *steps, system=System("deferred", f"{CALLS}:LeavesIdleRanksOut"))
    assert [finding.rule for finding in findings] == ["wrong-data", "hang"]
    assert "rank 1 at step 5 (in_flight) in all_gather kernel of tp[0,1]" in findings[1].explanation
