"""The approved words of every rule: for each a scene that breaks it, and in `approved/` what is said of it.

An explanation that changes fails here; read it as its reader would, and put it into the file if it is better.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.oracle.findings import RULES
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    AllGather,
    Allocate,
    Ballast,
    Capture,
    Deny,
    EndCapture,
    Prepare,
    Recreate,
    Release,
    Replay,
    Steady,
    Step,
    Trim,
)
from harness.world.world import World
from tests.tools.scenes import APART, CROSSED, SQUARE, findings, first, scenario

APPROVED = Path(__file__).parent / "approved"
VARIES = re.compile(r"\d+\.\d+(?= s\b)|(?<=\.py:)\d+")
"""Seconds, and lines of source."""

GATHER = (Allocate("a", "tp", 256), AllGather("tp", View("a"), 100))
BY_KERNEL = (Allocate("a", "tp", 272, "bfloat16"), AllGather("tp", View("a"), 100, via="kernel"))
TRIMMED = (*GATHER, Release("a"), Trim())


def layer(name: str) -> tuple[Step, ...]:
    return Allocate(name, "tp", 256), AllGather("tp", View(name), 100), Release(name)


def graph(name: str, buffer: str) -> tuple[Step, ...]:
    warm = layer(f"warm-{buffer}")
    return Prepare(name), *warm, Capture(name), *layer(buffer), EndCapture(name)


SCENES: dict[str, Scenario] = {
    "freed-while-registered": scenario(*TRIMMED, pool="ForgetsToDeregister"),
    "stale-window": scenario(*GATHER, Recreate("tp"), AllGather("tp", View("a"), 100)),
    "double-registration": scenario(*layer("a"), *layer("b"), pool="AlwaysRegisters"),
    "hot-path-growth": scenario(
        *layer("a"), *layer("b"), Steady(), *layer("c"), pool="harness.system.planted.pools:GivesBackWhenIdle"
    ),
    "registration-skew": scenario(*GATHER, pool="RegistersAlone"),
    "registered-in-capture": scenario(Capture("g"), *layer("a"), EndCapture("g"), pool="per-group"),
    "captured-reuse": scenario(
        *graph("g", "a"),
        Prepare("h"),
        *layer("b")[:2],
        Capture("h"),
        EndCapture("h"),
        Replay("g"),
        pool="harness.system.planted.pools:OnePoolForGraphs",
    ),
    "null-window": scenario(*GATHER, topology=APART, pool="IgnoresNull"),
    "wrong-owner": scenario(
        Allocate("a", "tp", 256),
        Release("a"),
        Allocate("b", "cp", 256),
        AllGather("cp", View("b"), 100),
        topology=SQUARE,
        pool="shared-at-alloc",
    ),
    "unregistered": scenario(*GATHER, pool="NeverRegisters"),
    "partly-registered": scenario(Allocate("a", "tp", 2048), AllGather("tp", View("a"), 1024), pool="ShortWindow"),
    "segment-mismatch": scenario(
        Allocate("a", "tp", 256),
        Allocate("b", "tp", 256),
        AllGather("tp", View("b"), 100),
        topology=CROSSED,
        pool="harness.system.planted.pools:PicksByAddress",
    ),
    "offset-mismatch": scenario(
        Allocate("a", "tp", 256),
        Ballast("shift", "tp", rank=1, size=1000),
        Allocate("b", "tp", 256),
        AllGather("tp", View("b"), 100),
    ),
    "slow-path": scenario(Allocate("a", "tp", 256), AllGather("tp", View("a"), (100, 50), claim=True)),
    "out-of-bounds": scenario(
        Allocate("a", "tp", 200),
        Allocate("mine", "tp", 256, role="plain"),
        AllGather("tp", View("a"), 100, View("mine"), via="kernel"),
        kernels="Overruns",
    ),
    "wrong-data": scenario(*BY_KERNEL, kernels="LosesLastPeer"),
    "leak": scenario(*GATHER, pool="KeepsATensor"),
    "rank-crash": scenario(*GATHER, Allocate("b", "tp", 256), pool="Dies"),
    "hang": scenario(Deny(1), *GATHER, pool="per-group"),
}


def test_there_is_a_scene_for_every_rule() -> None:
    assert SCENES.keys() == RULES.keys()


@pytest.mark.parametrize("rule", SCENES)
def test_an_explanation_is_the_approved_one(ranks: World, rule: str) -> None:
    said = VARIES.sub("…", first(findings(ranks, SCENES[rule]), rule).explanation)
    assert said == (APPROVED / f"{rule}.txt").read_text().replace("\n", " ").strip()
