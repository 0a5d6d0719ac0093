"""What a campaign did and found, counted.

Invariant: only draws count; runs that shrink a finding have a number of their own.
"""

from __future__ import annotations

from typing import Any

import msgspec

from harness.campaign.keeper import Found
from harness.oracle.judge import Verdict
from harness.trace.draw import Draw
from harness.trace.events import Ran, Registered


class Tally(msgspec.Struct):
    """What a campaign did. `draws` counts those drawn, `shrinking` the runs that shrank a failure."""

    draws: int = 0
    shrinking: int = 0
    vacuous: int = 0
    collectives: int = 0
    unseen: int = 0
    """Collectives of which nothing showed the path."""
    seen: int = 0
    """Collectives of which evidence showed the path that NCCL, or its simulation, had to take."""
    free: int = 0
    """Collectives of which NCCL chose the path by itself, so that `slow-path` was not judged."""
    windows: int = 0
    held: int = 0
    """Most bytes of segments that one rank held at one time, in any draw that was counted."""
    seconds: float = 0.0
    layouts: set[Any] = msgspec.field(default_factory=set)
    groups: set[Any] = msgspec.field(default_factory=set)
    found: dict[str, Found] = msgspec.field(default_factory=dict)
    settled: int | None = None
    """Draws after the first finding, where these ended it and not the number asked for."""
    expected: dict[str, int] = msgspec.field(default_factory=dict)
    """Draws that broke a rule which their strategy had marked, by rule."""

    @property
    def draws_per_second(self) -> float:
        """Rate of drawing, without the time that shrinking took."""
        return self.draws / self.seconds if self.seconds else 0.0

    def count(self, draw: Draw, verdict: Verdict, seconds: float, is_expected: bool) -> None:
        """Add a draw that took so long. `is_expected`: its first finding is one that its strategy had marked."""
        self.draws += 1
        self.seconds += seconds
        self.vacuous += verdict.is_vacuous
        if is_expected:
            rule = verdict.findings[0].rule
            self.expected[rule] = self.expected.get(rule, 0) + 1
        self.layouts.add(draw.scenario.topology.key)
        self.groups.update(draw.scenario.groups)
        for trace in draw.traces:
            self.held = max(self.held, trace.most_held)
            ran = [event for event in trace.events if isinstance(event, Ran)]
            self.collectives += len(ran)
            self.unseen += sum(event.path == "unknown" for event in ran)
            self.seen += sum(event.path in ("symmetric", "legacy") and not event.is_free for event in ran)
            self.free += sum(event.is_free for event in ran)
            self.windows += sum(isinstance(event, Registered) for event in trace.events)
