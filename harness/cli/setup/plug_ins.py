"""`symm check`: a plug-in's shape, and one small program on two ranks of the simulation, before anything is drawn."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import typer

from harness.cli.options import JsonOption
from harness.errors import PluginError, UsageError
from harness.oracle.judge import judge
from harness.report import data, terminal
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, ReduceScatter, Release, Step
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.system.check import fallbacks, look, observed, plug_ins_of, prepare
from harness.world.launcher import begun
from harness.world.platform import Watched, choose
from harness.world.world import World

PAIR = Topology("pair", "sglang", {"tp": 2})
COUNT = 256
SPEC = "module:Class, as --pool and --collectives take it, or a file with classes."


class Checked(NamedTuple):
    """A plug-in, what is wrong with it, and what was tried."""

    name: str
    part: str
    problems: list[str]
    tried: str


def check(
    plug_in: Annotated[str, typer.Argument(metavar="PLUGIN", help=SPEC)],
    json_file: JsonOption = None,
) -> None:
    """Try a plug-in's shape before anything is drawn: 1 if something is missing, and each sentence says what to write.

    Loads it, looks at its methods and signatures, builds it, and makes one small call on two ranks of the simulation.
    """
    data.check_target(json_file)
    console = terminal.Screen(stderr=json_file == "-")
    checked = []
    platform = choose("sim", PAIR.world)
    with begun(platform.environment, platform.preload):  # both processes import torch at one time
        for name in _names(plug_in):
            checked.append(_checked(name))
            _show(console, checked[-1])
    data.write({"schema": data.SCHEMA, "plug_ins": [each._asdict() for each in checked]}, json_file)
    raise typer.Exit(1 if any(each.problems for each in checked) else 0)


def _names(spec: str) -> list[str]:
    """The plug-ins that are named, each as `module:Class`. Raises `UsageError` for a file with none."""
    path, _, attribute = spec.partition(":")
    if not path.endswith(".py"):
        return [spec]
    if not Path(path).is_file():
        raise UsageError(f"plug-in {spec!r}: there is no file {path}")
    relative = os.path.relpath(path)
    module = relative.removesuffix(".py").replace(os.sep, ".")
    if not all(part.isidentifier() for part in module.split(".")):
        raise UsageError(f"plug-in {spec!r} cannot be imported from here; run symm in a folder above the file")
    names = [f"{module}:{attribute}"] if attribute else plug_ins_of(module)
    if not names:
        raise UsageError(
            f"{path} has no class with use(self, group), all_gather or reduce_scatter; name one as {path}:Class"
        )
    return names


def _checked(name: str) -> Checked:
    part, problems = look(name)
    if problems:
        return Checked(name, part, problems, "not run")
    began = time.monotonic()
    try:
        problems, tried = _run(name, part)
    except PluginError as error:  # its text begins with the plug-in's name
        problems, tried = [str(error).removeprefix(f"{part} {name!r} ")], "not run to the end"
    return Checked(name, part, problems, f"{tried} ({time.monotonic() - began:.1f} s)")


def _run(name: str, part: str) -> tuple[list[str], str]:
    """Run a small program on it: what is wrong, and what was done."""
    instead = observed(name) if part == "pool" else fallbacks(name)
    if name in instead:
        stand_in = instead[name] or "nothing"
        return [], f"not run: it needs a GPU, and {stand_in} stands in for it on the simulation"
    scenario = _scenario(name, part)
    with World(PAIR.world, "sim", watched=Watched({}, prepare)) as world:
        draw = world.run(scenario)
    problems = [str(finding) for finding in judge(draw)]
    steps = ", ".join(dict.fromkeys(step.kind for step in scenario.steps))
    return problems, f"ran {steps} on two ranks of the simulation"


def _scenario(name: str, part: str) -> Scenario:
    system = System()
    system = msgspec.structs.replace(system, **{part: name})
    via: Any = "kernel" if part == "collectives" else "library"
    gather = AllGather("tp", View("a"), COUNT, via=via)
    scatter: list[Step] = [ReduceScatter("tp", View("a"), COUNT, via=via)]
    steps = (Allocate("a", "tp", 2 * COUNT), gather, *(scatter if part == "collectives" else []), Release("a"))
    return Scenario(PAIR, steps, system)


def _show(console: terminal.Screen, checked: Checked) -> None:
    verdict = f"{len(checked.problems)} to change" if checked.problems else "as it has to be"
    kind = "" if checked.part == "none" else f"{checked.part}, "
    lines = [f"{checked.name}: {kind}{verdict}; {checked.tried}", *(f"  {each}" for each in checked.problems)]
    console.print(terminal.plain("\n".join(lines)), highlight=False, soft_wrap=True)
