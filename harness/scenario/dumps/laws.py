"""Laws between families: what holds in every right layout, whatever its degrees.

Invariant: a law is judged only where what it speaks of is shown. Each has a reason. A broken one names the families,
the first rank, and the groups that clash.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

from harness.scenario.dumps.dump import Layout
from harness.scenario.dumps.grids import AXES, DENSE, EXPERTS, PP, SEQUENCE, Grid
from harness.scenario.dumps.names import WORLD
from harness.scenario.layouts.groups import Group, Groups, rank_in_two

Families = Mapping[str, Groups]

REPLICAS = {"expert_dp", "efsdp"}
"""Families of an engine whose experts have a grid of their own. Without one, `etp` may mean something else."""
ALL_EXPERTS = {"tp", "pcp", "dcp", "sp", "ulysses", "ring", "cfg", "dp", "pp", "ep", WORLD}
"""Families of engines in which an ep group has all ranks of a stage."""

LAWS: dict[str, str] = {
    "one-group": "an axis gives a rank one place, so a rank is in one group of it",
    "one-size": "an axis divides weights, tokens or layers into equal parts, so its groups have one size",
    "one-rank-in-common": "two axes divide different things; ranks that share both groups would hold the same part",
    "same-place": "ranks that differ along one axis only are at the same place of the other",
    "whole-grid": "ranks along the axes are a grid: there is one for each combination of places",
    "whole-stage": "tp, sequence and dp groups make up a pipeline stage, and pp groups have one rank of each stage",
    "same-ranks-for-experts": "the ranks of a stage that run attention are those that run its experts",
}
"""Each law, and why it holds."""


class Broken(NamedTuple):
    """A law that does not hold, at its first rank."""

    law: str
    families: tuple[str, ...]
    rank: int
    groups: tuple[Group, ...]
    how: str
    """What is seen, in words."""


def broken(layout: Layout) -> list[Broken]:
    """Every law that families break, each at its first rank. Pairs that already clash are judged no further."""
    families = layout.families
    found = [*_one_group(families), *_one_size(families)]
    bad = {each.families[0] for each in found}
    good = {name: groups for name, groups in families.items() if name not in bad}
    for one, other in _pairs(good):
        found += _crossing(one, other, good)
    if not found:
        found += _grids(good)
    return list(dict.fromkeys(found or [*_stages(layout), *_experts(families)]))


def remarks(layout: Layout) -> list[str]:
    """What is unusual and no law forbids."""
    return [*_unequal(layout.families), *_left_out(layout), *_incomplete(layout)]


def _one_group(families: Families) -> Iterator[Broken]:
    for name in (name for name in AXES if name in families):
        if (rank := rank_in_two(families[name])) is not None:
            groups = tuple(group for group in families[name] if rank in group)[:2]
            yield Broken("one-group", (name,), rank, groups, f"groups of {name} overlap")


def _one_size(families: Families) -> Iterator[Broken]:
    for name in (name for name in AXES if name in families):
        usual = Counter(map(len, families[name])).most_common(1)[0][0]
        odd = [group for group in families[name] if len(group) != usual]
        if odd:
            first = min(odd, key=min)
            other = next(group for group in families[name] if len(group) == usual)
            how = f"{name} has groups of {usual} and of {len(first)} ranks"
            yield Broken("one-size", (name,), min(first), (first, other), how)


def _pairs(families: Families) -> list[tuple[str, str]]:
    """The pairs of axes of one grid that are shown."""
    experts = EXPERTS if families.keys() & REPLICAS else EXPERTS[2:]
    grids = [(*axes, PP) for axes in (*DENSE, *experts)] + [("tp", name) for name in SEQUENCE if name != "attn_cp"]
    shown = [[name for name in axes if name in families] for axes in grids]
    return list(dict.fromkeys(pair for axes in shown for pair in combinations(axes, 2)))


def _crossing(one: str, other: str, families: Families) -> Iterator[Broken]:
    """The first clash of two axes."""
    found = [clash for group in families[other] if (clash := _clash(one, other, group, families[one]))]
    yield from sorted(found, key=lambda each: each.rank)[:1]


def _clash(one: str, other: str, group: Group, groups: Groups) -> Broken | None:
    """How the ranks of a group of `other` lie in the groups of `one`: each in another, and all at one place."""
    of = {rank: each for each in groups for rank in each}
    times = Counter(of[rank] for rank in group if rank in of)
    twice = [rank for rank in group if rank in of and times[of[rank]] > 1]
    if twice:
        rank = min(twice)
        how = f"groups of {one} and {other} have {times[of[rank]]} ranks in common"
        return Broken("one-rank-in-common", (one, other), rank, (of[rank], group), how)
    places = {rank: of[rank].index(rank) for rank in sorted(group) if rank in of}
    first = next(iter(places), 0)
    apart = next((rank for rank, place in places.items() if place != places[first]), None)
    if apart is None:
        return None
    how = f"rank {first} is at place {places[first]} of its {one} group, and rank {apart} of the same {other} group "
    return Broken("same-place", (one, other), first, (of[first], of[apart], group), how + f"at place {places[apart]}")


def _grids(families: Families) -> Iterator[Broken]:
    experts = EXPERTS if families.keys() & REPLICAS else EXPERTS[2:]
    for axes in (*DENSE, *experts):
        grid = Grid(families, axes)
        for block in grid.blocks:
            if len(block) != grid.product(block[0]):
                how = f"{grid.sizes(block[0])}, and {len(block)} ranks are reached along them"
                yield Broken("whole-grid", tuple(grid.axes), block[0], grid.groups_of(block[0]), how)
                break


def _stages(layout: Layout) -> Iterator[Broken]:
    """Where the stages are shown: tp, an axis of sequences, dp and pp."""
    for axes in DENSE:
        grid = Grid(layout.families, _with_own_experts(axes, layout.families))
        if PP not in layout.families or not {"tp", "dp"} <= grid.axes.keys() or not {*SEQUENCE} & grid.axes.keys():
            continue
        stages = grid.blocks
        if sum(map(len, stages)) < layout.world:
            continue  # a part is not shown
        stage_of = {rank: stage for stage in stages for rank in stage}
        for group in layout.families[PP]:
            if len({stage_of[rank] for rank in group}) < len(stages) or len(group) > len(stages):
                names = (*grid.axes, PP)
                how = f"{len(stages)} stages of {grid.sizes(group[0])} ranks, and a pp group of {len(group)} ranks"
                yield Broken("whole-stage", names, min(group), (stage_of[min(group)], group), how)
                break


def _with_own_experts(axes: tuple[str, ...], families: Families) -> tuple[str, ...]:
    """With ep, where that is an axis beside the others, as in the old convention `megatron`."""
    if {"etp", *REPLICAS} & families.keys() or "ep" not in families:
        return axes
    experts = Grid(families, ("ep",)).of_rank["ep"]
    blocks = Grid(families, axes).blocks
    is_apart = all(len({*experts.get(rank, (rank,))} & {*block}) == 1 for block in blocks for rank in block)
    return (*axes, "ep") if is_apart else axes


def _experts(families: Families) -> Iterator[Broken]:
    names = families.keys()
    if {"tp", "moe_tp", "moe_ep"} <= names and {"cp", "attn_tp"} & names:
        yield from _inside(Grid(families, ("moe_tp", "moe_ep")), Grid(families, ("tp", "cp")).blocks)
    if {"tp", "cp", "dp", "etp", "ep", "expert_dp"} <= names:
        yield from _equal(Grid(families, DENSE[0]), Grid(families, EXPERTS[0]))
    if {"tp", "cp", "dp_shard", "ep", "efsdp"} <= names:
        yield from _equal(Grid(families, DENSE[2]), Grid(families, EXPERTS[1]))
    if "ep" in names and names <= ALL_EXPERTS and (names & {"pcp", "dcp"} or _is_dense_alone(families)):
        yield from _covering(families)


def _is_dense_alone(families: Families) -> bool:
    """Whether tp divides layers, and every rank is alone in its ep group."""
    widest = {name: max(map(len, families.get(name, ((),)))) for name in ("tp", "ep")}
    return widest["tp"] > 1 and widest["ep"] == 1


def _inside(experts: Grid, around: list[Group]) -> Iterator[Broken]:
    """The first block of experts that lies in none of those of attention."""
    for block in experts.blocks:
        near = [each for each in around if block[0] in each]
        if near and not any({*block} <= {*each} for each in near):
            how = f"experts have {experts.sizes(block[0])} ranks, not all of them in one block of attention"
            yield Broken("same-ranks-for-experts", ("tp", *experts.axes), block[0], (near[-1], block), how)
            return


def _equal(dense: Grid, experts: Grid) -> Iterator[Broken]:
    """The first block of attention that is none of the experts'."""
    blocks = {block[0]: block for block in experts.blocks}
    for block in dense.blocks:
        other = blocks.get(block[0])
        if other is not None and other != block:
            how = f"attention has {dense.sizes(block[0])} ranks, and experts {experts.sizes(block[0])}"
            names = (*dense.axes, *experts.axes)
            yield Broken("same-ranks-for-experts", names, block[0], (block, other), how)
            return


