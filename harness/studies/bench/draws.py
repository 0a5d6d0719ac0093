"""Measures draws: one persistent world against spawning fresh ranks for every draw, in one run.

Invariant: both ways run the same scenarios, and every draw is judged. What was measured stays where it is interrupted.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
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
from harness.text import counted
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
DRAWING, PREPARING = "drawing it, by Hypothesis", "preparing ranks and their counters"
RUNNING = "waiting for ranks, reading traces"
JUDGING = "the oracle"
FIXED_PARTS = 7
"""Parts that are measured beside each draw on fresh ranks, of which there are no more than draws."""
REPEATS = 10
"""Times that a communicator is re-created, and gets two windows."""
SHOWN = 0.005
"""Least share of a part that the table shows."""
EIGHT_ON_A_GPU = 86e-6
"""Seconds of an all-gather of eight ranks that share a GPU: twice what NCCL takes there."""


class Measured(msgspec.Struct):
    """What was measured so far, in seconds and bytes; None of what was not. `draw` and `spawned` are medians of single
    draws. Memory over time is private (USS); that of eight ranks together is proportional (PSS), so that what they
    share counts once."""

    draws: int = 0
    spawns: int = 0
    start: float | None = None
    draw: float | None = None
    spawned: float | None = None
    rate: float | None = None
    parent_early: int | None = None
    parent_late: int | None = None
    ranks_early: int | None = None
    ranks_late: int | None = None
    eight_start: float | None = None
    eight_memory: int | None = None
    latency: float | None = None
    """Seconds of a library all-gather of all ranks, 1024 bf16 each, in a window, each waited for."""
    latency_in_a_row: float | None = None
    """The same with fifty in a row."""
    latency_path: str = ""
    """The path that these calls took."""
    costs: dict[str, float] = {}
    """Median seconds of what communicators and windows of all ranks cost, on the slowest rank."""
    parent: dict[str, float] = {}
    """Where the time of a draw goes in the parent: mean seconds of each part."""
    parts: tuple[tuple[str, float], ...] = ()
    """Where the time of a draw goes on its ranks: shares of the whole, the largest first."""
    environment: dict[str, Any] = {}

    @property
    def ratio(self) -> float | None:
        """How many times faster a draw of the persistent world is."""
        return self.spawned / self.draw if self.spawned is not None and self.draw else None

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """The table a person reads: a figure and, where there is one, its goal beside it. Only of what was measured."""
        if not self.environment:
            return
        substrate = self.environment["substrate"]
        yield "substrate", f"{substrate} ({self.environment['why']})", ""
        rate = f"draws a second over {self.draws}, judged"
        memory = None if self.eight_memory is None else self.eight_memory >> 20
        for name, shown, figure, goal in (
            ("start of the world", "{:.2f} s", self.start, ""),
            ("draw, persistent world (median)", "{:.1f} ms", _times(1000, self.draw), ""),
            ("draw, fresh ranks (median)", "{:.0f} ms", _times(1000, self.spawned), ""),
            ("times faster", "{:.0f}", self.ratio, f"at least {TIMES_FASTER}"),
            (rate, "{:.1f}", self.rate, f"at least {DRAWS_A_SECOND[substrate]}"),
            ("eight ranks: start", "{:.2f} s", self.eight_start, f"under {EIGHT_START:.0f} s"),
            ("eight ranks: memory together", "{} MiB", memory, f"under {EIGHT_MEMORY >> 20} MiB"),
        ):
            if figure is not None:
                yield name, shown.format(figure), goal
        yield from self._memory_rows()
        if self.latency is not None and self.latency_in_a_row is not None:
            both = f"{1e6 * self.latency:.0f} µs, {1e6 * self.latency_in_a_row:.0f} µs ({self.latency_path} path)"
            goal = f"eight ranks on a GPU: at most {1e6 * EIGHT_ON_A_GPU:.0f} µs" if substrate == "nccl" else ""
            yield "1024 bf16 a rank gathered: waited for, in a row", both, goal
        yield from self._part_rows()

    def _memory_rows(self) -> Iterator[tuple[str, str, str]]:
        flat = f"growth under {100 * GROWTH:.0f} % over 5,000 draws"
        for who, early, late in (
            ("parent's", self.parent_early, self.parent_late),
            ("ranks'", self.ranks_early, self.ranks_late),
        ):
            if early is not None and late is not None:
                yield f"{who} memory in the second tenth, in the last", f"{_mib(early)}, {_mib(late)}", flat

    def _part_rows(self) -> Iterator[tuple[str, str, str]]:
        for part, taken in self.parent.items():
            yield f"draw, parent: {part}", f"{1000 * taken:.1f} ms", ""
        for act, taken in self.costs.items():
            yield act, f"{1000 * taken:.1f} ms", ""
        for part, size in self.parts:
            if size >= SHOWN:
                yield f"draw, ranks: {part}", f"{100 * size:.0f} %", ""

    def as_data(self) -> dict[str, Any]:
        """The same as plain data."""
        return {**msgspec.structs.asdict(self), "ratio": self.ratio}


def _times(factor: float, figure: float | None) -> float | None:
    return None if figure is None else factor * figure


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


def bench_draws(
    substrate: str,
    world: int,
    steps: int,
    draws: int,
    spawns: int,
    seed: int,
    measured: Measured,
    say: Callable[[str], None],
    clock: Clock = CLOCK,
) -> None:
    """Run `draws` drawn scenarios on one world, and `spawns` of them, evenly taken, on fresh ranks. `measured` has each
    figure as soon as it is known, so also where this is interrupted. `say` hears of each part before it begins."""
    say(f"{draws} scenarios are drawn")
    began = clock.now()
    strategy = on_nodes(scenarios(world, max_steps=steps, falling=False), world, 1)
    drawn = [msgspec.msgpack.encode(scenario) for scenario in sample(strategy, draws, seed)]
    measured.parent[DRAWING] = (clock.now() - began) / len(drawn)
    say(f"a world of {counted(world, 'rank')} starts")
    began = clock.now()
    with World(world, substrate) as ranks:
        measured.start, measured.environment = clock.now() - began, environment.describe(ranks)
        say(f"{counted(len(drawn), 'draw')} on these ranks")
        _run_all(ranks, drawn, measured, clock)
        say(f"{counted(min(WATCHED, len(drawn)), 'draw')} with a stopwatch on the ranks")
        measured.parts = _watched(ranks, drawn[:WATCHED])
        say("the latency of an all-gather")
        latencies = ranks.call("harness.rank.probes.latency:measure", 1024, 20)
        measured.latency = max(each["waited"] for each in latencies)
        measured.latency_in_a_row = max(each["in_a_row"] for each in latencies)
        measured.latency_path = " and ".join(dict.fromkeys(each["path"] for each in latencies))
        say("what communicators and windows cost")
        measured.costs = slowest(ranks.call("harness.rank.probes.costs:measure", REPEATS))
    spawned: list[float] = []
    fresh = drawn[:: max(1, len(drawn) // spawns)][:spawns]
    for encoded in fresh:
        scenario = _decode(encoded)
        say(f"draw {len(spawned) + 1} of {len(fresh)} on {counted(scenario.world, 'fresh rank')}")
        spawned.append(_spawned(substrate, scenario, clock))
        measured.spawns, measured.spawned = len(spawned), statistics.median(spawned)
    say("a world of 8 ranks starts")
    measured.eight_start, measured.eight_memory = _eight(substrate, clock)


def _eight(substrate: str, clock: Clock) -> tuple[float | None, int | None]:
    """Seconds that eight ranks take to start and what they hold; None where the machine cannot run so many."""
    began = clock.now()
    try:
        with World(8, substrate) as ranks:
            return clock.now() - began, sum(_share(pid) for pid in ranks.pids)
    except MachineError:
        return None, None


def _run_all(world: World, drawn: list[bytes], measured: Measured, clock: Clock) -> None:
    """Measure each draw, judged, and private memory of parent and ranks, looked at fifty times."""
    parts: dict[str, list[float]] = {part: [] for part in (PREPARING, RUNNING, JUDGING)}
    memory: list[tuple[int, int]] = []
    every = max(1, len(drawn) // LOOKS)
    try:
        for index, encoded in enumerate(drawn):
            scenario = _decode(encoded)
            began = clock.now()
            draw = world.run(scenario)
            ran = clock.now()
            judge(draw)
            for part, taken in (
                (PREPARING, ran - began - draw.seconds),
                (RUNNING, draw.seconds),
                (JUDGING, clock.now() - ran),
            ):
                parts[part].append(taken)
            if index % every == every - 1:
                memory.append((_private(psutil.Process().pid), sum(_private(pid) for pid in world.pids)))
    finally:
        _note(measured, parts, memory)


def _note(measured: Measured, parts: dict[str, list[float]], memory: list[tuple[int, int]]) -> None:
    """Sum up the draws so far."""
    times = [sum(taken) for taken in zip(*parts.values(), strict=False)]  # of an interrupted draw parts may be missing
    if not times:
        return
    measured.draws, measured.draw, measured.rate = len(times), statistics.median(times), len(times) / sum(times)
    measured.parent |= {part: statistics.mean(taken) for part, taken in parts.items()}
    tenth = max(1, len(memory) // 10)
    if memory:
        measured.parent_early, measured.ranks_early = typical(memory[tenth : 2 * tenth] or memory)
        measured.parent_late, measured.ranks_late = typical(memory[-tenth:])


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


def slowest(costs: list[dict[str, float]]) -> dict[str, float]:
    """Each act's seconds on the rank that it takes longest."""
    return {act: max(each[act] for each in costs) for act in costs[0]}


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
