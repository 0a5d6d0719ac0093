"""Layouts: the groups of each convention written out by hand, and the degrees no world can have."""

from __future__ import annotations

import re
from itertools import chain
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.scenario.layouts.arithmetic import divisors
from harness.scenario.layouts.conventions import CONVENTIONS, build_families, shared_families
from harness.scenario.layouts.groups import (
    Group,
    GroupId,
    Groups,
    LayoutError,
    check_family,
    disjoint,
    number_groups,
    world_of,
)

Widths = dict[str, int]

ALONE_8 = ((0,), (1,), (2,), (3,), (4,), (5,), (6,), (7,))
PAIRS_8 = ((0, 1), (2, 3), (4, 5), (6, 7))
QUADS_8 = ((0, 1, 2, 3), (4, 5, 6, 7))
WHOLE_8 = ((0, 1, 2, 3, 4, 5, 6, 7),)
HALVES_8 = ((0, 4), (1, 5), (2, 6), (3, 7))
STRIDED_PAIRS_8 = ((0, 2), (1, 3), (4, 6), (5, 7))
EVENS_AND_ODDS_8 = ((0, 2, 4, 6), (1, 3, 5, 7))


def sglang(**degrees: int) -> dict[str, Groups]:
    return build_families("sglang", degrees)


def vllm(**degrees: int) -> dict[str, Groups]:
    return build_families("vllm", degrees)


# sglang


@pytest.mark.parametrize(
    ("degrees", "groups"),
    [({"attn_dp": 8}, ALONE_8), ({"attn_dp": 4}, PAIRS_8), ({"attn_dp": 2, "attn_cp": 2}, PAIRS_8), ({}, WHOLE_8)],
)
def test_sglang_attention_tp_is_what_attention_dp_and_cp_leave_of_tp(degrees: Widths, groups: Groups) -> None:
    assert sglang(tp=8, **degrees)["attn_tp"] == groups


@pytest.mark.parametrize(
    ("split", "groups"),
    [((2, 2), STRIDED_PAIRS_8), ((1, 4), EVENS_AND_ODDS_8), ((2, 4), QUADS_8)],
)
def test_sglang_attention_cp_strides_over_attention_tp_in_each_replica(split: Group, groups: Groups) -> None:
    assert sglang(tp=8, attn_dp=split[0], attn_cp=split[1])["attn_cp"] == groups


def test_sglang_pipeline_stage_repeats_the_groups_of_the_first_from_its_own_base() -> None:
    families = sglang(tp=4, pp=2, attn_cp=2, dcp=2, ep=2, moe_dp=2)
    assert families == {
        "tp": QUADS_8,
        "pp": HALVES_8,
        "attn_tp": PAIRS_8,
        "attn_cp": STRIDED_PAIRS_8,
        "dcp": PAIRS_8,
        "moe_tp": ALONE_8,
        "moe_ep": PAIRS_8,
        "moe_dp": STRIDED_PAIRS_8,
    }


def test_sglang_expert_groups_stride_over_moe_tp_inside_each_moe_dp_replica() -> None:
    families = sglang(tp=8, ep=2, moe_dp=2)
    assert (families["moe_tp"], families["moe_ep"]) == (PAIRS_8, STRIDED_PAIRS_8)


def test_sglang_moe_dp_is_attention_cp_where_attention_cp_is_wider() -> None:
    families = sglang(tp=8, attn_cp=4, ep=4, moe_dp=2)
    assert families["moe_dp"] == families["attn_cp"] == EVENS_AND_ODDS_8


@pytest.mark.parametrize("attention", [{}, {"attn_dp": 2, "attn_cp": 2}])
def test_sglang_moe_dp_strides_over_replicas_where_attention_cp_is_no_wider(attention: Widths) -> None:
    assert sglang(tp=8, ep=4, moe_dp=2, **attention)["moe_dp"] == HALVES_8


