"""What draws left in the processes of ranks, as notes below a command's results."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.console import Console

from harness.report.terminal import plain
from harness.text import counted
from harness.world.leftovers import PROCESS, Leftover
from harness.world.world import World

HEADINGS = {
    "Draws left something to the next in the processes of ranks. No draw inherits it: they were replaced.": False,
    "Loading a system changed the processes of ranks. Its own draws run with that, those of others on new ranks.": True,
}
"""For what a draw left, and for what came with loading its system."""


def show(console: Console, *worlds: World) -> None:
    """One line for each kind, or nothing."""
    every = [each for world in worlds for each in world.leftovers]
    for heading, is_at_import in HEADINGS.items():
        lines = [line(each) for each in every if each.at_import == is_at_import]
        if lines:
            console.print(plain("\n  ".join([heading, *lines])), highlight=False, soft_wrap=True)


def line(left: Leftover) -> str:
    """Which system left what on which rank, and how often."""
    by = f"pool {left.pool}, collectives {left.collectives}"
    if left.what == PROCESS:
        return f"{by}: rank {left.rank} {left.new}, after a draw had ended ({counted(left.draws, 'time')})"
    often = "when it was loaded" if left.at_import else f"in {counted(left.draws, 'draw')}"
    return f"{by}: {left.what} on rank {left.rank}: {left.old} → {left.new} ({often})"


def data(*worlds: World) -> list[dict[str, Any]]:
    """The same for a program."""
    return [msgspec.to_builtins(each) for world in worlds for each in world.leftovers]
