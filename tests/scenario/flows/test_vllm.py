"""vLLM's lines: which groups they run on, with which sizes, and what a replica without work does."""

from __future__ import annotations

import pytest

from harness.scenario.flows.layer import Batch
from harness.scenario.flows.vllm import FLOWS, engine_batch
from harness.scenario.operands import View
from harness.scenario.steps import AllGather, Allocate, ReduceScatter
from harness.scenario.topology import Topology
from tests.tools.flow_layers import gathered, plain, reduced, scattered, taken, whole, window

GRID = Topology("grid", "vllm", {"dp": 2, "tp": 2, "dcp": 2})
"""Two replicas of TP 2, whose ranks divide the KV cache."""
REPLICAS = Topology("replicas", "vllm", {"dp": 4})
CONTEXT = Topology("context", "vllm", {"dp": 2, "pcp": 2})
PADDED = Batch((3, 6), is_padded=True)
UNEVEN = Batch((3, 6), is_padded=False)
IDLE = Batch((0, 6), is_padded=False)


def test_ep_gather_takes_tokens_that_tp_divides_and_what_the_router_says_of_each() -> None:
    assert taken(GRID, "vllm-ep-gather", PADDED, hidden=16) == [
        *gathered("ep", 0, 48, 192),
        *gathered("ep", 2, 3, 12),
    ]


def test_ep_scatter_gives_each_rank_its_part() -> None:
    assert taken(GRID, "vllm-ep-scatter", PADDED) == scattered("ep", 0, 3, 12)


def test_unpadded_ep_calls_have_the_sizes_of_the_replicas() -> None:
    assert taken(GRID, "vllm-ep-scatter", UNEVEN) == scattered("ep", 0, (2, 2, 3, 3), 10)


@pytest.mark.parametrize("batch", [IDLE, Batch((1, 6), is_padded=False)], ids=["idle", "one token"])
def test_an_idle_replica_brings_a_dummy_token_to_the_experts(batch: Batch) -> None:
    assert taken(GRID, "vllm-ep-scatter", batch) == scattered("ep", 0, (1, 1, 3, 3), 8)


@pytest.mark.parametrize("batch", [Batch((0, 6), is_padded=True), PADDED], ids=["idle", "busy"])
def test_an_idle_replica_that_pads_is_as_long_as_the_others(batch: Batch) -> None:
    assert taken(GRID, "vllm-ep-scatter", batch) == scattered("ep", 0, 3, 12)


def test_context_parallel_ranks_bring_their_own_tokens_to_the_experts() -> None:
    assert taken(CONTEXT, "vllm-ep-scatter", UNEVEN) == scattered("ep", 0, (3, 3, 6, 6), 18)


def test_without_expert_parallelism_replicas_meet_over_dp_with_all_of_their_tokens() -> None:
    assert taken(GRID, "vllm-dp-gather", UNEVEN) == [
        *gathered("dp", 0, (3, 3, 6, 6), 9),
        *gathered("dp", 2, (3, 3, 6, 6), 9),
    ]
    assert taken(GRID, "vllm-dp-scatter", UNEVEN) == scattered("dp", 0, (3, 3, 6, 6), 9)


def test_tp_gather_joins_what_tp_divided() -> None:
    assert taken(GRID, "vllm-tp-gather", UNEVEN) == gathered("tp", 0, (2, 2, 3, 3), (4, 4, 6, 6))


def test_tp_reduce_copies_into_a_window_and_reduces_all_tokens_of_the_replica_into_another() -> None:
    assert taken(GRID, "vllm-tp-reduce", PADDED, hidden=16) == reduced("tp", 96)


@pytest.mark.parametrize("batch", [UNEVEN, engine_batch((3, 6), is_extending=True)], ids=["uneven", "prefill"])
def test_tp_reduce_of_an_unpadded_batch_has_symmetric_memory_and_sizes_of_the_replicas(batch: Batch) -> None:
    assert taken(GRID, "vllm-tp-reduce", batch) == reduced("tp", (3, 3, 6, 6))


def test_an_idle_replica_reduces_a_dummy_token() -> None:
    assert taken(GRID, "vllm-tp-reduce", IDLE) == reduced("tp", (1, 1, 6, 6))


def dcp(count: int | tuple[int, ...], twice: int | tuple[int, ...], groups: tuple[tuple[int, ...], ...] | None) -> list:
    return [
        plain("b0", count),
        plain("b1", twice),
        AllGather("dcp", View("b1"), count, View("b0"), groups=groups),
        plain("b2", count),
        whole("b3", "dcp", twice),
        AllGather("dcp", View("b3"), count, View("b2"), groups=groups),
        whole("b4", "dcp", twice),
        window("b5", "dcp", count),
        ReduceScatter("dcp", View("b4"), count, View("b5"), groups=groups),
    ]


def test_dcp_gathers_queries_in_ordinary_memory_and_reduces_outputs_in_windows() -> None:
    assert taken(GRID, "vllm-dcp", PADDED) == dcp(6, 12, None)


def test_dcp_of_an_unpadded_batch_has_sizes_that_differ_between_groups_alone() -> None:
    assert taken(GRID, "vllm-dcp", UNEVEN) == dcp((3, 3, 6, 6), (6, 6, 12, 12), None)


def test_a_dummy_batch_outside_of_a_graph_skips_attention() -> None:
    assert taken(GRID, "vllm-dcp", IDLE) == dcp((0, 0, 6, 6), (0, 0, 12, 12), ((2, 3),))


def test_a_dummy_batch_in_a_graph_runs_attention() -> None:
    assert taken(GRID, "vllm-dcp", Batch((0, 6), is_padded=True)) == dcp(6, 12, None)


@pytest.mark.parametrize(
    ("topology", "lines"),
    [
        (GRID, {*FLOWS}),
        (REPLICAS, {"vllm-dp-gather", "vllm-dp-scatter"}),
        (CONTEXT, {"vllm-ep-gather", "vllm-ep-scatter"}),
        (Topology("tp", "vllm", {"tp": 4}), {"vllm-tp-reduce"}),
        (Topology("wide", "vllm", {"tp": 4, "dcp": 4}), {"vllm-dcp", "vllm-tp-reduce"}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_lines_run_where_the_engine_has_them(topology: Topology, lines: set[str]) -> None:
    batch = Batch((3,) * 4, is_padded=True)
    assert {name for name in FLOWS if taken(topology, name, batch)} == lines


def roles(topology: Topology, name: str, batch: Batch) -> set[str]:
    """The roles of the buffers through which ranks reach each other."""
    return {step.role for step in taken(topology, name, batch) if isinstance(step, Allocate) and step.site == "global"}


def test_a_prefill_whose_sizes_differ_in_a_group_has_no_symmetric_memory() -> None:
    assert roles(GRID, "vllm-ep-gather", engine_batch((3, 6), is_extending=True)) == {"plain"}


@pytest.mark.parametrize(
    ("name", "tokens"),
    [("vllm-ep-gather", (6, 6)), ("vllm-ep-gather", (5, 6)), ("vllm-dcp", (3, 6)), ("vllm-tp-gather", (3, 6))],
)
def test_a_prefill_of_one_size_in_each_group_has_symmetric_memory(name: str, tokens: tuple[int, ...]) -> None:
    assert roles(GRID, name, engine_batch(tokens, is_extending=True)) == {"window"}


def test_decoding_pads_and_a_prefill_does_not() -> None:
    assert [engine_batch((3, 6), extends).is_padded for extends in (False, True)] == [True, False]
