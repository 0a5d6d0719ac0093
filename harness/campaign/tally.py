"""What a campaign did and found, counted.

Invariant: only draws count; runs that shrink a finding have a number of their own.
"""

from __future__ import annotations

from typing import Any

import msgspec

from harness.campaign.keeper import Found
from harness.oracle.judge import Verdict
from harness.scenario.bases import is_uneven
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Collective, Step
from harness.trace.draw import Draw
from harness.trace.events import Placed, Ran, Registered


class Tally(msgspec.Struct):
    """What a campaign did. `draws` counts those drawn, `shrinking` the runs that shrank a failure."""

    draws: int = 0
    shrinking: int = 0
    vacuous: int = 0
    vacuous_by: dict[str, int] = msgspec.field(default_factory=dict)
    """Draws that tested nothing, by reason (`harness.oracle.coverage.vacuity`)."""
    collectives: int = 0
    unseen: int = 0
    """Collectives of which nothing showed the path."""
    seen: int = 0
    """Collectives of which evidence showed the path that NCCL, or its simulation, had to take."""
    free: int = 0
    """Collectives of which NCCL chose the path by itself, so that `slow-path` was not judged."""
    by_kernel: int = 0
    """Collectives that a kernel ran."""
    fell_back: int = 0
    """Collectives that were a kernel's and that the library ran, as the kernel raised `NotOwned`."""
    unsupported: int = 0
    """The same, as the kernel raised `Unsupported`."""
    windows: int = 0
    held: int = 0
    """Most bytes of segments that one rank held at one time, in any draw that was counted."""
    seconds: float = 0.0
    known_draws: float = 0.0
    """Seconds of draws in which nothing is new, and the first finding is one that the user knows."""
    known_shrinking: float = 0.0
    """Seconds of shrinking what turned out to be one of those."""
    layouts: set[Any] = msgspec.field(default_factory=set)
    groups: set[Any] = msgspec.field(default_factory=set)
    found: dict[str, Found] = msgspec.field(default_factory=dict)
    settled: int | None = None
    """Draws after the first finding, where these ended it and not the number asked for."""
    expected: dict[str, int] = msgspec.field(default_factory=dict)
    """Draws that broke a rule which their strategy had marked, by rule."""

    @property
    def kernel_calls(self) -> int:
        """Collectives that were a kernel's, whatever ran them."""
        return self.by_kernel + self.fell_back + self.unsupported

    @property
    def draws_per_second(self) -> float:
        """Rate of drawing, without the time that shrinking took."""
        return self.draws / self.seconds if self.seconds else 0.0

    def count(self, draw: Draw, verdict: Verdict, seconds: float, is_expected: bool) -> None:
        """Add a draw that took so long. `is_expected`: its first finding is one that its strategy had marked."""
        self.draws += 1
        self.seconds += seconds
        if verdict.is_vacuous:
            self.vacuous += 1
            self.vacuous_by[verdict.vacuous] = self.vacuous_by.get(verdict.vacuous, 0) + 1
        if is_expected:
            rule = verdict.findings[0].rule
            self.expected[rule] = self.expected.get(rule, 0) + 1
        self.layouts.add(draw.scenario.topology.key)
        self.groups.update(draw.scenario.groups)
        for trace in draw.traces:
            self.held = max(self.held, trace.most_held)
            declined: set[str] = set()
            for index, event in trace.steps():
                self.windows += isinstance(event, Registered)
                if isinstance(event, Placed) and event.is_declined:
                    declined.add(event.buffer)
                if isinstance(event, Ran):
                    self._count_call(draw.scenario, trace.rank, index, event, declined)

    def _count_call(self, scenario: Scenario, rank: int, index: int, ran: Ran, declined: set[str]) -> None:
        """Add a collective that returned on a rank at a step: a call of its own, or one that a replay ran again.
        `declined`: the buffers that this rank's policy did not want."""
        step = scenario.steps[index] if index >= 0 else None
        self.collectives += 1
        self.by_kernel += ran.path == "kernel"
        self.unseen += ran.path == "unknown"
        self.free += ran.is_free
        if isinstance(step, Collective):
            # in a group of one rank there is nothing for a kernel to do
            self.unsupported += ran.is_unsupported
            self.fell_back += step.via == "kernel" and ran.path not in ("kernel", "copy") and not ran.is_unsupported
        says_nothing = _is_never_symmetric(scenario, rank, step, declined)
        self.seen += ran.path in ("symmetric", "copy engine", "legacy") and not ran.is_free and not says_nothing


def _is_never_symmetric(scenario: Scenario, rank: int, step: Step | None, declined: set[str]) -> bool:
    """Whether it is a call of unequal sizes, on a buffer that the policy declined, or one that NCCL has no symmetric
    kernel for: its path says nothing of ownership."""
    if not isinstance(step, Collective):
        return False
    group = scenario.group_of(step, rank)
    is_declined = any(view.buffer in declined for view in step.views)
    return is_declined or not step.reached or (group is not None and is_uneven(step, group.ranks))
