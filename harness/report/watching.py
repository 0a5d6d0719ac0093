"""What `symm watch` and `symm judge` say of a program: its calls by call site, findings, and what was judged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.panel import Panel

from harness.report import terminal
from harness.report.data import SCHEMA
from harness.report.frames import places
from harness.studies.watching.callsites import place_of
from harness.studies.watching.judging import Judged
from harness.studies.watching.members import Team
from harness.studies.watching.table import Row
from harness.text import counted

COLUMNS = "call", "times", "path", "owner", "call site"
UNITS = "B", "KiB", "MiB", "GiB", "TiB"


def show(console: Console, judged: Judged) -> None:
    """Print a verdict."""
    members = judged.assembled.members
    console.print(terminal.plain(_covered(judged)), highlight=False)
    for team in members.whole:
        console.print(terminal.plain(_communicator(team)), highlight=False, soft_wrap=True)
    if judged.rows:
        terminal.table(console, COLUMNS, map(_cells, judged.rows))
    for found in judged.findings:
        record = found.record()
        lines = [record.explanation, *places(record)]
        console.print(
            Panel(
                terminal.plain("\n".join(lines)), title=terminal.plain(record.rule), title_align="left", highlight=False
            )
        )
    for line in _ends(judged):
        console.print(terminal.plain(line), highlight=False, soft_wrap=True)


def _communicator(team: Team) -> str:
    """Such as `  comm-2[0,1]: made at model.py:31 build; without windows`."""
    again = f", again ({team.generation + 1})" if team.generation else ""
    made = f": made at {place_of(team.site)}{again}" if place_of(team.site) else again
    return f"  {team.label}{made}{'' if team.has_windows else '; without windows'}"


def _covered(judged: Judged) -> str:
    """What was recorded."""
    members = judged.assembled.members
    nccl = ".".join(map(str, members.processes[0].nccl))
    return (
        f"{counted(len(members.processes), 'rank')}, {counted(len(members.teams), 'communicator')}, "
        f"{counted(judged.calls, 'call')}; NCCL {nccl}."
    )


def _ends(judged: Judged) -> Iterator[str]:
    """What the verdict rests on, and what it leaves out."""
    for sentence in judged.assembled.left_out:
        yield f"not judged: {sentence}"
    slow = [row for row in judged.rows if row.has_slow_owned]
    for row in slow:
        yield (
            f"slow though owned: {row.kind} of {row.family} at {row.place or 'an unknown place'}: "
            f"{row.legacy} of {counted(row.calls, 'call')} took no symmetric kernel"
        )
    if judged.is_vacuous and not judged.findings:
        yield "nothing was tested: no call of several ranks reached memory in a window of its communicator"
    elif not judged.findings:
        yield "no finding"


def _cells(row: Row) -> tuple[str, ...]:
    each = size(row.nbytes / row.calls if row.calls else 0)
    call = f"{row.kind}\n{row.dtype} of {row.family}"
    captured = f"\n{row.captured} captured" if row.captured else ""
    return call, f"{row.calls} × {each}{captured}", path(row), ", ".join(row.owners) or "-", row.place or "-"


def path(row: Row) -> str:
    """Such as `58 symmetric, 2 legacy`, as NCCL said."""
    said = {"symmetric": row.symmetric, "legacy": row.legacy, "copy engine": row.copy, "unknown": row.unknown}
    return ", ".join(f"{times} {word}" for word, times in said.items() if times)


def size(nbytes: float) -> str:
    """Bytes in the largest unit that they fill, such as `1.5 MiB`."""
    unit = 0
    while nbytes >= 1024 and unit < len(UNITS) - 1:
        nbytes, unit = nbytes / 1024, unit + 1
    return f"{nbytes:.4g} {UNITS[unit]}"


def as_data(judged: Judged) -> dict[str, Any]:
    """A verdict as JSON."""
    members = judged.assembled.members
    return {
        "schema": SCHEMA,
        "nccl": ".".join(map(str, members.processes[0].nccl)),
        "ranks": [
            {"rank": rank, "host": process.host, "pid": process.pid, "command": process.command}
            for rank, process in enumerate(members.processes)
        ],
        "communicators": [
            {
                "name": team.label,
                "ranks": team.group,
                "number": team.number,
                "generation": team.generation,
                "windows": team.has_windows,
                "made_at": place_of(team.site),
            }
            for team in members.whole
        ],
        "calls": [_row(row) for row in judged.rows],
        "is_vacuous": judged.is_vacuous,
        "not_judged": judged.assembled.left_out,
        "findings": [
            {
                "rule": found.rule,
                "explanation": found.explanation,
                "ranks": found.ranks,
                "at": judged.assembled.recording.places[found.step]
                if found.step < len(judged.assembled.recording.places)
                else "the end",
            }
            for found in judged.findings
        ],
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "family": row.family,
        "kind": row.kind,
        "dtype": row.dtype,
        "calls": row.calls,
        "bytes": row.nbytes,
        "symmetric": row.symmetric,
        "legacy": row.legacy,
        "copy_engine": row.copy,
        "unknown": row.unknown,
        "captured": row.captured,
        "owners": [*row.owners],
        "site": row.place,
    }
