"""Refusals: why a step cannot run, and the rules on counts and buffers that steps of several kinds share."""

from __future__ import annotations

from harness.scenario.alive import Alive, LiveBuffer
from harness.scenario.operands import Elements, at
from harness.scenario.topology import Topology


class Refused(Exception):
    """The reason alone; `harness.scenario.validity.check` adds the step it belongs to."""


def counts(name: str, elements: Elements, topology: Topology) -> list[int]:
    """One count for each rank. Refused where ranks are missing or a count is not positive; `name` is the field's."""
    check_one_each(name, elements, topology)
    found = [at(elements, rank) for rank in range(topology.world)]
    for rank, count in enumerate(found):
        if count < 1:
            raise Refused(f"{name} {count} on rank {rank} is not positive")
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
