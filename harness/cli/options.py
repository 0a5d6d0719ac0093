"""Options that several commands share."""

from __future__ import annotations

import secrets
from typing import Annotated, Literal

import typer

from harness.machine.evidence import NAMES
from harness.scenario.system import POOLS, Sites

Substrate = Literal["auto", "sim", "nccl"]
SubstrateOption = Annotated[Substrate, typer.Option(help="auto takes nccl where a GPU and NCCL 2.27 are found.")]
JsonOption = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write the same facts as JSON; - for stdout.")
]
JunitOption = Annotated[
    str | None,
    typer.Option("--junitxml", metavar="FILE", help="Write a test case for each result, as JUnit XML for CI systems."),
]
TopologiesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="TOPOLOGY", help="Only these layouts, by file, by name, or by the end of a name."),
]
TopologyOption = Annotated[
    list[str] | None,
    typer.Option("--topology", metavar="FILE", help="The same as an option; repeatable. Default: all that fit."),
]


def topologies_of(context: typer.Context, named: list[str] | None, given: list[str] | None) -> list[str]:
    """The topologies of the arguments and of `--topology`. Arguments take the place of those that come from a file or
    the environment."""
    source = context.get_parameter_source("topology_file")
    is_given = source is not None and source.name == "COMMANDLINE"
    return [*(named or ()), *(given or () if is_given or not named else ())]


PoolOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|module:attr",
        help=f"The pool policy under test: {', '.join(POOLS)}, or yours. Default: that of the scenario, or deferred.",
    ),
]
SitesOption = Annotated[Sites, typer.Option(help="Buffer sites name the group they are asked for, or always tp.")]
CollectivesOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|module:attr", help="library, triton, or a kernel of yours. Default: library and triton mixed."
    ),
]
TracebackOption = Annotated[
    bool, typer.Option("--traceback", help="Show all of the traceback of what the system under test raised.")
]
OutputOption = Annotated[bool, typer.Option("--show-output", help="Show what ranks print in a draw that fails.")]
EvidenceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--evidence",
        metavar="|".join(NAMES),
        help="What shows the path and the owner of each call; repeatable. Default: the sharpest there is of the path.",
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(help="The same seed draws the same scenarios. Default: a fresh one, which is printed."),
]
ShrinkOption = Annotated[
    float,
    typer.Option(min=0, metavar="SECONDS", help="About how long each finding is shrunk; a run under way is finished."),
]
DeadlineOption = Annotated[
    float | None,
    typer.Option(
        min=1,
        metavar="SECONDS",
        help="Longest a draw may take before it is a hang. Default: 20 on sim, 30 on nccl, "
        "90 where ranks take turns on a GPU.",
    ),
]


def fresh(seed: int | None) -> int:
    """The seed that is asked for, or a fresh one."""
    return secrets.randbelow(1 << 32) if seed is None else seed


def drawn_with(seed: int, asked: int | None) -> str:
    """A line on the seed of a run."""
    return f"seed {seed}" if asked is not None else f"seed {seed}: --seed {seed} draws the same"
