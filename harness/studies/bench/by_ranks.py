"""The bench of collectives on several numbers of ranks, and how times grow with them.

Invariant: every number of ranks has ranks of its own, and all stand on one substrate. What was measured stays where it
is interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import Any

import msgspec

from harness.studies.bench.asked import SIM_SIZES, SIZES, Dtype, sizes_of
from harness.studies.bench.collectives import (
    COPIES,
    COPY,
    LIBRARY,
    PASSES,
    Measured,
    Row,
    State,
    begin,
    bench_collectives,
    contenders,
)
from harness.text import counted
from harness.world.platform import choose
from harness.world.world import World

BEST = "library's best"
"""In place of the library's contenders, where numbers of ranks are compared."""


class Asked(msgspec.Struct, frozen=True):
    """What is measured: on ranks of each number of `worlds`, the smallest first."""

    worlds: list[int]
    ops: list[str]
    dtype: Dtype
    sizes: list[int]
    plugins: list[str]
    substrate: str
    """As `World` takes it."""
    cells: int
    """Of all tables, over both passes."""
    why: str = ""
    """Why it is the simulation, where `auto` takes another substrate for the smallest number of ranks."""


class Point(msgspec.Struct, frozen=True):
    """A contender on so many ranks, at one operation and size. Its time is None where there is none to give."""

    op: str
    nbytes: int
    contender: str
    world: int
    state: State
    time: float | None
    ratio: float | None
    """Times as long as the library at its best on as many ranks."""
    to_copies: float | None
    """Times as long as the copies of each rank to all its peers."""
    growth: float | None
    """Times as long as on the smallest number of ranks."""


class ByRanks(msgspec.Struct):
    """What was measured so far: the same table for each number of ranks."""

    asked: Asked
    tables: list[Measured] = []

    @property
    def is_right(self) -> bool:
        """Whether no contender gave wrong data or failed."""
        return all(table.is_right for table in self.tables)

    @property
    def measured(self) -> list[Measured]:
        """Tables that hold something."""
        return [table for table in self.tables if table.rows]

    def points(self) -> list[Point]:
        """By operation, size, contender and number of ranks. Empty unless there are two numbers of ranks; without
        contenders that have no time on any."""
        found = [*_points(self.measured)] if len(self.measured) > 1 else []
        timed = {(point.op, point.nbytes, point.contender) for point in found if point.time is not None}
        return [point for point in found if (point.op, point.nbytes, point.contender) in timed]

    def as_data(self) -> dict[str, Any]:
        """The same as plain data: the one table, or all where several numbers were asked for."""
        if len(self.asked.worlds) == 1:
            return self.tables[0].as_data()
        return {
            "dtype": self.asked.dtype,
            "environment": self.tables[0].environment,
            "worlds": [table.as_data() for table in self.tables],
            "by_ranks": [msgspec.structs.asdict(point) for point in self.points()],
        }


def ask(
    substrate: str, worlds: list[int], ops: list[str], dtype: Dtype, sizes: list[int] | None, plugins: list[str]
) -> Asked:
    """What is to be measured; `sizes` of None are those that suit the substrate.

    All numbers of ranks stand on the substrate of the largest, as tables of two substrates do not compare. Raises
    `MachineError` where the machine cannot run that.
    """
    least, most = choose(substrate, worlds[0]), choose(substrate, worlds[-1])
    why = most.why if least.name != most.name else ""
    taken = sizes or sizes_of(SIM_SIZES if most.name == "sim" else SIZES, dtype)
    cells = PASSES * len(ops) * len(taken) * sum(len(contenders(most.name, world, plugins)) for world in worlds)
    return Asked(worlds, ops, dtype, taken, plugins, most.name if why else substrate, cells, why)


def bench_by_ranks(
    found: ByRanks, say: Callable[[str], None] = lambda line: None, advance: Callable[[str], None] = lambda line: None
) -> None:
    """Measure the table of each number of ranks into `found`, where it stays if this is interrupted. `say` gets a line
    on each substrate, and `advance` one for each cell."""
    asked = found.asked
    is_list = len(asked.worlds) > 1
    if asked.why:
        say(f"substrate {asked.substrate} for all: {asked.why}")
    for number in asked.worlds:
        named = f"{counted(number, 'rank')}: " if is_list else ""
        with World(number, asked.substrate) as world:
            found.tables.append(begin(world, asked.dtype))
            say(f"{named}substrate {world.platform.name}: {world.platform.why}")
            bench_collectives(
                world,
                asked.ops,
                asked.sizes,
                asked.dtype,
                asked.plugins,
                found.tables[-1],
                _prefixed(advance, named),
            )


def _prefixed(advance: Callable[[str], None], prefix: str) -> Callable[[str], None]:
    return lambda line: advance(prefix + line)


def _points(tables: Sequence[Measured]) -> Iterator[Point]:
    rows = [row for table in tables for row in table.rows]
    names = [BEST, *dict.fromkeys(row.contender for row in rows if row.contender not in LIBRARY)]
    for op in dict.fromkeys(row.op for row in rows):
        for nbytes in sorted({row.nbytes for row in rows if row.op == op}):
            for name in names:
                yield from _line(tables, op, nbytes, name)


def _line(tables: Sequence[Measured], op: str, nbytes: int, name: str) -> Iterator[Point]:
    """The points of a contender, which are on one line of a plot."""
    smallest = _row(tables[0], op, nbytes, name)
    for table in tables:
        row, copies = _row(table, op, nbytes, name), _row(table, op, nbytes, COPIES)
        if row is not None:
            yield Point(
                op,
                nbytes,
                name,
                table.world,
                row.state,
                row.time,
                table.ratio(row),
                _over(row, copies),
                _over(row, smallest),
            )


def _row(table: Measured, op: str, nbytes: int, name: str) -> Row | None:
    """The row of a contender: the fastest one of the library, and of two ranks their one copy for copies to all."""
    called = {BEST: LIBRARY, COPIES: {COPY if table.world == 2 else COPIES}}.get(name, {name})
    rows = [row for row in table.rows if (row.op, row.nbytes) == (op, nbytes) and row.contender in called]
    return min(rows, key=lambda row: inf if row.time is None else row.time, default=None)


def _over(row: Row, base: Row | None) -> float | None:
    return None if base is None or row.time is None or base.time is None else row.time / base.time
