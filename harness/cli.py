"""The command line: `symm fuzz`, `replay`, `show`, `topologies`, `doctor`; `harness.studies` has the longer ones.

Invariant: exit status 0 when nothing was found, 1 with findings, 2 with one clear sentence when the
request or the machine is wrong, 130 on Ctrl-C. Nothing is decided here; every command calls a room.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.strategies import SearchStrategy
from rich.console import Console

from harness import environment, interrupts, seeds, studies, topology
from harness.arguments import (
    CollectivesOption,
    DeadlineOption,
    EvidenceOption,
    JsonOption,
    PoolOption,
    ShrinkOption,
    SitesOption,
    SubstrateOption,
)
from harness.campaign import Campaign, Limits
from harness.doctor import examine
from harness.errors import MachineError, UsageError
from harness.layers import check_flow
from harness.program import STREAMS, Sites, System
from harness.replay import replay as run_again
from harness.replay import with_system
from harness.report import data, terminal
from harness.strategies import (
    HAZARDS,
    WITH_GRAPHS,
    Tokens,
    Via,
    applies,
    check_nodes,
    check_world,
    flows,
    on_nodes,
    scenarios,
    topologies,
)
from harness.systems import check_system
from harness.tally import Tally
from harness.topology import Topology
from harness.world import World

INTERRUPTED = 130
SHRINK_SECONDS = Limits().seconds
DRAWS = f"Default 300, or no limit with --minutes. After a first finding at most {Limits().more} more."
HAZARDOUS = "Also draw what even a right system may not survive without agreement between ranks; repeatable."
SMALLEST = 2
"""Ranks that a layer's communication needs."""

app = typer.Typer(
    name="symm",
    pretty_exceptions_enable=False,
    help="Property tests for collectives over NCCL symmetric memory.",
)
app.command()(studies.matrix)
app.command()(studies.agree)
app.command()(studies.faults)
app.add_typer(studies.bench, name="bench")

_OptionError: Any = typer.BadParameter.__mro__[2]
"""click's `ClickException`, which typer carries inside itself from 0.26 on and takes from click before."""


@app.command()
def fuzz(
    draws: Annotated[int | None, typer.Option(min=1, help=DRAWS)] = None,
    minutes: Annotated[float | None, typer.Option(min=0.001)] = None,
    substrate: SubstrateOption = "auto",
    world: Annotated[int, typer.Option(min=1, max=64, metavar="MAX", help="Largest world to draw.")] = 8,
    topology_file: Annotated[
        list[str] | None,
        typer.Option("--topology", metavar="FILE", help="Draw only these, by file or name; repeatable."),
    ] = None,
    pool: PoolOption = None,
    collectives: CollectivesOption = None,
    seed: Annotated[int, typer.Option(help="The same seed draws the same scenarios.")] = 0,
    seeds_dir: Annotated[Path, typer.Option(help="Where failing scenarios are kept.")] = Path("symm-seeds"),
    flow: Annotated[
        str | None, typer.Option(metavar="NAME|all", help="Draw the flows around a layer instead of free programs.")
    ] = None,
    tokens: Annotated[
        Tokens,
        typer.Option(help="Whether flows pad: as the engine would, always, or only the last batch."),
    ] = "engine",
    sites: SitesOption = "explicit",
    hazards: Annotated[list[str] | None, typer.Option("--hazard", metavar="|".join(HAZARDS), help=HAZARDOUS)] = None,
    graphs: Annotated[bool, typer.Option("--graphs", help="Also draw graphs, captured and replayed.")] = False,
    streams: Annotated[
        int, typer.Option(min=1, max=STREAMS, metavar="N", help="Allocate and run on up to N streams, chosen by step.")
    ] = 1,
    nodes: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Place layouts on N nodes of MAX/N ranks. Default: as named; on nccl one.",
        ),
    ] = None,
    shrink_seconds: ShrinkOption = SHRINK_SECONDS,
    evidence: EvidenceOption = None,
    deadline: DeadlineOption = None,
    json_file: JsonOption = None,
) -> None:
    """Draw layouts and programs, run them, and shrink what fails."""
    data.check_target(json_file)
    system, via = _system(pool, collectives, sites)
    _check_flow(flow, tokens, hazards, world)
    if graphs and (flow is not None or hazards):
        raise UsageError("--graphs goes with free programs, and not with --flow or --hazard")
    if streams > 1 and flow is not None:
        raise UsageError("--streams goes with free programs, and not with --flow")
    for hazard in hazards or ():
        if hazard not in HAZARDS:
            raise UsageError(f"hazard {hazard!r} is not one of {', '.join(HAZARDS)}")
    layouts = _layouts(topology_file, world, flow, tokens)
    if nodes is not None:
        check_nodes(nodes, world)
    seeds.check_folder(seeds_dir)
    console = Console(stderr=json_file == "-")
    limit = draws if draws is not None or minutes is not None else 300
    with World(world, substrate, deadline=deadline, evidence=evidence or ()) as ranks:
        facts = environment.describe(ranks)
        console.print(f"substrate {ranks.platform.name}: {ranks.platform.why}", highlight=False)
        via = _possible(via, ranks)
        if flow is None:
            strategy = scenarios(
                world,
                topologies=layouts,
                system=system,
                hazards=hazards or (),  # type: ignore[arg-type]
                via=via,
                max_steps=WITH_GRAPHS if graphs else 16,
                graphs=graphs,
                streams=streams,
            )
        else:
            strategy = flows(world, flow=flow, tokens=tokens, topologies=layouts, system=system, via=via)
        if nodes is not None or ranks.platform.node_bound:
            strategy = on_nodes(strategy, world, nodes or 1)
        limits = Limits().within(shrink_seconds)
        campaign = Campaign(ranks, strategy, seeds_dir, seed=seed, environment=facts, limits=limits)
        tally = _run(campaign, limit, minutes, console, json_file, facts)
    if tally.draws and tally.vacuous == tally.draws and not tally.found:
        raise UsageError(f"nothing was tested: all {tally.draws} draws were vacuous")
    raise typer.Exit(1 if tally.found else 0)


