"""The harness finds nothing in right systems of unusual designs, and each of them does in draws what is unusual."""

from __future__ import annotations

from collections import Counter
from functools import cache, partial

import pytest
from msgspec.structs import replace

from harness.oracle.judge import examine
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, AllReduce, AllToAll, Broadcast, Recreate, ReduceScatter, Step
from harness.scenario.system import System
from harness.strategies.programs import scenarios
from harness.strategies.topologies import topologies
from harness.substrate.sim.allocator import LARGE_SEGMENT
from harness.trace.draw import Draw
from harness.trace.events import SMALL_SEGMENT, Ran, Registered, SegmentAllocated
from harness.world.world import World
from tests.tools.designs import events, run
from tests.tools.drawn import sample
from tests.tools.scenes import SOUND, SQUARE, TURNED, rules
from tests.tools.unusual.arena import CHUNK

UNUSUAL = "tests.tools.unusual"
KERNELS = {
    "collectives:RingGather": ["all_gather"],
    "collectives:Doubling": ["all_gather", "broadcast"],
    "collectives:TwoPhases": ["all_reduce"],
    "collectives:Leader": ["all_gather", "all_reduce", "all_to_all"],
    "collectives:Rotates": ["all_gather", "reduce_scatter", "all_reduce"],
    "staged:Staged": ["all_gather", "reduce_scatter", "all_reduce"],
    "staged:RingSums": ["reduce_scatter", "all_reduce"],
    "staged:TreeSums": ["reduce_scatter", "all_reduce"],
}
"""The operations that each has a form of its own of."""
POOLS = [f"pools:{name}" for name in ("NewestFirst", "SameRanks", "PoolPerStream", "Ahead", "TakesTurns")]
POOLS += ["arena:Arena"]
DRAWS = 18


def with_kernels(name: str) -> System:
    """Collectives with the pool that they need."""
    pool = f"{UNUSUAL}.staged:WithWorkspace" if name.startswith("staged") else SOUND.pool
    return System(pool, f"{UNUSUAL}.{name}")


@cache
def drawn(is_by_kernel: bool, streams: int = 3) -> list[Scenario]:
    """Clean draws of two ranks and more: every call by kernel, or some, with graphs."""
    via = "kernel" if is_by_kernel else "mixed"
    layouts = topologies(4).filter(lambda topology: topology.world > 1)
    of = partial(scenarios, 4, topologies=layouts, graphs=not is_by_kernel, streams=streams, falling=False)
    return sample(of(via=via), DRAWS)


def ran(ranks: World, system: System, is_by_kernel: bool, streams: int = 3) -> tuple[list[Draw], list[str], int]:
    """All draws on a system, the rules that any has broken, and how many draws were vacuous."""
    draws = [ranks.run(replace(each, system=system)) for each in drawn(is_by_kernel, streams)]
    verdicts = [examine(draw) for draw in draws]
    return draws, rules([found for each in verdicts for found in each.findings]), sum(v.is_vacuous for v in verdicts)


@pytest.mark.parametrize("name", KERNELS)
def test_the_harness_finds_nothing_in_draws_on_unusual_collectives(name: str, ranks: World) -> None:
    draws, broken, vacuous = ran(ranks, with_kernels(name), is_by_kernel=True)
    assert (len(draws), broken) == (DRAWS, [])
    assert vacuous < DRAWS // 2
    assert sum(1 for draw in draws if by_kernel(draw)) > DRAWS // 2


@pytest.mark.parametrize("name", POOLS)
def test_the_harness_finds_nothing_in_draws_on_unusual_pools(name: str, ranks: World) -> None:
    # an arena of its own knows no streams, so that it is right on one alone
    streams = 1 if name == "arena:Arena" else 3
    draws, broken, vacuous = ran(ranks, System(f"{UNUSUAL}.{name}"), False, streams)
    assert (len(draws), broken) == (DRAWS, [])
    assert vacuous < DRAWS // 2
    assert sum(any(events(draw, Registered)) for draw in draws) > DRAWS // 2


def by_kernel(draw: Draw) -> Counter[str]:
    """Calls that the kernel under test ran in groups of more than one rank, on all ranks, by kind."""
    steps = draw.scenario.steps
    return Counter(
        steps[index].kind
        for trace in draw.traces
        for index, event in trace.steps()
        if isinstance(event, Ran) and event.path == "kernel"
        if (group := draw.scenario.group_of(steps[index], trace.rank)) is not None and len(group.ranks) > 1
    )


