"""The bench of draws: where their time goes, and that looking leaves nothing behind."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from harness.rank.probes.stopwatch import Stopwatch
from harness.scenario.scenario import Scenario
from harness.strategies.batches import sample
from harness.strategies.programs import scenarios
from harness.world.world import World


class Part:
    def outer(self) -> str:
        time.sleep(0.02)
        return self.inner()

    def inner(self) -> str:
        time.sleep(0.05)
        return "done"


class Heir(Part):
    pass


@pytest.fixture
def stopwatch() -> Iterator[Stopwatch]:
    watch = Stopwatch()
    yield watch
    watch.off()


def test_a_part_is_counted_without_the_parts_inside_it(stopwatch: Stopwatch) -> None:
    stopwatch.around(Part, "outer", "outer")
    stopwatch.around(Part, "inner", "inner")
    assert Part().outer() == "done"
    assert 0.02 <= stopwatch.seconds["outer"] < 0.05 <= stopwatch.seconds["inner"]


def test_a_part_that_raises_is_counted_too(stopwatch: Stopwatch) -> None:
    stopwatch.around(Part, "inner", "inner")
    with pytest.raises(TypeError):
        Part().inner(1)
    assert "inner" in stopwatch.seconds


@pytest.mark.parametrize("owner", [Part, Heir])
def test_a_stopwatch_that_is_off_leaves_a_class_as_it_was(owner: type) -> None:
    before, watch = dict(owner.__dict__), Stopwatch()
    watch.around(owner, "inner", "inner")
    assert dict(owner.__dict__) != before
    watch.off()
    assert dict(owner.__dict__) == before


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(2, "sim") as running:
        yield running


@pytest.fixture(scope="module")
def drawn() -> list[Scenario]:
    return sample(scenarios(2), 10, seed=1)


def told(world: World, drawn: list[Scenario]) -> list[dict[str, float]]:
    world.run(drawn[0])
    world.call("harness.rank.probes.stopwatch:watch")
    for scenario in drawn:
        world.run(scenario)
    return world.call("harness.rank.probes.stopwatch:told")


def test_every_part_of_a_draw_is_counted_on_every_rank(world: World, drawn: list[Scenario]) -> None:
    for parts in told(world, drawn):
        assert {"the rest of a draw", "registering windows", "library collectives", "communicators"} <= parts.keys()
        assert all(seconds >= 0 for seconds in parts.values())


def test_looking_again_starts_from_zero(world: World, drawn: list[Scenario]) -> None:
    many, few = told(world, drawn * 3), told(world, drawn[:1])
    assert sum(few[0].values()) < sum(many[0].values()) / 2


def test_the_latency_of_a_collective_is_measured_in_a_window(world: World) -> None:
    assert all(
        0 < seconds < 0.1 for both in world.call("harness.rank.probes.stopwatch:latency", 64, 3) for seconds in both
    )
