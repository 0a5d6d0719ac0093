"""The verdict matrix: buffer sites × pool designs × token counts, over the key configurations.

Each cell is a campaign of its own: the flows around a layer on one topology, with one system under test.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, get_args

import msgspec

from harness.campaign.campaign import Campaign
from harness.campaign.keeper import Found
from harness.campaign.limits import Limits
from harness.errors import UsageError
from harness.scenario import topology as topologies_module
from harness.scenario.system import Sites, System
from harness.scenario.topology import Topology
from harness.strategies.flows import Tokens, applies, flows
from harness.strategies.topologies import topologies
from harness.world.world import World

KEY_CONFIGURATIONS = (
    "deepseek-r1-tp8-dpa8",
    "deepseek-r1-tp8-dpa4",
    "deepseek-v32-prefill-cp2-dpa2",
    "deepseek-v32-prefill-cp4-dpa2",
    "qwen3-235b-tp8-ep8-dpa2",
    "qwen3-32b-tp4",
)
SITES: tuple[Sites, ...] = get_args(Sites)
TOKENS: tuple[Tokens, ...] = ("padded", "uneven")
LIMITS = Limits(more=8, shrinks=8, known_seconds=10.0, shrink_seconds=4.0, search_seconds=12.0, reruns=0)


class Cell(msgspec.Struct, frozen=True):
    """The verdict on one system under test on one topology. `found`: broken rules, in the order of finding."""

    topology: str
    sites: Sites
    pool: str
    tokens: Tokens
    draws: int
    vacuous: int
    """Draws that tested nothing."""
    is_complete: bool
    """Whether it ended before its time was up; otherwise findings may be larger than they need to be."""
    found: tuple[Found, ...]
    held: int
    """Most bytes of segments that one rank held at one time, in any draw."""

    @property
    def tested(self) -> int:
        """Draws that tested something."""
        return self.draws - self.vacuous

    def as_data(self) -> dict[str, Any]:
        """The same for a program. `draws_to_find` and `seed_file` are those of the first rule."""
        first = self.found[0] if self.found else None
        return {
            "sites": self.sites,
            "pool": self.pool,
            "tokens": self.tokens,
            "topology": self.topology,
            "draws": self.draws,
            "vacuous": self.vacuous,
            "complete": self.is_complete,
            "rules": [*dict.fromkeys(found.finding.rule for found in self.found)],
            "draws_to_find": first.draws_to_find if first else None,
            "seed_file": first.seed_file if first else None,
            "held": self.held,
            "findings": [
                {
                    "rule": found.finding.rule,
                    "explanation": found.finding.explanation,
                    "draws_to_find": found.draws_to_find,
                    "seed_file": found.seed_file,
                    "world": found.scenario.world,
                    "steps": len(found.scenario.steps),
                }
                for found in self.found
            ],
        }


def configurations(named: Sequence[str] | None = None) -> list[Topology]:
    """The topologies of these names or files, or those of the report: DeepSeek-R1, DeepSeek-V3.2 with context
    parallelism, and Qwen3."""
    return [topologies_module.find(name) for name in named or KEY_CONFIGURATIONS]


def cells(
    named: Sequence[Topology],
    pools: Sequence[str],
    sites: Sequence[Sites] = SITES,
    tokens: Sequence[Tokens] = TOKENS,
) -> list[tuple[Topology, Sites, str, Tokens]]:
    """Every cell, in the order of the table. Tokens differ only where there are two attention-DP ranks.

    Raises `UsageError` for a topology that flows cannot run on, for two of one name, and where no cell is left.
    """
    check_topologies(named)
    wide = {topology.name: applies("all", topology, "uneven") for topology in named}
    every = product(named, dict.fromkeys(sites), dict.fromkeys(tokens), dict.fromkeys(pools))
    chosen = [(t, site, pool, count) for t, site, count, pool in every if count == "padded" or wide[t.name]]
    if not chosen:
        names = ", ".join(topology.name for topology in named)
        raise UsageError(f"no cell is left: tokens can be uneven only between attention-DP ranks, and {names} has one")
    return chosen


def check_topologies(named: Sequence[Topology]) -> None:
    """Raise `UsageError` for a topology that flows cannot run on, and for two of one name."""
    for topology in named:
        if not applies("all", topology):
            raise UsageError(f"flows have nothing to communicate on {topology.name!r}")
    if len({topology.name for topology in named}) < len(named):
        raise UsageError(f"two topologies have one name: {', '.join(sorted(topology.name for topology in named))}")


def run(
    world: World,
    chosen: Sequence[tuple[Topology, Sites, str, Tokens]],
    draws: int,
    minutes: float,
    seeds_dir: Path,
    seed: int = 0,
    environment: dict[str, Any] | None = None,
) -> Iterator[Cell]:
    """The cells' verdicts, each after at most `draws` draws in at most `minutes`. Seed files go to `seeds_dir`."""
    for topology, sites, pool, tokens in chosen:
        strategy = flows(
            topology.world,
            tokens=tokens,
            topologies=topologies(topology.world, [topology]),
            system=System(pool, sites=sites),
            via="library",
        )
        campaign = Campaign(world, strategy, seeds_dir, seed=seed, environment=environment, limits=LIMITS)
        tally = campaign.run(draws, minutes)
        found = tuple(sorted(tally.found.values(), key=lambda found: found.draws_to_find))
        is_complete = not campaign.is_cut_short
        yield Cell(topology.name, sites, pool, tokens, tally.draws, tally.vacuous, is_complete, found, tally.held)
