"""The builder: any list of actions is a valid program of at most the steps asked for."""

from __future__ import annotations

import pytest

from harness.scenario.bases import CollectiveStep
from harness.scenario.steps import AllGather, Allocate, Ballast, Recreate, ReduceScatter, Release, Replay, Step
from harness.scenario.topology import Topology
from harness.scenario.validity import check
from harness.strategies.actions import LARGE_COUNTS
from harness.strategies.builder import Builder
from tests.tools.drawn import act
from tests.tools.scenes import explicit

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


def test_memory_that_was_given_back_is_needed_again() -> None:
    turn = ["allocate", "all_gather", "release"]
    program = Builder(PAIR, 16).build([act("trim", is_fresh=True)], act("all_gather"))
    assert kinds(program)[:7] == [*turn, "trim", *turn]
    assert kinds(Builder(PAIR, 16).build([act("trim")], act("all_gather"))) == ["trim", "allocate", "all_gather"]


def test_new_communicators_are_used_at_once_and_others_go_on_with_the_buffer_that_they_had() -> None:
    both = Topology(name="both", convention="sglang", degrees={"tp": 4, "attn_dp": 2})
    program = Builder(both, 16).build([act("recreate", family=1, is_fresh=True)], act("all_gather"))
    used = ["allocate", "all_gather"]
    assert kinds(program)[:6] == [*used, "recreate", *used, "all_gather"]
    renewed, gathers = program[2], [s for s in program[:6] if isinstance(s, AllGather)]
    assert isinstance(renewed, Recreate)
    assert gathers[0] == gathers[2]
    assert [s.family == renewed.family for s in gathers] == [False, True, False]
    assert not {*both.ids[renewed.family]} & {*both.ids[gathers[0].family]}


def test_new_communicators_find_a_large_buffer_that_was_there_before() -> None:
    program = Builder(PAIR, 16).build([act("recreate", is_fresh=True, root=1)], act("all_gather"))
    large, renewed = program[0], next(step for step in program if isinstance(step, Recreate))
    assert isinstance(large, Allocate)
    assert large.family == renewed.family
    assert isinstance(large.elements, int)
    assert large.elements > 1 << 20
    assert not any(isinstance(step, Release) for step in program[: program.index(renewed)])


def test_new_communicators_where_no_others_are_are_used_alone() -> None:
    alone = explicit(tp=((0, 1),))
    program = Builder(alone, 16).build([act("recreate", is_fresh=True)], act("all_gather"))
    assert kinds(program)[:3] == ["recreate", "allocate", "all_gather"]


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


@pytest.mark.parametrize(("buffer", "calls"), [(0, 2), (4, 6), (8, 10)])
def test_a_queue_is_of_two_to_ten_calls_of_several_sizes_and_operands(buffer: int, calls: int) -> None:
    queue = act("fly", via="kernel", root=1, count=64, buffer=buffer, slack=1, dtype="float8_e5m2")
    program = Builder(PAIR, 48).build([queue], act("all_gather"))[:-1]
    made = [step for step in program if isinstance(step, CollectiveStep)]
    assert kinds(program)[:4] == ["in_flight", *["allocate"] * 3]
    assert (len(made), {step.via for step in made}, kinds(program)[-1]) == (calls, {"kernel"}, "in_flight")
    assert kinds(program)[4 + calls // 2] == "straggle"
    if calls > 2:
        assert {(step.kind, step.part is None) for step in made} >= {("all_gather", True), ("all_gather", False)}
        assert {step.kind for step in made} == {"all_gather", "reduce_scatter"}
        assert len({step.count for step in made}) == 4


@pytest.mark.parametrize(("root", "streams", "families"), [(3, 2, 2), (1, 2, 1), (3, 1, 1)])
def test_most_queues_on_several_streams_are_of_two_families_that_make_the_same_calls(
    root: int, streams: int, families: int
) -> None:
    square = Topology(name="square", convention="vllm", degrees={"tp": 2, "dp": 2})
    queue = act("fly", via="kernel", root=root, count=64, buffer=6)
    program = Builder(square, 48, streams=streams).build([queue], act("all_gather"))
    made = [step for step in program if isinstance(step, CollectiveStep) and step.via == "kernel"]
    assert (len({step.family for step in made}), len({step.stream for step in made})) == (families, families)
    if families == 2:
        pairs = [
            (one.kind, one.count) == (other.kind, other.count) for one, other in zip(made[::2], made[1::2], strict=True)
        ]
        assert pairs == [True] * 4


@pytest.mark.parametrize(("offset", "replays"), [(0, ["replay"] * 2), (3, ["replay", "straggle", "replay"])])
def test_a_graph_of_a_kernel_is_replayed_twice(offset: int, replays: list[str]) -> None:
    program = Builder(PAIR, 48).build([act("graph", via="kernel", offset=offset)], act("all_gather"))
    assert [step.via for step in program if isinstance(step, CollectiveStep)] == ["kernel", "kernel", "library"]
    assert kinds(program)[7:-2] == ["end_capture", *replays]


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
        ("float32", "max", "kernel", "max"),
    ],
)
def test_a_reduction_that_is_not_exact_is_a_sum(dtype: str, op: str, via: str, drawn: str) -> None:
    program = Builder(PAIR, 16).build([], act("reduce_scatter", dtype=dtype, op=op, via=via))
    assert [step.op for step in program if isinstance(step, ReduceScatter)] == [drawn]