def _run(
    campaign: Campaign,
    draws: int | None,
    minutes: float | None,
    console: Console,
    json_file: str | None,
    facts: dict[str, Any],
) -> Tally:
    """Run a campaign and tell what came of it; with Ctrl-C, or where a plug-in raises, what was found until then."""
    try:
        with terminal.progress(console, draws) as campaign.progress:
            campaign.run(draws, minutes)
    finally:
        if campaign.tally.found or not isinstance(sys.exception(), UsageError):
            terminal.summary(console, campaign.tally)
            data.write(data.fuzz(campaign.tally, campaign.world, facts), json_file)
    return campaign.tally


@app.command()
def replay(
    seed_file: Annotated[str, typer.Argument(metavar="SEED")],
    times: Annotated[int, typer.Option(min=1)] = 1,
    substrate: SubstrateOption = "auto",
    pool: PoolOption = None,
    collectives: CollectivesOption = None,
    sites: Annotated[Sites | None, typer.Option(help="Buffer sites in place of the seed's.")] = None,
    evidence: EvidenceOption = None,
    deadline: DeadlineOption = None,
    json_file: JsonOption = None,
) -> None:
    """Run a seed file's scenario again: 1 if it still fails, 0 if not."""
    data.check_target(json_file)
    scenario = with_system(seeds.load(seed_file).scenario, pool, collectives, sites)
    check_system(scenario.system.pool, scenario.system.collectives)
    console = Console(stderr=json_file == "-")
    runs = []
    with World(scenario.world, substrate, deadline=deadline, evidence=evidence or ()) as world:
        facts = environment.describe(world)
        console.print(f"substrate {world.platform.name}: {world.platform.why}", highlight=False)
        for findings in run_again(world, scenario, times):
            runs.append([finding.record() for finding in findings])
    failed = [records for records in runs if records]
    for record in failed[0] if failed else ():
        terminal.finding(console, record, scenario)
    console.print(f"{len(failed)} of {times} runs failed", highlight=False)
    data.write({"schema": data.SCHEMA, "runs": runs, "failed": len(failed), "environment": facts}, json_file)
    raise typer.Exit(1 if failed else 0)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="TOPOLOGY", help="A file, or the name of one that ships here.")],
    json_file: JsonOption = None,
) -> None:
    """Print a topology's families."""
    data.check_target(json_file)
    shown = topology.find(name)
    if json_file != "-":
        terminal.topology(Console(), shown)
    data.write(data.topology(shown), json_file)


