"""The layouts of fewer ranks that may stand for another: those of its convention, its own parts as given families,
and where the ranks are.

Invariant: layouts come in one order, by the widths of their degrees, so that a search repeats.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from harness.errors import UsageError
from harness.scenario.layouts.arithmetic import Degrees
from harness.scenario.layouts.conventions import CONVENTIONS
from harness.scenario.layouts.groups import Group, Groups, world_of
from harness.scenario.placement import Placement
from harness.scenario.topology import Topology


def layouts_like(topology: Topology, world: int, nodes: int) -> Iterator[Topology]:
    """Every layout of a topology's convention with `world` ranks, in order on `nodes` nodes."""
    if topology.convention not in CONVENTIONS:
        return
    for degrees in CONVENTIONS[topology.convention].candidates(world):
        layout = _layout(topology, degrees, world, nodes)
        if layout is not None:
            yield layout


def on_nodes(nodes: int, world: int, like: Topology | None = None) -> Placement | None:
    """Ranks in order on so many nodes; those of one node have no placement. Where `like` has NVLink domains that are no
    nodes, two on each node, or one over all nodes."""
    share = -(-world // nodes)
    if like is not None and like.splits_nodes:
        return Placement(nodes, share, nvlink_domain=-(-share // 2))
    if nodes == 1:
        return None
    return Placement(nodes, share, nvlink_domain=nodes * share if like is not None and like.joins_nodes else None)


def plainer_places(topology: Topology, used: int) -> Iterator[Placement | None]:
    """For the same ranks: the nodes that it uses as NVLink domains, then one node, or two, with domains like its own,
    then processes that see all GPUs."""
    placement, world = topology.placement, topology.world
    if placement is not None and topology.has_own_domains:
        yield msgspec.structs.replace(placement, nvlink_domain=None, nvlink_domains=None, mnnvl=True)
    yield from (on_nodes(nodes, world, topology) for nodes in range(1, min(used, 3)))
    if placement is not None and placement.peers_hidden:
        yield msgspec.structs.replace(placement, peers_hidden=False)


def stand_ins(whole: int, world: int) -> list[tuple[int, ...]]:
    """Which `world` ranks of `whole` may stand for all: the first, ranks spread evenly, the last, and all but one of
    the first with the last."""
    first, last = tuple(range(world)), tuple(range(whole - world, whole))
    spread = tuple(rank * whole // world for rank in range(world))
    return list(dict.fromkeys((first, spread, last, (*first[:-1], whole - 1))))


def falling_on(ranks: Group, kept: Sequence[int]) -> Group:
    """Of the ranks kept, numbered anew, those on which addresses fall."""
    return tuple(rank for rank, old in enumerate(kept) if old in ranks)


def fewer_falling(ranks: Group) -> Iterator[Group]:
    """No rank on which addresses fall, then one fewer."""
    yield from [()] * bool(ranks)
    if len(ranks) > 1:
        yield from (tuple(rank for rank in ranks if rank != left_out) for left_out in ranks)


def parts_of(topology: Topology, used: Collection[str]) -> Iterator[tuple[Topology, Group]]:
    """Parts of a topology, with the families `used` alone, given as they are. Each with the ranks that it keeps, which
    are numbered anew.

    First without the ranks that are in no group, then the ranks of one group in turn, then without one rank in turn,
    then without one group in turn. The families of a convention are given only where ranks are fewer.
    """
    families = {name: topology.families[name] for name in topology.families if name in used}
    everyone = tuple(range(topology.world))
    groups = dict.fromkeys(tuple(sorted(group)) for name in families for group in families[name] if len(group) > 1)
    there = tuple(sorted({rank for group in groups for rank in group}))
    without_one = (tuple(rank for rank in there if rank != left_out) for left_out in there)
    is_given = topology.families_given is not None
    for kept in dict.fromkeys(filter(None, (everyone, there, *groups, *without_one))):
        if is_given or 1 < len(kept) < topology.world:
            yield from _explicit(topology, families, kept)
    for name, fewer in _without_one_group(families) if is_given else ():
        yield from _explicit(topology, families | {name: fewer}, everyone)


def _without_one_group(families: Mapping[str, Groups]) -> Iterator[tuple[str, Groups]]:
    """Each family that has several groups, without one of them in turn."""
    for name, groups in families.items():
        if len(groups) > 1:
            yield from ((name, tuple(each for each in groups if each != left_out)) for left_out in groups)


def restricted(group: Group, kept: Sequence[int]) -> Group:
    """What is left of a group, in the numbers of the ranks kept."""
    return tuple(kept.index(rank) for rank in group if rank in kept)


def _explicit(like: Topology, families: Mapping[str, Groups], kept: Group) -> Iterator[tuple[Topology, Group]]:
    """The topology of what is left of these families, if it is one and another."""
    left = {name: [restricted(group, kept) for group in groups] for name, groups in families.items()}
    given = {name: tuple(dict.fromkeys(filter(None, groups))) for name, groups in left.items()}
    shares = None if like.families_given is not None and like.shares is None else _shares(like, given)
    nodes = len({like.node_of[rank] for rank in kept})
    try:
        world = max(map(world_of, given.values()), default=0)
        found = Topology("reduced", "explicit", {}, on_nodes(nodes, world, like), families_given=given, shares=shares)
    except (UsageError, ValueError):  # a family that has other groups than the one it shares, or has none left
        return
    if found.key != like.key and found.world <= len(kept):
        yield found, kept[: found.world]


def _shares(like: Topology, names: Collection[str]) -> dict[str, str]:
    """Of families that are kept, those that use the communicators of another one kept: the first that has them."""
    first = {name: next(other for other in names if like.ids[other] == like.ids[name]) for name in names}
    return {name: owner for name, owner in first.items() if owner != name}


def _layout(like: Topology, degrees: Degrees, world: int, nodes: int) -> Topology | None:
    """A layout of these degrees, if there is one and it has `world` ranks."""
    kept = {name: like.degrees[name] for name in CONVENTIONS[like.convention].OPTIONS if name in like.degrees}
    degrees = {name: width for name, width in degrees.items() if width != 1} | kept
    try:
        return Topology(
            name="reduced", convention=like.convention, degrees=degrees, placement=on_nodes(nodes, world, like)
        )
    except UsageError:
        return None
