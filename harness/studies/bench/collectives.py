"""Measures collectives: the library as called and at its best, PyTorch's process group, plug-ins and copies.

Invariant: all contenders are measured in one run, on the same ranks. A time belongs to a call whose result was right.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal

import msgspec

from harness.errors import MachineError
from harness.studies.bench.asked import WIDTHS, Dtype
from harness.world import environment
from harness.world.world import World

State = Literal["timed", "wrong", "refused", "failed"]

MEASURE = "harness.rank.probes.speed.measure:measure"
PASSES = 2
SECONDS = 40.0
"""Time for all cells of a default table, without what starting a cell costs."""
LEAST, LONGEST = 0.005, 0.2
"""Seconds for a variant of a contender."""
VARIANTS = {"nccl": 2, "nccl best": 4, "copy to all": 2}
HOST = 4 << 10
"""Bytes a rank of the eager call whose host time is shown."""
COPY, COPIES = "copy", "copy to all"
"""Into the memory of the next rank, and of every peer. With one peer they are the same, and `COPY` stands for both."""
BASES = {"nccl": ("nccl", "nccl best"), "sim": ("library",)}
"""The library's contenders. Ratios are taken to the best of them."""
LIBRARY = {name for names in BASES.values() for name in names}


class Row(msgspec.Struct):
    """One contender at one size. `nbytes` is what a rank contributes; seconds are those of each pass, on the slowest
    rank."""

    op: str
    nbytes: int
    contender: str
    state: State = "timed"
    reason: str = ""
    how: str = ""
    seconds: tuple[float, ...] = ()
    eager: bool = False
    blocks: int | None = None
    host: float | None = None
    """Seconds that the host needs for an eager call of `HOST` bytes."""
    workspace: int | None = None

    @property
    def time(self) -> float | None:
        """The mean of the passes; None where there is no time to give."""
        return statistics.mean(self.seconds) if self.state == "timed" and self.seconds else None

    @property
    def spread(self) -> float | None:
        """How far the passes are apart, as a share of their mean."""
        return None if self.time is None or len(self.seconds) < PASSES else _spread(self.seconds)


class Measured(msgspec.Struct):
    """What was measured so far. `why_not` says why times here cannot be compared with those of other machines."""

    world: int
    dtype: str
    environment: dict[str, Any]
    why_not: str = ""
    rows: list[Row] = []

    @property
    def is_right(self) -> bool:
        """Whether no contender gave wrong data or failed."""
        return not any(row.state in ("wrong", "failed") for row in self.rows)

    def bandwidth(self, row: Row) -> float | None:
        """Bytes that a rank receives from its peers, a second."""
        return None if row.time is None else received(row.op, row.nbytes, self.world) / row.time

    def ratio(self, row: Row) -> float | None:
        """How many times as long as the library at its best."""
        best = self.best(row.op, row.nbytes)
        return None if best is None or row.time is None else row.time / best

    def best(self, op: str, nbytes: int) -> float | None:
        """Seconds of the library at its best; None where there is no time of it."""
        times = [r.time for r in self.rows if (r.op, r.nbytes) == (op, nbytes) and r.contender in LIBRARY]
        return min((time for time in times if time is not None), default=None)

    def as_data(self) -> dict[str, Any]:
        """The same as plain data."""
        rows = [
            {
                **msgspec.structs.asdict(row),
                "time": row.time,
                "spread": row.spread,
                "bandwidth": self.bandwidth(row),
                "ratio": self.ratio(row),
            }
            for row in self.rows
        ]
        return {**msgspec.structs.asdict(self), "rows": rows}


def received(op: str, nbytes: int, world: int) -> float:
    """Bytes that a rank has to receive from its peers, where each contributes `nbytes`. A rank of a reduce-scatter
    contributes that to each result; of an all-reduce it receives parts of it twice."""
    return 2 * (world - 1) / world * nbytes if op == "all_reduce" else (world - 1) * nbytes


def contenders(substrate: str, world: int, plugins: Sequence[str]) -> list[str]:
    """All that are measured on so many ranks."""
    return [*BASES[substrate], "torch", *plugins, COPY, *([COPIES] if world > 2 else [])]


