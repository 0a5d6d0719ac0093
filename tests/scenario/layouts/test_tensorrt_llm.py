"""TensorRT-LLM: groups written out by hand, drawn degrees, and degrees that no world can have."""

from __future__ import annotations

import re
from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.scenario.layouts.conventions import CONVENTIONS, build_families, shared_families
from harness.scenario.layouts.groups import Groups, LayoutError, number_groups

ALONE_8 = tuple((rank,) for rank in range(8))
PAIRS_8 = ((0, 1), (2, 3), (4, 5), (6, 7))
STRIDED_PAIRS_8 = ((0, 2), (1, 3), (4, 6), (5, 7))
HALVES_8 = ((0, 4), (1, 5), (2, 6), (3, 7))
QUADS_8 = ((0, 1, 2, 3), (4, 5, 6, 7))
WHOLE_8 = (tuple(range(8)),)


def trtllm(**degrees: Any) -> dict[str, Groups]:
    return build_families("tensorrt-llm", degrees)


def test_tensor_context_and_pipeline_groups_nest() -> None:
    families = trtllm(tp=2, cp=2, pp=2)
    assert (families["tp"], families["cp"], families["pp"]) == (PAIRS_8, STRIDED_PAIRS_8, HALVES_8)


def test_expert_groups_are_neighbours_and_their_tensor_groups_stride() -> None:
    assert trtllm(tp=8, moe_tp=2, moe_ep=4) == {
        "tp": WHOLE_8,
        "pp": ALONE_8,
        "cp": ALONE_8,
        "moe_tp": HALVES_8,
        "moe_ep": QUADS_8,
    }


def test_each_stage_has_expert_groups_of_its_own() -> None:
    families = trtllm(tp=4, pp=2, moe_ep=2)
    assert (families["moe_tp"], families["moe_ep"]) == (STRIDED_PAIRS_8, PAIRS_8)


@pytest.mark.parametrize("degrees", [{"moe_tp": 2}, {"moe_ep": 4}, {"moe_tp": 2, "moe_ep": 4}])
def test_one_width_of_the_experts_gives_the_other(degrees: dict[str, int]) -> None:
    assert trtllm(tp=8, **degrees)["moe_ep"] == QUADS_8


def test_experts_in_clusters_have_a_family_more() -> None:
    families = trtllm(tp=8, moe_cluster=4)
    assert (families["moe_cluster"], families["moe_tp"], families["moe_ep"]) == (QUADS_8, HALVES_8, ALONE_8)
    assert "moe_cluster" not in trtllm(tp=8)


def test_helix_gives_experts_the_ranks_of_context_parallelism_too() -> None:
    families = trtllm(tp=2, cp=4, moe_ep=4, cp_type="helix")
    assert (families["moe_tp"], families["moe_ep"]) == (HALVES_8, QUADS_8)


def test_without_helix_experts_are_on_the_first_ranks_alone() -> None:
    families = trtllm(tp=2, cp=2, pp=2)
    assert (families["moe_tp"], families["moe_ep"]) == (PAIRS_8[:2], ALONE_8[:4])


def test_equal_groups_share_a_communicator() -> None:
    degrees = {"tp": 4, "pp": 2, "moe_ep": 4}
    ids = number_groups(build_families("tensorrt-llm", degrees), shared_families("tensorrt-llm", degrees))
    assert ids["moe_ep"] == ids["tp"]
    assert {group.number for family in ids.values() for group in family} == {0}


@given(st.integers(1, 32), st.tuples(*[st.integers(0, 119)] * 6))
def test_drawn_degrees_make_a_layout_of_just_these_ranks(world: int, picks: tuple[int, ...]) -> None:
    families = build_families("tensorrt-llm", CONVENTIONS["tensorrt-llm"].drawn(world, picks))
    assert sorted(chain.from_iterable(families["tp"])) == [*range(world)]


def test_the_smallest_picks_are_tensor_parallelism_alone() -> None:
    degrees = CONVENTIONS["tensorrt-llm"].drawn(8, (0,) * 6)
    assert {name: value for name, value in degrees.items() if value != 1} == {"tp": 8}


def test_helix_and_clusters_are_drawn() -> None:
    found = [CONVENTIONS["tensorrt-llm"].drawn(8, (0, pick, 0, pick, pick, pick)) for pick in range(120)]
    assert {degrees.get("cp_type") for degrees in found} == {None, "helix"}
    assert {degrees["moe_cluster"] for degrees in found} >= {1, 2, 4}


@pytest.mark.parametrize(
    ("degrees", "message"),
    [
        ({"tp": 8, "moe_ep": 3}, "tp 8 is not divisible by moe_ep 3·moe_cluster 1 = 3"),
        ({"tp": 8, "moe_tp": 5}, "tp 8 is not divisible by moe_tp 5·moe_cluster 1 = 5"),
        (
            {"tp": 2, "cp": 3, "moe_ep": 4, "cp_type": "helix"},
            "tp 2 · cp 3 = 6 is not divisible by moe_ep 4·moe_cluster 1 = 4",
        ),
        ({"tp": 8, "moe_tp": 2, "moe_ep": 2}, "tp 8 is not moe_tp 2 · moe_ep 2 · moe_cluster 1"),
        ({"tp": 8, "moe_ep": 2, "moe_cluster": 2}, "moe_ep 2 and moe_cluster 2 cannot both be above 1"),
        ({"tp": 4, "cp": 2, "moe_ep": 2}, "moe_ep 2 with cp 2 needs cp_type 'helix'"),
    ],
)
def test_degrees_that_do_not_divide_are_refused_with_the_division(degrees: dict[str, Any], message: str) -> None:
    with pytest.raises(LayoutError, match=f"^tensorrt-llm: {re.escape(message)}$"):
        trtllm(**degrees)


def test_a_kind_of_context_parallelism_that_is_not_known_is_refused_with_those_that_are() -> None:
    with pytest.raises(LayoutError, match=r"^tensorrt-llm cp_type='star' is not one of ulysses, helix$"):
        trtllm(cp_type="star")


def test_attention_data_parallelism_is_no_degree() -> None:
    with pytest.raises(LayoutError, match="tensorrt-llm has no degree 'attn_dp'"):
        trtllm(attn_dp=2)


def test_a_world_beyond_the_limit_is_refused_with_the_product() -> None:
    with pytest.raises(LayoutError, match=r"tp 8 · cp 1 · pp 129 = 1032 is larger than 1024"):
        trtllm(tp=8, pp=129)
