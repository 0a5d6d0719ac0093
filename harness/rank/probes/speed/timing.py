"""How a timed call is repeated: in a graph, in a row on the stream, or by the host's clock.

Invariant: every rank repeats a call equally often, as its peers wait for it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch

from harness.clock import Clock
from harness.substrate.device import Device

FEWEST, MOST = 3, 60
"""Batches of a figure."""
IN_A_ROW = ((1 << 20, 20), (16 << 20, 5))
"""Calls of a batch, up to so many bytes; two above."""
ON_HOST = 3
"""The same on the simulation."""
EAGER = 20
"""Calls over which the host's time is taken."""

Call = Callable[[], object]


def in_a_row(nbytes: int) -> int:
    """Calls of a batch."""
    return next((calls for most, calls in IN_A_ROW if nbytes <= most), 2)


def median(batch: Callable[[], float], fewest: Callable[[int], int], budget: float, clock: Clock) -> float:
    """Median seconds of as many batches as fit in `budget` seconds. `fewest` gives the smallest number of all ranks,
    and is collective."""
    began = clock.now()
    batch()
    took = max(clock.now() - began, 1e-9)
    batches = fewest(min(MOST, max(FEWEST, int(budget / took))))
    return statistics.median(batch() for _ in range(batches))


def by_host(call: Call, meet: Call, clock: Clock) -> float:
    """Seconds of a call by the host's clock, of a few that all ranks start and end together. Collective."""
    meet()
    began = clock.now()
    for _ in range(ON_HOST):
        call()
    meet()
    return (clock.now() - began) / ON_HOST


def on_stream(replay: Call, calls: int, meet: Call) -> float:
    """Seconds of a call, of `calls` that one `replay` makes, between events on the stream. Collective.

    The first replay brings the ranks together on their GPUs, and is not timed.
    """
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    meet()
    replay()
    start.record()
    replay()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1000 / calls


def host_seconds(call: Call, meet: Call, clock: Clock) -> float:
    """Seconds that the host needs to start a call, of several that it does not wait for. Collective."""
    meet()
    began = clock.now()
    for _ in range(EAGER):
        call()
    took = (clock.now() - began) / EAGER
    meet()
    return took


def captured(call: Call, calls: int, device: Device) -> torch.cuda.CUDAGraph:
    """`calls` calls in a row as a graph. Collective: one call is made before, on the stream that captures, as what is
    loaded or kept for a stream comes with its first call."""
    graph, stream = torch.cuda.CUDAGraph(keep_graph=True), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        call()
    torch.cuda.synchronize()
    with device.tables_of(graph), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        for _ in range(calls):
            call()
    graph.instantiate()
    return graph


def blocks_of(graph: Any) -> int | None:
    """The most blocks of a kernel in a captured graph; None where it has no kernel."""
    from cuda.bindings import driver  # noqa: PLC0415  (only where there is a GPU)

    handle = driver.CUgraph(int(graph.raw_cuda_graph()))
    _, _, count = driver.cuGraphGetNodes(handle)
    _, nodes, _ = driver.cuGraphGetNodes(handle, count)
    grids = []
    for node in nodes:
        if driver.cuGraphNodeGetType(node)[1] == driver.CUgraphNodeType.CU_GRAPH_NODE_TYPE_KERNEL:
            error, found = driver.cuGraphKernelNodeGetParams(node)
            if error == driver.CUresult.CUDA_SUCCESS:
                grids.append(int(found.gridDimX * found.gridDimY * found.gridDimZ))
    return max(grids, default=None)
