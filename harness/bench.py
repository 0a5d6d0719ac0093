"""Measures draws: one persistent world against spawning fresh ranks for every draw, in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import psutil

from harness import environment
from harness.oracle import judge
from harness.program import Scenario
from harness.strategies import sample, scenarios
from harness.world import World


class Measured(msgspec.Struct, frozen=True):
    """Seconds and bytes. `draw` and `spawned` are medians of single draws; memory is proportional (PSS)."""

    draws: int
    spawns: int
    start: float
    draw: float
    spawned: float
    rate: float
    parent_early: int
    parent_late: int
    ranks_early: int
    ranks_late: int
    eight_start: float
    eight_memory: int
    environment: dict[str, Any]

    @property
    def ratio(self) -> float:
        """How many times faster a draw of the persistent world is."""
        return self.spawned / self.draw

    def rows(self) -> Iterator[tuple[str, str]]:
        """The table a person reads."""
        yield "substrate", f"{self.environment['substrate']} ({self.environment['why']})"
        yield "start of the world", f"{self.start:.2f} s"
        yield "draw, persistent world (median)", f"{1000 * self.draw:.1f} ms"
        yield "draw, fresh ranks (median)", f"{1000 * self.spawned:.0f} ms"
        yield "times faster", f"{self.ratio:.0f}"
        yield f"draws a second over {self.draws}, judged", f"{self.rate:.1f}"
        yield (
            "parent's memory after a tenth, at the end",
            f"{self.parent_early >> 20} MiB, {self.parent_late >> 20} MiB",
        )
        yield "ranks' memory after a tenth, at the end", f"{self.ranks_early >> 20} MiB, {self.ranks_late >> 20} MiB"
        yield "eight ranks: start, memory together", f"{self.eight_start:.2f} s, {self.eight_memory >> 20} MiB"

    def as_data(self) -> dict[str, Any]:
        """The same as plain data."""
        return {**msgspec.structs.asdict(self), "ratio": self.ratio}


def bench_draws(substrate: str, world: int, steps: int, draws: int, spawns: int, seed: int) -> Measured:
    """Run `draws` drawn scenarios on one world, and `spawns` of them, evenly taken, on fresh ranks."""
    drawn = sample(scenarios(world, max_steps=steps), draws, seed)
    began = time.perf_counter()
    with World(world, substrate) as ranks:
        start = time.perf_counter() - began
        facts = environment.describe(ranks)
        times, memory = _run_all(ranks, drawn)
    spawned = [_spawned(substrate, scenario) for scenario in drawn[:: max(1, len(drawn) // spawns)][:spawns]]
    began = time.perf_counter()
    with World(8, substrate) as ranks:
        eight_start = time.perf_counter() - began
        eight_memory = sum(_memory(pid) for pid in ranks.pids)
    early, late = memory[0], memory[-1]
    return Measured(
        draws=len(drawn),
        spawns=len(spawned),
        start=start,
        draw=statistics.median(times),
        spawned=statistics.median(spawned),
        rate=len(times) / sum(times),
        parent_early=early[0],
        parent_late=late[0],
        ranks_early=early[1],
        ranks_late=late[1],
        eight_start=eight_start,
        eight_memory=eight_memory,
        environment=facts,
    )


def _run_all(world: World, drawn: list[Scenario]) -> tuple[list[float], list[tuple[int, int]]]:
    """Seconds of each draw, judged; and memory of parent and ranks after a tenth and at the end."""
    times, memory = [], []
    for index, scenario in enumerate(drawn):
        began = time.perf_counter()
        judge(world.run(scenario))
        times.append(time.perf_counter() - began)
        if index in (len(drawn) // 10, len(drawn) - 1):
            memory.append((_memory(psutil.Process().pid), sum(_memory(pid) for pid in world.pids)))
    return times, memory


def _spawned(substrate: str, scenario: Scenario) -> float:
    """Seconds of one draw with ranks that start as fresh interpreters and end with it."""
    began = time.perf_counter()
    with World(scenario.world, substrate, start="spawn") as world:
        judge(world.run(scenario))
    return time.perf_counter() - began


def _memory(pid: int) -> int:
    """Proportional set size: shared pages count once over all who share them."""
    return int(psutil.Process(pid).memory_full_info().pss)