def test_a_family_is_drawn_by_its_widest_group() -> None:
    families = {"tp": ((0,), (1,), (2,)), "cp": ((0,), (1, 2))}
    uneven = Topology("uneven", "explicit", families_given=families)
    program = Builder(uneven, 16).build([], act("all_gather"))
    assert {step.family for step in program} == {"cp"}


# groups that act

RING = Topology("ring", "explicit", families_given={"next": ((0, 1), (1, 2), (2, 3), (3, 0))})
QUADS = Topology("quads", "explicit", families_given={"tp": ((0, 1), (2, 3), (4, 5))}, shares={})


def acting(topology: Topology, groups: int) -> object:
    first = Builder(topology, 16).build([], act("all_gather", groups=groups))[1]
    assert isinstance(first, AllGather)
    return first.groups


@pytest.mark.parametrize(
    ("number", "named"),
    [(0, None), (1, ((0, 1),)), (2, ((2, 3),)), (3, ((4, 5),)), (4, ((0, 1), (2, 3))), (6, ((0, 1), (4, 5)))],
)
def test_a_number_stands_for_groups_that_act(number: int, named: object) -> None:
    assert acting(QUADS, number) == named


@pytest.mark.parametrize(("number", "named"), [(0, ((0, 1), (2, 3))), (2, ((1, 2),)), (6, ((1, 2), (3, 0)))])
def test_of_groups_that_overlap_as_many_act_as_share_no_rank(number: int, named: object) -> None:
    assert acting(RING, number) == named


def test_a_collective_of_groups_that_overlap_goes_on_in_the_next_batch() -> None:
    rounds = Builder(RING, 16).build([act("all_gather")], act("all_gather", groups=1))
    calls = [step.groups for step in rounds if isinstance(step, AllGather)]
    assert calls == [((0, 1), (2, 3)), ((1, 2), (3, 0)), ((0, 1),)]
    last = Builder(RING, 16).build([], act("all_gather"))
    assert [step.groups for step in last if isinstance(step, AllGather)] == calls[:2]


def test_only_as_much_of_the_last_collective_is_taken_as_fits() -> None:
    assert kinds(Builder(RING, 3).build([], act("all_gather"))) == ["allocate", "all_gather"]


def test_a_buffer_of_all_groups_serves_some_and_not_the_other_way_round() -> None:
    every, some = act("all_gather"), act("all_gather", groups=1)
    assert kinds(Builder(QUADS, 16).build([every], some)) == ["allocate", "all_gather", "all_gather"]
    assert kinds(Builder(QUADS, 16).build([some], every)) == ["allocate", "all_gather"] * 2


def test_groups_take_turns_in_different_orders() -> None:
    program = Builder(QUADS, 16).build([act("turns")], act("all_gather"))
    calls = [(step.kind, step.groups) for step in program if isinstance(step, CollectiveStep)]
    first, rest = ((0, 1), (2, 3)), ((4, 5),)
    assert calls[:3] == [("all_gather", first), ("reduce_scatter", None), ("all_gather", rest)]


def test_ballast_is_on_a_rank_that_acts() -> None:
    program = Builder(RING, 16).build([act("ballast", groups=4, buffer=1)], act("all_gather"))
    (ballast,) = (step for step in program if isinstance(step, Ballast))
    assert (ballast.rank, ballast.groups) == (3, ((3, 0),))


def test_every_rank_takes_every_step_of_an_spmd_program() -> None:
    mixed = Topology("mixed", "explicit", families_given={"tp": ((0, 1), (2, 3)), "ends": ((0, 3),)})
    program = Builder(mixed, 16, spmd=True).build([act("all_gather", groups=2, family=1)], act("all_gather", groups=1))
    assert {(step.family, step.groups) for step in program} == {("tp", None)}
