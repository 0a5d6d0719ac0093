"""An epoch that a graph keeps is a race at its replays alone, and one on the device is right."""

from __future__ import annotations

import msgspec
import pytest

from harness.scenario.operands import View
from harness.scenario.schedule import Schedule
from harness.scenario.steps import AllGather, Allocate, Capture, EndCapture, Prepare, Release, Replay, Step
from harness.world.world import World
from tests.tools.scenes import findings, rules, scenario

ORDER = "harness.system.planted.order"
WARM = (Prepare("g"), Allocate("w", "tp", 64), AllGather("tp", View("w"), 32, via="kernel"), Release("w"))
GRAPH = (Capture("g"), Allocate("a", "tp", 64), AllGather("tp", View("a"), 32, via="kernel"), EndCapture("g"))
ORDERS = [Schedule((0, 1)), Schedule((1, 0)), Schedule((0, 1), (5, 40))]


def broken(ranks: World, kernels: str, schedule: Schedule, *steps: Step) -> list[str]:
    played = scenario(*steps, pool="deferred", kernels=f"{ORDER}:{kernels}")
    return rules(findings(ranks, msgspec.structs.replace(played, schedule=schedule)))


@pytest.mark.parametrize("schedule", ORDERS)
def test_an_epoch_on_the_device_counts_on_in_replays(ranks: World, schedule: Schedule) -> None:
    assert broken(ranks, "EpochOnDevice", schedule, *WARM, *GRAPH, *(Replay("g"),) * 3) == []


@pytest.mark.parametrize("schedule", ORDERS)
def test_an_epoch_in_a_graph_is_a_race_from_the_second_replay_on(ranks: World, schedule: Schedule) -> None:
    assert broken(ranks, "BakesEpoch", schedule, *WARM, *GRAPH, Replay("g")) == []
    assert broken(ranks, "BakesEpoch", schedule, *WARM, *GRAPH, Replay("g"), Replay("g"))[0] == "race"
