"""A scenario as people read it: its layout and system, then a line a step.

Invariant: the text needs no terminal and commands none; it serves the command line and the notes of a failing test.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import msgspec

from harness.oracle.case import ranks_text
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Step
from harness.scenario.system import KERNELS
from harness.scenario.topology import Topology
from harness.text import counted, visible


def listing(scenario: Scenario, marked: int | None = None) -> Iterator[str]:
    """The lines; an arrow marks step `marked`, if one is given."""
    topology = scenario.topology
    where = counted(scenario.world, "rank") + (f" on {topology.where}" if topology.where != "1 node" else "")
    system = f"pool {scenario.system.pool}"
    if scenario.system.collectives not in KERNELS:
        system += f" · collectives {scenario.system.collectives}"
    if scenario.system.sites != "explicit":
        system += f" · sites {scenario.system.sites}"
    falling = f" · falling on {ranks_text(scenario.falls_on)}" if scenario.falls_on else ""
    yield visible(f"{layout(topology)} · {where} · {system} · seed {scenario.seed}{falling}{_schedule(scenario)}")
    for index, step in enumerate(scenario.steps):
        yield visible(f"{'→' if index == marked else ' '} {index:2} {_step(step)}")


def _schedule(scenario: Scenario) -> str:
    """Such as ` · schedule 1 0, changes at 5`; nothing where there is none."""
    if scenario.scheduled is None:
        return ""
    order, changes = (" ".join(map(str, each)) for each in (scenario.scheduled.order, scenario.scheduled.changes))
    return f" · schedule {order}{f', changes at {changes}' if changes else ''}"


def layout(topology: Topology) -> str:
    """A topology's convention and degrees; families that are given, in place of degrees."""
    if topology.families_given is not None:
        families = (f"{name}={_family(topology, name)}" for name in topology.families)
        return f"{topology.convention} {' '.join(families)}"
    degrees = " ".join(f"{name}={width}" for name, width in topology.degrees.items()) or "all degrees 1"
    return f"{topology.convention} {degrees}"


def _family(topology: Topology, name: str) -> str:
    """The groups of a family, or the name of an earlier one that has the same communicators."""
    owner = next(other for other, ids in topology.ids.items() if ids == topology.ids[name])
    return owner if owner != name else ",".join(str([*group]) for group in topology.families[name])


def owners(topology: Topology, name: str) -> str:
    """Whose communicators a family has, of those listed before it: `its own`, `those of tp`, or some of each."""
    before = list(topology.ids)[: list(topology.ids).index(name)]
    first = [next((each for each in before if group in topology.ids[each]), "") for group in topology.ids[name]]
    others = ", ".join(dict.fromkeys(filter(None, first)))
    if not others:
        return "its own"
    return f"those of {others}" if all(first) else f"its own, and those of {others}"


def _step(step: Step) -> str:
    """Its kind, and each field that is not as it is where it is left out."""
    fields = [
        f"{field.name}={_shown(field.name, value)}"
        for field in msgspec.structs.fields(step)
        if (value := getattr(step, field.name)) != field.default
    ]
    return " ".join([step.kind, *fields])


def _shown(name: str, value: object) -> object:
    if isinstance(value, View):
        return f"{value.buffer}+{value.offset}" if value.offset else value.buffer
    if not isinstance(value, tuple):
        return value
    if name == "registered":
        return " | ".join(",".join(names) or "nothing" for names in value)
    return ",".join(_runs(value)) if name != "groups" else ",".join(str([*group]) for group in value)


def _runs(values: Sequence[object]) -> Iterator[str]:
    """Values without spaces; three equal ones in a row, or more, become one with their number: `64×8`."""
    for value, equal in groupby(values):
        times = len([*equal])
        shown = ",".join(_runs(value)).join("()") if isinstance(value, tuple) else str(value)
        yield from [f"{shown}×{times}"] if times > 2 else [shown] * times


def whereabouts(topology: Topology) -> Iterator[str]:
    """Where the ranks are, if on several nodes or NVLink domains, and which groups have no windows there."""
    several = len(set(zip(topology.node_of, topology.domain_of, strict=True))) > 1
    if several:
        yield f"nodes: {_together(topology.node_of)}"
        yield f"NVLink domains: {_together(topology.domain_of)}"
    if topology.hides_peers:
        yield "a process sees its own GPU alone"
    for name, partition in topology.families.items() if several else ():
        without = [group for group in partition if not topology.has_windows(group)]
        sizes = sorted({topology.lsa_team_size(group) for group in without})
        if without:
            which = "all" if len(without) == len(partition) else " ".join(str(list(group)) for group in without)
            yield f"without windows: {name} {which}, LSA teams of {', '.join(map(str, sizes))}"


def _together(labels: Sequence[int]) -> str:
    """The ranks of each node or domain."""
    parts = ([rank for rank, label in enumerate(labels) if label == part] for part in sorted(set(labels)))
    return " ".join(map(str, parts))


def shown(text: str) -> str:
    """Text from elsewhere as a person may see it: nothing in it commands a terminal."""
    return visible(text)
