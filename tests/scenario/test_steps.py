"""Programs and scenarios as data: frozen, hashable, the same after JSON, and refused when JSON holds nonsense."""

from __future__ import annotations

import re
from typing import get_args

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from harness.scenario.hazards import hazards
from harness.scenario.operands import View, at
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    AllGather,
    Allocate,
    Ballast,
    Capture,
    Deny,
    EndCapture,
    Prepare,
    ProgramError,
    Recreate,
    ReduceScatter,
    Release,
    Replay,
    Steady,
    Step,
    Straggle,
    Trim,
)
from harness.scenario.system import System
from harness.scenario.topology import Placement, Topology
from harness.strategies.programs import HAZARDS, scenarios

QUAD = Topology(name="quad", convention="sglang", degrees={"tp": 4, "attn_dp": 2})
EVERY_KIND: list[Step] = [
    Allocate("a", "tp", 64),
    Release("a"),
    AllGather("tp", View("a"), 4),
    ReduceScatter("tp", View("a"), 4),
    Ballast("a", "tp", 1, 512),
    Trim(),
    Recreate("tp"),
    Straggle(3, 20),
    Deny(2),
    Steady(),
    Prepare("g"),
    Capture("g"),
    EndCapture("g"),
    Replay("g"),
]
EVERY_FIELD: list[Step] = [
    Allocate("a", "attn_tp", (1, 1, 7, 7), "bfloat16", "plain"),
    AllGather("attn_tp", View("a", 3), (1, 1, 2, 2), View("b", 5), "kernel", claim=True),
    ReduceScatter("attn_tp", View("a", 3), (1, 1, 2, 2), View("b", 5), "avg", "kernel", claim=True),
]
ALLOCATE, GATHER = Allocate("a", "tp", 64), AllGather("tp", View("a"), 4)


def named(step: Step) -> str:
    return step.kind


def decoded(text: bytes | str) -> Step:
    return msgspec.json.decode(text, type=Step)


def scenario(*steps: Step, topology: Topology = QUAD, seed: int = 0) -> Scenario:
    return Scenario(topology, steps, seed=seed)


# steps


def test_the_step_of_every_kind_is_tried_here() -> None:
    assert {type(step) for step in EVERY_KIND} == {*get_args(Step)}


@pytest.mark.parametrize("step", [*EVERY_KIND, *EVERY_FIELD], ids=named)
def test_step_survives_json(step: Step) -> None:
    assert decoded(msgspec.json.encode(step)) == step


@pytest.mark.parametrize("step", [*EVERY_KIND, *EVERY_FIELD], ids=named)
def test_step_has_the_hash_of_its_copy_from_json(step: Step) -> None:
    assert hash(decoded(msgspec.json.encode(step))) == hash(step)


@pytest.mark.parametrize("step", EVERY_KIND, ids=named)
def test_step_is_tagged_with_its_kind_in_json(step: Step) -> None:
    assert msgspec.json.decode(msgspec.json.encode(step))["kind"] == step.kind


@pytest.mark.parametrize("step", [step for step in EVERY_KIND if step.__struct_fields__], ids=named)
def test_step_is_frozen(step: Step) -> None:
    with pytest.raises(AttributeError, match="immutable"):
        setattr(step, step.__struct_fields__[0], "changed")


@pytest.mark.parametrize(
    ("text", "offender"),
    [
        ('{"kind": "all_reduce", "family": "tp"}', "'all_reduce'"),
        ('{"kind": "trim", "pool": "tp"}', "`pool`"),
        ('{"kind": "release"}', "`buffer`"),
        ('{"kind": "allocate", "buffer": "a", "family": "tp", "elements": 8, "dtype": "float64"}', "'float64'"),
        ('{"kind": "allocate", "buffer": "a", "family": "tp", "elements": [8, "9"]}', "`$.elements[1]`"),
        ('{"kind": "all_gather", "family": "tp", "output": "a", "count": 8}', "`$.output`"),
        ('{"kind": "reduce_scatter", "family": "tp", "source": {"buffer": "a"}, "count": 8, "op": "min"}', "'min'"),
    ],
)
def test_json_that_is_no_step_is_refused_by_name(text: str, offender: str) -> None:
    with pytest.raises(msgspec.ValidationError) as error:
        decoded(text)
    assert offender in str(error.value)


@pytest.mark.parametrize(("rank", "count"), [(0, 5), (1, 7)])
def test_count_of_a_rank_is_its_own_where_they_differ(rank: int, count: int) -> None:
    assert at((5, 7), rank) == count


def test_count_of_a_rank_is_the_one_for_all_where_there_is_one() -> None:
    assert at(5, 7) == 5


# scenarios


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=scenarios(world=8, hazards=HAZARDS))
def test_drawn_scenario_survives_json(drawn: Scenario) -> None:
    assert msgspec.json.decode(msgspec.json.encode(drawn), type=Scenario) == drawn


@settings(deadline=None, max_examples=30, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
@given(drawn=scenarios(world=8, hazards=HAZARDS))
def test_drawn_scenario_survives_the_way_to_the_ranks(drawn: Scenario) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(drawn), type=Scenario) == drawn


