"""Facts of a run beside its results: what was asked for, on which host, from when to when, and how fast it went.

Invariant: every command that writes JSON or JUnit has the same facts under the same names.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

from harness import interrupts
from harness.clock import CLOCK, Clock

POINTS = 60
"""About so many points of speed are kept, however long the run is."""


def now() -> str:
    """The time as ISO 8601, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class Speed:
    """Draws over time: `[seconds, draws]`, thinned out as they become many."""

    def __init__(self, clock: Clock = CLOCK) -> None:
        self._clock, self._began, self._least = clock, clock.now(), 0.0
        self._points: list[tuple[float, int]] = [(0.0, 0)]
        self._last = 0.0, 0

    def note(self, draws: int) -> None:
        """So many draws are done now."""
        if draws == self._last[1]:
            return  # a run that shrinks
        self._last = self._clock.now() - self._began, draws
        if self._last[0] - self._points[-1][0] < self._least:
            return
        self._points.append(self._last)
        if len(self._points) >= 2 * POINTS:
            self._points = self._points[::2]
            self._least = self._last[0] / POINTS

    @property
    def points(self) -> list[tuple[float, int]]:
        """From the beginning to the last draw."""
        ends = [] if self._last == self._points[-1] or self._last == (0.0, 0) else [self._last]
        return [(round(seconds, 2), draws) for seconds, draws in (*self._points, *ends)]


@dataclass
class Facts:
    """One run of a command. `options` are those that it took, by name, with their defaults."""

    options: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    """What else there is to say: `seed`, `system`."""
    started: str = field(default_factory=now)
    began: float = field(default_factory=time.monotonic)
    speed: Speed = field(default_factory=Speed)

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self.began

    def as_data(self) -> dict[str, Any]:
        """For JSON, at the end of the run."""
        points = self.speed.points
        return {
            "command": ["symm", *sys.argv[1:]],
            "options": {name: _plain(value) for name, value in self.options.items()},
            "host": socket.gethostname(),
            "started": self.started,
            "ended": now(),
            "interrupted": interrupts.has_come(),
            **self.more,
            **({"speed": points} if len(points) > 1 else {}),
        }


def _plain(value: Any) -> Any:
    """A value of an option as JSON has it."""
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, PurePath) else value
