"""Measured collectives as one HTML page, well-formed as XML too.

Invariant: the page loads nothing: its styles and its plots are in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup

from harness.report.pages.page import environment
from harness.report.speed import scaling, tables
from harness.report.speed.plots import Axes, lines
from harness.studies.bench.asked import shown_size
from harness.studies.bench.by_ranks import ByRanks
from harness.studies.bench.collectives import Measured, series
from harness.text import counted

LOW = 240
"""Height of a plot of which there are many."""


class Section(NamedTuple):
    """A table with its plots, each with a caption or none."""

    title: str
    plots: list[tuple[str, Markup]]
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: Sequence[str] = ()


def page(found: ByRanks, command: str) -> str:
    """The page of all that was measured."""
    is_one = len(found.tables) == 1
    sections = [
        section for table in found.tables for section in _of_table(table, "" if is_one else f", {_ranks(table.world)}")
    ]
    return (
        environment()
        .get_template("bench.html")
        .render(
            ranks=_ranks(*(table.world for table in found.tables)),
            dtype=found.asked.dtype,
            command=command,
            notes=_notes(found),
            sections=[*sections, *_by_ranks(found)],
            machine=_machine(found),
        )
    )


def _ranks(*worlds: int) -> str:
    """Such as `2 ranks`, or `2, 4 and 8 ranks`."""
    first = ", ".join(map(str, worlds[:-1]))
    return f"{first} and {counted(worlds[-1], 'rank')}" if first else counted(worlds[-1], "rank")


def _of_table(measured: Measured, of: str) -> Iterator[Section]:
    for op in tables.ops_of(measured):
        axes = Axes(f"bandwidth of {op} over size{of}", "GB/s", shown_size, lambda width: f"{width / 1e9:.3g}")
        plot = lines(dict(series(measured, op)), axes)
        yield Section(op + of, [("", plot)], tables.COLUMNS, [*tables.cells(measured, op)])


def _by_ranks(found: ByRanks) -> Iterator[Section]:
    for op in scaling.ops_of(found):
        plots = []
        for nbytes, drawn in scaling.lines(found, op):
            label = f"time of {op} of {shown_size(nbytes)} over ranks"
            axes = Axes(label, "µs", lambda world: scaling.shown_ranks(found, world), tables.micros, LOW)
            plots.append((f"{shown_size(nbytes)}, by ranks", lines(drawn, axes)))
        yield Section(f"{op}, by ranks", plots, scaling.COLUMNS, [*scaling.cells(found, op)], scaling.notes(found))


def _notes(found: ByRanks) -> list[str]:
    """Those of each table, with the numbers of ranks where there are several."""
    worlds: dict[str, list[int]] = {}
    for table in found.tables:
        for note in tables.notes(table):
            worlds.setdefault(note, []).append(table.world)
    if len(found.tables) == 1:
        return [*worlds]
    return [f"{_ranks(*named)}: {note}" for note, named in worlds.items()]


def _machine(found: ByRanks) -> list[tuple[str, object]]:
    """The environment; what differs between numbers of ranks once for each value."""
    rows: dict[tuple[str, str], list[Measured]] = {}
    for table in found.tables:
        for name, value in table.environment.items():
            rows.setdefault((name, str(value)), []).append(table)
    return [
        (name if len(of) == len(found.tables) else f"{name}, {_ranks(*(table.world for table in of))}", value)
        for (name, value), of in rows.items()
    ]
