"""The command line: `symm fuzz`, `replay`, `show`, `topologies`, `doctor`; `harness.cli.studies` has the longer ones.

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

import typer
from hypothesis.configuration import set_hypothesis_home_dir
from rich.console import Console

from harness import interrupts
from harness.campaign import seeds
from harness.campaign.campaign import Campaign
from harness.campaign.limits import SHRINK_SECONDS, Limits
from harness.campaign.replay import replay as run_again
from harness.campaign.replay import with_system
from harness.campaign.tally import Tally
from harness.cli import studies
from harness.cli.doctor import examine
from harness.cli.options import (
    CollectivesOption,
    DeadlineOption,
    EvidenceOption,
    JsonOption,
    PoolOption,
    ShrinkOption,
    SitesOption,
    SubstrateOption,
)
from harness.cli.request import Request
from harness.errors import UsageError
from harness.oracle.findings import Record
from harness.report import data, terminal
from harness.scenario import topology
from harness.scenario.scenario import Scenario
from harness.scenario.steps import STREAMS
from harness.scenario.system import Sites
from harness.strategies.flows import Tokens
from harness.strategies.programs import HAZARDS
from harness.system.check import check_system
from harness.world import environment
from harness.world.world import World

DRAWS = f"Default 300, or no limit with --minutes. After a first finding at most {Limits().more} more."
HAZARDOUS = "Also draw what even a right system may not survive without agreement between ranks; repeatable."

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
    asked = Request(
        world=world,
        topology=topology_file or (),
        pool=pool,
        collectives=collectives,
        sites=sites,
        flow=flow,
        tokens=tokens,
        hazard=hazards or (),
        graphs=graphs,
        streams=streams,
        nodes=nodes,
    )
    seeds.check_folder(seeds_dir)
    console = Console(stderr=json_file == "-")
    limit = draws if draws is not None or minutes is not None else 300
    with World(world, substrate, deadline=deadline, evidence=evidence or ()) as ranks:
        facts = environment.describe(ranks)
        console.print(f"substrate {ranks.platform.name}: {ranks.platform.why}", highlight=False)
        limits = Limits().within(shrink_seconds)
        campaign = Campaign(ranks, asked.strategy(ranks), seeds_dir, seed=seed, environment=facts, limits=limits)
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
        if campaign.tally.found or interrupts.has_come() or not isinstance(sys.exception(), UsageError):
            with interrupts.held():
                data.write(data.fuzz(campaign.tally, campaign.world, facts), json_file)
                terminal.summary(console, campaign.tally)
                if interrupts.has_come() and (said := campaign.keep_under_way()):
                    console.print(said, highlight=False, soft_wrap=True)
    return campaign.tally


@app.command()
def replay(
    seed_file: Annotated[str, typer.Argument(metavar="SEED", help="A file, or the name of one that ships here.")],
    times: Annotated[int, typer.Option(min=1, help="Runs; a race fails in some only.")] = 1,
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
    scenario = with_system(seeds.find(seed_file).scenario, pool, collectives, sites)
    check_system(scenario.system.pool, scenario.system.collectives)
    console = Console(stderr=json_file == "-")
    runs: list[list[Record]] = []
    with World(scenario.world, substrate, deadline=deadline, evidence=evidence or ()) as world:
        facts = environment.describe(world)
        console.print(f"substrate {world.platform.name}: {world.platform.why}", highlight=False)
        try:
            for findings in run_again(world, scenario, times):
                runs.append([finding.record() for finding in findings])
        finally:
            failed = [records for records in runs if records]
            if runs:
                with interrupts.held():
                    _tell_runs(console, runs, failed, scenario, times)
                    told = {"schema": data.SCHEMA, "runs": runs, "failed": len(failed), "environment": facts}
                    data.write(told, json_file)
    raise typer.Exit(1 if failed else 0)


def _tell_runs(
    console: Console, runs: list[list[Record]], failed: list[list[Record]], scenario: Scenario, times: int
) -> None:
    for record in failed[0] if failed else ():
        terminal.finding(console, record, scenario)
    of = f"{times}" if len(runs) == times else f"{len(runs)} ({times} were asked for)"
    console.print(f"{len(failed)} of {of} runs failed", highlight=False)


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
        terminal.topologies(Console(), loaded)
    data.write({"schema": data.SCHEMA, "topologies": [data.topology(t) for t in loaded]}, json_file)


@app.command()
def doctor(json_file: JsonOption = None) -> None:
    """Say what this machine can run, and why not more."""
    data.check_target(json_file)
    found = examine()
    if json_file != "-":
        terminal.table(Console(), ("what", "found", "means"), ((row.what, row.found, row.means) for row in found.rows))
    data.write({"schema": data.SCHEMA, "environment": found.environment, "checks": found.rows}, json_file)


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
        status = interrupts.STATUS
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
    if status == interrupts.STATUS:  # typer makes it of Ctrl-C by itself, from some version on
        sys.stderr.write(interrupts.WORDS)
        status = interrupts.status()
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
