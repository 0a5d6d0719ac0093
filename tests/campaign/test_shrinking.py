"""Making a finding smaller by running: in a hurry, beside GPUs on a simulation first, and never by a presumption."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st

from harness.campaign import seeds
from harness.campaign.campaign import Campaign, Limits
from harness.campaign.tally import Tally
from harness.errors import MachineError
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Deny
from harness.scenario.system import System
from harness.scenario.topology import Topology
from harness.system.context import ProcessGroup
from harness.trace.draw import Draw, Fate
from harness.trace.events import Began
from harness.trace.trace import Trace
from harness.world.world import World
from tests.tools.planted import Sound

TWO = Topology("two", "sglang", {"tp": 2})
STUCK = Scenario(TWO, (Deny(1), Allocate("a", "tp", 8), AllGather("tp", View("a"), 1)), System("per-group"))
"""Costs the ranks: one is refused memory, and the other waits for it."""


def campaign_of(world: Any, folder: Path, scenario: Scenario, seconds: float = 5.0) -> Campaign:
    limits = Limits(more=1, shrink_seconds=0, reduce_seconds=seconds)
    return Campaign(world, st.just(scenario), folder, limits=limits)


@pytest.fixture(scope="module")
def beside() -> Iterator[World]:
    with World(4, "sim") as world:
        yield world


def rehearsed(world: World, beside: World, folder: Path, scenario: Scenario) -> tuple[Tally, list[Scenario]]:
    """What becomes of a dear failure on `world` with a simulation beside it, and the scenarios that ran on `world`."""
    tried: list[Scenario] = []

    def watched(scenario: Scenario, *, hurried: bool = False) -> Draw:
        tried.append(scenario)
        return world.run(scenario, hurried=hurried)

    dear: Any = SimpleNamespace(run=watched, simulation=beside)
    return campaign_of(dear, folder, scenario, seconds=30).run(1), tried


GATHERS = (AllGather("tp", View("a"), 1),) * 6
LARGE = Scenario(
    Topology("four", "sglang", {"tp": 4}), (Deny(1), Allocate("a", "tp", 8), *GATHERS), System("per-group")
)
"""One rank is refused memory for good, and the others wait for it."""


def test_what_is_dear_is_made_smaller_on_a_simulation_first(simulation: World, beside: World, tmp_path: Path) -> None:
    tally, tried = rehearsed(simulation, beside, tmp_path, LARGE)
    found = next(iter(tally.found.values()))
    assert (found.scenario.world, found.shrunk) == (2, "smallest")
    assert [step.kind for step in found.scenario.steps] == ["deny", "allocate"]
    assert (tried[0], tried[1]) == (LARGE, found.scenario), "the second run was not the simulation's smallest"


def test_what_a_simulation_does_not_show_is_made_smaller_where_it_was_found(
    simulation: World, beside: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = beside.run
    clean = clean_as(STUCK)
    monkeypatch.setattr(beside, "run", lambda scenario, **how: run(clean))
    tally, tried = rehearsed(simulation, beside, tmp_path, LARGE)
    found = next(iter(tally.found.values()))
    assert (found.scenario.world, found.shrunk, len(tried) > 10) == (2, "smallest", True)


def test_what_fails_on_the_simulation_alone_is_not_kept(
    simulation: World, beside: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = simulation.run
    monkeypatch.setattr(
        simulation, "run", lambda scenario, **how: run(LARGE if scenario == LARGE else clean_as(scenario), **how)
    )
    tally, _ = rehearsed(simulation, beside, tmp_path, LARGE)
    assert [found.scenario for found in tally.found.values()] == [LARGE]


def test_a_simulation_that_fails_costs_no_finding(
    simulation: World, beside: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(scenario: Scenario, **how: Any) -> Draw:
        raise MachineError("rank 0 failed")

    monkeypatch.setattr(beside, "run", fails)
    tally, _ = rehearsed(simulation, beside, tmp_path, LARGE)
    assert [(found.scenario.world, found.shrunk) for found in tally.found.values()] == [(2, "smallest")]


def test_without_time_for_shrinking_no_simulation_is_asked(simulation: World, tmp_path: Path) -> None:
    world: Any = SimpleNamespace(run=simulation.run)  # which has none
    tally = campaign_of(world, tmp_path, STUCK, seconds=0).run(1)
    assert [found.shrunk for found in tally.found.values()] == ["time"] * len(tally.found)


def clean_as(scenario: Scenario) -> Scenario:
    """A right program on the same layout."""
    return Scenario(scenario.topology, (Allocate("a", "tp", 8), AllGather("tp", View("a"), 1)))


# a presumption is no finding


class SlowThenStuck(Sound):
    """The group's last rank takes its time in its first allocation, and never returns from its third."""

    uses = 0

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        self.uses += 1
        if group.rank == len(group.ranks) - 1:
            time.sleep({1: SLOW, 3: 3600.0}.get(self.uses, 0.0))
        with super().use(group):
            yield


