"""Megatron-Core's lines: which groups they run on, with which sizes, and what a replica without tokens does."""

from __future__ import annotations

import pytest

from harness.scenario.flows.layer import Batch
from harness.scenario.flows.megatron import FLOWS, WEIGHTS, engine_batch
from harness.scenario.operands import View
from harness.scenario.steps import AllGather, AllReduce, ReduceScatter
from harness.scenario.topology import Topology
from tests.tools.flow_layers import gathered, plain, reduced, scattered, taken, whole, window

DENSE = Topology("dense", "megatron-core", {"tp": 2, "dp": 2})
EXPERTS = Topology("experts", "megatron-core", {"tp": 2, "dp": 2, "ep": 2, "etp": 2})
REPLICAS = Topology("replicas", "megatron-core", {"tp": 2, "dp": 2, "ep": 2})
"""Experts in two replicas."""
PADDED = Batch((3, 6), is_padded=True)
UNEVEN = Batch((3, 6), is_padded=False)
IDLE = Batch((0, 6), is_padded=False)


def test_sequence_parallelism_gathers_before_a_layer_and_reduces_behind_it_over_tp() -> None:
    assert taken(DENSE, "megatron-sp-gather", PADDED) == gathered("tp", 0, 3, 6)
    assert taken(DENSE, "megatron-sp-scatter", PADDED) == scattered("tp", 0, 3, 6)


def test_context_parallel_ranks_share_a_sequence() -> None:
    both = Topology("both", "megatron-core", {"tp": 2, "cp": 2})
    assert taken(both, "megatron-sp-scatter", Batch((6,), is_padded=True)) == scattered("tp", 0, 2, 4)


def test_sequences_of_unequal_length_differ_between_replicas_alone() -> None:
    assert taken(DENSE, "megatron-sp-scatter", UNEVEN) == scattered("tp", 0, (2, 2, 3, 3), (4, 4, 6, 6))


def test_a_replica_without_tokens_makes_no_call() -> None:
    assert taken(DENSE, "megatron-sp-gather", IDLE) == [
        plain("b0", (0, 0, 3, 3)),
        whole("b1", "tp", (0, 0, 6, 6)),
        AllGather("tp", View("b1"), (0, 0, 3, 3), View("b0"), groups=((2, 3),)),
    ]


def test_a_replica_without_tokens_runs_a_dummy_batch_with_expert_parallelism() -> None:
    assert taken(REPLICAS, "megatron-sp-gather", IDLE) == gathered("tp", 0, (1, 1, 3, 3), (2, 2, 6, 6))


def test_without_sequence_parallelism_all_tokens_are_reduced_in_place_over_tp() -> None:
    assert taken(DENSE, "megatron-tp-reduce", PADDED, hidden=3) == reduced("tp", 18, in_place=True)
    assert taken(DENSE, "megatron-tp-reduce", UNEVEN) == reduced("tp", (3, 3, 6, 6), in_place=True)


def test_context_parallel_ranks_reduce_their_part_of_a_sequence() -> None:
    both = Topology("both", "megatron-core", {"tp": 2, "cp": 2})
    assert taken(both, "megatron-tp-reduce", Batch((5,), is_padded=True)) == reduced("tp", 3, in_place=True)


def test_a_replica_without_tokens_reduces_a_dummy_batch_with_expert_parallelism_alone() -> None:
    assert taken(REPLICAS, "megatron-tp-reduce", IDLE) == reduced("tp", (2, 2, 6, 6), in_place=True)
    assert taken(DENSE, "megatron-tp-reduce", IDLE)[1:] == [
        AllReduce("tp", View("b0"), (0, 0, 6, 6), groups=((2, 3),)),
    ]


def test_weights_are_gathered_into_a_window_from_a_window() -> None:
    assert taken(DENSE, "megatron-fsdp-gather", PADDED, hidden=3) == [
        window("b0", "dp_cp", 3 * WEIGHTS),
        whole("b1", "dp_cp", 6 * WEIGHTS),
        AllGather("dp_cp", View("b1"), 3 * WEIGHTS, View("b0")),
    ]


