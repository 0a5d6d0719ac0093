"""Small programs that tell pool designs apart, and the way from a program to what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.oracle.findings import Finding
from harness.scenario.operands import GUARD, Elements, View
from harness.scenario.steps import AllGather, Allocate, Recreate, ReduceScatter, Release, Step, Trim
from harness.scenario.topology import Placement, Topology
from harness.trace.draw import Draw
from harness.trace.events import Registered
from harness.world.world import World
from tests.tools.scenes import SQUARE, explicit, findings, rules, scenario

SMALL = 256
HALF = (1 << 20) // 4 - GUARD
"""Elements of a buffer that fills half of a segment for small blocks."""
LARGE = 1 << 20
"""Elements of a buffer that needs a segment for large blocks."""
SMALL_SEGMENT, LARGE_SEGMENT = 2 << 20, 20 << 20
OWN_SEGMENT = 3 << 20
"""Elements of a buffer that gets a segment to itself."""
APART = explicit(Placement(nodes=2, gpus_per_node=2), tp=((0, 1, 2, 3),))
"""Four ranks on two nodes: their communicator supports no windows."""


def found(ranks: World, pool: str, steps: Sequence[Step], topology: Topology = SQUARE) -> list[Finding]:
    return findings(ranks, scenario(*steps, topology=topology, pool=pool))


def run(ranks: World, *steps: Step, pool: str = "deferred", topology: Topology = SQUARE) -> Draw:
    return ranks.run(scenario(*steps, topology=topology, pool=pool))


def events(draw: Draw, kind: Any) -> list[list[Any]]:
    """The events of a kind on each rank."""
    return [[event for event in trace.events if isinstance(event, kind)] for trace in draw.traces]


def allocate(name: str, family: str, elements: Elements = SMALL) -> Allocate:
    return Allocate(name, family, elements)


def gather(name: str, family: str) -> AllGather:
    return AllGather(family, View(name), 64)


def registered(draw: Draw) -> list[tuple[Any, list[Registered]]]:
    """Each rank's trace with its registrations."""
    return list(zip(draw.traces, events(draw, Registered), strict=True))


TWO_GROUPS = (
    allocate("t", "tp"),
    gather("t", "tp"),
    allocate("c", "cp"),
    gather("c", "cp"),
    ReduceScatter("tp", View("t"), 64, None),
)
RECREATED = (
    allocate("a", "tp"),
    gather("a", "tp"),
    Recreate("tp"),
    allocate("b", "tp"),
    gather("a", "tp"),
    gather("b", "tp"),
)
TRIMMED = (
    allocate("a", "tp"),
    gather("a", "tp"),
    Release("a"),
    Trim(),
    allocate("b", "tp"),
    gather("b", "tp"),
)
OTHER_GROUPS_SEGMENTS = (
    allocate("c", "cp", (SMALL, LARGE, SMALL, LARGE)),
    gather("c", "cp"),
    allocate("t", "tp"),
    gather("t", "tp"),
)
"""Equal sizes in each group: cp[0,2] takes a small segment and cp[1,3] a large one. Then tp comes."""
OTHER_GROUPS_OFFSETS = (
    allocate("c", "cp", (SMALL, 2 * SMALL, SMALL, 2 * SMALL)),
    allocate("t", "tp"),
    gather("c", "cp"),
    gather("t", "tp"),
)
"""Equal sizes in each group, in one segment, which they fill differently before tp comes."""
UNEVEN_SEGMENTS = (allocate("t", "tp", (SMALL, SMALL, LARGE, SMALL)), gather("t", "tp"))
"""Rank 2 needs a large segment where the others need a small one."""
UNEVEN_OFFSETS = (allocate("a", "tp", (SMALL, 2 * SMALL, SMALL, SMALL)), allocate("b", "tp"), gather("b", "tp"))
"""Rank 1's first buffer is longer, so that its second begins later."""
UNEVEN_FIT = (
    allocate("a", "tp", (SMALL, HALF, SMALL, SMALL)),
    allocate("b", "tp", HALF),
    allocate("c", "tp", HALF),
    allocate("d", "tp"),
    gather("d", "tp"),
)
"""Every rank has two segments; rank 1 has filled the first, and takes the last buffer from the second."""
UNEVEN_GROWTH = (
    allocate("a", "tp", (SMALL, HALF, SMALL, SMALL)),
    allocate("b", "tp", HALF),
    allocate("c", "tp"),
    gather("c", "tp"),
)
"""Rank 1 has filled its segment and grows alone."""
PROGRAMS = {
    "two groups": TWO_GROUPS,
    "recreated": RECREATED,
    "trimmed": TRIMMED,
    "segments of another group": OTHER_GROUPS_SEGMENTS,
    "offsets of another group": OTHER_GROUPS_OFFSETS,
    "uneven segments": UNEVEN_SEGMENTS,
    "uneven offsets": UNEVEN_OFFSETS,
    "uneven fit": UNEVEN_FIT,
    "uneven growth": UNEVEN_GROWTH,
}
UNEVEN = {
    "uneven growth": "entered different numbers of registrations: rank 0: 1, rank 1: 2, rank 2: 1, rank 3: 1",
    "uneven offsets": "'b' lies at different offsets of the same window of tp[0,1,2,3]: "
    "rank 0 at byte 2560, rank 1 at byte 3584",
    "uneven fit": "'d' lies in different windows of tp[0,1,2,3]: rank 0 in window 0, rank 1 in window 1",
}
"""What uneven sizes do to pools whose ranks agree on nothing."""
UNEVEN_RULES = {
    "uneven growth": ["registration-skew", "hang"],
    "uneven offsets": ["offset-mismatch"],
    "uneven fit": ["segment-mismatch"],
}
TWO_FREE_SEGMENTS = (
    *(allocate("a", "tp", OWN_SEGMENT), allocate("b", "tp", OWN_SEGMENT), Release("a"), Release("b")),
    *(allocate("c", "tp", OWN_SEGMENT), gather("c", "tp")),
)
"""Two segments of a pool are free when a third buffer comes."""


def causes(found: list[Finding]) -> list[str]:
    """The rules broken, but for what peers that were reached at a wrong place make of the data."""
    return [rule for rule in rules(found) if rule not in ("result-overwritten", "out-of-bounds", "wrong-data")]
