"""Runs a command that writes JSON, and keeps that JSON as a record with what it was measured on.

    python docs/measurements/record.py sim-fuzz -- symm fuzz --draws 300 --substrate sim
    python docs/measurements/record.py sim-drawn -- symm fuzz --dry --draws 1000 --seed 20 --world 8 --substrate sim
    python docs/measurements/record.py h100-agree --from agree.json --commit 1a2b3c4 -- symm agree --draws 500
    python docs/measurements/record.py sim-tests --figure 'tests passed=2870' --figure 'seconds=210' -- make test

The first two run the command here. The third takes JSON that the command wrote elsewhere. The last is for a command
without `--json`: its figures are given. `make docs` then writes the page.

Invariant: what the command wrote is kept as it is; only the part `run` is added.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
COUNTS = {1: "one", 2: "two", 4: "four", 8: "eight"}


def main(arguments: list[str]) -> None:
    """Write the record that the arguments ask for."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    given, command = parser().parse_args(arguments[:end]), arguments[end + 1 :]
    if given.figure:
        wrote = {"figures": dict(each.split("=", 1) for each in given.figure), "environment": environment()}
    else:
        wrote = json.loads(given.source.read_text()) if given.source else run(command)
    target = FOLDER / f"{given.name}.json"
    before = json.loads(target.read_text())["run"] if target.exists() else {}
    record = {
        "run": {
            "title": given.title or before.get("title") or given.name,
            "command": " ".join(command),
            "machine": given.machine or machine(wrote["environment"]),
            "commit": given.commit or commit(),
            "date": given.date or datetime.datetime.now(datetime.UTC).date().isoformat(),
            **({"note": given.note} if given.note else {}),
        },
        **{key: value for key, value in wrote.items() if key != "run"},
    }
    target.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def parser() -> argparse.ArgumentParser:
    """Its options."""
    made = argparse.ArgumentParser(
        usage="record.py NAME [options] -- COMMAND",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("name", help="of the file, without .json")
    made.add_argument("--from", dest="source", type=Path, metavar="FILE", help="JSON that the command wrote elsewhere")
    made.add_argument("--figure", action="append", metavar="MEASURE=VALUE", help="instead of JSON; repeatable")
    made.add_argument("--title", help="default: that of the record before")
    made.add_argument("--machine", help="default: this one, or the GPUs that the JSON names")
    made.add_argument("--commit", help="default: the head of this checkout")
    made.add_argument("--date", help="default: today")
    made.add_argument("--note")
    return made


def run(command: list[str]) -> dict[str, Any]:
    """What the command writes. 1 is a finding, and no failure."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "written.json"
        ended = subprocess.run([*command, "--json", str(written)], check=False)
        if ended.returncode not in (0, 1):
            sys.exit(ended.returncode)
        found: dict[str, Any] = json.loads(written.read_text())
    return found


def environment() -> dict[str, Any]:
    """Versions here, for a command that does not write them."""
    from harness.world.environment import describe  # noqa: PLC0415  (only where no command has written them)

    return describe()


def machine(facts: dict[str, Any]) -> str:
    """The GPUs, or the cores where there is none."""
    gpus = [name.removeprefix("NVIDIA ").removesuffix(" HBM3") for name in facts.get("gpus") or []]
    return f"{COUNTS.get(len(gpus), len(gpus))} {gpus[0]}" if gpus else f"{os.cpu_count()} cores, no GPU"


def commit() -> str:
    """The head of this checkout; marked where the code that is measured differs from it."""
    changed = git("status", "--porcelain", "--", "../../harness", "../../kernels", "../../topologies")
    return git("rev-parse", "--short=7", "HEAD") + ("-dirty" if changed else "")


def git(*arguments: str) -> str:
    """What git answers here."""
    asked = subprocess.run(["git", *arguments], cwd=Path(__file__).parent, check=True, capture_output=True, text=True)
    return asked.stdout.strip()


if __name__ == "__main__":
    main(sys.argv[1:])