@app.command(name="topologies")
def list_topologies(json_file: JsonOption = None) -> None:
    """List the named topologies."""
    data.check_target(json_file)
    loaded = [topology.load(path) for path in topology.named().values()]
    if json_file != "-":
        rows = [(t.name, t.convention, str(t.world), str(len(set(t.node_of))), t.note) for t in loaded]
        terminal.table(Console(), ("name", "convention", "ranks", "nodes", "note"), rows)
    data.write({"schema": data.SCHEMA, "topologies": [data.topology(t) for t in loaded]}, json_file)


@app.command()
def doctor(json_file: JsonOption = None) -> None:
    """Say what this machine can run, and why not more."""
    data.check_target(json_file)
    found = examine()
    if json_file != "-":
        terminal.table(Console(), ("what", "found", "means"), ((row.what, row.found, row.means) for row in found.rows))
    data.write({"schema": data.SCHEMA, "environment": found.environment, "checks": found.rows}, json_file)


def _system(pool: str | None, collectives: str | None, sites: Sites) -> tuple[System, Via]:
    """The system under test that the options name, and the way its collectives go."""
    check_system(pool, collectives)
    system = System(pool or System().pool, sites=sites)
    if collectives is None:
        return system, "mixed"
    if collectives == "library":
        return system, "library"
    return msgspec.structs.replace(system, collectives=collectives), "kernel"


def _check_flow(flow: str | None, tokens: Tokens, hazards: list[str] | None, world: int) -> None:
    """Options that go with flows, and those that do not."""
    if flow is not None:
        check_flow(flow)
        if world < SMALLEST:
            raise UsageError(f"flows need a world of at least {SMALLEST} ranks, not {world}")
        check_world(flow, tokens, world)
    if flow is None and tokens != "engine":
        raise UsageError("--tokens goes with --flow; free programs have no batches")
    if flow is not None and hazards:
        raise UsageError("--hazard goes with free programs, not with --flow")


def _layouts(files: list[str] | None, world: int, flow: str | None, tokens: Tokens) -> SearchStrategy[Topology] | None:
    """The named topologies, or all; None leaves it to the flows, which draw what they can run on."""
    named = [topology.find(name) for name in files] if files else None
    if flow is None:
        return topologies(world, named)
    if named is None:
        return None
    if not any(applies(flow, each, tokens) for each in named):
        uneven = " with uneven tokens" if tokens == "uneven" else ""
        raise UsageError(
            f"flow {flow!r}{uneven} has nothing to communicate on {', '.join(repr(t.name) for t in named)}"
        )
    return topologies(world, named)


def _possible(via: Via, world: World) -> Via:
    """Without peer pointers (NCCL before 2.29.2) there are no kernel collectives to draw."""
    if world.facts.get("kernels", True) or via == "library":
        return via
    if via == "kernel":
        raise MachineError(f"NCCL {world.facts['nccl_loaded']} gives kernels no peer pointers; 2.29.2 does")
    return "library"


def _run_command() -> object:
    """The status of the command that was asked for. Raises `KeyboardInterrupt` after Ctrl-C, whatever became of it."""
    try:
        status = app(standalone_mode=False)
    except Exception:
        interrupts.check()
        raise
    interrupts.check()
    return status


def main() -> None:
    """Entry point: turns every expected error into one sentence and its exit status."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    set_hypothesis_home_dir(cache / "symm-harness")  # or it leaves a folder wherever the command runs
    interrupts.heed()
    try:
        status = _run_command()
    except (UsageError, _OptionError) as error:
        text = error.format_message() if isinstance(error, _OptionError) else str(error)
        sys.stderr.write(f"symm: {' '.join(text.split())}\n")
        status = 2
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except (SystemExit, OSError) as error:  # typer makes the former of a closed pipe
        if isinstance(error, OSError) and error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EIO):
            raise
        why = error.strerror if isinstance(error, OSError) else "nobody reads it any more"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
        sys.stderr.write(f"symm: cannot write to stdout: {why}\n")
        status = 2
    except Exception:  # a mistake in the harness must not read as a finding
        traceback.print_exc()
        sys.stderr.write("symm: this is a mistake in the harness; please report it with the lines above\n")
        status = 2
    if status == INTERRUPTED:  # typer makes it of Ctrl-C by itself, from some version on
        sys.stderr.write("symm: interrupted\n")
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
