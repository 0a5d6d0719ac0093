"""The NCCL communicators of one rank, made by splitting and kept from draw to draw.

There is one over all processes, one for each world size that is split from it, and those of each family, which are
split from that: in one split, or in several where groups overlap. Of the families of each world size, those used least
recently are given up first.

Invariant: all ranks of a world size see the same draws of that size. So they split and destroy in the same order, and
need no message from the parent.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import nccl.core as nc

from harness.scenario.layouts.groups import GroupId, GroupIds, disjoint, ids_of
from harness.substrate.nccl.handle import NcclHandle, Version
from harness.substrate.nccl.quiet import quietly

KEPT = 12
"""Families whose communicators are kept, for each world size, beside those that a draw needs."""


class Handles:
    """Communicators of rank `rank` of `processes`. `node_of` gives the node of each rank of a draw's world."""

    def __init__(self, rank: int, processes: int, version: Version) -> None:
        self._rank, self._processes, self._version = rank, processes, version
        self._worlds: dict[int, nc.Communicator] = {}
        self._kept: dict[int, OrderedDict[GroupIds, dict[GroupId, NcclHandle]]] = {}

    @property
    def base(self) -> nc.Communicator:
        """The communicator over all processes. Raises `KeyError` before `join`."""
        return self._worlds[self._processes]

    def join(self, base: nc.Communicator) -> None:
        """Split from `base` from now on."""
        self._worlds[self._processes] = base

    @quietly
    def world(self, size: int) -> None:
        """Make the communicator over the first `size` ranks, if it is not there. Collective over all processes."""
        if size not in self._worlds:
            self._worlds[size] = self.base.split(0 if self._rank < size else None, self._rank)

    def take(
        self, family: GroupIds, node_of: Sequence[int], needed: AbstractSet[GroupIds]
    ) -> dict[GroupId, NcclHandle]:
        """This rank's kept communicators of a family, or new ones. Those of `needed` are not given up for it.
        Collective over the world."""
        kept = self._kept.setdefault(len(node_of), OrderedDict())
        if family in kept:
            kept.move_to_end(family)
            return kept[family]
        for other in [other for other in kept if other not in needed][: max(0, len(kept) - KEPT + 1)]:
            self.give_up(other, len(node_of))
        kept[family] = self._split(family, node_of)
        return kept[family]

    def give_up(self, family: GroupIds, world: int) -> None:
        """Destroy this rank's communicators of a family, if they are kept for worlds of that size. Collective over the
        world."""
        for handle in self._kept[world].pop(family, {}).values():
            handle.destroy()

    def replace(
        self, serving: Mapping[GroupId, GroupIds], family: GroupIds, node_of: Sequence[int]
    ) -> dict[GroupId, NcclHandle]:
        """Destroy this rank's communicators of a family, and keep new ones in their place. `serving` has the family for
        which that of a group is kept. Collective over the world."""
        kept = self._kept[len(node_of)]
        for group in ids_of(family, self._rank):
            kept[serving[group]].pop(group).destroy()
        new = self._split(family, node_of)
        for group, handle in new.items():
            kept[serving[group]][group] = handle
        return new

    @quietly
    def _split(self, family: GroupIds, node_of: Sequence[int]) -> dict[GroupId, NcclHandle]:
        found: dict[GroupId, NcclHandle] = {}
        for part in disjoint(family):
            group = next(iter(ids_of(part, self._rank)), None)
            colour, key = (None, 0) if group is None else (part.index(group), group.ranks.index(self._rank))
            comm = self._worlds[len(node_of)].split(colour, key)
            if group is not None:
                found[group] = NcclHandle(comm, self._version, len({node_of[rank] for rank in group.ranks}) == 1)
        return found
