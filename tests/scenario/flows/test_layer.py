"""Layers: how many elements a rank's shard has, which batches are padded, and which topologies fit."""

from __future__ import annotations

from typing import Any

import pytest

from harness.errors import UsageError
from harness.scenario.flows.layer import Batch
from harness.scenario.flows.sglang import SglangLayer, engine_batch
from harness.scenario.topology import Topology
from tests.tools.dp_attention import PAIR, QUADS, SPLIT, TWICE

ODD_QUADS = (3, 3, 2, 2, 1, 1, 5, 5)
ODD_SPLIT = (2, 2, 2, 2, 1, 1, 1, 1)


def test_a_padded_batch_gives_every_rank_a_shard_of_the_longest_dp_rank() -> None:
    layer = SglangLayer(QUADS, "float32", "library", batch=Batch((6, 4, 1, 9), is_padded=True))
    assert [layer.shard(rank) for rank in range(8)] == [5] * 8


def test_an_unpadded_batch_gives_every_rank_a_shard_of_its_own_dp_rank() -> None:
    layer = SglangLayer(QUADS, "float32", "library", batch=Batch((6, 4, 1, 9), is_padded=False))
    assert [layer.shard(rank) for rank in range(8)] == [*ODD_QUADS]


def test_context_parallel_ranks_share_the_tokens_of_their_dp_rank() -> None:
    layer = SglangLayer(SPLIT, "float32", "library", batch=Batch((6, 4), is_padded=False))
    assert [layer.shard(rank) for rank in range(8)] == [*ODD_SPLIT]


def test_every_pipeline_stage_has_the_same_tokens() -> None:
    layer = SglangLayer(TWICE, "float32", "library", batch=Batch((6, 4), is_padded=False))
    assert [layer.shard(rank) for rank in range(8)] == [3, 3, 2, 2, 3, 3, 2, 2]


def test_a_global_buffer_holds_the_shards_of_one_pipeline_stage() -> None:
    assert SglangLayer(TWICE, "float32", "library", batch=Batch((6, 4), is_padded=False)).all_shards() == 10


def test_a_shard_has_so_many_elements_a_token() -> None:
    layer = SglangLayer(QUADS, "float32", "library", hidden=16, batch=Batch((6, 4, 1, 9), is_padded=True))
    assert layer.shard(0) == 80


@pytest.mark.parametrize("tokens", [(4, 4), (1, 100), (7,)])
def test_an_extending_batch_is_not_padded(tokens: tuple[int, ...]) -> None:
    assert engine_batch(tokens, is_extending=True) == Batch(tokens, is_padded=False, is_symmetric=False)


def test_a_batch_is_padded_where_padding_costs_less_than_twice_its_tokens() -> None:
    assert engine_batch((4, 1), is_extending=False) == Batch((4, 1), is_padded=True, is_symmetric=True)


@pytest.mark.parametrize(
    ("tokens", "padded"), [((4, 1, 1, 3), True), ((4, 1, 1, 2), False), ((4, 1, 1, 1), False), ((7,), True)]
)
def test_a_batch_is_padded_only_above_half_of_what_padding_makes_of_it(tokens: tuple[int, ...], padded: bool) -> None:
    assert engine_batch(tokens, is_extending=False) == Batch(tokens, padded, is_symmetric=padded)


def test_a_topology_without_attention_groups_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"topology 'pair' \(vllm\) has no attn_tp; flows run on the families"):
        SglangLayer(PAIR, "float32", "library")


@pytest.mark.parametrize(
    ("families", "reason"),
    [
        ({"tp": ((0, 1), (2, 3)), "attn_tp": ((0, 1, 2, 3),)}, "attention TP 4 · CP 1 does not divide TP 2"),
        ({"tp": ((0,), (1, 2, 3)), "attn_tp": ((0,), (1,), (2,), (3,))}, "groups of tp have 1 and 3 ranks"),
    ],
)
def test_a_topology_that_no_layer_fits_is_refused(families: dict[str, Any], reason: str) -> None:
    odd = Topology("odd", "explicit", families_given={**families, "attn_cp": ((0,), (1,), (2,), (3,))})
    with pytest.raises(UsageError, match=reason):
        SglangLayer(odd, "float32", "library")