def _covering(families: Families) -> Iterator[Broken]:
    """Where only ep divides experts, a group of it has all ranks of a stage."""
    dense, experts = Grid(families, ("tp", "pcp", "sp", "dp")), Grid(families, ("ep",))
    for block in dense.blocks:
        group = experts.of_rank["ep"].get(block[0], block)
        if not {*block} <= {*group}:
            how = (
                f"ep has {len(group)} of the {len(block)} ranks ({dense.sizes(block[0])}), and no family has the others"
            )
            yield Broken("same-ranks-for-experts", (*dense.axes, "ep"), block[0], (block, group), how)
            return


def _unequal(families: Families) -> Iterator[str]:
    for name, groups in families.items():
        sizes = sorted({len(group) for group in groups})
        if len(sizes) > 1 and name not in AXES:
            yield f"groups of {name} have {' or '.join(map(str, sizes))} ranks"


def _left_out(layout: Layout) -> Iterator[str]:
    """Ranks that show their groups and none of an axis."""
    for name in (name for name in AXES if name in layout.families):
        inside = {rank for group in layout.families[name] for rank in group}
        outside = sorted(layout.speakers - inside)
        if outside:
            yield f"{len(outside)} of {layout.world} ranks are in no group of {name}; the first is rank {outside[0]}"


def _incomplete(layout: Layout) -> Iterator[str]:
    """Axes that do not make up the world, where one of them may not be shown."""
    families = layout.families
    if not {"tp", "dp", PP} <= families.keys() or {*SEQUENCE} & families.keys():
        return
    grid = Grid(families, ("tp", "dp", PP))
    if grid.blocks and grid.product(grid.blocks[0][0]) < layout.world:
        yield f"{grid.sizes(grid.blocks[0][0])} of {layout.world} ranks: an axis is not shown, or one is too narrow"
