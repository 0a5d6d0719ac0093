"""Streams: whose free list a block returns to, which programs are refused, and what is drawn and made plain."""

from __future__ import annotations

import pytest

from harness.campaign.search import smallest_failing
from harness.errors import UsageError
from harness.oracle.judge import judge
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    STREAMS,
    AllGather,
    Allocate,
    Capture,
    EndCapture,
    Prepare,
    ProgramError,
    ReduceScatter,
    Release,
    Step,
)
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.strategies.batches import sample
from harness.strategies.programs import WITH_GRAPHS, scenarios
from harness.trace.draw import Draw
from harness.trace.events import Placed, SegmentAllocated
from harness.world.world import World

PAIR = Topology("pair", "sglang", {"tp": 2})
A, B = View("a"), View("b")


@pytest.fixture(scope="module")
def world(simulation: World) -> World:
    return simulation


def stream_of(step: Step) -> int:
    return getattr(step, "stream", 0)


def segments(draw: Draw) -> list[int]:
    """How many segments each rank took."""
    return [sum(isinstance(event, SegmentAllocated) for event in trace.events) for trace in draw.traces]


def places(draw: Draw) -> list[int]:
    """Where the buffers of the first rank lie, in the order of their allocation."""
    return [event.address for event in draw.traces[0].events if isinstance(event, Placed)]


def reuse(first: int, used: int, second: int, pool: str) -> Scenario:
    """A buffer of one stream is used on another and released; the next one is allocated on a third."""
    steps = (
        Allocate("a", "tp", 64, stream=first),
        AllGather("tp", A, 32, stream=used),
        Release("a"),
        Allocate("b", "tp", 64, stream=second),
        ReduceScatter("tp", B, 32, stream=used),
    )
    return Scenario(PAIR, steps, System(pool))


@pytest.mark.parametrize("pool", ["deferred", "per-group"])
@pytest.mark.parametrize("used", range(STREAMS))
@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 1), (0, 1), (2, 1)])
def test_a_block_returns_to_its_own_stream_whoever_used_it(
    world: World, pool: str, first: int, used: int, second: int
) -> None:
    draw = world.run(reuse(first, used, second, pool))
    one, other = places(draw)
    assert (one == other, segments(draw)) == ((True, [1, 1]) if first == second else (False, [2, 2]))
    assert judge(draw) == []


def test_what_is_right_is_right_on_three_streams(world: World) -> None:
    drawn = [
        *sample(scenarios(4, streams=STREAMS), 40, seed=1),
        *sample(scenarios(4, streams=STREAMS, graphs=True, max_steps=WITH_GRAPHS), 10, seed=1),
    ]
    assert [judge(world.run(scenario)) for scenario in drawn] == [[]] * len(drawn)


def test_buffers_are_used_on_streams_that_are_not_theirs() -> None:
    found = 0
    for drawn in sample(scenarios(4, streams=STREAMS), 60, seed=2):
        own = {step.buffer: step.stream for step in drawn.steps if isinstance(step, Allocate)}
        found += any(
            own[step.whole.buffer] != step.stream for step in drawn.steps if isinstance(step, AllGather | ReduceScatter)
        )
    assert found >= 10


def test_every_stream_is_drawn_where_asked_for_and_one_elsewhere() -> None:
    for streams in (1, 2, STREAMS):
        drawn = sample(scenarios(4, streams=streams), 60, seed=3)
        assert {stream_of(step) for each in drawn for step in each.steps} == {*range(streams)}


@pytest.mark.parametrize("streams", [0, STREAMS + 1])
def test_more_streams_than_there_are_is_refused(streams: int) -> None:
    with pytest.raises(UsageError, match=rf"^{streams} streams are not between 1 and {STREAMS}"):
        sample(scenarios(2, streams=streams), 1, seed=0)


@pytest.mark.parametrize("stream", [-1, STREAMS])
@pytest.mark.parametrize("kind", [Allocate, AllGather, ReduceScatter])
def test_a_stream_that_is_none_is_refused_with_the_step(kind: type, stream: int) -> None:
    steps = {
        Allocate: Allocate("a", "tp", 64, stream=stream),
        AllGather: AllGather("tp", A, 1, stream=stream),
        ReduceScatter: ReduceScatter("tp", A, 1, stream=stream),
    }
    words = rf"\({steps[kind].kind}\): stream {stream} is not one of the {STREAMS} that programs may use$"
    with pytest.raises(ProgramError, match=words):
        Scenario(PAIR, (Allocate("a", "tp", 64), steps[kind])[kind is Allocate :])


def test_a_stream_inside_a_graph_is_refused_and_after_it_is_not() -> None:
    graph = (Allocate("a", "tp", 64), Prepare("g"), Capture("g"))
    call = AllGather("tp", A, 1, stream=1)
    with pytest.raises(ProgramError, match=r"graph 'g' is prepared or captured on a stream of its own, not on 1$"):
        Scenario(PAIR, (*graph, call, EndCapture("g")))
    assert Scenario(PAIR, (*graph, EndCapture("g"), call))


def test_a_buffer_from_outside_is_not_released_in_a_capture() -> None:
    """Its block might wait for other streams, and those cannot be looked at in a capture."""
    graph = (Allocate("a", "tp", 64, stream=1), Prepare("g"), Capture("g"))
    with pytest.raises(ProgramError, match=r"'a' was allocated before the capture of graph 'g' began$"):
        Scenario(PAIR, (*graph, Release("a"), EndCapture("g")))
    assert Scenario(PAIR, (*graph, Allocate("b", "tp", 64), Release("b"), EndCapture("g"), Release("a")))


def test_streams_that_do_not_matter_are_made_plain_and_one_that_does_is_kept() -> None:
    scenario = reuse(1, 2, 1, "deferred")
    kept = []

    def fails(tried: Scenario) -> int | None:
        is_kept = any(isinstance(step, ReduceScatter) and step.stream == 2 for step in tried.steps)
        kept.extend([tried] * is_kept)
        return len(tried.steps) if is_kept else None

    smallest_failing(scenario, fails, len(scenario.steps))
    assert {step.kind: stream_of(step) for step in kept[-1].steps} == {"allocate": 0, "reduce_scatter": 2}
