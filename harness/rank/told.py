"""Memory that a step says the windows of: segments of their own, registered as the step has it, without a pool policy.

Invariant: a draw leaves nothing of it. The windows go before their segments.
"""

from __future__ import annotations

import torch

from harness.rank.own import empty
from harness.scenario.layouts.groups import ids_of
from harness.scenario.operands import at
from harness.scenario.steps import Allocate
from harness.scenario.topology import Topology
from harness.substrate.base import Substrate
from harness.substrate.pool import Pool


class ToldMemory:
    """The buffers of a draw that have `registered`."""

    def __init__(self, substrate: Substrate, topology: Topology) -> None:
        self._substrate, self._topology = substrate, topology
        self._pools: list[Pool] = []

    def allocate(self, step: Allocate, size: int, dtype: torch.dtype) -> torch.Tensor:
        """`size` elements behind the step's lead, in a segment that is then registered. Collective over every group
        that it is registered with."""
        rank = self._substrate.rank
        pool = self._substrate.pool(f"recorded {step.buffer}")
        self._pools.append(pool)
        lead = at(step.lead, rank)
        with pool.use():
            whole = empty(lead + size, dtype=dtype, device=self._substrate.device.torch_device)
        for name in step.registered_on(rank):
            for group in ids_of(self._topology.ids[name], rank):
                for segment in pool.segments:
                    self._substrate.communicator(group).register(segment)
        return whole[lead:]

    def close(self) -> None:
        """Give back every window and segment. Local."""
        for pool in self._pools:
            for segment in pool.segments:
                segment.close_windows()
            pool.close()
