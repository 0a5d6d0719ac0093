"""On a rank: what leaving a pool policy's context costs when nothing has changed.

Runs inside rank processes (`World.call`). Invariant: every rank of the world does the same; the bench reads rank 0.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import product
from typing import Any

import torch

from harness.clock import CLOCK, Clock
from harness.rank.probes.opening import open_world
from harness.scenario.layouts.groups import GroupId
from harness.substrate.base import Substrate
from harness.system.context import ProcessGroup, RankContext
from harness.system.pools.built_in import load_pool

BLOCK = 1 << 20
"""Two of these fill a segment of the caching allocator."""
SECONDS = 0.5
"""Time for one figure, where it would take longer than its repeats."""
HISTORY = 100_000
"""Entries of allocator history, as an engine that records it has after some minutes."""


def measure(
    substrate: Substrate,
    slots: dict[GroupId, int],
    pools: list[str],
    counts: list[int],
    repeats: int,
    history: bool,
    clock: Clock = CLOCK,
) -> list[dict[str, Any]]:
    """Median seconds to leave each design's context, at each number of segments. Collective over the world."""
    figures = []
    with _history(substrate) if history else nullcontext():
        for count, name in product(counts, pools):
            whole, own = _one(substrate, slots, name, count, repeats, clock)
            figures.append({"pool": name, "segments": count, "history": history, "seconds": whole, "own": own})
    return figures


def _one(
    substrate: Substrate, slots: dict[GroupId, int], name: str, count: int, repeats: int, clock: Clock
) -> tuple[float, float]:
    """Seconds to leave a design's context, and of that its own part: with no allocator's context inside."""
    group = open_world(substrate, slots)
    context = RankContext(substrate, len(group.ranks))
    everyone = ProcessGroup(substrate, "tp", group)
    policy = load_pool(name)(context)
    with policy.use(everyone):
        held = [torch.empty(BLOCK, dtype=torch.uint8, device=substrate.device.torch_device) for _ in range(2 * count)]
    assert sum(len(pool.segments) for pool in context.pools()) == count
    whole = median_of_leaving(lambda: policy.use(everyone), repeats, clock)
    for pool in context.pools():
        pool.use = nullcontext  # type: ignore[method-assign]
    own = median_of_leaving(lambda: policy.use(everyone), repeats, clock)
    held.clear()
    policy.close()
    substrate.end()
    return whole, own


def median_of_leaving(enter: Callable[[], AbstractContextManager[None]], repeats: int, clock: Clock) -> float:
    """Median seconds of leaving, over as many repeats as fit in the time, and at least five."""
    times: list[float] = []
    end = clock.now() + SECONDS
    while len(times) < repeats and (len(times) < 5 or clock.now() < end):
        context = enter()
        context.__enter__()
        began = clock.now()
        context.__exit__(None, None, None)
        times.append(clock.now() - began)
    return statistics.median(times)


@contextmanager
def _history(substrate: Substrate) -> Iterator[None]:
    """The allocator records its history, and has a full one."""
    torch.cuda.memory._record_memory_history(max_entries=HISTORY)
    try:
        for _ in range(HISTORY // 2):
            torch.empty(1, device=substrate.device.torch_device)
        yield
    finally:
        torch.cuda.memory._record_memory_history(enabled=None)