@pytest.mark.parametrize(
    ("degrees", "aliases"),
    [
        ({}, {"tp", "attn_tp", "moe_tp"}),
        ({"attn_cp": 8}, {"tp", "attn_cp", "moe_tp", "moe_dp"}),
        ({"dcp": 8}, {"tp", "attn_tp", "moe_tp", "dcp"}),
        ({"ep": 8}, {"tp", "attn_tp", "moe_ep"}),
        ({"moe_dp": 8}, {"tp", "attn_tp", "moe_dp"}),
    ],
)
def test_sglang_families_as_wide_as_tp_are_the_tp_group_itself(degrees: Widths, aliases: set[str]) -> None:
    assert {name for name, groups in sglang(tp=8, **degrees).items() if groups == WHOLE_8} == aliases


@pytest.mark.parametrize("family", ["pp", "attn_cp", "dcp", "moe_ep", "moe_dp"])
def test_sglang_family_of_width_one_is_every_rank_alone(family: str) -> None:
    assert sglang(tp=8)[family] == ALONE_8


def test_sglang_has_no_attention_dp_family() -> None:
    assert set(sglang(tp=8, attn_dp=8)) == {"tp", "pp", "attn_tp", "attn_cp", "dcp", "moe_tp", "moe_ep", "moe_dp"}


# vllm


@pytest.mark.parametrize(
    ("degrees", "groups"),
    [
        ({"pcp": 2, "tp": 2, "dcp": 4}, ((0, 2, 1, 3),)),
        ({"pcp": 2, "tp": 2, "dcp": 4, "dp": 2}, ((0, 2, 1, 3), (4, 6, 5, 7))),
        ({"pcp": 2, "tp": 4, "dcp": 4}, ((0, 4, 1, 5), (2, 6, 3, 7))),
        ({"tp": 8, "dcp": 4}, QUADS_8),
    ],
)
def test_vllm_dcp_spans_pcp_first_even_where_that_puts_ranks_out_of_order(degrees: Widths, groups: Groups) -> None:
    assert vllm(**degrees)["dcp"] == groups


def test_vllm_dcp_as_wide_as_pcp_is_the_pcp_groups() -> None:
    families = vllm(pcp=2, tp=4, dcp=2)
    assert families["dcp"] == families["pcp"] == HALVES_8


def test_vllm_dcp_as_wide_as_tp_without_pcp_is_the_tp_groups() -> None:
    families = vllm(dp=2, tp=4, dcp=4)
    assert families["dcp"] == families["tp"] == QUADS_8


def test_vllm_dcp_of_one_is_a_family_of_single_ranks() -> None:
    assert vllm(tp=8)["dcp"] == ALONE_8


def test_vllm_world_of_two_replicas_of_two_stages_is_cut_by_its_axes() -> None:
    families = vllm(dp=2, pp=2, tp=2)
    assert families == {
        "tp": PAIRS_8,
        "pp": STRIDED_PAIRS_8,
        "dp": HALVES_8,
        "pcp": ALONE_8,
        "ep": ((0, 1, 4, 5), (2, 3, 6, 7)),
        "dcp": ALONE_8,
    }


def test_vllm_expert_group_joins_all_replicas_of_a_world_without_pipeline() -> None:
    assert vllm(dp=2, pcp=2, tp=2)["ep"] == WHOLE_8


# megatron


def test_megatron_default_order_varies_tp_fastest_and_then_cp_and_dp() -> None:
    families = build_families("megatron", {"tp": 2, "cp": 2, "dp": 2})
    assert families == {"tp": PAIRS_8, "cp": STRIDED_PAIRS_8, "dp": HALVES_8, "ep": ALONE_8, "pp": ALONE_8}


def test_megatron_default_order_varies_ep_before_dp_and_pp_last() -> None:
    families = build_families("megatron", {"ep": 2, "dp": 2, "pp": 2})
    assert (families["ep"], families["dp"], families["pp"]) == (PAIRS_8, STRIDED_PAIRS_8, HALVES_8)


def test_megatron_reversed_order_varies_tp_slowest() -> None:
    families = build_families("megatron", {"tp": 2, "cp": 2, "dp": 2, "order": "pp-dp-ep-cp-tp"})
    assert (families["tp"], families["cp"], families["dp"]) == (HALVES_8, STRIDED_PAIRS_8, PAIRS_8)


def test_megatron_order_decides_whether_stages_or_replicas_are_neighbours() -> None:
    families = build_families("megatron", {"tp": 2, "pp": 2, "dp": 2, "order": "tp-cp-ep-pp-dp"})
    assert (families["pp"], families["dp"]) == (STRIDED_PAIRS_8, HALVES_8)


