"""Placements: the same scenarios on nodes of equal shares, and numbers of nodes that no world can have."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Trim
from harness.scenario.topology import Placement, Topology
from harness.strategies.batches import sample
from harness.strategies.placements import check_nodes, on_nodes

QUAD = Topology("quad", "sglang", {"tp": 4})


def placed(topology: Topology, world: int, nodes: int, domain: int | None = None) -> Topology:
    return sample(on_nodes(st.just(Scenario(topology, (Trim(),))), world, nodes, domain), 1)[0].topology


def test_each_node_has_an_equal_share_of_ranks_in_a_row() -> None:
    assert placed(QUAD, 4, 2).node_of == (0, 0, 1, 1)


def test_a_smaller_scenario_keeps_the_share_of_the_world() -> None:
    assert placed(Topology("pair", "sglang", {"tp": 2}), 8, 2).node_of == (0, 0)


def test_a_topology_that_is_placed_elsewhere_says_so_in_its_name() -> None:
    assert placed(QUAD, 4, 2).name == "quad on 2 nodes"


def test_a_topology_that_is_there_already_stays_as_it_is() -> None:
    two = Topology("two", "sglang", {"tp": 4}, Placement(2, 2))
    assert placed(two, 4, 2) is two


def test_one_node_takes_a_placement_away() -> None:
    assert placed(Topology("two", "sglang", {"tp": 4}, Placement(2, 2)), 4, 1).node_of == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("nodes", "domain", "domain_of"), [(1, 2, (0, 0, 1, 1)), (2, 4, (0, 0, 0, 0)), (2, 1, (0, 1, 2, 3))]
)
def test_domains_are_ranks_in_a_row(nodes: int, domain: int, domain_of: tuple[int, ...]) -> None:
    assert placed(QUAD, 4, nodes, domain).domain_of == domain_of


def test_a_topology_that_is_put_in_other_domains_says_so_in_its_name() -> None:
    assert placed(QUAD, 4, 1, 2).name == "quad on 1 node, 2 NVLink domains"


def test_without_a_domain_a_node_is_one() -> None:
    pairs = Topology("pairs", "sglang", {"tp": 4}, Placement(1, 4, nvlink_domain=2))
    assert placed(pairs, 4, 1).domain_of == (0, 0, 0, 0)


@pytest.mark.parametrize("nodes", [0, 5])
def test_nodes_without_a_rank_each_are_refused(nodes: int) -> None:
    with pytest.raises(UsageError, match=f"4 ranks cannot be placed on {nodes} nodes"):
        check_nodes(nodes, 4)


def test_nodes_that_equal_shares_leave_empty_are_refused_with_their_number() -> None:
    with pytest.raises(UsageError, match="5 ranks, 2 in a row on each of 4 nodes, leave 1 without any"):
        check_nodes(4, 5)


@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_as_many_nodes_as_ranks_are_accepted(nodes: int) -> None:
    check_nodes(nodes, 4)
