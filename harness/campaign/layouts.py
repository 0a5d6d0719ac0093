"""The layouts of fewer ranks that may stand for another: every one of the same convention, and where its ranks are.

Invariant: layouts come in one order, by the widths of their degrees, so that a search repeats.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.errors import UsageError
from harness.scenario.layouts.arithmetic import Degrees
from harness.scenario.layouts.conventions import CONVENTIONS
from harness.scenario.topology import Placement, Topology


def layouts_like(topology: Topology, world: int, nodes: int) -> Iterator[Topology]:
    """Every layout of a topology's convention with `world` ranks, in order on `nodes` nodes."""
    if topology.convention not in CONVENTIONS:
        return
    for degrees in CONVENTIONS[topology.convention].candidates(world):
        layout = _layout(topology, degrees, world, nodes)
        if layout is not None:
            yield layout


def on_nodes(nodes: int, world: int) -> Placement | None:
    """Ranks in order on so many nodes; those of one node have no placement."""
    return None if nodes == 1 else Placement(nodes, -(-world // nodes))


def stand_ins(whole: int, world: int) -> list[tuple[int, ...]]:
    """Which `world` ranks of `whole` may stand for all: the first, ranks spread evenly, the last, and all but one of
    the first with the last."""
    first, last = tuple(range(world)), tuple(range(whole - world, whole))
    spread = tuple(rank * whole // world for rank in range(world))
    return list(dict.fromkeys((first, spread, last, (*first[:-1], whole - 1))))


def _layout(like: Topology, degrees: Degrees, world: int, nodes: int) -> Topology | None:
    """A layout of these degrees, if there is one and it has `world` ranks."""
    degrees = {name: width for name, width in degrees.items() if width != 1}
    if "order" in like.degrees:
        degrees["order"] = like.degrees["order"]
    try:
        return Topology(name="reduced", convention=like.convention, degrees=degrees, placement=on_nodes(nodes, world))
    except UsageError:
        return None
