"""What draws left in the processes of ranks, as notes below a command's results."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.console import Console

from harness.report.terminal import plain
from harness.text import counted
from harness.world.leftovers import PROCESS, Leftover
from harness.world.world import World


def show(console: Console, *worlds: World) -> None:
    """One line for each kind, or nothing."""
    lines = [line(each) for world in worlds for each in world.leftovers]
    if lines:
        heading = "Draws left something to the next in the processes of ranks. No draw inherits it: they were replaced."
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
