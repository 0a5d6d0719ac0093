"""Hazards: what a program does that even a right system may not survive without agreement between ranks."""

from __future__ import annotations

from collections.abc import Iterable

from harness.scenario.operands import at
from harness.scenario.steps import Allocate, Ballast, Deny, Refuse, Step
from harness.scenario.topology import Topology


def hazards(steps: Iterable[Step], topology: Topology) -> frozenset[str]:
    """The hazards in a program, by name.

    `ballast`, `deny` and `refuse` act on one rank alone; `uneven` gives the ranks of one group buffers of
    different sizes.
    """
    found: set[str] = set()
    for step in steps:
        if isinstance(step, Ballast | Deny | Refuse):
            found.add(step.kind)
        elif isinstance(step, Allocate) and step.role == "window":
            acting = topology.acting(step.family, step.groups)
            if any(len({at(step.elements, rank) for rank in group.ranks}) > 1 for group in acting):
                found.add("uneven")
    return frozenset(found)
