"""How times of collectives grow with the number of ranks: tables and notes in a terminal, and lines for plots.

Invariant: a number of ranks whose times do not compare with other machines is marked wherever it is shown.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console

from harness.report import terminal
from harness.report.speed import tables
from harness.studies.bench.asked import shown_size
from harness.studies.bench.by_ranks import ByRanks, Point

COLUMNS = ("size", "by", "ranks", "µs", "ratio", "to copies", "growth")
MARK = "*"


def shown_ranks(found: ByRanks, world: int) -> str:
    """A number of ranks, marked where its times do not compare."""
    is_marked = any(table.why_not for table in found.measured if table.world == world)
    return f"{world}{MARK if is_marked else ''}"


def cells(found: ByRanks, op: str) -> Iterator[tuple[str, ...]]:
    """The table of an operation: by size, contender and number of ranks."""
    for point in (point for point in found.points() if point.op == op):
        yield (
            shown_size(point.nbytes),
            point.contender,
            shown_ranks(found, point.world),
            tables.without_time(point.state) if point.time is None else tables.micros(point.time),
            *map(tables.times, (point.ratio, point.to_copies, point.growth)),
        )


def ops_of(found: ByRanks) -> list[str]:
    """The operations that were measured on several numbers of ranks."""
    return [*dict.fromkeys(point.op for point in found.points())]


def notes(found: ByRanks) -> list[str]:
    """Why marked numbers of ranks do not compare."""
    why = dict.fromkeys(table.why_not for table in found.measured if table.why_not)
    return [f"{MARK} Not comparable with other machines: {reason}." for reason in why]


def lines(found: ByRanks, op: str) -> Iterator[tuple[int, dict[str, list[tuple[int, float]]]]]:
    """For plots: each size, and the points of each contender, numbers of ranks and seconds. Contenders are the same and
    in the same order at every size."""
    points = [point for point in found.points() if point.op == op]
    names = dict.fromkeys(point.contender for point in points)
    for nbytes in dict.fromkeys(point.nbytes for point in points):
        here = [point for point in points if point.nbytes == nbytes]
        yield nbytes, {name: [*_timed(each for each in here if each.contender == name)] for name in names}


def _timed(points: Iterator[Point]) -> Iterator[tuple[int, float]]:
    return ((point.world, point.time) for point in points if point.time is not None)


def show(console: Console, found: ByRanks) -> None:
    """All of the tables one after the other, then how times grow from one to the next."""
    for table in found.tables:
        tables.show(console, table)
    for op in ops_of(found):
        environment = found.measured[0].environment
        title = f"{op}, by ranks, {found.asked.dtype}, substrate {environment['substrate']}"
        terminal.table(console, COLUMNS, cells(found, op), title=title)
    for line in notes(found) if ops_of(found) else ():
        console.print(terminal.plain(line), highlight=False, soft_wrap=True)
