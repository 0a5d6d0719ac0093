"""Scenarios as data: frozen, hashable, the same after JSON, and refused when JSON holds nonsense."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from harness.scenario.layouts.groups import Groups
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    AllGather,
    Allocate,
    Capture,
    EndCapture,
    Prepare,
    ProgramError,
    Recreate,
    Release,
    Step,
    Trim,
)
from harness.scenario.system import System
from harness.scenario.topology import Placement, Topology
from harness.strategies.programs import HAZARDS, scenarios

QUAD = Topology(name="quad", convention="sglang", degrees={"tp": 4, "attn_dp": 2})
ALLOCATE, GATHER = Allocate("a", "tp", 64), AllGather("tp", View("a"), 4)


def scenario(*steps: Step, topology: Topology = QUAD, seed: int = 0) -> Scenario:
    return Scenario(topology, steps, seed=seed)


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


def test_a_share_of_the_seeds_is_watched_and_the_plainest_is() -> None:
    watched = [msgspec.structs.replace(scenario(), seed=seed).is_watched for seed in range(256)]
    assert (watched[0], sum(watched)) == (True, 64)


def test_scenario_lists_each_group_once_in_the_order_of_first_use() -> None:
    steps = Allocate("a", "attn_tp", 64), Recreate("tp"), Allocate("b", "moe_tp", 64), Release("a")
    wide = ((0, 1), 0), ((2, 3), 0), ((0, 1, 2, 3), 0)
    assert scenario(*steps).groups == wide
    halves = Topology("halves", "sglang", {"tp": 4, "attn_dp": 2, "ep": 2})
    assert scenario(*steps, topology=halves).groups == (*wide, ((0, 1), 1), ((2, 3), 1))


CORNERS = Topology("corners", "explicit", families_given={"tp": ((0, 1), (2, 3)), "dp": ((0, 2), (1, 3))})


@pytest.mark.parametrize(("count", "groups"), [(1023, ()), (1024, ((0, 1, 2, 3),))])
def test_a_captured_call_of_so_many_bytes_names_its_group(count: int, groups: Groups) -> None:
    call = AllGather("tp", View("a"), count)
    captured = Prepare("g"), call, Capture("g"), AllGather("tp", View("a"), count), EndCapture("g")
    found = scenario(Allocate("a", "tp", 8 << 10), *captured).captured(16 << 10)
    assert tuple(group.ranks for group in found) == groups


def test_calls_outside_of_a_capture_and_of_one_rank_name_none() -> None:
    call, alone = AllGather("tp", View("a"), 2048), AllGather("attn_tp", View("a"), 2048)
    steps = Allocate("a", "tp", 8 << 10), Prepare("g"), call, Capture("g"), alone, EndCapture("g"), call
    narrow = Topology("narrow", "sglang", {"tp": 2, "attn_dp": 2})
    assert scenario(*steps, topology=narrow).captured(1) == ()


@pytest.mark.parametrize(("groups", "idle"), [(((0, 2),), 1), (((1, 3),), 0)])
def test_implicit_sites_ask_for_groups_of_which_every_rank_acts(groups: Groups, idle: int) -> None:
    step, implicit = Allocate("a", "dp", 8, groups=groups), System(sites="implicit")
    with pytest.raises(ProgramError, match=rf"implicit sites ask for tp\[0, 1\], of which rank {idle} does not act"):
        Scenario(CORNERS, (step,), implicit)
    assert Scenario(CORNERS, (step,)).steps
    assert Scenario(CORNERS, (Allocate("a", "dp", 8), Allocate("b", "tp", 8, groups=((2, 3),))), implicit).steps


# ranks on which addresses fall


def test_a_scenario_without_falling_addresses_is_written_as_before_there_were_any() -> None:
    assert b"falling" not in msgspec.json.encode(scenario(ALLOCATE))
    assert Scenario(QUAD, (ALLOCATE,), falling=()) == scenario(ALLOCATE)
    assert len({Scenario(QUAD, (ALLOCATE,), falling=()), scenario(ALLOCATE)}) == 1


def test_falling_addresses_survive_json_and_tell_scenarios_apart() -> None:
    falling = Scenario(QUAD, (ALLOCATE,), falling=(1, 3))
    assert msgspec.json.decode(msgspec.json.encode(falling), type=Scenario) == falling
    assert len({falling, scenario(ALLOCATE)}) == 2


@pytest.mark.parametrize("ranks", [(4,), (-1, 0), (1, 0), (1, 1)], ids=str)
def test_falling_ranks_that_are_not_there_or_in_no_order_are_refused(ranks: tuple[int, ...]) -> None:
    with pytest.raises(ProgramError, match="not some of the ranks 0 to 3, in rising order"):
        Scenario(QUAD, (ALLOCATE,), falling=ranks)
