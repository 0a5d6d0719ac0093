"""States: what a draw nearly broke, which paths it took, on which groups, in which sizes, and in which order."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.oracle import states as package
from harness.oracle.case import Case
from harness.oracle.findings import RULES
from harness.oracle.states.reached import reached
from harness.oracle.states.state import KINDS, State
from harness.oracle.states.universe import universe
from harness.scenario.operands import GUARD, View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import (
    AllGather,
    Allocate,
    AllReduce,
    AllToAll,
    Capture,
    Deny,
    EndCapture,
    InFlight,
    Prepare,
    Recreate,
    Release,
    Replay,
    Steady,
    Step,
    Trim,
)
from harness.world.world import World
from tests.tools.scenes import APART, CROSSED, SQUARE, TURNED, explicit, scenario


def states(ranks: World, played: Scenario) -> set[str]:
    return {*map(str, reached(Case(ranks.run(played))))}


def gather(name: str, family: str = "tp", via: str = "library") -> tuple[Step, ...]:
    return Allocate(name, family, 256), AllGather(family, View(name), 64, via=via)  # type: ignore[arg-type]


def turn(name: str) -> tuple[Step, ...]:
    return *gather(name), Release(name)


def sent(role: str) -> tuple[Step, ...]:
    """An all-to-all of more than NCCL stages."""
    a, b = (Allocate(name, "tp", 16384, role=role) for name in "ab")  # type: ignore[arg-type]
    return a, b, AllToAll("tp", View("a"), 8192, View("b"))


TRIMMED = (*turn("a"), Trim(), *gather("b"))
STEADY = (*turn("a"), *turn("b"), Steady(), *turn("c"), Steady(begins=False))
GRAPH = (Prepare("g"), *turn("a"), Capture("g"), *turn("b"), EndCapture("g"), *gather("c"), Replay("g"))
BESIDE = tuple(Allocate(name, "tp", 512 - GUARD) for name in "ab")
SHARED = scenario(*turn("a"), *gather("b", "cp"), topology=CROSSED, pool="shared-at-exit")
TWINS = scenario(*gather("a"), *gather("b", "cp"), topology=TURNED, pool="shared-at-exit")
NEARLY = {
    "freed-while-registered: deregistered in the step that frees": scenario(*TRIMMED),
    "freed-while-registered: deregistered in a step before": scenario(*turn("a"), Recreate("tp"), Trim()),
    "stale-window: the group had a window there before": scenario(*TRIMMED),
    "stale-peer-address: a kernel where the group had another window": scenario(
        *turn("a"), Trim(), *gather("b", via="kernel")
    ),
    "double-registration: an address again": scenario(*TRIMMED),
    "double-registration: one segment, two communicators": SHARED,
    "unregistered: registered after the segment came": SHARED,
    "wrong-owner: another communicator has a window there, too": SHARED,
    "wrong-owner: memory of another group before": SHARED,
    "wrong-owner: one over equal ranks has a window there, too": TWINS,
    "wrong-owner: a communicator over equal ranks has other windows": scenario(
        *gather("a"), *gather("b", "cp"), topology=TURNED
    ),
    "wrong-owner: memory of the same group before": scenario(*turn("a"), *gather("b")),
    "hot-path-growth: allocated in steady state": scenario(*STEADY),
    "registered-in-capture: allocated in a capture": scenario(*GRAPH),
    "registered-in-capture: registered right before": scenario(*GRAPH),
    "captured-reuse: released before a replay": scenario(*GRAPH),
    "captured-reuse: allocated between capture and replay": scenario(*GRAPH),
    "null-window: a registration gave none": scenario(
        *gather("a"), topology=APART, pool="harness.system.planted.pools:IgnoresNull"
    ),
    "hang: a call after memory was refused": scenario(Deny(0), *gather("a"), *gather("b"), pool="deferred"),
    "half-registered: both sides have windows": scenario(*sent("window")),
    "half-registered: neither side has a window": scenario(*sent("plain")),
    "wrong-data: an average over no power of two": scenario(
        Allocate("a", "tp", 12), AllReduce("tp", View("a"), 4, op="avg"), topology=explicit(tp=((0, 1, 2),))
    ),
    "slow-path: owned and not eligible": scenario(Allocate("a", "tp", 64), AllGather("tp", View("a"), (4, 8))),
    "result-overwritten: a result is kept over the next call": scenario(*gather("a"), *gather("b")),
    "source-changed: in place": scenario(*gather("a")),
    "out-of-bounds: the operand ends with its buffer": scenario(
        Allocate("a", "tp", 128), AllGather("tp", View("a"), 64)
    ),
    "registration-skew: some ranks register with other groups, too": scenario(
        Allocate("k", "cp", 8, groups=((0, 2),)), *gather("a"), topology=SQUARE
    ),
    "segment-mismatch: some ranks have more segments": scenario(
        Allocate("k", "cp", 8, groups=((0, 2),)), *gather("a"), topology=SQUARE
    ),
    "segment-mismatch: one of several windows": scenario(*TRIMMED),
    "oversized-window: a segment lies right behind": scenario(*gather("a"), *gather("b", "cp"), topology=TURNED),
    "overlapping-buffers: side by side with a live buffer": scenario(*BESIDE, AllGather("tp", View("a"), 8)),
}
PLAIN = scenario(
    Allocate("p", "tp", 64, role="plain"), Allocate("a", "tp", 64), AllGather("tp", View("a"), 8, View("p"))
)
"""A call that comes near to nothing."""


@pytest.mark.parametrize("name", NEARLY)
def test_what_nearly_broke_a_rule_is_named(ranks: World, name: str) -> None:
    assert f"nearly: {name}" in states(ranks, NEARLY[name])


def test_what_came_near_to_nothing_has_no_such_state(ranks: World) -> None:
    assert not [name for name in states(ranks, PLAIN) if name.startswith("nearly")]


@pytest.mark.parametrize(
    ("played", "path"),
    [
        (scenario(*gather("a")), "all_gather library symmetric"),
        (scenario(*gather("a", via="kernel")), "all_gather kernel kernel"),
        (scenario(*gather("a"), topology=APART), "all_gather library legacy"),
        (scenario(*gather("a", via="copy-engine")), "all_gather copy-engine copy engine"),
    ],
)
def test_a_path_has_the_operation_the_way_and_what_it_took(ranks: World, played: Scenario, path: str) -> None:
    assert {name for name in states(ranks, played) if name.startswith("path")} == {f"path: {path}"}


@pytest.mark.parametrize(
    ("played", "shapes"),
    [
        (scenario(*gather("a")), {"width 2"}),
        (scenario(*gather("a"), topology=APART), {"width 2", "without windows"}),
        (TWINS, {"width 2", "ranks not in rising order", "two communicators over equal ranks"}),
        (SHARED, {"width 2", "ranks with gaps", "two groups that overlap"}),
        (
            scenario(*gather("a"), *gather("b", "cp"), topology=SQUARE),
            {"width 2", "width 4", "ranks with gaps", "one group inside another"},
        ),
    ],
)
def test_a_shape_is_that_of_groups_that_ran_calls(ranks: World, played: Scenario, shapes: set[str]) -> None:
    assert {name for name in states(ranks, played) if name.startswith("group")} == {f"group: {name}" for name in shapes}


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (0, {"no bytes"}),
        (4, {"up to 1 KiB"}),
        (256, {"up to 1 KiB", "a power of two"}),
        (1023, {"up to 16 KiB", "one element below a power of two"}),
        (4097, {"up to 64 KiB", "one element above one"}),
        ((0, 8), {"up to 1 KiB", "uneven", "some ranks without bytes"}),
    ],
)
def test_a_size_has_its_bucket_and_what_is_odd_about_it(ranks: World, count: int, sizes: set[str]) -> None:
    played = scenario(Allocate("a", "tp", 16384), AllGather("tp", View("a"), count))
    found = {name.removeprefix("size: ") for name in states(ranks, played) if name.startswith("size")}
    assert found - {"unaligned"} == sizes


def test_an_operand_at_an_odd_offset_is_unaligned(ranks: World) -> None:
    odd = scenario(Allocate("a", "tp", 64), AllGather("tp", View("a", 1), 4))
    even = scenario(Allocate("a", "tp", 64), AllGather("tp", View("a"), 4))
    assert ["size: unaligned" in states(ranks, each) for each in (odd, even)] == [True, False]


@pytest.mark.parametrize(
    ("played", "names"),
    [
        (scenario(*gather("a"), Recreate("tp"), Release("a")), {"buffer: call, recreate", "buffer: recreate, release"}),
        (SHARED, {"memory: release, allocate by another group, call", "rank: call, call of a group that overlaps"}),
        (
            scenario(InFlight(), *turn("a"), *turn("b"), InFlight(begins=False)),
            {"memory: release in flight, allocate in flight", "communicator: call in flight, call in flight"},
        ),
        (scenario(*GRAPH), {"buffer: release captured, replay", "communicator: call, call captured"}),
        (scenario(*TRIMMED), {"communicator: call, deregister"}),
        (TWINS, {"rank: call, call of another communicator over equal ranks"}),
    ],
)
def test_an_interleaving_is_two_things_in_a_row(ranks: World, played: Scenario, names: set[str]) -> None:
    assert names <= {name.removeprefix("interleaving: ") for name in states(ranks, played)}


def test_the_same_scenario_reaches_the_same_states_in_the_same_order(ranks: World) -> None:
    once, again = (reached(Case(ranks.run(SHARED))) for _ in range(2))
    assert once == again
    assert [*once] == sorted(once, key=lambda state: (KINDS.index(state.kind), state.name))


def named(path: Path) -> list[str]:
    """The states of rules that a module names."""
    texts = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
    return [text for text in texts if isinstance(text, str) and text.partition(": ")[0] in RULES]


def test_all_states_of_rules_that_can_be_named_are_listed() -> None:
    folder = Path(str(package.__file__)).parent
    listed: Sequence[str] = [state.name for state in universe() if state.kind == "nearly"]
    assert {name for path in folder.glob("nearly_*.py") for name in named(path)} <= {*listed}
    assert {name.partition(": ")[0] for name in listed} <= RULES.keys()


def test_no_state_is_listed_twice() -> None:
    assert len(universe()) == len({*universe()})
    assert State("nearly", "source-changed: in place") in universe()
