"""Runs the scenario of a seed file again, on the same system or on another, and makes it smaller."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from harness.campaign.keeper import Found, Keeper
from harness.campaign.seeds import Seed, load, save
from harness.campaign.smaller.shrinking import Shrinking
from harness.campaign.trials import Trials
from harness.clock import CLOCK, Clock
from harness.oracle.findings import Record
from harness.oracle.judge import judge
from harness.scenario.bases import Via
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Collective, Step
from harness.scenario.system import KERNELS, Sites, System
from harness.world.watch import Debugger
from harness.world.world import World


class Run(NamedTuple):
    """What was found in one run, and what each rank printed."""

    findings: list[Record]
    printed: tuple[str, ...]


def with_system(
    scenario: Scenario, pool: str | None = None, collectives: str | None = None, sites: Sites | None = None
) -> Scenario:
    """The scenario with another pool, other collectives, or other buffer sites.

    `library` sends every collective through the communicator; anything else names a kernel, and every
    collective that a kernel can run goes through it. The plug-in that the scenario names itself changes nothing.
    """
    system = scenario.system
    if pool is not None:
        system = msgspec.structs.replace(system, pool=pool)
    if sites is not None:
        system = msgspec.structs.replace(system, sites=sites)
    steps = scenario.steps
    is_own = collectives == system.collectives and collectives not in KERNELS
    if collectives is not None and not is_own:
        via: Via = "library" if collectives == "library" else "kernel"
        steps = tuple(_through(step, via) for step in steps)
        kernels = System().collectives if collectives == "library" else collectives
        system = msgspec.structs.replace(system, collectives=kernels)
    return msgspec.structs.replace(scenario, steps=steps, system=system)


def with_systems(
    scenarios: Sequence[Scenario], pool: str | None, collectives: str | None, sites: Sites | None
) -> list[Scenario]:
    """The last scenario with other parts, and those before it where theirs are the same: draws of another system keep
    it."""
    own = scenarios[-1].system
    return [
        with_system(
            each,
            pool if each.system.pool == own.pool else None,
            collectives if each.system.collectives == own.collectives else None,
            sites if each.system.sites == own.sites else None,
        )
        for each in scenarios
    ]


def _through(step: Step, via: Via) -> Step:
    """A step that goes that way, if it is a collective that can."""
    if not isinstance(step, Collective) or (step.via == "copy-engine" and via == "library"):
        return step
    return msgspec.structs.replace(step, via=via if step.has_kernels else "library")


def replay(
    world: World,
    scenario: Scenario,
    times: int = 1,
    preceded_by: Sequence[Scenario] = (),
    debugger: Debugger | None = None,
) -> Iterator[Run]:
    """What came of each run, in which the user may debug a rank. Where draws have to go before it, each run has them,
    on fresh ranks."""
    for _ in range(times):
        if preceded_by:
            world.renew()
        for before in preceded_by:
            world.run(before)
        draw = world.run(scenario, debugger=debugger)
        yield Run([finding.record() for finding in judge(draw)], draw.printed)


def smaller(
    world: World, seed: Seed, folder: Path, environment: dict[str, Any], seconds: float, clock: Clock = CLOCK
) -> Found | None:
    """Shrink the scenario of a seed for so long, and keep the smallest case, signed, as a file in `folder`. None where
    it does not fail. Of several findings it is the one that the seed is about, or the first."""
    draw = world.run(seed.scenario)
    findings = judge(draw)
    if not findings:
        return None
    wanted = {record.key for record in seed.findings[:1]}
    first = next((finding for finding in findings if finding.key in wanted), findings[0])
    keeper, key = Keeper(folder, environment), first.key
    keeper.keep(seed.scenario, first, findings, printed=draw.printed, costs_ranks=not draw.is_clean, key=key)
    trials = Trials(world, keeper, judge, lambda: None, clock)
    Shrinking(trials).run(key, clock.now() + seconds, costs_ranks=not draw.is_clean)
    keeper.sign_own(key, keeper.settled(key))
    found = keeper.found[key]
    if seed.note:
        annotate(Path(found.seed_file), seed.note)
    return found


def annotate(path: Path, note: str) -> None:
    """Write a note into a seed file. Raises `UsageError` where that is impossible."""
    save(msgspec.structs.replace(load(path), note=note), path)
