"""How a night scales with its shards: runs 1, 2, 4 and 8 of them side by side on this machine, and extends that to 64.

    python docs/measurements/shards.py --seconds 60
    python docs/measurements/record.py sim-shards -- python docs/measurements/shards.py --seconds 60

Each run is a night of its own: its shards start at once, draw for the same time, and are joined. The model has one
assumption: a shard that has the cores which one shard alone keeps busy draws as fast as that one, since shards share
nothing. So shards on cores of their own add up, and on one machine they add up until its cores are busy.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

MODELLED = (1, 2, 4, 8, 16, 32, 64)
NOTING = """
import hashlib, sys
import msgspec
from harness.cli import main
from harness.world.world import World

notes, run = open(sys.argv[1], "w", buffering=1), World.run

def noting(self, scenario, **how):
    notes.write(hashlib.sha256(msgspec.json.encode(scenario)).hexdigest() + "\\n")
    return run(self, scenario, **how)

World.run = noting
sys.argv = ["symm", *sys.argv[2:]]
main.main()
"""
"""The command, with a line for each scenario that runs."""


class Shards(NamedTuple):
    """What so many shards did in a time."""

    shards: int
    seconds: float
    draws: int
    scenarios: int
    """Different ones that ran on any shard, smaller cases of findings included."""
    findings: int
    busy: float
    """Cores that a shard kept busy, in the mean over its whole life."""

    @property
    def rate(self) -> float:
        """Draws a second of all shards together."""
        return self.draws / self.seconds

    def as_data(self) -> dict[str, Any]:
        return {**self._asdict(), "busy": round(self.busy, 2), "draws_per_second": round(self.rate, 2)}


def measure(count: int, seconds: float, options: Sequence[str]) -> Shards:
    """Run a night of so many shards side by side, for so long."""
    from harness.nights.folder import RunFolder  # noqa: PLC0415  (the model needs no harness)
    from harness.nights.merge import merge  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as name:
        folder, began = Path(name), time.monotonic()
        started = [_start(folder, index, count, seconds, options) for index in range(1, count + 1)]
        busy = [_busy(process, began) for process in started]
        merged = merge([folder / "night"], folder / "joined")
        facts = merged.facts(RunFolder(folder / "joined"))
        if merged.problems or merged.missing:
            sys.exit(f"{count} shards: {[*merged.problems, *merged.missing]}")
        scenarios = {line for notes in folder.glob("notes-*") for line in notes.read_text().splitlines()}
    return Shards(count, seconds, facts["draws"], len(scenarios), len(facts["findings"]), sum(busy) / count)


def _start(folder: Path, index: int, count: int, seconds: float, options: Sequence[str]) -> subprocess.Popen[bytes]:
    shard = ("--shard", f"{index}/{count}", "--run", str(folder / "night" / str(index)))
    fuzz = ("fuzz", "--substrate", "sim", "--minutes", str(seconds / 60), *shard, *options)
    return subprocess.Popen(
        [sys.executable, "-c", NOTING, str(folder / f"notes-{index}"), *fuzz], stdout=subprocess.DEVNULL
    )


def _busy(process: subprocess.Popen[bytes], began: float) -> float:
    """Wait for a shard that began at a time. Cores that it and its ranks kept busy."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):
        sys.exit(f"a shard ended with status {process.returncode}")
    return (used.ru_utime + used.ru_stime) / (time.monotonic() - began)


def model(few: Shards, cores: int) -> list[dict[str, Any]]:
    """Draws a second of so many shards as a few let expect: each on cores of its own, and all on this machine."""
    rate, room = few.rate / few.shards, cores / few.busy
    return [
        {
            "shards": count,
            "cores": round(count * few.busy, 1),
            "own_cores": round(count * rate, 1),
            "this_machine": round(min(count, max(room, 1)) * rate, 1),
        }
        for count in MODELLED
    ]


def main(arguments: list[str]) -> None:
    """Measure, show and write."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--shards", default="1,2,4,8", help="how many side by side, in turn; the model rests on the first"
    )
    made.add_argument("--seconds", type=float, default=60.0, help="for which each night draws")
    made.add_argument("--json", type=Path, metavar="FILE")
    made.add_argument("options", nargs="*", help="of symm fuzz, after --")
    given = made.parse_args(arguments)
    from harness.world.environment import describe  # noqa: PLC0415

    options = given.options or ["--world", "4", "--seed", "20"]
    counts = [int(each) for each in given.shards.split(",")]
    measured = []
    for count in counts:
        measured.append(measure(count, given.seconds, options))
        print(json.dumps(measured[-1].as_data()), flush=True)
    cores = len(os.sched_getaffinity(0))
    found = {
        "schema": 1,
        "scaling": [each.as_data() for each in measured],
        "model": model(measured[0], cores),
        "cores": cores,
        "options": options,
        "environment": describe(),
    }
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
