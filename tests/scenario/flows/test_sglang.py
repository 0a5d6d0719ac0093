"""Flows, line by line: which buffers each asks for, and on which groups its collectives run."""

from __future__ import annotations

import pytest

from harness.scenario.flows.catalogue import compile_flows
from harness.scenario.flows.layer import Batch
from harness.scenario.flows.sglang import SglangLayer, engine_batch
from harness.scenario.operands import Elements, View
from harness.scenario.steps import AllGather, Allocate, AllReduce, ReduceScatter, Release, Step
from harness.scenario.topology import Topology
from tests.tools.dp_attention import LONE, QUADS, ROW, SPLIT, collectives

TOKENS_OF = {"4x2": (6, 4, 1, 9), "split": (6, 4), "lone": (6, 4, 1, 9, 2, 2, 3, 5), "row": (6,), "twice": (6, 4)}


def steps(topology: Topology, *names: str, padded: bool = True, layers: int = 1) -> list[Step]:
    """Layers of these lines on the topology's tokens."""
    batch = Batch(TOKENS_OF[topology.name], padded)
    return [*compile_flows(names, SglangLayer(topology, "float32", "library"), [batch], layers)]


def taken(topology: Topology, name: str, padded: bool = True) -> list[Step]:
    """The steps of one line, without those at its end that give everything back."""
    return [step for step in steps(topology, name, padded=padded) if not isinstance(step, Release)]


def local(buffer: str, family: str, elements: Elements) -> Allocate:
    return Allocate(buffer, family, elements, "float32", "window", "local")


def whole(buffer: str, elements: int) -> Allocate:
    return Allocate(buffer, "tp", elements, "float32", "window", "global")


def plain(buffer: str, elements: Elements) -> Allocate:
    return Allocate(buffer, "tp", elements, "float32", "plain")


