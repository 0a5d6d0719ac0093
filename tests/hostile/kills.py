"""Signals to a command, one of its ranks, its zygote or all of its processes, at moments that nobody chose.

A moment is so long after a stage that the command has reached: it heeds signals, its ranks are there, it has kept
something. So a slow machine is hit in the same places as a fast one.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple

import psutil

from tests.hostile import forked, runs
from tests.hostile.case import Case, Outcome

NUMBER = 100
DEMANDED = (
    f"the signal's own status; every rule that was found is in a whole seed file; nothing left after {runs.GONE:.0f} s"
)
SIM = ("--substrate", "sim", "--deadline", "5", "--seeds-dir", "kept")
PROPERTIES = """
from hypothesis import given, settings, strategies
from harness import scenarios
from harness.campaign import seeds

WRONG = seeds.find("stale-window-found-on-sim").scenario

@settings(max_examples=30, deadline=None)
@given(scenario=scenarios(world=2) | strategies.just(WRONG))
def test_one(world, scenario):
    world.check(scenario)

@settings(max_examples=30, deadline=None)
@given(scenario=scenarios(world=2))
def test_two(world, scenario):
    world.run(scenario)
"""
FINDS = ("--topology", "deepseek-r1-tp8-dpa4", "--pool", "shared-at-alloc", "--sites", "explicit", "--tokens", "padded")
PLUGIN = ("--symm-pool=shared-at-alloc", "--symm-shrink-seconds=2", "--symm-seeds-dir=kept")
COMMANDS: dict[str, tuple[str, ...]] = {
    "fuzz": ("fuzz", "--world", "4", "--pool", "shared-at-alloc", "--draws", "9999", "--minutes", "0.08", *SIM),
    "clean": ("fuzz", "--world", "2", "--draws", "9999", "--minutes", "0.06", *SIM),
    "replay": ("replay", "wrong-owner-found-on-sim", "--times", "100", *SIM[:-2]),
    "matrix": ("matrix", "--draws", "4", "--minutes", "0.05", *FINDS, *SIM),
    "faults": ("faults", "--only", "F02,K02", "--seeds", "1", "--clean", "10", "--shrink-seconds", "1", *SIM),
    "pytest": ("test_properties.py", "--symm-substrate=sim", "--symm-world=2", *PLUGIN),
}
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGKILL", "SIGSTOP")
TARGETS = ("parent", "parent", "parent", "rank", "zygote", "all", "all")
STAGES = {"clean": ("heeds", "ranks"), "replay": ("heeds", "ranks"), "pytest": ("ranks", "kept")}
ALL_STAGES = ("heeds", "ranks", "ranks", "kept")
ENDED = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGKILL": -9}
PYTEST = {"SIGINT": 2, "SIGTERM": -15, "SIGHUP": -1, "SIGKILL": -9}
"""Of pytest, which heeds Ctrl-C alone."""
NOTED = "noted"
"""The file in which a forked command notes what it has found and kept."""
PATIENCE = 30.0
"""Seconds in which a stage is awaited."""


class Kill(NamedTuple):
    command: str
    signal: str
    target: str
    stage: str
    after: float

    def __str__(self) -> str:
        return f"{self.signal} to {self.target} of {self.command}, {self.after:.2f} s after {self.stage}"


def cases(random: Random, number: int) -> list[Case]:
    """Kills; one in ten of a real command."""
    found = []
    for index in range(number):
        command = [*COMMANDS][index % len(COMMANDS)]
        stage = random.choice(STAGES.get(command, ALL_STAGES))
        target = "parent" if stage == "heeds" else random.choice(TARGETS)
        after = random.choice((0.0, 0.05, 0.3, 1.0)) * random.random()
        kill = Kill(command, random.choice(SIGNALS), target, stage, after)
        found.append(Case(str(kill), partial(_act, kill, index % 10 == 7)))
    return found


def _act(kill: Kill, is_real: bool, folder: Path) -> Outcome:
    place = folder / "run"
    place.mkdir()
    (place / "test_properties.py").write_text(PROPERTIES)
    is_pytest = kill.command == "pytest"
    program = "pytest" if is_pytest else "symm" if is_real else "noting"
    arguments = COMMANDS[kill.command] + (("--json", "found.json") if not is_pytest else ())
    if program == "noting":
        forked.noting = partial(_noting, place / NOTED)  # type: ignore[attr-defined]
    running = runs.Running(folder, *arguments, program=program, is_real=is_real)
    was_hit = _reach(running, kill.stage) and _hit(running, kill, Random(str(kill)))
    ended = running.end()
    found = _problems(kill, ended, was_hit)
    what = "hit" if was_hit else "over before"
    return Outcome(
        tuple(f"{kill}{', a real command' if is_real else ''}: {each}" for each in found),
        f"{kill.command} {what}, status {ended.status}",
    )


def _noting(notes: Path, arguments: tuple[str, ...]) -> object:
    """In the child: the command line, with a line in a file for all that has been kept."""
    from harness.campaign.keeper import Keeper

    keep = Keeper.keep

    def keep_and_note(self: Keeper, *given: object, **named: object) -> object:
        found = keep(self, *given, **named)  # type: ignore[arg-type]
        with notes.open("a") as lines:
            lines.write(f"{found.finding.rule}\n")
        return found

    Keeper.keep = keep_and_note  # type: ignore[assignment, method-assign]
    return forked.symm(arguments)


def _reach(running: runs.Running, stage: str) -> bool:
    """Wait until a command has come so far. False where it ends before."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and not running.has_ended():
        if stage == "heeds" and _heeds(running.pid):
            return True
        if stage == "kept" and any((running.folder / "kept").rglob("*.json")):
            return True
        if stage == "ranks" and len(running.processes()) >= 4:
            return True
        time.sleep(0.02)
    return not running.has_ended()


