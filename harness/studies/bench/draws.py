"""Measures draws: one persistent world against spawning fresh ranks for every draw, in one run.

Invariant: both ways run the same scenarios, and every draw is judged.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

import msgspec
import psutil

from harness.clock import CLOCK, Clock
from harness.errors import MachineError
from harness.oracle.judge import judge
from harness.scenario.scenario import Scenario
from harness.strategies.batches import sample
from harness.strategies.placements import on_nodes
from harness.strategies.programs import scenarios
from harness.world import environment
from harness.world.world import World

WATCHED = 100
"""Draws that are run again, with a stopwatch on their ranks."""
LOOKS = 50
"""Times that memory is looked at during the draws."""

TIMES_FASTER = 100
DRAWS_A_SECOND = {"sim": 20, "nccl": 10}
"""With programs of at most 8 steps: worlds of at most 4 on two cores, worlds of 8 on one GPU."""
EIGHT_START, EIGHT_MEMORY = 8.0, 4 << 30
GROWTH = 0.05
"""Of memory over 5,000 draws, between the second tenth and the last."""
EIGHT_ON_A_GPU = 86e-6
"""Seconds of an all-gather of eight ranks that share a GPU: twice what NCCL takes there."""


class Measured(msgspec.Struct, frozen=True):
    """Seconds and bytes. `draw` and `spawned` are medians of single draws. Memory over time is private (USS);
    that of eight ranks together is proportional (PSS), so that what they share counts once."""

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
    eight_start: float | None
    eight_memory: int | None
    latency: float
    """Seconds of a library all-gather of all ranks, 1024 bf16 each, in a window, each waited for."""
    latency_in_a_row: float
    """The same with fifty in a row."""
    latency_path: str
    """The path that these calls took."""
    parts: tuple[tuple[str, float], ...]
    """Where the time of a draw goes on its ranks: shares of the whole, the largest first."""
    environment: dict[str, Any]

    @property
    def ratio(self) -> float:
        """How many times faster a draw of the persistent world is."""
        return self.spawned / self.draw

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """The table a person reads: a figure and, where there is one, its goal beside it."""
        substrate = self.environment["substrate"]
        yield "substrate", f"{substrate} ({self.environment['why']})", ""
        yield "start of the world", f"{self.start:.2f} s", ""
        yield "draw, persistent world (median)", f"{1000 * self.draw:.1f} ms", ""
        yield "draw, fresh ranks (median)", f"{1000 * self.spawned:.0f} ms", ""
        yield "times faster", f"{self.ratio:.0f}", f"at least {TIMES_FASTER}"
        rate = f"draws a second over {self.draws}, judged"
        yield rate, f"{self.rate:.1f}", f"at least {DRAWS_A_SECOND[substrate]}"
        flat = f"growth under {100 * GROWTH:.0f} % over 5,000 draws"
        for who, early, late in (
            ("parent's", self.parent_early, self.parent_late),
            ("ranks'", self.ranks_early, self.ranks_late),
        ):
            yield f"{who} memory in the second tenth, in the last", f"{_mib(early)}, {_mib(late)}", flat
        if self.eight_start is not None and self.eight_memory is not None:
            yield "eight ranks: start", f"{self.eight_start:.2f} s", f"under {EIGHT_START:.0f} s"
            memory = f"{self.eight_memory >> 20} MiB"
            yield "eight ranks: memory together", memory, f"under {EIGHT_MEMORY >> 20} MiB"
        both = f"{1e6 * self.latency:.0f} µs, {1e6 * self.latency_in_a_row:.0f} µs ({self.latency_path} path)"
        goal = f"eight ranks on a GPU: at most {1e6 * EIGHT_ON_A_GPU:.0f} µs" if substrate == "nccl" else ""
        yield "all-gather of 1024 bf16 a rank, each waited for, in a row", both, goal
        for part, size in self.parts:
            yield f"share of a draw: {part}", f"{100 * size:.0f} %", ""

    def as_data(self) -> dict[str, Any]:
        """The same as plain data."""
        return {**msgspec.structs.asdict(self), "ratio": self.ratio}


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


def bench_draws(
    substrate: str, world: int, steps: int, draws: int, spawns: int, seed: int, clock: Clock = CLOCK
) -> Measured:
    """Run `draws` drawn scenarios on one world, and `spawns` of them, evenly taken, on fresh ranks."""
    strategy = on_nodes(scenarios(world, max_steps=steps, falling=False), world, 1)
    drawn = [msgspec.msgpack.encode(scenario) for scenario in sample(strategy, draws, seed)]
    began = clock.now()
    with World(world, substrate) as ranks:
        start = clock.now() - began
        versions = environment.describe(ranks)
        times, memory = _run_all(ranks, drawn, clock)
        parts = _watched(ranks, drawn[:WATCHED])
        latencies = ranks.call("harness.rank.probes.latency:measure", 1024, 20)
    fresh = drawn[:: max(1, len(drawn) // spawns)][:spawns]
    spawned = [_spawned(substrate, _decode(encoded), clock) for encoded in fresh]
    eight_start, eight_memory = _eight(substrate, clock)
    tenth = max(1, len(memory) // 10)
    early, late = typical(memory[tenth : 2 * tenth] or memory), typical(memory[-tenth:])
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
        latency=max(each["waited"] for each in latencies),
        latency_in_a_row=max(each["in_a_row"] for each in latencies),
        latency_path=" and ".join(dict.fromkeys(each["path"] for each in latencies)),
        parts=parts,
        environment=versions,
    )


def _eight(substrate: str, clock: Clock) -> tuple[float | None, int | None]:
    """Seconds that eight ranks take to start and what they hold; None where the machine cannot run so many."""
    began = clock.now()
    try:
        with World(8, substrate) as ranks:
            return clock.now() - began, sum(_share(pid) for pid in ranks.pids)
    except MachineError:
        return None, None


def _run_all(world: World, drawn: list[bytes], clock: Clock) -> tuple[list[float], list[tuple[int, int]]]:
    """Seconds of each draw, judged; and private memory of parent and ranks, looked at fifty times."""
    times, memory = [], []
    every = max(1, len(drawn) // LOOKS)
    for index, encoded in enumerate(drawn):
        scenario = _decode(encoded)
        began = clock.now()
        judge(world.run(scenario))
        times.append(clock.now() - began)
        if index % every == every - 1:
            memory.append((_private(psutil.Process().pid), sum(_private(pid) for pid in world.pids)))
    return times, memory


def _watched(world: World, drawn: list[bytes]) -> tuple[tuple[str, float], ...]:
    """Where the time of some draws goes, in a run of their own."""
    world.call("harness.rank.probes.stopwatch:start")
    for encoded in drawn:
        world.run(_decode(encoded))
    return tuple(share_of_each(world.call("harness.rank.probes.stopwatch:stop")))


def share_of_each(parts: list[dict[str, float]]) -> list[tuple[str, float]]:
    """Each part's share of the time of all ranks, the largest first."""
    total = sum(sum(each.values()) for each in parts)
    names = dict.fromkeys(name for each in parts for name in each)
    shares = [(name, sum(each.get(name, 0.0) for each in parts) / total) for name in names]
    return sorted(shares, key=lambda item: -item[1])


def typical(memory: list[tuple[int, int]]) -> tuple[int, int]:
    """Median private memory of parent and ranks over several looks."""
    return int(statistics.median(look[0] for look in memory)), int(statistics.median(look[1] for look in memory))


def _decode(encoded: bytes) -> Scenario:
    return msgspec.msgpack.decode(encoded, type=Scenario)


def _spawned(substrate: str, scenario: Scenario, clock: Clock) -> float:
    """Seconds of one draw with ranks that start as fresh interpreters and end with it."""
    began = clock.now()
    with World(scenario.world, substrate, start="spawn") as world:
        judge(world.run(scenario))
    return clock.now() - began


def _private(pid: int) -> int:
    """Unique set size: what would be freed if the process ended."""
    return int(psutil.Process(pid).memory_full_info().uss)


def _share(pid: int) -> int:
    """Proportional set size: shared pages count once over all who share them."""
    return int(psutil.Process(pid).memory_full_info().pss)
