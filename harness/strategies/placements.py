"""Where drawn scenarios are placed: as their topologies say, or all on the same nodes."""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.scenario.scenario import Scenario
from harness.scenario.topology import Placement, Topology


def on_nodes(drawn: st.SearchStrategy[Scenario], world: int, nodes: int) -> st.SearchStrategy[Scenario]:
    """The same scenarios, each on `nodes` nodes, of which every one has an equal share of `world` ranks in a row.

    So processes that are bound to a node serve all of them. Raises `UsageError` for more nodes than ranks.
    """
    check_nodes(nodes, world)
    placement = Placement(nodes, -(-world // nodes)) if nodes > 1 else None
    return drawn.map(lambda scenario: msgspec.structs.replace(scenario, topology=_place(scenario.topology, placement)))


def check_nodes(nodes: int, world: int) -> None:
    """Raise `UsageError` if so many nodes have no rank each."""
    if not 1 <= nodes <= world:
        raise UsageError(f"{world} ranks cannot be placed on {nodes} nodes")
    share = -(-world // nodes)
    if (used := -(-world // share)) < nodes:
        raise UsageError(f"{world} ranks, {share} in a row on each of {nodes} nodes, leave {nodes - used} without any")


def _place(topology: Topology, placement: Placement | None) -> Topology:
    placed = msgspec.structs.replace(topology, placement=placement)
    if placed.node_of == topology.node_of:
        return topology
    nodes = len(set(placed.node_of))
    return msgspec.structs.replace(placed, name=f"{topology.name} on {nodes} node{'s' if nodes > 1 else ''}")