def _heeds(pid: int) -> bool:
    """Whether a process has a handler for SIGHUP: before, it ends as any program does."""
    with suppress(OSError):
        (caught,) = re.findall(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
        return bool(int(caught, 16) >> (signal.SIGHUP - 1) & 1)
    return False


def _hit(running: runs.Running, kill: Kill, random: Random) -> bool:
    """Send the signal; one that stops is followed by the one that wakes."""
    time.sleep(kill.after)
    targets = _targets(running, kill.target, random)
    if running.has_ended() or not targets:
        return False
    number = signal.Signals[kill.signal]
    for target in targets:
        with suppress(psutil.Error):
            target.send_signal(number)
    if number == signal.SIGSTOP:
        time.sleep(random.random() * 3)
        for target in targets:
            with suppress(psutil.Error):
                target.send_signal(signal.SIGCONT)
    return True


def _targets(running: runs.Running, target: str, random: Random) -> Sequence[psutil.Process]:
    """The parent comes first, then its zygote, then ranks."""
    found = running.processes()
    parent = [each for each in found if each.pid == running.pid]
    zygotes = [each for each in found if _parent(each) == running.pid]
    ranks = [each for each in found if _parent(each) in {zygote.pid for zygote in zygotes}]
    if target == "all":
        return found
    return {"parent": parent, "zygote": zygotes[:1], "rank": random.sample(ranks, 1) if ranks else []}[target]


def _parent(process: psutil.Process) -> int:
    try:
        return process.ppid()
    except psutil.Error:
        return 0


def _problems(kill: Kill, ended: runs.Ended, was_hit: bool) -> list[str]:
    is_parent = was_hit and kill.target in ("parent", "all") and kill.signal in ENDED
    right = (PYTEST if kill.command == "pytest" else ENDED).get(kill.signal)
    # a signal that meets a command at its very end comes too late; a rank's or a zygote's end is a finding or an error
    statuses = (0, 1, 2) if not is_parent else (right, *((0, 1) if _has_said_all(kill, ended) else ()))
    found = runs.problems(ended, [each for each in statuses if each is not None], lines=4)
    if kill.command == "pytest":
        found = [each for each in found if not each.startswith(("status 2 without", "a refusal of", "an unexpected"))]
    if ended.status == -signal.SIGKILL:
        found = [each for each in found if "file " not in each]
    kept = ended.folder / "kept"
    torn = [path.name for path in kept.rglob("[!.]*.json") if not runs.is_whole(path)]
    found += [f"a torn seed file: {', '.join(torn)}"] if torn else []
    hidden = [path.name for path in kept.rglob(".*") if path.is_file()]
    found += [f"half a seed file left: {', '.join(hidden)}"] if hidden and ended.status != -signal.SIGKILL else []
    lost = _noted(ended) - {_rule(path) for path in kept.rglob("*.json")}
    return found + ([f"found and lost: {', '.join(sorted(lost))}"] if lost else [])


def _has_said_all(kill: Kill, ended: runs.Ended) -> bool:
    return (ended.folder / "found.json").exists() or (kill.command == "pytest" and " in " in runs.last(ended.out))


def _noted(ended: runs.Ended) -> set[str]:
    notes = ended.folder / NOTED
    return {*notes.read_text().split()} if notes.exists() else set()


def _rule(path: Path) -> str:
    """Of a seed file by its name."""
    return re.sub(r"-[0-9a-f]{10}\.json$", "", path.name)
