"""Shrinking by running: hurried, beside GPUs on a simulation first, and never by a presumption."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import strategies as st

from harness.campaign import seeds
from harness.campaign.campaign import Campaign
from harness.campaign.keeper import Found, Keeper
from harness.campaign.limits import Limits
from harness.campaign.smaller.search import Smallest
from harness.campaign.smaller.shrinking import Shrinking
from harness.campaign.tally import Tally
from harness.campaign.trials import Trials
from harness.clock import CLOCK, Clock
from harness.errors import MachineError
from harness.oracle.findings import Hang, Leak
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Deny
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.trace.draw import Draw, Fate
from harness.trace.events import Began
from harness.trace.trace import Trace
from harness.world.world import World
from tests.tools.clock import FakeClock

TWO = Topology("two", "sglang", {"tp": 2})
STUCK = Scenario(TWO, (Deny(1), Allocate("a", "tp", 8), AllGather("tp", View("a"), 1)), System("per-group"))
"""Costs the ranks: one is refused memory, and the other waits for it."""


def campaign_of(world: Any, folder: Path, scenario: Scenario, seconds: float = 5.0, clock: Clock = CLOCK) -> Campaign:
    """A campaign that draws nothing but this scenario, and leaves all shrinking to the search."""
    limits = Limits(more=1, shrink_seconds=0, search_seconds=seconds, reruns=0)
    return Campaign(world, st.just(scenario), folder, limits=limits, clock=clock)


@pytest.fixture(scope="module")
def beside() -> Iterator[World]:
    with World(4, "sim") as world:
        yield world


def rehearsed(world: Any, beside: Any, folder: Path, scenario: Scenario) -> tuple[Tally, list[Scenario]]:
    """What becomes of a failure that costs ranks on `world` with a simulation beside it, and what ran on `world`."""
    tried: list[Scenario] = []

    def watched(scenario: Scenario, *, hurried: bool = False) -> Draw:
        tried.append(scenario)
        return world.run(scenario, hurried=hurried)

    costly: Any = SimpleNamespace(run=watched, simulation=beside, deadline=world.deadline)
    return campaign_of(costly, folder, scenario, seconds=30).run(1), tried


GATHERS = (AllGather("tp", View("a"), 1),) * 6
LARGE = Scenario(
    Topology("four", "sglang", {"tp": 4}), (Deny(1), Allocate("a", "tp", 8), *GATHERS), System("per-group")
)
"""One rank is refused memory for good, and the others wait for it."""


def test_what_costs_ranks_is_shrunk_on_a_simulation_first(simulation: World, beside: World, tmp_path: Path) -> None:
    tally, tried = rehearsed(simulation, beside, tmp_path, LARGE)
    found = next(iter(tally.found.values()))
    assert (found.scenario.world, found.shrunk) == (2, "smallest")
    assert [step.kind for step in found.scenario.steps] == ["deny", "allocate"]
    assert (tried[0], tried[1]) == (LARGE, found.scenario), "the second run was not the simulation's smallest"


class Instead:
    """A world that runs what `replace` makes of a scenario."""

    simulation = None

    def __init__(self, world: World, replace: Callable[[Scenario], Scenario]) -> None:
        self._world, self._replace, self.deadline = world, replace, world.deadline

    def run(self, scenario: Scenario, **how: Any) -> Draw:
        return self._world.run(self._replace(scenario), **how)


def test_what_a_simulation_does_not_show_is_shrunk_where_it_was_found(
    simulation: World, beside: World, tmp_path: Path
) -> None:
    tally, tried = rehearsed(simulation, Instead(beside, clean_as), tmp_path, LARGE)
    found = next(iter(tally.found.values()))
    assert (found.scenario.world, found.shrunk, len(tried) > 10) == (2, "smallest", True)


def test_what_fails_on_the_simulation_alone_is_not_kept(simulation: World, beside: World, tmp_path: Path) -> None:
    world = Instead(simulation, lambda scenario: LARGE if scenario == LARGE else clean_as(scenario))
    tally, _ = rehearsed(world, beside, tmp_path, LARGE)
    assert [found.scenario for found in tally.found.values()] == [LARGE]


def test_a_simulation_that_fails_costs_no_finding(simulation: World, tmp_path: Path) -> None:
    def fails(scenario: Scenario, **how: Any) -> Draw:
        raise MachineError("rank 0 failed")

    tally, _ = rehearsed(simulation, SimpleNamespace(run=fails), tmp_path, LARGE)
    assert [(found.scenario.world, found.shrunk) for found in tally.found.values()] == [(2, "smallest")]


def test_without_time_for_shrinking_no_simulation_is_asked(simulation: World, tmp_path: Path) -> None:
    world: Any = SimpleNamespace(run=simulation.run)  # which has none
    tally = campaign_of(world, tmp_path, STUCK, seconds=0).run(1)
    assert [found.shrunk for found in tally.found.values()] == ["time"] * len(tally.found)


def clean_as(scenario: Scenario) -> Scenario:
    """A right program on the same layout."""
    return Scenario(scenario.topology, (Allocate("a", "tp", 8), AllGather("tp", View("a"), 1)))


# a presumption is no finding

DEADLINE, PATIENCE = 2.0, 0.3
ALLOCATIONS = tuple(Allocate(f"b{number}", "tp", 8) for number in range(5))
Hangs = Callable[[Scenario, bool], bool]
"""Whether a scenario hangs, hurried or not."""


class Scripted:
    """A world without ranks, in which a hurried run presumes a hang before the deadline. A run takes as long on `time`
    as its ranks would."""

    deadline, simulation = DEADLINE, None

    def __init__(self, hangs: Hangs) -> None:
        self.time = FakeClock()
        self._hangs = hangs

    def run(self, scenario: Scenario, *, hurried: bool = False) -> Draw:
        is_hung = self._hangs(scenario, hurried)
        seconds = (PATIENCE if hurried else DEADLINE) if is_hung else 0.01
        self.time.advance(seconds)
        fates = tuple(Fate(rank, "hung" if is_hung else "finished") for rank in range(2))
        traces = tuple(Trace(rank, (Began(0),)) for rank in range(2))
        return Draw(scenario, traces, fates, seconds, DEADLINE, is_presumed=hurried and is_hung)


def shrunk(folder: Path, hangs: Hangs, seconds: float = 60) -> Found:
    """What is kept of a hang."""
    world = Scripted(hangs)
    campaign = campaign_of(world, folder, Scenario(TWO, ALLOCATIONS), seconds, world.time.clock)
    return campaign.run(1).found["hang"]


def test_what_is_slow_is_presumed_to_hang_and_not_kept_for_it(tmp_path: Path) -> None:
    """Fewer than three steps are slow."""
    kept = shrunk(tmp_path, lambda scenario, hurried: hurried or len(scenario.steps) >= 3)
    assert (len(kept.scenario.steps), seeds.load(kept.seed_file).scenario) == (3, kept.scenario)


def test_what_was_presumed_to_hang_is_kept_as_it_hung_until_the_deadline(tmp_path: Path) -> None:
    kept = shrunk(tmp_path, lambda scenario, hurried: True)
    assert (len(kept.scenario.steps), kept.shrunk) == (1, "smallest")
    (hang,) = (record for record in seeds.load(kept.seed_file).findings if record.rule == "hang")
    assert f"{DEADLINE:.1f} s" in hang.explanation


def test_draws_are_never_hurried(simulation: World, tmp_path: Path) -> None:
    """Not what is drawn, nor what Hypothesis tries: what hangs by a presumption would be another finding."""
    seen: list[tuple[Scenario, bool]] = []

    def watched(scenario: Scenario, *, hurried: bool = False) -> Draw:
        seen.append((scenario, hurried))
        return simulation.run(scenario, hurried=hurried)

    world: Any = SimpleNamespace(run=watched, deadline=simulation.deadline, simulation=None)
    right, wrong = (
        Scenario(TWO, STUCK.steps[1:], System(f"tests.tools.planted:{n}")) for n in ("Sound", "KeepsATensor")
    )
    limits = Limits(more=3, shrinks=3, shrink_seconds=60, search_seconds=2, reruns=0)
    tally = Campaign(world, st.sampled_from([right, wrong]), tmp_path, limits=limits).run(10)
    hurried = [index for index, (_, is_hurried) in enumerate(seen) if is_hurried]
    assert "leak" in tally.found
    first = next(index for index, (scenario, _) in enumerate(seen) if scenario == wrong)
    assert hurried[0] > first + 1, "what Hypothesis tried was hurried"


@pytest.mark.parametrize(("passes", "how", "steps"), [(0, "smallest", 1), (3, "race", 1), (10**9, "race", 5)])
def test_a_hang_that_was_presumed_and_passes_first_is_a_race(tmp_path: Path, passes: int, how: str, steps: int) -> None:
    patient = count()

    def hangs(scenario: Scenario, hurried: bool) -> bool:
        return hurried or not 1 <= next(patient) <= passes

    found = shrunk(tmp_path, hangs, seconds=3)
    assert (found.shrunk, len(found.scenario.steps)) == (how, steps)


def test_once_a_rule_leads_a_scenario_where_it_does_not_is_no_smaller_one(tmp_path: Path) -> None:
    leak, hang = Leak("shown", step=0, ranks=(0,)), Hang("shown", step=0, ranks=(0,))
    large, *smaller = (Scenario(TWO, ALLOCATIONS[:size]) for size in (4, 3, 2, 1))
    broken = dict(zip((large, *smaller), ([hang, leak], [leak], [hang, leak], [leak]), strict=True))
    steps: list[int | None] = []

    def tries(whole: Scenario, fails: Callable[[Scenario], int | None], *_: object, **how: object) -> Smallest:
        steps.extend(map(fails, broken))
        return Smallest(whole, "smallest")

    seen = {"is_presumed": False, "is_clean": True, "printed": ()}
    world: Any = SimpleNamespace(run=lambda scenario, **how: SimpleNamespace(scenario=scenario, **seen))
    keeper = Keeper(tmp_path, {})
    keeper.keep(large, leak, [hang, leak])
    shrinking = Shrinking(Trials(world, keeper, lambda draw: broken[draw.scenario], lambda: None), tries)
    shrinking.run("leak", end=0, costs_ranks=False)
    assert steps == [0, 0, None, 0]
