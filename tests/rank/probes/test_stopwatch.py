"""The stopwatch: each part of a draw is counted by itself, and looking leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.rank.probes.stopwatch import LIBRARY, Stopwatch
from harness.scenario.scenario import Scenario
from harness.strategies.batches import sample
from harness.strategies.programs import scenarios
from harness.world.world import World
from tests.tools.clock import FakeClock


class Part:
    """Work that takes the time of a clock and no other."""

    def __init__(self, time: FakeClock) -> None:
        self._time = time

    def outer(self) -> str:
        self._time.advance(2)
        return self.inner()

    def inner(self) -> str:
        self._time.advance(5)
        return "done"


class Heir(Part):
    pass


@pytest.fixture
def time() -> FakeClock:
    return FakeClock()


@pytest.fixture
def stopwatch(time: FakeClock) -> Iterator[Stopwatch]:
    watch = Stopwatch(time.clock)
    yield watch
    watch.off()


def test_a_part_is_counted_without_the_parts_inside_it(stopwatch: Stopwatch, time: FakeClock) -> None:
    stopwatch.around(Part, "outer", "outer")
    stopwatch.around(Part, "inner", "inner")
    assert Part(time).outer() == "done"
    assert stopwatch.seconds == {"outer": 2, "inner": 5}


def test_a_part_that_runs_twice_is_counted_twice(stopwatch: Stopwatch, time: FakeClock) -> None:
    stopwatch.around(Part, "inner", "inner")
    Part(time).inner()
    Part(time).inner()
    assert stopwatch.seconds == {"inner": 10}


def test_a_part_that_raises_is_counted_too(stopwatch: Stopwatch, time: FakeClock) -> None:
    stopwatch.around(Part, "inner", "inner")
    with pytest.raises(TypeError):
        Part(time).inner(1)  # type: ignore[call-arg]
    assert stopwatch.seconds == {"inner": 0}


@pytest.mark.parametrize("owner", [Part, Heir])
def test_a_stopwatch_that_is_off_leaves_a_class_as_it_was(owner: type) -> None:
    before, watch = dict(owner.__dict__), Stopwatch()
    watch.around(owner, "inner", "inner")
    assert dict(owner.__dict__) != before
    watch.off()
    assert dict(owner.__dict__) == before


# on ranks


@pytest.fixture(scope="module")
def drawn() -> list[Scenario]:
    return sample(scenarios(2), 10, seed=1)


def timed(world: World, drawn: list[Scenario]) -> list[dict[str, float]]:
    world.run(drawn[0])
    world.call("harness.rank.probes.stopwatch:start")
    for scenario in drawn:
        world.run(scenario)
    return world.call("harness.rank.probes.stopwatch:stop")


def test_every_part_of_a_draw_is_counted_on_every_rank(simulation: World, drawn: list[Scenario]) -> None:
    counted = timed(simulation, drawn)
    assert len(counted) == simulation.size
    for parts in counted[:2]:
        assert {"the rest of a draw", "registering windows", LIBRARY, "communicators"} <= parts.keys()
        assert {"waiting for the device", "kernels under test", "cross-checks", "comparing results"} <= parts.keys()
        assert all(seconds > 0 for seconds in parts.values())


def test_a_rank_that_had_no_draw_is_looked_at_too(drawn: list[Scenario]) -> None:
    with World(3, "sim") as world:
        parts = timed(world, drawn[:1])
    assert "the rest of a draw" in parts[0]
    assert parts[2] == {}


def test_looking_again_starts_from_zero(simulation: World, drawn: list[Scenario]) -> None:
    timed(simulation, drawn)
    simulation.call("harness.rank.probes.stopwatch:start")
    assert simulation.call("harness.rank.probes.stopwatch:stop") == [{}] * simulation.size