def bench_collectives(
    world: World,
    ops: Sequence[str],
    sizes: Sequence[int],
    dtype: Dtype,
    plugins: Sequence[str],
    measured: Measured,
    advance: Callable[[str], None] = lambda line: None,
) -> None:
    """Measure every cell twice, in two passes, into `measured`, where it stays if this is interrupted."""
    names = contenders(world.platform.name, world.size, plugins)
    share = SECONDS / (PASSES * len(ops) * len(sizes) * sum(VARIANTS.get(name, 1) for name in names))
    budget = min(LONGEST, max(LEAST, share))
    rows = {(op, size, name): Row(op, size, name) for op, size, name in product(ops, sizes, names)}
    folder = tempfile.mkdtemp(prefix="symm-bench-")
    try:
        cell = _Cell(world, dtype, Path(folder), budget)
        asked = product(ops, names) if world.platform.gpus else ()
        hosts = {(op, name): cell.host(op, name) for op, name in asked}
        for number, (key, row) in product(range(PASSES), rows.items()):
            if row.state != "timed":
                continue
            cell.add(row)
            if not number:
                row.host = hosts.get((row.op, row.contender))
                measured.rows.append(row)
            advance(f"{number + 1} of {PASSES}: {' '.join(map(str, key))}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def begin(world: World, dtype: Dtype) -> Measured:
    """Nothing measured yet, on these ranks."""
    why_not = ""
    if world.platform.name == "sim":
        why_not = "the simulation, by the host's clock"
    elif world.platform.most_on_a_gpu(world.size) > 1:
        why_not = "several ranks share a GPU"
    return Measured(world.size, dtype, environment.describe(world), why_not, [])


class _Cell:
    """Cells of one run, measured on ranks."""

    def __init__(self, world: World, dtype: str, folder: Path, budget: float) -> None:
        self._world, self._dtype, self._folder, self._budget, self._seed = world, dtype, folder, budget, 0

    def host(self, op: str, name: str) -> float | None:
        """Seconds of the host for an eager call of `HOST` bytes; None where there is none to measure."""
        row = Row(op, HOST, name)
        self.add(row)
        return row.host if row.state == "timed" else None

    def add(self, row: Row) -> None:
        """Measure a row once more."""
        try:
            replies = self._measured(row)
        except MachineError as error:  # the ranks are gone, and the next cell gets new ones
            row.state, row.reason = "failed", str(error)
            return
        if reasons := [reply["refused"] for reply in replies if "refused" in reply]:
            row.state, row.reason = "refused", reasons[0]
            return
        by_rank = [reply["variants"] for reply in replies]
        everyone = [found for variants in by_rank for found in variants if not found["right"]]
        if wrong := [*dict.fromkeys(_wrong(found) for found in everyone)]:
            row.state, row.reason = "wrong", ", ".join(wrong)
            return
        slowest = [max(each["seconds"] for each in found) for found in zip(*by_rank, strict=True)]
        index = slowest.index(min(slowest))
        best = by_rank[0][index]
        row.seconds += (slowest[index],)
        row.how = ", ".join(filter(None, (best["variant"] or _own(row.contender), replies[0]["how"])))
        row.eager, row.blocks, row.workspace = best["eager"], best["blocks"], replies[0]["workspace"]
        if row.nbytes == HOST:
            row.host = None if best["host"] is None else max(found[index]["host"] for found in by_rank)

    def _measured(self, row: Row) -> list[dict[str, Any]]:
        self._seed += 1000
        nbytes, op = row.nbytes, row.op
        if row.contender in (COPY, COPIES):
            parts = self._world.size - 1 if row.contender == COPIES else 1
            nbytes, op = int(received(row.op, row.nbytes, self._world.size) / parts), row.contender
        count = max(1, nbytes // WIDTHS[self._dtype])
        store = str(self._folder / str(self._world.restarts))
        arguments = (row.contender, op, self._dtype, count, self._budget, store, self._seed)
        return self._world.call(MEASURE, *arguments)


def _wrong(found: dict[str, Any]) -> str:
    """What a rank says of a variant."""
    return " ".join(
        filter(None, ("wrong data", found["variant"], "after" if "seconds" in found else "before", "timing"))
    )


def _own(contender: str) -> str:
    return "own choice" if contender in BASES["nccl"] else ""


def _spread(seconds: Sequence[float]) -> float:
    return (max(seconds) - min(seconds)) / statistics.mean(seconds)


def series(measured: Measured, op: str) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """For a plot: each contender with its points, bytes and bytes a second."""
    for name in dict.fromkeys(row.contender for row in measured.rows):
        rows = [row for row in measured.rows if (row.op, row.contender) == (op, name)]
        points = [(row.nbytes, width) for row in rows if (width := measured.bandwidth(row))]
        if points:
            yield name, points
