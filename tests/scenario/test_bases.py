"""What steps answer: a kind without the field in question gives the default, and one with it gives the field."""

from __future__ import annotations

import pytest

from harness.scenario.bases import counts_in, is_uneven
from harness.scenario.operands import View
from harness.scenario.steps import (
    AllGather,
    Allocate,
    Ballast,
    Capture,
    Collective,
    Deny,
    Recreate,
    ReduceScatter,
    Release,
    Step,
    Trim,
)

GATHER = AllGather("tp", View("a"), 4, View("b"), stream=2)
REDUCE = ReduceScatter("tp", View("a"), 4, View("b"))
IN_PLACE = AllGather("tp", View("a"), 4)


@pytest.mark.parametrize(
    ("step", "family"), [(Trim(), None), (Recreate("tp"), "tp"), (GATHER, "tp"), (Release("a"), None)]
)
def test_a_step_names_the_family_it_has_or_none(step: Step, family: str | None) -> None:
    assert step.family == family


@pytest.mark.parametrize(("step", "graph"), [(Trim(), None), (Capture("g"), "g")])
def test_a_step_names_the_graph_it_has_or_none(step: Step, graph: str | None) -> None:
    assert step.graph == graph


@pytest.mark.parametrize(("step", "rank"), [(Trim(), None), (Deny(3), 3), (Ballast("a", "tp", 2, 8), 2)])
def test_a_step_names_the_rank_that_acts_alone_or_none(step: Step, rank: int | None) -> None:
    assert step.rank == rank


@pytest.mark.parametrize(("step", "stream"), [(Trim(), 0), (GATHER, 2), (Allocate("a", "tp", 8, stream=1), 1)])
def test_a_step_runs_on_its_stream_or_the_first(step: Step, stream: int) -> None:
    assert step.stream == stream


@pytest.mark.parametrize(
    ("step", "made", "dropped"),
    [
        (Allocate("a", "tp", 8), "a", None),
        (Ballast("a", "tp", 0, 8), "a", None),
        (Release("a"), None, "a"),
        (GATHER, None, None),
    ],
    ids=lambda value: getattr(value, "kind", value),
)
def test_a_step_says_what_it_makes_and_what_it_drops(step: Step, made: str | None, dropped: str | None) -> None:
    assert (step.allocates, step.drops) == (made, dropped)


@pytest.mark.parametrize(
    ("step", "buffers"),
    [
        (Allocate("a", "tp", 8), {"a"}),
        (Release("a"), {"a"}),
        (GATHER, {"a", "b"}),
        (REDUCE, {"a", "b"}),
        (IN_PLACE, {"a"}),
        (Recreate("tp"), set()),
    ],
    ids=["allocate", "release", "all_gather", "reduce_scatter", "in place", "recreate"],
)
def test_a_steps_buffers_are_all_that_it_makes_drops_reads_or_writes(step: Step, buffers: set[str]) -> None:
    assert step.buffers == buffers


@pytest.mark.parametrize("step", [GATHER, REDUCE], ids=lambda step: step.kind)
def test_the_whole_is_the_operand_that_a_collective_names_as_such(step: Collective) -> None:
    operands = {"source": step.source, "output": step.output}
    assert operands[step.whole_operand] == step.whole == View("a")


@pytest.mark.parametrize(("step", "op"), [(GATHER, None), (REDUCE, "sum")], ids=["all_gather", "reduce_scatter"])
def test_only_a_collective_that_reduces_has_an_operation(step: Collective, op: str | None) -> None:
    assert step.op == op


@pytest.mark.parametrize("step", [GATHER, REDUCE], ids=lambda step: step.kind)
def test_a_rank_reaches_a_chunk_for_each_rank_in_the_whole_and_one_in_the_part(step: Collective) -> None:
    assert step.reach((0, 1, 2), 1) == (12, 4)


def test_in_place_a_rank_reaches_the_whole_alone() -> None:
    assert IN_PLACE.reach((0, 1), 0) == (8,)


def test_unequal_counts_are_reached_as_their_sum_and_the_ranks_own() -> None:
    assert AllGather("tp", View("a"), (1, 2, 3), View("b")).reach((0, 2), 2) == (4, 3)


def test_counts_come_in_the_order_of_the_group() -> None:
    assert counts_in(AllGather("tp", View("a"), (1, 2, 3)), (2, 0)) == (3, 1)


@pytest.mark.parametrize(("group", "uneven"), [((0, 1), False), ((0, 2), True)])
def test_a_call_is_uneven_where_counts_differ_inside_the_group(group: tuple[int, ...], uneven: bool) -> None:
    assert is_uneven(AllGather("tp", View("a"), (1, 1, 3)), group) == uneven
