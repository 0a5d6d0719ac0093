"""What draws left in the processes of ranks, as notes below a command's results."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.console import Console

from harness.report.terminal import plain
from harness.text import counted
from harness.world.leftovers import NO_SYSTEM, PROCESS, Leftover
from harness.world.world import World

LEFT = "Draws left something to the next in the processes of ranks. No draw inherits it: they were replaced."
LOADED = (
    "Loading a system changed the processes of ranks. Its own draws run with that, those of others on new ranks. "
    "If a built-in part raised, that may be why."
)
DIED = "Ranks ended before their first draw, and were replaced."


def show(console: Console, *worlds: World) -> None:
    """One line for each kind, or nothing."""
    every = [each for world in worlds for each in world.leftovers]
    for heading in (LEFT, LOADED, DIED):
        lines = [line(each) for each in every if _heading(each) == heading]
        if lines:
            console.print(plain("\n  ".join([heading, *lines])), highlight=False, soft_wrap=True)


def _heading(left: Leftover) -> str:
    if (left.pool, left.collectives) == (NO_SYSTEM.pool, NO_SYSTEM.collectives):
        return DIED
    return LOADED if left.at_import else LEFT


def line(left: Leftover) -> str:
    """Which system left what on which rank, and how often."""
    if _heading(left) == DIED:
        return f"rank {left.rank} {left.new} ({counted(left.draws, 'time')})"
    by = f"pool {left.pool}, collectives {left.collectives}"
    if left.what == PROCESS:
        return f"{by}: rank {left.rank} {left.new}, after a draw had ended ({counted(left.draws, 'time')})"
    often = "when it was loaded" if left.at_import else f"in {counted(left.draws, 'draw')}"
    return f"{by}: {left.what} on rank {left.rank}: {left.old} → {left.new} ({often})"


def data(*worlds: World) -> list[dict[str, Any]]:
    """The same for a program."""
    return [msgspec.to_builtins(each) for world in worlds for each in world.leftovers]