@settings(deadline=None, max_examples=30, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
@given(drawn=scenarios(world=8, hazards=HAZARDS))
def test_drawn_scenario_has_the_hash_of_its_copy_from_json(drawn: Scenario) -> None:
    assert len({drawn, msgspec.json.decode(msgspec.json.encode(drawn), type=Scenario)}) == 1


@pytest.mark.parametrize(
    "topology",
    [
        Topology(name="two nodes", convention="vllm", degrees={"tp": 2}, placement=Placement(2, 1, ((1,), (0,)))),
        Topology(name="ring", convention="explicit", families_given={"tp": ((1, 0), (2,))}, note="out of order"),
    ],
    ids=lambda topology: topology.name,
)
def test_scenario_survives_json_with_all_that_its_topology_says(topology: Topology) -> None:
    whole = Scenario(topology, (Trim(),), System("shared-at-alloc", "package.module:Kernels"), seed=255)
    assert msgspec.json.decode(msgspec.json.encode(whole), type=Scenario) == whole


@pytest.mark.parametrize("field", Scenario.__struct_fields__)
def test_scenario_is_frozen(field: str) -> None:
    with pytest.raises(AttributeError, match="immutable"):
        setattr(scenario(Trim()), field, None)


@pytest.mark.parametrize(
    "other",
    [
        scenario(ALLOCATE),
        scenario(ALLOCATE, GATHER, seed=1),
        Scenario(QUAD, (ALLOCATE, GATHER), System(pool="shared-at-alloc")),
        scenario(ALLOCATE, GATHER, topology=Topology(name="quad", convention="sglang", degrees={"tp": 4})),
    ],
    ids=["steps", "seed", "system", "topology"],
)
def test_scenarios_that_differ_in_one_part_are_different(other: Scenario) -> None:
    assert other != scenario(ALLOCATE, GATHER)


def test_scenario_from_json_that_cannot_run_is_refused_with_its_step() -> None:
    text = msgspec.json.encode(scenario(ALLOCATE, GATHER)).replace(b'"elements":64', b'"elements":15')
    with pytest.raises(ProgramError, match=r"^step 1 \(all_gather\): 'a' holds 15 elements"):
        msgspec.json.decode(text, type=Scenario)


def test_scenario_from_json_with_an_unknown_key_is_refused_by_name() -> None:
    text = msgspec.json.encode(scenario(Trim())).replace(b'"seed":0', b'"seed":0,"colour":"red"')
    with pytest.raises(msgspec.ValidationError, match="`colour`"):
        msgspec.json.decode(text, type=Scenario)


def test_scenario_of_no_steps_is_valid_and_names_no_group() -> None:
    assert scenario().groups == ()


def test_scenario_lists_each_group_once_in_the_order_of_first_use() -> None:
    steps = Allocate("a", "attn_tp", 64), Recreate("tp"), Allocate("b", "moe_tp", 64), Release("a")
    assert scenario(*steps).groups == ((0, 1), (2, 3), (0, 1, 2, 3))


# hazards


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        ((Allocate("a", "tp", 64), Trim(), Recreate("tp"), Straggle(0, 1)), set()),
        ((Ballast("a", "tp", 0, 512),), {"ballast"}),
        ((Deny(0), Ballast("a", "tp", 0, 512)), {"ballast", "deny"}),
        ((Allocate("a", "tp", (64, 64, 64, 65)),), {"uneven"}),
        ((Allocate("a", "attn_tp", (64, 64, 65, 65)),), set()),
        ((Allocate("a", "tp", (64, 64, 64, 65), role="plain"),), set()),
    ],
    ids=["harmless", "ballast", "deny", "uneven in a group", "uneven between groups", "uneven in ordinary memory"],
)
def test_hazards_of_a_program_are_what_one_rank_does_alone(steps: tuple[Step, ...], found: set[str]) -> None:
    assert hazards(steps, QUAD) == found


# graphs


def captured(*body: Step, before: tuple[Step, ...] = ()) -> tuple[Step, ...]:
    """A program in which graph g is captured over `body`."""
    return (*before, Prepare("g"), Capture("g"), *body, EndCapture("g"))


OUTSIDE = captured(GATHER, before=(ALLOCATE,))


@pytest.mark.parametrize("steps", [captured(ALLOCATE, GATHER), OUTSIDE, (*OUTSIDE, Replay("g"), Replay("g"))])
def test_a_graph_can_be_captured_and_replayed(steps: tuple[Step, ...]) -> None:
    assert scenario(*steps).steps == steps


NOT_A_GRAPH = {
    "a replay of nothing": ((ALLOCATE, Replay("g")), "step 1 (replay): graph 'g' was not captured"),
    "a replay in the capture": (captured(Replay("g")), "only allocate, release, all_gather, reduce_scatter"),
    "a capture that never ends": (captured()[:2], "graph 'g' is prepared or captured, and its capture never ends"),
    "an end without a capture": ((Prepare("g"), EndCapture("g")), "graph 'g' is not being captured"),
    "two at a time": ((Prepare("g"), Prepare("h")), "one graph at a time"),
    "a second capture": ((*captured(), *captured()), "graph 'g' was prepared before"),
    "trim in the capture": (captured(Trim()), "step 2 (trim): graph 'g' is being captured"),
    "a kernel": (captured(ALLOCATE, AllGather("tp", View("a"), 4, via="kernel")), "kernels are not captured"),
    "a buffer that is gone": ((*OUTSIDE, Release("a"), Replay("g")), "did not allocate, was released"),
    "communicators that are gone": ((*OUTSIDE, Recreate("attn_tp"), Recreate("tp"), Replay("g")), "were replaced"),
}


@pytest.mark.parametrize("name", NOT_A_GRAPH)
def test_a_program_that_no_graph_can_run_is_refused(name: str) -> None:
    steps, said = NOT_A_GRAPH[name]
    with pytest.raises(ProgramError, match=re.escape(said)):
        scenario(*steps)


def test_what_a_graph_allocated_may_be_released_before_its_replay() -> None:
    scenario(*captured(ALLOCATE, GATHER), Release("a"), Replay("g"))


def test_a_graph_outlives_communicators_that_it_does_not_use() -> None:
    scenario(*OUTSIDE, Recreate("attn_tp"), Replay("g"))
