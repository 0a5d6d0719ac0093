"""Strategies: what is drawn can be executed, reaches every corner, is harmless unless asked, and shrinks to little."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from random import Random
from typing import get_args

import pytest
from hypothesis import HealthCheck, Phase, find, given, seed, settings
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.scenario.bases import Op
from harness.scenario.hazards import hazards
from harness.scenario.operands import GUARD, ITEMSIZE, View, at
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Collective, Recreate, ReduceScatter, Step
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.scenario.validity import check
from harness.strategies.actions import LARGE_COUNTS, Action
from harness.strategies.builder import Builder
from harness.strategies.programs import HAZARDS, programs, scenarios
from harness.strategies.topologies import layouts, topologies

WORLD, MANY = 8, 300
QUAD = Topology(name="quad", convention="sglang", degrees={"tp": 4, "attn_dp": 2})
PAIR = Topology(name="pair", convention="vllm", degrees={"tp": 2})
MIXED = Topology(
    name="mixed", convention="explicit", families_given={"odd": ((0, 1, 2), (3,)), "even": ((0, 1), (2, 3))}
)
HARMLESS = {"allocate", "release", "all_gather", "reduce_scatter", "trim", "recreate", "straggle"}
SETTINGS = settings(
    deadline=None,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def sample(strategy: st.SearchStrategy[Scenario], draws: int) -> list[Scenario]:
    """Different scenarios, the same every time; in short runs, because a long one mutates what it has drawn."""
    found: dict[Scenario, None] = {}

    @settings(SETTINGS, max_examples=12, phases=[Phase.generate])
    @given(strategy)
    def collect(drawn: Scenario) -> None:
        found[drawn] = None

    for batch in range(draws // 6):
        seed(batch)(collect)()
    return list(found)[:draws]


@cache
def harmless() -> list[Scenario]:
    return sample(scenarios(WORLD), MANY)


@cache
def hazardous() -> list[Scenario]:
    return sample(scenarios(WORLD, hazards=HAZARDS), 100)


def steps() -> Iterator[Step]:
    return (step for drawn in harmless() for step in drawn.steps)


def collectives() -> Iterator[Collective]:
    return (step for step in steps() if isinstance(step, AllGather | ReduceScatter))


def is_collective(step: Step) -> bool:
    return isinstance(step, AllGather | ReduceScatter)


# what is drawn can be executed


@SETTINGS
@given(data=st.data(), world=st.integers(1, 16))
def test_drawn_scenario_fits_the_world(data: st.DataObject, world: int) -> None:
    assert data.draw(scenarios(world)).world <= world


@SETTINGS
@given(topology=layouts(WORLD), data=st.data())
def test_program_drawn_for_a_topology_is_valid_on_it(topology: Topology, data: st.DataObject) -> None:
    check(topology, data.draw(programs(topology, hazards=HAZARDS)))


@SETTINGS
@given(data=st.data())
def test_program_drawn_for_groups_of_different_width_is_valid(data: st.DataObject) -> None:
    check(MIXED, data.draw(programs(MIXED, hazards=HAZARDS)))


@pytest.mark.parametrize("max_steps", [3, 4, 9, 16, 40])
def test_drawn_program_has_at_most_the_steps_asked_for(max_steps: int) -> None:
    @SETTINGS
    @given(drawn=programs(QUAD, hazards=HAZARDS, max_steps=max_steps))
    def fits(drawn: tuple[Step, ...]) -> None:
        assert len(drawn) <= max_steps

    fits()


def test_program_of_at_most_two_steps_has_no_third() -> None:
    assert len(Builder(PAIR, 2).build([], act("all_gather", part="plain"))) <= 2


@pytest.mark.parametrize("max_steps", [3, 16])
def test_drawn_program_has_a_collective(max_steps: int) -> None:
    @SETTINGS
    @given(drawn=programs(QUAD, hazards=HAZARDS, max_steps=max_steps))
    def has_one(drawn: tuple[Step, ...]) -> None:
        assert any(is_collective(step) for step in drawn)

    has_one()


def test_largest_collective_fits_the_largest_named_topologies() -> None:
    action = act("all_gather", count=max(LARGE_COUNTS), dtype="float32", spread=100)
    sixteen = Topology(name="sixteen", convention="sglang", degrees={"tp": 16})
    check(sixteen, Builder(sixteen, 16).build([], action))


def test_largest_collective_fits_a_world_of_512_ranks() -> None:
    action = act("all_gather", count=max(LARGE_COUNTS), dtype="float32")
    wide = Topology(name="wide", convention="sglang", degrees={"tp": 512})
    check(wide, Builder(wide, 16).build([], action))


def test_system_under_test_is_the_one_asked_for() -> None:
    system = System(pool="shared-at-alloc", collectives="package.module:Kernels")
    assert {drawn.system for drawn in sample(scenarios(2, system=system), 10)} == {system}


@pytest.mark.parametrize(("via", "paths"), [("library", {"library"}), ("kernel", {"kernel"})])
def test_via_sends_every_collective_but_maxima_one_way(via: str, paths: set[str]) -> None:
    drawn = sample(scenarios(4, via=via), 40)  # type: ignore[arg-type]
    found = [step for scenario in drawn for step in scenario.steps if isinstance(step, AllGather | ReduceScatter)]
    assert {step.via for step in found if getattr(step, "op", "sum") != "max"} == paths


def test_named_topologies_replace_the_drawn_ones() -> None:
    drawn = sample(scenarios(4, topologies=topologies(4, named=[QUAD, PAIR])), 40)
    assert {scenario.topology for scenario in drawn} == {QUAD, PAIR}


def test_named_topology_that_does_not_fit_is_refused_with_both_sizes() -> None:
    with pytest.raises(UsageError, match="topology 'quad' has 4 ranks; the largest world to draw has 2"):
        topologies(2, named=[PAIR, QUAD])


# every corner turns up: counted over the same draws each time


def seldom(found: Iterable[object], expected: Iterable[object], at_least: int = 10) -> list[object]:
    """What of `expected` turns up less than `at_least` times."""
    counts = Counter(found)
    return [value for value in expected if counts[value] < at_least]


def test_every_convention_is_drawn() -> None:
    conventions = (drawn.topology.convention for drawn in harmless())
    assert not seldom(conventions, ["sglang", "vllm", "megatron"], at_least=MANY // 10)


def test_every_world_of_two_to_eight_ranks_is_drawn() -> None:
    assert not seldom((drawn.world for drawn in harmless()), range(2, WORLD + 1))


def test_topologies_that_ship_are_drawn_beside_random_ones() -> None:
    random = Counter(drawn.topology.name == "drawn" for drawn in harmless())
    assert min(random[True], random[False]) >= MANY // 10


def test_every_harmless_kind_of_step_is_drawn() -> None:
    assert not seldom((step.kind for step in steps()), HARMLESS)


def test_every_hazardous_kind_of_step_is_drawn_when_asked_for() -> None:
    kinds = (step.kind for drawn in hazardous() for step in drawn.steps)
    assert not seldom(kinds, {*HARMLESS, "ballast", "deny"})


@pytest.mark.parametrize("kind", ["all_gather", "reduce_scatter"])
@pytest.mark.parametrize("via", ["library", "kernel"])
@pytest.mark.parametrize("part", ["in place", "plain", "window"])
def test_every_collective_is_drawn_on_every_path_with_every_part(kind: str, via: str, part: str) -> None:
    drawn = [
        (step.kind, step.via, part_of(step, scenario))
        for scenario in harmless()
        for step in scenario.steps
        if isinstance(step, AllGather | ReduceScatter)
    ]
    assert drawn.count((kind, via, part)) >= 10


def part_of(step: Collective, scenario: Scenario) -> str:
    if step.part is None:
        return "in place"
    return next(s.role for s in scenario.steps if isinstance(s, Allocate) and s.buffer == step.part.buffer)


def test_every_dtype_is_drawn() -> None:
    assert not seldom((step.dtype for step in steps() if isinstance(step, Allocate)), ITEMSIZE)


def test_every_reduction_is_drawn() -> None:
    assert not seldom((step.op for step in steps() if isinstance(step, ReduceScatter)), get_args(Op))


def test_offsets_of_both_operands_are_drawn() -> None:
    views = [(step.whole, step.part) for step in collectives()]
    assert sum(whole.offset > 0 for whole, _ in views) >= 20
    assert sum(part is not None and part.offset > 0 for _, part in views) >= 20


def test_counts_that_differ_between_groups_are_drawn() -> None:
    assert sum(isinstance(step.count, tuple) and len(set(step.count)) > 1 for step in collectives()) >= 20


@pytest.mark.parametrize("count", [1, 127, 128, 129, 1023, 1025, 4097, 32769, 65537])
def test_counts_on_both_sides_of_the_block_sizes_are_drawn(count: int) -> None:
    drawn = (at(step.count, 0) for step in collectives())
    assert any(found == count for found in drawn)


def test_odd_and_even_counts_are_drawn() -> None:
    assert not seldom((at(step.count, 0) % 2 for step in collectives()), [0, 1], at_least=MANY // 4)


@pytest.mark.parametrize("boundary", [512, 1 << 20, 2 << 20, 10 << 20, 20 << 20])
@pytest.mark.parametrize("side", [-1, 0, 1])
def test_buffers_on_both_sides_of_the_size_classes_are_drawn(boundary: int, side: int) -> None:
    wanted = {boundary + side * size for size in ITEMSIZE.values()}
    sizes = ((at(step.elements, 0) + GUARD) * ITEMSIZE[step.dtype] for step in steps() if isinstance(step, Allocate))
    assert any(size in wanted for size in sizes)


def test_buffers_are_used_more_than_once() -> None:
    uses = [
        Counter(s.whole.buffer for s in drawn.steps if isinstance(s, AllGather | ReduceScatter)) for drawn in harmless()
    ]
    assert sum(max(count.values()) > 1 for count in uses) >= MANY // 10


def test_two_families_with_different_groups_meet_in_one_program() -> None:
    assert sum(len({len(group) for group in wide(drawn)}) > 1 for drawn in harmless()) >= 20


# without hazards a program is right by construction


def test_program_without_hazards_has_none() -> None:
    assert {hazard for drawn in harmless() for hazard in hazards(drawn.steps, drawn.topology)} == set()


@pytest.mark.parametrize("hazard", HAZARDS)
def test_hazard_turns_up_alone_when_asked_for_alone(hazard: str) -> None:
    drawn = sample(scenarios(WORLD, hazards=(hazard,)), 60)  # type: ignore[arg-type]
    found = [hazards(scenario.steps, scenario.topology) for scenario in drawn]
    assert {*found} == {frozenset(), frozenset({hazard})}


def test_window_buffer_is_used_only_by_the_groups_it_was_allocated_for() -> None:
    for drawn in harmless():
        partitions = drawn.topology.families
        owner = {s.buffer: partitions[s.family] for s in drawn.steps if isinstance(s, Allocate) and s.role == "window"}
        for step in drawn.steps:
            if isinstance(step, AllGather | ReduceScatter):
                assert owner[step.whole.buffer] == partitions[step.family]


def test_window_buffer_is_not_used_after_its_communicator_was_replaced() -> None:
    for drawn in harmless():
        assert not stale_uses(drawn.topology, drawn.steps)


def test_window_buffer_is_no_part_of_a_call_after_its_communicator_was_replaced() -> None:
    allocate, recreate = act("allocate", count=8), act("recreate")
    gather = act("all_gather", fresh=True, count=8, part="window")
    assert not stale_uses(PAIR, Builder(PAIR, 16).build([allocate, recreate], gather))


def stale_uses(topology: Topology, program: Iterable[Step]) -> list[View]:
    """Operands in windows of communicators that a step before has replaced."""
    owned: dict[str, Allocate] = {}
    stale: set[str] = set()
    found: list[View] = []
    for step in program:
        match step:
            case Allocate(role="window"):
                owned[step.buffer] = step
            case Recreate():
                gone = {*topology.families[step.family]}
                stale |= {name for name, own in owned.items() if gone & {*topology.families[own.family]}}
            case AllGather() | ReduceScatter():
                found += [view for view in (step.whole, step.part) if view is not None and view.buffer in stale]
    return found


def act(kind: str, **fields: object) -> Action:
    """An action with the simplest value in every field that is not given."""
    simple: dict[str, object] = dict.fromkeys(("family", "buffer", "spread", "room", "slack", "offset"), 0)
    simple |= {"fresh": False, "count": 1, "dtype": "float32", "op": "sum", "part": "in-place", "via": "library"}
    return Action(kind=kind, **{**simple, "uneven": False, "stream": 0, **fields})  # type: ignore[arg-type]


# shrinking


def smallest(condition: Callable[[Scenario], bool], luck: int) -> Scenario:
    patient = settings(SETTINGS, max_examples=2000, phases=[Phase.generate, Phase.shrink])
    return find(scenarios(WORLD), condition, settings=patient, random=Random(luck))


def wide(drawn: Scenario) -> list[tuple[int, ...]]:
    return [group for group in drawn.groups if len(group) > 1]


@pytest.mark.parametrize("luck", [0, 2])
def test_scenario_with_an_all_gather_shrinks_to_two_ranks_and_two_steps_in_float32(luck: int) -> None:
    least = smallest(lambda drawn: any(isinstance(step, AllGather) for step in drawn.steps), luck)
    dtypes = {step.dtype for step in least.steps if isinstance(step, Allocate)}
    assert (least.world, len(least.steps), dtypes) == (2, 2, {"float32"})


def test_scenario_with_two_groups_shrinks_to_four_ranks_at_most() -> None:
    assert smallest(lambda drawn: len(wide(drawn)) > 1, luck=0).world <= 4
