"""Random layouts of conventions, and ones with planted errors."""

from __future__ import annotations

import random
from collections.abc import Iterator

from harness.errors import UsageError
from harness.scenario.layouts.conventions import CONVENTIONS
from harness.scenario.layouts.groups import Group, Groups
from harness.scenario.topology import Topology

WORLDS = (2, 3, 4, 6, 8, 12, 16, 24, 32)


def random_layouts(convention: str, count: int, seed: int = 0) -> Iterator[Topology]:
    """So many right layouts of a convention."""
    drawn = random.Random(f"{convention} {seed}")
    while count:
        picks = [drawn.randrange(120) for _ in range(6)]
        degrees = CONVENTIONS[convention].drawn(drawn.choice(WORLDS), picks)
        try:
            yield Topology("drawn", convention, dict(degrees))
        except UsageError:  # degrees that no order of axes fits
            continue
        count -= 1


def exchanged(groups: Groups, one: int, other: int) -> Groups:
    """The groups with two ranks in each other's place."""
    other_of = {one: other, other: one}
    return tuple(tuple(other_of.get(rank, rank) for rank in group) for group in groups)


def shifted(groups: Groups, world: int, by: int) -> Groups:
    """The groups with every rank's number moved, around the end of the world."""
    return tuple(tuple((rank + by) % world for rank in group) for group in groups)


def with_family(shown: Topology, family: str, groups: Groups) -> dict[str, Groups]:
    """The families with one in place of another."""
    return {**shown.families, family: groups}


def as_sets(groups: Groups) -> set[frozenset[int]]:
    return {frozenset(group) for group in groups}


def sorted_groups(groups: Groups) -> tuple[Group, ...]:
    """As torch.distributed has them: ranks in order."""
    return tuple(sorted(tuple(sorted(group)) for group in groups))
