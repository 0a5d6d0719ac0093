"""Megatron-Core: groups written out by hand, drawn degrees, and degrees that no world can have."""

from __future__ import annotations

import re
from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.scenario.layouts.conventions import CONVENTIONS, build_families, shared_families
from harness.scenario.layouts.groups import GroupIds, Groups, LayoutError, number_groups

ALONE_8 = tuple((rank,) for rank in range(8))
PAIRS_8 = ((0, 1), (2, 3), (4, 5), (6, 7))
STRIDED_PAIRS_8 = ((0, 2), (1, 3), (4, 6), (5, 7))
HALVES_8 = ((0, 4), (1, 5), (2, 6), (3, 7))
QUADS_8 = ((0, 1, 2, 3), (4, 5, 6, 7))
EVENS_AND_ODDS_8 = ((0, 2, 4, 6), (1, 3, 5, 7))
WHOLE_8 = (tuple(range(8)),)


def core(**degrees: Any) -> dict[str, Groups]:
    return build_families("megatron-core", degrees)


def communicators(**degrees: Any) -> dict[str, GroupIds]:
    return number_groups(core(**degrees), shared_families("megatron-core", degrees))


def test_experts_divide_the_ranks_of_attention_and_are_no_factor_of_the_world() -> None:
    assert core(tp=2, cp=2, dp=2, ep=4) == {
        "tp": PAIRS_8,
        "dp_cp": EVENS_AND_ODDS_8,
        "intra_dp_cp": EVENS_AND_ODDS_8,
        "dp": HALVES_8,
        "cp": STRIDED_PAIRS_8,
        "tp_pp": PAIRS_8,
        "pp": ALONE_8,
        "embedding": ALONE_8,
        "position_embedding": ALONE_8,
        "tp_dp_cp": WHOLE_8,
        "tp_dp": ((0, 1, 4, 5), (2, 3, 6, 7)),
        "tp_cp": QUADS_8,
        "ep": QUADS_8,
        "etp": ALONE_8,
        "etp_ep": QUADS_8,
        "etp_ep_pp": QUADS_8,
        "expert_dp": HALVES_8,
        "intra_expert_dp": HALVES_8,
        "intra_dist_opt": WHOLE_8,
    }


def test_a_job_of_32_ranks_has_expert_groups_across_context_and_data_parallelism() -> None:
    families = core(cp=16, dp=2, ep=8)
    assert families["cp"] == (tuple(range(16)), tuple(range(16, 32)))
    assert families["ep"] == tuple(tuple(range(start, start + 8)) for start in (0, 8, 16, 24))
    assert families["expert_dp"] == tuple(tuple(range(start, 32, 8)) for start in range(8))


def test_expert_tensor_parallelism_is_a_width_of_its_own() -> None:
    families = core(tp=4, dp=2, ep=2, etp=2)
    assert (families["tp"], families["dp"]) == (QUADS_8, HALVES_8)
    assert (families["etp"], families["ep"], families["expert_dp"]) == (PAIRS_8, STRIDED_PAIRS_8, HALVES_8)


def test_embeddings_are_on_the_first_and_last_stage_and_leave_the_others_out() -> None:
    families = core(tp=2, pp=4)
    assert families["pp"] == EVENS_AND_ODDS_8
    assert families["embedding"] == ((0, 6), (1, 7))
    assert families["position_embedding"] == ((0,), (1,))


def test_instances_of_the_optimizer_divide_the_replicas_inside_and_across() -> None:
    families = core(dp=8, ep=2, optimizer_instances=2)
    assert families["intra_dp_cp"] == QUADS_8
    assert families["expert_dp"] == EVENS_AND_ODDS_8
    assert families["intra_expert_dp"] == ((0, 2), (4, 6), (1, 3), (5, 7))
    assert families["inter_expert_dp"] == ((0, 4), (2, 6), (1, 5), (3, 7))
    assert families["intra_dist_opt"] == QUADS_8


def test_an_instance_over_two_stages_has_its_ranks_in_order() -> None:
    families = core(pp=2, dp=4, optimizer_instances=2)
    assert families["etp_ep_pp"] == HALVES_8
    assert families["intra_dist_opt"] == ((0, 1, 4, 5), (2, 3, 6, 7))


@pytest.mark.parametrize(
    ("order", "pp", "dp"),
    [
        ("tp-cp-ep-dp-pp", HALVES_8, STRIDED_PAIRS_8),
        ("tp-cp-ep-pp-dp", STRIDED_PAIRS_8, HALVES_8),
        ("tp-pp-dp", STRIDED_PAIRS_8, HALVES_8),
    ],
)
def test_the_order_says_which_axis_varies_fastest(order: str, pp: Groups, dp: Groups) -> None:
    families = core(tp=2, dp=2, pp=2, etp=2, order=order)
    assert (families["pp"], families["dp"]) == (pp, dp)


# communicators


def test_families_over_equal_ranks_have_communicators_of_their_own() -> None:
    ids = communicators(tp=2)
    numbers = {name: group.number for name, (group, *_) in ids.items() if group.ranks == (0, 1)}
    wide = ("tp", "tp_pp", "tp_dp_cp", "tp_dp", "tp_cp", "expert_dp", "intra_dist_opt")
    assert numbers == {**{name: number for number, name in enumerate(wide)}, "intra_expert_dp": 5}


