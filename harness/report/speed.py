"""Measured collectives as a table and a plot, in a terminal and as one HTML page.

Invariant: the page loads nothing: its styles and its plots are in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from markupsafe import Markup
from rich.console import Console

from harness.report import terminal
from harness.report.pages.page import environment
from harness.studies.bench.collectives import Measured, Row, series, shown_size

COLUMNS = ("size", "by", "µs", "GB/s", "ratio", "spread", "CTAs", "host", "bytes", "how")
NONE = "–"
BAR = 30
"""Characters of the longest bar."""
EIGHTHS = " ▏▎▍▌▋▊▉█"
WIDTH, HEIGHT, MARGIN = 760, 360, 60
COLOURS = ("#3584c4", "#d1495b", "#3f9150", "#9b66cc", "#c77d0a", "#0a919f", "#a06a45", "#808080")
"""Each is read on white and on black."""


def ops_of(measured: Measured) -> list[str]:
    """The operations that were measured."""
    return [*dict.fromkeys(row.op for row in measured.rows)]


def cells(measured: Measured, op: str) -> Iterator[tuple[str, ...]]:
    """The table of an operation, by size."""
    for row in sorted((row for row in measured.rows if row.op == op), key=lambda row: row.nbytes):
        named = shown_size(row.nbytes), row.contender
        if row.time is None:
            shown = NONE if row.state == "refused" else row.state
            yield (*named, shown, *[NONE] * (len(COLUMNS) - 3))
            continue
        bandwidth, ratio = measured.bandwidth(row), measured.ratio(row)
        yield (
            *named,
            f"{1e6 * row.time:.1f}",
            NONE if bandwidth is None else f"{bandwidth / 1e9:.3g}",
            NONE if ratio is None else f"{ratio:.2f}",
            NONE if row.spread is None else f"{100 * row.spread:.0f} %",
            NONE if row.blocks is None else str(row.blocks),
            NONE if row.host is None else f"{1e6 * row.host:.1f}",
            NONE if row.workspace is None else shown_size(row.workspace) if row.workspace else "0",
            _how(row),
        )


def _how(row: Row) -> str:
    return ", ".join(filter(None, (row.how, "eager" if row.eager else "")))


def notes(measured: Measured) -> list[str]:
    """What a reader has to know of the table."""
    found = [f"Not comparable with other machines: {measured.why_not}."] if measured.why_not else []
    reasons = dict.fromkeys((row.contender, row.op, row.state, row.reason) for row in measured.rows if row.reason)
    return found + [f"{contender}, {op}, {state}: {reason}" for contender, op, state, reason in reasons]


def show(console: Console, measured: Measured) -> None:
    """A table for each operation, notes, and bars."""
    for op in ops_of(measured):
        title = f"{op}, {measured.world} ranks, {measured.dtype}, substrate {measured.environment['substrate']}"
        terminal.table(console, COLUMNS, cells(measured, op), title=title)
    for line in (*notes(measured), *plot(measured)):
        console.print(terminal.plain(line), highlight=False, soft_wrap=True)


def plot(measured: Measured) -> Iterator[str]:
    """Bandwidth of every contender as bars, size by size."""
    for op in ops_of(measured):
        found = dict(series(measured, op))
        most = max((width for points in found.values() for _, width in points), default=0.0)
        wide = max(map(len, found), default=0)
        for nbytes in sorted({nbytes for points in found.values() for nbytes, _ in points}):
            yield f"{op} {shown_size(nbytes)}, GB/s"
            for name, points in found.items():
                for width in (width for size, width in points if size == nbytes):
                    yield f"  {name:<{wide}} {bar(width / most)} {width / 1e9:.3g}"


def bar(share: float) -> str:
    """A bar in eighths of a character."""
    whole, rest = divmod(round(8 * BAR * share), 8)
    return EIGHTHS[8] * whole + EIGHTHS[rest].strip()


def page(measured: Measured, command: str) -> str:
    """One HTML page, well-formed as XML too."""
    tables = {op: (Markup(_svg(measured, op)), [*cells(measured, op)]) for op in ops_of(measured)}
    return (
        environment()
        .get_template("bench.html")
        .render(measured=measured, command=command, columns=COLUMNS, notes=notes(measured), tables=tables)
    )


def _svg(measured: Measured, op: str) -> str:
    """Bandwidth over size, both logarithmic."""
    found = dict(series(measured, op))
    points = [point for each in found.values() for point in each]
    if not points:
        return "<p>Nothing was timed.</p>"
    sizes, widths = zip(*points, strict=True)
    across, up = _scale(sizes, MARGIN, WIDTH - 170), _scale(widths, HEIGHT - MARGIN, 20)
    drawn = [
        f'<text x="{across(size):.1f}" y="{HEIGHT - MARGIN + 20}" text-anchor="middle">{shown_size(size)}</text>'
        for size in sorted({*sizes})
    ]
    drawn += [
        f'<text x="{MARGIN - 8}" y="{up(width):.1f}" text-anchor="end">{width / 1e9:.3g}</text>'
        for width in (min(widths), max(widths))
    ]
    drawn.append(f'<text x="{MARGIN}" y="12" text-anchor="end">GB/s</text>')
    for index, (name, line) in enumerate(found.items()):
        colour = COLOURS[index % len(COLOURS)]
        at = " ".join(f"{across(size):.1f},{up(width):.1f}" for size, width in sorted(line))
        drawn.append(f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn += [
            f'<circle cx="{across(size):.1f}" cy="{up(width):.1f}" r="3" fill="{colour}"/>' for size, width in line
        ]
        drawn.append(f'<text x="{WIDTH - 155}" y="{30 + 20 * index}" style="fill:{colour}">{escape(name)}</text>')
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img"'
    return f'{head} aria-label="bandwidth of {escape(op)} over size">{"".join(drawn)}</svg>'


class _Scale:
    """From values to places, by their logarithms."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low, self._span = math.log(low), math.log(high) - math.log(low) or 1.0
        self._start, self._length = start, end - start

    def __call__(self, value: float) -> float:
        return self._start + self._length * (math.log(value) - self._low) / self._span


def _scale(values: tuple[float, ...], start: float, end: float) -> _Scale:
    return _Scale(min(values), max(values), start, end)
