"""Which shard of which night a command draws.

Invariant: nothing about it is silent. Its lines name the shard and the seed, and what says so.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer

from harness.nights.shard import SHARD, Shard, night_seed, shard, uncounted

SEED = 0
"""Unless a user or a night says otherwise."""
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help=f"Draw part I of N, from 1 on, of a night. Default: as the engine says that runs the command, or {SHARD}.",
    ),
]


@dataclass(frozen=True)
class Tonight:
    """A seed, and the shard of its draws to make; None for all."""

    seed: int
    shard: Shard | None
    lines: tuple[str, ...]
    """To be shown before anything is drawn."""

    def part(self, draws: int | None) -> int | None:
        """How many of so many draws it makes."""
        return self.shard.part(draws) if self.shard else draws


def tonight(given_shard: str | None, given_seed: int | None) -> Tonight:
    """What the options say, else the environment. Raises `UsageError` for a shard that is none."""
    found = shard(given_shard, os.environ)
    if found is None:
        note = uncounted(os.environ)
        return Tonight(SEED if given_seed is None else given_seed, None, (note,) if note else ())
    if given_seed is not None:
        return Tonight(given_seed, found, (str(found),))
    seed, source = night_seed(os.environ, datetime.now(UTC).date())
    return Tonight(seed, found, (str(found), f"seed {seed}, from {source}"))
