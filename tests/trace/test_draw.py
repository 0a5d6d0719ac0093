"""A draw: clean only if every rank ran to its end, and data that can be kept."""

from __future__ import annotations

import msgspec
import pytest

from harness.scenario.scenario import Scenario
from harness.trace.draw import Draw, Fate, State
from harness.trace.trace import Trace
from harness.world.world import World
from tests.tools.scenes import PAIR


def ended(*states: State) -> Draw:
    fates = tuple(Fate(rank, state) for rank, state in enumerate(states))
    return Draw(Scenario(PAIR, ()), tuple(Trace(rank) for rank in range(len(states))), fates, 1.0, 2.0)


def test_a_draw_is_clean_if_every_rank_finished() -> None:
    assert ended("finished", "finished").is_clean


@pytest.mark.parametrize("state", ["crashed", "hung", "stopped"])
def test_one_rank_that_ended_otherwise_spoils_a_draw(state: State) -> None:
    assert not ended("finished", state).is_clean


def test_a_draw_comes_back_as_it_was() -> None:
    draw = msgspec.structs.replace(ended("finished", "hung"), nccl=(2, 32, 3))
    assert msgspec.json.decode(msgspec.json.encode(draw), type=Draw) == draw


def test_a_draw_of_the_simulation_names_no_nccl(simulation: World) -> None:
    draw = simulation.run(Scenario(PAIR, ()))
    assert (draw.is_clean, draw.nccl) == (True, None)
