"""`symm bisect`: between which versions of a package a seed begins or ceases to fail."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from harness.campaign import seeds
from harness.campaign.replay import with_systems
from harness.campaign.seeds import Seed
from harness.cli.ending import at_the_end
from harness.cli.options import (
    CollectivesOption,
    DeadlineOption,
    EvidenceOption,
    JsonOption,
    PoolOption,
    Substrate,
    SubstrateOption,
)
from harness.errors import UsageError
from harness.report import bisection, data, terminal
from harness.scenario.system import Sites
from harness.studies.bisect.search import Search, Tried
from harness.studies.bisect.trials import Request, Trials, known_version, runs_of
from harness.studies.bisect.versions import Source, among, available, between, distribution
from harness.text import counted
from harness.world import environment
from harness.world.platform import choose


def bisect(
    seed_file: Annotated[str, typer.Argument(metavar="SEED", help="A file, or the name of one that ships here.")],
    over: Annotated[str, typer.Option(metavar="PACKAGE", help="Try versions of it, as the index names it.")],
    first: Annotated[str | None, typer.Option("--from", metavar="VERSION", help="Oldest to try.")] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="VERSION", help="Newest to try.")] = None,
    wheels: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Take versions from wheels in a folder, without a network.")
    ] = None,
    along: Annotated[
        list[str] | None,
        typer.Option(
            "--with", metavar="PACKAGE", help="Bring this dependency along, as each version asks; repeatable."
        ),
    ] = None,
    pre: Annotated[bool, typer.Option("--pre", help="Try pre-releases too.")] = False,
    every: Annotated[bool, typer.Option("--every", help="Try every version, and show every change.")] = False,
    runs: Annotated[
        int | None, typer.Option(min=1, help="Runs for each version. Default: 1; more for a race, by its frequency.")
    ] = None,
    substrate: SubstrateOption = "auto",
    pool: PoolOption = None,
    collectives: CollectivesOption = None,
    sites: Annotated[Sites | None, typer.Option(help="Buffer sites in place of the seed's.")] = None,
    evidence: EvidenceOption = None,
    deadline: DeadlineOption = None,
    allow_plugins: Annotated[
        bool, typer.Option("--allow-plugins", help="Run the plug-ins that the seed names: only if you trust it.")
    ] = False,
    json_file: JsonOption = None,
) -> None:
    """Between which versions of a package a seed begins or ceases to fail: 0 if found, 1 if nothing changes."""
    data.check_target(json_file, [seed_file])
    seed, package = seeds.find(seed_file), distribution(over)
    systems = [each.system for each in with_systems(seed.scenarios, pool, collectives, sites)]
    for system in () if allow_plugins else systems:
        seeds.check_plug_ins(seed_file, system, (pool, collectives))
    request = Request(
        seed,
        package,
        Source(wheels, pre),
        _substrate(substrate, seed),
        runs or runs_of(seed),
        _options(pool, collectives, sites, evidence or (), deadline, allow_plugins),
        tuple(distribution(name, "--with") for name in along or ()),
        any(map(seeds.plug_ins, systems)),
    )
    versions = between(available(package, request.source), first, last)
    _search(request, versions, every, terminal.Screen(stderr=json_file == "-"), json_file)


def _search(request: Request, versions: list[str], every: bool, console: terminal.Screen, target: str | None) -> None:
    """Search, show and write. Ends the command with its status."""
    trials = Trials(request)

    def attempt(version: str) -> Tried:
        with console.status(terminal.plain(f"{request.package} {version}")):
            tried = trials.attempt(version)
        console.print(terminal.plain(bisection.line(tried)), highlight=False, soft_wrap=True)
        return tried

    search = Search(versions, attempt)
    what = f"{counted(len(versions), 'version')} of {request.package} from {request.source.name}"
    how = f"substrate {request.substrate}, {counted(request.runs, 'run')} each"
    console.print(terminal.plain(f"{what}; {how}"), highlight=False, soft_wrap=True)

    def write() -> None:
        data.write({"schema": data.SCHEMA, **_facts(request), **bisection.data(search)}, target)

    with at_the_end(lambda: None, write):
        search.run(among(versions, known_version(request.seed, request.package)), every)
    ran = [tried for tried in search.tried.values() if tried.has_run]
    if not ran:
        reason = search.tried[max(search.tried)]
        raise UsageError(f"no version of {request.package} could run; {bisection.line(reason)}")
    for line in bisection.summary(search, request.package):
        console.print(terminal.plain(line), highlight=False, soft_wrap=True)
    raise typer.Exit(0 if search.changes else 1)


def _facts(request: Request) -> dict[str, Any]:
    return {
        "package": request.package,
        "source": request.source.name,
        "substrate": request.substrate,
        "runs": request.runs,
        "rules": list(request.rules),
        "environment": environment.describe(),
    }


def _substrate(asked: Substrate, seed: Seed) -> str:
    """The substrate of all versions. One that is named may be there with some of them alone."""
    return choose("auto", max(each.world for each in seed.scenarios)).name if asked == "auto" else asked


def _options(
    pool: str | None,
    collectives: str | None,
    sites: Sites | None,
    evidence: list[str] | tuple[()],
    deadline: float | None,
    allow_plugins: bool,
) -> tuple[str, ...]:
    """The options that `symm replay` gets as they are."""
    given = {"--pool": pool, "--collectives": collectives, "--sites": sites, "--deadline": deadline}
    named = [each for name, value in given.items() if value is not None for each in (name, str(value))]
    kinds = [each for kind in evidence for each in ("--evidence", kind)]
    return *named, *kinds, *(["--allow-plugins"] if allow_plugins else [])
