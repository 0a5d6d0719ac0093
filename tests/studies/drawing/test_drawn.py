"""Histograms of scenarios: each unit adds one to each of its own, and what never comes has a count of 0."""

from __future__ import annotations

import pytest

from harness.scenario.operands import ITEMSIZE, View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, AllReduce, InFlight, Release
from harness.scenario.topology import Topology
from harness.strategies.batches import sample
from harness.strategies.flows import flows
from harness.strategies.programs import scenarios
from harness.studies.drawing.drawn import UNITS, Drawn, bar, size

PAIRS = Topology("pairs", "explicit", families_given={"tp": ((0, 1), (2, 3))})
PROGRAM = (
    Allocate("a", "tp", 64, "bfloat16"),
    AllGather("tp", View("a"), 32),
    Release("a"),
    Allocate("b", "tp", 64, stream=1),
    Allocate("c", "tp", 64),
    InFlight(),
    AllReduce("tp", View("b", 3), 0, source=View("c"), op="max", groups=((2, 3),)),
)
DRAWN = Drawn([Scenario(PAIRS, PROGRAM)])


def test_a_collective_is_a_call_in_each_of_its_groups() -> None:
    assert dict(DRAWN.totals) == {"draws": 1, "steps": 7, "collectives": 2, "calls": 3}


def came(unit: str, name: str) -> dict[str | int, int]:
    return {key: count for key, count in DRAWN.by[unit][name].items() if count}


@pytest.mark.parametrize(
    ("unit", "name", "counts"),
    [
        ("draws", "convention", {"explicit": 1}),
        ("draws", "addresses", {"rising": 1}),
        ("draws", "ranks", {4: 1}),
        ("draws", "nodes", {1: 1}),
        ("draws", "steps", {7: 1}),
        ("draws", "collectives", {2: 1}),
        ("draws", "live_buffers", {2: 1}),
        ("draws", "streams", {2: 1}),
        ("steps", "kind", {"allocate": 3, "all_gather": 1, "release": 1, "in_flight": 1, "all_reduce": 1}),
        ("collectives", "operation", {"all_gather": 1, "all_reduce": 1}),
        ("collectives", "via", {"library": 2}),
        ("collectives", "op", {"max": 1}),
        ("collectives", "dtype", {"bfloat16": 1, "float32": 1}),
        ("collectives", "place", {"in place": 1, "other operand in a window": 1}),
        ("collectives", "offset", {"zero": 1, "near": 1}),
        ("collectives", "groups", {1: 1, 2: 1}),
        ("collectives", "live_buffers", {1: 1, 2: 1}),
        ("collectives", "waited_for", {"at once": 1, "in flight": 1}),
        ("calls", "width", {2: 3}),
        ("calls", "bytes", {0: 1, 64: 2}),
        ("calls", "counts", {"equal": 3}),
        ("calls", "values", {"any bits": 2, "any number": 1}),
        ("calls", "symmetric_path", {"open": 2, "no elements": 1}),
    ],
)
def test_a_program_adds_to_each_histogram(unit: str, name: str, counts: dict[str | int, int]) -> None:
    assert came(unit, name) == counts


def test_no_histogram_is_left_untested() -> None:
    (marks,) = [mark for mark in test_a_program_adds_to_each_histogram.pytestmark if mark.name == "parametrize"]  # type: ignore[attr-defined]
    assert [(unit, name) for unit, name, _ in marks.args[1]] == [
        (unit, name) for unit in UNITS for name in DRAWN.by[unit]
    ]


def test_what_could_come_and_did_not_has_a_count_of_0() -> None:
    assert DRAWN.by["collectives"]["op"] == {"sum": 0, "avg": 0, "max": 1, "min": 0}
    assert DRAWN.by["collectives"]["dtype"].keys() == ITEMSIZE.keys()


@pytest.mark.parametrize(
    "strategy", [scenarios(4, graphs=True, streams=3, max_steps=48), flows(4)], ids=["free", "flows"]
)
def test_every_histogram_but_that_of_reductions_adds_up_to_its_unit(strategy: object) -> None:
    drawn = Drawn(sample(strategy, 24, seed=1))  # type: ignore[arg-type]
    sums = {(unit, name): histogram.total() for unit in UNITS for name, histogram in drawn.by[unit].items()}
    del sums["collectives", "op"]
    assert sums == {(unit, name): drawn.totals[unit] for unit, name in sums}


@pytest.mark.parametrize(("number", "least"), [(0, 0), (16, 16), (17, 17), (32, 17), (33, 33), (64, 33), (65, 65)])
def test_large_numbers_share_bars(number: int, least: int) -> None:
    assert bar(number) == least


@pytest.mark.parametrize(("count", "least"), [(0, 0), (1, 1), (3, 2), (4, 4), (1023, 512), (1024, 1024)])
def test_bytes_share_bars_from_a_power_of_two(count: int, least: int) -> None:
    assert size(count) == least
