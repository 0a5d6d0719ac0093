"""What communicators and windows cost: every act on every rank, by the clock that it is handed, and nothing left."""

from __future__ import annotations

import pytest

from harness.rank.probes.costs import END, FIRST, FURTHER, RECREATED
from harness.world.world import World

MEASURE = "harness.rank.probes.costs:measure"


@pytest.fixture(scope="module")
def replies(simulation: World) -> list[dict[str, float]]:
    return simulation.call(MEASURE, 3)


def test_every_rank_measures_each_act(simulation: World, replies: list[dict[str, float]]) -> None:
    assert [[*reply] for reply in replies] == [[RECREATED, FIRST, FURTHER, END]] * simulation.size
    assert min(taken for reply in replies for taken in reply.values()) > 0


def test_a_measurement_leaves_no_communicator_pool_or_window(
    simulation: World, replies: list[dict[str, float]]
) -> None:
    assert replies
    assert simulation.call("tests.tools.called:what_is_open") == [0] * simulation.size


def test_acts_are_timed_one_by_one(simulation: World) -> None:
    """By a clock that goes on by one second whenever it is read: an act is between two reads."""
    assert (
        simulation.call("tests.tools.called:costs_by_reads", 2)
        == [dict.fromkeys((RECREATED, FIRST, FURTHER, END), 1.0)] * simulation.size
    )
