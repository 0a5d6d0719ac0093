"""`python -m tests.hostile`: run the kinds, print the table, and write it as JSON."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from tests.tools.processes import VARIABLE, new_mark

KINDS = ("kills", "files", "lines", "plug_ins", "states")
ROOT = Path(__file__).parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 where everything was as demanded, else 1."""
    given = parser().parse_args(arguments)
    if VARIABLE not in os.environ:
        _start_anew()
    from tests.hostile import warmth, workers

    warmth.warm()
    began = time.monotonic()
    listed, tallies, demanded = plan(given)
    shared = {*os.listdir("/dev/shm")}
    for (kind, number, case), outcome, seconds, used in workers.run(
        listed, given.jobs or workers.cores() + 1, given.keep
    ):
        tally = tallies[kind]
        tally.number += case.number
        tally.seconds += seconds
        tally.used += used
        again = f"make hostile HOSTILE='--seed {given.seed} --share {given.share:g} --case {kind}:{number}'"
        tally.failures += [{"case": case.name, "problem": each, "again": again} for each in outcome.problems]
        if outcome.problems or given.verbose:
            what = "; ".join(outcome.problems) or outcome.shown or "as demanded"
            print(f"{kind}:{number} {case.name} ({seconds:.1f} s, {used:.1f} s of a core): {what}", flush=True)
        for shown in filter(None, [outcome.shown]):
            tally.shown[shown] = tally.shown.get(shown, 0) + 1
    litter = sorted({*os.listdir("/dev/shm")} - shared)
    found = {
        "schema": 1,
        "seed": given.seed,
        "share": given.share,
        "seconds": time.monotonic() - began,
        "hostile": [
            {"kind": kind, "number": tally.number, "demanded": demanded[kind], "failures": tally.failures}
            for kind, tally in tallies.items()
        ],
        "litter": litter,
    }
    show(found, tallies)
    if given.json:
        from harness.world.environment import describe

        given.json.write_text(json.dumps({**found, "environment": describe()}, indent=2, ensure_ascii=False) + "\n")
    return 1 if any(tally.failures for tally in tallies.values()) else 0


def parser() -> argparse.ArgumentParser:
    """Its options."""
    made = argparse.ArgumentParser(prog="python -m tests.hostile", description=sys.modules["tests.hostile"].__doc__)
    made.add_argument("--seed", type=int, default=0, help="the same seed draws the same acts")
    made.add_argument("--share", type=float, default=1.0, help="of the acts, such as 0.1; default: all")
    made.add_argument("--kind", action="append", choices=KINDS, help="only these; repeatable")
    made.add_argument("--case", metavar="KIND:NUMBER", help="only this one")
    made.add_argument("--jobs", type=int, help="acts at one time; default: one a core and one more, as acts also wait")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the table's facts")
    made.add_argument("--keep", type=Path, default=ROOT / "hostile-failures", help="where folders of failures are kept")
    made.add_argument("--verbose", action="store_true", help="a line for every act")
    return made


def plan(given: argparse.Namespace) -> tuple[list[Any], dict[str, Any], dict[str, str]]:
    """The cases of every kind that was asked for, the longest kinds first."""
    from tests.hostile.case import Tally

    only, _, number = (given.case or "").partition(":")
    listed, tallies, demanded = [], {}, {}
    for name in [only] if only else given.kind or KINDS:
        kind = importlib.import_module(f"tests.hostile.{name}")
        drawn = kind.cases(Random(f"{given.seed} {name}"), max(1, round(given.share * kind.NUMBER)))
        listed += [(name, index, case) for index, case in enumerate(drawn) if not only or index == int(number)]
        tallies[name], demanded[name] = Tally(), kind.DEMANDED
    return listed, tallies, demanded


def show(found: dict[str, Any], tallies: dict[str, Any]) -> None:
    """The table, and how to repeat each failure."""
    print(f"\n{'kind':10} {'number':>6} {'failures':>8} {'seconds':>8} {'of cores':>8}  demanded")
    for each in found["hostile"]:
        tally = tallies[each["kind"]]
        failures, times = len(each["failures"]), f"{tally.seconds:8.1f} {tally.used:8.1f}"
        print(f"{each['kind']:10} {each['number']:6} {failures:8} {times}  {each['demanded']}")
    print(f"{found['seconds']:.0f} s in all, seed {found['seed']}, share {found['share']:g}")
    if found["litter"]:
        print(f"new in /dev/shm, of this run or of another: {', '.join(found['litter'])}")
    for each in found["hostile"]:
        for failure in each["failures"]:
            print(f"\n{each['kind']}: {failure['case']}\n  {failure['problem']}\n  {failure['again']}")


def _start_anew() -> None:
    """Once more, with the environment that ranks need, and a mark that forked processes can change."""
    from harness.world.platform import choose
    from harness.world.zygote import QUIET

    environment = {**os.environ, **QUIET, **choose("sim", 1).environment, **new_mark(), "CUDA_VISIBLE_DEVICES": ""}
    os.chdir(ROOT)
    os.execve(sys.executable, [sys.executable, "-m", "tests.hostile", *sys.argv[1:]], environment)


if __name__ == "__main__":
    sys.exit(main())
