"""What a layout shows, against what another one says.

Invariant: only groups that are shown are compared, and the ranks of which all groups are shown. Families that only one
of the two has are listed, and are no difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from harness.scenario.dumps.dump import Layout
from harness.scenario.dumps.names import WORLD
from harness.scenario.layouts.groups import Group, Groups

Kind = Literal["world", "groups", "order", "missing"]
"""Another number of ranks; other groups; the same ranks in another order; a group that is not shown."""


class Difference(NamedTuple):
    """How a family differs, at the first rank where it does."""

    family: str
    kind: Kind
    rank: int
    shown: Group | None
    expected: Group | None
    ranks: int
    """How many ranks have another group, or another place in it."""
    like: str = ""
    """The family that has these groups in the other layout."""


@dataclass(frozen=True)
class Comparison:
    """What came of comparing two layouts."""

    differences: tuple[Difference, ...]
    compared: tuple[str, ...]
    only_shown: Mapping[str, str]
    """Families that the other layout has not, each with the family there that has its groups, or nothing."""
    only_expected: tuple[str, ...]

    @property
    def swapped(self) -> list[tuple[Difference, Difference]]:
        """Pairs of families of which each has the groups of the other."""
        by_name = {each.family: each for each in self.differences}
        pairs = ((each, by_name.get(each.like)) for each in self.differences)
        return [(a, b) for a, b in pairs if b is not None and b.like == a.family and a.family < b.family]


def compare(shown: Layout, expected: Layout) -> Comparison:
    """Every family that both have, at its first rank that differs."""
    both = tuple(family for family in shown.families if family in expected.families)
    found = [*_worlds(shown, expected)]
    for family in both:
        found += _family(family, shown, expected)
    return Comparison(
        tuple(found),
        both,
        {name: _like(name, shown, expected) for name in shown.families if name not in both},
        tuple(name for name in expected.families if name not in both),
    )


def _worlds(shown: Layout, expected: Layout) -> Iterator[Difference]:
    """The number of ranks, where the group of all ranks shows it or all ranks are shown."""
    is_known = WORLD in shown.families or len(shown.speakers) == shown.world
    if (is_known and shown.world != expected.world) or shown.world > expected.world:
        ranks = abs(shown.world - expected.world)
        all_ranks = (tuple(range(shown.world)), tuple(range(expected.world)))
        yield Difference(WORLD, "world", min(shown.world, expected.world), *all_ranks, ranks)


def _family(family: str, shown: Layout, expected: Layout) -> list[Difference]:
    """The difference of one family, if there is one."""
    ours, theirs = by_rank(shown.families[family]), by_rank(expected.families[family])
    found = [
        difference
        for rank in sorted(ours.keys() | (theirs.keys() & shown.speakers))
        if (difference := _at(family, rank, ours.get(rank, ()), theirs.get(rank, ()), rank in shown.speakers))
    ]
    other = [each for each in found if each.kind != "order"]
    like = _like(family, shown, expected) if other else ""
    return [each._replace(ranks=len(found), like=like) for each in (other or found)[:1]]


def _at(family: str, rank: int, ours: Groups, theirs: Groups, is_whole: bool) -> Difference | None:
    """How the groups of one rank differ."""
    for group in ours:
        if group not in theirs and (found := _of_group(family, rank, group, theirs)) is not None:
            return found
    kept = {frozenset(group) for group in ours}
    missing = [group for group in theirs if frozenset(group) not in kept] if is_whole else []
    return Difference(family, "missing", rank, None, missing[0], 1) if missing else None


def _of_group(family: str, rank: int, group: Group, theirs: Groups) -> Difference | None:
    """How a group that the other layout has not differs there. One in which this rank has its place is another rank's
    difference."""
    same = next((each for each in theirs if set(each) == set(group)), None)
    if same is None:
        return Difference(family, "groups", rank, group, theirs[0] if theirs else None, 1)
    if same.index(rank) == group.index(rank):
        return None
    return Difference(family, "order", rank, group, same, 1)


def _like(family: str, shown: Layout, expected: Layout) -> str:
    """Another family of the other layout that has all of these groups. One that is not of groups of one rank, which
    say nothing."""
    groups = set(shown.families[family])
    if max(map(len, groups)) == 1:
        return ""
    fitting = [name for name, each in expected.families.items() if name != family and groups <= set(each)]
    own = set(expected.families.get(family, ()))
    back = [name for name in fitting if name in shown.families and set(shown.families[name]) <= own]
    return next(iter(back or fitting), "")


def by_rank(groups: Groups) -> dict[int, Groups]:
    """The groups that each rank is in."""
    found: dict[int, Groups] = {}
    for group in groups:
        for rank in group:
            found[rank] = (*found.get(rank, ()), group)
    return found
