"""On a rank: what a communicator and its windows cost.

Runs inside rank processes (`World.call`). Invariant: ranks begin each measured act together, so that none counts a wait
for one that comes late.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch

from harness.clock import CLOCK, Clock
from harness.rank.probes.opening import open_world
from harness.scenario.layouts.groups import GroupId
from harness.substrate.base import Substrate

Result = TypeVar("Result")

RECREATED, FIRST = "a communicator re-created", "its first window"
FURTHER, END = "a further window", "the end of a window"
BYTES = 12 << 20
"""Of a segment, and so of a window: from 10 MiB on the allocator gives each block one of its own."""


def measure(substrate: Substrate, slots: dict[GroupId, int], repeats: int, clock: Clock = CLOCK) -> dict[str, float]:
    """Median seconds of each act on this rank. Collective over the world.

    To re-create a communicator is to destroy it, and to split it from the one of the world again. The end of a window
    is not collective: each rank deregisters for itself.
    """
    group = open_world(substrate, slots)
    pool = substrate.pool("costs")
    with pool.use():
        blocks = [torch.empty(BYTES, dtype=torch.uint8, device=substrate.device.torch_device) for _ in range(2)]
    seconds: dict[str, list[float]] = {}

    def timed(act: str, work: Callable[[], Result]) -> Result:
        substrate.communicator(group).barrier()
        began = clock.now()
        result = work()
        seconds.setdefault(act, []).append(clock.now() - began)
        return result

    for _ in range(repeats):
        timed(RECREATED, partial(substrate.recreate, (group,)))
        communicator = substrate.communicator(group)
        acts = zip((FIRST, FURTHER), pool.segments, strict=True)
        windows = [timed(act, partial(communicator.register, segment)) for act, segment in acts]
        for window in windows:
            if window is not None:
                timed(END, partial(communicator.deregister, window))
    substrate.communicator(group).barrier()
    del blocks
    pool.close()
    substrate.end()
    return {act: statistics.median(each) for act, each in seconds.items()}
