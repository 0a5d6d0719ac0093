"""Drawn programs: the same ones every time, and actions with plain values."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import Allocate, Collective, Recreate, Step
from harness.scenario.topology import Topology
from harness.strategies.actions import Action
from harness.strategies.batches import without_constants
from harness.strategies.programs import HAZARDS, scenarios

WORLD, MANY = 8, 300
SETTINGS = settings(
    deadline=None,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def sample(strategy: st.SearchStrategy[Scenario], draws: int) -> list[Scenario]:
    """Different scenarios, the same every time; in short runs, because a long one mutates what it has drawn."""
    found: dict[Scenario, None] = {}

    @settings(SETTINGS, max_examples=12, phases=[Phase.generate])
    @given(strategy)
    def collect(drawn: Scenario) -> None:
        found[drawn] = None

    with without_constants():
        for batch in range(draws // 6):
            seed(batch)(collect)()
    return list(found)[:draws]


@cache
def harmless() -> list[Scenario]:
    return sample(scenarios(WORLD), MANY)


@cache
def hazardous() -> list[Scenario]:
    return sample(scenarios(WORLD, hazards=HAZARDS), 120)


def act(kind: str, **fields: object) -> Action:
    """An action with the simplest value in every field that is not given."""
    simple: dict[str, object] = dict.fromkeys(("family", "buffer", "spread", "room", "slack", "offset"), 0)
    simple |= {"is_fresh": False, "count": 1, "dtype": "float32", "op": "sum", "part": "in-place", "via": "library"}
    return Action(kind=kind, **{**simple, "is_uneven": False, "stream": 0, **fields})  # type: ignore[arg-type]


def stale_uses(topology: Topology, program: Iterable[Step]) -> list[View]:
    """Operands in windows of communicators that a step before has replaced."""
    owned: dict[str, Allocate] = {}
    stale: set[str] = set()
    found: list[View] = []
    for step in program:
        if isinstance(step, Allocate) and step.role == "window":
            owned[step.buffer] = step
        elif isinstance(step, Recreate):
            gone = {*topology.ids[step.family]}
            stale |= {name for name, own in owned.items() if gone & {*topology.ids[own.family]}}
        elif isinstance(step, Collective):
            found += [view for view in step.views if view.buffer in stale]
    return found
