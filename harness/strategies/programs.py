"""Strategies for free programs and whole scenarios.

A program is drawn as a list of small independent actions that are then compiled against the topology.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import Literal

from hypothesis import strategies as st

from harness.errors import UsageError
from harness.scenario.scenario import Scenario
from harness.scenario.steps import STREAMS, Step
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.strategies.actions import Action, Builder, Hazard
from harness.strategies.topologies import topologies as all_topologies

DTYPES = ("float32", "bfloat16", "float16", "int32", "float8_e4m3fn", "float8_e5m2")
COUNTS = (1, 2, 3, 5, 7, 16, 31, 64, 127, 128, 129, 255, 257, 511, 513, 1000, 1023, 1025, 4097, 10007)
"""Elements a rank contributes: one, odd ones, and both sides of the kernels' block sizes."""
LARGE_COUNTS = (32769, 65537)
ROOMS = (0, 512, 1 << 20, 2 << 20, 10 << 20, 20 << 20)
"""Bytes a buffer is filled up to: as needed, or to a boundary of the caching allocator's size classes."""
COLLECTIVES = ("all_gather", "reduce_scatter")
OTHERS = ("allocate", "release", "release", "trim", "recreate", "straggle")
GRAPHS = ("graph", "replay") * 8
WITH_GRAPHS = 48
"""Most steps of a program with graphs; one takes nine."""
HAZARDS: tuple[Hazard, ...] = ("ballast", "deny", "uneven")
Via = Literal["mixed", "library", "kernel"]


def _counts() -> st.SearchStrategy[int]:
    small = st.integers(1, 64)
    return st.one_of(small, st.sampled_from(COUNTS), st.sampled_from(COUNTS), st.sampled_from(LARGE_COUNTS + COUNTS))


def _small() -> st.SearchStrategy[int]:
    return st.integers(0, 15)


def actions(
    hazards: Collection[Hazard] = (), via: Via = "mixed", graphs: bool = False, streams: int = 1
) -> st.SearchStrategy[Action]:
    """One action of a program. See `harness.strategies.actions.Action` for what its numbers mean."""
    kinds = (*COLLECTIVES * 3, *OTHERS, *(hazard for hazard in hazards if hazard != "uneven"))
    return _actions(kinds + GRAPHS * graphs, frozenset(hazards), via, streams)


@cache
def _actions(kinds: tuple[str, ...], hazards: frozenset[Hazard], via: Via, streams: int) -> st.SearchStrategy[Action]:
    paths = {"mixed": ("library", "library", "kernel"), "library": ("library",), "kernel": ("kernel",)}[via]
    return st.builds(
        Action,
        kind=st.sampled_from(kinds),
        family=_small(),
        buffer=_small(),
        fresh=st.booleans(),
        count=_counts(),
        spread=st.sampled_from((0, 0, 1, 3, 100)),
        room=st.sampled_from(ROOMS),
        slack=st.sampled_from((0, 1, 3, 8, 64)),
        offset=st.sampled_from((0, 0, 1, 3, 8)),
        dtype=st.sampled_from(DTYPES),
        op=st.sampled_from(("sum", "sum", "avg", "max")),
        part=st.sampled_from(("in-place", "plain", "window")),
        via=st.sampled_from(paths),
        uneven=st.booleans() if "uneven" in hazards else st.just(False),
        stream=st.integers(0, streams - 1) if streams > 1 else st.just(0),
    )


@st.composite
def programs(
    draw: st.DrawFn,
    topology: Topology,
    *,
    hazards: Collection[Hazard] = (),
    via: Via = "mixed",
    max_steps: int = 16,
    graphs: bool = False,
    streams: int = 1,
) -> tuple[Step, ...]:
    """Steps for one topology: at most `max_steps`, with at least one collective. `graphs`: capture and replay too.

    `max_steps` is at least 2. `hazards` adds what even a right system may not survive without agreement between ranks.
    `streams`: on how many streams buffers are allocated and collectives run, at most `harness.scenario.steps.STREAMS`.
    """
    if not 1 <= streams <= STREAMS:
        raise UsageError(f"{streams} streams are not between 1 and {STREAMS}")
    chosen = draw(st.lists(actions(hazards, via, graphs, streams), max_size=max(0, max_steps // 2 - 1)))
    last = draw(_actions(COLLECTIVES, frozenset(hazards), via, streams))
    return Builder(topology, max_steps).build(chosen, last)


@st.composite
def scenarios(
    draw: st.DrawFn,
    world: int = 8,
    *,
    topologies: st.SearchStrategy[Topology] | None = None,
    system: System | None = None,
    hazards: Collection[Hazard] = (),
    via: Via = "mixed",
    max_steps: int = 16,
    graphs: bool = False,
    streams: int = 1,
) -> Scenario:
    """Whole draws for a world of at most `world` ranks.

    `system` is the pool policy and kernel collective under test (default `System()`); `topologies`
    a strategy that replaces the default mixture of random and named ones.
    """
    topology = draw(topologies if topologies is not None else all_topologies(world))
    steps = draw(programs(topology, hazards=hazards, via=via, max_steps=max_steps, graphs=graphs, streams=streams))
    seed = draw(st.integers(0, 255))
    return Scenario(topology, steps, system or System(), seed)
