"""Where drawn scenarios are placed: as their topologies say, or all on the same nodes."""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.scenario.placement import Placement, check_domain
from harness.scenario.scenario import Scenario
from harness.scenario.topology import Topology


def on_nodes(
    drawn: st.SearchStrategy[Scenario], world: int, nodes: int, domain: int | None = None
) -> st.SearchStrategy[Scenario]:
    """The same scenarios, each on `nodes` nodes, of which every one has an equal share of `world` ranks in a row, in
    NVLink domains of `domain` ranks in a row, or of a node each.

    So processes that are bound to a node serve all of them. Raises `UsageError` for more nodes than ranks, and for a
    domain that ends inside a node.
    """
    check_nodes(nodes, world, domain)
    placement = _placement(world, nodes, domain)
    return drawn.map(lambda scenario: msgspec.structs.replace(scenario, topology=_place(scenario.topology, placement)))


def is_on(topology: Topology, world: int, nodes: int, domain: int | None = None) -> bool:
    """Whether a topology is placed as `on_nodes` places it."""
    return _place(topology, _placement(world, nodes, domain)) == topology


def _placement(world: int, nodes: int, domain: int | None) -> Placement | None:
    return Placement(nodes, -(-world // nodes), nvlink_domain=domain) if nodes > 1 or domain is not None else None


def check_nodes(nodes: int, world: int, domain: int | None = None) -> None:
    """Raise `UsageError` if so many nodes have no rank each, or no NVLink domain of so many ranks."""
    if not 1 <= nodes <= world:
        raise UsageError(f"{world} ranks cannot be placed on {nodes} nodes")
    share = -(-world // nodes)
    if (used := -(-world // share)) < nodes:
        raise UsageError(f"{world} ranks, {share} in a row on each of {nodes} nodes, leave {nodes - used} without any")
    if domain is not None:
        check_domain(domain, share)


def _place(topology: Topology, placement: Placement | None) -> Topology:
    placed = msgspec.structs.replace(topology, placement=placement)
    if placed.place == topology.place:
        return topology
    return msgspec.structs.replace(placed, name=f"{topology.name} on {placed.where}")
