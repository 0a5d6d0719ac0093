"""TensorRT-LLM's lines: sizes over `tp`, and what a rank without work does."""

from __future__ import annotations

import pytest

from harness.scenario.flows.layer import Batch
from harness.scenario.flows.tensorrt_llm import engine_batch
from harness.scenario.topology import Topology
from tests.tools.flow_layers import gathered, reduced, scattered, taken

THREE = Topology("three", "tensorrt-llm", {"tp": 3})
STAGES = Topology("stages", "tensorrt-llm", {"tp": 2, "pp": 2})


def test_padded_ranks_gather_their_tokens_and_the_experts_of_each() -> None:
    assert taken(THREE, "trtllm-moe-gather", Batch((5, 1, 2), is_padded=True), hidden=16) == [
        *gathered("tp", 0, 80, 240),
        *gathered("tp", 2, 5, 15),
    ]


def test_ranks_that_do_not_pad_have_their_own_sizes() -> None:
    assert taken(THREE, "trtllm-moe-scatter", Batch((5, 1, 2), is_padded=False)) == scattered("tp", 0, (5, 1, 2), 8)


def test_every_stage_has_the_same_tokens() -> None:
    assert taken(STAGES, "trtllm-moe-scatter", Batch((5, 1), is_padded=False)) == scattered("tp", 0, (5, 1, 5, 1), 6)


def test_an_idle_rank_has_a_dummy_token_and_none_in_the_second_chunk() -> None:
    assert taken(THREE, "trtllm-moe-scatter", Batch((5, 0, 2), is_padded=False)) == [
        *scattered("tp", 0, (3, 1, 1), 5),
        *scattered("tp", 2, (2, 0, 1), 3),
    ]


def test_a_chunk_in_which_no_rank_has_a_token_makes_no_call() -> None:
    assert taken(THREE, "trtllm-moe-scatter", Batch((1, 0, 1), is_padded=False)) == scattered("tp", 0, 1, 3)


def test_an_idle_rank_that_pads_is_as_long_as_the_others() -> None:
    assert taken(THREE, "trtllm-moe-scatter", Batch((5, 0, 2), is_padded=True)) == scattered("tp", 0, 5, 15)


@pytest.mark.parametrize(("padded", "count"), [(True, 240), (False, 112)])
def test_without_attention_dp_all_tokens_are_reduced_from_a_window_into_another(padded: bool, count: int) -> None:
    batch = Batch((5, 0, 2), padded, is_symmetric=padded)
    assert taken(THREE, "trtllm-moe-reduce", batch, hidden=16) == reduced("tp", count)


def test_decoding_pads_and_a_prefill_has_neither_padding_nor_symmetric_memory() -> None:
    assert engine_batch((5, 0), is_extending=False) == Batch((5, 0), is_padded=True, is_symmetric=True)
    assert engine_batch((5, 0), is_extending=True) == Batch((5, 0), is_padded=False, is_symmetric=False)
