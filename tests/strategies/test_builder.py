"""The builder: any list of actions is a valid program of at most the steps asked for."""

from __future__ import annotations

import pytest

from harness.scenario.steps import Allocate, Recreate, ReduceScatter, Release, Replay, Step
from harness.scenario.topology import Topology
from harness.scenario.validity import check
from harness.strategies.actions import LARGE_COUNTS
from harness.strategies.builder import Builder
from tests.tools.drawn import act

PAIR = Topology(name="pair", convention="vllm", degrees={"tp": 2})


def test_program_of_at_most_two_steps_has_no_third() -> None:
    assert len(Builder(PAIR, 2).build([], act("all_gather", part="plain"))) <= 2


def test_largest_collective_fits_the_largest_named_topologies() -> None:
    action = act("all_gather", count=max(LARGE_COUNTS), dtype="float32", spread=100)
    sixteen = Topology(name="sixteen", convention="sglang", degrees={"tp": 16})
    check(sixteen, Builder(sixteen, 16).build([], action))


def test_largest_collective_fits_a_world_of_512_ranks() -> None:
    action = act("all_gather", count=max(LARGE_COUNTS), dtype="float32")
    wide = Topology(name="wide", convention="sglang", degrees={"tp": 512})
    check(wide, Builder(wide, 16).build([], action))


def kinds(program: tuple[Step, ...]) -> list[str]:
    return [step.kind for step in program]


def test_an_action_that_does_not_fit_is_left_out_with_all_its_steps() -> None:
    three = act("all_gather", part="plain", is_fresh=True)
    program = Builder(PAIR, 7).build([three, three], act("all_gather"))
    assert kinds(program) == ["allocate", "allocate", "all_gather", "all_gather"]


def test_nothing_is_released_where_nothing_is_alive() -> None:
    assert kinds(Builder(PAIR, 16).build([act("release")], act("all_gather"))) == ["allocate", "all_gather"]


def test_a_released_buffer_is_not_used_again() -> None:
    program = Builder(PAIR, 16).build([act("allocate"), act("release")], act("all_gather"))
    assert [step.allocates or step.drops for step in program if isinstance(step, Allocate | Release)] == [
        "b0",
        "b0",
        "b1",
    ]


def test_ballast_is_neither_used_nor_released() -> None:
    program = Builder(PAIR, 16).build([act("ballast"), act("release")], act("all_gather"))
    assert kinds(program) == ["ballast", "allocate", "all_gather"]


def test_what_a_graph_holds_is_neither_used_nor_released() -> None:
    program = Builder(PAIR, 48).build([act("graph"), act("release")], act("all_gather"))
    held = next(step.buffer for step in reversed(program[:-2]) if isinstance(step, Allocate))
    assert [step for step in program if held in step.buffers and step.kind == "release"] == []
    assert held not in program[-1].buffers


def test_a_graph_is_warmed_up_captured_and_replayed() -> None:
    program = Builder(PAIR, 48).build([act("graph", is_fresh=True), act("replay")], act("all_gather"))
    once = ["allocate", "all_gather", "release"]
    assert kinds(program)[:10] == ["prepare", *once, "capture", *once, "end_capture", "replay"]


def test_a_graph_is_not_replayed_after_its_communicators_were_replaced() -> None:
    program = Builder(PAIR, 48).build([act("graph"), act("recreate"), act("replay")], act("all_gather"))
    assert not any(isinstance(step, Replay) for step in program)


def test_a_replacement_that_does_not_fit_still_keeps_the_last_action_off_its_windows() -> None:
    program = Builder(PAIR, 4).build([act("allocate", count=8), act("recreate")], act("all_gather"))
    assert not any(isinstance(step, Recreate) for step in program)
    assert kinds(program) == ["allocate", "allocate", "all_gather"]


@pytest.mark.parametrize(
    ("dtype", "op", "via", "drawn"),
    [
        ("float32", "avg", "library", "avg"),
        ("int32", "avg", "library", "sum"),
        ("float32", "max", "library", "max"),
        ("float32", "max", "kernel", "sum"),
    ],
)
def test_a_reduction_that_is_not_exact_or_that_kernels_lack_is_a_sum(dtype: str, op: str, via: str, drawn: str) -> None:
    program = Builder(PAIR, 16).build([], act("reduce_scatter", dtype=dtype, op=op, via=via))
    assert [step.op for step in program if isinstance(step, ReduceScatter)] == [drawn]


def test_a_family_is_drawn_by_its_widest_group() -> None:
    families = {"tp": ((0,), (1,), (2,)), "cp": ((0,), (1, 2))}
    uneven = Topology("uneven", "explicit", families_given=families)
    program = Builder(uneven, 16).build([], act("all_gather"))
    assert {step.family for step in program} == {"cp"}
