"""`symm replay`: run a seed's scenario again, and show in how many runs it still fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import Annotated

import msgspec
import typer

from harness.campaign import seeds
from harness.campaign.replay import Run, with_systems
from harness.campaign.replay import replay as run_again
from harness.cli.ending import Outputs, at_the_end
from harness.cli.options import (
    CollectivesOption,
    DeadlineOption,
    EvidenceOption,
    JsonOption,
    JunitOption,
    OutputOption,
    PoolOption,
    SubstrateOption,
    TracebackOption,
)
from harness.errors import UsageError
from harness.report import data, leftovers, results, terminal
from harness.scenario.scenario import Scenario
from harness.scenario.system import Sites
from harness.system.check import check_system, fallbacks, observed, prepare
from harness.world import environment
from harness.world.hosts.gathering import gathered
from harness.world.platform import Watched
from harness.world.watch import Debugger
from harness.world.world import World


def replay(
    context: typer.Context,
    seed_file: Annotated[str, typer.Argument(metavar="SEED", help="A file, or the name of one that ships here.")],
    times: Annotated[int, typer.Option(min=1, help="Runs; a race fails in some only.")] = 1,
    substrate: SubstrateOption = "auto",
    pool: PoolOption = None,
    collectives: CollectivesOption = None,
    sites: Annotated[Sites | None, typer.Option(help="Buffer sites in place of the seed's.")] = None,
    evidence: EvidenceOption = None,
    deadline: DeadlineOption = None,
    allow_plugins: Annotated[
        bool, typer.Option("--allow-plugins", help="Run the plug-ins that the seed names: only if you trust it.")
    ] = False,
    traceback: TracebackOption = False,
    show_output: OutputOption = False,
    pdb: Annotated[
        int | None, typer.Option(min=0, metavar="RANK", help="Debug this rank where the system under test raises.")
    ] = None,
    json_file: JsonOption = None,
    junit_file: JunitOption = None,
) -> None:
    """Run a seed file's scenario again: 1 if it still fails, 0 if not."""
    outputs = Outputs(context, json_file, junit_file, [seed_file])
    *before, scenario = with_systems(seeds.find(seed_file).scenarios, pool, collectives, sites)
    for system in dict.fromkeys(each.system for each in (*before, scenario)):
        if not allow_plugins:
            seeds.check_plug_ins(seed_file, system, (pool, collectives))
        check_system(system.pool, system.collectives)
    systems = [each.system for each in (*before, scenario)]
    watched = Watched(
        observed(*(each.pool for each in systems)), prepare, fallbacks(*(each.collectives for each in systems))
    )
    console = terminal.Screen(stderr=json_file == "-")
    debugger = None if pdb is None else _debugger(pdb, scenario, console)
    runs: list[Run] = []
    about = {"seed": scenario.seed, "system": msgspec.to_builtins(scenario.system)}
    size = max(each.world for each in (*before, scenario))
    around = gathered()
    if around is not None:
        size = around.holding(size)
    over = around and around.over
    with World(size, substrate, deadline=deadline, evidence=evidence or (), watched=watched, over=over) as world:
        found_here = environment.describe(world)
        console.print(f"substrate {world.platform.name}: {world.platform.why}", highlight=False)
        if around is not None:
            console.print(f"hosts: {around.where}", highlight=False)
        if line := world.platform.not_shown(scenario.topology.joins_nodes):
            console.print(line, highlight=False)
        if scenario.scheduled is not None and world.platform.name != "sim":
            console.print("the seed has a schedule, which ranks on GPUs do not follow", highlight=False)
        if before:
            console.print(f"draws before each run, on fresh ranks: {len(before)}", highlight=False)

        def show() -> None:
            if runs:
                terminal.runs(console, runs, scenario, times, terminal.Details(traceback, show_output))
                leftovers.show(console, world)

        def write() -> None:
            if runs:
                records = [run.findings for run in runs]
                found = {
                    "runs": records,
                    "failed": sum(map(bool, records)),
                    "environment": found_here,
                    "left": leftovers.data(world),
                }
                tried = [results.of_run(seed_file, number, run, scenario) for number, run in enumerate(runs, 1)]
                outputs.write(console, {"schema": data.SCHEMA, **found}, tried, **about)

        with at_the_end(show, write):
            for run in run_again(world, scenario, times, before, debugger):
                runs.append(run)
    if pdb is not None and not any(pdb in ranks for run in runs for ranks in _raised(run)):
        console.print(f"rank {pdb} raised nothing, so there was nothing to debug", highlight=False)
    raise typer.Exit(1 if any(run.findings for run in runs) else 0)


def _raised(run: Run) -> Iterator[tuple[int, ...]]:
    return (record.ranks for record in run.findings if record.rule == "raised")


def _debugger(rank: int, scenario: Scenario, console: terminal.Screen) -> Debugger:
    """The terminal for a debugger on a rank. Raises `UsageError` where there is none, or no such rank."""
    if rank >= scenario.world:
        raise UsageError(f"--pdb {rank}: the scenario has ranks 0 to {scenario.world - 1}")
    if not sys.stdin.isatty():
        raise UsageError("--pdb needs a terminal, and stdin is none")
    return Debugger(rank, partial(terminal.say, console), sys.stdin.readline)
