"""`symm show` and `symm topologies`: layouts, and groups that a running engine printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from harness.cli.options import DeadlineOption, JsonOption, SubstrateOption
from harness.cli.pages import explain
from harness.errors import UsageError
from harness.report import data, layouts, terminal
from harness.scenario import topology
from harness.scenario.dumps import dump
from harness.scenario.dumps.dump import Dump
from harness.scenario.topology import Topology

SHOWN = "A file, or the name of one that ships here; or files with groups that an engine printed."
PERFETTO = "Write a seed's run as a trace for ui.perfetto.dev: a track a rank, spans, and arrows."
NO_RUN = "Show what a seed's file says, and run nothing."
ALLOW = "Run the plug-ins that a seed names: only if you trust it."
WRITTEN = "Write a topology of the groups that an engine printed; repeatable."
RenameOption = Annotated[
    list[str] | None,
    typer.Option(metavar="FROM=TO", help="The family of a group, by the engine's name for it; repeatable."),
]


def show(
    names: Annotated[list[str], typer.Argument(metavar="TOPOLOGY|SEED|DUMP", help=SHOWN)],
    against: Annotated[
        str | None, typer.Option(metavar="TOPOLOGY", help="Compare with the groups of this one, by file or name.")
    ] = None,
    rename: RenameOption = None,
    html: Annotated[str | None, typer.Option(metavar="FILE", help="Write a seed as one page.")] = None,
    perfetto: Annotated[str | None, typer.Option(metavar="FILE", help=PERFETTO)] = None,
    no_run: Annotated[bool, typer.Option("--no-run", help=NO_RUN)] = False,
    substrate: SubstrateOption = "auto",
    deadline: DeadlineOption = None,
    allow_plugins: Annotated[bool, typer.Option("--allow-plugins", help=ALLOW)] = False,
    json_file: JsonOption = None,
) -> None:
    """Print families, the laws that they break, and how they differ from those of another layout. Of a seed, explain
    the finding: what lies where, who waits for whom, and on which systems it is clean."""
    if len(names) == 1 and explain.is_seed(names[0]):
        if against is not None or rename:
            raise UsageError(f"--{'rename' if rename else 'against'} goes with layouts, and {names[0]} is a seed")
        wanted = explain.Wanted(substrate, deadline, allow_plugins, no_run, html, perfetto, json_file)
        explain.explain(names[0], wanted)
        return
    if html is not None or perfetto is not None:
        raise UsageError(f"--{'perfetto' if html is None else 'html'} needs one seed, which {', '.join(names)} is not")
    data.check_target(json_file, [*names, *([against] if against else [])])
    expected = topology.find(against) if against is not None else None
    seen = layouts.look(dump.read(names, _renamed(rename)), expected)
    if seen.comparison and expected and not seen.comparison.compared:
        raise UsageError(
            f"nothing to compare: {', '.join(seen.comparison.only_shown)} of {', '.join(names)} are no families of "
            f"{expected.name!r}, which has {', '.join(expected.families)}; --rename FROM=TO says which is which"
        )
    if json_file != "-":
        layouts.show(terminal.Screen(), seen)
    data.write(layouts.as_data(seen), json_file)
    raise typer.Exit(1 if seen.is_finding else 0)


def topologies(
    from_dump: Annotated[list[str] | None, typer.Option(metavar="DUMP", help=WRITTEN)] = None,
    name: Annotated[
        str | None, typer.Option(help="The name of that topology. Default: that of the first DUMP.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where that topology is written. Default: stdout."),
    ] = None,
    rename: RenameOption = None,
    json_file: JsonOption = None,
) -> None:
    """List the named topologies, or write one of a dump."""
    data.check_target(json_file, from_dump or ())
    if from_dump:
        _write(from_dump, name, "-" if output is None else output, _renamed(rename), json_file)
        return
    for option, given in (("--name", name), ("--rename", rename), ("--output", output)):
        if given is not None:
            raise UsageError(f"{option} goes with --from-dump")
    loaded = [topology.load(path) for path in topology.named().values()]
    if json_file != "-":
        terminal.topologies(terminal.Screen(), loaded)
    data.write({"schema": data.SCHEMA, "topologies": [data.topology(t) for t in loaded]}, json_file)


def _write(files: list[str], name: str | None, output: str, renamed: dict[str, str], json_file: str | None) -> None:
    """Write the topology of a dump in which ranks do not contradict one another."""
    data.check_target(output, files)
    if output == json_file:
        where = "on stdout" if output == "-" else f"in {output}"
        raise UsageError(f"the topology and the facts of --json cannot both be {where}; --output names another file")
    found = dump.read(files, renamed)
    seen = layouts.look(found)
    if seen.disagreements:
        raise UsageError(f"no topology has these groups. {next(layouts.lines(seen))}")
    if isinstance(found, Dump):
        made = found.topology(Path(files[0]).stem if name is None else name)
    else:
        made = _explicit(found, name)
    if output != "-" and json_file != "-":
        layouts.show(terminal.Screen(), layouts.look(made))
    data.write({"schema": topology.SCHEMA, **msgspec.to_builtins(made)}, output)
    data.write(data.topology(made), json_file)


def _explicit(shown: Topology, name: str | None) -> Topology:
    """A topology that gives its families itself, by another name."""
    if shown.convention != "explicit":
        raise UsageError(f"topology {shown.name!r} has degrees of {shown.convention!r}; --from-dump takes groups")
    return msgspec.structs.replace(shown, name=shown.name if name is None else name)


def _renamed(rename: list[str] | None) -> dict[str, str]:
    """The pairs of `--rename`. Raises `UsageError` for one that is none."""
    found: dict[str, str] = {}
    for each in rename or ():
        before, _, after = each.rpartition("=")
        if not before or not after:
            raise UsageError(f"--rename {each!r} is not of the form FROM=TO")
        if before in found:
            raise UsageError(f"--rename names {before!r} twice")
        found[before] = after
    return found
