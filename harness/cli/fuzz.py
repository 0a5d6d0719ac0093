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
from harness.cli.pages import explain
from harness.cli.request import Request
from harness.errors import UsageError
from harness.report import data, leftovers, terminal
from harness.report.pages.account import Account
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
WORLD = (
    f"Largest world to draw. Default: {USUAL}, and on sim a share of free programs of {min(LARGER)} and {max(LARGER)}."
)
DRY = "Draw the same scenarios, run none, and say what they hold, in histograms. No rank starts."
SCHEDULES = "Run each draw N times, ranks taking turns by another schedule each, and look for races. On sim alone."
HTML = "Write a report as one page, each finding with pictures of one more run."
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
    html: Annotated[str | None, typer.Option(metavar="FILE", help=HTML)] = None,
    json_file: JsonOption = None,
) -> None:
    """Draw layouts and programs, run them, and shrink what fails."""
    for target in (json_file, html):
        data.check_target(target, topology_file or ())
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
    console = terminal.Screen(stderr="-" in (json_file, html))
    limit = draws if draws is not None or minutes is not None else 300
    largest = max(LARGER) if is_larger else 0
    if is_dry:
        unstarted = dry.Unstarted.on(substrate, request.world, largest, evidence or ())
        dry.run(console, request, unstarted, limit, seed, json_file)
        return
    seeds.check_folder(seeds_dir)
    watched = Watched(observed(pool), prepare, fallbacks(collectives))
    with World(
        request.world, substrate, largest=largest, deadline=deadline, evidence=evidence or (), watched=watched
    ) as ranks:
        if schedules and ranks.platform.name != "sim":
            raise UsageError("--schedules needs --substrate sim: ranks on GPUs take no turns")
        found_here = environment.describe(ranks)
        console.print(f"substrate {ranks.platform.name}: {ranks.platform.why}", highlight=False)
        if line := request.not_shown(ranks):
            console.print(line, highlight=False)
        limits = Limits().within(shrink_seconds)
        if minutes is not None:
            limits = limits.to_the_end()
        campaign = Campaign(
            ranks,
            request.strategy(ranks),
            seeds_dir,
            seed=seed,
            environment=found_here,
            limits=limits,
            schedules=schedules,
        )
        details = terminal.Details(traceback, show_output)
        tally = _run(campaign, limit, minutes, console, details, (json_file, html), found_here)
    if tally.draws and tally.vacuous == tally.draws and not tally.found:
        raise UsageError("nothing was tested: every draw was vacuous")
    if request.collectives not in (None, "library") and tally.draws and not tally.by_kernel and not tally.found:
        refused = f", {tally.unsupported} of which they do not support" if tally.unsupported else ""
        raise UsageError(
            f"nothing was tested: collectives {request.collectives!r} ran 0 of {tally.kernel_calls} calls{refused}"
        )
    raise typer.Exit(1 if tally.found else 0)


def _run(
    campaign: Campaign,
    draws: int | None,
    minutes: float | None,
    console: Console,
    details: terminal.Details,
    targets: tuple[str | None, str | None],
    environment: dict[str, Any],
) -> Tally:
    """Run a campaign, then show and write what it found, also after Ctrl-C or where a plug-in has not its shape.
    `targets`: the files of its facts and of its page."""
    json_file, html = targets
    accounts: dict[str, Account] = {}

    def says_all() -> bool:
        """Whether the command ends with a sentence, and there is nothing beside it."""
        return isinstance(sys.exception(), UsageError) and not campaign.tally.found and not interrupts.has_come()

    def write() -> None:
        if not says_all():
            facts = explain.with_accounts(data.fuzz(campaign.tally, campaign.world, environment), accounts)
            data.write(facts, json_file)
            explain.write_report(facts, html)

    def show() -> None:
        if says_all():
            return
        lines = campaign.keep_under_way() if interrupts.has_come() else ""  # before anything that might fail
        terminal.summary(console, campaign.tally, details)
        leftovers.show(console, campaign.world)
        if lines:
            console.print(terminal.plain(lines), highlight=False, soft_wrap=True)

    with at_the_end(show, write), terminal.progress(console, draws) as campaign.progress:
        campaign.run(draws, minutes)
        if targets != (None, None):
            accounts |= explain.of_findings(campaign.world, campaign.tally.found.values(), environment)
    return campaign.tally
