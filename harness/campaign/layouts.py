"""The layouts of fewer ranks that may stand for another: every one of the same convention, and where its ranks are.

Invariant: layouts come in one order, by the widths of their degrees, so that a search repeats.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from harness.errors import UsageError
from harness.scenario.layout import DEGREES, divisors
from harness.scenario.topology import Placement, Topology


def layouts_like(topology: Topology, world: int, nodes: int) -> Iterator[Topology]:
    """Every layout of a topology's convention with `world` ranks, in order on `nodes` nodes."""
    for widths in widths_of(topology.convention, world):
        layout = _layout(topology, widths, world, nodes)
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


def widths_of(convention: str, world: int) -> Iterator[dict[str, int]]:
    """Widths of a convention's degrees with which there may be a layout of `world` ranks."""
    names = DEGREES.get(convention, ())
    spanning = names[:2] if convention == "sglang" else tuple(name for name in names if name != "dcp")
    inside = names[len(spanning) :]
    for multiplied in _products(world, len(spanning)):
        widths = dict(zip(spanning, multiplied, strict=True))
        # degrees that divide: SGLang's within TP, vLLM's `dcp` anywhere in the world
        whole = widths["tp"] if convention == "sglang" else world
        for divided in product(divisors(whole), repeat=len(inside)):
            yield widths | dict(zip(inside, divided, strict=True))


def _products(number: int, factors: int) -> Iterator[tuple[int, ...]]:
    """Every way to write a number as so many factors, in their order."""
    if factors <= 1:
        yield from [(number,)] * factors
        return
    for first in divisors(number):
        for others in _products(number // first, factors - 1):
            yield first, *others


def _layout(like: Topology, widths: Mapping[str, int], world: int, nodes: int) -> Topology | None:
    """A layout of these widths, if there is one and it has `world` ranks."""
    degrees: dict[str, object] = {name: width for name, width in widths.items() if width != 1}
    if "order" in like.degrees:
        degrees["order"] = like.degrees["order"]
    try:
        return Topology(name="reduced", convention=like.convention, degrees=degrees, placement=on_nodes(nodes, world))
    except UsageError:
        return None
