"""A scenario as people read it: its layout and system, then a line a step.

Invariant: the text needs no terminal and commands none; it serves the command line and the notes of a failing test.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Step
from harness.scenario.system import KERNELS
from harness.scenario.topology import Topology
from harness.text import counted, visible


def listing(scenario: Scenario, marked: int | None = None) -> Iterator[str]:
    """The lines; an arrow marks step `marked`, if one is given."""
    topology = scenario.topology
    nodes = len(set(topology.node_of))
    where = counted(scenario.world, "rank") + (f" on {nodes} nodes" if nodes > 1 else "")
    system = f"pool {scenario.system.pool}"
    if scenario.system.collectives not in KERNELS:
        system += f" · collectives {scenario.system.collectives}"
    if scenario.system.sites != "explicit":
        system += f" · sites {scenario.system.sites}"
    yield visible(f"{layout(topology)} · {where} · {system} · seed {scenario.seed}")
    for index, step in enumerate(scenario.steps):
        yield visible(f"{'→' if index == marked else ' '} {index:2} {_step(step)}")


def layout(topology: Topology) -> str:
    """A topology's convention and degrees."""
    degrees = " ".join(f"{name}={width}" for name, width in topology.degrees.items()) or "all degrees 1"
    return f"{topology.convention} {degrees}"


def _step(step: Step) -> str:
    fields = []
    for name, value in msgspec.structs.asdict(step).items():
        if value is None or value is False or (name == "stream" and value == 0):
            continue
        shown = f"{value.buffer}+{value.offset}" if isinstance(value, View) else value
        fields.append(f"{name}={shown}")
    return f"{step.kind} {' '.join(fields)}"


def shown(text: str) -> str:
    """Text from elsewhere as a person may see it: nothing in it commands a terminal."""
    return visible(text)
