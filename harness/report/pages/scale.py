"""An axis of bytes that shows a row of 4 and a segment of 2 MiB side by side: it keeps order, and not proportion.

Invariant: equal bytes stand at equal places, in every row that shares the axis.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable

NARROW, PER_POWER = 1.0, 0.14


class Axis:
    """Columns between the bytes at which anything begins or ends."""

    def __init__(self, places: Iterable[int]) -> None:
        self.places = sorted(set(places))

    @property
    def widths(self) -> list[float]:
        """The share of each column: it grows with the logarithm of its bytes."""
        pairs = zip(self.places, self.places[1:], strict=False)
        return [round(NARROW + PER_POWER * math.log2(max(1, end - start)), 2) for start, end in pairs]

    def column(self, place: int) -> int:
        """The number of the line at a byte, from 1 on."""
        return bisect_left(self.places, place) + 1


def size_text(nbytes: int) -> str:
    """Such as `2 MiB`, or `1,049,612 B` where it is no whole number of a larger unit."""
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if nbytes and nbytes % (1 << power) == 0:
            return f"{nbytes >> power} {unit}"
    return f"{nbytes:,} B"
