"""The names that a pool policy needs: this rank, its groups, their communicators, pools, segments and windows.

Invariant: a policy imports from here and from nowhere else in the harness.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

import torch

from harness.scenario.layouts.groups import Group, GroupId
from harness.substrate.base import Substrate
from harness.substrate.communicator import Communicator, RegistrationError
from harness.substrate.pool import Pool
from harness.substrate.segment import Segment, Window
from harness.trace.events import SMALL_SEGMENT

__all__ = [
    "SMALL_SEGMENT",
    "Communicator",
    "Group",
    "GroupId",
    "Pool",
    "PoolPolicy",
    "ProcessGroup",
    "RankContext",
    "RegistrationError",
    "Segment",
    "Window",
]


class ProcessGroup:
    """A group as engines know it: `name`, `ranks` (global, in communicator order), `rank` (this one's index)."""

    def __init__(self, substrate: Substrate, family: str, group: GroupId) -> None:
        self._substrate = substrate
        self.family, self.ranks = family, group.ranks
        self.id = group
        """Equal for groups that share a communicator, and for no others: families over the same ranks may have one
        each. A `recreate` step leaves it as it is."""
        self.rank = self.ranks.index(substrate.rank)

    @property
    def name(self) -> str:
        """Such as `tp[0,1,2,3]`."""
        return f"{self.family}[{','.join(map(str, self.ranks))}]"

    @property
    def generation(self) -> int:
        """How many `recreate` steps have replaced its communicator."""
        return self._substrate.recreated[self.id]

    @property
    def communicator(self) -> Communicator:
        """The group's present communicator. A `recreate` step replaces it, so ask at every use."""
        return self._substrate.communicator(self.id)

    @property
    def comm_ptr(self) -> int:
        """The raw `ncclComm_t` address, for engines that register windows themselves."""
        return self.communicator.ptr

    def exchange(self, word: int) -> list[int]:
        """One word of every rank, in group order, as engines exchange on the Gloo group beside each NCCL group.

        `word` is a signed 64-bit integer. Collective over the group, on the host.
        """
        return self.communicator.exchange(word)

    def __repr__(self) -> str:
        return f"<ProcessGroup {self.name}>"


class RankContext:
    """One rank's view of a draw, as a pool policy sees it."""

    def __init__(self, substrate: Substrate, world: int) -> None:
        self._substrate = substrate
        self.rank, self.world = substrate.rank, world

    @property
    def device(self) -> torch.device:
        """Where buffers live: `cpu` on `sim`, this rank's GPU on `nccl`."""
        return self._substrate.device.torch_device

    @property
    def hosts(self) -> tuple[int, ...]:
        """The machine of each rank of the world, as host names tell it.

        It decides nothing about windows: an NVLink domain may be a part of a machine, or span several. Ask
        `communicator.supports_windows`.
        """
        return self._substrate.hosts

    @property
    def is_capturing(self) -> bool:
        """Whether this thread's work is being captured into a graph. Local."""
        return self._substrate.device.is_capturing

    @property
    def graph(self) -> str | None:
        """The graph that allocations are for now, from its warm-up to the end of its capture.

        A graph writes its buffers at every replay, released or not.
        """
        return self._substrate.graph

    def pool(self, name: str) -> Pool:
        """The caching allocator of that name, made at its first use. Local."""
        return self._substrate.pool(name)

    def stream(self, index: int) -> AbstractContextManager[None]:
        """Make stream `index` this thread's current stream. Everything but graphs runs on stream 0. Local."""
        return self._substrate.device.stream(index)

    def pools(self) -> Iterator[Pool]:
        """Every pool made so far. Local."""
        return iter(list(self._substrate.pools.values()))


class PoolPolicy(Protocol):
    """The system under test: built with a `RankContext`, used around plain `torch.empty`.

    A policy may also have `agreed(sizes: Sequence[int]) -> int`: how many elements every rank of a group is to
    allocate where its ranks, in group order, need `sizes`. Without it each rank allocates what it needs.

    And it may have `wants(group: ProcessGroup, nbytes: int) -> bool`: whether a buffer of `nbytes` for collectives of
    `group` is to come from it. Where it says no, the buffer is in ordinary memory, and `use` is not entered. It is
    asked on every rank of the group, which all have to say the same. Without it every buffer is wanted.
    """

    def use(self, group: ProcessGroup) -> AbstractContextManager[None]:
        """Under it, `torch.empty` yields buffers for collectives of `group`. Collective over the group."""

    def close(self) -> None:
        """Give back every window and segment. Called once, when no buffer is left. Local."""
