"""`symm report`: what runs of `symm fuzz` found and covered, in the terminal and as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from harness.campaign import seeds
from harness.cli.options import JsonOption
from harness.errors import UsageError
from harness.nights.folder import RunFolder
from harness.report import data, terminal
from harness.report.pages import page, runs
from harness.report.pages.runs import Report

RUNS = "Files that symm fuzz --json wrote, or folders of symm fuzz --run and of symm merge."


def report(
    files: Annotated[list[str], typer.Argument(metavar="RUN…", help=RUNS)],
    html: Annotated[str | None, typer.Option(metavar="FILE", help="Write the report as one page.")] = None,
    json_file: JsonOption = None,
) -> None:
    """Show runs as one report: 1 if there is a finding that is not known, 0 if not."""
    files = [str(RunFolder(Path(each)).run) if Path(each).is_dir() else each for each in files]
    for target in (html, json_file):
        data.check_target(target, files)
    if doubled := next((each for each in files if files.count(each) > 1), None):
        raise UsageError(f"run {doubled} is named twice")
    found = runs.report({name: runs.load(path) for name, path in zip(_names(files), files, strict=True)})
    if html is not None:
        write_page(html, page.report_page(found))
    if "-" not in (html, json_file):
        show(found)
    data.write({"schema": data.SCHEMA, **msgspec.to_builtins(found)}, json_file)
    raise typer.Exit(1 if found.is_finding else 0)


def _names(files: list[str]) -> list[str]:
    """The files without their folders, where that keeps them apart."""
    short = [Path(each).stem for each in files]
    return short if len({*short}) == len(short) else files


def show(found: Report) -> None:
    """The verdict, a row for each run and for each finding, and what was never met."""
    screen = terminal.Screen()
    screen.print(terminal.plain(found.headline), highlight=False)
    rows = [
        (night.name, str(night.draws), str(night.vacuous), f"{night.rate:.1f}", night.seed, night.substrate)
        for night in found.nights
    ]
    terminal.table(screen, ("run", "draws", "vacuous", "draws/s", "seed", "substrate"), rows)
    for each in found.found:
        status = f" ({each.status})" if each.status else ""
        screen.print(terminal.plain(f"✗ {each.rule}{status}: {each.explanation}"), highlight=False)
        if each.command:
            screen.print(terminal.plain(f"  replay: {each.command}"), highlight=False, soft_wrap=True)
    for lost in found.gone:
        screen.print(terminal.plain(f"gone: {lost.rule} {lost.signature}"), highlight=False)
    for kind in found.coverage:
        if kind.never:
            screen.print(terminal.plain(f"never met, {kind.kind}: {', '.join(kind.never)}"), highlight=False)


def write_page(target: str, text: str) -> None:
    """Write a page to a file, or to standard output for `-`."""
    if target == "-":
        print(text, flush=True)
    else:
        seeds.write_whole(Path(target), text.encode())
