"""`symm merge`: what the shards of a night left, joined into one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.campaign import seeds
from harness.cli.options import JsonOption
from harness.nights.folder import RunFolder
from harness.nights.known import MET
from harness.nights.merge import merge as join
from harness.report import data, terminal
from harness.report.nights import whole

FOLDERS = "Folders of runs, as symm fuzz --run leaves them, or folders that hold such."
INTO = "Where the joined run is kept. What is there already is joined, too."


def merge(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR…", help=FOLDERS, show_default=False)],
    into: Annotated[Path, typer.Option("--into", metavar="DIR", help=INTO, show_default=False)],
    json_file: JsonOption = None,
) -> None:
    """Join the runs of a night's shards: 1 with new findings, 2 if a shard is missing or a file is damaged."""
    data.check_target(json_file)
    seeds.check_folder(into, "--into")
    merged = join(folders, into)
    facts = merged.facts(RunFolder(into))
    whole.show(terminal.Screen(stderr=json_file == "-"), merged, facts, into)
    data.write(facts, json_file)
    if merged.problems or merged.missing:
        raise typer.Exit(2)
    raise typer.Exit(1 if any(each.get("status") not in MET for each in facts["findings"]) else 0)
