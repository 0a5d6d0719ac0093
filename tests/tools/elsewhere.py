"""A second world to compare with: it runs a scenario in its own way, or tells what it saw otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from harness.campaign.replay import with_system
from harness.scenario.scenario import Scenario
from harness.trace.draw import Draw
from harness.trace.events import Event
from harness.world.world import World

Retelling = Callable[[Event], Iterable[Event]]


def verbatim(event: Event) -> Iterable[Event]:
    return (event,)


@dataclass
class Elsewhere:
    """`world` with another system in place of the scenario's, whose rank 0 retells its events."""

    world: World
    retell: Retelling = verbatim
    pool: str | None = None
    sites: Any = None

    def run(self, scenario: Scenario) -> Draw:
        """A draw that says of itself what was asked for: the second side ran the same scenario, as far as it shows."""
        draw = self.world.run(with_system(scenario, self.pool, sites=self.sites))
        return retold(msgspec.structs.replace(draw, scenario=scenario), self.retell)


def retold(draw: Draw, retell: Retelling) -> Draw:
    """The draw as it would be, had rank 0 recorded other events."""
    first, *others = draw.traces
    events = tuple(moved for event in first.events for moved in retell(event))
    return msgspec.structs.replace(draw, traces=(msgspec.structs.replace(first, events=events), *others))
