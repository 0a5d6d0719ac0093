"""Refusals: why a step cannot run, and the rules on counts and buffers that steps of several kinds share."""

from __future__ import annotations

from harness.scenario.alive import Alive, LiveBuffer
from harness.scenario.bases import BaseStep
from harness.scenario.layouts.groups import GroupIds
from harness.scenario.operands import Elements, at
from harness.scenario.placement import TopologyError
from harness.scenario.topology import Topology


class Refused(Exception):
    """The reason alone; `harness.scenario.validity.check` adds the step it belongs to."""


def check_acting(step: BaseStep, topology: Topology) -> GroupIds:
    """The groups in which a step runs. Refused where a rank would act in two, or the family lacks one that is named."""
    assert step.family is not None
    try:
        return topology.acting(step.family, step.groups)
    except TopologyError as error:
        raise Refused(str(error)) from None


def counts(name: str, elements: Elements, topology: Topology, acting: GroupIds) -> dict[int, int]:
    """The count of each rank that acts. Refused where ranks are missing or a count is negative; `name` is the
    field's."""
    check_one_each(name, elements, topology)
    found = {rank: at(elements, rank) for group in acting for rank in group.ranks}
    for rank, count in found.items():
        if count < 0:
            raise Refused(f"{name} {count} on rank {rank} is negative")
    return found


def check_one_each(name: str, elements: Elements, topology: Topology) -> None:
    """Refused where a field that lists ranks lists another number than the world has."""
    if isinstance(elements, tuple) and len(elements) != topology.world:
        raise Refused(f"{name} lists {len(elements)} ranks in a world of {topology.world}")


def live_buffer(name: str, alive: Alive) -> LiveBuffer:
    """The buffer of that name. Refused where none is alive."""
    if name not in alive.buffers:
        raise Refused(f"buffer {name!r} was {'released' if name in alive.names else 'never allocated'}")
    return alive.buffers[name]
