"""Signal pads between fences: words that nobody writes, so that a store beside a pad shows.

A row is int32[FENCE + size + FENCE] or longer: a pad of `size` words, one for each sender, from word `FENCE` on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.scenario.layouts.groups import GroupId
from harness.trace.events import PadOverwritten

FENCE = 16
"""Words on each side of a pad."""
CANARY = 0x5CA1AB1E
"""What a fence holds: no epoch of any draw."""

SIGNALS, OF_BARRIER = "signal pad", "pad of the barrier"
"""The two pads of a member: that of plug-ins, and that of the harness's kernel barrier."""

Row = NDArray[np.integer[Any]]


def fence(rows: Row, size: int) -> None:
    """Have the pads of one row or of several zero, and their fences whole."""
    rows[...] = CANARY
    rows[..., FENCE : FENCE + size] = 0


def overwritten(row: Row, group: GroupId, pad: str) -> PadOverwritten | None:
    """What has changed in the fences of one member's pad, if anything has. They are whole afterwards."""
    size = len(group.ranks)
    changed = np.flatnonzero(row != CANARY)
    changed = changed[(changed < FENCE) | (changed >= FENCE + size)]
    if not changed.size:
        return None
    first = int(changed[0])
    damage = PadOverwritten(group, pad, first - FENCE, changed.size, shown(row[first]))
    row[changed] = CANARY
    return damage


def shown(word: np.integer[Any]) -> str:
    """A word of 32 bits."""
    return f"{int(word) & 0xFFFFFFFF:#x}"