SLOW, DEADLINE, PATIENCE = 0.8, 2.0, 0.3
ALLOCATIONS = tuple(Allocate(f"b{number}", "tp", 8) for number in range(5))


@pytest.fixture(scope="module")
def impatient() -> Iterator[World]:
    """It presumes that ranks are stuck after less than the slow allocation takes, until it has seen one."""
    with World(2, "sim", deadline=DEADLINE) as world:
        world.platform = msgspec.structs.replace(world.platform, patience=PATIENCE)
        yield world


@pytest.mark.parametrize("system", ["tests.campaign.test_shrinking:SlowThenStuck"])
def test_what_is_slow_is_presumed_to_hang_and_not_kept_for_it(impatient: World, tmp_path: Path, system: str) -> None:
    impatient._silences.clear()
    slow = Scenario(TWO, ALLOCATIONS[:1], System(system))
    assert impatient.run(slow, hurried=True).is_presumed
    tally = campaign_of(impatient, tmp_path, Scenario(TWO, ALLOCATIONS, System(system)), seconds=6).run(1)
    kept = [seeds.load(path) for path in tmp_path.iterdir()]
    assert [len(seed.scenario.steps) >= 3 for seed in kept] == [True] * len(tally.found) != []


def test_what_was_presumed_to_hang_is_kept_as_it_hung_until_the_deadline(impatient: World, tmp_path: Path) -> None:
    impatient._silences.clear()
    stuck = Scenario(TWO, ALLOCATIONS, System("tests.tools.unruly:Spins"))
    tally = campaign_of(impatient, tmp_path, stuck).run(1)
    found = next(iter(tally.found.values()))
    assert len(found.scenario.steps) == 1
    hang = next(record for record in seeds.load(found.seed_file).findings if record.rule == "hang")
    said = re.search(r"fter (\d+\.\d) s ranks 0, 1 made no progress", hang.explanation)
    assert said
    assert float(said[1]) >= DEADLINE


def test_draws_are_never_hurried(simulation: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what is drawn, nor what Hypothesis tries: what hangs by a presumption would be another finding."""
    run, seen = simulation.run, []

    def watched(scenario: Scenario, *, hurried: bool = False) -> Draw:
        seen.append((scenario, hurried))
        return run(scenario, hurried=hurried)

    monkeypatch.setattr(simulation, "run", watched)
    right, wrong = (
        Scenario(TWO, STUCK.steps[1:], System(f"tests.tools.planted:{n}")) for n in ("Sound", "KeepsATensor")
    )
    limits = Limits(more=3, shrinks=3, shrink_seconds=2, reduce_seconds=2)
    tally = Campaign(simulation, st.sampled_from([right, wrong]), tmp_path, limits=limits).run(10)
    hurried = [index for index, (_, is_hurried) in enumerate(seen) if is_hurried]
    assert "leak" in tally.found
    assert wrong in [scenario for scenario, _ in seen[: hurried[0]]], "it was hurried before it had found anything"
    first = next(index for index, (scenario, _) in enumerate(seen) if scenario == wrong)
    assert hurried[0] > first + 1, "what Hypothesis tried was hurried"


class Chancy:
    """A world in which the same scenario, presumed to hang, passes a few times before it really does."""

    deadline, simulation = 5.0, None

    def __init__(self, passes: int) -> None:
        self.patient, self._passes = 0, passes

    def run(self, scenario: Scenario, *, hurried: bool = False) -> Draw:
        self.patient += not hurried
        fails = hurried or self.patient == 1 or self.patient > self._passes + 1
        fates = (Fate(0, "hung" if fails else "finished"), Fate(1, "hung" if fails else "finished"))
        traces = tuple(Trace(rank, (Began(0),)) for rank in range(2))
        return Draw(scenario, traces, fates, 1.0, self.deadline, is_presumed=hurried)


@pytest.mark.parametrize(("passes", "shrunk", "steps"), [(0, "smallest", 1), (3, "race", 1), (10**9, "race", 5)])
def test_a_hang_that_was_presumed_and_passes_first_is_a_race(
    tmp_path: Path, passes: int, shrunk: str, steps: int
) -> None:
    world: Any = Chancy(passes)
    tally = campaign_of(world, tmp_path, Scenario(TWO, ALLOCATIONS), seconds=3).run(1)
    found = tally.found["hang"]
    assert (found.shrunk, len(found.scenario.steps)) == (shrunk, steps)