def test_gradients_are_reduced_in_place() -> None:
    assert taken(DENSE, "megatron-fsdp-scatter", PADDED) == [
        whole("b0", "dp_cp", 2 * WEIGHTS),
        ReduceScatter("dp_cp", View("b0"), WEIGHTS, None),
    ]


@pytest.mark.parametrize("batch", [PADDED, UNEVEN, IDLE])
def test_weights_do_not_depend_on_the_batch(batch: Batch) -> None:
    assert taken(DENSE, "megatron-fsdp-scatter", batch) == taken(DENSE, "megatron-fsdp-scatter", PADDED)


def families(topology: Topology, name: str) -> list[str | None]:
    return [step.family for step in taken(topology, name, PADDED) if isinstance(step, AllGather | ReduceScatter)]


def test_weights_of_experts_are_sharded_over_their_replicas() -> None:
    assert families(REPLICAS, "megatron-fsdp-gather") == ["dp_cp", "expert_dp"]


def test_weights_are_gathered_over_a_group_of_its_own_and_gradients_are_not() -> None:
    own = Topology("own", "megatron-core", {"dp": 4, "all_gather_group": True})
    assert (families(own, "megatron-fsdp-gather"), families(own, "megatron-fsdp-scatter")) == (
        ["dp_cp_ag"],
        ["dp_cp"],
    )


def test_instances_of_the_optimizer_shard_weights_each_for_itself() -> None:
    hybrid = Topology("hybrid", "megatron-core", {"dp": 4, "optimizer_instances": 2, "all_gather_group": True})
    assert families(hybrid, "megatron-fsdp-gather") == ["intra_dp_cp"]


def test_the_all_gather_dispatcher_runs_over_all_ranks_of_the_experts() -> None:
    assert taken(EXPERTS, "megatron-expert-gather", PADDED) == gathered("etp_ep", 0, 3, 12)
    assert taken(EXPERTS, "megatron-expert-scatter", PADDED) == scattered("etp_ep", 0, 3, 12)


@pytest.mark.parametrize("name", ["megatron-expert-gather", "megatron-expert-scatter"])
def test_the_all_gather_dispatcher_takes_no_sizes(name: str) -> None:
    assert taken(EXPERTS, name, UNEVEN) == []


def test_the_all_to_all_dispatcher_gathers_what_the_router_sent_to_each_rank() -> None:
    assert taken(EXPERTS, "megatron-etp-gather", UNEVEN) == gathered("etp", 0, (3, 6, 3, 6), 9)
    assert taken(EXPERTS, "megatron-etp-scatter", UNEVEN) == scattered("etp", 0, (3, 6, 3, 6), 9)


def test_the_all_to_all_dispatcher_with_a_capacity_has_one_size() -> None:
    assert taken(EXPERTS, "megatron-etp-gather", PADDED) == gathered("etp", 0, 6, 12)


def test_a_rank_whose_experts_got_no_tokens_takes_part_with_none() -> None:
    assert taken(EXPERTS, "megatron-etp-scatter", IDLE) == scattered("etp", 0, (0, 6, 0, 6), 6)


@pytest.mark.parametrize(
    ("topology", "kinds"),
    [
        (DENSE, {"fsdp", "sp", "tp"}),
        (EXPERTS, {"fsdp", "sp", "tp", "expert", "etp"}),
        (REPLICAS, {"fsdp", "sp", "tp", "expert"}),
        (Topology("data", "megatron-core", {"dp": 4}), {"fsdp"}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_lines_run_where_the_engine_has_them(topology: Topology, kinds: set[str]) -> None:
    found = {name.split("-")[1] for name in FLOWS if taken(topology, name, Batch((3,) * 4, is_padded=True))}
    assert found == kinds


@pytest.mark.parametrize("extends", [True, False])
def test_training_pads_every_batch(extends: bool) -> None:
    assert engine_batch((3, 6), extends) == Batch((3, 6), is_padded=True, is_symmetric=True)
