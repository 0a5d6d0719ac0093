"""`symm fuzz`: draw, run, judge and shrink, and show what was found however the command ends."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from harness import interrupts
from harness.campaign import seeds
from harness.campaign.campaign import Campaign
from harness.campaign.limits import MORE, SHRINK_SECONDS, Limits
from harness.campaign.tally import Tally
from harness.cli import dry
from harness.cli.ending import at_the_end
from harness.cli.nights.tonight import ShardOption, Tonight, tonight
from harness.cli.options import (
    CollectivesOption,
    DeadlineOption,
    EvidenceOption,
    JsonOption,
    OutputOption,
    PoolOption,
    ShrinkOption,
    SitesOption,
    SubstrateOption,
    TracebackOption,
)
from harness.cli.request import Request
from harness.errors import UsageError
from harness.nights.folder import RunFolder
from harness.nights.refreshing import Refreshing
from harness.report import data, leftovers, terminal
from harness.scenario.steps import STREAMS
from harness.strategies.flows import Tokens
from harness.strategies.programs import HAZARDS
from harness.strategies.topologies import LARGER
from harness.system.check import fallbacks, observed, prepare
from harness.world import environment
from harness.world.platform import Watched
from harness.world.world import World

DRAWS = f"Default 300, and at most {MORE} after a first finding. No limit with --minutes, unless given."
MINUTES = "Draw for so long, whatever is found. A finding is shrunk once."
USUAL = 8
SEEDS = Path("symm-seeds")
UNDER_WAY = {"interrupted": True, "ended": None}
"""What the facts of a run say until it ends, since it may be killed at any time."""
WORLD = (
    f"Largest world to draw. Default: {USUAL}, and on sim a share of free programs of {min(LARGER)} and {max(LARGER)}."
)
DRY = "Draw the same scenarios, run none, and say what they hold, in histograms. No rank starts."
SCHEDULES = "Run each draw N times, ranks taking turns by another schedule each, and look for races. On sim alone."
RUN = "Keep all of this run in DIR: run.json, written every few seconds, and seeds/."
HAZARDOUS = "Also draw what even a right system may not survive without agreement between ranks; repeatable."


def fuzz(
    draws: Annotated[int | None, typer.Option(min=1, help=DRAWS)] = None,
    minutes: Annotated[float | None, typer.Option(min=0.001, help=MINUTES)] = None,
    substrate: SubstrateOption = "auto",
    world: Annotated[int | None, typer.Option(min=1, max=64, metavar="MAX", help=WORLD)] = None,
    topology_file: Annotated[
        list[str] | None,
        typer.Option("--topology", metavar="FILE", help="Draw only these, by file or name; repeatable."),
    ] = None,
    pool: PoolOption = None,
    collectives: CollectivesOption = None,
    seed: Annotated[
        int | None,
        typer.Option(help="The same seed draws the same scenarios. Default: 0, and one for all shards of a night."),
    ] = None,
    shard: ShardOption = None,
    run_dir: Annotated[Path | None, typer.Option("--run", metavar="DIR", help=RUN)] = None,
    seeds_dir: Annotated[
        Path | None,
        typer.Option(help="Where failing scenarios are kept. Default: symm-seeds, or DIR/seeds with --run."),
    ] = None,
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
    same_order: Annotated[
        bool,
        typer.Option("--same-order", help="Give all ranks their segments in one order of addresses. Only sim chooses."),
    ] = False,
    schedules: Annotated[int, typer.Option(min=0, metavar="N", help=SCHEDULES)] = 0,
    nodes: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Place layouts on N nodes of MAX/N ranks. Default: as named; on nccl one.",
        ),
    ] = None,
    nvlink_domain: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Place layouts in NVLink domains of N ranks: a part of a node, or whole nodes. Default: a node.",
        ),
    ] = None,
    is_dry: Annotated[bool, typer.Option("--dry", help=DRY)] = False,
    shrink_seconds: ShrinkOption = SHRINK_SECONDS,
    evidence: EvidenceOption = None,
    deadline: DeadlineOption = None,
    traceback: TracebackOption = False,
    show_output: OutputOption = False,
    json_file: JsonOption = None,
) -> None:
    """Draw layouts and programs, run them, and shrink what fails."""
    data.check_target(json_file, topology_file or ())
    is_larger = world is None and not topology_file and (flow, nodes, nvlink_domain) == (None, None, None)
    request = Request(
        world=world or USUAL,
        larger=is_larger,
        topology=topology_file or (),
        pool=pool,
        collectives=collectives,
        sites=sites,
        flow=flow,
        tokens=tokens,
        hazard=hazards or (),
        graphs=graphs,
        streams=streams,
        same_order=same_order,
        nodes=nodes,
        nvlink_domain=nvlink_domain,
    )
    night, folder = tonight(shard, seed), _folder(run_dir, seeds_dir, is_dry)
    kept = folder.seeds if folder else seeds_dir or SEEDS
    console = terminal.Screen(stderr=json_file == "-")
    limit = night.part(draws if draws is not None or minutes is not None else 300)
    largest = max(LARGER) if is_larger else 0
    if is_dry:
        unstarted = dry.Unstarted.on(substrate, request.world, largest, evidence or ())
        dry.run(console, request, unstarted, limit, night, json_file)
        return
    seeds.check_folder(kept)
    watched = Watched(observed(pool), prepare, fallbacks(collectives))
    with World(
        request.world, substrate, largest=largest, deadline=deadline, evidence=evidence or (), watched=watched
    ) as ranks:
        if schedules and ranks.platform.name != "sim":
            raise UsageError("--schedules needs --substrate sim: ranks on GPUs take no turns")
        found_here = environment.describe(ranks)
        console.print(f"substrate {ranks.platform.name}: {ranks.platform.why}", highlight=False)
        for line in filter(None, (request.not_shown(ranks), *night.lines)):
            console.print(line, highlight=False)
        limits = Limits().within(shrink_seconds)
        if minutes is not None:
            limits = limits.to_the_end()
        campaign = Campaign(
            ranks,
            request.strategy(ranks),
            kept,
            seed=night.seed,
            batches=night.shard.batches if night.shard else None,
            environment=found_here,
            limits=limits,
            schedules=schedules,
        )
        details = terminal.Details(traceback, show_output)
        tally = _run(campaign, limit, minutes, console, details, json_file, found_here, night, folder)
    if tally.draws and tally.vacuous == tally.draws and not tally.found:
        raise UsageError("nothing was tested: every draw was vacuous")
    if request.collectives not in (None, "library") and tally.draws and not tally.by_kernel and not tally.found:
        refused = f", {tally.unsupported} of which they do not support" if tally.unsupported else ""
        raise UsageError(
            f"nothing was tested: collectives {request.collectives!r} ran 0 of {tally.kernel_calls} calls{refused}"
        )
    raise typer.Exit(1 if tally.found else 0)


def _folder(run_dir: Path | None, seeds_dir: Path | None, is_dry: bool) -> RunFolder | None:
    """Where the run is kept, if it is to be."""
    if run_dir is None:
        return None
    if is_dry:
        raise UsageError("--run keeps a run, and --dry makes none")
    if seeds_dir is not None:
        raise UsageError("--seeds-dir does not go with --run, which keeps seed files in DIR/seeds")
    return RunFolder(run_dir)


def _run(
    campaign: Campaign,
    draws: int | None,
    minutes: float | None,
    console: Console,
    details: terminal.Details,
    json_file: str | None,
    environment: dict[str, Any],
    night: Tonight,
    folder: RunFolder | None,
) -> Tally:
    """Run a campaign, then show and write what it found, also after Ctrl-C or where a plug-in has not its shape."""

    def says_all() -> bool:
        """Whether the command ends with a sentence, and there is nothing beside it."""
        return isinstance(sys.exception(), UsageError) and not campaign.tally.found and not interrupts.has_come()

    def facts(*, is_over: bool) -> dict[str, Any]:
        found = data.fuzz(campaign.tally, campaign.world, environment, night.seed, night.shard)
        return found | ({"interrupted": interrupts.has_come()} if is_over else UNDER_WAY)

    def keep(*, is_over: bool) -> None:
        if folder is not None:
            data.write(facts(is_over=is_over), str(folder.run))

    def write() -> None:
        if not says_all():
            keep(is_over=True)
            data.write(facts(is_over=True), json_file)

    def show() -> None:
        if says_all():
            return
        lines = campaign.keep_under_way() if interrupts.has_come() else ""  # before anything that might fail
        terminal.summary(console, campaign.tally, details)
        leftovers.show(console, campaign.world)
        if lines:
            console.print(terminal.plain(lines), highlight=False, soft_wrap=True)

    with at_the_end(show, write), terminal.progress(console, draws) as advance:
        campaign.progress = Refreshing(lambda: keep(is_over=False), advance)
        campaign.progress(campaign.tally)
        campaign.run(draws, minutes)
    return campaign.tally
