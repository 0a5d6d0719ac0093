"""A scenario written in another way, and what corresponds to what.

Invariant: a variant that exists is a valid scenario, other than the one that it comes from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from harness.scenario.layouts.conventions import shared_families
from harness.scenario.layouts.groups import Group
from harness.scenario.placement import Placement
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Step
from harness.scenario.topology import Topology
from harness.trace.trace import TEARDOWN


class Variant(NamedTuple):
    """Another way to write a scenario. `steps` has, for each of its steps, the number of the step in whose place it
    stands; `ranks` has the same for each of its ranks."""

    scenario: Scenario
    steps: tuple[int, ...]
    ranks: tuple[int, ...]

    def step(self, step: int) -> int:
        """The step as drawn in whose place one of the variant's stands. Those before the program and after it stay."""
        return step if step < 0 or step >= TEARDOWN else self.steps[min(step, len(self.steps) - 1)]

    def ranks_drawn(self, ranks: Sequence[int]) -> Group:
        """The ranks as drawn in whose place some of the variant's stand."""
        return tuple(sorted(self.ranks[rank] for rank in ranks))


def rewritten(scenario: Scenario, groups: Sequence[tuple[int, Step]]) -> Variant | None:
    """The variant of these steps, each with the number of the one in whose place it stands. None where it is no other
    scenario."""
    steps = tuple(step for _, step in groups)
    if steps == scenario.steps:
        return None
    changed = msgspec.structs.replace(scenario, steps=steps)
    return Variant(changed, tuple(index for index, _ in groups), tuple(range(scenario.world)))


def relabelled(topology: Topology, names: Mapping[str, str], ranks: Sequence[int], place: Placement | None) -> Topology:
    """The topology with other names of families and numbers of ranks, as families that are given.

    `ranks` has the new number of each. Families and groups keep their order, and the ranks of a group too, so each
    family shares communicators with the same ones as before.
    """
    families = {
        names[name]: tuple(tuple(ranks[rank] for rank in group) for group in groups)
        for name, groups in topology.families.items()
    }
    is_given = topology.families_given is not None
    shares = topology.shares if is_given else shared_families(topology.convention, topology.degrees)
    if shares is not None:
        shares = {names[name]: names[owner] for name, owner in shares.items()}
    return Topology(topology.name, "explicit", {}, place, topology.note, families_given=families, shares=shares)
