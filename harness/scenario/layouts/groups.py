"""Groups of ranks, the families that they form, and the communicators that they have.

Invariant: every family of a layout is a partition of the world, and the order of ranks inside a
group is the rank order of that group's communicator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from harness.errors import UsageError

Group = tuple[int, ...]
"""Ranks, in the order of their communicator."""
Partition = tuple[Group, ...]

MAX_WORLD = 1024


class GroupId(NamedTuple):
    """A process group: its ranks, and which of the communicators over just these ranks it has, from 0 on."""

    ranks: Group
    number: int = 0

    @property
    def label(self) -> str:
        """Such as `0-1`, or `0-1 (1)` for the second communicator over these ranks."""
        return "-".join(map(str, self.ranks)) + (f" ({self.number})" if self.number else "")


GroupIds = tuple[GroupId, ...]
"""A family, with the communicators of its groups."""


class LayoutError(UsageError):
    """Degrees that no world can have; the message shows the arithmetic."""


def check_partition(name: str, partition: Partition, world: int | None = None) -> int:
    """World size of a partition; raises `LayoutError` naming the family where it is none."""
    if not all(partition) or not partition:
        raise LayoutError(f"family {name!r} is no partition: it has an empty group, or none")
    times = Counter(rank for group in partition for rank in group)
    for rank, count in times.items():
        if count > 1:
            raise LayoutError(f"family {name!r} is no partition: rank {rank} is in it {count} times")
    size = len(times) if world is None else world
    check_world("family", size, name)
    for rank in sorted(times.keys() ^ set(range(size))):
        what = "is missing" if rank in range(size) else "is outside the world"
        raise LayoutError(f"family {name!r} is no partition of {size} ranks: rank {rank} {what}")
    return size


def check_world(what: str, world: int, arithmetic: str) -> None:
    if world > MAX_WORLD:
        raise LayoutError(f"{what} world {arithmetic} = {world} is larger than {MAX_WORLD}")


def id_of(ids: GroupIds, rank: int) -> GroupId:
    """The group that a rank is in, with its communicator."""
    return next(group for group in ids if rank in group.ranks)


def number_groups(families: Mapping[str, Partition], shared: Mapping[str, str] | None) -> dict[str, GroupIds]:
    """The families with the communicators of their groups. `shared`: as `shared_families` gives it. Raises
    `LayoutError` for a family that shares another's and has other groups, or that shares none that there is."""
    for name in shared or {}:
        if name not in families:
            raise LayoutError(f"{name!r} shares communicators and is no family")
    made: Counter[Group] = Counter()
    numbered: dict[str, GroupIds] = {}
    own = {name: _owner(name, families, shared or {}) for name in families}
    for name, partition in families.items():
        if own[name] == name:
            numbered[name] = tuple(GroupId(group, made[group] if shared is not None else 0) for group in partition)
            made.update(partition)
    return {name: numbered[own[name]] for name in families}


def _owner(name: str, families: Mapping[str, Partition], shared: Mapping[str, str]) -> str:
    """The family whose communicators a family uses."""
    owner, passed = name, [name]
    while owner in shared:
        owner = shared[owner]
        if owner not in families:
            raise LayoutError(f"family {name!r} shares the communicators of {owner!r}, which is no family")
        if owner in passed:
            raise LayoutError(f"families {', '.join(map(repr, passed))} share communicators in a circle")
        passed.append(owner)
    if families[owner] != families[name]:
        raise LayoutError(f"family {name!r} shares the communicators of {owner!r} and has other groups")
    return owner