# every convention


@pytest.mark.parametrize("convention", sorted(CONVENTIONS))
def test_layout_without_degrees_is_one_rank_alone_in_every_family(convention: str) -> None:
    assert set(build_families(convention, {}).values()) == {((0,),)}


def a_divisor(number: int) -> st.SearchStrategy[int]:
    return st.sampled_from(divisors(number))


@st.composite
def axes(draw: st.DrawFn, names: tuple[str, ...], limit: int = 1024) -> Widths:
    """Widths whose product is at most `limit`, drawn in any order so that any axis can be the wide one."""
    widths = dict.fromkeys(names, 1)
    for name in draw(st.permutations(names)):
        widths[name] = draw(st.integers(1, limit // prod(widths.values())))
    return widths


@st.composite
def sglang_degrees(draw: st.DrawFn) -> Widths:
    degrees = draw(axes(("tp", "pp")))
    tp = degrees["tp"]
    attn_dp, moe_dp = draw(a_divisor(tp)), draw(a_divisor(tp))
    attn_cp, ep = draw(a_divisor(tp // attn_dp)), draw(a_divisor(tp // moe_dp))
    return {**degrees, "attn_dp": attn_dp, "attn_cp": attn_cp, "moe_dp": moe_dp, "ep": ep, "dcp": draw(a_divisor(tp))}


@st.composite
def vllm_degrees(draw: st.DrawFn) -> Widths:
    degrees = draw(axes(("dp", "pp", "pcp", "tp")))
    return {**degrees, "dcp": draw(a_divisor(degrees["pcp"] * degrees["tp"]))}


megatron_degrees = st.builds(
    lambda widths, order: {**widths, "order": "-".join(order)},
    axes(CONVENTIONS["megatron"].DEGREES),
    st.permutations(CONVENTIONS["megatron"].DEGREES),
)
WORLD_AXES = {"sglang": ("tp", "pp"), "vllm": ("dp", "pp", "pcp", "tp"), "megatron": ("tp", "cp", "ep", "dp", "pp")}
WIDE_AS_ITS_DEGREE = {
    "sglang": {"tp": "tp", "pp": "pp", "attn_cp": "attn_cp", "dcp": "dcp", "moe_ep": "ep"},
    "vllm": {"tp": "tp", "pp": "pp", "pcp": "pcp", "dp": "dp", "dcp": "dcp"},
    "megatron": {name: name for name in WORLD_AXES["megatron"]},
}
layouts = st.one_of(
    st.tuples(st.just("sglang"), sglang_degrees()),
    st.tuples(st.just("vllm"), vllm_degrees()),
    st.tuples(st.just("megatron"), megatron_degrees),
)


@given(layouts)
def test_every_family_is_a_partition_of_the_world(layout: tuple[str, Widths]) -> None:
    convention, degrees = layout
    world = prod(degrees[name] for name in WORLD_AXES[convention])
    for name, partition in build_families(convention, degrees).items():
        assert sorted(chain.from_iterable(partition)) == list(range(world)), name


@given(layouts)
def test_every_group_is_as_wide_as_the_degree_of_its_family(layout: tuple[str, Widths]) -> None:
    convention, degrees = layout
    families = build_families(convention, degrees)
    for family, degree in WIDE_AS_ITS_DEGREE[convention].items():
        groups = families.get(family, ((0,),))  # vllm has no dcp family of width one
        assert {len(group) for group in groups} == {degrees[degree]}, family


@given(sglang_degrees())
def test_sglang_attention_tp_and_attention_cp_groups_share_at_most_one_rank(degrees: Widths) -> None:
    families = sglang(**degrees)
    group_of = {rank: number for number, group in enumerate(families["attn_tp"]) for rank in group}
    assert all(len({group_of[rank] for rank in group}) == len(group) for group in families["attn_cp"])


# refusals


@pytest.mark.parametrize(
    ("convention", "degrees", "message"),
    [
        ("sglang", {"tp": 8, "attn_dp": 3}, "sglang: tp 8 is not divisible by attn_dp 3·attn_cp 1 = 3"),
        ("sglang", {"tp": 8, "attn_dp": 4, "attn_cp": 4}, "sglang: tp 8 is not divisible by attn_dp 4·attn_cp 4 = 16"),
        ("sglang", {"tp": 6, "ep": 4}, "sglang: tp 6 is not divisible by ep 4·moe_dp 1 = 4"),
        ("sglang", {"tp": 8, "ep": 2, "moe_dp": 8}, "sglang: tp 8 is not divisible by ep 2·moe_dp 8 = 16"),
        ("sglang", {"tp": 8, "dcp": 5}, "sglang: tp 8 is not divisible by dcp 5 = 5"),
        ("vllm", {"pcp": 2, "tp": 2, "dcp": 3}, "vllm: pcp 2 · tp 2 = 4 is not divisible by dcp 3 = 3"),
    ],
)
def test_degrees_that_do_not_divide_are_refused_with_the_division(
    convention: str, degrees: Widths, message: str
) -> None:
    with pytest.raises(LayoutError, match=f"^{re.escape(message)}$"):
        build_families(convention, degrees)


@pytest.mark.parametrize(
    ("convention", "degrees", "message"),
    [
        ("sglang", {"tp": 512, "pp": 3}, r"tp 512 · pp 3 = 1536 is larger than 1024"),
        ("vllm", {"dp": 5, "pp": 1, "pcp": 4, "tp": 64}, r"dp 5 · pp 1 · pcp 4 · tp 64 = 1280 is larger than 1024"),
        ("megatron", {"tp": 8, "dp": 129}, r"tp 8 · cp 1 · ep 1 · dp 129 · pp 1 = 1032 is larger than 1024"),
    ],
)
def test_world_beyond_the_limit_is_refused_with_the_product(convention: str, degrees: Widths, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        build_families(convention, degrees)


def test_world_at_the_limit_is_built() -> None:
    assert len(sglang(tp=1, pp=1024)["tp"]) == 1024


def test_unknown_convention_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        LayoutError, match="'tensorrt' is not one of megatron, megatron-core, sglang, tensorrt-llm, torchtitan, vllm"
    ):
        build_families("tensorrt", {"tp": 8})


@pytest.mark.parametrize(
    ("convention", "degree"), [("sglang", "pcp"), ("vllm", "attn_dp"), ("megatron", "dcp"), ("vllm", "order")]
)
def test_degree_of_another_convention_is_refused_by_name(convention: str, degree: str) -> None:
    with pytest.raises(LayoutError, match=f"{convention} has no degree '{degree}'"):
        build_families(convention, {degree: 2})


@pytest.mark.parametrize("value", [0, -2, True, "4", 2.0, None])
@pytest.mark.parametrize("convention", sorted(CONVENTIONS))
def test_width_that_is_no_positive_integer_is_refused_with_its_value(convention: str, value: object) -> None:
    with pytest.raises(LayoutError, match=f"{convention} degree tp={value!r} is not a positive integer"):
        build_families(convention, {"tp": value})  # type: ignore[dict-item]


@pytest.mark.parametrize("order", ["tp-cp-ep-dp", "tp-tp-cp-ep-dp-pp", "tp-cp-ep-dp-xp", "", 3])
def test_megatron_order_that_is_no_order_of_its_degrees_is_refused_with_its_value(order: str | int) -> None:
    with pytest.raises(LayoutError, match=f"megatron order={order!r} is not an order of tp-cp-ep-dp-pp"):
        build_families("megatron", {"tp": 2, "order": order})


# check_family


@pytest.mark.parametrize(
    "groups",
    [((0, 1), (1, 2)), ((3, 1),), ((0, 1), (2, 3, 4)), ((0, 1), (1, 0))],
    ids=["ring", "few", "uneven", "both"],
)
def test_a_family_need_be_no_partition(groups: Groups) -> None:
    check_family("ring", groups)
    assert world_of(groups) == 1 + max(map(max, groups))


@pytest.mark.parametrize(
    ("groups", "offence"),
    [
        ((), "family 'ring' has no group"),
        (((0,), ()), "family 'ring' has an empty group"),
        (((1, 0, 0),), "family 'ring': rank 0 is 2 times in group [1, 0, 0]"),
        (((0, 1), (0, 1)), "family 'ring' has group [0, 1] 2 times"),
        (((0, -1), (1, 2)), "family 'ring' has rank -1; ranks are numbered from 0"),
        (((0, 5000),), "family world ring = 5001 is larger than 1024"),
    ],
)
def test_groups_that_are_no_family_are_refused_with_the_rank_or_group(groups: Groups, offence: str) -> None:
    with pytest.raises(LayoutError, match=f"^{re.escape(offence)}$"):
        check_family("ring", groups)


def test_overlapping_groups_fall_into_parts_of_which_no_two_overlap() -> None:
    a, b, c, d = (GroupId(ranks) for ranks in ((0, 1), (1, 2), (2, 3), (3, 0)))
    assert disjoint((a, b, c, d)) == [(a, c), (b, d)]


# divisors


@pytest.mark.parametrize(("number", "widths"), [(1, [1]), (7, [1, 7]), (12, [1, 2, 3, 4, 6, 12])])
def test_divisors_come_smallest_first(number: int, widths: list[int]) -> None:
    assert divisors(number) == widths


# communicators


def numbers(convention: str, **degrees: int) -> dict[str, list[int]]:
    families = build_families(convention, degrees)
    ids = number_groups(families, shared_families(convention, degrees))
    return {name: [group.number for group in family] for name, family in ids.items()}


@pytest.mark.parametrize(
    ("degrees", "same_as_tp"),
    [
        ({"tp": 4}, {"attn_tp", "moe_tp"}),
        ({"tp": 4, "ep": 4}, {"attn_tp", "moe_ep"}),
        ({"tp": 4, "attn_cp": 4}, {"attn_cp", "moe_dp", "moe_tp"}),
        ({"tp": 4, "attn_dp": 2, "ep": 2}, set()),
        ({"tp": 4, "attn_dp": 4, "moe_dp": 4}, {"moe_dp"}),
    ],
)
def test_a_family_of_sglang_that_is_as_wide_as_tp_has_its_communicators(
    degrees: dict[str, int], same_as_tp: set[str]
) -> None:
    families = build_families("sglang", degrees)
    ids = number_groups(families, shared_families("sglang", degrees))
    assert {name for name in ids if name != "tp" and ids[name] == ids["tp"]} == same_as_tp


def test_families_of_sglang_that_are_alike_and_narrower_have_communicators_of_their_own() -> None:
    found = numbers("sglang", tp=4, attn_dp=2, ep=2)
    assert (found["attn_tp"], found["moe_tp"]) == ([0, 0], [1, 1])


def test_every_family_of_vllm_has_communicators_of_its_own() -> None:
    found = numbers("vllm", tp=4, dcp=4)
    assert (found["tp"], found["ep"], found["dcp"]) == ([0], [1], [2])
    assert found["pp"] == [1] * 4, "dp is as narrow, and another family"


def test_equal_groups_share_one_where_a_layout_does_not_say() -> None:
    assert {*chain.from_iterable(numbers("megatron", tp=2, cp=2).values())} == {0}


EQUAL = {"a": ((0, 1), (2, 3)), "b": ((0, 1), (2, 3)), "c": ((0, 1), (3, 2))}


def test_a_family_that_shares_has_the_communicators_of_the_other() -> None:
    ids = number_groups(EQUAL, {"b": "a"})
    assert (ids["a"] == ids["b"], [group.number for group in ids["c"]]) == (True, [1, 0])


@pytest.mark.parametrize(
    ("shared", "reason"),
    [
        ({"b": "d"}, "family 'b' shares the communicators of 'd', which is no family"),
        ({"c": "a"}, "family 'c' shares the communicators of 'a' and has other groups"),
        ({"a": "b", "b": "a"}, "families 'a', 'b' share communicators in a circle"),
        ({"d": "a"}, "'d' shares communicators and is no family"),
    ],
)
def test_what_cannot_be_shared_is_refused_with_the_families(shared: dict[str, str], reason: str) -> None:
    with pytest.raises(LayoutError, match=reason):
        number_groups(EQUAL, shared)


def test_the_old_convention_of_megatron_names_the_one_that_has_expert_tp() -> None:
    with pytest.raises(LayoutError, match="megatron has no degree 'etp'; megatron-core has"):
        build_families("megatron", {"etp": 2})
