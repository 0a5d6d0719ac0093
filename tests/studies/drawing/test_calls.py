"""A call before it runs: its size, its values, its place, and the path that is open to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from harness.scenario.alive import Alive
from harness.scenario.operands import View
from harness.scenario.placement import Placement
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    AllGather,
    Allocate,
    AllReduce,
    AllToAll,
    Broadcast,
    Collective,
    Recreate,
    Reduce,
    ReduceScatter,
    SendReceive,
    Step,
)
from harness.scenario.topology import Topology
from harness.strategies.batches import sample
from harness.strategies.programs import scenarios
from harness.studies.drawing.calls import OPEN, PATHS, VALUES, Call, offset, place
from harness.trace.events import Ran
from harness.world.world import World

PAIRS = Topology("pairs", "explicit", families_given={"tp": ((0, 1), (2, 3)), "all": ((0, 1, 2, 3),)})
TRIO = Topology("trio", "explicit", families_given={"tp": ((0, 1, 2),)})
ALONE = Topology("alone", "explicit", families_given={"tp": ((0,), (1,))})
APART = Topology("apart", "explicit", families_given={"tp": ((0, 1),)}, placement=Placement(2, 1))
A, B = View("a"), View("b")


def call(step: Collective, *before: Step, topology: Topology = PAIRS, dtype: Any = "float32") -> Call:
    """The step in the first of its groups, after buffers `a` and `b` in windows of `tp`, and `c` in ordinary memory."""
    alive = Alive(topology)
    made = (*(Allocate(name, "tp", 64, dtype) for name in "ab"), Allocate("c", "tp", 64, dtype, "plain"))
    steps = (*made, *before, step)
    scenario = Scenario(topology, steps)  # it can be run
    for each in steps[:-1]:
        alive.take(each)
    return Call(step, scenario.acting(step)[0], alive)


SIZES: dict[str, tuple[Collective, int]] = {
    "an all-gather: what a rank gives": (AllGather("tp", A, 3), 12),
    "a reduce-scatter: what a rank gets": (ReduceScatter("tp", A, 3), 12),
    "an all-reduce": (AllReduce("tp", A, 3), 12),
    "an all-to-all: what a rank gives all others": (AllToAll("tp", A, 3), 24),
    "a broadcast: what the root gives": (Broadcast("tp", A, 3, root=1), 12),
    "a reduce": (Reduce("tp", A, 3), 12),
    "a send": (SendReceive("tp", A, 3, B), 12),
    "unequal counts: the largest": (AllGather("tp", A, (1, 5, 1, 1)), 20),
    "nothing": (AllGather("tp", A, 0), 0),
}


@pytest.mark.parametrize("what", SIZES)
def test_a_call_has_the_bytes_of_its_smaller_operand(what: str) -> None:
    step, size = SIZES[what]
    assert call(step).bytes == size


def test_bytes_go_by_the_type() -> None:
    assert call(AllGather("tp", A, 3), dtype="bfloat16").bytes == 6


@pytest.mark.parametrize(
    ("step", "dtype", "values"),
    [
        (AllGather("tp", A, 1), "float32", "any bits"),
        (AllReduce("tp", A, 1, op="max"), "float32", "any number"),
        (AllReduce("tp", A, 1), "int32", "integers"),
        (AllReduce("tp", A, 1), "float32", "exact sums"),
        (AllReduce("tp", A, 1, op="avg"), "float32", "exact sums"),
        (AllReduce("tp", A, 1), "bfloat16", "exact sums"),
        (AllReduce("tp", A, 1, via="kernel"), "float32", "exact sums"),
        (AllReduce("tp", A, 1, via="kernel"), "bfloat16", "sums that round once"),
    ],
)
def test_operation_type_and_way_decide_the_values(step: Collective, dtype: str, values: str) -> None:
    assert call(step, dtype=dtype).values == values


def test_an_average_over_three_has_a_bound() -> None:
    assert call(AllReduce("tp", A, 1, op="avg"), topology=TRIO).values == "averages within a bound"


PATH: dict[str, Call] = {
    OPEN: call(AllGather("tp", A, 1)),
    "a kernel's": call(AllGather("tp", A, 1, via="kernel")),
    "one rank": call(AllGather("tp", A, 1), topology=ALONE),
    "no such NCCL kernel": call(Broadcast("tp", A, 1)),
    "unequal counts": call(AllGather("tp", A, (1, 2, 1, 1))),
    "no windows there": call(AllGather("tp", A, 1), topology=APART),
    "an operand outside windows": call(AllReduce("tp", A, 1, source=View("c"))),
    "no elements": call(AllGather("tp", A, 0)),
    "op not reduced": call(AllReduce("tp", A, 1, op="max")),
    "type not reduced": call(AllReduce("tp", A, 1), dtype="int32"),
    "copy engines": call(AllToAll("tp", A, 1, via="copy-engine")),
}


@pytest.mark.parametrize("why", PATHS)
def test_a_path_is_open_or_closed_for_the_reason_that_is_named(why: str) -> None:
    assert PATH[why].path == why


def test_an_operand_that_no_peer_reaches_may_lie_in_ordinary_memory() -> None:
    assert call(AllGather("tp", A, 1, source=View("c"))).path == OPEN


def test_a_window_of_another_communicator_is_none() -> None:
    assert call(AllGather("all", A, 1)).path == "an operand outside windows"


def test_a_window_goes_with_its_communicator() -> None:
    assert call(AllGather("tp", A, 1), Recreate("tp")).path == "an operand outside windows"


@pytest.mark.parametrize(
    ("source", "where"),
    [(None, "in place"), (B, "other operand in a window"), (View("c"), "other operand in plain memory")],
)
def test_a_place_is_that_of_the_other_operand(source: View | None, where: str) -> None:
    made = call(AllGather("tp", A, 1, source=source))
    assert place(made.step, made.alive) == where


@pytest.mark.parametrize(("elements", "where"), [(0, "zero"), (1, "near"), (64, "near"), (65, "far"), ((0, 65), "far")])
def test_an_offset_is_the_farthest_of_any_rank(elements: Any, where: str) -> None:
    assert offset(View("a", elements)) == where


def each_call(scenario: Scenario) -> Iterator[tuple[int, Call]]:
    """Every call of a scenario, with its step."""
    alive = Alive(scenario.topology)
    for index, step in enumerate(scenario.steps):
        if isinstance(step, Collective):
            yield from ((index, Call(step, group, alive)) for group in scenario.acting(step))
        alive.take(step)


def test_calls_take_the_symmetric_path_on_ranks_where_it_is_open(simulation: World) -> None:
    paths: dict[str, set[str]] = {OPEN: set()}
    for scenario in sample(scenarios(4, via="library", max_steps=16), 40, seed=3):
        draw = simulation.run(scenario)
        ran = {
            (trace.rank, index): event.path
            for trace in draw.traces
            for index, event in trace.steps()
            if isinstance(event, Ran)
        }
        for index, made in each_call(scenario):
            paths.setdefault(made.path, set()).update(ran[rank, index] for rank in made.group.ranks)
    assert paths[OPEN] == {"symmetric"}
    by_window = {"op not reduced", "type not reduced", "no elements"}  # the simulation does not look at these
    closed = {why for why in paths if why != OPEN} - by_window
    assert len(closed) > 3
    assert not [why for why in closed if "symmetric" in paths[why]]


def test_every_kind_of_values_and_paths_has_a_name_of_its_own() -> None:
    assert len({*VALUES, *PATHS}) == len(VALUES) + len(PATHS)