def twice(elements: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(2 * each for each in elements)


ODD_QUADS = (3, 3, 2, 2, 1, 1, 5, 5)
ODD_SPLIT = (2, 2, 2, 2, 1, 1, 1, 1)
ODD_LONE = (6, 4, 1, 9, 2, 2, 3, 5)
CHUNKS_OF_TWO = (0, 5, 0, 5, 0, 5, 0, 5)
CHUNKS_OF_EIGHT = (0, 5, 10, 15, 20, 25, 30, 35)


def test_attn_tp_gather_fills_a_local_buffer_over_attention_tp() -> None:
    assert taken(QUADS, "attn-tp-gather") == [
        plain("b0", 5),
        local("b1", "attn_tp", 10),
        AllGather("attn_tp", View("b1"), 5, View("b0")),
    ]


def test_moe_gather_reduces_into_its_own_chunk_and_gathers_that_over_tp() -> None:
    assert taken(QUADS, "moe-gather") == [
        local("b0", "attn_tp", 10),
        ReduceScatter("attn_tp", View("b0"), 5, None),
        whole("b1", 40),
        AllGather("tp", View("b1"), 5, View("b0", CHUNKS_OF_TWO)),
    ]


def test_moe_scatter_reduces_over_tp_in_place_and_gathers_that_chunk_over_attention_tp() -> None:
    assert taken(QUADS, "moe-scatter") == [
        whole("b0", 40),
        ReduceScatter("tp", View("b0"), 5, None),
        local("b1", "attn_tp", 10),
        AllGather("attn_tp", View("b1"), 5, View("b0", CHUNKS_OF_EIGHT)),
    ]


def test_combine_reduces_a_global_buffer_into_a_local_one_of_tp() -> None:
    assert taken(QUADS, "combine") == [
        whole("b0", 40),
        local("b1", "tp", 5),
        ReduceScatter("tp", View("b0"), 5, View("b1")),
    ]


@pytest.mark.parametrize("padded", [True, False])
def test_cp_prefill_takes_no_step_without_context_parallelism(padded: bool) -> None:
    assert steps(QUADS, "cp-prefill", padded=padded) == []


def test_unpadded_attn_tp_gather_counts_by_dp_rank() -> None:
    assert taken(QUADS, "attn-tp-gather", padded=False) == [
        plain("b0", ODD_QUADS),
        local("b1", "attn_tp", twice(ODD_QUADS)),
        AllGather("attn_tp", View("b1"), ODD_QUADS, View("b0")),
    ]


def test_unpadded_moe_gather_takes_chunks_that_begin_where_their_group_says() -> None:
    assert taken(QUADS, "moe-gather", padded=False) == [
        local("b0", "attn_tp", twice(ODD_QUADS)),
        ReduceScatter("attn_tp", View("b0"), ODD_QUADS, None),
        whole("b1", 22),
        AllGather("tp", View("b1"), ODD_QUADS, View("b0", (0, 3, 0, 2, 0, 1, 0, 5))),
    ]


def test_unpadded_moe_scatter_takes_chunks_that_begin_behind_those_of_all_ranks_before() -> None:
    assert taken(QUADS, "moe-scatter", padded=False) == [
        whole("b0", 22),
        ReduceScatter("tp", View("b0"), ODD_QUADS, None),
        local("b1", "attn_tp", twice(ODD_QUADS)),
        AllGather("attn_tp", View("b1"), ODD_QUADS, View("b0", (0, 3, 6, 8, 10, 11, 12, 17))),
    ]


def test_unpadded_combine_leaves_every_rank_its_own_size() -> None:
    assert taken(QUADS, "combine", padded=False) == [
        whole("b0", 22),
        local("b1", "tp", ODD_QUADS),
        ReduceScatter("tp", View("b0"), ODD_QUADS, View("b1")),
    ]


def test_attn_tp_gather_leaves_context_parallelism_alone() -> None:
    assert taken(SPLIT, "attn-tp-gather") == [
        plain("b0", 2),
        local("b1", "attn_tp", 4),
        AllGather("attn_tp", View("b1"), 2, View("b0")),
    ]


def test_cp_prefill_gathers_over_context_parallelism_and_reduces_back() -> None:
    assert taken(SPLIT, "cp-prefill") == [
        plain("b0", 4),
        local("b1", "attn_cp", 8),
        AllGather("attn_cp", View("b1"), 4, View("b0")),
        ReduceScatter("attn_cp", View("b1"), 4, View("b0")),
    ]


def test_unpadded_cp_prefill_counts_by_dp_rank() -> None:
    assert taken(SPLIT, "cp-prefill", padded=False) == [
        plain("b0", twice(ODD_SPLIT)),
        local("b1", "attn_cp", twice(twice(ODD_SPLIT))),
        AllGather("attn_cp", View("b1"), twice(ODD_SPLIT), View("b0")),
        ReduceScatter("attn_cp", View("b1"), twice(ODD_SPLIT), View("b0")),
    ]


def test_moe_gather_is_the_same_with_context_parallelism() -> None:
    assert taken(SPLIT, "moe-gather") == [
        local("b0", "attn_tp", 4),
        ReduceScatter("attn_tp", View("b0"), 2, None),
        whole("b1", 16),
        AllGather("tp", View("b1"), 2, View("b0", (0, 2, 0, 2, 0, 2, 0, 2))),
    ]


def test_moe_scatter_with_context_parallelism_goes_through_a_local_buffer() -> None:
    assert taken(SPLIT, "moe-scatter") == [
        whole("b0", 16),
        local("b1", "attn_tp", 4),
        ReduceScatter("tp", View("b0"), 2, View("b1", (0, 2, 0, 2, 0, 2, 0, 2))),
        AllGather("attn_tp", View("b1"), 2, None),
        local("b2", "attn_cp", 8),
        AllGather("attn_cp", View("b2"), 4, View("b1")),
    ]


def test_unpadded_moe_scatter_with_context_parallelism_counts_by_dp_rank() -> None:
    assert taken(SPLIT, "moe-scatter", padded=False) == [
        whole("b0", 12),
        local("b1", "attn_tp", twice(ODD_SPLIT)),
        ReduceScatter("tp", View("b0"), ODD_SPLIT, View("b1", (0, 2, 0, 2, 0, 1, 0, 1))),
        AllGather("attn_tp", View("b1"), ODD_SPLIT, None),
        local("b2", "attn_cp", twice(twice(ODD_SPLIT))),
        AllGather("attn_cp", View("b2"), twice(ODD_SPLIT), View("b1")),
    ]


def test_combine_is_the_same_with_context_parallelism() -> None:
    assert taken(SPLIT, "combine") == [
        whole("b0", 16),
        local("b1", "tp", 2),
        ReduceScatter("tp", View("b0"), 2, View("b1")),
    ]


def test_moe_scatter_with_context_parallelism_alone_gathers_over_it_from_the_global_buffer() -> None:
    assert taken(ROW, "moe-scatter") == [
        whole("b0", 8),
        ReduceScatter("tp", View("b0"), 2, None),
        local("b1", "attn_cp", 8),
        AllGather("attn_cp", View("b1"), 2, View("b0", (0, 2, 4, 6))),
    ]


def users(topology: Topology, name: str) -> dict[str, list[str]]:
    """For each buffer of a line, the families of the collectives that it is an operand of."""
    found: dict[str, list[str]] = {}
    for step in collectives(taken(topology, name)):
        for view in (step.whole, step.part):
            if view is not None:
                found.setdefault(view.buffer, []).append(step.family)
    return found


def test_moe_scatter_uses_one_buffer_under_two_groups_without_context_parallelism() -> None:
    assert users(QUADS, "moe-scatter") == {"b0": ["tp", "attn_tp"], "b1": ["attn_tp"]}


def test_moe_scatter_uses_one_buffer_under_three_groups_with_context_parallelism() -> None:
    assert users(SPLIT, "moe-scatter") == {"b0": ["tp"], "b1": ["tp", "attn_tp", "attn_cp"], "b2": ["attn_cp"]}


def test_moe_gather_uses_one_buffer_under_two_groups() -> None:
    assert users(QUADS, "moe-gather") == {"b0": ["attn_tp", "tp"], "b1": ["tp"]}


FULL = Topology("full", "sglang", {"tp": 4})
"""Without DP attention."""
HALVES = Topology("halves", "sglang", {"tp": 4, "attn_cp": 2})
"""The same, of attention TP 2 and CP 2."""


@pytest.mark.parametrize(
    ("topology", "name", "family", "count"),
    [
        (FULL, "attn-reduce", "attn_tp", 8),
        (FULL, "mlp-reduce", "tp", 8),
        (HALVES, "attn-reduce", "attn_tp", 4),
        (HALVES, "mlp-reduce", "tp", 8),
        (ROW, "mlp-reduce", "tp", 8),
    ],
)
@pytest.mark.parametrize("extends", [True, False])
def test_without_dp_attention_partial_results_are_reduced_in_place_in_every_batch(
    topology: Topology, name: str, family: str, count: int, extends: bool
) -> None:
    program = compile_flows([name], SglangLayer(topology, "float32", "library"), [engine_batch((6,), extends)], 1)
    assert [*program[:2]] == [local("b0", family, count), AllReduce(family, View("b0"), count)]


@pytest.mark.parametrize("name", ["attn-reduce", "mlp-reduce"])
@pytest.mark.parametrize("topology", [QUADS, SPLIT, LONE], ids=lambda topology: topology.name)
def test_with_dp_attention_nothing_is_reduced_to_all(topology: Topology, name: str) -> None:
    assert steps(topology, name) == []


@pytest.mark.parametrize("name", ["attn-tp-gather", "cp-prefill"])
@pytest.mark.parametrize("padded", [True, False])
def test_a_line_over_a_group_of_one_rank_takes_no_step(name: str, padded: bool) -> None:
    assert steps(LONE, name, padded=padded) == []


def test_attn_tp_gather_takes_no_step_where_all_of_a_dp_rank_is_context_parallel() -> None:
    assert steps(ROW, "attn-tp-gather") == []


def test_moe_gather_takes_activations_where_attention_tp_has_one_rank() -> None:
    assert taken(LONE, "moe-gather") == [
        plain("b0", 9),
        whole("b1", 72),
        AllGather("tp", View("b1"), 9, View("b0")),
    ]


@pytest.mark.parametrize("name", ["moe-scatter", "combine"])
def test_moe_scatter_is_a_combine_where_attention_has_one_rank(name: str) -> None:
    assert taken(LONE, name) == [
        whole("b0", 72),
        local("b1", "tp", 9),
        ReduceScatter("tp", View("b0"), 9, View("b1")),
    ]


def test_unpadded_moe_gather_of_single_ranks_differs_inside_tp() -> None:
    assert taken(LONE, "moe-gather", padded=False) == [
        plain("b0", ODD_LONE),
        whole("b1", 32),
        AllGather("tp", View("b1"), ODD_LONE, View("b0")),
    ]


@pytest.mark.parametrize("name", ["moe-scatter", "combine"])
def test_unpadded_reductions_of_single_ranks_differ_inside_tp(name: str) -> None:
    assert taken(LONE, name, padded=False) == [
        whole("b0", 32),
        local("b1", "tp", ODD_LONE),
        ReduceScatter("tp", View("b0"), ODD_LONE, View("b1")),
    ]
