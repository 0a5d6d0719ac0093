"""Random command lines, from the options that every command has, with right and wrong values."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, get_args

import typer

from harness.cli.main import app
from harness.machine.evidence import NAMES
from harness.scenario.flows.catalogue import FLOWS
from harness.scenario.system import POOLS, Sites
from harness.strategies.flows import Tokens
from harness.strategies.programs import HAZARDS
from tests.hostile import runs
from tests.hostile.case import Case, Outcome

NUMBER = 300
DEMANDED = f"status 0, 1 or 2 that means what it says, one sentence at 2, never a traceback; each in {runs.BOUND:.0f} s"
RIGHT: dict[str, Sequence[str]] = {
    "--topology": ("qwen3-32b-tp2", "qwen3-32b-tp4", "ours.json"),
    "--pool": (*POOLS, "examples.pool:PoolPerFamily", "per-grop", "os:path", "nowhere:Pool"),
    "--collectives": ("library", "triton", "examples.collectives:LastRankForgets"),
    "--seeds-dir": ("kept", "a/b/c"),
    "--flow": ("all", *FLOWS),
    "--hazard": HAZARDS,
    "--substrate": ("sim", "sim", "auto", "nccl"),
    "--sites": get_args(Sites),
    "--tokens": get_args(Tokens),
    "--against": ("sim", "nccl"),
    "--evidence": NAMES,
    "--json": ("found.json", "-", "/dev/null"),
    "--only": ("F02", "F14,K02"),
    "SEED": ("wrong-owner-of-a-shared-pool", "wrong-owner-found-on-sim", "hang-of-uneven-tokens"),
    "TOPOLOGY": ("qwen3-32b-tp2", "deepseek-r1-tp8-dpa4", "ours.json"),
    "--deadline": ("2", "5"),
    "--minutes": ("0.02", "0.05"),
    "--seed": ("1", "-7", str(2**70)),
}
"""What may well be right, by option or argument."""
BYTES, WORDS = (
    "\udcff\udc80",
    ("", " ", "nan", "-1", "0", "1.5", "0x10", "--", "-", "/", ".", "~", "nowhere/x", "torn.json"),
)
NASTY = (
    "\x1b[31mred",
    "\u202eleft",
    "a\nb",
    "[/red]",
    "日本",
    "x" * 5000,
    BYTES,
    "inf",
    "-inf",
    "1e999",
    "%s",
    "$(id)",
    ",",
    ":",
)
WRITTEN = ("--seeds-dir", "--json")
"""Where files are made: nothing outside the folder of the run."""
HARMLESS = (
    "",
    "nowhere/x",
    "torn.json",
    "torn.json/x",
    "/dev/full",
    "/proc/x",
    "folder",
    "x" * 5000,
    BYTES,
    "a\nb",
    "circle",
)
SHORT: dict[str, tuple[str, ...]] = {
    "fuzz": ("--draws=2", "--world=2", "--substrate=sim", "--shrink-seconds=0.5"),
    "replay": ("--substrate=sim", "--deadline=3"),
    "matrix": ("--draws=1", "--minutes=0.01", "--topology=qwen3-32b-tp2", "--pool=deferred", "--substrate=sim"),
    "agree": ("--draws=2", "--world=2", "--against=sim", "--pool=deferred"),
    "faults": (
        "--only=F02",
        "--seeds=1",
        "--draws=5",
        "--clean=2",
        "--world=2",
        "--substrate=sim",
        "--shrink-seconds=0.2",
    ),
    "bench draws": ("--draws=1",),
    "bench registration": ("--repeats=1",),
}
"""What keeps a command short, unless the option is drawn. A right `bench` measures for a minute, so each is wrong."""
WEIGHTS = {"fuzz": 8, "replay": 6, "show": 4, "matrix": 3, "agree": 3, "faults": 2}
COUNTS = ("--draws", "--times", "--clean", "--seeds", "--world")


def commands() -> dict[str, Any]:
    """Every command of the program by its words."""
    found: dict[str, Any] = {}

    def visit(command: Any, name: str) -> None:
        below = getattr(command, "commands", {})
        for each, inner in below.items():
            visit(inner, f"{name} {each}".strip())
        if not below:
            found[name] = command

    visit(typer.main.get_command(app), "")
    return found


def cases(random: Random, number: int) -> list[Case]:
    """Lines, a tenth of them as real commands."""
    there = commands()
    lines = [line(random, there) for _ in range(number)]
    return [
        Case(shlex.join(["symm", *words])[:200], partial(_act, words, index % 10 == 0))
        for index, words in enumerate(lines)
    ]


def line(random: Random, there: dict[str, Any]) -> tuple[str, ...]:
    """One line."""
    name = random.choices([*there], [WEIGHTS.get(each, 1) for each in there])[0]
    words, options = name.split(), []
    is_wrong = random.random() < 0.5
    for parameter in there[name].params:
        if not parameter.opts[0].startswith("-"):
            words += [value(random, parameter, is_wrong and random.random() < 0.3)] if random.random() < 0.95 else []
        elif random.random() < 0.25:
            options += _option(random, parameter, is_wrong and random.random() < 0.4)
    given = {option.partition("=")[0] for option in options}
    kept = [each for each in SHORT.get(name, ()) if each.partition("=")[0] not in given or name.startswith("bench")]
    if is_wrong and random.random() < 0.1:
        options.append(random.choice(("--nothing", "-x", "--drawz=3", "stray", "--", "--pool", "--help")))
    random.shuffle(options)
    return (*words, *options, *kept)


def _option(random: Random, parameter: Any, is_wrong: bool) -> list[str]:
    name = parameter.opts[0]
    if getattr(parameter, "is_flag", False):
        return [f"{name}=yes"] if is_wrong else [name]
    times = 2 if random.random() < 0.15 else 1
    return [f"{name}={value(random, parameter, is_wrong)}" for _ in range(times)]


def value(random: Random, parameter: Any, is_wrong: bool) -> str:
    """A value for an option or an argument, wrong if asked for and mostly right otherwise."""
    name = parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.metavar or parameter.name
    if name in WRITTEN:
        return random.choice(HARMLESS if is_wrong else RIGHT[name])
    if is_wrong:
        return random.choice(WORDS + NASTY)
    if name in RIGHT:
        return random.choice(RIGHT[name])
    least = getattr(parameter, "min", None) or getattr(getattr(parameter, "type", None), "min", None) or 0
    return str(least + random.choice((0, 1) if name in COUNTS else (0, 1, 2)))


def _act(words: tuple[str, ...], is_real: bool, folder: Path) -> Outcome:
    place = folder / "run"
    place.mkdir()
    (place / "torn.json").write_text('{"schema": 1, "na')
    (place / "folder").mkdir()
    (place / "circle").symlink_to("circle")
    ours = {"schema": 1, "name": "ours", "convention": "explicit", "families": {"tp": [[0, 1]], "cp": [[1, 0]]}}
    (place / "ours.json").write_text(json.dumps(ours))
    ended = runs.run(folder, *words, is_real=is_real)
    found = [*runs.problems(ended), *_meaning(words, ended)]
    (folder / "command.txt").write_text(shlex.join(["symm", *words]) + "\n", errors="surrogateescape")
    return Outcome(tuple(f"{shlex.join(['symm', *words])}: {problem}" for problem in found), f"status {ended.status}")


def _meaning(words: tuple[str, ...], ended: runs.Ended) -> list[str]:
    """Whether the status of `symm fuzz` agrees with the seed files that it left, and JSON can be read."""
    found = []
    written = ended.folder / "found.json"
    table = next((word for word in reversed(words) if word.startswith("--json=")), "")  # the last of several counts
    if ended.status in (0, 1) and table == "--json=found.json" and "--help" not in words:
        try:
            json.loads(written.read_bytes())
        except (OSError, ValueError) as error:
            found.append(f"no JSON: {error}")
    with suppress(ValueError):
        if words[0] == "fuzz" and ended.status == 1 and not runs.announced(ended) and table != "--json=-":
            found.append("status 1, and no seed file is announced")
        if words[0] == "fuzz" and ended.status == 0 and runs.announced(ended):
            found.append("status 0, and a seed file is announced")
    return found
