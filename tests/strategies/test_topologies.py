"""Drawn topologies: every convention and world, those that ship, and exactly the named ones where some are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from harness.errors import UsageError
from harness.scenario.topology import Topology
from harness.strategies.actions import FAMILIES
from harness.strategies.programs import scenarios
from harness.strategies.topologies import topologies
from tests.tools.drawn import MANY, WORLD, harmless, sample

QUAD = Topology(name="quad", convention="sglang", degrees={"tp": 4, "attn_dp": 2})
PAIR = Topology(name="pair", convention="vllm", degrees={"tp": 2})


def test_named_topologies_replace_the_drawn_ones() -> None:
    drawn = sample(scenarios(4, topologies=topologies(4, named=[QUAD, PAIR])), 40)
    assert {scenario.topology for scenario in drawn} == {QUAD, PAIR}


def test_named_topology_that_does_not_fit_is_refused_with_both_sizes() -> None:
    with pytest.raises(UsageError, match="topology 'quad' has 4 ranks; the largest world to draw has 2"):
        topologies(2, named=[PAIR, QUAD])


def seldom(found: Iterable[object], expected: Iterable[object], at_least: int = 10) -> list[object]:
    """What of `expected` turns up less than `at_least` times."""
    counts = Counter(found)
    return [value for value in expected if counts[value] < at_least]


def test_every_convention_is_drawn() -> None:
    conventions = (drawn.topology.convention for drawn in harmless())
    assert not seldom(
        conventions, ["sglang", "vllm", "megatron-core", "tensorrt-llm", "torchtitan"], at_least=MANY // 20
    )


def test_all_gather_groups_of_megatron_are_drawn() -> None:
    found = [drawn.topology.degrees for drawn in harmless() if drawn.topology.convention == "megatron-core"]
    assert not seldom((degrees.get("all_gather_group", False) for degrees in found), [False, True])


def test_every_world_of_two_to_eight_ranks_is_drawn() -> None:
    assert not seldom((drawn.world for drawn in harmless()), range(2, WORLD + 1))


def test_topologies_that_ship_are_drawn_beside_random_ones() -> None:
    random = Counter(drawn.topology.name == "drawn" for drawn in harmless())
    assert min(random[True], random[False]) >= MANY // 10


def test_an_action_can_name_every_family_of_a_drawn_topology() -> None:
    most = max(len(topology.families) for topology in sample(topologies(16), 300))
    assert 16 < most <= FAMILIES
