"""Which families are axes of one grid of ranks, and the blocks of ranks that groups along some axes span.

An axis gives each rank one place. Engines lay the ranks of a stage out as a grid twice: for attention, and for experts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from math import prod

from harness.scenario.layouts.groups import Group, Groups

PP = "pp"
SEQUENCE = ("cp", "pcp", "attn_cp", "sp", "ulysses", "ring")
"""Families that divide the tokens of a sequence."""
DENSE = (
    ("tp", "cp", "dp"),
    ("tp", "pcp", "dp"),
    ("tp", "cp", "dp_shard", "dp_replicate"),
    ("tp", "sp", "cfg", "dp"),
    ("tp", "ulysses", "ring", "cfg", "dp"),
    ("attn_tp", "attn_cp"),
)
"""The axes of attention and of dense layers, of each engine."""
EXPERTS = (
    ("etp", "ep", "expert_dp"),
    ("etp", "ep", "efsdp", "dp_replicate"),
    ("moe_tp", "moe_ep"),
    ("moe_tp", "moe_cluster"),
)
"""The axes of experts."""
AXES = tuple(dict.fromkeys(name for axes in (*DENSE, *EXPERTS, (PP,)) for name in axes))


class Grid:
    """Some families that a layout shows, as axes of one grid."""

    def __init__(self, families: Mapping[str, Groups], axes: Iterable[str]) -> None:
        self.axes = {name: families[name] for name in axes if name in families}

    @cached_property
    def of_rank(self) -> dict[str, dict[int, Group]]:
        """By axis, the group of each rank."""
        return {name: {rank: group for group in groups for rank in group} for name, groups in self.axes.items()}

    @cached_property
    def blocks(self) -> list[Group]:
        """The ranks that are reached from one another along the axes. Only blocks of which every rank has a group of
        every axis: of another one a part is not shown."""
        reached = _reached([group for groups in self.axes.values() for group in groups])
        return [block for block in reached if all(rank in of for rank in block for of in self.of_rank.values())]

    def groups_of(self, rank: int) -> tuple[Group, ...]:
        return tuple(of[rank] for of in self.of_rank.values())

    def product(self, rank: int) -> int:
        """The number of ranks that a block of this rank's groups has."""
        return prod(map(len, self.groups_of(rank)))

    def sizes(self, rank: int) -> str:
        """Such as `tp 2 · cp 2 = 4`."""
        widths = " · ".join(f"{name} {len(of[rank])}" for name, of in self.of_rank.items())
        return f"{widths} = {self.product(rank)}" if len(self.axes) > 1 else widths


def _reached(groups: Sequence[Group]) -> list[Group]:
    """Ranks in parts: those that are linked by groups are in one."""
    part: dict[int, list[int]] = {}
    for group in groups:
        joined = sorted({id(each): each for rank in group if (each := part.get(rank))}.values(), key=len)
        whole = joined.pop() if joined else []
        for rank in [rank for each in joined for rank in each] + [rank for rank in group if rank not in part]:
            whole.append(rank)
            part[rank] = whole
    return sorted({id(each): tuple(sorted(each)) for each in part.values()}.values())
