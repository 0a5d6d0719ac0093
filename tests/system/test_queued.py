"""Several kernel calls without a wait in between, of which each is judged as its own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import pytest

from harness.oracle.judge import judge
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    AllGather,
    Allocate,
    InFlight,
    ReduceScatter,
    Release,
    Step,
    Straggle,
)
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.strategies.programs import scenarios
from harness.trace.draw import Draw
from harness.trace.events import Awaited, Entered, SegmentFreed
from harness.world.world import World
from tests.tools.drawn import sample
from tests.tools.scenes import findings, first, rules, scenario, unsaid

KERNELS = "tests.tools.in_graphs"
RECORDED = ("triton", f"{KERNELS}:Stages", "examples.protocols:Packets", f"{KERNELS}:Returns")
AT_ONCE = ("tests.tools.provided:ByFlags", "tests.tools.unusual.collectives:RingGather")
WHOLES = (Allocate("a", "tp", 128), Allocate("b", "tp", 128), Allocate("p", "tp", 64, role="plain"))
CALLS = (
    AllGather("tp", View("a"), 64, via="kernel"),
    AllGather("tp", View("b"), 20, View("p"), via="kernel"),
    ReduceScatter("tp", View("a"), 32, via="kernel"),
    Straggle(1, 30),
    AllGather("tp", View("b"), 1, via="kernel"),
    ReduceScatter("tp", View("b"), 16, View("p"), via="kernel"),
    AllGather("tp", View("a"), 64, via="kernel"),
)


@pytest.fixture(scope="module")
def pair() -> Iterator[World]:
    with World(2, "sim", deadline=5) as world:
        yield world


def queued(*steps: Step) -> tuple[Step, ...]:
    return *WHOLES, InFlight(), *steps, InFlight(begins=False)


def entered(draw: Draw) -> list[int]:
    """At which steps rank 0 was in kernels."""
    steps = draw.traces[0].steps()
    return [step for step, event in steps if isinstance(event, Entered) and event.call.endswith("kernel")]


@pytest.mark.parametrize("kernels", RECORDED + AT_ONCE)
def test_queued_calls_are_judged_one_by_one(pair: World, kernels: str) -> None:
    played = scenario(*queued(*CALLS), kernels=kernels)
    assert findings(pair, played) == []
    awaited = [event.call for event in pair.run(played).traces[0].events if isinstance(event, Awaited)]
    assert awaited == [4, 5, 6, 8, 9, 10, 11]


@pytest.mark.parametrize(("kernels", "steps"), [(RECORDED[0], [11] * 6), (AT_ONCE[0], [4, 5, 6, 8, 9, 10])])
def test_what_may_be_captured_runs_behind_the_host(pair: World, kernels: str, steps: list[int]) -> None:
    assert entered(pair.run(scenario(*queued(*CALLS), kernels=kernels))) == steps


def test_memory_of_the_host_that_a_queued_copy_has_yet_to_read(pair: World) -> None:
    kernels = f"{KERNELS}:ReusesItsStaging"
    one_by_one = list(chain.from_iterable((InFlight(), each, InFlight(begins=False)) for each in CALLS))
    assert findings(pair, scenario(*WHOLES, *one_by_one, kernels=kernels)) == []
    found = findings(pair, scenario(*queued(*CALLS), kernels=kernels))
    assert unsaid(first(found, "wrong-data"), "step 5 (all_gather) on tp[0,1]: output 'b'") == []


def test_such_a_fault_is_drawn(pair: World) -> None:
    drawn = sample(scenarios(2, system=System(collectives=f"{KERNELS}:ReusesItsStaging"), via="kernel"), 60)
    found = next(filter(None, (judge(pair.run(each)) for each in drawn)), [])
    assert {*rules(found)} & {"wrong-data", "out-of-bounds"}


@pytest.mark.parametrize("kernels", RECORDED[1:])
def test_right_plug_ins_are_silent_on_drawn_calls(pair: World, kernels: str) -> None:
    drawn = sample(scenarios(2, system=System(collectives=kernels), via="kernel"), 24)
    assert [found for each in drawn if (found := judge(pair.run(each)))] == []


def test_a_pool_that_frees_memory_in_flight_has_waited_for_the_calls_on_it() -> None:
    """The ranks' segments lie in another order, so `deferred` begins a fresh pool and frees the one before."""
    large, larger = Allocate("a", "tp", 10485616, "float8_e5m2"), Allocate("b", "tp", 2621367)
    call = AllGather("tp", View("b"), 1, via="kernel")
    steps = large, Release("a"), InFlight(), larger, call, Release("b"), Allocate("c", "tp", 1)
    topology = Topology("two", "sglang", {"tp": 2})
    with World(2, "sim", deadline=5) as world:
        draw = world.run(Scenario(topology, steps, System("deferred", "triton"), falling=(1,)))
    assert [str(finding) for finding in judge(draw)] == []
    freed = [step for step, event in draw.traces[0].steps() if isinstance(event, SegmentFreed)]
    assert freed[0] == len(steps) - 1
