"""`symm replay`: run a seed's scenario again, and show in how many runs it still fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from harness.campaign import seeds
from harness.campaign.limits import SHRINK_SECONDS
from harness.campaign.replay import Run, annotate, smaller, with_system, with_systems
from harness.campaign.replay import replay as run_again
from harness.campaign.seeds import Seed
from harness.cli.ending import Outputs, at_the_end
from harness.cli.options import (
    CollectivesOption,
    DeadlineOption,
    EvidenceOption,
    JsonOption,
    JunitOption,
    OutputOption,
    ShrinkOption,
    SubstrateOption,
    TracebackOption,
)
from harness.errors import UsageError
from harness.oracle.judge import judge
from harness.report import data, leftovers, results, terminal, verdicts
from harness.report.results import Result
from harness.scenario.scenario import Scenario
from harness.scenario.system import Sites
from harness.studies.systems import Tried, as_data, compare
from harness.system.check import check_system, fallbacks, observed, prepare
from harness.world import environment
from harness.world.hosts.gathering import Gathered, gathered
from harness.world.platform import Watched
from harness.world.watch import Debugger
from harness.world.world import World

POOLS = "The pool policy in place of the seed's. Several are shown beside each other."
SHRINK = "Make the scenario smaller, and keep the smallest case that still fails as a seed file."
NOTE = "Keep this text in the seed file; replay and show print it."


def replay(
    context: typer.Context,
    seed_file: Annotated[str, typer.Argument(metavar="SEED", help="A file, or the name of one that ships here.")],
    times: Annotated[int, typer.Option(min=1, help="Runs; a race fails in some only.")] = 1,
    substrate: SubstrateOption = "auto",
    pools: Annotated[list[str] | None, typer.Option("--pool", metavar="NAME|module:attr", help=POOLS)] = None,
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
    shrink: Annotated[bool, typer.Option("--shrink", help=SHRINK)] = False,
    shrink_seconds: ShrinkOption = SHRINK_SECONDS,
    seeds_dir: Annotated[Path, typer.Option(help="Where --shrink keeps the smaller case.")] = Path("symm-seeds"),
    note: Annotated[str | None, typer.Option(metavar="TEXT", help=NOTE)] = None,
    json_file: JsonOption = None,
    junit_file: JunitOption = None,
) -> None:
    """Run a seed file's scenario again: 1 if it still fails, 0 if not."""
    outputs = Outputs(context, json_file, junit_file, [seed_file])
    named = tuple(dict.fromkeys(pools or ()))
    pool = named[0] if named else None
    _check_together(seed_file, shrink, named, times, pdb)
    seed = _noted(seed_file, note)
    *before, scenario = with_systems(seed.scenarios, pool, collectives, sites)
    for system in dict.fromkeys(each.system for each in (*before, scenario)):
        if not allow_plugins:
            seeds.check_plug_ins(seed_file, system, (*named, collectives))
        check_system(system.pool, system.collectives)
    for other in named[1:]:
        check_system(other, None)
    systems = [each.system for each in (*before, scenario)]
    watched = Watched(
        observed(*(each.pool for each in systems), *named), prepare, fallbacks(*(each.collectives for each in systems))
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
        for line in _about(world, around, seed, scenario, len(before)):
            console.print(terminal.plain(line), highlight=False)

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

        if len(named) > 1:
            raise typer.Exit(_beside(world, scenario, named, console, outputs))
        if shrink:
            changed = msgspec.structs.replace(seed, scenario=scenario)
            raise typer.Exit(_shrink(world, changed, seeds_dir, shrink_seconds, console, outputs))
        with at_the_end(show, write):
            for run in run_again(world, scenario, times, before, debugger):
                runs.append(run)
    if pdb is not None and not any(pdb in ranks for run in runs for ranks in _raised(run)):
        console.print(f"rank {pdb} raised nothing, so there was nothing to debug", highlight=False)
    raise typer.Exit(1 if any(run.findings for run in runs) else 0)


def _about(world: World, around: Gathered | None, seed: Seed, scenario: Scenario, before: int) -> Iterator[str]:
    """What to know before a seed runs."""
    if around is not None:
        yield f"hosts: {around.where}"
    if line := world.platform.not_shown(scenario.topology.joins_nodes):
        yield line
    if scenario.scheduled is not None and world.platform.name != "sim":
        yield "the seed has a schedule, which ranks on GPUs do not follow"
    if seed.note:
        yield f"note: {seed.note}"
    if before:
        yield f"draws before each run, on fresh ranks: {before}"


def _check_together(seed_file: str, shrink: bool, pools: tuple[str, ...], times: int, pdb: int | None) -> None:
    """Raise `UsageError` for options that do not go together."""
    alone = "--shrink" if shrink else "several --pool" if len(pools) > 1 else ""
    for option, is_given in (("--times", times > 1), ("--pdb", pdb is not None), ("several --pool", len(pools) > 1)):
        if alone and is_given and option != alone:
            raise UsageError(f"{alone} does not go with {option}")
    if alone and seeds.find(seed_file).preceded_by:
        raise UsageError(f"{alone} needs a scenario that fails alone; seed {seed_file} fails after other draws only")


def _noted(seed_file: str, note: str | None) -> Seed:
    """The seed, with a note written into its file where one is given."""
    seed = seeds.find(seed_file)
    if note is None:
        return seed
    if not Path(seed_file).exists():
        raise UsageError(f"--note is kept in a seed file, and seed {seed_file!r} ships with the harness")
    annotate(Path(seed_file), note)
    return seeds.find(seed_file)


def _beside(
    world: World, scenario: Scenario, pools: tuple[str, ...], console: terminal.Screen, outputs: Outputs
) -> int:
    """Run the scenario with each pool, show them beside each other, and return the status."""
    own = world.run(scenario)
    found = tuple(finding.record() for finding in judge(own))
    others = ((pool, with_system(scenario, pool=pool)) for pool in pools[1:])
    tried = [Tried(pools[0], own, found), *compare(world, own, others, hurried=False)]
    rows = [(each.system, verdicts.of_system(each), verdicts.first_difference(each, pools[0])) for each in tried]
    terminal.table(console, ("pool", "verdict", "first difference"), rows)
    facts = {"schema": data.SCHEMA, "pools": [*map(as_data, tried)], "environment": environment.describe(world)}
    outcome = [results.of_run(each.system, 1, Run([*each.findings], ()), scenario) for each in tried]
    outputs.write(console, facts, outcome, seed=scenario.seed)
    return int(any(each.findings for each in tried))


def _shrink(world: World, seed: Seed, folder: Path, seconds: float, console: terminal.Screen, outputs: Outputs) -> int:
    """Make the seed's scenario smaller, show the smallest case, and return the status."""
    seeds.check_folder(folder)
    found_here = environment.describe(world)
    found = smaller(world, seed, folder, found_here, seconds)
    if found is None:
        console.print("it did not fail, so there is nothing to shrink", highlight=False)
    else:
        terminal.finding(console, found.finding, found.scenario)
        size, was = terminal.size(found.scenario), terminal.size(seed.scenario)
        again = seeds.command(found.seed_file, found.scenario.system)
        console.print(
            terminal.plain(f"  shrunk from {was} to {size}\n  replay: {again}"), highlight=False, soft_wrap=True
        )
    kept = None if found is None else found.seed_file
    facts = {"schema": data.SCHEMA, "seed_file": kept, "finding": found and found.finding, "environment": found_here}
    kind = f"symm.replay.{seed.scenario.system.pool}"
    outcome = [*results.of_found(kind, [found] if found else [])] or [Result(kind, "shrink")]
    outputs.write(console, facts, outcome, seed=seed.scenario.seed)
    return int(found is not None)


def _raised(run: Run) -> Iterator[tuple[int, ...]]:
    return (record.ranks for record in run.findings if record.rule == "raised")


def _debugger(rank: int, scenario: Scenario, console: terminal.Screen) -> Debugger:
    """The terminal for a debugger on a rank. Raises `UsageError` where there is none, or no such rank."""
    if rank >= scenario.world:
        raise UsageError(f"--pdb {rank}: the scenario has ranks 0 to {scenario.world - 1}")
    if not sys.stdin.isatty():
        raise UsageError("--pdb needs a terminal, and stdin is none")
    return Debugger(rank, partial(terminal.say, console), sys.stdin.readline)
