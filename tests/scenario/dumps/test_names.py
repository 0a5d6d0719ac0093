"""Engines' names of groups and the families that they stand for."""

from __future__ import annotations

import pytest

from harness.scenario.dumps.names import FAMILIES, family_of, is_on_host

KNOWN = {
    "tp": "tp",
    "tp:0": "tp",
    "tp:1": "tp_2",
    "tp:device": "tp",
    "mesh_tp": "tp",
    "mesh_dp_shard": "dp_shard",
    "mesh_default": "world",
    "default_pg": "world",
    "TENSOR_MODEL_PARALLEL_GROUP": "tp",
    "DATA_PARALLEL_GROUP_WITH_CP": "dp_cp",
    "HIERARCHICAL_EXPERT_DATA_PARALLEL_GROUP_L1": "inter_expert_dp",
    "attention_tp:0": "attn_tp",
    "moe_ep:0": "moe_ep",
}


@pytest.mark.parametrize(("name", "family"), KNOWN.items())
def test_a_known_name_is_its_family(name: str, family: str) -> None:
    assert family_of(name) == family


@pytest.mark.parametrize("name", ["PdMux", "self_pp", "undefined", "a:b"])
def test_another_name_is_a_family_of_its_own(name: str) -> None:
    assert family_of(name) == name


def test_vllm_means_tables_of_n_grams_by_what_others_call_experts() -> None:
    assert [family_of(name) for name in ("etp:device", "edp:device", "etp")] == ["engram_tp", "engram_dp", "etp"]


def test_names_are_looked_up_in_small_letters() -> None:
    assert [name for name in FAMILIES if name != name.lower()] == []


def test_groups_on_the_host_are_known_by_their_names() -> None:
    on_host = ("tp:cpu", "DATA_PARALLEL_GROUP_GLOO", "HIERARCHICAL_X_GLOO_L0")
    assert [is_on_host(name) for name in (*on_host, "tp:device", "gloomy")] == [True, True, True, False, False]
