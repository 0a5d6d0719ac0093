"""Renumbers ranks: every group, count, place and local step goes to another rank."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import msgspec

from harness.campaign.smaller.candidates import for_ranks
from harness.scenario.placement import Placement
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Step
from harness.scenario.topology import Topology
from harness.studies.agree.transformations.variant import Variant, relabelled


def renumber_ranks(scenario: Scenario) -> Variant | None:
    """The scenario with other rank numbers, drawn from its seed. None where fewer than two ranks are in groups.

    The verdict holds, because NCCL knows a rank by its place in a communicator and by its node. Each group keeps the
    order of its ranks, and each rank its place, counts, offsets and local steps. Ranks that are in no group keep their
    numbers, since the highest number in a group is the size of the world.
    """
    movable = sorted({rank for groups in scenario.topology.families.values() for group in groups for rank in group})
    if len(movable) < 2:
        return None
    taken = _shuffled(movable, scenario.seed)
    new = list(range(scenario.world))
    for rank, number in zip(movable, taken, strict=True):
        new[rank] = number
    old = tuple(new.index(rank) for rank in range(scenario.world))
    topology, names = scenario.topology, {name: name for name in scenario.topology.families}
    changed = msgspec.structs.replace(
        scenario,
        topology=relabelled(topology, names, new, _moved(topology, new)),
        steps=tuple(_renumbered(step, new, old) for step in scenario.steps),
        falling=tuple(sorted(new[rank] for rank in scenario.falls_on)),
    )
    return Variant(changed, tuple(range(len(scenario.steps))), old)


def _shuffled(ranks: list[int], seed: int) -> list[int]:
    """The ranks in another order, the same for the same seed."""
    shuffled = Random(seed).sample(ranks, len(ranks))
    return shuffled if shuffled != ranks else [*ranks[1:], ranks[0]]


def _moved(topology: Topology, new: Sequence[int]) -> Placement | None:
    """Every GPU holds the rank that it held, under its new number."""
    placement = topology.placement
    if placement is None:
        return None
    nodes = placement.ranks or tuple(
        tuple(rank for rank, node in enumerate(topology.node_of) if node == each) for each in range(placement.nodes)
    )
    domains = placement.nvlink_domains
    return msgspec.structs.replace(
        placement,
        ranks=tuple(tuple(new[rank] for rank in ranks) for ranks in nodes),
        nvlink_domains=None if domains is None else tuple(tuple(new[rank] for rank in ranks) for ranks in domains),
    )


def _renumbered(step: Step, new: Sequence[int], old: Sequence[int]) -> Step:
    groups = None if step.groups is None else tuple(tuple(new[rank] for rank in group) for group in step.groups)
    changed = for_ranks(step, old)
    return changed if groups is None else msgspec.structs.replace(changed, groups=groups)