def test_one_instance_of_the_optimizer_is_the_group_of_all_replicas() -> None:
    ids = communicators(dp=4, ep=2)
    assert (ids["intra_dp_cp"], ids["intra_expert_dp"]) == (ids["dp_cp"], ids["expert_dp"])


def test_instances_of_the_optimizer_have_communicators_of_their_own() -> None:
    ids = communicators(dp=4, cp=2, optimizer_instances=2)
    assert not {*ids["intra_dp_cp"]} & {*ids["intra_expert_dp"], *ids["cp"], *ids["dp"]}


def test_the_all_gather_of_weights_may_have_a_communicator_over_the_same_ranks() -> None:
    ids = communicators(dp=4, all_gather_group=True)
    assert [group.ranks for group in ids["dp_cp_ag"]] == [group.ranks for group in ids["dp_cp"]]
    assert not {*ids["dp_cp_ag"]} & {*ids["dp_cp"]}
    assert "dp_cp_ag" not in communicators(dp=4)


# drawn


@given(st.integers(1, 32), st.tuples(*[st.integers(0, 119)] * 6))
def test_drawn_degrees_make_a_layout_of_just_these_ranks(world: int, picks: tuple[int, ...]) -> None:
    degrees = CONVENTIONS["megatron-core"].drawn(world, picks)
    families = build_families("megatron-core", degrees)
    assert sorted(chain.from_iterable(families["tp"])) == [*range(world)]


def test_the_smallest_picks_are_tensor_parallelism_alone() -> None:
    degrees = CONVENTIONS["megatron-core"].drawn(8, (0,) * 6)
    assert {name: value for name, value in degrees.items() if value != 1} == {"tp": 8, "order": "tp-cp-ep-dp-pp"}


def test_orders_instances_and_all_gather_groups_are_drawn() -> None:
    found = [CONVENTIONS["megatron-core"].drawn(8, (pick, pick // 2, 0, pick, pick, pick)) for pick in range(120)]
    assert len({degrees["order"] for degrees in found}) > 12
    assert {degrees["optimizer_instances"] for degrees in found} >= {1, 2, 4}
    assert {degrees.get("all_gather_group") for degrees in found} == {None, True}


# refusals


@pytest.mark.parametrize(
    ("degrees", "message"),
    [
        ({"tp": 2, "dp": 2, "ep": 3}, "tp 2 · cp 1 · dp 2 · pp 1 = 4 is not divisible by etp 1·ep 3·pp 1 = 3"),
        (
            {"tp": 2, "dp": 2, "pp": 3, "ep": 2, "etp": 4},
            "tp 2 · cp 1 · dp 2 · pp 3 = 12 is not divisible by etp 4·ep 2·pp 3 = 24",
        ),
        ({"dp": 4, "cp": 2, "optimizer_instances": 3}, "dp 4 · cp 2 = 8 is not divisible by optimizer_instances 3 = 3"),
        ({"dp": 4, "ep": 4, "optimizer_instances": 2}, "expert dp 1 is not divisible by optimizer_instances 2 = 2"),
    ],
)
def test_degrees_that_do_not_divide_are_refused_with_the_division(degrees: dict[str, int], message: str) -> None:
    with pytest.raises(LayoutError, match=f"^megatron-core: {re.escape(message)}$"):
        core(**degrees)


@pytest.mark.parametrize(
    ("degrees", "message"),
    [
        ({"pp": 2, "dp": 4, "ep": 2, "order": "tp-pp-ep-dp"}, "pp is not last, and dp 4 is not expert dp 2"),
        (
            {"tp": 2, "pp": 2, "dp": 2, "ep": 2, "order": "tp-pp-dp-ep"},
            "stages are 2 ranks apart for attention and 1 for experts",
        ),
    ],
)
def test_an_order_in_which_stages_of_experts_are_elsewhere_is_refused(degrees: dict[str, Any], message: str) -> None:
    with pytest.raises(LayoutError, match=f"^megatron-core order='{degrees['order']}': {message}$"):
        core(**degrees)


def test_an_order_that_lacks_an_axis_is_refused_with_its_width() -> None:
    with pytest.raises(LayoutError, match="order='tp-dp' lacks cp, which is 2 wide for attention"):
        core(tp=2, cp=2, order="tp-dp")


@pytest.mark.parametrize("order", ["", "tp-tp-dp", "tp-etp", "TP-DP", 3])
def test_what_is_no_order_is_refused_with_its_value(order: object) -> None:
    with pytest.raises(LayoutError, match=f"order={order!r} is not an order of tp-cp-ep-dp-pp, or of some of these"):
        core(order=order)


@pytest.mark.parametrize("value", [1, "yes", None])
def test_an_all_gather_group_is_there_or_not(value: object) -> None:
    with pytest.raises(LayoutError, match=f"all_gather_group={value!r} is neither true nor false"):
        core(all_gather_group=value)


def test_a_world_beyond_the_limit_is_refused_with_the_product() -> None:
    with pytest.raises(LayoutError, match=r"tp 8 · cp 1 · dp 129 · pp 1 = 1032 is larger than 1024"):
        core(tp=8, dp=129)
