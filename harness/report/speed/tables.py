"""Measured collectives of one number of ranks in a terminal: tables, notes and bars.

Invariant: a row without a time has a word for the reason, or a dash.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console

from harness.report import terminal
from harness.studies.bench.asked import shown_size
from harness.studies.bench.collectives import Measured, Row, State, series

COLUMNS = ("size", "by", "µs", "GB/s", "ratio", "spread", "CTAs", "host", "bytes", "how")
NONE = "–"
BAR = 30
"""Characters of the longest bar."""
EIGHTHS = " ▏▎▍▌▋▊▉█"


def ops_of(measured: Measured) -> list[str]:
    """The operations that were measured."""
    return [*dict.fromkeys(row.op for row in measured.rows)]


def cells(measured: Measured, op: str) -> Iterator[tuple[str, ...]]:
    """The table of an operation, by size."""
    for row in sorted((row for row in measured.rows if row.op == op), key=lambda row: row.nbytes):
        named = shown_size(row.nbytes), row.contender
        if row.time is None:
            yield (*named, without_time(row.state), *[NONE] * (len(COLUMNS) - 3))
            continue
        bandwidth = measured.bandwidth(row)
        yield (
            *named,
            micros(row.time),
            NONE if bandwidth is None else f"{bandwidth / 1e9:.3g}",
            times(measured.ratio(row)),
            NONE if row.spread is None else f"{100 * row.spread:.0f} %",
            NONE if row.blocks is None else str(row.blocks),
            NONE if row.host is None else f"{1e6 * row.host:.1f}",
            NONE if row.workspace is None else shown_size(row.workspace) if row.workspace else "0",
            _how(row),
        )


def without_time(state: State) -> str:
    """In place of a time."""
    return NONE if state == "refused" else state


def micros(seconds: float) -> str:
    """Seconds as µs."""
    return f"{1e6 * seconds:.1f}"


def times(ratio: float | None) -> str:
    """How many times as long."""
    return NONE if ratio is None else f"{ratio:.2f}"


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
