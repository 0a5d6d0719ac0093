"""The executor: each kind of step does its part on the ranks and the stream it names, and everything is given back."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import pytest

from harness.clock import Clock
from harness.oracle.judge import judge
from harness.rank.executor import Executor
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    STREAMS,
    AllGather,
    Allocate,
    Ballast,
    Deny,
    ReduceScatter,
    Refuse,
    Release,
    Step,
    Straggle,
    Trim,
)
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.strategies.batches import sample
from harness.strategies.programs import WITH_GRAPHS, scenarios
from harness.substrate.bits import bits
from harness.system.boundary import Misshapen, SystemRaised
from harness.system.pools.built_in import load_pool
from harness.trace.draw import Draw
from harness.trace.events import (
    Began,
    Dropped,
    Event,
    Exhausted,
    Lost,
    Placed,
    Ran,
    SegmentAllocated,
    SegmentFreed,
    Skipped,
)
from harness.trace.trace import TEARDOWN, Trace
from harness.world.world import World
from tests.tools.clock import FakeClock
from tests.tools.one_rank import Rank

ONE = Topology("one", "explicit", families_given={"tp": ((0,),)})
PAIR = Topology("pair", "sglang", {"tp": 2})
TWO = Topology("two", "explicit", families_given={"tp": ((0,), (1,))})
A = Allocate("a", "tp", 64)
GATHER = AllGather("tp", View("a"), 32)


def played(
    alone: Rank, *steps: Step, topology: Topology = ONE, time: FakeClock | None = None
) -> list[tuple[int, Event]]:
    """What the first rank records, by step; it is alone in its group."""
    executor = Executor(
        alone.substrate,
        Scenario(topology, steps),
        load_pool("deferred"),
        kernel=None,
        clock=(time or FakeClock()).clock,
    )
    alone.events.clear()
    executor.run()
    return [*Trace(0, tuple(alone.events)).steps()]


def kinds(events: list[tuple[int, Event]], *wanted: type) -> list[tuple[int, str]]:
    return [(step, type(event).__name__) for step, event in events if isinstance(event, wanted)]


def test_every_step_begins_and_then_everything_is_given_back(alone: Rank) -> None:
    events = played(alone, A, GATHER, Trim())
    assert [event for _, event in events if isinstance(event, Began)] == [Began(0), Began(1), Began(2), Began(TEARDOWN)]
    assert kinds(events, Dropped) == [(TEARDOWN, "Dropped")]


def test_buffers_come_and_go_at_their_steps(alone: Rank) -> None:
    events = played(alone, A, Release("a"), Trim())
    assert kinds(events, Placed, Dropped, SegmentFreed) == [(0, "Placed"), (1, "Dropped"), (2, "SegmentFreed")]


def test_a_collective_runs_at_its_step(alone: Rank) -> None:
    events = played(alone, A, GATHER)
    assert [(step, event.path) for step, event in events if isinstance(event, Ran)] == [(1, "copy")]


def test_a_straggler_pauses_by_the_clock_for_as_long_as_its_step_says(alone: Rank) -> None:
    time = FakeClock()
    played(alone, Straggle(0, 400), time=time)
    assert time.slept == [0.4]


def test_the_others_do_not_pause(alone: Rank) -> None:
    time = FakeClock()
    played(alone, Straggle(1, 400), topology=TWO, time=time)
    assert time.slept == []


@pytest.mark.parametrize(("named", "placed"), [(0, [(0, "Placed")]), (1, [])])
def test_ballast_lies_on_its_rank_alone(alone: Rank, named: int, placed: list[tuple[int, str]]) -> None:
    assert kinds(played(alone, Ballast("shift", "tp", named, 1000), topology=TWO), Placed) == placed


@pytest.mark.parametrize("named", [0, 1])
def test_the_next_segment_is_denied_to_the_named_rank_alone(alone: Rank, named: int) -> None:
    events = played(alone, Deny(named), A, topology=TWO)
    assert kinds(events, Exhausted, SegmentAllocated) == [(1, "Exhausted" if named == 0 else "SegmentAllocated")]


@pytest.mark.parametrize("named", [0, 1])
def test_the_next_registration_is_refused_to_the_named_rank_alone(alone: Rank, named: int) -> None:
    played(alone, Refuse(named), topology=TWO)
    assert alone.substrate.refusal.is_due is (named == 0)


def test_a_collective_on_a_buffer_that_was_denied_is_skipped(alone: Rank) -> None:
    events = played(alone, Deny(0), A, GATHER)
    assert kinds(events, Skipped, Ran) == [(2, "Skipped")]


def test_a_plain_buffer_lies_in_no_segment(alone: Rank) -> None:
    events = played(alone, Allocate("a", "tp", 64, role="plain"))
    assert [(event.segment, event.named.ranks) for _, event in events if isinstance(event, Placed)] == [(-1, ())]


def test_a_pool_that_cannot_be_built_is_the_systems_mistake(alone: Rank) -> None:
    class Broken:
        def __init__(self, context: object) -> None:
            raise ValueError("no pool today")

    with pytest.raises(SystemRaised, match="no pool today"):
        Executor(alone.substrate, Scenario(ONE, (A,)), Broken, kernel=None)  # type: ignore[arg-type]


class Proxy:
    """A policy of which one attribute cannot be looked up."""

    def __init__(self, odd: str) -> None:
        self._odd = odd

    def __getattr__(self, name: str) -> Any:
        if name == self._odd:
            raise KeyError(name)
        if name == "close":
            return lambda: None
        if name == "use":
            return lambda group: nullcontext()
        raise AttributeError(name)


@pytest.mark.parametrize("odd", ["agreed", "use", "close"])
def test_a_policy_that_raises_when_it_is_looked_at_is_the_systems_mistake(alone: Rank, odd: str) -> None:
    with pytest.raises(SystemRaised, match=f"^KeyError: '{odd}'$"):
        Executor(alone.substrate, Scenario(ONE, (A,)), lambda _: Proxy(odd), kernel=None)


def test_a_policy_that_cannot_be_closed_any_more_is_the_systems_mistake(alone: Rank) -> None:
    policy = Proxy("nothing")
    executor = Executor(alone.substrate, Scenario(ONE, (A,)), lambda _: policy, kernel=None)
    policy._odd = "close"
    with pytest.raises(SystemRaised, match=r"^KeyError: 'close'$"):
        executor.close()


def test_a_policy_of_the_wrong_shape_is_none_that_raised(alone: Rank) -> None:
    with pytest.raises(Misshapen, match="has no method 'use'"):
        Executor(alone.substrate, Scenario(ONE, (A,)), lambda _: object(), kernel=None)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("is_watched", [True, False], ids=["watched", "not watched"])
@pytest.mark.parametrize(
    ("last", "seen"),
    [((GATHER,), 3), ((Release("a"),), 3), ((), TEARDOWN)],
    ids=["written again", "released", "at the end"],
)
def test_a_result_that_does_not_stay_is_recorded_when_it_is_due(
    alone: Rank, monkeypatch: pytest.MonkeyPatch, is_watched: bool, last: tuple[Step, ...], seen: int
) -> None:
    """While the rank pauses, a write of somebody lands."""
    monkeypatch.setattr(alone.substrate, "compares_always", is_watched)
    played = Scenario(ONE, (A, GATHER, Straggle(0, 1), *last), seed=1)
    executor = Executor(alone.substrate, played, load_pool("deferred"), None, Clock(time.monotonic, lambda _: spoil()))

    def spoil() -> None:
        bits(executor._buffers["a"].body)[5] += 1

    alone.events.clear()
    executor.run()
    lost = [(step, event) for step, event in Trace(0, tuple(alone.events)).steps() if isinstance(event, Lost)]
    assert [(step, event.call, event.index, event.since) for step, event in lost] == [(seen, 1, 5, 1)]


# streams, on ranks


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
        AllGather("tp", View("a"), 32, stream=used),
        Release("a"),
        Allocate("b", "tp", 64, stream=second),
        ReduceScatter("tp", View("b"), 32, stream=used),
    )
    return Scenario(PAIR, steps, System(pool))


@pytest.mark.parametrize("pool", ["deferred", "per-group"])
@pytest.mark.parametrize("used", range(STREAMS))
@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 1), (0, 1), (2, 1)])
def test_a_block_returns_to_its_own_stream_whoever_used_it(
    simulation: World, pool: str, first: int, used: int, second: int
) -> None:
    draw = simulation.run(reuse(first, used, second, pool))
    one, other = places(draw)
    assert (one == other, segments(draw)) == ((True, [1, 1]) if first == second else (False, [2, 2]))
    assert judge(draw) == []


def test_what_is_right_is_right_on_three_streams(simulation: World) -> None:
    drawn = [
        *sample(scenarios(4, streams=STREAMS), 40, seed=1),
        *sample(scenarios(4, streams=STREAMS, graphs=True, max_steps=WITH_GRAPHS), 10, seed=1),
    ]
    assert [judge(simulation.run(scenario)) for scenario in drawn] == [[]] * len(drawn)
