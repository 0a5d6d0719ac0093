"""Topologies of several engines, and the lines of their flows on them."""

from __future__ import annotations

from harness.scenario.flows.catalogue import compile_flows, layer_of
from harness.scenario.flows.layer import Batch
from harness.scenario.operands import Elements, View
from harness.scenario.steps import AllGather, Allocate, AllReduce, ReduceScatter, Release, Step
from harness.scenario.topology import Topology


def taken(topology: Topology, name: str, batch: Batch, hidden: int = 1) -> list[Step]:
    """The steps of one line on a batch, without those at its end that give everything back."""
    layer = layer_of(topology, name)
    layer.hidden = hidden
    return [step for step in compile_flows([name], layer, [batch], 1) if not isinstance(step, Release)]


def plain(buffer: str, elements: Elements) -> Allocate:
    return Allocate(buffer, "tp", elements, "float32", "plain")


def window(buffer: str, family: str, elements: Elements) -> Allocate:
    """A buffer for a part, one rank's."""
    return Allocate(buffer, family, elements, "float32", "window", "local")


def whole(buffer: str, family: str, elements: Elements) -> Allocate:
    """A buffer with a part for every rank of a group."""
    return Allocate(buffer, family, elements, "float32", "window", "global")


def gathered(family: str, first: int, count: Elements, all_of_it: Elements) -> list[Step]:
    """An all-gather of ordinary memory into a window; `first` is the number of its first buffer."""
    source, output = f"b{first}", f"b{first + 1}"
    call = AllGather(family, View(output), count, View(source))
    return [plain(source, count), whole(output, family, all_of_it), call]


def scattered(family: str, first: int, count: Elements, all_of_it: Elements) -> list[Step]:
    """A reduce-scatter of a window into another."""
    source, output = f"b{first}", f"b{first + 1}"
    call = ReduceScatter(family, View(source), count, View(output))
    return [whole(source, family, all_of_it), window(output, family, count), call]


def reduced(family: str, count: Elements, in_place: bool = False) -> list[Step]:
    """An all-reduce of a window, in place or into another."""
    if in_place:
        return [window("b0", family, count), AllReduce(family, View("b0"), count)]
    return [window("b0", family, count), window("b1", family, count), AllReduce(family, View("b1"), count, View("b0"))]
