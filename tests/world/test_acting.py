"""Groups that act on their own, on real ranks: families that are no partition, other orders, ranks with nothing."""

from __future__ import annotations

import pytest

from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Capture, EndCapture, Recreate, ReduceScatter, Replay, Step
from harness.scenario.system import System
from harness.scenario.topology import Topology, find
from harness.trace.events import Called, CommCreated
from harness.world.world import World
from tests.tools.scenes import explicit, findings

RING = explicit(next=((0, 1), (1, 2), (2, 3), (3, 0)))
ENDS = explicit(tp=((0, 1), (2, 3)), ends=((0, 3),))
UNEQUAL = explicit(parts=((0,), (1, 2, 3)))
PAIRS = explicit(tp=((0, 1), (2, 3)))
SIX = explicit(pp=((0, 3), (1, 4), (2, 5)))


@pytest.fixture(scope="module")
def ranks(simulation: World) -> World:
    return simulation


def right(topology: Topology, *steps: Step) -> Scenario:
    return Scenario(topology, steps, System("deferred"))


def called(world: World, played: Scenario) -> list[list[tuple[int, tuple[int, ...]]]]:
    """By rank, the steps at which it called a collective, and of which group."""
    draw = world.run(played)
    assert draw.is_clean
    found = []
    for trace in draw.traces:
        comms = {event.comm: event.group for event in trace.events if isinstance(event, CommCreated)}
        calls = ((step, event) for step, event in trace.steps() if isinstance(event, Called))
        found.append([(step, comms[event.comm]) for step, event in calls])
    return found


def test_a_rank_in_two_groups_of_a_family_calls_each_when_it_acts(ranks: World) -> None:
    near, far = ((0, 1), (2, 3)), ((1, 2), (3, 0))
    steps = (
        Allocate("a", "next", 8, groups=near),
        Allocate("b", "next", 8, groups=far),
        AllGather("next", View("a"), 4, groups=near),
        AllGather("next", View("b"), 4, groups=far, via="kernel"),
        Recreate("next"),
        Allocate("c", "next", 8, groups=far),
        ReduceScatter("next", View("c"), 4, groups=far),
    )
    played = right(RING, *steps)
    assert called(ranks, played)[1] == [(2, (0, 1)), (3, (1, 2)), (6, (1, 2))]
    assert findings(ranks, played) == []


def test_a_rank_that_a_family_leaves_out_takes_no_part(ranks: World) -> None:
    played = right(ENDS, Allocate("a", "ends", 8), AllGather("ends", View("a"), 4), Recreate("ends"))
    assert [len(calls) for calls in called(ranks, played)] == [1, 0, 0, 1]
    assert findings(ranks, played) == []


def test_groups_of_one_family_differ_in_size(ranks: World) -> None:
    played = right(UNEQUAL, Allocate("a", "parts", 12), AllGather("parts", View("a"), 4, via="kernel"))
    assert findings(ranks, played) == []


def test_one_group_acts_and_the_other_goes_on(ranks: World) -> None:
    played = right(PAIRS, Allocate("a", "tp", 8), AllGather("tp", View("a"), 4, groups=((0, 1),)))
    assert [len(calls) for calls in called(ranks, played)] == [1, 1, 0, 0]


def test_groups_run_their_steps_in_different_orders(ranks: World) -> None:
    one, other = ((0, 1),), ((2, 3),)
    gather, reduce = AllGather("tp", View("a"), 4), ReduceScatter("tp", View("b"), 4)
    played = right(
        PAIRS,
        Allocate("a", "tp", 8),
        Allocate("b", "tp", 8),
        AllGather("tp", gather.output, 4, groups=one),
        reduce,
        AllGather("tp", gather.output, 4, groups=other),
    )
    assert [[step for step, _ in calls] for calls in called(ranks, played)] == [[2, 3], [2, 3], [3, 4], [3, 4]]
    assert findings(ranks, played) == []


@pytest.mark.parametrize("counts", [(4, 0), (0, 4)])
def test_a_rank_contributes_nothing(ranks: World, counts: tuple[int, int]) -> None:
    pair = explicit(tp=((0, 1),))
    steps = (
        Allocate("a", "tp", 4),
        Allocate("b", "tp", counts, role="plain"),
        AllGather("tp", View("a"), counts, View("b")),
        ReduceScatter("tp", View("a"), counts, View("b")),
    )
    assert findings(ranks, right(pair, *steps)) == []


def test_a_graph_of_some_ranks_is_empty_on_the_others(ranks: World) -> None:
    steps = (
        Allocate("a", "tp", 8),
        Capture("g"),
        AllGather("tp", View("a"), 4, groups=((2, 3),)),
        EndCapture("g"),
        Replay("g"),
    )
    assert findings(ranks, right(PAIRS, *steps)) == []


def test_two_engines_of_a_shipped_deployment_run_out_of_step() -> None:
    """As the note of the topology promises: unequal batches, and the steps of each engine in an order of its own."""
    engines = find("gpt-oss-120b-vllm-tp4-dp2")
    first, second = ((0, 1, 2, 3),), ((4, 5, 6, 7),)
    tokens = (3,) * 4 + (7,) * 4
    steps = (
        Allocate("a", "tp", tuple(4 * count for count in tokens)),
        Allocate("b", "tp", 32),
        AllGather("tp", View("a"), tokens, groups=first),
        ReduceScatter("tp", View("b"), 8),
        AllGather("tp", View("a"), tokens, groups=second),
        Allocate("e", "ep", sum(tokens)),
        AllGather("ep", View("e"), tokens),
    )
    played = right(engines, *steps)
    with World(8, "sim") as ranks:
        order = [[step for step, group in calls if len(group) == 4] for calls in called(ranks, played)]
        assert order == [[2, 3]] * 4 + [[3, 4]] * 4
        assert findings(ranks, played) == []


def test_ranks_beyond_the_usual_are_started_when_a_draw_needs_them() -> None:
    small = right(PAIRS, Allocate("a", "tp", 8), AllGather("tp", View("a"), 4))
    large = right(SIX, Allocate("a", "pp", 8), AllGather("pp", View("a"), 4))
    with World(2, "sim", largest=6) as world:
        assert (world.size, len(world.pids)) == (6, 2)
        four = world.run(small)
        first = world.pids
        six = world.run(large)
        assert (four.is_clean, six.is_clean, len(first), len(world.pids)) == (True, True, 4, 6)
        assert world.pids[:4] == first
        assert any(isinstance(event, Called) for event in six.traces[5].events)
        world.renew()
        assert world.run(large).is_clean
