"""Making a scenario smaller: which ranks may stand for all, and what the system under test refuses."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from harness.campaign import Campaign, Limits
from harness.program import Allocate, Scenario, System
from harness.reduce import reduce
from harness.strategies import flows, topologies
from harness.topology import Placement, Topology
from harness.world import World

SEVEN = Topology("seven", "sglang", {"tp": 7})


def needs(*sizes: int) -> Scenario:
    return Scenario(SEVEN, (Allocate("a", "tp", sizes),))


def differs(scenario: Scenario) -> bool:
    return any(len({*each.elements}) > 1 for each in scenario.steps if isinstance(each.elements, tuple))


def smallest(scenario: Scenario) -> Scenario:
    """What is left of a scenario that fails while a buffer has sizes that differ."""
    left = [scenario]

    def fails(tried: Scenario) -> int | None:
        if not differs(tried):
            return None
        left.append(tried)
        return 0

    reduce(scenario, fails, 0)
    return left[-1]


@pytest.mark.parametrize("odd", [0, 3, 6])
def test_a_rank_that_matters_is_kept_wherever_it_is(odd: int) -> None:
    sizes = [8] * 7
    sizes[odd] = 64
    assert smallest(needs(*sizes)).world == 2


def spans_nodes(scenario: Scenario) -> bool:
    return len(set(scenario.topology.node_of)) > 1


MATTERS = {
    "nothing": (lambda scenario: True, (2, 1)),
    "nodes": (spans_nodes, (2, 2)),
    "three ranks and nodes": (lambda scenario: scenario.world > 2 and spans_nodes(scenario), (3, 2)),
    "ranks": (lambda scenario: scenario.world == 8, (8, 1)),
    "ranks and nodes": (lambda scenario: scenario.world == 8 and spans_nodes(scenario), (8, 2)),
}


@pytest.mark.parametrize("what", MATTERS)
def test_nodes_and_ranks_are_kept_where_they_matter(what: str) -> None:
    fails, size = MATTERS[what]
    wide = Topology("wide", "sglang", {"tp": 8}, Placement(4, 2))
    left = reduce(Scenario(wide, (Allocate("a", "tp", 8),)), lambda tried: 0 if fails(tried) else None, 0)
    assert (left.world, len(set(left.topology.node_of))) == size


def fails_alone(whole: Scenario, tried: Callable[[Scenario], None]) -> Callable[[Scenario], int | None]:
    """Nothing smaller than the whole fails."""
    return lambda scenario: 0 if scenario == whole else tried(scenario)  # type: ignore[func-returns-value]


def test_nodes_change_rarely_between_candidates() -> None:
    """Ranks on nccl start anew wherever they do."""
    placed: list[tuple[int, ...]] = []
    wide = Topology("wide", "sglang", {"tp": 8, "attn_dp": 2}, Placement(2, 4))
    steps = Allocate("a", "tp", 8), Allocate("b", "attn_tp", tuple(range(1, 9)))
    reduce(
        Scenario(wide, steps),
        fails_alone(Scenario(wide, steps), lambda tried: placed.append(tried.topology.node_of)),
        1,
    )
    assert len(placed) > 100
    assert sum(one != other for one, other in pairwise(placed)) < 8


def test_layouts_that_are_the_same_to_the_program_are_tried_once() -> None:
    tried: list[Scenario] = []
    wide = Scenario(Topology("wide", "sglang", {"tp": 8, "attn_dp": 2}), (Allocate("a", "attn_tp", 8),))
    reduce(wide, fails_alone(wide, tried.append), 0)
    smaller = [(scenario.world, scenario.topology.families["attn_tp"]) for scenario in tried if scenario.world < 8]
    assert len(smaller) == len(set(smaller)) > 5


class NeedsFour:
    """A faulty pool (one window for all groups) that takes no world of fewer than four ranks."""

    def __new__(cls, context):
        from harness.pools.shared_at_alloc import SharedAtAlloc

        if context.world < 4:
            raise RuntimeError("needs 4 ranks")
        return SharedAtAlloc(context)


def test_a_finding_outlives_a_system_that_refuses_smaller_scenarios(simulation: World, tmp_path: Path) -> None:
    four = Topology("four", "sglang", {"tp": 4, "attn_dp": 2})
    strategy = flows(4, tokens="padded", topologies=topologies(4, [four]), system=System("tests.test_reduce:NeedsFour"))
    tally = Campaign(simulation, strategy, tmp_path, limits=Limits(more=1).within(3)).run(10)
    assert {found.scenario.world for found in tally.found.values()} == {4}
