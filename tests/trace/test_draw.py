"""A draw: clean only if every rank ran to its end, and data that can be kept."""

from __future__ import annotations

import msgspec
import pytest
import torch

from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    Allocate,
    AllToAll,
    Capture,
    EndCapture,
    InFlight,
    Prepare,
    Release,
    Replay,
    SendReceive,
    Step,
)
from harness.system.collectives import CollectiveContext, TritonCollectives
from harness.trace.draw import Draw, Fate, State
from harness.trace.trace import Trace
from harness.world.world import World
from tests.tools.scenes import PAIR, scenario


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


LARGE = 4097
"""fp32 elements, more than NCCL stages for a peer."""


class ExchangesZeros(TritonCollectives):
    """Breaks wrong-data in an all-to-all."""

    def all_to_all(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        super().all_to_all(context, output, source)
        output.zero_()


def buffers(output: str, source: str) -> tuple[Step, ...]:
    return tuple(
        Allocate(name, "tp", 2 * LARGE, role=role)  # type: ignore[arg-type]
        for name, role in (("o", output), ("s", source))
    )


SENT = SendReceive("tp", View("o"), LARGE, View("s"), 1)
CAPTURED = (
    *(Prepare("g"), Allocate("w", "tp", 2), Allocate("v", "tp", 2, role="plain")),
    *(SendReceive("tp", View("w"), 2, View("v"), 1), Release("w"), Release("v")),
    *(Capture("g"), *buffers("window", "plain"), SENT, EndCapture("g"), Replay("g")),
)
BY_KERNEL = *buffers("window", "window"), AllToAll("tp", View("o"), 5, View("s"), via="kernel")


@pytest.mark.parametrize(
    ("steps", "is_lost"),
    [
        ((*buffers("window", "plain"), SENT), True),
        ((*buffers("window", "window"), SENT), False),
        (CAPTURED, True),
        (CAPTURED[:-1], False),
        ((*buffers("window", "plain"), InFlight(), SENT, InFlight(begins=False)), True),
        (BY_KERNEL, False),
    ],
)
def test_a_draw_says_whether_a_send_of_the_library_was_lost(
    simulation: World, steps: tuple[Step, ...], is_lost: bool
) -> None:
    draw = simulation.run(scenario(*steps, kernels=f"{__name__}:ExchangesZeros"))
    assert draw.has_lost_sends == is_lost
