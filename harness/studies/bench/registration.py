"""What the pool designs cost: leaving their context when nothing changed, and the memory they hold.

Invariant: every design is measured in one run, over the same flows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from harness.scenario.flows.catalogue import FLOWS, compile_flows, layer_of
from harness.scenario.flows.layer import Batch
from harness.scenario.scenario import Scenario
from harness.scenario.system import POOLS, System
from harness.scenario.topology import Topology
from harness.world import environment
from harness.world.world import World

SEGMENTS = (1, 16, 64, 256)
REFERENCE = "deferred"
REFERENCE_OWN, SNAPSHOT_TIMES = 3e-6, 50
"""Goals on a GPU: what the reference takes itself, and how many times that a snapshot of 64 segments takes."""
HIDDEN = 7168
"""Elements of one token, as in DeepSeek-R1: one is moved, and buffers are as large as all of them."""
DECODE, PREFILL = 64, 512
"""Tokens of each attention-DP rank."""


class Leaving(msgspec.Struct, frozen=True):
    """Median seconds to leave a design's context; `own` without the allocator's context, which all designs leave."""

    pool: str
    segments: int
    history: bool
    seconds: float
    own: float


class Held(msgspec.Struct, frozen=True):
    """Bytes of segments that one rank held at most, over the same flows for every design."""

    topology: str
    pool: str
    most: int


class Measured(msgspec.Struct, frozen=True):
    """Both tables, from one run."""

    leaving: tuple[Leaving, ...]
    held: tuple[Held, ...]
    environment: dict[str, Any]

    def times_slower(self, row: Leaving) -> float:
        """How many times what a design does on leaving takes what `deferred` does, at as many segments."""
        same = (r for r in self.leaving if (r.pool, r.segments, r.history) == (REFERENCE, row.segments, row.history))
        return row.own / next(same).own

    def leaving_rows(self) -> Iterator[tuple[str, ...]]:
        """The first table for a person, microseconds, with goals."""
        for row in self.leaving:
            history = "with history" if row.history else ""
            figures = (f"{1e6 * row.seconds:.1f}", f"{1e6 * row.own:.1f}", f"{self.times_slower(row):.1f}")
            yield (row.pool, str(row.segments), history, *figures, _goal(row))

    def held_rows(self) -> Iterator[tuple[str, ...]]:
        """The second, MiB."""
        for row in self.held:
            yield row.topology, row.pool, f"{row.most / (1 << 20):.0f}"

    def as_data(self) -> dict[str, Any]:
        """The same as plain data."""
        leaving = [{**msgspec.structs.asdict(row), "times": self.times_slower(row)} for row in self.leaving]
        return {"leaving": leaving, "held": list(self.held), "environment": self.environment}


def _goal(row: Leaving) -> str:
    if row.pool == REFERENCE:
        return f"on a GPU under {1e6 * REFERENCE_OWN:.0f} µs"
    if (row.pool, row.segments) == ("snapshot-once", 64):
        return f"on a GPU at least {SNAPSHOT_TIMES} times"
    return ""


def bench_registration(substrate: str, named: Sequence[Topology], repeats: int) -> Measured:
    """Measure every design in one run: leaving on two ranks, memory over the same flows of each topology."""
    with World(2, substrate) as world:
        versions = environment.describe(world)
        histories = (False, True) if world.platform.name == "nccl" else (False,)
        rows = [row for history in histories for row in _leaving(world, repeats, history)]
    with World(max(topology.world for topology in named), substrate) as world:
        held = [Held(topology.name, pool, _held(world, topology, pool)) for topology in named for pool in POOLS]
    return Measured(tuple(rows), tuple(held), versions)


def _leaving(world: World, repeats: int, history: bool) -> list[Leaving]:
    replies = world.call("harness.rank.probes.leaving:measure", list(POOLS), list(SEGMENTS), repeats, history)
    return [Leaving(**row) for row in replies[0]]


def _held(world: World, topology: Topology, pool: str) -> int:
    """Bytes that one rank held at most over two layers of decoding, two of a prefill, and two of decoding again."""
    layer = layer_of(topology, dtype="bfloat16", stretch=HIDDEN)
    batches = [Batch((tokens,) * layer.sources, is_padded=True) for tokens in (DECODE, PREFILL, DECODE)]
    draw = world.run(Scenario(topology, compile_flows(FLOWS, layer, batches, 2), System(pool)))
    return max(trace.most_held for trace in draw.traces)
