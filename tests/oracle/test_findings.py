"""Findings: each rule explains itself with its approved text, and causes come before consequences.

For every rule a scene breaks it, and `approved/` holds the text. An explanation that changes fails here; read it as its
reader would, and put it into the file if it is better.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from harness.oracle.findings import PRINTED, PRIORITY, RULES, Finding, Record, StackRecord, ordered
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.schedule import Schedule
from harness.scenario.steps import (
    AllGather,
    Allocate,
    Ballast,
    Capture,
    Deny,
    EndCapture,
    Prepare,
    Recreate,
    ReduceScatter,
    Release,
    Replay,
    SendReceive,
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
    "oversized-window": scenario(*GATHER, Allocate("b", "tp", 1 << 20), pool="LongWindow"),
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
    "overlapping-buffers": scenario(Allocate("a", "tp", 256), Allocate("b", "tp", 256), pool="HandsOutTwice"),
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
    "half-registered": scenario(
        Allocate("a", "tp", 8192),
        Allocate("mine", "tp", 8192, role="plain"),
        SendReceive("tp", View("a"), 5000, View("mine")),
    ),
    "slow-path": scenario(Allocate("a", "tp", 256), AllGather("tp", View("a"), (100, 50), claim=True)),
    "race": msgspec.structs.replace(
        scenario(*BY_KERNEL, kernels="harness.system.planted.order:RelaxedSignals"), schedule=Schedule((0, 1))
    ),
    "stale-peer-address": scenario(
        *BY_KERNEL,
        Release("a"),
        Recreate("tp"),
        Allocate("b", "tp", 272, "bfloat16"),
        AllGather("tp", View("b"), 100, via="kernel"),
        kernels="harness.system.planted.kernels:KeepsPeerAddresses",
    ),
    "out-of-bounds": scenario(
        Allocate("a", "tp", 200),
        Allocate("mine", "tp", 256, role="plain"),
        AllGather("tp", View("a"), 100, View("mine"), via="kernel"),
        kernels="Overruns",
    ),
    "source-changed": scenario(
        Allocate("a", "tp", 200),
        Allocate("mine", "tp", 256, role="plain"),
        AllGather("tp", View("a"), 100, View("mine"), via="kernel"),
        kernels="tests.tools.strays:InSource",
    ),
    "result-overwritten": scenario(
        Allocate("a", "tp", 256),
        ReduceScatter("tp", View("a"), 100, via="kernel"),
        AllGather("tp", View("a"), 100, via="kernel"),
        kernels="harness.system.planted.results:ReturnsItsScratch",
    ),
    "wrong-data": scenario(*BY_KERNEL, kernels="LosesLastPeer"),
    "leak": scenario(*GATHER, pool="KeepsATensor"),
    "rank-crash": scenario(*GATHER, Allocate("b", "tp", 256), pool="Dies"),
    "raised": scenario(*GATHER, Allocate("b", "tp", 256), pool="tests.tools.planted.raises:Raises"),
    "hang": scenario(Deny(1), *GATHER, pool="per-group"),
}


def test_there_is_a_scene_for_every_rule() -> None:
    assert SCENES.keys() == RULES.keys()


@pytest.mark.parametrize("rule", SCENES)
def test_an_explanation_is_the_approved_one(ranks: World, rule: str) -> None:
    shown = VARIES.sub("…", first(findings(ranks, SCENES[rule]), rule).explanation)
    assert shown == (APPROVED / f"{rule}.txt").read_text().replace("\n", " ").strip()


# their order


def broken(rule: str, step: int, explanation: str = "") -> Finding:
    return RULES[rule](explanation, step=step, ranks=(0,))


@pytest.mark.parametrize(
    ("cause", "consequence"),
    [
        ("freed-while-registered", "stale-window"),
        ("registration-skew", "hang"),
        ("registration-skew", "segment-mismatch"),
        ("wrong-owner", "slow-path"),
        ("segment-mismatch", "wrong-data"),
        ("offset-mismatch", "wrong-data"),
        ("offset-mismatch", "out-of-bounds"),
        ("overlapping-buffers", "captured-reuse"),
        ("overlapping-buffers", "out-of-bounds"),
        ("out-of-bounds", "source-changed"),
        ("overlapping-buffers", "result-overwritten"),
        ("captured-reuse", "result-overwritten"),
        ("offset-mismatch", "result-overwritten"),
        ("wrong-owner", "race"),
        ("race", "result-overwritten"),
        ("race", "wrong-data"),
        ("result-overwritten", "out-of-bounds"),
        ("result-overwritten", "wrong-data"),
        ("source-changed", "wrong-data"),
        ("rank-crash", "hang"),
        ("wrong-owner", "raised"),
        ("wrong-data", "raised"),
        ("rank-crash", "raised"),
    ],
)
def test_a_cause_found_late_comes_before_its_consequence(cause: str, consequence: str) -> None:
    assert [finding.rule for finding in ordered([broken(consequence, 1), broken(cause, 2)])] == [cause, consequence]


def test_of_one_rule_the_earliest_step_comes_first() -> None:
    assert [finding.step for finding in ordered([broken("leak", 7), broken("leak", 3)])] == [3, 7]


def test_a_rule_has_one_finding_a_step_and_it_is_the_first() -> None:
    assert [str(finding) for finding in ordered([broken("leak", 3, "this"), broken("leak", 3, "that")])] == [
        "leak: this"
    ]


def test_every_rule_has_a_place_in_the_order() -> None:
    assert sorted(PRIORITY) == sorted(RULES)


# as data


def test_a_record_comes_back_as_it_was() -> None:
    stack = StackRecord(0, PRINTED, ("stderr:", "no"))
    record = RULES["rank-crash"]("rank 0 ended", step=3, ranks=(0, 2), stacks=(stack,)).record()
    assert record == Record("rank-crash", "rank 0 ended", 3, (0, 2), (stack,))
    assert msgspec.json.decode(msgspec.json.encode(record), type=Record) == record


def test_a_record_without_stacks_has_no_key_for_them() -> None:
    """As seed files have it."""
    assert msgspec.to_builtins(broken("leak", 3, "this").record()).keys() == {"rule", "explanation", "step", "ranks"}


def test_a_finding_reads_as_its_rule_and_explanation() -> None:
    assert str(broken("leak", 3, "this")) == "leak: this"
