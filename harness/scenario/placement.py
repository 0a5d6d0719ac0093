"""Placements: the node and the NVLink domain of each rank, and which groups have windows there.

Invariant: every rank of the world has one node and one domain, or the placement is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from math import gcd

import msgspec

from harness.errors import UsageError

MOST = 1 << 16
"""Most nodes, and most GPUs of one."""
Labels = tuple[int, ...]
"""A number for each rank, in rank order: ranks with the same one are together."""


class TopologyError(UsageError):
    """A topology that does not hold together; the message names the key, rank or family."""


class Placement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where ranks live: `nodes` nodes of `gpus_per_node` GPUs, and which GPUs NVLink joins.

    Without `ranks`, rank r sits on node r // gpus_per_node. With it, `ranks[n]` lists the ranks of
    node n in GPU order.
    """

    nodes: int = 1
    gpus_per_node: int = 8
    ranks: tuple[tuple[int, ...], ...] | None = None
    nvlink_domain: int | None = None
    """GPUs in a row of one NVLink domain: a part of a node, or several whole nodes. None: a node is a domain."""
    nvlink_domains: tuple[tuple[int, ...], ...] | None = None
    """In place of `nvlink_domain`, the ranks of each domain."""
    mnnvl: bool = True
    """Multi-node NVLink. Without it (`NCCL_MNNVL_ENABLE=0`, or no IMEX) a domain ends where a node ends."""
    peers_hidden: bool = False
    """Whether a process sees its own GPU alone, as with `CUDA_VISIBLE_DEVICES` of one GPU. NCCL's windows do not
    change by that: it maps memory of peers by handles, and knows their GPUs from NVML."""


def lsa_team_size(domains: Iterable[int]) -> int:
    """Ranks of each LSA team of a communicator, from what NCCL takes for the node of each of its ranks, in order.

    Teams are runs of consecutive ranks, all of one size: the greatest common divisor of the lengths of the runs of
    ranks on one node (`computeLsaSize` in `src/dev_runtime.cc`, NCCL 2.28.9 to 2.30.7; measured with 2.32.3).
    """
    return gcd(*(len(list(run)) for _, run in groupby(domains)))


def nodes_of(name: str, placement: Placement | None, world: int) -> Labels:
    """Node of each rank; one node where no placement is given. Raises `TopologyError` for topology `name`."""
    if placement is None:
        return (0,) * world
    if placement.nodes < 1 or placement.gpus_per_node < 1:
        raise TopologyError(f"topology {name!r}: placement needs at least one node and one GPU on it")
    if max(placement.nodes, placement.gpus_per_node) > MOST:
        raise TopologyError(f"topology {name!r}: placement has at most {MOST} nodes and GPUs on each")
    if placement.ranks is not None:
        return _listed_nodes(name, placement, placement.ranks, world)
    room = placement.nodes * placement.gpus_per_node
    if world > room:
        raise TopologyError(
            f"topology {name!r}: {world} ranks do not fit {placement.nodes} nodes · {placement.gpus_per_node} GPUs = "
            f"{room}"
        )
    return tuple(rank // placement.gpus_per_node for rank in range(world))


def _listed_nodes(name: str, placement: Placement, ranks: Sequence[Sequence[int]], world: int) -> Labels:
    if len(ranks) != placement.nodes:
        raise TopologyError(f"topology {name!r}: placement lists {len(ranks)} nodes, not {placement.nodes}")
    for node, there in enumerate(ranks):
        if len(there) > placement.gpus_per_node:
            raise TopologyError(
                f"topology {name!r}: node {node} holds {len(there)} ranks on {placement.gpus_per_node} GPUs"
            )
    return _labels(name, ranks, world, "placed", "placed twice")


def _labels(name: str, parts: Sequence[Sequence[int]], world: int, there: str, twice: str) -> Labels:
    """The number of the part that each rank is in. Raises `TopologyError` for a rank in two or none."""
    part_of: dict[int, int] = {}
    for part, ranks in enumerate(parts):
        for rank in ranks:
            if rank in part_of:
                raise TopologyError(f"topology {name!r}: rank {rank} is {twice}")
            part_of[rank] = part
    if stray := sorted(part_of.keys() ^ set(range(world))):
        what = f"not {there}" if stray[0] in range(world) else "not in the world"
        raise TopologyError(f"topology {name!r}: rank {stray[0]} is {what}")
    return tuple(part_of[rank] for rank in range(world))


def domains_of(name: str, placement: Placement | None, nodes: Labels) -> Labels:
    """NVLink domain of each rank, counted in rank order, of ranks on `nodes`. Raises `TopologyError`."""
    if placement is None:
        return nodes
    parts: Sequence[object] = _domains(name, placement, nodes)
    if not placement.mnnvl:
        parts = list(zip(nodes, parts, strict=True))
    known = list(dict.fromkeys(parts))
    return tuple(map(known.index, parts))


def _domains(name: str, placement: Placement, nodes: Labels) -> Sequence[object]:
    if placement.nvlink_domain is not None and placement.nvlink_domains is not None:
        raise TopologyError(f"topology {name!r}: 'nvlink_domain' and 'nvlink_domains' say the same; give one")
    if placement.nvlink_domains is not None:
        return _labels(name, placement.nvlink_domains, len(nodes), "in an NVLink domain", "in two NVLink domains")
    if placement.nvlink_domain is None:
        return nodes
    try:
        check_domain(placement.nvlink_domain, placement.gpus_per_node)
    except UsageError as error:
        raise TopologyError(f"topology {name!r}: {error}") from error
    return _in_rows(placement, placement.nvlink_domain, nodes)


def _in_rows(placement: Placement, domain: int, nodes: Labels) -> Sequence[object]:
    """Domains of so many GPUs in a row; those smaller than a node begin anew on each."""
    share = placement.gpus_per_node
    if domain >= share:
        return [node // (domain // share) for node in nodes]
    if placement.ranks is None:
        return [(node, rank % share // domain) for rank, node in enumerate(nodes)]
    gpu_of = {rank: gpu for ranks in placement.ranks for gpu, rank in enumerate(ranks)}
    return [(node, gpu_of[rank] // domain) for rank, node in enumerate(nodes)]


def check_domain(domain: int, gpus_per_node: int) -> None:
    """Raise `UsageError` for a number of GPUs that no NVLink domain has: it is a part of a node, or whole nodes."""
    if domain < 1:
        raise UsageError(f"an NVLink domain of {domain} GPUs is too small")
    if domain > gpus_per_node and domain % gpus_per_node:
        raise UsageError(f"an NVLink domain of {domain} GPUs ends inside a node of {gpus_per_node}")
