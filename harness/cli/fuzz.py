"""`symm fuzz`: draw, run, judge and shrink, and show what was found however the command ends."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.campaign.campaign import Campaign
from harness.campaign.limits import MORE, SHRINK_SECONDS, Limits
from harness.cli import dry
from harness.cli.ending import Outputs
from harness.cli.nights.keeping import SEEDS, keeping
from harness.cli.nights.night import Night
from harness.cli.nights.tonight import ShardOption, tonight
from harness.cli.options import (
    CollectivesOption,
    DeadlineOption,
    EvidenceOption,
    JsonOption,
    JunitOption,
    OutputOption,
    PoolOption,
    SeedOption,
    ShrinkOption,
    SitesOption,
    SubstrateOption,
    TopologiesArgument,
    TopologyOption,
    TracebackOption,
    topologies_of,
)
from harness.cli.request import Request
from harness.errors import UsageError
from harness.nights.guide import MUTATIONS, Guide
from harness.report import terminal
from harness.report.nights import news
from harness.scenario.steps import STREAMS
from harness.strategies.flows import Tokens
from harness.strategies.programs import HAZARDS
from harness.strategies.topologies import LARGER
from harness.system.check import fallbacks, observed, prepare
from harness.world import environment
from harness.world.hosts.gathering import gathered
from harness.world.platform import Watched
from harness.world.world import World

DRAWS = f"Default 300, and at most {MORE} after a first finding. No limit with --minutes, unless given."
MINUTES = "Draw for so long, whatever is found. A finding is shrunk once."
USUAL = 8
KNOWN = (
    "Seed files of known findings. Some are run again first; then the hunt goes past them. Known ones alone end with 0."
)
RUN = "Keep all of this run in DIR: run.json, written every few seconds, seeds/ and corpus/."
WORLD = (
    f"Largest world to draw. Default: {USUAL}, and on sim a share of free programs of {min(LARGER)} and {max(LARGER)}."
)
DRY = "Draw the same scenarios, run none, and say what they hold, in histograms. No rank starts."
SCHEDULES = "Run each draw N times, ranks taking turns by another schedule each, and look for races. On sim alone."
CORPUS = "Keep scenarios that reached a new state of the oracle, and try those of earlier runs first."
OBSERVATIONS = "Write one observation a draw, in Hypothesis's format, for tools such as Tyche."
UNGUIDED = "Draw what --dry shows, and change nothing that reached rare states."
HTML = "Write a report as one page, each finding with pictures of one more run."
HAZARDOUS = "Also draw what even a right system may not survive without agreement between ranks; repeatable."


def fuzz(
    context: typer.Context,
    topology_names: TopologiesArgument = None,
    draws: Annotated[int | None, typer.Option(min=1, help=DRAWS)] = None,
    minutes: Annotated[float | None, typer.Option(min=0.001, help=MINUTES)] = None,
    substrate: SubstrateOption = "auto",
    world: Annotated[int | None, typer.Option(min=1, max=64, metavar="MAX", help=WORLD)] = None,
    topology_file: TopologyOption = None,
    pool: PoolOption = None,
    collectives: CollectivesOption = None,
    seed: SeedOption = None,
    shard: ShardOption = None,
    run_dir: Annotated[Path | None, typer.Option("--run", metavar="DIR", help=RUN)] = None,
    seeds_dir: Annotated[
        Path | None,
        typer.Option(help=f"Where failing scenarios are kept. Default: {SEEDS}, or DIR/seeds with --run."),
    ] = None,
    known: Annotated[Path | None, typer.Option("--known", metavar="DIR", help=KNOWN)] = None,
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
    corpus_dir: Annotated[Path | None, typer.Option("--corpus", metavar="DIR", help=CORPUS)] = None,
    observations_dir: Annotated[Path | None, typer.Option("--observations", metavar="DIR", help=OBSERVATIONS)] = None,
    is_unguided: Annotated[bool, typer.Option("--no-guide", help=UNGUIDED)] = False,
    is_dry: Annotated[bool, typer.Option("--dry", help=DRY)] = False,
    shrink_seconds: ShrinkOption = SHRINK_SECONDS,
    evidence: EvidenceOption = None,
    deadline: DeadlineOption = None,
    traceback: TracebackOption = False,
    show_output: OutputOption = False,
    html: Annotated[str | None, typer.Option(metavar="FILE", help=HTML)] = None,
    json_file: JsonOption = None,
    junit_file: JunitOption = None,
) -> None:
    """Draw layouts and programs, run them, and shrink what fails."""
    around = None if is_dry else gathered()
    if around is not None:
        world, nodes = around.sized(world, nodes)
    topology_file = topologies_of(context, topology_names, topology_file)
    outputs = Outputs(context, json_file, junit_file, topology_file, html)
    is_larger = world is None and not topology_file and (flow, nodes, nvlink_domain) == (None, None, None)
    request = Request(
        world=world or USUAL,
        larger=is_larger,
        topology=topology_file,
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
    night, kept = tonight(shard, seed), keeping(run_dir, seeds_dir, known, corpus_dir, observations_dir, is_dry)
    console = terminal.Screen(stderr="-" in (json_file, html))
    limit = night.part(draws if draws is not None or minutes is not None else 300)
    largest = max(LARGER) if is_larger else 0
    if is_dry:
        unstarted = dry.Unstarted.on(substrate, request.world, largest, evidence or ())
        dry.run(console, request, unstarted, limit, night, json_file)
        return
    kept.check()
    watched = Watched(observed(pool), prepare, fallbacks(collectives))
    with World(
        request.world,
        substrate,
        largest=largest,
        deadline=deadline,
        evidence=evidence or (),
        watched=watched,
        over=around and around.over,
    ) as ranks:
        if schedules and ranks.platform.name != "sim":
            raise UsageError("--schedules needs --substrate sim: ranks on GPUs take no turns")
        found_here = environment.describe(ranks)
        console.print(f"substrate {ranks.platform.name}: {ranks.platform.why}", highlight=False)
        hosts = None if around is None else f"hosts: {around.where}"
        for line in filter(None, (hosts, request.not_shown(ranks), *night.lines)):
            console.print(line, highlight=False)
        news.unread(console, kept.known)
        limits = Limits().within(shrink_seconds)
        if minutes is not None:
            limits = limits.to_the_end()
        guide = Guide(
            night.guide_seed,
            corpus=kept.opened_corpus(lambda scenario: request.adapted(scenario, ranks), found_here),
            draws=limit,
            minutes=minutes,
            mutations=0 if is_unguided else MUTATIONS,
            is_free=flow is None,
            observe=kept.observer,
            tries=night.tries,
            reachable=request.reachable(ranks),
        )
        campaign = Campaign(
            ranks,
            request.strategy(ranks),
            kept.seeds,
            seed=night.seed,
            batches=night.batches,
            environment=found_here,
            limits=limits,
            schedules=schedules,
            known=[each.settled for each in kept.known],
            guide=guide,
        )
        details = terminal.Details(traceback, show_output)
        running = Night(campaign, guide, night, kept, outputs, console, details, request.system, found_here)
        tally = running.run(limit, minutes, (pool, collectives))
    has_met = bool(tally.found or kept.known.met)
    if tally.draws and tally.vacuous == tally.draws and not has_met:
        raise UsageError("nothing was tested: every draw was vacuous")
    if request.collectives not in (None, "library") and tally.draws and not tally.by_kernel and not has_met:
        refused = f", {tally.unsupported} of which they do not support" if tally.unsupported else ""
        raise UsageError(
            f"nothing was tested: collectives {request.collectives!r} ran 0 of {tally.kernel_calls} calls{refused}"
        )
    raise typer.Exit(1 if tally.found else 0)
