"""Buffer sites: where an engine's layers ask for the buffers of their collectives, over a pool policy.

Invariant: a site names exactly one group to the policy. The explicit sites take it as a required
argument. The implicit ones name `tp` for every group, as the engine of the bug report did. A buffer that the policy
declines comes from no site: engines take ordinary memory then, and so does the caller.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from harness.scenario.operands import GUARD
from harness.system.context import PoolPolicy, ProcessGroup
from harness.system.shape import agreed_on, allocate, wanted

SizeOf = Callable[[int], int]
"""Elements that a rank, given by its number in the world, asks for."""


class BufferSites:
    """The sites of one rank: explicit, with the group as an argument that has no default."""

    def __init__(self, policy: PoolPolicy, device: torch.device) -> None:
        self._policy, self._device = policy, device

    def named(self, group: ProcessGroup) -> ProcessGroup:
        """The group that the policy is asked for. Local."""
        return group

    def get_local_dp_buffer(self, group: ProcessGroup, size_of: SizeOf, dtype: torch.dtype) -> torch.Tensor | None:
        """A buffer for this rank's tokens, at least `size_of(rank)` elements; None where the policy declines it.
        Collective over `group`.

        Sizes may differ between ranks. Every rank has all of them, as engines have from the token counts of the
        batch. A policy that has `agreed(sizes)` chooses one for all; under any other each rank gets its own.
        """
        named = self.named(group)
        sizes = [size_of(rank) for rank in named.ranks]
        agreed = getattr(self._policy, "agreed", None)
        return self._empty(named, sizes[named.rank] if agreed is None else agreed_on(agreed, sizes), dtype)

    def get_global_dp_buffer(self, group: ProcessGroup, size: int, dtype: torch.dtype) -> torch.Tensor | None:
        """A buffer of `size` elements for the tokens of every rank, the same on all; None where the policy declines it.
        Collective over `group`."""
        return self._empty(self.named(group), size, dtype)

    def _empty(self, named: ProcessGroup, size: int, dtype: torch.dtype) -> torch.Tensor | None:
        wants = getattr(self._policy, "wants", None)
        # An engine's threshold is on its own buffers, so the policy hears nothing of the guard.
        if wants is not None and not wanted(wants, named, (size - GUARD) * dtype.itemsize):
            return None
        return allocate(self._policy, named, size, dtype, self._device)


class ImplicitSites(BufferSites):
    """The historic sites: `tp` for a collective of any group."""

    def __init__(self, policy: PoolPolicy, device: torch.device, tp: ProcessGroup) -> None:
        super().__init__(policy, device)
        self._tp = tp

    def named(self, group: ProcessGroup) -> ProcessGroup:
        return self._tp
