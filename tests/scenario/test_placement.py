"""Placements: nodes, NVLink domains, and the groups that have windows there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from harness.scenario.placement import Placement, lsa_team_size
from harness.scenario.topology import Topology, TopologyError

TRAYS, PAIRS = Placement(2, 4, nvlink_domain=8), Placement(1, 8, nvlink_domain=2)


def eight(placement: Placement | None) -> Topology:
    return Topology("eight", "sglang", {"tp": 8}, placement)


@pytest.mark.parametrize(
    ("domains", "size"),
    [
        ("0", 1),
        ("0000", 4),
        ("0011", 2),
        ("0101", 1),
        ("0001", 1),
        ("0111", 1),
        ("00111111", 2),
        ("00000111", 1),
        ("001122", 2),
        ("0110", 1),
        ("00110000", 2),
    ],
)
def test_lsa_teams_are_as_large_as_the_greatest_common_divisor_of_the_runs(domains: str, size: int) -> None:
    assert lsa_team_size(map(int, domains)) == size


MEASURED = {
    "0011": "01 1 23 1 0123 2 3210 2 0213 4 012 3 123 3 02 2 12 2 13 2",
    "0001": "012 1 01 1 02 1 12 1 0123 4 0213 4 3210 4 123 3 13 2 23 2",
    "0101": "02 1 13 1 0213 2 0123 4 3210 4 012 3 123 3 01 2 12 2 23 2",
    "00001111": "0123 1 3210 1 4567 1 012 1 01 1 01234567 2 0246 2 2345 2 012345 3 0415 4 345 3 04 2 34 2",
    "00111111": "2345 1 4567 1 345 1 01 1 34 1 01234567 4 0123 2 3210 2 012345 3 0246 4 0415 4 012 3 12 2",
}
"""By the host of each rank, groups in the order of their communicator, each with its LSA teams (NCCL 2.32.3)."""


@pytest.mark.parametrize("hosts", MEASURED)
def test_groups_have_the_lsa_teams_that_nccl_gave_them_and_windows_where_it_gave_one(hosts: str) -> None:
    domains = tuple(tuple(rank for rank, host in enumerate(hosts) if host == which) for which in "01")
    world = len(hosts)
    on = Topology("measured", "sglang", {"tp": world}, Placement(1, world, nvlink_domains=domains))
    words = MEASURED[hosts].split()
    groups = [tuple(map(int, word)) for word in words[::2]]
    teams = [(len(group) // on.lsa_team_size(group), on.has_windows(group)) for group in groups]
    assert teams == [(int(word), word == "1") for word in words[1::2]]


@pytest.mark.parametrize(
    ("placement", "domains"),
    [
        (None, "00000000"),
        (Placement(2, 4), "00001111"),
        (PAIRS, "00112233"),
        (TRAYS, "00000000"),
        (Placement(4, 2, nvlink_domain=4), "00001111"),
        (Placement(2, 4, nvlink_domain=3), "00012223"),
        (Placement(2, 4, ((0, 2, 4, 6), (1, 3, 5, 7)), nvlink_domain=2), "01012323"),
        (Placement(1, 8, nvlink_domains=((5, 6, 7), (0, 1, 2, 3, 4))), "00000111"),
        (msgspec.structs.replace(TRAYS, mnnvl=False), "00001111"),
        (msgspec.structs.replace(PAIRS, mnnvl=False), "00112233"),
        (Placement(2, 4, nvlink_domains=((0, 1, 4, 5), (2, 3, 6, 7)), mnnvl=False), "00112233"),
    ],
)
def test_each_rank_has_a_domain(placement: Placement | None, domains: str) -> None:
    assert "".join(map(str, eight(placement).domain_of)) == domains


@pytest.mark.parametrize(
    ("placement", "group", "has_windows"),
    [
        (PAIRS, (0, 1), True),
        (PAIRS, (1, 2), False),
        (PAIRS, (0, 1, 2), False),
        (PAIRS, (0,), True),
        (TRAYS, (0, 1, 2, 3, 4, 5, 6, 7), True),
        (TRAYS, (7, 0), True),
        (msgspec.structs.replace(TRAYS, mnnvl=False), (3, 4), False),
        (msgspec.structs.replace(TRAYS, peers_hidden=True), (3, 4), True),
    ],
)
def test_a_group_has_windows_where_it_lies_in_one_domain(
    placement: Placement, group: tuple[int, ...], has_windows: bool
) -> None:
    assert eight(placement).has_windows(group) is has_windows


@pytest.mark.parametrize(
    ("placement", "where", "span"),
    [
        (None, "1 node", "1 node"),
        (Placement(2, 4), "2 nodes", "2 nodes"),
        (Placement(2, 4, ((4, 5, 6, 7), (0, 1, 2, 3))), "2 nodes", "2 nodes"),
        (PAIRS, "1 node, 4 NVLink domains", "4 NVLink domains"),
        (TRAYS, "2 nodes, 1 NVLink domain", "1 NVLink domain"),
        (Placement(4, 2, nvlink_domain=4), "4 nodes, 2 NVLink domains", "2 NVLink domains"),
        (msgspec.structs.replace(TRAYS, mnnvl=False), "2 nodes", "2 nodes"),
    ],
)
def test_a_place_names_domains_where_they_are_no_nodes(placement: Placement | None, where: str, span: str) -> None:
    assert (eight(placement).where, eight(placement).span(tuple(range(8)))) == (where, span)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"nvlink_domain": 0}, "an NVLink domain of 0 GPUs is too small"),
        ({"nvlink_domain": 6}, "an NVLink domain of 6 GPUs ends inside a node of 4"),
        ({"nvlink_domains": ((0, 1), (1, 2))}, "rank 1 is in two NVLink domains"),
        ({"nvlink_domains": ((0, 1, 2),)}, "rank 3 is not in an NVLink domain"),
        ({"nvlink_domains": ((0, 1, 2, 3, 4, 5, 6, 7, 8),)}, "rank 8 is not in the world"),
        ({"nvlink_domain": 4, "nvlink_domains": ((0,),)}, "'nvlink_domain' and 'nvlink_domains' say the same"),
    ],
)
def test_domains_that_do_not_hold_together_are_refused_by_name(given: dict[str, Any], named: str) -> None:
    with pytest.raises(TopologyError, match=f"topology 'eight': {named}"):
        eight(Placement(2, 4, **given))


def test_what_a_placement_does_not_say_is_not_written() -> None:
    assert msgspec.to_builtins(Placement(2, 4)) == {"nodes": 2, "gpus_per_node": 4}
    said = {"nodes": 2, "gpus_per_node": 4, "nvlink_domain": 8, "mnnvl": False, "peers_hidden": True}
    assert msgspec.to_builtins(msgspec.convert(said, Placement)) == said


def test_topologies_differ_by_their_domains_and_by_what_processes_see() -> None:
    hidden = Placement(2, 4, peers_hidden=True)
    places: Sequence[Placement] = (Placement(2, 4), TRAYS, Placement(2, 4, nvlink_domain=2), hidden)
    assert len({eight(placement).key for placement in places}) == len(places)
    assert eight(Placement(2, 4, nvlink_domain=4)).key == eight(Placement(2, 4)).key
