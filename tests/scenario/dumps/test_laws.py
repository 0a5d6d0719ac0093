"""Laws between families: each planted error breaks its law, and right layouts of all conventions break none."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from harness.scenario.dumps.dump import Layout
from harness.scenario.dumps.laws import LAWS, Broken, broken, remarks
from harness.scenario.layouts.conventions import CONVENTIONS
from harness.scenario.layouts.groups import Groups
from harness.scenario.topology import Topology, load, named
from tests.tools.layouts import exchanged, random_layouts


def laid_out(families: Mapping[str, Groups], world: int = 0) -> Layout:
    """Families of which all ranks are shown."""
    size = world or 1 + max(rank for groups in families.values() for group in groups for rank in group)
    return Layout(families, size, frozenset(range(size)))


def chunks(world: int, width: int) -> Groups:
    return tuple(tuple(range(start, start + width)) for start in range(0, world, width))


def strided(world: int, block: int, step: int) -> Groups:
    """In each block of ranks, every `step`-th rank."""
    starts = ((base, offset) for base in range(0, world, block) for offset in range(step))
    return tuple(tuple(range(base + offset, base + block, step)) for base, offset in starts)


DENSE = {"tp": chunks(16, 2), "cp": strided(16, 4, 2), "dp": strided(16, 8, 4), "pp": strided(16, 16, 8)}
"""tp 2, cp 2, dp 2, pp 2."""
EXPERTS = {"etp": chunks(16, 1), "ep": chunks(16, 4), "expert_dp": strided(16, 8, 4)}
"""etp 1, ep 4, expert dp 2."""

PLANTED: dict[str, tuple[str, dict[str, Groups], tuple[str, ...], int, Groups]] = {
    "a rank in two groups": (
        "one-group",
        {**DENSE, "dp": (*DENSE["dp"], (3, 8))},
        ("dp",),
        3,
        ((3, 7), (3, 8)),
    ),
    "a group that lost a rank": ("one-size", {"tp": ((0, 1), (2, 3), (4,))}, ("tp",), 4, ((4,), (0, 1))),
    "sequence groups of consecutive ranks": (
        "one-rank-in-common",
        {"tp": chunks(4, 2), "ulysses": chunks(4, 2)},
        ("tp", "ulysses"),
        0,
        ((0, 1), (0, 1)),
    ),
    "cp groups of consecutive ranks": (
        "one-rank-in-common",
        {**DENSE, "cp": chunks(16, 2)},
        ("tp", "cp"),
        0,
        ((0, 1), (0, 1)),
    ),
    "two ranks of a dp group exchanged": (
        "same-place",
        {"tp": chunks(4, 2), "dp": ((0, 3), (1, 2))},
        ("tp", "dp"),
        0,
        ((0, 1), (2, 3), (0, 3)),
    ),
    "a chain in place of a grid": (
        "whole-grid",
        {"tp": chunks(8, 2), "cp": ((0, 2), (4, 6), (3, 5), (7, 1))},
        ("tp", "cp"),
        0,
        ((0, 1), (0, 2)),
    ),
    "pp groups of one stage": (
        "whole-stage",
        {**DENSE, "pp": chunks(16, 1)},
        ("tp", "cp", "dp", "pp"),
        0,
        ((0, 1, 2, 3, 4, 5, 6, 7), (0,)),
    ),
    "experts on a part of the ranks": (
        "same-ranks-for-experts",
        {**DENSE, **EXPERTS, "expert_dp": chunks(16, 1)},
        ("tp", "cp", "dp", "etp", "ep", "expert_dp"),
        0,
        ((0, 1, 2, 3, 4, 5, 6, 7), (0, 1, 2, 3)),
    ),
    "ep of one rank under tp": (
        "same-ranks-for-experts",
        {"tp": chunks(4, 4), "ep": chunks(4, 1)},
        ("tp", "ep"),
        0,
        ((0, 1, 2, 3), (0,)),
    ),
    "ep without dp in vLLM": (
        "same-ranks-for-experts",
        {"tp": chunks(8, 2), "pcp": chunks(8, 1), "dp": strided(8, 8, 2), "ep": chunks(8, 2)},
        ("tp", "pcp", "dp", "ep"),
        0,
        ((0, 1, 2, 3, 4, 5, 6, 7), (0, 1)),
    ),
    "moe groups across tp groups": (
        "same-ranks-for-experts",
        {"tp": chunks(8, 4), "attn_tp": chunks(8, 4), "moe_tp": chunks(8, 1), "moe_ep": strided(8, 8, 2)},
        ("tp", "moe_tp", "moe_ep"),
        0,
        ((0, 1, 2, 3), (0, 2, 4, 6)),
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_error_breaks_its_law_at_its_first_rank(name: str) -> None:
    law, families, names, rank, groups = PLANTED[name]
    found = broken(laid_out(families))
    assert [(each.law, each.families, each.rank, each.groups) for each in found[:1]] == [(law, names, rank, groups)]


def test_every_law_has_a_planted_error_and_a_reason() -> None:
    assert {law for law, *_ in PLANTED.values()} == LAWS.keys()


# right layouts


def laws_of(layout: Topology) -> list[Broken]:
    return broken(Layout.of(layout))


@pytest.mark.parametrize("families", [DENSE, {**DENSE, **EXPERTS}], ids=["dense", "with experts"])
def test_the_layouts_that_errors_are_planted_in_are_right(families: dict[str, Groups]) -> None:
    assert (broken(laid_out(families)), remarks(laid_out(families))) == ([], [])


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_right_layouts_of_a_convention_break_no_law(convention: str) -> None:
    assert [found for layout in random_layouts(convention, 40) for found in laws_of(layout)] == []


@pytest.mark.parametrize("stem", named())
def test_a_topology_that_ships_breaks_no_law(stem: str) -> None:
    assert laws_of(load(named()[stem])) == []


@pytest.mark.parametrize("convention", ["sglang", "vllm", "megatron-core", "tensorrt-llm", "torchtitan"])
def test_the_groups_of_some_ranks_break_no_law(convention: str) -> None:
    """As in the dump of one rank, or of a part of the ranks."""
    drawn = random.Random(convention)
    for layout in random_layouts(convention, 40):
        ranks = {rank for rank in range(layout.world) if drawn.random() < 0.4} or {0}
        some = {name: tuple(g for g in groups if ranks & {*g}) for name, groups in layout.families.items()}
        some = {name: groups for name, groups in some.items() if groups}
        assert broken(Layout(some, layout.world, frozenset(ranks))) == []


def test_two_ranks_exchanged_along_one_axis_break_a_law() -> None:
    drawn = random.Random(0)
    for name in ("tp", "cp", "dp", "pp"):
        for _ in range(20):
            one, other = drawn.sample(range(16), 2)
            wrong = exchanged(DENSE[name], one, other)
            if {frozenset(group) for group in wrong} != {frozenset(group) for group in DENSE[name]}:
                assert broken(laid_out({**DENSE, name: wrong}))


# what no law forbids


def test_groups_that_overlap_or_leave_ranks_out_break_no_law_where_they_are_no_axis() -> None:
    families: dict[str, Groups] = {"tp": chunks(4, 4), "next": ((0, 1), (1, 2), (2, 3), (3, 0)), "embedding": ((0, 3),)}
    assert broken(laid_out(families)) == []


def test_unequal_groups_of_no_axis_are_a_remark() -> None:
    families: dict[str, Groups] = {"embedding": ((0, 3), (1,), (2,))}
    assert remarks(laid_out(families)) == ["groups of embedding have 1 or 2 ranks"]


def test_ranks_outside_of_an_axis_are_a_remark_where_they_show_their_groups() -> None:
    families: dict[str, Groups] = {"tp": ((0, 1), (2, 3))}
    assert remarks(laid_out(families, 6)) == ["2 of 6 ranks are in no group of tp; the first is rank 4"]
    assert remarks(Layout(families, 6, frozenset())) == []


def test_axes_that_do_not_make_up_the_world_are_a_remark_where_one_may_not_be_shown() -> None:
    families = {name: DENSE[name] for name in ("tp", "dp", "pp")}
    (found,) = remarks(laid_out(families))
    assert found.startswith("tp 2 · dp 2 · pp 2 = 8 of 16 ranks")
    assert broken(laid_out(families)) == []


def test_letters_that_vllm_uses_for_something_else_break_no_law() -> None:
    families = {
        "tp": chunks(8, 2),
        "pcp": chunks(8, 1),
        "dp": strided(8, 8, 2),
        "ep": chunks(8, 8),
        "etp": chunks(8, 4),
    }
    assert broken(laid_out(families)) == []
