"""Actions: small independent things to do, of which programs are drawn.

Invariant: an action's numbers mean something for every topology. They choose among what is there, modulo its count, so
that deleting an action or lowering a number always leaves a program. `harness.strategies.builder` compiles them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Literal

from hypothesis import strategies as st

Hazard = Literal["ballast", "deny", "refuse", "uneven"]
Via = Literal["mixed", "library", "kernel"]
COMMON_DTYPES = ("float32", "bfloat16", "float16", "int32", "float8_e4m3fn", "float8_e5m2")
DTYPES = (*COMMON_DTYPES * 4, "int8", "uint8", "int64", "float64")
COUNTS = (1, 2, 3, 5, 7, 16, 31, 64, 127, 128, 129, 255, 257, 511, 513, 1000, 1023, 1025, 4097, 10007)
"""Elements a rank contributes: one, odd ones, and both sides of the kernels' block sizes."""
MULTIPLES = (256, 512, 768, 1024, 1280, 2048, 3072, 4096)
"""Of the blocks that kernels have."""
LARGE_COUNTS = (32769, 65537)
EDGES = tuple(range(10, 18))
LARGE_EDGES = (18,) * 4 + (19,) * 12 + (20,) * 12 + tuple(range(21, 25))
"""Powers of two in bytes, from 1 KiB to 16 MiB: sizes at which designs change their algorithm. A size from 2 MiB on
costs as much as tens of draws, so that one in two hundred actions has one. Engines change the algorithm of all-reduces
at 512 KiB and 1 MiB."""
FAMILIES = 24
"""At least as many as a layout of any convention has."""
FAR_APART = 300_000
"""Elements by which the buffers of a family's groups differ, so that they are in other size classes."""
ROOMS = (0, 512, 1 << 20, 2 << 20, 10 << 20, 20 << 20)
"""Bytes a buffer is filled up to: as needed, or to a boundary of the caching allocator's size classes."""
GROUPS = (0,) * 6 + tuple(range(1, 7))
"""Which groups act: mostly all."""
COLLECTIVES = ("all_gather", "reduce_scatter", "all_reduce", "all_to_all", "broadcast", "reduce", "send_receive")
COMMON = ("all_gather", "reduce_scatter", "all_reduce")
"""Those that are drawn more often: NCCL has symmetric kernels for them."""
CHUNKED = ("all_gather", "reduce_scatter", "all_to_all")
"""Kinds whose whole has a chunk for every rank."""
IN_GRAPHS = ("", "", "", "all_reduce", "all_reduce", "all_reduce", "broadcast", "all_to_all")
"""What a graph holds; without a name a gather or scatter in place."""
OTHERS = ("allocate", "release", "release", "trim", "recreate", "straggle", "turns", "steady")
FLIGHTS = ("fly", "fly", "land", "stall", "turnover")
"""Calls are made without waiting for those before, in some programs."""
SHARES = ("equal",) * 17 + ("unequal", "unequal", "one-idle", "all-idle")
"""What the ranks of a group contribute beside each other."""
GRAPHS = ("graph", "replay") * 14


@dataclass(frozen=True)
class Action:
    """One thing to do, in numbers that mean something for every topology."""

    kind: str
    family: int
    buffer: int
    is_fresh: bool
    count: int
    spread: int
    room: int
    slack: int
    offset: int
    dtype: str
    op: str
    part: str
    via: Literal["library", "kernel"]
    is_uneven: bool
    stream: int
    groups: int = 0
    """Which groups of the family act; 0 for all, or as many as share no rank."""
    edge: int = 0
    """A power of two in bytes near which a rank contributes; 0 for `count`."""
    share: str = "equal"
    """What the ranks of a group contribute: the same, all different, one nothing, or all nothing."""
    is_far: bool = False
    """Whether the whole lies at the end of its buffer."""
    root: int = 0
    """Of a broadcast or reduction, modulo the size of the group; how far a send goes."""


def actions(
    hazards: Collection[Hazard] = (), via: Via = "mixed", graphs: bool = False, streams: int = 1
) -> st.SearchStrategy[Action]:
    """One action of a program."""
    kinds = (*COMMON * 4, *COLLECTIVES, *OTHERS, *FLIGHTS, *[hazard for hazard in hazards if hazard != "uneven"] * 2)
    return of_kinds(kinds + GRAPHS * graphs, frozenset(hazards), via, streams)


@cache
def of_kinds(kinds: tuple[str, ...], hazards: frozenset[Hazard], via: Via, streams: int) -> st.SearchStrategy[Action]:
    """One action of some kinds; a kind that is named more often is drawn more often."""
    paths = {"mixed": ("library", "library", "kernel"), "library": ("library",), "kernel": ("kernel",)}[via]
    return st.builds(
        Action,
        kind=st.sampled_from(kinds),
        family=st.integers(0, FAMILIES - 1),
        buffer=_small(),
        is_fresh=st.booleans(),
        count=_counts(),
        spread=st.sampled_from((0, 0, 0, 1, 1, 3, 3, 100, 100, FAR_APART)),
        room=st.sampled_from(ROOMS),
        slack=st.sampled_from((0, 1, 3, 8, 64)),
        offset=st.sampled_from((0, 0, 1, 3, 8)),
        dtype=st.sampled_from(DTYPES),
        op=st.sampled_from(("sum", "sum", "avg", "avg", "max", "min")),
        part=st.sampled_from(("in-place", "plain", "window")),
        via=st.sampled_from(paths),
        is_uneven=st.booleans() if "uneven" in hazards else st.just(False),
        stream=st.integers(0, streams - 1) if streams > 1 else st.just(0),
        groups=st.sampled_from(GROUPS),
        edge=st.sampled_from((0,) * 650 + EDGES[:4] * 12 + EDGES[4:6] * 20 + EDGES[6:] * 50 + LARGE_EDGES),
        share=st.sampled_from(SHARES),
        is_far=st.sampled_from((False, False, False, True)),
        root=_small(),
    )


def _counts() -> st.SearchStrategy[int]:
    small = st.integers(1, 64)
    usual = st.sampled_from(COUNTS)
    return st.one_of(small, usual, usual, st.sampled_from(MULTIPLES), st.sampled_from(LARGE_COUNTS + COUNTS))


def _small() -> st.SearchStrategy[int]:
    return st.integers(0, 15)
