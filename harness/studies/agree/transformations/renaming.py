"""Renames families: each one gets the name of another."""

from __future__ import annotations

import msgspec

from harness.scenario.scenario import IMPLICIT, Scenario
from harness.scenario.steps import Allocate, Step
from harness.studies.agree.transformations.variant import Variant, relabelled

ALONE = "renamed"
"""The new name of a family that has none to change names with."""


def rename_families(scenario: Scenario) -> Variant | None:
    """The scenario with the names of its families changed round. None where no family may have another name.

    The verdict holds, because a name is for readers: NCCL knows a communicator by its ranks. Names are changed round,
    and not replaced, so that a part that looks for a name finds it at another family. With implicit sites `tp` keeps
    its name, since these sites ask for it.
    """
    families = list(scenario.topology.families)
    free = [name for name in families if scenario.system.sites != "implicit" or name != IMPLICIT]
    if not free:
        return None
    taken = [*free[1:], free[0]] if len(free) > 1 else [ALONE if free != [ALONE] else IMPLICIT]
    names = {name: name for name in families} | dict(zip(free, taken, strict=True))
    topology, ranks = scenario.topology, tuple(range(scenario.world))
    changed = msgspec.structs.replace(
        scenario,
        topology=relabelled(topology, names, ranks, topology.placement),
        steps=tuple(_renamed(step, names) for step in scenario.steps),
    )
    return Variant(changed, tuple(range(len(scenario.steps))), ranks)


def _renamed(step: Step, names: dict[str, str]) -> Step:
    changes: dict[str, object] = {} if step.family is None else {"family": names[step.family]}
    if isinstance(step, Allocate) and step.registered is not None:
        changes["registered"] = tuple(tuple(names[name] for name in names_here) for names_here in step.registered)
    return msgspec.structs.replace(step, **changes)
