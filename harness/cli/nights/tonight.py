"""Which shard of which night a command draws.

Invariant: nothing about it is silent. Its lines name the shard and the seed, and what says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer

from harness.cli.options import drawn_with, fresh
from harness.nights.guide import ALL
from harness.nights.shard import BITS, SHARD, Shard, night_seed, shard, uncounted

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

    @property
    def batches(self) -> Iterator[int] | None:
        """The numbers of the batches to draw; None for all."""
        return self.shard.batches if self.shard else None

    @property
    def guide_seed(self) -> int:
        """Shards change what they have drawn in ways of their own."""
        return self.seed + (self.shard.index << BITS) if self.shard else self.seed

    @property
    def tries(self) -> slice:
        """Which scenarios of a corpus are run first."""
        return slice(self.shard.index - 1, None, self.shard.of) if self.shard else ALL

    def part(self, draws: int | None) -> int | None:
        """How many of so many draws it makes."""
        return self.shard.part(draws) if self.shard else draws


def tonight(given_shard: str | None, given_seed: int | None) -> Tonight:
    """What the options say, else the environment. Raises `UsageError` for a shard that is none."""
    found = shard(given_shard, os.environ)
    if found is None:
        note = uncounted(os.environ)
        number = fresh(given_seed)
        return Tonight(number, None, (*((note,) if note else ()), drawn_with(number, given_seed)))
    if given_seed is not None:
        return Tonight(given_seed, found, (str(found), drawn_with(given_seed, given_seed)))
    seed, source = night_seed(os.environ, datetime.now(UTC).date())
    return Tonight(seed, found, (str(found), f"seed {seed}, from {source}"))
