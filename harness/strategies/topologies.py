"""Strategies for topologies: random degrees of every convention, mixed with the named ones.

A topology is a fixed number of choices (ranks, convention, six picks), so that each shrinks by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache

import msgspec
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.scenario import topology as topologies_module
from harness.scenario.layouts.conventions import CONVENTIONS
from harness.scenario.placement import Placement
from harness.scenario.topology import Topology
from harness.strategies.families import explicit

LARGER = (16, 16, 32)
"""Worlds beyond the largest that is asked for, where some are to be drawn; the more ranks, the more rarely."""
COMMON = 10
"""How often a world of the usual sizes is drawn for each of those."""


def _sizes(world: int, larger: bool = False) -> st.SearchStrategy[int]:
    """Numbers of ranks. One rank, on which little can be tested, is rare and not what shrinking ends at."""
    usual = [*range(2, world + 1)] * 4 + [1]
    beyond = [size for size in LARGER if size > world] if larger else []
    return st.sampled_from(usual * COMMON + beyond if beyond else usual)


EXPLICIT = "explicit"
CONVENTIONAL = ("sglang", "vllm", "megatron-core", "tensorrt-llm", "torchtitan")
"""Those that are drawn. `megatron` is for files from before."""
_CONVENTIONS = (*CONVENTIONAL, EXPLICIT, EXPLICIT)
_PICKS = st.tuples(*[st.integers(0, 119)] * 6)
_NODES = st.sampled_from((1,) * 9 + (2,))
"""On how many nodes a layout is placed that says nothing of it: a tenth of them on two."""


def _layout(convention: str, world: int, picks: Sequence[int]) -> Topology:
    if convention == EXPLICIT:
        return explicit(world, picks)
    drawn = CONVENTIONS[convention].drawn(world, picks)
    degrees = {name: width for name, width in drawn.items() if width is True or width != 1}
    return Topology(name="drawn", convention=convention, degrees=degrees)


def layouts(world: int = 8) -> st.SearchStrategy[Topology]:
    """Topologies with random degrees of every convention, of at most `world` ranks on one node."""
    return st.builds(_layout, st.sampled_from(_CONVENTIONS), _sizes(world), _PICKS)


@cache
def _shipped() -> tuple[Topology, ...]:
    return tuple(topologies_module.load(path) for path in topologies_module.named().values())


def topologies(
    world: int = 8,
    named: Sequence[Topology] | None = None,
    conventions: Collection[str] = _CONVENTIONS,
    larger: bool = False,
) -> st.SearchStrategy[Topology]:
    """Random layouts of some conventions, mixed with the named topologies of them that fit `world` ranks.

    `larger`: a share has the ranks of `LARGER`. `named` replaces all: then exactly those are drawn. Raises `UsageError`
    if one of them does not fit.
    """
    if named is not None:
        for topology in named:
            if topology.world > world:
                raise UsageError(
                    f"topology {topology.name!r} has {topology.world} ranks; the largest world to draw has {world}"
                )
        return st.sampled_from(sorted(named, key=lambda topology: topology.world))
    return _mixed(_sizes(world, larger), tuple(conventions))


def _mixed(sizes: st.SearchStrategy[int], conventions: tuple[str, ...]) -> st.SearchStrategy[Topology]:
    """Named topologies and layouts, always from the same number of choices, so that each shrinks by itself."""

    def build(size: int, is_shipped: bool, convention: str, picks: tuple[int, ...], nodes: int) -> Topology:
        fitting = [t for t in _shipped() if t.world == size and t.convention in conventions]
        found = fitting[picks[0] % len(fitting)] if is_shipped and fitting else _layout(convention, size, picks)
        if nodes == 1 or size == 1 or found.placement is not None:
            return found
        return msgspec.structs.replace(found, placement=Placement(nodes, -(-size // nodes)))

    return st.builds(build, sizes, st.booleans(), st.sampled_from(conventions), _PICKS, _NODES)
