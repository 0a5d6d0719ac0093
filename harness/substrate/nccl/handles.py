"""The NCCL communicators of one rank, made by splitting and kept from draw to draw.

There is one over all processes, one for each world size that is split from it, and one for each family that is
split from that. Of the families of each world size, the least recently used are given up first.

Invariant: all ranks of a world size see the same draws of that size. So they split and destroy in the same order, and
need no message from the parent.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import nccl.core as nc

from harness.scenario.layouts.groups import GroupIds, id_of
from harness.substrate.nccl.handle import NcclHandle, Version

KEPT = 12
"""Families whose communicators are kept, for each world size, beside those that a draw needs."""


class Handles:
    """Communicators of rank `rank` of `processes`. `node_of` gives the node of each rank of a draw's world."""

    def __init__(self, rank: int, processes: int, version: Version) -> None:
        self._rank, self._processes, self._version = rank, processes, version
        self._worlds: dict[int, nc.Communicator] = {}
        self._kept: dict[int, OrderedDict[GroupIds, NcclHandle]] = {}

    @property
    def base(self) -> nc.Communicator:
        """The communicator over all processes. Raises `KeyError` before `join`."""
        return self._worlds[self._processes]

    def join(self, base: nc.Communicator) -> None:
        """Split from `base` from now on."""
        self._worlds[self._processes] = base

    def world(self, size: int) -> None:
        """Make the communicator over the first `size` ranks, if it is not there. Collective over all processes."""
        if size not in self._worlds:
            self._worlds[size] = self.base.split(0 if self._rank < size else None, self._rank)

    def take(self, family: GroupIds, node_of: Sequence[int], needed: AbstractSet[GroupIds]) -> NcclHandle:
        """The kept communicator of a family, or a new one. Those of `needed` are not given up for it.
        Collective over the world."""
        kept = self._kept.setdefault(len(node_of), OrderedDict())
        if family in kept:
            kept.move_to_end(family)
            return kept[family]
        for other in [other for other in kept if other not in needed][: max(0, len(kept) - KEPT + 1)]:
            kept.pop(other).destroy()
        kept[family] = self._split(family, node_of)
        return kept[family]

    def replace(self, old: NcclHandle, serves: GroupIds, family: GroupIds, node_of: Sequence[int]) -> NcclHandle:
        """Destroy `old`, which is kept for `serves`, and keep one that is split by `family` in its place.
        Collective over the world."""
        old.destroy()
        handle = self._split(family, node_of)
        self._kept[len(node_of)][serves] = handle
        return handle

    def _split(self, family: GroupIds, node_of: Sequence[int]) -> NcclHandle:
        group = id_of(family, self._rank)
        comm = self._worlds[len(node_of)].split(family.index(group), group.ranks.index(self._rank))
        return NcclHandle(comm, self._version, len({node_of[rank] for rank in group.ranks}) == 1)
