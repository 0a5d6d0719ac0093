"""Scenarios that fail, each at its price, and campaigns over one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from harness.campaign.campaign import Campaign
from harness.campaign.limits import Limits
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Deny, Release, Step
from harness.scenario.system import System
from harness.scenario.topology import Topology

TWO = Topology("two", "sglang", {"tp": 2})


def layers(count: int) -> tuple[Step, ...]:
    """Gathers, each of a buffer of its own."""
    steps: list[Step] = []
    for name in (f"b{number}" for number in range(count)):
        steps += [Allocate(name, "tp", 8), AllGather("tp", View(name), 1), Release(name)]
    return tuple(steps)


RIGHT = Scenario(TWO, layers(2))
STUCK = Scenario(TWO, (Deny(1), *layers(2)), System("per-group"))
"""Costs the ranks: one is refused memory, and the other waits for it."""
LEAKING = Scenario(TWO, layers(2), System("tests.tools.planted:KeepsATensor"))
"""Costs nothing."""


def campaign_of(world: Any, folder: Path, scenario: Scenario = LEAKING, **how: Any) -> Campaign:
    """A campaign that draws nothing but this scenario."""
    limits = Limits(
        more=1,
        reruns=how.pop("reruns", 0),
        **{name: how.pop(name) for name in ("shrink_seconds", "search_seconds") if name in how},
    )
    return Campaign(world, st.just(scenario), folder, limits=limits, **how)
