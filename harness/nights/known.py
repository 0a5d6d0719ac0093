"""The findings that a user knows: seed files in a folder. A night counts them, and looks for others.

Invariant: what is known is never shrunk and never a failure. Nothing says that it is gone but runs of its own case.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Literal

import msgspec

from harness.campaign import seeds
from harness.campaign.seeds import Reruns, Seed
from harness.campaign.settled import Settled
from harness.campaign.symptoms import shown
from harness.clock import CLOCK, Clock
from harness.errors import UsageError
from harness.oracle.judge import examine
from harness.scenario.steps import Collective
from harness.trace.draw import Draw
from harness.world.world import World

SHARE = 0.03
"""Of the time of a night, what goes into running known cases again before it."""
SECONDS = 5.0
"""The same where draws are counted, and not time."""
RUNS = 5
"""Runs in which a case that always fails does so once, unless its bug is gone. So many show a rate."""
UNSURE_RUNS = 20
"""The same of a case that was seen to fail in fewer runs, so that its rate is not known."""
MOST_RUNS = 60
Status = Literal["known", "flaky", "gone", "untried"]
MET = "known", "flaky"
"""What is no failure of a night that meets it."""


class Known(msgspec.Struct):
    """A finding that is known, by its seed file, and what this night saw of it."""

    path: Path
    seed: Seed
    settled: Settled
    failed: int = 0
    runs: int = 0
    """Of its case, in this night."""
    refused: str = ""
    """Why this world does not run its case, if it does not."""

    @property
    def rule(self) -> str:
        return self.seed.findings[0].rule

    @property
    def rate(self) -> tuple[int, int] | None:
        """In how many runs its case failed: in this night, and where that is no news in those that its file has."""
        noted = self.seed.reruns or Reruns(0, 0)
        if not self.runs:
            return (noted.failed, noted.runs) if noted.runs else None
        return (self.failed + noted.failed, self.runs + noted.runs) if noted.failed else (self.failed, self.runs)

    @property
    def needed(self) -> int:
        """Runs in a row after which a case that passes is gone: those in which one of its rate fails almost surely."""
        noted = self.seed.reruns
        if noted is None or noted.runs < RUNS or not noted.failed:
            return UNSURE_RUNS
        return min(max(RUNS, math.ceil(3 * noted.runs / noted.failed)), MOST_RUNS)

    @property
    def comes_again(self) -> bool:
        """Whether its case was seen to fail on fresh ranks, or nothing says that it was not: else a pass shows
        nothing."""
        noted = self.seed.reruns
        return noted is None or noted.failed > 0 or bool(self.seed.preceded_by)

    @property
    def status(self) -> Status:
        """What this night says of it. Met in a draw, it is not gone."""
        is_met = bool(self.settled.draws or self.failed)
        if not is_met:
            return "gone" if self.comes_again and self.runs >= self.needed else "untried"
        failed, runs = self.rate or (1, 1)
        return "flaky" if failed < runs else "known"

    def save(self) -> None:
        """Note its signature, and what draws showed that shrank to it, beside what the file says by now. One that is
        gone stays away, and one that cannot be written as it is."""
        if self.seed.signature or self.failed:
            with suppress(UsageError):
                seeds.sign(self.path, self.settled.signature, self.settled.noted)


class Folder:
    """The known findings of a folder, one of each signature; none where there is no folder yet. `unread` has a sentence
    on each file that is no seed file."""

    def __init__(self, folder: Path | None) -> None:
        if folder is not None and folder.exists() and not folder.is_dir():
            raise UsageError(f"--known {folder}: it is not a directory")
        self.is_given = folder is not None
        self.replayed = 0.0
        """Seconds of running known cases again."""
        self.unread: list[str] = []
        self.all: list[Known] = []
        signatures: set[str] = set()
        for path in sorted(folder.glob("*.json")) if folder is not None else ():
            known = self._read(path)
            if known is not None and known.settled.signature not in signatures:
                signatures.add(known.settled.signature)
                self.all.append(known)

    def _read(self, path: Path) -> Known | None:
        try:
            seed = seeds.load(path)
        except UsageError as error:
            self.unread.append(str(error))
            return None
        if not seed.findings:  # such as a draw that was interrupted
            return None
        settled = Settled.of(seed.findings, seed.scenario, noted=seed.symptoms, is_smallest=seed.is_smallest)
        return Known(path, seed, settled)

    def __iter__(self) -> Iterator[Known]:
        return iter(self.all)

    @property
    def met(self) -> list[Known]:
        """Those that this night met."""
        return [known for known in self if known.status in MET]

    def keep_met(self, folder: Path) -> None:
        """Copy the files of those that were met into the folder of a run, signed, so that it is whole by itself."""
        for known in self.met:
            if not (path := folder / known.path.name).exists():
                seeds.save(msgspec.structs.replace(known.seed, signature=known.settled.signature), path)

    def save(self) -> None:
        """Note in the files what this night has learned."""
        for known in self:
            known.save()


def rate(findings: Iterable[Mapping[str, Any]]) -> list[int] | None:
    """How often the case of a finding failed, as the JSON of several runs says: the runs of each, and once what was
    noted in its file before them."""
    rated = [(each["rate"], each.get("ran", each["rate"])) for each in findings if each.get("rate")]
    if not rated:
        return None
    failed, runs = (sum(ran[place] for _, ran in rated) for place in (0, 1))
    before = max((whole[0] - ran[0], whole[1] - ran[1]) for whole, ran in rated)
    return [failed + before[0], runs + before[1]] if before[0] or not runs else [failed, runs]


def share(seconds: Mapping[str, float], *parts: str) -> float:
    """The share of a night that went into known findings, of what `known_seconds` in its JSON holds: into these parts,
    or into running their cases again and shrinking them once more."""
    spent = sum(seconds[part] for part in parts or ("replayed", "shrinking"))
    return round(spent / seconds["night"], 4) if seconds.get("night") else 0.0


def replay(
    world: World,
    folder: Folder,
    minutes: float | None,
    number: int,
    named: Collection[str | None] = (),
    clock: Clock = CLOCK,
) -> float:
    """Run known cases again before a night of so many minutes, in an order of its `number`: each once, then those that
    passed until it is clear whether they are gone. Returns the minutes that are left for the night, in so far as these
    count. A plug-in that a seed names and that is not `named` does not run."""
    began = clock.now()
    try:
        _replay(world, folder, began + (SECONDS if minutes is None else 60 * minutes * SHARE), number, named, clock)
    finally:
        folder.replayed = clock.now() - began
    return 0.0 if minutes is None else max(0.0, minutes - folder.replayed / 60)


def _replay(world: World, folder: Folder, end: float, number: int, named: Collection[str | None], clock: Clock) -> None:
    can_run = [known for known in folder if known.seed.scenario.world <= world.size and _is_trusted(known, named)]
    Random(number).shuffle(can_run)
    for known in can_run:
        if clock.now() >= end:
            return
        _run(world, known)
    for known in can_run:
        while not known.failed and known.runs < known.needed and clock.now() < end:
            if not _run(world, known):
                break


def _is_trusted(known: Known, named: Collection[str | None]) -> bool:
    return all(name in named for each in known.seed.scenarios for name in seeds.plug_ins(each.system).values())


def _run(world: World, known: Known) -> bool:
    """One run of a known case, unless the world refuses it. A hang is presumed as soon as ranks are silent. Returns
    whether the run says anything: a pass is one of the substrate on which the case failed, in which all else went
    right."""
    try:
        draw = _draw(world, known)
    except UsageError as error:
        known.refused = str(error)
        return False
    own, verdict = shown(known.seed.findings[0], known.seed.scenario), examine(draw)
    has_failed = any(shown(finding, known.seed.scenario) == own for finding in verdict.findings)
    has_calls = any(isinstance(step, Collective) for step in known.seed.scenario.steps)  # a leak needs none
    tests_nothing = verdict.is_vacuous and has_calls
    is_pass = not verdict.findings and not tests_nothing and draw.is_clean and _is_at_home(world, known)
    known.runs += has_failed or is_pass
    known.failed += has_failed
    return has_failed or is_pass


def _is_at_home(world: World, known: Known) -> bool:
    """Whether its case failed on this substrate. Old files do not say."""
    here = world.platform.name
    return bool(known.seed.environment.get("substrate", here) == here)


def _draw(world: World, known: Known) -> Draw:
    if known.seed.preceded_by:
        world.renew()
    for before in known.seed.preceded_by:
        world.run(before, hurried=True)
    return world.run(known.seed.scenario, hurried=True)
