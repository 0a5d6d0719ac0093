"""Time, handed in to what waits or measures, so that a test need not wait to prove a duration."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """Seconds since some moment, and a way to let them pass."""

    now: Callable[[], float]
    sleep: Callable[[float], None]


CLOCK = Clock(time.monotonic, time.sleep)
"""The machine's own. Its zero is arbitrary, and it never goes back."""
