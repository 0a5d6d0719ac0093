"""A pool policy that gives buffers which are too small, named `tests.tools.planted.small:TooSmall`."""

from __future__ import annotations

from collections.abc import Sequence

from harness.system.planted.sound import Sound


class TooSmall(Sound):
    """Breaks what a buffer site promises: where ranks need different sizes, all of them get the smallest."""

    def agreed(self, sizes: Sequence[int]) -> int:
        return min(sizes)
