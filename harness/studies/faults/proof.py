"""Looks for planted faults: each with several seeds, and nothing where there is none.

Invariant: a fault counts as found only where the first rule that the first failing draw broke is one that it
must break.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st

from harness.campaign import seeds
from harness.campaign.campaign import Campaign
from harness.campaign.keeper import Found
from harness.campaign.limits import SHRINK_SECONDS, Limits
from harness.clock import CLOCK, Clock
from harness.nights.guide import Guide
from harness.scenario.hazards import hazards
from harness.scenario.scenario import Scenario
from harness.scenario.steps import STREAMS, Steady
from harness.scenario.system import System
from harness.strategies.flows import Tokens, flows
from harness.strategies.programs import WITH_GRAPHS, scenarios
from harness.studies.faults.catalogue import Fault, select
from harness.world.world import World

LIMITS = Limits(more=1, shrinks=120, known_seconds=10.0, reruns=0)
UNPADDED: tuple[Tokens, ...] = ("engine", "uneven")
(UNEVEN,) = select(["F20"])

BY_ADDRESS = {
    "deferred": ("hot-path-growth",),
    "per-group": ("hot-path-growth", "segment-mismatch", "offset-mismatch"),
}
"""What right designs break where ranks have their segments in different orders, for which `sound` leaves them out of
some draws where the platform's allocator chooses by address."""


class Hunt(msgspec.Struct, frozen=True):
    """What came of looking for a fault with one seed. `seconds` are those until the first finding."""

    rule: str
    """The first finding's; empty if there was none."""
    rules: tuple[str, ...]
    """Those of the smallest case."""
    draws: int
    seconds: float
    world: int
    steps: int
    seed_file: str
    signature: str = ""


class Outcome(msgspec.Struct, frozen=True):
    """A fault and the hunts for it."""

    fault: Fault
    hunts: tuple[Hunt, ...]

    @property
    def found(self) -> list[Hunt]:
        """The hunts that named a rule first that the fault must break."""
        return [hunt for hunt in self.hunts if hunt.rule in self.fault.rules]

    @property
    def missed(self) -> dict[int, Hunt]:
        """The others, by their seed."""
        return {seed: hunt for seed, hunt in enumerate(self.hunts) if hunt.rule not in self.fault.rules}

    @property
    def is_found(self) -> bool:
        return len(self.found) == len(self.hunts)

    @property
    def rules(self) -> list[str]:
        """Those that were broken, by any seed."""
        return list(dict.fromkeys(rule for hunt in self.hunts for rule in hunt.rules))

    def as_data(self) -> dict[str, object]:
        """Plain data: medians over the hunts that found it, the largest of the small cases, and each hunt."""
        found = self.found
        return {
            "id": self.fault.id,
            "name": self.fault.name,
            "found": len(found),
            "of": len(self.hunts),
            "rules": self.rules,
            "median_draws": statistics.median(hunt.draws for hunt in found) if found else None,
            "median_seconds": round(statistics.median(hunt.seconds for hunt in found), 3) if found else None,
            "world": max((hunt.world for hunt in found), default=None),
            "steps": max((hunt.steps for hunt in found), default=None),
            "signatures": [hunt.signature for hunt in self.hunts if hunt.signature],
            "seed_files": [hunt.seed_file for hunt in self.hunts if hunt.seed_file],
            "hunts": [
                {"seed": seed, "rule": hunt.rule, "draws": hunt.draws, "seconds": round(hunt.seconds, 3)}
                for seed, hunt in enumerate(self.hunts)
            ],
            "missed": [
                {"seed": seed, "rule": hunt.rule, "draws": hunt.draws, "seed_file": hunt.seed_file}
                for seed, hunt in self.missed.items()
            ],
        }


def prove(
    world: World,
    faults: Sequence[Fault],
    tries: int,
    draws: int,
    size: int,
    seeds_dir: Path,
    shrink_seconds: float = SHRINK_SECONDS,
    clock: Clock = CLOCK,
) -> Iterator[Outcome]:
    """Look for each fault with seeds 0 to `tries - 1`, in worlds of at most `size` ranks and `draws` draws each.

    Where a hunt is interrupted, what came of those before it is given out first.
    """
    limits = LIMITS.within(shrink_seconds)
    for fault in faults:
        hunts: list[Hunt] = []
        try:
            for seed in range(tries):
                folder = seeds_dir / fault.id / str(seed)
                hunts.append(hunt(world, fault, seed, draws, size, folder, limits, clock))
        except BaseException:
            if hunts:
                yield Outcome(fault, tuple(hunts))
            raise
        yield Outcome(fault, tuple(hunts))


def hunt(
    world: World,
    fault: Fault,
    seed: int,
    draws: int,
    size: int,
    folder: Path,
    limits: Limits,
    clock: Clock = CLOCK,
) -> Hunt:
    """Look for a fault with one seed, and shrink the first case of it."""
    began = clock.now()
    first: list[float] = []

    def noticed(tally: object) -> None:
        if campaign.tally.found and not first:
            first.append(clock.now() - began)

    campaign = Campaign(
        world,
        fault.draws(size),
        folder,
        seed=seed,
        progress=noticed,
        limits=limits,
        guide=Guide(seed),
        clock=clock,
    )
    tally = campaign.run(draws)
    if not tally.found:
        return Hunt("", (), tally.draws, clock.now() - began, 0, 0, "")
    found = min(tally.found.values(), key=_order)
    return Hunt(
        found.finding.rule,
        tuple(dict.fromkeys(record.rule for record in seeds.load(found.seed_file).findings)),
        found.draws_to_find,
        first[0],
        found.scenario.world,
        len(found.scenario.steps),
        found.seed_file,
        found.signature,
    )


def _order(found: Found) -> int:
    return found.draws_to_find


def sound(size: int, by_address: bool = False) -> st.SearchStrategy[Scenario]:
    """Everything right: the default system and a pool for each group, free programs with and without graphs and
    further streams, and flows, by both collectives. What their scenarios may break all the same says `expected`.

    Over an allocator that chooses `by_address` (`harness.world.platform`), a pool for each group is not right, and none
    has always stopped to grow after two equal layers.
    """
    systems = (System(),) if by_address else (System(), System("per-group"))
    kinds: list[dict[str, Any]] = [{}, {"max_steps": WITH_GRAPHS, "graphs": True}, {"streams": STREAMS}]
    free = [
        scenarios(size, system=system, falling=not by_address, **options) for options in kinds for system in systems
    ]
    layers = [flows(size, tokens=tokens, system=system) for tokens in UNPADDED for system in systems]
    padded = [flows(size, tokens="padded", system=system, steady=not by_address) for system in systems]
    drawn = st.one_of(*free, *layers, *padded)
    return drawn.filter(_has_no_steady_state) if by_address else drawn


def _has_no_steady_state(scenario: Scenario) -> bool:
    """Whether a scenario never says that pools need not grow; free programs may, too."""
    return not any(isinstance(step, Steady) for step in scenario.steps)


def expected(scenario: Scenario) -> tuple[str, ...]:
    """The rules that a right system may break: a pool for each group where sizes differ between the ranks of one, and
    nothing lets them agree. Planted as a fault it is F20. And what an allocator that chooses by address breaks, where
    addresses fall on some ranks and rise on others."""
    is_uneven = scenario.system.pool == "per-group" and "uneven" in hazards(scenario.steps, scenario.topology)
    is_mixed = 0 < len(scenario.falls_on) < scenario.world
    by_address = BY_ADDRESS.get(scenario.system.pool, ()) if is_mixed else ()
    return (*(UNEVEN.rules if is_uneven else ()), *by_address)
