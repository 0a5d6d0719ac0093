"""`symm watch` and `symm judge`: programs that know nothing of the harness, run under the observer and judged."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from harness import interrupts
from harness.campaign import seeds
from harness.cli.options import JsonOption
from harness.errors import UsageError, not_one_of
from harness.machine.observer import build
from harness.report import data, terminal, watching
from harness.studies.watching import alive, judging, program, running
from harness.studies.watching.judging import Judged
from harness.text import counted
from harness.world import environment
from harness.world.hosts.launch import alone
from harness.world.world import World

FOLDER = "symm-watch"
Stacks = Annotated[
    str, typer.Option(help="Python stacks: of the `first` call of each kind, or of `all` that differ.", metavar="WHICH")
]


def watch(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND", help="The program with its arguments.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where its processes write. Default: a new folder in symm-watch.")
    ] = None,
    nccl: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The libnccl that it uses. Default: that of this environment.")
    ] = None,
    every: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=1.0, help="Also print new findings while it runs.")
    ] = None,
    stacks: Stacks = "first",
    graph_memory: Annotated[
        bool,
        typer.Option(
            "--graph-memory",
            help="Judge whether PyTorch hands memory of a CUDA graph to another tensor. Its snapshots take longer.",
        ),
    ] = False,
    json_file: JsonOption = None,
) -> None:
    """Run any program under the observer, and judge which communicator owned what its collectives reached.

    Status 1 with findings, 2 where nothing was tested; otherwise the program's own.
    """
    data.check_target(json_file)
    if stacks not in ("first", "all"):
        raise not_one_of("--stacks", stacks, ("first", "all"))
    folder = running.free_folder(out or Path(FOLDER) / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
    environment = build.environment(folder.resolve(), nccl) | {build.STACKS: stacks}
    environment |= {build.HISTORY_WANTED: "1"} if graph_memory else {}
    environment |= alone(os.environ)
    screen = terminal.Screen(stderr=json_file == "-")
    screen.print(terminal.plain(f"watching into {folder}; symm judge {folder} judges it again"), highlight=False)
    look = Looking(folder, screen)
    try:
        status = running.run(command, environment, look.again, every, look.interrupted)
    except KeyboardInterrupt:
        with interrupts.held(), suppress(UsageError):
            _judge([folder], json_file, look.running)
        raise
    if status:
        screen.print(terminal.plain(f"{command[0]} ended with status {status}"), highlight=False)
    found = _judge([folder], json_file)
    raise typer.Exit(_status(found) or status)


def judge(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR", help="Where processes of one run wrote.")],
    seed_file: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Make the first finding a program, shrink it on sim, and keep it as a seed."),
    ] = None,
    json_file: JsonOption = None,
) -> None:
    """Judge what a program did that ran under `symm watch`."""
    data.check_target(json_file)
    found = _judge(folders, json_file)
    if seed_file is not None:
        _keep(found, seed_file, terminal.Screen(stderr=json_file == "-"))
    raise typer.Exit(_status(found))


def _keep(found: Judged, target: Path, screen: terminal.Screen) -> None:
    """Keep the first finding of which a program can be made, and say what became of it."""
    if not found.findings:
        raise UsageError("nothing to keep: there is no finding")
    scenario, rule = program.first_program(found)
    with World(scenario.world, "sim") as world:
        smallest = program.keep(world, scenario, rule, target, environment.describe(world))
    size = f"{counted(smallest.world, 'rank')} and {counted(len(smallest.steps), 'step')}"
    again = seeds.command(str(target), smallest.system)
    screen.print(terminal.plain(f"{rule}: {size}\n  replay: {again}"), highlight=False, soft_wrap=True)


class Looking:
    """Judges what there is so far, and prints each finding once."""

    def __init__(self, folder: Path, screen: terminal.Screen) -> None:
        self._folder, self._screen = folder, screen
        self._shown: set[str] = set()
        self.running: frozenset[str] = frozenset()
        """Recordings of processes that were there when this process was interrupted."""

    def interrupted(self) -> None:
        """Note what is still there: what it does from now on says nothing of what it would have done."""
        self.running = alive.writing(self._folder)

    def again(self) -> None:
        """Print what is new. What cannot be judged yet is for later."""
        try:
            running = alive.writing(self._folder)
            found = judging.judge(judging.read([self._folder]), running)
        except UsageError:
            return
        for finding in found.findings:
            if str(finding) not in self._shown:
                self._shown.add(str(finding))
                self._screen.print(terminal.plain(str(finding)), highlight=False)


def _judge(folders: list[Path], json_file: str | None, running: frozenset[str] = frozenset()) -> Judged:
    running = running.union(*map(alive.writing, folders))
    found = judging.judge(judging.read(folders), running)
    if json_file != "-":
        watching.show(terminal.Screen(), found)
    data.write(watching.as_data(found), json_file)
    return found


def _status(found: Judged) -> int:
    return 1 if found.findings else 2 if found.is_vacuous else 0
