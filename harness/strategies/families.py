"""Families that no convention makes: ranks left out, groups that overlap or differ in size, communicators over the same
ranks.

Invariant: a layout is a number of ranks and six picks, as one of a convention is. A pick of 0 leaves its family out, so
that each shrinks by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.scenario.layouts.groups import Group, Groups
from harness.scenario.topology import Topology


def explicit(world: int, picks: Sequence[int]) -> Topology:
    """The layout of at most `world` ranks that six drawn numbers stand for, of the convention `explicit`."""
    tp = _chunks(world, picks[0])
    families = {"tp": tp}
    for name, pick, make in zip(_FAMILIES, picks[1:], _FAMILIES.values(), strict=True):
        if pick and (groups := make(world, pick, len(tp[0]))):
            families[name] = groups
    shares = {"twin": "tp"} if picks[5] % 3 == 1 and families.get("twin") == tp else {}
    return Topology("drawn", "explicit", families_given=families, shares=shares)


def _chunks(world: int, pick: int) -> Groups:
    """Runs of ranks of any width, the whole world for 0. What is left over is a smaller group, or left out."""
    width = world if pick == 0 else max(1, world - pick % world)
    runs = [tuple(range(start, min(start + width, world))) for start in range(0, world, width)]
    return tuple(runs[:-1] if pick % 2 and len(runs) > 1 and len(runs[-1]) < width else runs)


def _neighbours(world: int, pick: int, width: int) -> Groups:
    """Pairs, or groups of three, along a ring of all ranks or a line of them."""
    size = min(world, 2 + pick // 2 % 2)
    starts = range(world) if pick % 2 and world > size else range(world - size + 1)
    return tuple(tuple((start + at) % world for at in range(size)) for start in starts)


def _ends(world: int, pick: int, width: int) -> Groups:
    """The first and the last stage of each pipeline, whose stages are runs of `width` ranks; and the first alone."""
    stages = world // width
    if stages < 2:
        return ()
    both = [(rank, (stages - 1) * width + rank) for rank in range(width)]
    inside: list[Group] = [(rank,) for rank in range(width, (stages - 1) * width)]
    return tuple(both + inside * (pick % 2))  # some engines give a group of one to whom they leave out


def _strided(world: int, pick: int, width: int) -> Groups:
    """Ranks at one place of every run; where the last run is shorter, the groups differ in size."""
    step = 1 + pick % max(1, world - 1)
    return tuple(tuple(range(start, world, step)) for start in range(step))


def _uneven(world: int, pick: int, width: int) -> Groups:
    """Two groups of unequal size, one of which may be left out."""
    first = 1 + pick % max(1, world - 1)
    parts = tuple(filter(None, (tuple(range(first)), tuple(range(first, world)))))
    return parts[-1:] if pick // 7 % 2 else parts


def _twin(world: int, pick: int, width: int) -> Groups:
    """The groups of `tp` again, in their order or in another."""
    tp = tuple(tuple(range(start, start + width)) for start in range(0, world - width + 1, width))
    return tuple(tuple(reversed(group)) for group in tp) if pick % 3 == 2 else tp


_FAMILIES: dict[str, Callable[[int, int, int], Groups]] = {
    "ring": _neighbours,
    "ends": _ends,
    "strided": _strided,
    "uneven": _uneven,
    "twin": _twin,
}
