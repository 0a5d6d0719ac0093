"""Groups of ranks, the families that they form, and the communicators that they have.

Invariant: the order of ranks inside a group is the rank order of that group's communicator. A family need be no
partition of the world: it may leave ranks out, and its groups may overlap and differ in size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from harness.errors import UsageError

Group = tuple[int, ...]
"""Ranks, in the order of their communicator."""
Groups = tuple[Group, ...]
"""The groups of a family."""

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


def check_family(name: str, groups: Groups) -> None:
    """Raise `LayoutError`, naming the family, where its groups are none. Ranks may be left out, and be in several
    groups; groups may differ in size."""
    if not groups:
        raise LayoutError(f"family {name!r} has no group")
    for group in groups:
        if not group:
            raise LayoutError(f"family {name!r} has an empty group")
        if (rank := min(group)) < 0:
            raise LayoutError(f"family {name!r} has rank {rank}; ranks are numbered from 0")
        if len(set(group)) < len(group):
            rank = next(rank for rank in group if group.count(rank) > 1)
            raise LayoutError(f"family {name!r}: rank {rank} is {group.count(rank)} times in group {list(group)}")
    if len(set(groups)) < len(groups):
        twice = next(group for group in groups if groups.count(group) > 1)
        raise LayoutError(f"family {name!r} has group {list(twice)} {groups.count(twice)} times")
    check_world("family", world_of(groups), name)


def world_of(groups: Groups) -> int:
    """The ranks of the smallest world that holds these groups."""
    return 1 + max(map(max, groups))


def rank_in_two(groups: Iterable[Group]) -> int | None:
    """A rank that is in more than one of these groups, if there is one."""
    times = Counter(rank for group in groups for rank in group)
    return next((rank for rank in sorted(times) if times[rank] > 1), None)


def check_world(what: str, world: int, arithmetic: str) -> None:
    if world > MAX_WORLD:
        raise LayoutError(f"{what} world {arithmetic} = {world} is larger than {MAX_WORLD}")


def ids_of(ids: GroupIds, rank: int) -> GroupIds:
    """The groups that a rank is in, with their communicators: none, one, or several."""
    return tuple(group for group in ids if rank in group.ranks)


def disjoint(ids: GroupIds) -> list[GroupIds]:
    """The groups of a family in parts, each of groups of which no two have a rank in common."""
    parts: list[list[GroupId]] = []
    for group in ids:
        fitting = (part for part in parts if rank_in_two([*(each.ranks for each in part), group.ranks]) is None)
        part = next(fitting, None)
        if part is None:
            parts.append([group])
        else:
            part.append(group)
    return [tuple(part) for part in parts]


def number_groups(families: Mapping[str, Groups], shared: Mapping[str, str] | None) -> dict[str, GroupIds]:
    """The families with the communicators of their groups. `shared`: as `shared_families` gives it. Raises
    `LayoutError` for a family that shares another's and has other groups, or that shares none that there is."""
    for name in shared or {}:
        if name not in families:
            raise LayoutError(f"{name!r} shares communicators and is no family")
    made: Counter[Group] = Counter()
    numbered: dict[str, GroupIds] = {}
    own = {name: _owner(name, families, shared or {}) for name in families}
    for name, groups in families.items():
        if own[name] == name:
            numbered[name] = tuple(GroupId(group, made[group] if shared is not None else 0) for group in groups)
            made.update(groups)
    return {name: numbered[own[name]] for name in families}


def _owner(name: str, families: Mapping[str, Groups], shared: Mapping[str, str]) -> str:
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
