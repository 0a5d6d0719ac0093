"""Simulated nodes: where a platform binds processes to nodes, a draw finds its ranks on the nodes of its topology."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest

from harness import judge
from harness.errors import UsageError
from harness.oracle.case import Case
from harness.scenario import topology
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, ReduceScatter
from harness.scenario.topology import Placement, Topology
from harness.strategies.batches import sample
from harness.strategies.placements import on_nodes
from harness.strategies.programs import scenarios
from harness.strategies.topologies import topologies
from harness.world import world as world_module
from harness.world.platform import Platform, choose
from harness.world.world import World

DEGREES = {"tp": 4, "attn_cp": 2}
ONE_NODE = Topology("one", "sglang", DEGREES)
BLOCKS = Topology("blocks", "sglang", DEGREES, Placement(2, 2))
RENAMED = Topology("renamed", "sglang", DEGREES, Placement(2, 2, ((2, 3), (0, 1))))
CYCLIC = Topology("cyclic", "sglang", DEGREES, Placement(2, 2, ((0, 2), (1, 3))))
PAIRS = Topology("pairs", "sglang", DEGREES, Placement(1, 4, nvlink_domain=2))
TRAYS = Topology("trays", "sglang", DEGREES, Placement(2, 2, nvlink_domain=4))
SMALL = Topology("small", "sglang", {"tp": 2})
MULTI_NODE = [name for name, path in topology.named().items() if len(set(topology.load(path).node_of)) > 1]


def program(on: Topology) -> Scenario:
    families = [name for name, partition in on.families.items() if len(partition[0]) > 1]
    steps = []
    for index, family in enumerate(families):
        name, size = f"b{index}", len(on.families[family][0])
        steps += [Allocate(name, family, 8 * size), AllGather(family, View(name), 8)]
        steps += [ReduceScatter(family, View(name), 8)]
    return Scenario(on, tuple(steps))


def host_id(substrate: Any, slots: Any) -> str:
    return os.environ.get("NCCL_HOSTID", "")


@pytest.fixture(scope="module")
def bound() -> Iterator[World]:
    """Four ranks of the simulation, bound to nodes as processes on NCCL are."""

    def chosen(substrate: str, ranks: int, evidence: Sequence[str] = ()) -> Platform:
        return msgspec.structs.replace(choose(substrate, ranks), is_node_bound=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world_module, "choose", chosen)
        with World(4, "sim") as world:
            patch.undo()
            yield world


def hosts(world: World) -> list[str]:
    return world.call("tests.world.test_nodes:host_id")


def test_ranks_on_one_node_are_not_told_of_hosts(bound: World) -> None:
    bound.run(program(ONE_NODE))
    assert hosts(bound) == [""] * 4


def test_ranks_of_two_nodes_are_told_different_hosts(bound: World) -> None:
    bound.run(program(BLOCKS))
    assert hosts(bound) == ["node0", "node0", "node1", "node1"]


def test_ranks_move_where_a_draw_wants_them_on_other_nodes(bound: World) -> None:
    for on in (ONE_NODE, BLOCKS, CYCLIC):
        assert judge(bound.run(program(on))) == []
    assert hosts(bound) == ["node0", "node1", "node0", "node1"]


@pytest.mark.parametrize("after", [BLOCKS, RENAMED, SMALL], ids=lambda on: on.name)
def test_ranks_stay_where_a_draw_finds_them_in_place(bound: World, after: Topology) -> None:
    bound.run(program(BLOCKS))
    before = bound.pids
    bound.run(program(after))
    assert bound.pids == before


def test_nccl_is_told_of_domains_as_of_hosts_and_of_no_node_in_one(bound: World) -> None:
    for on, hosts_of in ((PAIRS, ["node0", "node0", "node1", "node1"]), (TRAYS, [""] * 4)):
        assert judge(bound.run(program(on))) == []
        assert hosts(bound) == hosts_of


def test_processes_start_again_to_see_their_own_gpu_alone(bound: World) -> None:
    bound.run(program(ONE_NODE))
    before = bound.pids
    hidden = msgspec.structs.replace(ONE_NODE, placement=Placement(1, 4, peers_hidden=True))
    bound.run(program(hidden))
    between = bound.pids
    bound.run(program(hidden))
    assert before != between == bound.pids


@pytest.mark.parametrize("on", [PAIRS, TRAYS], ids=lambda on: on.name)
def test_exactly_the_groups_inside_a_domain_take_the_symmetric_path(sixteen: World, on: Topology) -> None:
    draw = sixteen.run(program(on))
    calls = {group: {use.ran.path for use in uses if use.ran} for (_, group), uses in Case(draw).calls.items()}
    assert judge(draw) == []
    assert calls == {group: {"symmetric" if on.has_windows(group) else "legacy"} for group in calls}
    assert {path for paths in calls.values() for path in paths} >= {"symmetric"}


def test_moving_is_no_restart_for_a_failure(bound: World) -> None:
    for on in (BLOCKS, CYCLIC):
        bound.run(program(on))
    assert bound.restarts == 0


def test_the_simulation_places_every_draw_anew_in_the_same_processes() -> None:
    with World(4, "sim") as world:
        before = world.pids
        assert [judge(world.run(program(on))) for on in (BLOCKS, ONE_NODE, CYCLIC)] == [[]] * 3
        assert world.pids == before


@pytest.fixture(scope="module")
def sixteen() -> Iterator[World]:
    with World(16, "sim") as world:
        yield world


def test_there_are_named_topologies_on_two_and_on_four_nodes() -> None:
    counts = {len(set(topology.find(name).node_of)) for name in MULTI_NODE}
    assert {2, 4} <= counts


@pytest.mark.parametrize("name", MULTI_NODE)
def test_on_a_named_topology_of_several_nodes_exactly_the_groups_inside_one_have_windows(
    sixteen: World, name: str
) -> None:
    on = topology.find(name)
    draw = sixteen.run(program(on))
    case = Case(draw)
    calls = {group: {use.ran.path for use in uses if use.ran} for (_, group), uses in case.calls.items()}
    assert judge(draw) == []
    assert calls == {group: {"symmetric" if on.has_windows(group) else "legacy"} for group in calls}


def placements(nodes: int) -> list[Topology]:
    return [each.topology for each in sample(on_nodes(scenarios(8), 8, nodes), 60, seed=1)]


@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_drawn_scenarios_are_put_on_nodes_of_consecutive_ranks(nodes: int) -> None:
    share = 8 // nodes
    assert all(t.node_of == tuple(rank // share for rank in range(t.world)) for t in placements(nodes))


def test_a_named_topology_that_is_put_elsewhere_says_so() -> None:
    named = [each for each in map(topology.find, MULTI_NODE) if each.world <= 8]
    drawn = sample(on_nodes(scenarios(8, topologies=topologies(8, named)), 8, 1), 10)
    moved = [each.topology.name for each in drawn]
    assert {name.split(" ")[0] for name in moved} <= set(MULTI_NODE)
    assert all(name.endswith(" on 1 node") for name in moved)


@pytest.mark.parametrize(("world", "nodes", "empty"), [(4, 3, 1), (8, 5, 1), (8, 7, 3)])
def test_nodes_that_would_stay_empty_are_refused(world: int, nodes: int, empty: int) -> None:
    with pytest.raises(UsageError, match=f"2 in a row on each of {nodes} nodes, leave {empty} without any"):
        on_nodes(scenarios(world), world, nodes)


@pytest.mark.parametrize("nodes", [0, 9])
def test_ranks_are_not_put_on_more_nodes_than_there_are_ranks(nodes: int) -> None:
    with pytest.raises(UsageError, match=f"8 ranks cannot be placed on {nodes} nodes"):
        on_nodes(scenarios(8), 8, nodes)
