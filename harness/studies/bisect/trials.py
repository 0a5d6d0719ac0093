"""A seed on one version of a package: installed, replayed in processes of its own, and judged.

Invariant: a verdict comes from a replay that ran to its end. Everything else is a version skipped, with the reason.
"""

from __future__ import annotations

import json
import math
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from packaging.version import Version

from harness import interrupts
from harness.campaign import seeds
from harness.campaign.seeds import Seed
from harness.errors import UsageError
from harness.studies.bisect.children import Ended, run
from harness.studies.bisect.environments import NotInstalled, environment, install, names, scratch
from harness.studies.bisect.search import Tried
from harness.studies.bisect.versions import Source

CLEAN, FAILS = 0, 1
"""Exit statuses of `symm replay` that are verdicts."""
MISSED = 0.01
"""Chance with which a race may pass in all runs with a version that has it."""
MOST_RUNS = 50
NO_LIBRARY_ON_SIM = ("nvidia-nccl-", "nccl4py")
"""Beginnings of the names of packages that the simulation does not use."""


class Request(msgspec.Struct, frozen=True):
    """What is asked of every version."""

    seed: Seed
    package: str
    source: Source
    substrate: str
    """`sim` or `nccl`, chosen once for all versions: a version on the other one would be no comparison."""
    runs: int
    options: tuple[str, ...] = ()
    """Further options of `symm replay`."""
    along: tuple[str, ...] = ()
    """Packages that each version brings along, where it depends on them."""
    has_plug_ins: bool = False
    """Whether ranks look into the working directory for parts of the system under test."""

    def __post_init__(self) -> None:
        if self.substrate == "sim" and self.package.startswith(NO_LIBRARY_ON_SIM):
            raise UsageError(f"--over {self.package}: the simulation does not use it; it takes --substrate nccl")

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules that are the fault; none where any is."""
        return tuple(dict.fromkeys(record.rule for record in self.seed.findings))


def runs_of(seed: Seed) -> int:
    """Runs for each version: 1, or of a race as many as show it with a chance of 99 %, by its frequency in the seed."""
    reruns = seed.reruns
    if reruns is None or reruns.after or reruns.failed >= reruns.runs:
        return 1
    share = max(reruns.failed, 0.5) / reruns.runs  # of one that never failed, half a failure is known to be possible
    return min(MOST_RUNS, math.ceil(math.log(MISSED) / math.log(1 - share)))


def known_version(seed: Seed, package: str) -> str | None:
    """The version of a package that a seed was found with, where the seed says it."""
    key = "nccl" if package.startswith("nvidia-nccl-") else package
    found = seed.environment.get(key)
    return found if isinstance(found, str) else None


class Trials:
    """Tries versions of a request, one after another."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def attempt(self, version: str) -> Tried:
        """The verdict on one version. Raises `UsageError` where a verdict on any version would be of another."""
        interrupts.check()
        request = self._request
        with scratch() as folder:
            try:
                places = install(request.package, version, request.source, folder, request.along)
            except NotInstalled as error:
                return Tried(version, "skipped", why=str(error))
            self._check_not_hidden(places)
            ended, found = self._replay(places, folder)
        interrupts.check()
        return self._verdict(version, ended, found)

    def _check_not_hidden(self, places: Sequence[Path]) -> None:
        """Plug-ins are looked for in the working directory first, and so is what they import."""
        here = Path.cwd()
        for name in sorted(names(places)) if self._request.has_plug_ins else ():
            for hides in (here / f"{name}.py", here / name / "__init__.py"):
                if hides.exists():
                    raise UsageError(f"{hides} hides every version of {self._request.package}: use another folder")

    def _replay(self, places: Sequence[Path], folder: Path) -> tuple[Ended, Any]:
        request, seed, found = self._request, folder / "seed.json", folder / "found.json"
        seeds.save(request.seed, seed)
        times = "--times", str(request.runs), "--substrate", request.substrate, "--json", str(found)
        # -P: only what the user has named is taken from the working directory
        command = [sys.executable, "-P", "-m", "harness", "replay", str(seed), *times, *request.options]
        ended = run(command, environment(places))
        return ended, json.loads(found.read_bytes()) if found.exists() else None

    def _verdict(self, version: str, ended: Ended, found: Any) -> Tried:
        if ended.status not in (CLEAN, FAILS) or found is None:
            return Tried(version, "skipped", why=why_ended(ended))
        if why := self._other_nccl(version, found["environment"]):
            return Tried(version, "skipped", why=why)
        return judged(version, [[record["rule"] for record in each] for each in found["runs"]], self._request.rules)

    def _other_nccl(self, version: str, facts: dict[str, Any]) -> str:
        """Why ranks did not run the NCCL of this version, or nothing."""
        loaded = facts.get("nccl_loaded") or facts.get("nccl")
        if not self._request.package.startswith("nvidia-nccl-") or loaded is None:
            return ""
        is_it = Version(loaded).release[:3] == Version(version).release[:3]
        return "" if is_it else f"ranks loaded NCCL {loaded}"


def judged(version: str, runs: Sequence[Sequence[str]], rules: Sequence[str]) -> Tried:
    """The verdict on a version by the rules that each run broke, where `rules` are the fault, or any if there is none.

    A version that breaks other rules alone has not the fault.
    """
    counts = Counter(rule for run in runs for rule in dict.fromkeys(run))
    faults = [rule for rule in counts if rule in rules or not rules]
    broken = (*faults, *(rule for rule in counts if rule not in faults))
    failed = sum(any(rule in (faults or counts) for rule in run) for run in runs)
    return Tried(version, "fails" if faults else "other" if counts else "clean", failed, len(runs), broken)


def why_ended(ended: Ended) -> str:
    """Why a replay came to no verdict: its own sentence, a signal, or its last line."""
    if ended.status < 0:
        return f"ended by a signal: {signal.strsignal(-ended.status)}"
    lines = [line.strip() for line in ended.err.splitlines() if line.strip()]
    said = [line.removeprefix("symm: ") for line in lines if line.startswith("symm: ")] or lines
    return said[-1] if said else f"ended with status {ended.status}"
