"""Commands that run the harness many times over: the verdict matrix, the planted faults, the benches."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from harness import interrupts
from harness.campaign import seeds
from harness.campaign.campaign import Campaign
from harness.campaign.limits import SHRINK_SECONDS
from harness.campaign.tally import Tally
from harness.cli.ending import Outputs, at_the_end
from harness.cli.options import (
    DeadlineOption,
    JsonOption,
    JunitOption,
    ShrinkOption,
    SubstrateOption,
    TopologiesArgument,
    topologies_of,
)
from harness.nights.guide import Guide
from harness.report import data, leftovers, results, terminal, verdicts
from harness.report.speed import page, scaling
from harness.scenario.system import POOLS, Sites
from harness.strategies.flows import Tokens
from harness.studies import matrix as verdict_matrix
from harness.studies.bench import asked as asking
from harness.studies.bench import draws as draw_bench
from harness.studies.bench.by_ranks import ByRanks, ask, bench_by_ranks
from harness.studies.bench.registration import bench_registration
from harness.studies.faults.catalogue import select
from harness.studies.faults.proof import Outcome, expected, prove, sound
from harness.system.check import built_in_collectives, check_system, observed, prepare
from harness.world import environment
from harness.world.platform import Watched
from harness.world.world import World

BY_ADDRESS = (
    "Clean draws leave out a pool for each group without more, and steady state: this PyTorch chooses among equal free "
    "blocks by address, which need not lie in the same order on every rank (pytorch 178138)"
)

bench = typer.Typer(help="Measurements, each way of doing a thing in one run.")


def matrix(
    context: typer.Context,
    topology_names: TopologiesArgument = None,
    draws: Annotated[int, typer.Option(min=1, help="Draws of each cell.")] = 20,
    minutes: Annotated[float, typer.Option(min=0.01, help="Longest time for one cell, shrinking included.")] = 1.0,
    substrate: SubstrateOption = "auto",
    topology_file: Annotated[
        list[str] | None,
        typer.Option(
            "--topology", metavar="FILE", help="By file or name; repeatable. Default: the key configurations."
        ),
    ] = None,
    pool: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|module:attr", help="Pool policies; repeatable. Default: the six designs."),
    ] = None,
    sites: Annotated[Sites | None, typer.Option(help="Only these buffer sites.")] = None,
    tokens: Annotated[Tokens | None, typer.Option(help="Only these token counts.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed draws the same scenarios.")] = 0,
    seeds_dir: Annotated[Path, typer.Option(help="Where failing scenarios are kept.")] = Path("symm-seeds"),
    deadline: DeadlineOption = None,
    json_file: JsonOption = None,
    junit_file: JunitOption = None,
) -> None:
    """Buffer sites, pool designs and token counts against each other, on the flows of key configurations."""
    topology_file = topologies_of(context, topology_names, topology_file)
    outputs = Outputs(context, json_file, junit_file, topology_file)
    for name in pool or ():
        check_system(name, None)
    named = verdict_matrix.configurations(topology_file)
    chosen = verdict_matrix.cells(
        named,
        pool or POOLS,
        (sites,) if sites else verdict_matrix.SITES,
        (tokens,) if tokens else verdict_matrix.TOKENS,
    )
    seeds.check_folder(seeds_dir)
    console = terminal.Screen(stderr=json_file == "-")
    found: list[verdict_matrix.Cell] = []
    watched = Watched(observed(*(pool or ())), prepare)
    with World(max(each.world for each in named), substrate, deadline=deadline, watched=watched) as world:
        found_here = environment.describe(world)
        console.print(f"substrate {world.platform.name}: {world.platform.why}", highlight=False)

        def show() -> None:
            terminal.matrix(console, found)
            leftovers.show(console, world)

        def write() -> None:
            facts = {**data.matrix(found, found_here), "left": leftovers.data(world)}
            outputs.write(console, facts, [*map(results.of_cell, found)], seed=seed)

        with at_the_end(show, write), terminal.counting(console, "cells", len(chosen)) as advance:
            for cell in verdict_matrix.run(world, chosen, draws, minutes, seeds_dir, seed, found_here):
                found.append(cell)
                verdict = verdicts.of_cell(cell).splitlines()[0]
                advance(f"{cell.topology} {cell.sites} {cell.tokens} {cell.pool}: {verdict}")
    raise typer.Exit(1 if any(cell.found for cell in found) else 0)


def faults(
    context: typer.Context,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="ID,…", help="Only these faults, by number or name; repeatable. Default: all."),
    ] = None,
    seeds_each: Annotated[int, typer.Option("--seeds", min=1, help="Seeds with which each fault is looked for.")] = 5,
    draws: Annotated[int, typer.Option(min=1, help="Most draws with one seed.")] = 1000,
    clean: Annotated[int, typer.Option(min=0, help="Draws over what is right, after the faults.")] = 500,
    shrink_seconds: ShrinkOption = SHRINK_SECONDS,
    world: Annotated[int, typer.Option(min=2, max=64, metavar="MAX", help="Largest world to draw.")] = 8,
    substrate: SubstrateOption = "auto",
    seeds_dir: Annotated[Path, typer.Option(help="Where failing scenarios are kept.")] = Path("symm-seeds"),
    deadline: DeadlineOption = None,
    json_file: JsonOption = None,
    junit_file: JunitOption = None,
) -> None:
    """Plant every fault of the catalogue, look for each, and then look where there is none: 1 if one is missed."""
    outputs = Outputs(context, json_file, junit_file)
    chosen = select(only or ())
    seeds.check_folder(seeds_dir)
    console = terminal.Screen(stderr=json_file == "-")
    outcomes: list[Outcome] = []
    tally = Tally()
    with World(world, substrate, deadline=deadline) as ranks:
        found_here = environment.describe(ranks)
        console.print(f"substrate {ranks.platform.name}: {ranks.platform.why}", highlight=False)
        shown = [fault for fault in chosen if ranks.platform.name not in fault.not_on]
        for fault in chosen:
            if fault not in shown:
                console.print(f"{fault.id} cannot be shown here: {fault.not_on[ranks.platform.name]}", highlight=False)

        def show() -> None:
            terminal.faults(console, outcomes, tally)
            leftovers.show(console, ranks)

        def write() -> None:
            facts = {**data.faults(outcomes, tally, found_here), "left": leftovers.data(ranks)}
            sound_draws = results.of_campaign("symm.faults.clean", tally) if tally.draws else []
            outputs.write(console, facts, [*map(results.of_fault, outcomes), *sound_draws])

        with at_the_end(show, write):
            with terminal.counting(console, "faults", len(shown)) as advance:
                for outcome in prove(ranks, shown, seeds_each, draws, world, seeds_dir, shrink_seconds):
                    outcomes.append(outcome)
                    advance(f"{outcome.fault.id} {outcome.fault.name}: {verdicts.of_fault(outcome)}")
            if clean and ranks.platform.is_by_address:
                console.print(BY_ADDRESS, highlight=False)
            with terminal.progress(console, clean, "clean") as update:
                strategy = sound(world, ranks.platform.is_by_address)
                folder = seeds_dir / "clean"
                campaign = Campaign(
                    ranks,
                    strategy,
                    folder,
                    environment=found_here,
                    progress=update,
                    expected=expected,
                    guide=Guide(),
                )
                tally = campaign.tally
                campaign.run(clean)
    raise typer.Exit(0 if all(outcome.is_found for outcome in outcomes) and not tally.found else 1)


@bench.command()
def draws(
    draws: Annotated[int, typer.Option(min=10)] = 200,
    spawns: Annotated[int, typer.Option(min=1, help="Draws for which fresh ranks are spawned.")] = 3,
    substrate: SubstrateOption = "auto",
    world: Annotated[int, typer.Option(min=1, max=64, metavar="MAX")] = 4,
    steps: Annotated[int, typer.Option(min=1)] = 8,
    seed: int = 0,
    json_file: JsonOption = None,
) -> None:
    """The persistent world against spawning fresh ranks for every draw."""
    data.check_target(json_file)
    console, measured = terminal.Screen(stderr=json_file == "-"), draw_bench.Measured()

    def write() -> None:
        interrupted = {"interrupted": interrupts.has_come()}
        data.write({"schema": data.SCHEMA, **measured.as_data(), **interrupted}, json_file)

    def show() -> None:
        if rows := [*measured.rows()]:
            terminal.table(console, ("measure", "value", "goal"), rows)

    with at_the_end(show, write):
        parts = draw_bench.FIXED_PARTS + min(spawns, draws)
        with terminal.counting(console, "parts", parts) as advance:
            draw_bench.bench_draws(substrate, world, steps, draws, spawns, seed, measured, advance)


@bench.command()
def registration(
    context: typer.Context,
    topology_names: TopologiesArgument = None,
    repeats: Annotated[int, typer.Option(min=5, help="Times that each context is left.")] = 300,
    topology_file: Annotated[
        list[str] | None,
        typer.Option(
            "--topology", metavar="FILE", help="Memory over the flows of these; repeatable. Default: the key ones."
        ),
    ] = None,
    substrate: SubstrateOption = "auto",
    json_file: JsonOption = None,
) -> None:
    """What each pool design costs: leaving its context when nothing changed, and the memory it holds."""
    data.check_target(json_file)
    topology_file = topologies_of(context, topology_names, topology_file)
    named = verdict_matrix.configurations(topology_file)
    verdict_matrix.check_topologies(named)
    measured = bench_registration(substrate, named, repeats)
    if json_file != "-":
        console = terminal.Screen()
        leaving = ("pool", "segments", "allocator", "leaving, µs", "of that its own", "times deferred", "goal")
        terminal.table(console, leaving, measured.leaving_rows(), title="leaving, nothing changed")
        held = ("topology", "pool", "most held by a rank, MiB")
        terminal.table(console, held, measured.held_rows(), title="memory over flows")
    data.write({"schema": data.SCHEMA, **measured.as_data()}, json_file)


@bench.command()
def collectives(
    op: Annotated[
        list[str] | None,
        typer.Option("--op", metavar="|".join(asking.OPS), help="Repeatable. Default: all_gather and reduce_scatter."),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(
            metavar="LIST|RANGE",
            help="Bytes that a rank contributes: 1K,1M, or 1K:256M by powers of four, or 1K:256M:2 by powers of two. "
            f"Default: {asking.SIZES}, and {asking.SIM_SIZES} on sim.",
        ),
    ] = None,
    dtype: asking.Dtype = "bfloat16",
    world: Annotated[
        str | None,
        typer.Option(
            metavar="N|LIST",
            help="Ranks, or several numbers of them: 2,4,8 measures each and how times grow. "
            "Default: one a GPU, and at least two.",
        ),
    ] = None,
    plugins: Annotated[
        list[str] | None,
        typer.Option(
            "--collectives", metavar="NAME|module:attr", help="Kernels of yours beside the built-in ones; repeatable."
        ),
    ] = None,
    substrate: SubstrateOption = "auto",
    json_file: JsonOption = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write tables and plots as one page.")
    ] = None,
) -> None:
    """The library, PyTorch, kernels under test and copies, over sizes and ranks: 1 if one gives wrong data or fails."""
    data.check_target(json_file)
    if html_file is not None:
        data.check_target(str(html_file))
    ops = asking.ops_of(op or ("all_gather", "reduce_scatter"))
    given = None if sizes is None else asking.sizes_of(sizes, dtype)
    worlds = [asking.default_world(substrate)] if world is None else asking.worlds_of(world)
    for name in plugins or ():
        check_system(None, name)
    names = [*dict.fromkeys([*built_in_collectives(), *(plugins or ())])]
    console = terminal.Screen(stderr=json_file == "-")
    asked = ask(substrate, worlds, ops, dtype, given, names)
    found = ByRanks(asked)

    def say(line: str) -> None:
        console.print(terminal.plain(line), highlight=False)

    def write() -> None:
        if not found.tables:  # no rank has started
            return
        facts = {"schema": data.SCHEMA, "command": shlex.join(["symm", *sys.argv[1:]]), **found.as_data()}
        data.write(facts, json_file)
        if html_file is not None:
            seeds.write_whole(html_file, page.page(found, facts["command"]).encode())

    bar = terminal.counting(console, "cells", asked.cells)
    with at_the_end(lambda: scaling.show(console, found), write), bar as advance:
        bench_by_ranks(found, say, advance)
    raise typer.Exit(0 if found.is_right else 1)