def every_kind(family: str, dtype: str) -> tuple[Step, ...]:
    """A call of each kind, and of each form, whose sizes no number of ranks divides."""
    a, b = (f"{family} {dtype} {name}" for name in "ab")
    return (
        Allocate(a, family, 67, dtype),  # type: ignore[arg-type]
        Allocate(b, family, 67, dtype),  # type: ignore[arg-type]
        AllGather(family, View(a), 13, via="kernel"),
        AllGather(family, View(a), 13, View(b), via="kernel"),
        ReduceScatter(family, View(a), 13, via="kernel", op="max"),
        ReduceScatter(family, View(a), 13, View(b), via="kernel"),
        AllReduce(family, View(a), 67, via="kernel"),
        AllReduce(family, View(a), 3, View(b), via="kernel", op="min"),
        AllToAll(family, View(a), 13, View(b), via="kernel"),
        Broadcast(family, View(a), 67, 1, via="kernel"),
    )


FORMS = {"all_gather": 2, "reduce_scatter": 2, "all_reduce": 2, "all_to_all": 1, "broadcast": 1}
EVERY_KIND = tuple(
    step for family in ("tp", "cp") for dtype in ("float32", "bfloat16", "int32") for step in every_kind(family, dtype)
)


@pytest.mark.parametrize("name", KERNELS)
def test_unusual_collectives_run_every_form_of_their_operations(name: str, ranks: World) -> None:
    draw = ranks.run(Scenario(SQUARE, EVERY_KIND, with_kernels(name)))
    assert rules(examine(draw).findings) == []
    calls, families_and_dtypes = by_kernel(draw), 2 * 3
    assert {kind: calls[kind] for kind in KERNELS[name]} == {
        kind: 4 * families_and_dtypes * FORMS[kind] for kind in KERNELS[name]
    }


GROWN = tuple(
    step
    for number, elements in enumerate((64, SMALL_SEGMENT, SMALL_SEGMENT, 64))
    for step in (Allocate(f"b{number}", "tp", elements, stream=number % 2), AllGather("tp", View(f"b{number}"), 1))
)
"""Four buffers of one group, of two streams, of which two are large."""


def taken(ranks: World, name: str) -> list[tuple[str, int]]:
    """Name and size of the pool's segments on rank 0, in the order in which they came."""
    draw = run(ranks, *GROWN, pool=f"{UNUSUAL}.{name}")
    assert rules(examine(draw).findings) == []
    return [(event.pool, event.size) for event in events(draw, SegmentAllocated)[0]]


def test_newest_first_registers_the_segment_that_came_last_before_the_others(ranks: World) -> None:
    draw = run(ranks, *GROWN, Recreate("tp"), Allocate("c", "tp", 64), pool=f"{UNUSUAL}.pools:NewestFirst")
    assert rules(examine(draw).findings) == []
    segments = [event.segment for event in events(draw, Registered)[0]]
    again = segments[len({*segments}) :]
    assert again == sorted({*segments}, reverse=True)
    assert len(again) > 1


def test_same_ranks_registers_a_segment_with_both_communicators_over_its_ranks(ranks: World) -> None:
    steps = (
        *(Allocate("c", "cp", 64), Allocate("t", "tp", 64)),
        *(AllGather("tp", View("t"), 1), AllGather("cp", View("c"), 1)),
    )
    draw = run(ranks, *steps, pool=f"{UNUSUAL}.pools:SameRanks", topology=TURNED)
    assert rules(examine(draw).findings) == []
    for trace in draw.traces:
        registered = [event for event in trace.events if isinstance(event, Registered)]
        assert len({event.segment for event in registered}) == 1
        assert len({event.comm for event in registered}) == 2


def test_a_pool_per_stream_takes_segments_for_each(ranks: World) -> None:
    assert len({pool for pool, _ in taken(ranks, "pools:PoolPerStream")}) == 2


def test_ahead_has_a_large_segment_before_the_first_large_buffer(ranks: World) -> None:
    assert [size for _, size in taken(ranks, "pools:Ahead")][:2] == [SMALL_SEGMENT, LARGE_SEGMENT]


def test_pools_that_take_turns_both_grow(ranks: World) -> None:
    assert len({pool for pool, _ in taken(ranks, "pools:TakesTurns")}) == 2


def test_an_arena_takes_one_piece_for_small_buffers_and_another_for_one_that_does_not_fit(ranks: World) -> None:
    sizes = [size for _, size in taken(ranks, "arena:Arena")]
    assert sizes[0] == CHUNK
    assert len(sizes) < 4
